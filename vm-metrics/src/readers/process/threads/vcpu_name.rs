//! Which vCPU a thread is, by its name. Pure.

use crate::model::Hypervisor;

/// The vCPU that a thread of this name runs in this hypervisor. Any program may call its threads anything, so only the
/// hypervisor's own way counts, to the letter.
///
/// QEMU names its threads only with `-name …,debug-threads=on`, which libvirt gives it.
pub(super) fn vcpu(hypervisor: Hypervisor, name: &[u8]) -> Option<u32> {
    let name = str::from_utf8(name).ok()?;
    let number = match hypervisor {
        Hypervisor::Qemu => {
            let (number, accelerator) = name.strip_prefix("CPU ")?.split_once('/')?;
            matches!(accelerator, "KVM" | "TCG").then_some(number)?
        }
        Hypervisor::CloudHypervisor => name.strip_prefix("vcpu")?,
        Hypervisor::Firecracker => name.strip_prefix("fc_vcpu ")?,
        Hypervisor::Xen | Hypervisor::Other | Hypervisor::Program(_) => return None,
    };
    let vcpu: u32 = number.parse().ok()?;
    // Not +1, not 01.
    (vcpu.to_string() == number).then_some(vcpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hypervisor_has_its_own_names() {
        let names: [&[u8]; 4] = [b"CPU 12/KVM", b"CPU 0/TCG", b"vcpu3", b"fc_vcpu 4"];
        for (hypervisor, expected) in [
            (Hypervisor::Qemu, [Some(12), Some(0), None, None]),
            (Hypervisor::CloudHypervisor, [None, None, Some(3), None]),
            (Hypervisor::Firecracker, [None, None, None, Some(4)]),
            (Hypervisor::Other, [None; 4]),
        ] {
            assert_eq!(names.map(|name| vcpu(hypervisor, name)), expected, "{hypervisor}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for (hypervisor, names) in [
            (
                Hypervisor::Qemu,
                &["CPU 0/KVM2", "CPU /KVM", "CPU 0", "CPU +1/KVM", "CPU 01/KVM", "CPU -1/KVM", "CPU 0/kvm"][..],
            ),
            (Hypervisor::Qemu, &["ALL CPUs/TCG", "CPU 0/KVM (1) x", "CPU 99999999999/KVM", " CPU 0/KVM", ""]),
            (Hypervisor::CloudHypervisor, &["vcpu", "vcpu0 ", "vcpu_0", "vcpu1a", "VCPU0", "vcpu-signal"]),
            (Hypervisor::Firecracker, &["fc_vcpu", "fc_vcpu ", "fc_vcpu  1", "fc_vcpu0", "fc_vmm", "fc_api"]),
        ] {
            for name in names {
                assert_eq!(vcpu(hypervisor, name.as_bytes()), None, "{name:?}");
            }
        }
        assert_eq!(vcpu(Hypervisor::Qemu, b"CPU \xff/KVM"), None);
    }
}
