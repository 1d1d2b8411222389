//! `/api/v1`: the latest snapshot as JSON. A request costs no system call for any VM.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use utoipa::OpenApi;

use super::coding::Coding;
use super::problem::Problem;
use super::push;
use super::shared_body::SharedBody;
use crate::exporters::json::{DaemonHealth, Detail, Sources, Vm, Vms};
use crate::manager::Ticker;
use crate::model::Snapshot;
use crate::sources::SOURCES;

/// The OpenAPI description, from the types of the answers and of pushed VMs.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "vm-metrics", description = "The usage of each VM on this host, measured on the host."),
    paths(vms, vm, health, sources, push::put_instance, push::delete_instance),
    servers((url = "/api/v1"))
)]
pub struct Description;

const JSON: &str = "application/json";

/// Documents that all listeners share.
#[derive(Clone, Debug)]
pub(super) struct Api {
    ticker: Ticker,
    /// By tick.
    vms: Arc<SharedBody<u64>>,
    description: Arc<SharedBody<()>>,
}

impl Api {
    pub(super) fn new(ticker: Ticker) -> Self {
        Self { ticker, vms: Arc::default(), description: Arc::default() }
    }
}

pub(super) fn router(api: Api, detail: Detail) -> Router {
    let snapshots = Router::new()
        .route("/health", get(health))
        .route("/sources", get(sources))
        .with_state((api.ticker.clone(), detail));
    let api = Router::new()
        .route("/vms", get(vms))
        .route("/vms/{id}", get(vm))
        .route("/openapi.json", get(description))
        .with_state(api)
        .merge(snapshots)
        .method_not_allowed_fallback(not_allowed);
    Router::new().nest("/api/v1", api)
}

async fn description(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let now = || Ok(((), || serde_json::to_vec(&Description::openapi()).map_err(|error| failed(&error))));
    shared(&api.description, &headers, now).await
}

/// All VMs
#[utoipa::path(get, path = "/vms", responses(
    (status = 200, description = "All VMs, and terminated ones for the retention", body = Vms<'static>),
    (status = 503, description = "There are no current numbers", body = Problem,
        content_type = "application/problem+json"),
))]
async fn vms(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let now = || {
        let snapshot = current(&api.ticker)?;
        let tick = snapshot.tick;
        Ok((tick, move || serde_json::to_vec(&Vms::of(&snapshot)).map_err(|error| failed(&error))))
    };
    shared(&api.vms, &headers, now).await
}

/// One VM
#[utoipa::path(get, path = "/vms/{id}", params(("id" = String, Path, description = "The id of the VM")), responses(
    (status = 200, description = "The usage of the VM", body = Vm<'static>),
    (status = 400, description = "The id is no text", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No VM has this id", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There are no current numbers", body = Problem,
        content_type = "application/problem+json"),
))]
async fn vm(
    State(Api { ticker, .. }): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let snapshot = current(&ticker)?;
    let Some(stats) = snapshot.vms.iter().find(|vm| vm.instance_id == id) else {
        let unknown = format!("no VM has the id {id:?}: /api/v1/vms lists those that there are");
        return Err(Problem::new(StatusCode::NOT_FOUND, unknown));
    };
    Ok(Json(Vm::of(stats)).into_response())
}

/// Health of the daemon
#[utoipa::path(get, path = "/health", responses(
    (status = 200, description = "Health of each source and reader, and the age of the numbers", body = DaemonHealth<'static>),
    (status = 503, description = "The first tick has not ended", body = Problem,
        content_type = "application/problem+json"),
))]
async fn health(State((ticker, detail)): State<(Ticker, Detail)>) -> Result<Response, Problem> {
    let snapshot = latest(&ticker)?;
    let healthy = ticker.hangs().is_none();
    Ok(Json(DaemonHealth::of(&snapshot, healthy, detail)).into_response())
}

/// Sources of VMs
#[utoipa::path(get, path = "/sources", responses(
    (status = 200, description = "Each source and its number of VMs", body = Sources<'static>),
    (status = 503, description = "The first tick has not ended", body = Problem,
        content_type = "application/problem+json"),
))]
async fn sources(State((ticker, detail)): State<(Ticker, Detail)>) -> Result<Response, Problem> {
    let snapshot = latest(&ticker)?;
    // A source that a program brings along is not in the table.
    let help = |name: &str| SOURCES.iter().find(|def| def.name == name).map(|def| def.help);
    Ok(Json(Sources::of(&snapshot, detail, help)).into_response())
}

/// Answers with a document that all requests share.
async fn shared<K, R>(
    body: &SharedBody<K>,
    headers: &HeaderMap,
    now: impl FnOnce() -> Result<(K, R), Problem>,
) -> Result<Response, Problem>
where
    K: PartialEq + Send + 'static,
    R: FnOnce() -> Result<Vec<u8>, Problem> + Send + 'static,
{
    match body.get(Coding::negotiate(headers), now).await {
        Ok(rendered) => Ok(rendered?.respond(Bytes::new(), JSON)),
        Err(error) => Err(failed(&error)),
    }
}

async fn not_allowed(method: Method) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed: the API is read with GET"))
}

fn latest(ticker: &Ticker) -> Result<Arc<Snapshot>, Problem> {
    let none = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the first tick has not ended");
    ticker.latest().ok_or_else(none)
}

/// The latest snapshot, unless it is stale: old numbers must not pass for current ones.
fn current(ticker: &Ticker) -> Result<Arc<Snapshot>, Problem> {
    let snapshot = latest(ticker)?;
    if ticker.is_stale(&snapshot) {
        let detail = format!("no tick has ended for {} seconds", snapshot.taken.elapsed().as_secs());
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    Ok(snapshot)
}

fn failed(error: &dyn std::error::Error) -> Problem {
    tracing::error!("cannot write the answer: {error}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the answer: the log has the reason")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use axum::body::to_bytes;
    use axum::http::header;
    use serde_json::Value;

    use super::*;
    use crate::exporters::metrics::tests::full;

    async fn read(answer: Result<Response, Problem>) -> (u16, String, Value) {
        let answer = answer.into_response();
        let kind = answer.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let (status, body) = (answer.status().as_u16(), to_bytes(answer.into_body(), 1 << 20).await.unwrap());
        (status, kind, serde_json::from_slice(&body).unwrap())
    }

    /// Of `/vms`, `/vms/a`, `/health` and `/sources`.
    async fn answers(ticker: &Ticker) -> [(u16, String, Value); 4] {
        let api = || State(Api::new(ticker.clone()));
        let full = || State((ticker.clone(), Detail::Full));
        [
            read(vms(api(), HeaderMap::new()).await).await,
            read(vm(api(), Ok(Path("a".to_owned()))).await).await,
            read(health(full()).await).await,
            read(sources(full()).await).await,
        ]
    }

    fn assert_unavailable((status, kind, body): &(u16, String, Value), problem: &str) {
        assert_eq!((*status, kind.as_str()), (503, "application/problem+json"));
        assert!(body["detail"].as_str().unwrap().contains(problem), "{body}");
    }

    #[tokio::test]
    async fn answers_are_503_before_the_first_tick() {
        for answer in answers(&Ticker::showing(None).1).await {
            assert_unavailable(&answer, "the first tick has not ended");
        }
    }

    #[tokio::test]
    async fn stale_numbers_are_withheld_but_health_is_shown() {
        let mut snapshot = full();
        snapshot.taken = Instant::now().checked_sub(Duration::from_secs(31)).unwrap();
        let [vms, vm, health, sources] = answers(&Ticker::showing(Some(snapshot)).1).await;
        [vms, vm].iter().for_each(|answer| assert_unavailable(answer, "no tick has ended for 31 seconds"));
        assert_eq!((health.0, &health.2["healthy"]), (200, &Value::Bool(false)));
        assert_eq!((sources.0, &sources.2["sources"][0]["name"]), (200, &"proc_scan".into()));
        let [vms, vm, health, _] = answers(&Ticker::showing(Some(full())).1).await;
        assert_eq!((vms.0, vm.0, &health.2["healthy"]), (200, 200, &Value::Bool(true)));
    }
}
