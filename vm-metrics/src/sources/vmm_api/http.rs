//! HTTP over a connection to a VMM: GET, and no more than so many bytes.

use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{ANSWER_LIMIT, QueryError};

#[derive(Debug)]
pub struct Http {
    sender: SendRequest<Empty<Bytes>>,
}

impl Http {
    /// Lets `talk` ask over this connection, which ends with it.
    pub async fn over<T, F>(stream: UnixStream, talk: impl FnOnce(Self) -> F) -> Result<T, QueryError>
    where
        F: Future<Output = Result<T, QueryError>>,
    {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| not_http(&error))?;
        let mut connection = pin!(connection);
        let mut talk = pin!(talk(Self { sender }));
        let mut open = true;
        loop {
            tokio::select! {
                said = &mut talk => return said,
                // The bytes received before its end can still be read.
                _ = &mut connection, if open => open = false,
            }
        }
    }

    /// Status and body.
    pub async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes), QueryError> {
        let request =
            Request::get(path).header(header::HOST, "localhost").header(header::ACCEPT, "application/json");
        let request = request.body(Empty::new()).map_err(|error| QueryError::Response(error.to_string()))?;
        self.sender.ready().await.map_err(|error| not_http(&error))?;
        let response = self.sender.send_request(request).await.map_err(|error| not_http(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => QueryError::TooLarge,
            false => QueryError::Ended,
        })?;
        Ok((status, body.to_bytes()))
    }

    /// The body of a response with status 200.
    pub async fn json<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, QueryError> {
        let (status, body) = self.get(path).await?;
        if status != StatusCode::OK {
            return Err(QueryError::status(path, status));
        }
        serde_json::from_slice(&body).map_err(|error| QueryError::json(&format!("GET {path}"), &error))
    }
}

fn not_http(error: &hyper::Error) -> QueryError {
    if error.is_parse_too_large() {
        QueryError::TooLarge
    } else if error.is_parse() {
        QueryError::Response(format!("no HTTP: {error}"))
    } else {
        QueryError::Ended
    }
}
