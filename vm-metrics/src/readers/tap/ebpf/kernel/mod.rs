//! The offsets in structures and the reasons for drops of this kernel.
//!
//! Both come from its BTF. They are never inferred from its version.

mod btf;
mod tasks;

use std::path::Path;

use vm_metrics_common::{Layout, Reasons, TaskLayout};

pub(crate) use btf::BtfError;
use btf::Types;

use super::error::LoadError;

/// The device counts it as `tx_dropped`.
const RING_FULL: &str = "SKB_DROP_REASON_FULL_RING";

/// A filter of the VMM's own refused the frame, which the device also counts as `tx_dropped`. The reason of a socket filter
/// is not among them: sockets of the host give it too, for frames that the guest has sent.
const FILTER: [&str; 2] = ["SKB_DROP_REASON_TAP_FILTER", "SKB_DROP_REASON_TAP_TXFILTER"];

/// Between our program and the device: queueing disciplines, and programs of others at tc egress.
const QDISC: [&str; 8] = [
    "SKB_DROP_REASON_TC_EGRESS",
    "SKB_DROP_REASON_QDISC_DROP",
    "SKB_DROP_REASON_QDISC_OVERLIMIT",
    "SKB_DROP_REASON_QDISC_CONGESTED",
    "SKB_DROP_REASON_CAKE_FLOOD",
    "SKB_DROP_REASON_FQ_BAND_LIMIT",
    "SKB_DROP_REASON_FQ_HORIZON_LIMIT",
    "SKB_DROP_REASON_FQ_FLOW_LIMIT",
];

/// Where the running kernel tells of itself.
pub(crate) struct Kernel {
    file: Vec<u8>,
}

impl Kernel {
    pub(crate) fn read(btf: &Path) -> Result<Self, LoadError> {
        let read = |source| LoadError::ReadBtf { path: btf.to_owned(), source };
        Ok(Self { file: std::fs::read(btf).map_err(read)? })
    }

    /// All that the programs read of frames and devices.
    pub(crate) fn layout(&self) -> Result<Layout, BtfError> {
        layout(&Types::parse(&self.file)?)
    }

    /// All that the program at the task iterator reads.
    pub(crate) fn tasks(&self) -> Result<TaskLayout, BtfError> {
        tasks::layout(&Types::parse(&self.file)?)
    }

    pub(crate) fn reasons(&self) -> Result<Reasons, BtfError> {
        reasons(&Types::parse(&self.file)?)
    }
}

fn layout(types: &Types<'_>) -> Result<Layout, BtfError> {
    let byte = |structure, member| Ok(types.bit_of(structure, member)? / 8);
    let skb = |member| byte("sk_buff", member);
    let shared = |member| byte("skb_shared_info", member);
    let dev = |member| byte("net_device", member);
    let (skb_vlan, skb_vlan_mask) = match skb("vlan_all") {
        Ok(word) => (word, u32::MAX),
        // Until Linux 6.1 a bit of its own says that there is a tag.
        Err(_) => {
            let bit = types.bit_of("sk_buff", "vlan_present")?;
            (bit / 8, 1 << (bit % 8))
        }
    };
    Ok(Layout {
        known: 1,
        skb_dev: skb("dev")?,
        skb_len: skb("len")?,
        skb_head: skb("head")?,
        skb_end: skb("end")?,
        skb_mac_header: skb("mac_header")?,
        skb_transport_header: skb("transport_header")?,
        skb_inner_transport_header: skb("inner_transport_header")?,
        skb_vlan,
        skb_vlan_mask,
        shared_gso_size: shared("gso_size")?,
        shared_gso_type: shared("gso_type")?,
        dev_features: dev("features")?,
        dev_gso_max_size: dev("gso_max_size")?,
        dev_ifindex: dev("ifindex")?,
        dev_net: dev("nd_net")?,
        net_inode: byte("net", "ns")? + byte("ns_common", "inum")?,
    })
}

fn reasons(types: &Types<'_>) -> Result<Reasons, BtfError> {
    let mut reasons = Reasons { qdisc: 0, core: [Reasons::OTHER; Reasons::CORE] };
    for (name, value) in types.enumerators("skb_drop_reason")? {
        let Some(reason) = reasons.core.get_mut(value as usize) else { continue };
        if name == RING_FULL {
            *reason = Reasons::RING_FULL;
        } else if FILTER.contains(&name) {
            *reason = Reasons::FILTER;
        } else if QDISC.contains(&name) {
            *reason = Reasons::QDISC;
        }
    }
    if !reasons.core.contains(&Reasons::RING_FULL) {
        return Err(BtfError::NoDropReasons);
    }
    // Newer kernels have the reasons of queueing disciplines in an enumeration of their own.
    let mut subsystems = types.enumerators("skb_drop_reason_subsys").into_iter().flatten();
    if let Some((_, qdisc)) = subsystems.find(|(name, _)| *name == "SKB_DROP_REASON_SUBSYS_QDISC") {
        reasons.qdisc = qdisc;
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    /// Whatever kernel the tests run on: with BTF it must be understood.
    #[test]
    fn the_running_kernel_is_understood() {
        let Ok(kernel) = Kernel::read(&Host::default().btf()) else { return };
        let layout = kernel.layout().unwrap();
        assert_eq!(layout.known, 1);
        // These have not moved for decades.
        assert_eq!((layout.skb_dev, layout.shared_gso_size), (16, 4));
        assert!(layout.skb_mac_header > layout.skb_transport_header, "{layout:?}");
        match kernel.reasons() {
            Ok(reasons) => {
                assert!(reasons.core.contains(&Reasons::RING_FULL) && reasons.core.contains(&Reasons::FILTER))
            }
            Err(error) => assert!(error.to_string().contains("5.18"), "{error}"),
        }
    }
}
