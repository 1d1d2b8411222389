//! `vm-metrics detach`: takes off what daemons have left on the TAPs.

#[cfg(feature = "ebpf")]
use super::hook::filters::{remove_filters, remove_filters_elsewhere};
#[cfg(feature = "ebpf")]
use super::options::Options;
#[cfg(feature = "ebpf")]
use super::own_pins::own_load;
#[cfg(feature = "ebpf")]
use super::programs::pins;
use crate::config::Section;
use crate::host::Host;

/// Removes what daemons have left, filters and pins; with `all` also the pins of other versions, and filters in namespaces
/// of which no pins tell. Says what it removed, line by line. What a daemon in another namespace holds is left to it.
///
/// # Errors
/// When a daemon that runs holds the pins, or something cannot be removed.
#[cfg(feature = "ebpf")]
pub fn detach(section: &Section, host: &Host, all: bool) -> anyhow::Result<Vec<String>> {
    let options: Options = section.options()?;
    let versions = pins::remove_all(&options.pin_dir(host), own_load(host), all)?;
    let mut removed: Vec<String> = versions.iter().map(|dir| format!("removed {}", dir.display())).collect();
    // Pins that are still there are another version's, and so are the filters.
    if !pins::namespaces(&options.pin_dir(host))?.contains(&own_load(host).netns) {
        removed.extend(remove_filters(host)?);
    }
    let own = own_load(host).netns;
    let is_asked = all || versions.iter().any(|dir| pins::netns_of(dir) != Some(own));
    removed.extend(remove_filters_elsewhere(host, &options.pin_dir(host), is_asked, |namespace| {
        // Where no pins were, another daemon may be at work.
        all || versions.iter().any(|dir| pins::netns_of(dir) == Some(namespace))
    })?);
    Ok(removed)
}

#[cfg(not(feature = "ebpf"))]
pub fn detach(_section: &Section, _host: &Host, _all: bool) -> anyhow::Result<Vec<String>> {
    anyhow::bail!(
        "this binary was built without eBPF (--no-default-features): it attaches and detaches nothing"
    )
}
