//! Classifies a frame by its headers.
//!
//! It reads header bytes straight from the packet. Bytes outside the linear part are rare and need the helper.

use aya_ebpf::programs::TcContext;

const ETH_LEN: usize = 14;
const VLAN_LEN: u32 = 4;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const ETH_P_IPV6: u16 = 0x86dd;

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

/// VLAN tags that it skips, in the frame or in metadata. Behind more the protocol is "other".
const MAX_TAGS: usize = 2;

/// IPv6 extension headers that it skips before a packet counts as "other".
const MAX_EXTENSIONS: usize = 4;

pub enum Cast {
    Unicast,
    Multicast,
    Broadcast,
}

pub enum L3 {
    Ipv4,
    Ipv6,
    Arp,
    Other,
}

#[derive(Clone, Copy)]
pub enum L4 {
    Tcp,
    Udp,
    Icmp,
    Other,
}

pub struct Frame {
    pub len: u32,
    pub cast: Cast,
    pub l3: L3,
    /// `None` when the frame is not IP.
    pub l4: Option<L4>,
    pub gso: bool,
    pub wire_packets: u32,
    pub wire_bytes: u64,
}

impl Frame {
    #[inline(always)]
    pub fn parse(ctx: &TcContext) -> Self {
        // SAFETY: the kernel hands the program a valid context.
        let skb = unsafe { &*ctx.skb.skb };
        // The kernel moves the outer VLAN tag from the frame into metadata; the device counts it.
        let tag_len = if skb.vlan_present != 0 { VLAN_LEN } else { 0 };
        let len = skb.len + tag_len;

        let in_frame = if tag_len == 0 { MAX_TAGS } else { MAX_TAGS - 1 };
        let (ethertype, l3_offset) = after_tags(ctx, u16::from_be(skb.protocol as u16), in_frame);
        let (l3, l4_protocol, l4_offset) = match ethertype {
            ETH_P_IP => {
                let header_len = usize::from(byte(ctx, l3_offset) & 0x0f) * 4;
                (L3::Ipv4, Some(byte(ctx, l3_offset + 9)), l3_offset + header_len)
            }
            ETH_P_IPV6 => {
                let (protocol, offset) = ipv6_payload(ctx, l3_offset);
                (L3::Ipv6, Some(protocol), offset)
            }
            ETH_P_ARP => (L3::Arp, None, l3_offset),
            _ => (L3::Other, None, l3_offset),
        };
        let l4 = l4_protocol.map(|protocol| match protocol {
            IPPROTO_TCP => L4::Tcp,
            IPPROTO_UDP => L4::Udp,
            IPPROTO_ICMP | IPPROTO_ICMPV6 => L4::Icmp,
            _ => L4::Other,
        });

        let gso_size = skb.gso_size;
        let (wire_packets, wire_bytes) = if gso_size == 0 {
            (1, u64::from(len))
        } else {
            let l4_len = match l4 {
                Some(L4::Tcp) => usize::from(byte(ctx, l4_offset + 12) >> 4) * 4,
                Some(_) => UDP_LEN,
                None => 0,
            };
            segments(len, (l4_offset + l4_len) as u32 + tag_len, gso_size)
        };
        Self { len, cast: cast(ctx), l3, l4, gso: gso_size != 0, wire_packets, wire_bytes }
    }
}

/// `gso_segs` is 0 or 1 on frames that a guest injects, so the segments follow from the payload and `gso_size`.
#[inline(always)]
fn segments(len: u32, header_len: u32, gso_size: u32) -> (u32, u64) {
    let payload = len.saturating_sub(header_len);
    let packets = payload.div_ceil(gso_size).max(1);
    (packets, u64::from(len) + u64::from(packets - 1) * u64::from(header_len))
}

#[inline(always)]
fn cast(ctx: &TcContext) -> Cast {
    let first = byte(ctx, 0);
    if first & 1 == 0 {
        return Cast::Unicast;
    }
    let all_ones = first & byte(ctx, 1) & byte(ctx, 2) & byte(ctx, 3) & byte(ctx, 4) & byte(ctx, 5) == 0xff;
    if all_ones { Cast::Broadcast } else { Cast::Multicast }
}

/// Skips at most `at_most` tags in the frame: the inner one of two, or both when the host wrote them itself.
#[inline(always)]
fn after_tags(ctx: &TcContext, ethertype: u16, at_most: usize) -> (u16, usize) {
    let (mut ethertype, mut offset) = (ethertype, ETH_LEN);
    for seen in 0..MAX_TAGS {
        if seen == at_most || !is_tag(ethertype) {
            break;
        }
        ethertype = word(ctx, offset + 2);
        offset += VLAN_LEN as usize;
    }
    (ethertype, offset)
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETH_P_8021Q | ETH_P_8021AD)
}

#[inline(always)]
fn ipv6_payload(ctx: &TcContext, l3_offset: usize) -> (u8, usize) {
    let mut protocol = byte(ctx, l3_offset + 6);
    let mut offset = l3_offset + IPV6_LEN;
    if !is_extension(protocol) {
        return (protocol, offset);
    }
    for _ in 0..MAX_EXTENSIONS {
        let header_len = match protocol {
            IPPROTO_FRAGMENT => 8,
            _ => (usize::from(byte_by_helper(ctx, offset + 1)) + 1) * 8,
        };
        protocol = byte_by_helper(ctx, offset);
        offset += header_len;
        if !is_extension(protocol) {
            break;
        }
    }
    (protocol, offset)
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_FRAGMENT | IPPROTO_DSTOPTS)
}

/// Bytes that a bounds check covers. One byte would not do: the compiler turns `at + 1 > end` into `at >= end`, from
/// which the verifier learns nothing. More bytes would send whole headers the slow way.
const WINDOW: usize = 8;

/// Reads a byte of the frame; 0 past its end.
#[inline(always)]
fn byte(ctx: &TcContext, offset: usize) -> u8 {
    let at = ctx.data() + offset;
    if at + WINDOW > ctx.data_end() {
        return byte_by_helper(ctx, offset);
    }
    // SAFETY: the verifier has seen the bound above.
    unsafe { *(at as *const u8) }
}

/// Reads two bytes, or 0 when one of them is past the end.
#[inline(always)]
fn word(ctx: &TcContext, offset: usize) -> u16 {
    let at = ctx.data() + offset;
    if at + WINDOW > ctx.data_end() {
        return u16::from_be_bytes(ctx.load(offset).unwrap_or_default());
    }
    // SAFETY: the verifier has seen the bound above; an array of bytes needs no alignment.
    u16::from_be_bytes(unsafe { *(at as *const [u8; 2]) })
}

#[inline(always)]
fn byte_by_helper(ctx: &TcContext, offset: usize) -> u8 {
    ctx.load(offset).unwrap_or(0)
}
