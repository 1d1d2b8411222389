//! How many vCPUs a VM has, by its command line and by KVM. Pure.

use crate::sources::values::bounded::MAX_VCPUS;

/// vCPUs of one VM.
#[derive(Debug, Default)]
pub struct Vcpus {
    pub at_start: Option<u32>,
    /// How many it may come to have, where they can be plugged in and out.
    pub most: Option<u32>,
    /// How many KVM has made for the process; `None` where its descriptors may not be looked at.
    pub by_kvm: Option<u32>,
}

impl Vcpus {
    /// KVM knows the number where vCPUs can be plugged, or the command line has none. Without KVM the number at the start
    /// counts. It is unknown where descriptors cannot be read, or KVM has too many.
    pub fn now(&self) -> Option<u32> {
        if self.excess().is_some() {
            return None;
        }
        let by_kvm = || self.by_kvm.filter(|count| (1..=MAX_VCPUS).contains(count));
        if self.most.is_none() {
            return self.at_start.or_else(by_kvm);
        }
        match self.by_kvm {
            Some(0) => self.at_start,
            by_kvm => by_kvm,
        }
    }

    /// The vCPUs of KVM, where they are more than those that there may be, and these.
    pub fn excess(&self) -> Option<(u32, u32)> {
        let (by_kvm, most) = (self.by_kvm?, self.most.or(self.at_start)?);
        (by_kvm > most).then_some((by_kvm, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_may_look_at_is_unknown() {
        let now = |most, by_kvm| Vcpus { at_start: Some(1), most, by_kvm }.now();
        assert_eq!([now(None, None), now(None, Some(0)), now(None, Some(1))], [Some(1); 3]);
        assert_eq!(now(None, Some(3)), None, "KVM has more than the command line says");
        let unsaid = |by_kvm| Vcpus { at_start: None, most: None, by_kvm }.now();
        assert_eq!([unsaid(Some(3)), unsaid(Some(0)), unsaid(None)], [Some(3), None, None]);
        assert_eq!(unsaid(Some(MAX_VCPUS + 1)), None, "no VM has so many");
        assert_eq!(now(Some(4), None), None);
        assert_eq!(now(Some(4), Some(0)), Some(1));
        assert_eq!(now(Some(4), Some(4)), Some(4));
        assert_eq!(now(Some(4), Some(5)), None);
    }
}
