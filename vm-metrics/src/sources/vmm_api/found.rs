//! The source of the VMMs of one hypervisor that other sources have found.

use std::mem;

use super::{Query, Target, VmmApi};
use crate::config::{ConfigError, Section};
use crate::host::Host;
use crate::model::Hypervisor;
use crate::sources::values::bounded;
use crate::sources::{ApiSocket, Listing, Source, SourceContext, SourceError};

#[derive(Debug)]
pub struct FoundVmms {
    hypervisor: Hypervisor,
    host: Host,
    api: VmmApi,
    sockets: Vec<ApiSocket>,
}

impl FoundVmms {
    /// The source of a section without options.
    pub fn configure(
        hypervisor: Hypervisor,
        query: Query,
        section: &Section,
        context: &SourceContext,
    ) -> Result<Option<Box<dyn Source>>, ConfigError> {
        section.no_options()?;
        let (host, api) = (context.host.clone(), VmmApi::new(context, query));
        Ok(Some(Box::new(Self { hypervisor, host, api, sockets: Vec::new() })))
    }
}

impl Source for FoundVmms {
    fn found(&mut self, sockets: &[ApiSocket]) {
        let ours = sockets.iter().filter(|socket| socket.hypervisor == self.hypervisor);
        self.sockets = ours.cloned().collect();
    }

    fn list(&mut self) -> Result<Listing, SourceError> {
        let target = |ApiSocket { pid, start_ticks, path, nics, .. }: &ApiSocket| {
            (Target { process: Some((*pid, *start_ticks)), path: path.clone() }, nics.clone())
        };
        let mut listing = self.api.list(self.sockets.iter().map(target))?;
        for vm in &mut listing.instances {
            let has_more;
            (vm.unmonitored, has_more) = bounded::unmonitored(&self.host, mem::take(&mut vm.unmonitored));
            vm.has_more_nics |= has_more;
        }
        Ok(listing)
    }
}
