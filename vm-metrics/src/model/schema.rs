//! The schema of the API for a type whose derived one would not say enough.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Hypervisor;

impl PartialSchema for Hypervisor {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let known = "What runs a VM: qemu, cloud-hypervisor, firecracker, xen, other, or the file name of its program.";
        text.description(Some(known)).into()
    }
}

impl ToSchema for Hypervisor {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Hypervisor")
    }
}
