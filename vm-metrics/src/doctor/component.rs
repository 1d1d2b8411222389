//! Turns a source, a reader or the state file into a check.

use super::check::{Check, Sign};
use crate::documents::Component;
use crate::model::{ComponentKind, Health};
use crate::readers::TAP_EBPF;

pub(super) fn check(component: &Component) -> Check {
    let sign = match component.state {
        Health::Healthy | Health::Starting => Sign::Good,
        Health::Degraded => Sign::Partly,
        Health::Disabled => Sign::Absent,
        // Without an error of the kernel, no change of this host would help.
        Health::Unsupported if component.errno.is_none() => Sign::Absent,
        Health::Unsupported | Health::Failed => Sign::Bad,
    };
    let remedy = if matches!(sign, Sign::Bad | Sign::Partly) { remedy(component) } else { None };
    Check::new(sign, format!("{} {}", component.kind.as_str(), component.name), describe(component))
        .with_remedy(remedy)
}

fn kind_of_items(component: &Component) -> &'static str {
    match (component.kind, component.items) {
        (ComponentKind::Source, 1) => "VM",
        (ComponentKind::Source, _) => "VMs",
        _ => "read",
    }
}

fn describe(component: &Component) -> String {
    let mut text =
        if component.state == Health::Disabled { "off" } else { component.state.as_str() }.to_owned();
    let runs = matches!(component.state, Health::Healthy | Health::Starting | Health::Degraded);
    if runs && component.kind != ComponentKind::Manager {
        text += &format!(", {} {}", component.items, kind_of_items(component));
    }
    if let Some(reason) = &component.reason {
        text += &format!(": {reason}");
    }
    if let Some(errno) = component.errno {
        text += &format!(" (errno {errno})");
    }
    text
}

/// Advice beyond the reason.
fn remedy(component: &Component) -> Option<String> {
    const EPERM: i32 = 1;
    const EACCES: i32 = 13;
    let is_denied = matches!(component.errno, Some(EPERM | EACCES));
    match (component.kind, component.state) {
        (ComponentKind::Manager, _) => Some(
            "name a directory that only the daemon's user may write: state_dir = \"/run/vm-metrics\""
                .to_owned(),
        ),
        (ComponentKind::Reader, Health::Unsupported) if !is_denied => {
            Some(format!("use another kernel; [readers.{}] enabled = false omits the reader", component.name))
        }
        _ if is_denied => Some("see the rights above: the unit in deploy/systemd has them all".to_owned()),
        (ComponentKind::Source, Health::Failed) => Some(format!(
            "repair the problem in this line; [sources.{}] enabled = false omits the source",
            component.name
        )),
        (ComponentKind::Source | ComponentKind::Reader, Health::Degraded) => {
            Some("repair the problem in this line; the rest works".to_owned())
        }
        _ => None,
    }
}

/// Whether counting goes on while the daemon is away; `None` for all but the eBPF reader.
pub(super) fn pins(component: &Component) -> Option<Check> {
    if component.name != TAP_EBPF {
        return None;
    }
    const GOES_ON: &str = "counting goes on while the daemon is away";
    let runs = matches!(component.state, Health::Healthy | Health::Starting | Health::Degraded);
    Some(match component.pinned.filter(|_| runs) {
        Some(true) => Check::new(Sign::Good, "pins", GOES_ON),
        Some(false) => Check::new(Sign::Bad, "pins", "none: counters of eBPF begin at 0 with each start")
            .with_remedy(component.reason.clone()),
        None => Check::new(Sign::Absent, "pins", "switched off, or eBPF does not run"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check::{Style, render as render_checks};
    use super::*;

    fn component(kind: &str, name: &str, state: &str) -> Component {
        let json = json!({"kind": kind, "name": name, "state": state, "reason": "why: advice", "errno": null,
                          "items": 0, "errors": 1, "absent": 1, "pinned": false});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_degraded_component_has_its_own_sign() {
        for (kind, name) in [("source", "static_list"), ("source", "proc_scan"), ("reader", "tap_ebpf")] {
            let component = component(kind, name, "degraded");
            assert_eq!(check(&component).result, Sign::Partly, "{name}");
            assert!(remedy(&component).is_some(), "{name}");
        }
    }

    #[test]
    fn remedies_fit_what_is_wrong() {
        let failed = remedy(&component("source", "vm_dir", "failed")).unwrap();
        assert!(!failed.contains("auto") && failed.contains("[sources.vm_dir] enabled = false"), "{failed}");
        let pins = render(&[pins(&component("reader", "tap_ebpf", "degraded")).unwrap()]);
        assert!(pins.contains("why: advice"), "{pins}");
    }

    fn render(checks: &[Check]) -> String {
        render_checks(checks, Style::of_output())
    }
}
