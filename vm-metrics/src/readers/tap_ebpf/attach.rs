//! Hangs the programs on one TAP, and takes them off.

use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, TcAttachType};
use thiserror::Error;
use vm_metrics_common::names;

use super::load::{LoadError, Loaded, errno_of};
use crate::readers::ReaderError;

/// The programs on one TAP. Dropping it takes them off.
pub(super) struct Attached {
    _ingress: SchedClassifierLink,
    _egress: SchedClassifierLink,
}

#[derive(Debug, Error)]
#[error("cannot attach to {device}: {source}")]
pub(super) struct AttachError {
    device: String,
    source: Box<LoadError>,
}

impl AttachError {
    pub(super) fn new(device: &str, source: LoadError) -> Self {
        Self { device: device.to_owned(), source: Box::new(source) }
    }
}

impl From<&AttachError> for ReaderError {
    fn from(error: &AttachError) -> Self {
        let cause = error.source.in_one_line();
        Self::Device {
            device: error.device.clone(),
            problem: format!("cannot attach the programs (TCX needs Linux 6.6): {cause}"),
            errno: errno_of(error),
        }
    }
}

/// At the head of the chain, so that programs of others that end it come after the count.
pub(super) fn tcx(loaded: &mut Loaded, device: &str) -> Result<Attached, AttachError> {
    let mut attach = |program, direction| {
        attach_one(loaded, program, device, direction).map_err(|source| AttachError::new(device, source))
    };
    Ok(Attached {
        _ingress: attach(names::PROGRAM_INGRESS, TcAttachType::Ingress)?,
        _egress: attach(names::PROGRAM_EGRESS, TcAttachType::Egress)?,
    })
}

fn attach_one(
    loaded: &mut Loaded,
    program: &'static str,
    device: &str,
    direction: TcAttachType,
) -> Result<SchedClassifierLink, LoadError> {
    let at_head = TcAttachOptions::TcxOrder(LinkOrder::first());
    let program = loaded.program(program)?;
    let link = program.attach_with_options(device, direction, at_head)?;
    Ok(program.take_link(link)?)
}
