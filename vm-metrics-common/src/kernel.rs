//! Offsets of kernel structures that the programs read.

/// Name of the global in the eBPF objects. User space finds the offsets in the kernel's BTF and sets it before loading.
pub const NAME: &str = "LAYOUT";

/// Offsets in bytes. All zero means unknown: the programs then do not read the kernel's structures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Not 0 when the other fields are set.
    pub known: u32,
    pub skb_dev: u32,
    pub skb_len: u32,
    pub skb_head: u32,
    pub skb_end: u32,
    pub skb_mac_header: u32,
    pub skb_transport_header: u32,
    pub skb_inner_transport_header: u32,
    /// Offset of a word that has bits of `skb_vlan_mask` when the VLAN tag is not in the frame.
    pub skb_vlan: u32,
    pub skb_vlan_mask: u32,
    pub shared_gso_size: u32,
    pub shared_gso_type: u32,
    pub dev_features: u32,
    pub dev_gso_max_size: u32,
    pub dev_ifindex: u32,
    /// Offset of the pointer to the network namespace.
    pub dev_net: u32,
    pub net_inode: u32,
}

impl Layout {
    pub const UNKNOWN: Self = Self {
        known: 0,
        skb_dev: 0,
        skb_len: 0,
        skb_head: 0,
        skb_end: 0,
        skb_mac_header: 0,
        skb_transport_header: 0,
        skb_inner_transport_header: 0,
        skb_vlan: 0,
        skb_vlan_mask: 0,
        shared_gso_size: 0,
        shared_gso_type: 0,
        dev_features: 0,
        dev_gso_max_size: 0,
        dev_ifindex: 0,
        dev_net: 0,
        net_inode: 0,
    };
}

const _: () = assert!(size_of::<Layout>() == 17 * 4);
