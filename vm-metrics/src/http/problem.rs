//! Errors of the API as problem details (RFC 9457).

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// An error and its remedy.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the title is enough.
    r#type: &'static str,
    /// The name of the HTTP status.
    title: &'static str,
    status: u16,
    /// The error in a sentence.
    detail: String,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or_default();
        Self { r#type: "about:blank", title, status: status.as_u16(), detail: detail.into() }
    }
}

/// An id that is no text.
impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// The answer for an unknown path.
pub(super) async fn not_found(uri: Uri) -> Problem {
    let detail = format!("no {uri} here: /api/v1/openapi.json describes the API");
    Problem::new(StatusCode::NOT_FOUND, detail)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}
