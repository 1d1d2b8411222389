//! Serves `PUT` and `DELETE /api/v1/instances/{id}` on the socket for orchestrators.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path as Captured, State};
use axum::http::{Method, StatusCode, Uri};
use axum::routing::put;

use super::problem::Problem;
use crate::sources::declared::DeclaredVm;
use crate::sources::push::{Store, VM_LIMIT};

#[derive(Clone)]
pub(super) struct Inbox {
    store: Store,
    /// Starts a tick at once for a pushed VM.
    wake: Arc<dyn Fn() + Send + Sync>,
}

pub fn router(store: Store, wake: impl Fn() + Send + Sync + 'static) -> Router {
    let instances = put(put_instance).delete(delete_instance);
    Router::new()
        .route("/api/v1/instances/{id}", instances)
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(VM_LIMIT))
        .with_state(Inbox { store, wake: Arc::new(wake) })
}

/// Declare a VM, or replace its declaration
///
/// Served on the socket of the source `push` only. A tick follows at once.
#[utoipa::path(put, path = "/instances/{id}", params(("id" = String, Path, description = "The id of the VM")),
    request_body = DeclaredVm,
    responses(
        (status = 201, description = "The VM is new"),
        (status = 204, description = "The former declaration is replaced"),
        (status = 400, description = "The id or the body is wrong; nothing changes", body = Problem,
            content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem,
            content_type = "application/problem+json"),
        (status = 500, description = "The declaration cannot be saved", body = Problem,
            content_type = "application/problem+json"),
        (status = 507, description = "There is no room for one more VM", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn put_instance(
    State(inbox): State<Inbox>,
    id: Result<Captured<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let Captured(id) = id?;
    let body =
        body.map_err(|error| Problem::new(error.status(), format!("{error}; at most {VM_LIMIT} bytes")))?;
    let vm = Store::read(&id, &body).map_err(|problem| Problem::new(StatusCode::BAD_REQUEST, problem))?;
    let new = inbox.store.put(&vm).map_err(|error| not_kept(&error))?;
    (inbox.wake)();
    Ok(if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
}

/// Remove a VM
///
/// Served on the socket of the source `push` only. A tick follows at once.
#[utoipa::path(delete, path = "/instances/{id}", params(("id" = String, Path, description = "The id of the VM")),
    responses(
        (status = 204, description = "The VM is removed; its final numbers stay for `retention`"),
        (status = 400, description = "The id is no text", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No VM is pushed under this id", body = Problem,
            content_type = "application/problem+json"),
        (status = 500, description = "The declaration cannot be removed", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_instance(
    State(inbox): State<Inbox>,
    id: Result<Captured<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Captured(id) = id?;
    if !inbox.store.remove(&id).map_err(|error| not_kept(&error))? {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("no VM is pushed under the id {id:?}")));
    }
    (inbox.wake)();
    Ok(StatusCode::NO_CONTENT)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no {uri} here: only /api/v1/instances/{{id}}"))
}

async fn not_allowed(method: Method) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed: PUT or DELETE"))
}

fn not_kept(error: &io::Error) -> Problem {
    tracing::error!("cannot save a pushed VM: {error}");
    let status = match error.kind() {
        io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, format!("cannot save it: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_told_apart_from_other_faults() {
        let title =
            |kind: io::ErrorKind| serde_json::to_value(not_kept(&kind.into())).unwrap()["title"].clone();
        assert_eq!(title(io::ErrorKind::StorageFull), "Insufficient Storage");
        assert_eq!(title(io::ErrorKind::PermissionDenied), "Internal Server Error");
    }
}
