//! Renders and compresses a document once per snapshot, for all requests.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Mutex;

use super::activity::Cancel;
use super::coding::Coding;
use super::gzip::Beginning;

/// Limit of the bytes of former renderings that are still being sent.
const MAX_OLD: usize = 32 << 20;

/// This many former renderings are never abandoned, whatever their size: a distant scraper is slow.
const KEPT: usize = 2;

/// Shorter documents stay plain: they fit into a packet or two.
const MIN_COMPRESSED: usize = 2 << 10;

/// The latest rendering with its key.
#[derive(Debug)]
pub(super) struct SharedBody<K>(Arc<Mutex<Renderings<K>>>);

#[derive(Debug)]
struct Renderings<K> {
    /// `None` before the first.
    key: Option<K>,
    latest: LatestRendering,
    /// Oldest first. The bytes live in the responses, and end with the last of them.
    former: VecDeque<FormerRendering>,
}

#[derive(Debug, Default)]
struct LatestRendering {
    plain: Rendering,
    /// Made at the first request for it.
    compressed: Option<Rendering>,
}

/// A former rendering: plain and compressed length, each with the responses that still send it.
#[derive(Debug)]
struct FormerRendering(Vec<(usize, Cancel)>);

#[derive(Clone, Debug)]
pub(super) struct Rendering {
    content: Content,
    cancel: Cancel,
}

#[derive(Clone, Debug)]
enum Content {
    Plain(Bytes),
    Gzip(Beginning),
}

impl<K> Default for SharedBody<K> {
    fn default() -> Self {
        let nothing = Renderings { key: None, latest: LatestRendering::default(), former: VecDeque::new() };
        Self(Arc::new(Mutex::new(nothing)))
    }
}

impl<K: PartialEq + Send + 'static> SharedBody<K> {
    /// The current document. `now` returns its key and its renderer. One request at a time renders or compresses.
    pub(super) async fn get<E, R>(
        &self,
        coding: Coding,
        now: impl FnOnce() -> Result<(K, R), E>,
    ) -> Result<Result<Rendering, E>, tokio::task::JoinError>
    where
        E: Send + 'static,
        R: FnOnce() -> Result<Vec<u8>, E> + Send + 'static,
    {
        let mut renderings = Arc::clone(&self.0).lock_owned().await;
        // Only behind the lock: a request that has waited gets the latest document.
        let (key, render) = match now() {
            Ok(now) => now,
            Err(error) => return Ok(Err(error)),
        };
        let is_latest = renderings.key.as_ref() == Some(&key);
        if is_latest && let Some(rendered) = renderings.latest.coded(coding) {
            return Ok(Ok(rendered.clone()));
        }
        // The work holds the lock: if this peer leaves, the next one still waits for the work.
        let work = move || {
            if !is_latest {
                let mut bytes = render()?;
                bytes.shrink_to_fit();
                renderings.replace(key, bytes.into());
            }
            Ok(renderings.latest.code(coding))
        };
        // Rendering thousands of VMs takes long, so it does not block the thread of the other requests.
        tokio::task::spawn_blocking(work).await
    }
}

impl<K> Renderings<K> {
    fn replace(&mut self, key: K, bytes: Bytes) {
        self.key = Some(key);
        let latest = LatestRendering { plain: Rendering::new(Content::Plain(bytes)), compressed: None };
        self.former.push_back(FormerRendering::of(std::mem::replace(&mut self.latest, latest)));
        self.former.retain_mut(FormerRendering::is_being_sent);
        let mut total: usize = self.former.iter().map(FormerRendering::length).sum();
        while total > MAX_OLD
            && self.former.len() > KEPT
            && let Some(former) = self.former.pop_front()
        {
            total -= former.length();
            former.give_up();
        }
    }
}

impl LatestRendering {
    /// `None` before the first compression.
    fn coded(&self, coding: Coding) -> Option<&Rendering> {
        match coding {
            Coding::Gzip if self.plain.content.bytes().len() >= MIN_COMPRESSED => self.compressed.as_ref(),
            Coding::Gzip | Coding::Plain => Some(&self.plain),
        }
    }

    fn code(&mut self, coding: Coding) -> Rendering {
        if let Some(rendered) = self.coded(coding) {
            return rendered.clone();
        }
        match Beginning::of(self.plain.content.bytes()) {
            Ok(beginning) => self.compressed.insert(Rendering::new(Content::Gzip(beginning))).clone(),
            Err(error) => {
                tracing::error!("cannot compress an answer: {error}");
                self.plain.clone()
            }
        }
    }
}

impl FormerRendering {
    fn of(latest: LatestRendering) -> Self {
        let codings = [Some(latest.plain), latest.compressed].into_iter().flatten();
        Self(codings.map(|rendered| (rendered.content.bytes().len(), rendered.cancel)).collect())
    }

    /// Forgets renderings without a response; false if none is left.
    fn is_being_sent(&mut self) -> bool {
        self.0.retain(|(_, cancel)| cancel.holders() > 1);
        !self.0.is_empty()
    }

    fn length(&self) -> usize {
        self.0.iter().map(|(length, _)| length).sum()
    }

    fn give_up(&self) {
        self.0.iter().for_each(|(_, cancel)| cancel.cancel());
    }
}

impl Rendering {
    fn new(content: Content) -> Self {
        Self { content, cancel: Cancel::default() }
    }

    /// The response: these bytes, then those of the request itself, without a copy.
    pub(super) fn respond(self, more: Bytes, content_type: &'static str) -> Response {
        let (shared, own) = match &self.content {
            Content::Plain(bytes) => (bytes.clone(), more),
            Content::Gzip(beginning) => (beginning.bytes.clone(), beginning.end_with(&more)),
        };
        let chunks = Chunks([shared, own].into_iter().filter(|bytes| !bytes.is_empty()).collect());
        let mut response = Body::new(chunks).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if matches!(self.content, Content::Gzip(_)) {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response.extensions_mut().insert(self.cancel);
        response
    }
}

impl Default for Rendering {
    fn default() -> Self {
        Self::new(Content::Plain(Bytes::new()))
    }
}

impl Content {
    fn bytes(&self) -> &Bytes {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Gzip(beginning) => &beginning.bytes,
        }
    }
}

/// A body of known length in several pieces.
struct Chunks(VecDeque<Bytes>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|bytes| bytes.len() as u64).sum())
    }
}

#[cfg(test)]
#[path = "shared_body_tests.rs"]
mod tests;
