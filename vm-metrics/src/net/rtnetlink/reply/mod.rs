//! Reads the datagrams of the kernel, without I/O and never beyond their end.

mod messages;

use std::io;

use netlink_packet_core::{
    DecodeError, DoneBuffer, ErrorBuffer, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLMSG_ALIGNTO, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer,
};

pub(crate) use self::messages::DeletedDevice;
#[cfg(feature = "ebpf")]
pub(super) use self::messages::qdisc;
pub(super) use self::messages::{NamedDevice, RTM_DELLINK, RTM_NEWLINK, appeared, deleted, link, link_stats};

/// What a datagram says of the answer as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Datagram {
    /// Nothing follows.
    pub(super) done: bool,
    pub(super) interrupted: bool,
}

/// Hands over the type and payload of each message that answers the question `sequence`.
///
/// # Errors
/// The error number with which the kernel refuses, or what is wrong with the bytes.
pub(super) fn read<'d>(
    datagram: &'d [u8],
    sequence: u32,
    mut each: impl FnMut(u16, &'d [u8]) -> Result<(), DecodeError>,
) -> io::Result<Datagram> {
    let mut said = Datagram::default();
    let mut rest = datagram;
    while !rest.is_empty() && !said.done {
        let message = NetlinkBuffer::new_checked(rest).map_err(bad)?;
        let len = (message.length() as usize).next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(len..).unwrap_or_default();
        if message.sequence_number() != sequence {
            continue;
        }
        said.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_NOOP => {}
            NLMSG_DONE => {
                // Old kernels say nothing of how the dump went.
                let code = DoneBuffer::new_checked(message.payload()).map_or(0, |done| done.code());
                refused(code)?;
                said.done = true;
            }
            NLMSG_ERROR => {
                let error = ErrorBuffer::new_checked(message.payload()).map_err(bad)?;
                refused(error.code().map_or(0, i32::from))?;
                said.done = true;
            }
            kind => {
                each(kind, message.payload()).map_err(bad)?;
                said.done = message.flags() & NLM_F_MULTIPART == 0;
            }
        }
    }
    Ok(said)
}

/// Hands over the type and payload of each message, whoever's question has led to it.
pub(super) fn unasked<'d>(
    datagram: &'d [u8],
    mut each: impl FnMut(u16, &'d [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)?;
        let len = (message.length() as usize).next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(len..).unwrap_or_default();
        each(message.message_type(), message.payload())?;
    }
    Ok(())
}

pub(super) fn bad(problem: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

fn refused(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
}

#[cfg(test)]
pub(super) mod tests;
