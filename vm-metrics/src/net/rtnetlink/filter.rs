//! Has the kernel drop events of devices that no VM can have.
//!
//! Whoever may make devices in a namespace can have thousands of them flap. What is dropped here wakes nobody.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::reply::{RTM_DELLINK, RTM_NEWLINK};

/// Which events of TUN, TAP, macvtap and ipvtap devices are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All.
    Any,
    /// Those that say that a device has come into the namespace, or has gone.
    ComeAndGo,
}

/// Before this the events are not those that are wanted: take what is there first.
pub(super) fn attach(socket: impl AsFd, wanted: Wanted) -> io::Result<()> {
    let mut program = program(wanted);
    let len = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of_val(&filter)).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the kernel reads one `sock_fprog` and `len` instructions, which both live on, and keeps a copy.
    let failed = unsafe {
        let (socket, filter) = (socket.as_fd().as_raw_fd(), (&raw const filter).cast());
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, filter, size)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Offsets in a message: `struct nlmsghdr`, then `struct ifinfomsg`, then attributes.
const TYPE: u32 = 4;
const CHANGE: u32 = 28;
const ATTRIBUTES: u32 = 32;

const IFLA_LINKINFO: u32 = 18;
const IFLA_INFO_KIND: u32 = 1;

/// `ifi_change` of a device that has just been registered in the namespace.
const NEW: u32 = u32::MAX;

/// Loads at these offsets look for the attribute `X` from `A` on, among its neighbours and among its children.
const NEIGHBOUR: u32 = (libc::SKF_AD_OFF + 12).cast_unsigned();
const CHILD: u32 = (libc::SKF_AD_OFF + 16).cast_unsigned();

/// Classic BPF. A load beyond the message drops it.
fn program(wanted: Wanted) -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_ABS;
    let word = |offset| op(LOAD | libc::BPF_W, offset);
    let after_deleted = if wanted == Wanted::ComeAndGo { 3 } else { 1 };
    let mut program = vec![
        op(LOAD | libc::BPF_H, TYPE),
        equal(native(RTM_DELLINK), after_deleted, 0),
        equal(native(RTM_NEWLINK), 0, DROP),
    ];
    if wanted == Wanted::ComeAndGo {
        program.extend([word(CHANGE), equal(NEW, 0, DROP)]);
    }
    program.extend([
        op(libc::BPF_LDX | libc::BPF_IMM, IFLA_LINKINFO),
        op(libc::BPF_LD | libc::BPF_IMM, ATTRIBUTES),
        word(NEIGHBOUR),
        equal(0, DROP, 0),
        op(libc::BPF_LDX | libc::BPF_IMM, IFLA_INFO_KIND),
        word(CHILD),
        equal(0, DROP, 0),
        op(libc::BPF_MISC | libc::BPF_TAX, 0),
        op(libc::BPF_LD | libc::BPF_IND | libc::BPF_W, 4),
        equal(u32::from_be_bytes(*b"tun\0"), 6, 0),
        equal(u32::from_be_bytes(*b"macv"), 3, 0),
        equal(u32::from_be_bytes(*b"ipvt"), 0, DROP),
        op(libc::BPF_LD | libc::BPF_IND | libc::BPF_W, 8),
        // The kernel fills up with zeros.
        equal(u32::from_be_bytes(*b"ap\0\0"), 2, DROP),
        op(libc::BPF_LD | libc::BPF_IND | libc::BPF_W, 8),
        equal(u32::from_be_bytes(*b"tap\0"), 0, DROP),
        op(libc::BPF_RET, u32::MAX),
        op(libc::BPF_RET, 0),
    ]);
    drop_at_the_end(&mut program);
    program
}

/// Stands for a jump to the last instruction.
const DROP: u8 = u8::MAX;

fn drop_at_the_end(program: &mut [libc::sock_filter]) {
    let last = program.len() - 1;
    for (at, op) in program.iter_mut().enumerate() {
        let to_last = u8::try_from(last.saturating_sub(at + 1)).unwrap_or(u8::MAX);
        for jump in [&mut op.jt, &mut op.jf] {
            if *jump == DROP {
                *jump = to_last;
            }
        }
    }
}

fn op(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt: 0, jf: 0, k }
}

fn equal(value: u32, then: u8, otherwise: u8) -> libc::sock_filter {
    let jump = op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value);
    libc::sock_filter { jt: then, jf: otherwise, ..jump }
}

/// A number of the kernel's own order, as a load sees it.
fn native(value: u16) -> u32 {
    u16::from_be_bytes(value.to_ne_bytes()).into()
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

    use super::*;
    use crate::net::rtnetlink::reply::tests::{attribute, message};

    /// A message about a device of this kind.
    fn about(kind: u16, change: u32, info_kind: &[u8]) -> Vec<u8> {
        let header = [0, 7, 0, change].map(u32::to_ne_bytes).concat();
        let pad = |mut attribute: Vec<u8>| {
            attribute.resize(attribute.len().next_multiple_of(4), 0);
            attribute
        };
        let name = pad(attribute(3, b"tap0\0"));
        let info = attribute(18, &pad(attribute(1, info_kind)));
        message(kind, 0, 0, &[header, name, pad(info)].concat())
    }

    fn passes(wanted: Wanted, datagram: &[u8]) -> bool {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        attach(&ours, wanted).unwrap();
        send(&theirs, datagram, SendFlags::empty()).ok();
        recv(&ours, &mut [0; 512], RecvFlags::DONTWAIT).is_ok()
    }

    #[test]
    fn only_devices_that_a_vm_can_have_pass() {
        for kind in [&b"tun\0"[..], b"macvtap\0", b"ipvtap\0"] {
            assert!(passes(Wanted::Any, &about(RTM_NEWLINK, 1, kind)), "{kind:?}");
            assert!(passes(Wanted::Any, &about(RTM_DELLINK, NEW, kind)), "{kind:?}");
        }
        for kind in [&b"veth\0"[..], b"macvlan\0", b"ipvlan\0", b"tunl0\0", b"t\0", b""] {
            assert!(!passes(Wanted::Any, &about(RTM_NEWLINK, 1, kind)), "{kind:?}");
            assert!(!passes(Wanted::Any, &about(RTM_DELLINK, NEW, kind)), "{kind:?}");
        }
        assert!(!passes(Wanted::Any, &about(20, 1, b"tun\0")), "an address");
        assert!(!passes(Wanted::Any, &message(RTM_NEWLINK, 0, 0, &[0; 16])), "no kind");
        assert!(!passes(Wanted::Any, &[0; 4]));
    }

    #[test]
    fn a_flap_is_not_a_coming() {
        let passes = |kind, change| passes(Wanted::ComeAndGo, &about(kind, change, b"tun\0"));
        assert!(passes(RTM_NEWLINK, NEW) && passes(RTM_DELLINK, NEW));
        assert!(!passes(RTM_NEWLINK, 1) && !passes(RTM_NEWLINK, 0));
    }
}
