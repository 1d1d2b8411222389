//! Removes programs and pins of an earlier daemon that no VM has claimed.

use std::path::Path;
use std::time::Instant;

use super::hook::filters::remove_filters_elsewhere;
use super::programs::pins;
use super::reader::TapEbpf;
use crate::model::in_one_line;
use crate::net::namespaces::Namespaces;

impl TapEbpf {
    /// Once, as soon as every namespace with a VM is taken over.
    pub(super) fn clear_away(&mut self, namespaces: &Namespaces) {
        if self.clear_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        // What is not taken over yet would be taken for left over.
        if namespaces.has_refused() || self.foreign.values().any(|programs| !programs.is_open()) {
            return;
        }
        self.clear_at = None;
        if let Ok(drops) = &mut self.drops
            && let Err(error) = drops.keep_only_followed()
        {
            tracing::warn!("{}", error.in_one_line());
        }
        if let Some(pin_dir) = self.attach_options.pin_dir.as_ref().filter(|_| self.may_enter) {
            self.remove_unclaimed(pin_dir);
        }
    }

    fn remove_unclaimed(&self, pin_dir: &Path) {
        let removed = pins::remove_unheld(pin_dir, self.attach_options.daemon).unwrap_or_else(|error| {
            tracing::warn!("cannot look for pins that no VM is there for: {error}");
            Vec::new()
        });
        if removed.is_empty() {
            return;
        }
        let is_meant = |namespace| removed.iter().any(|dir| pins::netns_of(dir) == Some(namespace));
        let filters = remove_filters_elsewhere(&self.host, pin_dir, true, is_meant).unwrap_or_else(|error| {
            tracing::warn!("cannot remove filters that no VM is there for: {}", in_one_line(&error));
            Vec::new()
        });
        for line in removed.iter().map(|dir| format!("removed {}", dir.display())).chain(filters) {
            tracing::info!("no VM there: {line}");
        }
    }
}
