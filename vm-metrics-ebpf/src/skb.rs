//! Predicts the device's count of a frame from kernel structures.
//!
//! Rust cannot relocate field offsets, so user space finds them in the kernel's BTF and sets [`LAYOUT`].

use core::ffi::c_void;

use crate::memory::read;
use vm_metrics_common::{Layout, Traffic};

#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout::UNKNOWN;

/// Reads a field of the layout: volatile, because the compiler must not assume the zeroes above.
macro_rules! at {
    ($field:ident) => {
        // SAFETY: a valid, aligned address of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::skb::LAYOUT.$field) as usize }
    };
}
const VLAN_LEN: u32 = 4;
const UDP_LEN: u32 = 8;

/// Shift from the bits of `gso_type` to the same device features.
const FEATURES_SHIFT: u32 = 16;
const TCPV4: u32 = 1 << 0;
/// Set for an untrusted sender: the kernel verifies the frame again, but segments it like others.
const DODGY: u32 = 1 << 1;
const TCPV6: u32 = 1 << 4;
/// GRE, IP in IP, UDP tunnels, with and without checksum.
const TUNNELS: u32 = 0b11_1111 << 6;
/// UDP in IP fragments.
const UDP_FRAGMENTS: u32 = 1 << 16;

/// A frame of the kernel, at or after tc egress of its device.
#[derive(Clone, Copy)]
pub struct Skb(*const c_void);

impl Skb {
    #[inline(always)]
    pub fn new(skb: *const c_void) -> Self {
        Self(skb)
    }

    /// Returns the device; `None` also without the layout of this kernel.
    #[inline(always)]
    pub fn device(self) -> Option<*const c_void> {
        if at!(known) == 0 {
            return None;
        }
        read::<*const c_void>(self.0, at!(skb_dev)).filter(|dev| !dev.is_null())
    }

    /// Returns the frame as it is, tag included.
    #[inline(always)]
    pub fn whole(self) -> Option<Traffic> {
        let len = read::<u32>(self.0, at!(skb_len))? + self.tag_len()?;
        Some(Traffic { packets: 1, bytes: u64::from(len) })
    }

    /// Returns the device's count on delivery: the kernel segments frames that the device does not take whole.
    #[inline(always)]
    pub fn delivered(self, dev: *const c_void) -> Option<Traffic> {
        let whole = self.whole()?;
        let head = read::<*const c_void>(self.0, at!(skb_head))?;
        // An offset from the head on every 64-bit kernel.
        let shared = head.wrapping_byte_add(read::<u32>(self.0, at!(skb_end))? as usize);
        let gso_size = u64::from(read::<u16>(shared, at!(shared_gso_size))?);
        if gso_size == 0 {
            return Some(whole);
        }
        let gso_type = read::<u32>(shared, at!(shared_gso_type))?;
        let needed = u64::from(gso_type & !DODGY) << FEATURES_SHIFT;
        let features = read::<u64>(dev, at!(dev_features))?;
        let max_len = u64::from(read::<u32>(dev, at!(dev_gso_max_size))?);
        if features & needed == needed && whole.bytes < max_len {
            return Some(whole);
        }
        let headers = u64::from(self.headers(head, gso_type)?);
        let packets = whole.bytes.saturating_sub(headers).div_ceil(gso_size).max(1);
        Some(Traffic { packets, bytes: whole.bytes + (packets - 1) * headers })
    }

    /// Returns the length of the headers, which every segment repeats.
    #[inline(always)]
    fn headers(self, head: *const c_void, gso_type: u32) -> Option<u32> {
        let transport =
            if gso_type & TUNNELS != 0 { at!(skb_inner_transport_header) } else { at!(skb_transport_header) };
        let transport = u32::from(read::<u16>(self.0, transport)?);
        let mac = u32::from(read::<u16>(self.0, at!(skb_mac_header))?);
        let transport_len = if gso_type & (TCPV4 | TCPV6) != 0 {
            u32::from(read::<u8>(head, transport as usize + 12)? >> 4) * 4
        } else if gso_type & UDP_FRAGMENTS != 0 {
            0
        } else {
            UDP_LEN
        };
        Some(transport.wrapping_sub(mac) + transport_len + self.tag_len()?)
    }

    /// Returns the length of the outer VLAN tag, which the kernel keeps beside the frame if the device can insert it.
    #[inline(always)]
    fn tag_len(self) -> Option<u32> {
        let tag = read::<u32>(self.0, at!(skb_vlan))?;
        Some(if tag & at!(skb_vlan_mask) as u32 == 0 { 0 } else { VLAN_LEN })
    }
}
