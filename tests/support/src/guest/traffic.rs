//! Guest traffic of known size, and the guest's own counters.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Guest;
use crate::wait::{SOON, scaled, wait_until};

/// Time limit of a transfer of any size.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(120);

/// A line of the guest's `/proc/net/dev`: `rx` is the guest's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
}

impl Guest {
    /// Sends echo requests, each after the reply to the last, and requires all replies. A frame has 42 bytes more than
    /// the payload. The first ping of an interface adds an ARP exchange of 42 bytes each way.
    pub fn ping(&mut self, to: Ipv4Addr, count: u32, payload: u32) -> Result<()> {
        let message = self.run(&format!("ping -A -c {count} -s {payload} {to}"))?;
        let all = format!("{count} packets transmitted, {count} packets received");
        ensure!(message.contains(&all), "not every ping was answered:\n{message}");
        Ok(())
    }

    /// Sends so many bytes over TCP from the guest to the host's address on an interface.
    pub fn send_to_host(&mut self, nic: usize, bytes: u64) -> Result<()> {
        let (listener, command) =
            self.listen(nic, |address| format!("head -c {bytes} /dev/zero | nc {address}"))?;
        self.start(&command)?;
        let mut stream = accept(&listener)?;
        let received = io::copy(&mut stream, &mut io::sink()).context("receive from the guest")?;
        drop(stream);
        self.finish(TRANSFER_DEADLINE, &command)?;
        ensure!(received == bytes, "{received} of {bytes} bytes came from the guest");
        Ok(())
    }

    /// Receives so many bytes over TCP in the guest from the host's address on an interface.
    pub fn receive_from_host(&mut self, nic: usize, bytes: u64) -> Result<()> {
        let (listener, command) = self.listen(nic, |address| format!("nc {address} | wc -c"))?;
        self.start(&command)?;
        let mut stream = accept(&listener)?;
        io::copy(&mut io::repeat(0).take(bytes), &mut stream).context("send to the guest")?;
        stream.flush().context("send to the guest")?;
        drop(stream);
        let received = self.finish(TRANSFER_DEADLINE, &command)?;
        ensure!(
            received.trim() == bytes.to_string(),
            "{} of {bytes} bytes came to the guest",
            received.trim()
        );
        Ok(())
    }

    /// The host listens in both cases, so that the guest's connect succeeds at once without retries.
    fn listen(&self, nic: usize, command: impl FnOnce(&str) -> String) -> Result<(TcpListener, String)> {
        let host = self.config().nics[nic].host;
        let listener = TcpListener::bind((host, 0)).with_context(|| format!("listen on {host}"))?;
        listener.set_nonblocking(true).context("make the listener not block")?;
        let port = listener.local_addr().context("ask for the listener's port")?.port();
        Ok((listener, command(&format!("{host} {port}"))))
    }
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let stream = wait_until(SOON, "the guest to connect", || match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("accept a connection from the guest"),
    })?;
    stream.set_nonblocking(false).context("make the connection block")?;
    stream.set_read_timeout(Some(scaled(TRANSFER_DEADLINE))).context("set the read timeout")?;
    stream.set_write_timeout(Some(scaled(TRANSFER_DEADLINE))).context("set the write timeout")?;
    Ok(stream)
}

pub(super) fn parse_net_dev(text: &str) -> Result<BTreeMap<String, LinkCounts>> {
    let mut links = BTreeMap::new();
    // Two lines of headings.
    for line in text.lines().skip(2) {
        let (name, numbers) = line.split_once(':').with_context(|| format!("no interface in {line:?}"))?;
        let numbers: Result<Vec<u64>, _> = numbers.split_ascii_whitespace().map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("no numbers in {line:?}"))?;
        ensure!(numbers.len() == 16, "not 16 numbers in {line:?}");
        let counts = LinkCounts {
            rx_bytes: numbers[0],
            rx_packets: numbers[1],
            tx_bytes: numbers[8],
            tx_packets: numbers[9],
        };
        links.insert(name.trim().to_owned(), counts);
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_net_dev() {
        let text = "Inter-| Receive | Transmit\n face |bytes\n  eth0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n    \
            lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n";
        let links = parse_net_dev(text).unwrap();
        assert_eq!(links["eth0"], LinkCounts { rx_bytes: 1, rx_packets: 2, tx_bytes: 3, tx_packets: 4 });
        assert_eq!(links["lo"], LinkCounts::default());
        assert!(parse_net_dev("a\nb\neth0: 1\n").is_err());
    }
}
