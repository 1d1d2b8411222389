//! Errors of a query to a VMM.

use std::io;
use std::sync::Arc;

use hyper::StatusCode;
use thiserror::Error;

use super::super::SourceError;
use super::super::error::json_problem;
use super::{ANSWER_LIMIT, DEADLINE, Target};

#[derive(Clone, Debug, Error)]
pub enum QueryError {
    #[error("cannot connect: {0}{advice}", advice = advice(.0))]
    Connect(Arc<io::Error>),
    #[error("not a socket")]
    NoSocket,
    /// Of a path that a process names. The reason would tell its user about files of others.
    #[error("cannot be used")]
    Unusable,
    #[error("no answer within {} ms: it is busy or hangs", DEADLINE.as_millis())]
    Late,
    #[error("an answer larger than {ANSWER_LIMIT} bytes is cut off")]
    TooLarge,
    #[error("the connection ended within the answer")]
    Ended,
    #[error("{0}")]
    Response(String),
}

impl QueryError {
    pub fn connect(error: impl Into<io::Error>) -> Self {
        Self::Connect(Arc::new(error.into()))
    }

    pub fn json(what: &str, error: &serde_json::Error) -> Self {
        Self::Response(format!("{what}: {}", json_problem(error)))
    }

    pub fn status(path: &str, status: StatusCode) -> Self {
        Self::Response(format!("GET {path}: {status}"))
    }

    pub fn of(&self, target: &Target) -> SourceError {
        match target.process {
            None => SourceError::content(&target.path, self.to_string()),
            Some((pid, _)) => {
                let problem = match self {
                    Self::Unusable => "its API socket cannot be used".to_owned(),
                    _ => format!("its API socket: {self}"),
                };
                SourceError::process(pid, problem)
            }
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; sockets of other users need CAP_DAC_OVERRIDE",
        io::ErrorKind::ConnectionRefused => "; no process listens there any more",
        io::ErrorKind::WouldBlock => "; too many others wait there",
        _ => "",
    }
}
