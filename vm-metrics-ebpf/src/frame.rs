//! Classifies a frame by its headers.
//!
//! One bounds check covers all bytes that classify a frame. Only extension headers and GSO frames need more.

use core::hint::black_box;
use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use vm_metrics_common::Traffic;

const ETH_LEN: usize = 14;
const VLAN_LEN: usize = 4;

// EtherTypes as they are in a frame.
pub const ETH_P_IP: u16 = 0x0800_u16.to_be();
pub const ETH_P_ARP: u16 = 0x0806_u16.to_be();
const ETH_P_8021Q: u16 = 0x8100_u16.to_be();
const ETH_P_8021AD: u16 = 0x88a8_u16.to_be();
pub const ETH_P_IPV6: u16 = 0x86dd_u16.to_be();

const IPPROTO_HOPOPTS: u8 = 0;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_DSTOPTS: u8 = 60;

const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;

/// IPv6 extension headers that it skips before a packet counts as "other".
const MAX_EXTENSIONS: usize = 4;

/// A bound for the verifier, beyond that of the payload behind so many.
const MAX_PAYLOAD: usize = 0x3fff;

// Indexes of the counters of transports, and their bits.
const TCP: u8 = 0;
pub const UDP: u8 = 1;
pub const ICMP: u8 = 2;
pub const OTHER: u8 = 3;
const TRANSPORTS: u8 = 3;
/// In IPv6 an extension header. In IPv4, and behind too many of them, any other protocol.
const EXTENSION: u8 = 4 | OTHER;

/// The index for each protocol.
static TRANSPORT: [u8; 256] = {
    let mut table = [OTHER; 256];
    table[IPPROTO_TCP as usize] = TCP;
    table[IPPROTO_UDP as usize] = UDP;
    table[IPPROTO_ICMP as usize] = ICMP;
    table[IPPROTO_ICMPV6 as usize] = ICMP;
    table[IPPROTO_HOPOPTS as usize] = EXTENSION;
    table[IPPROTO_ROUTING as usize] = EXTENSION;
    table[IPPROTO_FRAGMENT as usize] = EXTENSION;
    table[IPPROTO_DSTOPTS as usize] = EXTENSION;
    table
};

#[inline(always)]
fn transport(protocol: u8) -> u8 {
    TRANSPORT[usize::from(protocol)]
}

/// Length of the outer VLAN tag, which the kernel moves from the frame into metadata.
#[inline(always)]
fn tag_len(skb: &__sk_buff) -> u64 {
    u64::from(skb.vlan_present) * VLAN_LEN as u64
}

/// Length of the frame as the device counts it.
#[inline(always)]
pub fn len(skb: &__sk_buff) -> u64 {
    u64::from(skb.len) + tag_len(skb)
}

/// The front of a frame: up to the protocol of an IP packet behind two tags. Zeroes follow a shorter frame.
pub struct Head([u8; Self::LEN]);

impl Head {
    const LEN: usize = 34;

    /// Returns the front of the frame: in place, or a copy if not all of it is linear.
    #[inline(always)]
    pub fn of<'h>(ctx: &'h TcContext, copy: &'h mut MaybeUninit<Self>) -> &'h Self {
        let at = ctx.data();
        if at + Self::LEN <= ctx.data_end() {
            // SAFETY: the verifier has seen the bound above; bytes need no alignment.
            return unsafe { &*(at as *const Self) };
        }
        gather(ctx.skb.skb, copy.as_mut_ptr().cast());
        // SAFETY: `gather` writes each byte.
        unsafe { copy.assume_init_ref() }
    }

    #[inline(always)]
    pub fn is_to_group(&self) -> bool {
        self.0[0] & 1 != 0
    }

    #[inline(always)]
    pub fn is_to_all(&self) -> bool {
        self.0[0] & self.0[1] & self.0[2] & self.0[3] & self.0[4] & self.0[5] == 0xff
    }

    /// Skips two VLAN tags: the one in metadata and the inner one, or both when the host wrote them itself. Behind more
    /// the protocol is "other".
    #[inline(always)]
    pub fn packet(&self, ctx: &TcContext) -> Packet {
        // SAFETY: the kernel hands the program a valid context.
        let skb = unsafe { &*ctx.skb.skb };
        let ethertype = skb.protocol as u16;
        if ethertype == ETH_P_IP || !is_tag(ethertype) {
            return self.packet_at(ctx, ethertype, ETH_LEN);
        }
        let ethertype = self.behind_tag(skb, ETH_LEN);
        if !is_tag(ethertype) || skb.vlan_present != 0 {
            return self.packet_at(ctx, ethertype, ETH_LEN + VLAN_LEN);
        }
        self.packet_at(ctx, self.behind_tag(skb, ETH_LEN + VLAN_LEN), ETH_LEN + 2 * VLAN_LEN)
    }

    /// Returns the EtherType at the end of a tag; 0 if it is past the end.
    #[inline(always)]
    fn behind_tag(&self, skb: &__sk_buff, tag: usize) -> u16 {
        if (skb.len as usize) < tag + VLAN_LEN {
            return 0;
        }
        u16::from_ne_bytes([self.0[tag + 2], self.0[tag + 3]])
    }

    #[inline(always)]
    fn packet_at(&self, ctx: &TcContext, ethertype: u16, offset: usize) -> Packet {
        let (protocol, payload) = match ethertype {
            ETH_P_IP => (self.0[offset + 9], offset + usize::from(self.0[offset] & 0x0f) * 4),
            ETH_P_IPV6 => match (self.0[offset + 6], offset + IPV6_LEN) {
                (next, payload) if transport(next) == EXTENSION => {
                    // The compiler knows the bound of the payload, and would omit the mask, which shows it to the verifier.
                    let behind = black_box(behind_extensions(ctx.skb.skb, payload, next));
                    (behind as u8, (behind >> 8) as usize & MAX_PAYLOAD)
                }
                plain => plain,
            },
            _ => (0, offset),
        };
        Packet { ethertype, protocol, payload }
    }
}

/// The packet behind the Ethernet header and the tags.
pub struct Packet {
    pub ethertype: u16,
    /// The protocol behind IPv4 or IPv6.
    protocol: u8,
    /// Offset of that protocol's header.
    payload: usize,
}

impl Packet {
    #[inline(always)]
    pub fn is_ip(&self) -> bool {
        matches!(self.ethertype, ETH_P_IP | ETH_P_IPV6)
    }

    /// Index of the counter of its transport.
    #[inline(always)]
    pub fn transport(&self) -> usize {
        usize::from(transport(self.protocol) & TRANSPORTS)
    }

    /// Returns a GSO frame as the packets on the wire. Each segment has its own headers.
    ///
    /// `gso_segs` is 0 or 1 on frames that a guest injects, so the segments follow from the payload and `gso_size`.
    #[inline(always)]
    pub fn on_the_wire(&self, ctx: &TcContext, len: u64) -> Traffic {
        // SAFETY: the kernel hands the program a valid context.
        let skb = unsafe { &*ctx.skb.skb };
        let headers = self.headers_len(ctx) as u64 + tag_len(skb);
        let payload = len.saturating_sub(headers);
        let packets = payload.div_ceil(u64::from(skb.gso_size.max(1))).max(1);
        Traffic { packets, bytes: len + (packets - 1) * headers }
    }

    #[inline(always)]
    fn headers_len(&self, ctx: &TcContext) -> usize {
        if !self.is_ip() {
            return self.payload;
        }
        let header_len = match self.protocol {
            IPPROTO_TCP => usize::from(byte(ctx, self.payload + 12) >> 4) * 4,
            _ => UDP_LEN,
        };
        self.payload + header_len
    }
}

/// Copies the front of a frame. The helper writes zeroes when a byte is past the end.
#[cold]
#[inline(never)]
fn gather(context: *mut __sk_buff, to: *mut u8) {
    // SAFETY: the caller has a variable of this length.
    let copy = |offset: usize, len| unsafe {
        bpf_skb_load_bytes(context.cast(), offset as u32, to.add(offset).cast(), len)
    };
    if copy(0, Head::LEN as u32) != 0 {
        for offset in 0..Head::LEN {
            copy(offset, 1);
        }
    }
}

/// Returns the protocol behind IPv6 extension headers, and its offset above it: a function of the programs returns one
/// number.
#[cold]
#[inline(never)]
fn behind_extensions(context: *mut __sk_buff, mut offset: usize, mut protocol: u8) -> u64 {
    let ctx = TcContext::new(context);
    for _ in 0..MAX_EXTENSIONS {
        let header_len = match protocol {
            IPPROTO_FRAGMENT => 8,
            _ => (usize::from(byte(&ctx, offset + 1)) + 1) * 8,
        };
        protocol = byte(&ctx, offset);
        offset += header_len;
        if transport(protocol) != EXTENSION {
            break;
        }
    }
    (offset as u64) << 8 | u64::from(protocol)
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETH_P_8021Q | ETH_P_8021AD)
}

/// Bytes that a bounds check covers. One byte would not do: the compiler turns `at + 1 > end` into `at >= end`, from
/// which the verifier learns nothing. More bytes would send whole headers the slow way.
const WINDOW: usize = 8;

/// Reads a byte of the frame; 0 past its end.
#[inline(always)]
fn byte(ctx: &TcContext, offset: usize) -> u8 {
    let at = ctx.data() + offset;
    if at + WINDOW > ctx.data_end() {
        return ctx.load(offset).unwrap_or(0);
    }
    // SAFETY: the verifier has seen the bound above.
    unsafe { *(at as *const u8) }
}
