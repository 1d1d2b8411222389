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

/// Bytes of former renderings that peers may still be taking.
const MAX_OLD: usize = 32 << 20;

/// That many former renderings are never given up, whatever their size: a scraper far away needs its time.
const KEPT: usize = 2;

/// Shorter documents are not compressed: they fit into a packet or two.
const MIN_COMPRESSED: usize = 2 << 10;

/// The latest rendering, and which it is.
#[derive(Debug)]
pub(super) struct SharedBody<K>(Arc<Mutex<Renderings<K>>>);

#[derive(Debug)]
struct Renderings<K> {
    /// `None` before the first.
    key: Option<K>,
    latest: Latest,
    /// The oldest first; not the bytes, which go with the last who sends them.
    former: VecDeque<Former>,
}

#[derive(Debug, Default)]
struct Latest {
    plain: Rendered,
    /// From when somebody asks for it.
    compressed: Option<Rendered>,
}

/// The lengths of a rendering that is not the latest any more, plain and compressed, each with those who send it.
#[derive(Debug)]
struct Former(Vec<(usize, Cancel)>);

#[derive(Clone, Debug)]
pub(super) struct Rendered {
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
        let nothing = Renderings { key: None, latest: Latest::default(), former: VecDeque::new() };
        Self(Arc::new(Mutex::new(nothing)))
    }
}

impl<K: PartialEq + Send + 'static> SharedBody<K> {
    /// The document of now. `now` names it and says how to render it; nobody else renders or compresses meanwhile.
    pub(super) async fn get<E, R>(
        &self,
        coding: Coding,
        now: impl FnOnce() -> Result<(K, R), E>,
    ) -> Result<Result<Rendered, E>, tokio::task::JoinError>
    where
        E: Send + 'static,
        R: FnOnce() -> Result<Vec<u8>, E> + Send + 'static,
    {
        let mut renderings = Arc::clone(&self.0).lock_owned().await;
        // Only here: who has waited wants what is the latest by now.
        let (key, render) = match now() {
            Ok(now) => now,
            Err(error) => return Ok(Err(error)),
        };
        let is_latest = renderings.key.as_ref() == Some(&key);
        if is_latest && let Some(rendered) = renderings.latest.coded(coding) {
            return Ok(Ok(rendered.clone()));
        }
        // The lock goes along: a peer that leaves now does not let the next one work beside it.
        let work = move || {
            if !is_latest {
                let mut bytes = render()?;
                bytes.shrink_to_fit();
                renderings.replace(key, bytes.into());
            }
            Ok(renderings.latest.code(coding))
        };
        // Rendering thousands of VMs takes a while: not on the thread that answers the others.
        tokio::task::spawn_blocking(work).await
    }
}

impl<K> Renderings<K> {
    fn replace(&mut self, key: K, bytes: Bytes) {
        self.key = Some(key);
        let latest = Latest { plain: Rendered::new(Content::Plain(bytes)), compressed: None };
        self.former.push_back(Former::of(std::mem::replace(&mut self.latest, latest)));
        self.former.retain_mut(Former::is_being_sent);
        let mut total: usize = self.former.iter().map(Former::length).sum();
        while total > MAX_OLD
            && self.former.len() > KEPT
            && let Some(former) = self.former.pop_front()
        {
            total -= former.length();
            former.give_up();
        }
    }
}

impl Latest {
    /// `None` where it is not compressed yet.
    fn coded(&self, coding: Coding) -> Option<&Rendered> {
        match coding {
            Coding::Gzip if self.plain.content.bytes().len() >= MIN_COMPRESSED => self.compressed.as_ref(),
            Coding::Gzip | Coding::Plain => Some(&self.plain),
        }
    }

    fn code(&mut self, coding: Coding) -> Rendered {
        if let Some(rendered) = self.coded(coding) {
            return rendered.clone();
        }
        match Beginning::of(self.plain.content.bytes()) {
            Ok(beginning) => self.compressed.insert(Rendered::new(Content::Gzip(beginning))).clone(),
            Err(error) => {
                tracing::error!("cannot compress an answer: {error}");
                self.plain.clone()
            }
        }
    }
}

impl Former {
    fn of(latest: Latest) -> Self {
        let codings = [Some(latest.plain), latest.compressed].into_iter().flatten();
        Self(codings.map(|rendered| (rendered.content.bytes().len(), rendered.cancel)).collect())
    }

    /// Forgets what nobody sends any more.
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

impl Rendered {
    fn new(content: Content) -> Self {
        Self { content, cancel: Cancel::default() }
    }

    /// The answer: these bytes and then those that are the request's own. Nothing is copied.
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

impl Default for Rendered {
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
