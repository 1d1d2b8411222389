//! The table that the demo prints.

use std::fmt::Write as _;

/// One VM with rates per second from the guest's side. `None` was not measured.
#[derive(Debug, Default)]
pub struct Row {
    pub vm: String,
    pub tap: String,
    pub source: Option<&'static str>,
    pub rx_packets: Option<f64>,
    pub rx_bits: Option<f64>,
    pub tx_packets: Option<f64>,
    pub tx_bits: Option<f64>,
    pub cpu_percent: Option<f64>,
    pub rss_bytes: Option<f64>,
}

const HEADINGS: [&str; 9] =
    ["VM", "TAP", "SOURCE", "RX pkt/s", "RX Mbit/s", "TX pkt/s", "TX Mbit/s", "CPU %", "RSS MiB"];

/// Number of text columns on the left; the others are numbers.
const WORDS: usize = 3;

const MEGA: f64 = 1e6;
const MIB: f64 = 1_048_576.0;

pub fn render(rows: &[Row]) -> String {
    let cells: Vec<[String; 9]> = rows.iter().map(cells).collect();
    let mut text = line(&HEADINGS.map(str::to_owned));
    text.extend(cells.iter().map(line));
    text
}

fn cells(row: &Row) -> [String; 9] {
    [
        row.vm.clone(),
        row.tap.clone(),
        row.source.unwrap_or(UNKNOWN).to_owned(),
        number(row.rx_packets, 0),
        number(row.rx_bits.map(|bits| bits / MEGA), 2),
        number(row.tx_packets, 0),
        number(row.tx_bits.map(|bits| bits / MEGA), 2),
        number(row.cpu_percent, 1),
        number(row.rss_bytes.map(|bytes| bytes / MIB), 1),
    ]
}

const UNKNOWN: &str = "-";

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value:.decimals$}"))
}

fn line(cells: &[String; 9]) -> String {
    let mut line = String::new();
    for (column, cell) in cells.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = if column < WORDS { write!(line, "{cell:<10}") } else { write!(line, "{cell:>11}") };
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmeasured_values_are_not_zero() {
        let row = Row {
            vm: "web-0".to_owned(),
            source: Some("ebpf"),
            tx_bits: Some(1_500_000.0),
            rx_packets: Some(0.0),
            ..Row::default()
        };
        let text = render(&[row]);
        let values: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(values, ["web-0", "ebpf", "0", "-", "-", "1.50", "-", "-"]);
    }

    #[test]
    fn columns_are_aligned() {
        let text = render(&[Row { rss_bytes: Some(MIB), ..Row::default() }]);
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lengths[0], lengths[1]);
    }
}
