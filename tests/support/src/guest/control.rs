//! A serial port to the guest's shell, as a socket.
//!
//! `init.sh` is the other side.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::child::ChildProcess;
use crate::wait::{Deadline, SOON, wait_until};

#[derive(Debug)]
pub(super) struct Control {
    stream: UnixStream,
}

impl Control {
    pub(super) fn connect(socket: &Path, qemu: &mut ChildProcess) -> Result<Self> {
        let stream = wait_until(SOON, "QEMU to listen for us", || {
            qemu.check_running()?;
            Ok(UnixStream::connect(socket).ok())
        })?;
        Ok(Self { stream })
    }

    pub(super) fn wait_for_ready(&mut self, deadline: Duration) -> Result<()> {
        let line = self.line(&mut Deadline::after(deadline)).context("wait for the guest to boot")?;
        ensure!(line == "ready", "the guest's first word is {line:?}");
        Ok(())
    }

    pub(super) fn send(&mut self, command: &str) -> Result<()> {
        ensure!(!command.contains('\n'), "one line at a time: {command:?}");
        self.stream.write_all(format!("{command}\n").as_bytes()).context("send a command to the guest")
    }

    /// Returns exit status and output of the last command.
    pub(super) fn receive(&mut self, deadline: Duration) -> Result<(i32, String)> {
        let mut end = Deadline::after(deadline);
        let line = self.line(&mut end)?;
        let numbers =
            line.split_once(' ').and_then(|(s, n)| Some((s.parse().ok()?, n.parse::<usize>().ok()?)));
        let (status, length) = numbers.with_context(|| format!("no answer to a command: {line:?}"))?;
        let mut output = vec![0; length];
        self.fill(&mut output, &mut end)?;
        Ok((status, String::from_utf8_lossy(&output).into_owned()))
    }

    fn line(&mut self, end: &mut Deadline) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.fill(&mut byte, end)?;
            match byte[0] {
                b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                other => line.push(other),
            }
        }
    }

    fn fill(&mut self, mut buffer: &mut [u8], end: &mut Deadline) -> Result<()> {
        while !buffer.is_empty() {
            let left = end.block().context("the guest has not answered in time")?;
            self.stream.set_read_timeout(Some(left)).context("set the read timeout")?;
            match self.stream.read(buffer) {
                Ok(0) => bail!("the guest is gone"),
                Ok(length) => buffer = &mut buffer[length..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("read from the guest"),
            }
        }
        Ok(())
    }
}
