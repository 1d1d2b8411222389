//! The HTTP client of the push, which remembers why a request failed.
//!
//! The SDK's exporter only reports "network error".

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::ClientConfig;

/// The last failure, until it is taken.
#[derive(Clone, Debug, Default)]
pub(super) struct LastFailure(Arc<Mutex<Option<String>>>);

impl LastFailure {
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, error: &HttpError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(chain(error.as_ref()));
    }
}

#[derive(Debug)]
pub(super) struct Client {
    inner: HyperClient<HttpsConnector<HttpConnector>>,
    failure: LastFailure,
}

impl Client {
    pub(super) fn new(tls: ClientConfig, timeout: Duration, failure: LastFailure) -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Self { inner: HyperClient::new(connector, timeout, None), failure }
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'client, 'future>(&'client self, request: Request<Bytes>) -> Answer<'future>
    where
        'client: 'future,
        Self: 'future,
    {
        Box::pin(
            async move { self.inner.send_bytes(request).await.inspect_err(|error| self.failure.note(error)) },
        )
    }
}

/// The error with its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
