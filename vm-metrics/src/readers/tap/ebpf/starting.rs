//! Tells the start, in which TAPs wait because attaching is paced, from a fault.

use std::time::{Duration, Instant};

use crate::readers::{ReadReport, ReaderError};

/// Twice what a TAP takes at the pace of `budget`.
const PER_TAP: Duration = Duration::from_millis(200);

/// For a start in which others need the CPU.
const AT_LEAST: Duration = Duration::from_secs(10);

/// Whether TAPs of the start still wait for the programs.
#[derive(Debug, Default)]
pub(crate) struct Starting {
    /// Who makes TAPs without end must not make the start last as long.
    until: Option<Instant>,
    is_over: bool,
}

impl Starting {
    /// Takes what waits for an error once the start is over.
    pub(crate) fn note(&mut self, report: &mut ReadReport) {
        self.note_at(Instant::now(), report);
    }

    fn note_at(&mut self, now: Instant, report: &mut ReadReport) {
        let taps = report.waiting;
        let enough = || now + AT_LEAST + PER_TAP * u32::try_from(taps).unwrap_or(u32::MAX);
        self.is_over |= taps == 0 || now > *self.until.get_or_insert_with(enough);
        if self.is_over && taps > 0 {
            report.waiting = 0;
            report.error(ReaderError::Waiting { taps });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_ends_once_and_in_time() {
        let start = Instant::now();
        let waits = |starting: &mut Starting, after: Duration, waiting| {
            let mut report = ReadReport { waiting, ..ReadReport::default() };
            starting.note_at(start + after, &mut report);
            (report.waiting, report.errors, report.absent)
        };
        let mut starting = Starting::default();
        assert_eq!(waits(&mut starting, Duration::ZERO, 90), (90, 0, 0));
        assert_eq!(waits(&mut starting, AT_LEAST, 10), (10, 0, 0));
        assert_eq!(waits(&mut starting, AT_LEAST, 0), (0, 0, 0));
        assert_eq!(waits(&mut starting, AT_LEAST, 10), (0, 1, 1), "a later burst is no start");
        let mut endless = Starting::default();
        assert_eq!(waits(&mut endless, Duration::ZERO, 10), (10, 0, 0));
        assert_eq!(waits(&mut endless, 2 * AT_LEAST, 10), (0, 1, 1));
    }
}
