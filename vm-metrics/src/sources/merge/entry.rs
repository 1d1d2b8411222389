//! A VM in the listing of one source.

use crate::model::InstanceInfo;
use crate::sources::Precedence;

#[derive(Debug)]
pub struct VmEntry {
    pub source: usize,
    pub precedence: Precedence,
    pub has_ended: bool,
    pub is_own: bool,
    pub info: InstanceInfo,
}
