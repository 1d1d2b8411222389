//! System calls without a safe form in rustix.
//!
//! Only this module, [`crate::child`] and [`crate::netns`] have unsafe code.

pub(crate) mod bpf;

use std::ffi::c_int;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Makes an interface request for the device of this name.
pub(crate) fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    // The kernel needs the closing zero inside the array.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("bad device name {name:?}")));
    }
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// Runs an ioctl on a `struct ifreq` that writes at most into it: `SIOC[GS]IF*`, `TUNSETIFF`.
pub(crate) fn ioctl_ifreq(fd: impl AsFd, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the callers pass codes of requests on struct ifreq only, and it outlives the call.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), code, request) })
}

/// Returns the flags that SIOCGIFFLAGS wrote into the request.
pub(crate) fn flags(request: &libc::ifreq) -> i16 {
    // SAFETY: every bit pattern is a valid i16.
    unsafe { request.ifr_ifru.ifru_flags }
}

/// Returns the hardware address that SIOCGIFHWADDR wrote into the request.
pub(crate) fn hardware_address(request: &libc::ifreq) -> [u8; 6] {
    // SAFETY: every bit pattern is a valid sockaddr.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    std::array::from_fn(|i| address.sa_data[i].cast_unsigned())
}

/// Makes an IPv4 address in the form of SIOCSIFADDR and SIOCSIFNETMASK.
pub(crate) fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..].iter_mut().zip(address.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

/// Runs an ioctl whose argument is a number: TUNSETOFFLOAD, TUNSETPERSIST, KVM_RUN.
pub(crate) fn ioctl_value(fd: impl AsFd, code: libc::c_ulong, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the callers pass codes of requests that take a number, so that no memory is read or written.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), code, value) })
}

/// Runs an ioctl on a number that returns a new descriptor: KVM_CREATE_VM, KVM_CREATE_VCPU.
pub(crate) fn ioctl_descriptor(
    fd: impl AsFd,
    code: libc::c_ulong,
    value: libc::c_ulong,
) -> io::Result<OwnedFd> {
    // SAFETY: the callers pass codes of requests that take a number, so that no memory is read or written.
    let descriptor = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), code, value) };
    check(descriptor)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Gives a KVM VM a page of memory at this address, with these bytes in it.
pub(crate) fn give_kvm_page(vm: impl AsFd, address: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
    const PAGE: usize = 4096;
    const KVM_SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;
    #[repr(C, align(4096))]
    struct Page([u8; PAGE]);
    /// `struct kvm_userspace_memory_region`
    #[repr(C)]
    struct Region {
        slot: u32,
        flags: u32,
        guest_address: u64,
        size: u64,
        address: u64,
    }
    // The VM keeps the page as long as the process lives.
    let page = Box::leak(Box::new(Page([0; PAGE])));
    page.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    let address_here = page.0.as_mut_ptr() as u64;
    let region =
        Region { slot: 0, flags: 0, guest_address: address, size: PAGE as u64, address: address_here };
    // SAFETY: the kernel reads the region, which outlives the call; the page is never freed or used again.
    check(unsafe { libc::ioctl(vm.as_fd().as_raw_fd(), KVM_SET_USER_MEMORY_REGION, &raw const region) })
}

/// Runs an ioctl that reads one number: TUNSETIFINDEX.
pub(crate) fn ioctl_u32(fd: impl AsFd, code: libc::c_ulong, value: u32) -> io::Result<()> {
    // SAFETY: the callers pass codes of requests that read an unsigned int, and it outlives the call.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), code, &raw const value) })
}

/// Makes a TAP refuse guest frames to any other address (TUNSETTXFILTER).
pub(crate) fn set_tun_address_filter(fd: impl AsFd, address: [u8; 6]) -> io::Result<()> {
    /// `struct tun_filter`
    #[repr(C)]
    struct Filter {
        flags: u16,
        count: u16,
        address: [u8; 6],
    }
    let filter = Filter { flags: 0, count: 1, address };
    // SAFETY: the kernel reads the filter with its own count of addresses, and it outlives the call.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETTXFILTER, &raw const filter) })
}

/// Makes a TAP refuse all guest frames by a socket filter of one instruction (TUNATTACHFILTER).
pub(crate) fn refuse_all_on_tun(fd: impl AsFd) -> io::Result<()> {
    const RETURN: u16 = 6;
    let mut refuse = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: refuse.as_mut_ptr() };
    // SAFETY: the kernel reads the program and `len` instructions, which both outlive the call, and keeps a copy.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNATTACHFILTER, &raw const program) })
}

/// Binds the packet socket to this device only.
pub(crate) fn bind_packet_socket(fd: impl AsFd, ifindex: u32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_ifindex = ifindex.cast_signed();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of a local sockaddr_ll.
    check(unsafe { libc::bind(fd.as_fd().as_raw_fd(), (&raw const address).cast(), length) })
}

/// Makes frames on the packet socket begin with a virtio-net header.
pub(crate) fn expect_vnet_header(fd: impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of a local int.
    check(unsafe {
        libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, (&raw const on).cast(), length)
    })
}

/// Returns the CPU time of a process with all its threads, also the ended ones.
pub fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is that of a local clock id.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of a local timespec.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
