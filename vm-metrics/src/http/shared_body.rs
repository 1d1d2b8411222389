//! A document that is rendered once per snapshot: all who ask for it send the same bytes.

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

/// Bytes of former renderings that peers may still be taking.
const MAX_OLD: usize = 32 << 20;

/// That many former renderings are never given up, whatever their size: a scraper far away needs its time.
const KEPT: usize = 2;

/// The latest rendering, and which it is.
#[derive(Debug)]
pub(super) struct SharedBody<K>(Arc<Mutex<Renderings<K>>>);

#[derive(Debug)]
struct Renderings<K> {
    latest: Option<(K, Rendered)>,
    /// The oldest first; not the bytes, which go with the last who sends them.
    former: VecDeque<(usize, Cancel)>,
}

#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub(super) bytes: Bytes,
    cancel: Cancel,
}

impl<K> Default for SharedBody<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Renderings { latest: None, former: VecDeque::new() })))
    }
}

impl<K: PartialEq + Send + 'static> SharedBody<K> {
    /// The document of now. `now` names it and says how to render it; nobody else renders meanwhile.
    pub(super) async fn get<E, R>(
        &self,
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
        if let Some((latest, rendered)) = &renderings.latest
            && *latest == key
        {
            return Ok(Ok(rendered.clone()));
        }
        // The lock goes along: a peer that leaves now does not let the next one render beside it.
        let render = move || {
            let mut bytes = render()?;
            bytes.shrink_to_fit();
            Ok(renderings.replace(key, bytes.into()))
        };
        // Rendering thousands of VMs takes a while: not on the thread that answers the others.
        tokio::task::spawn_blocking(render).await
    }
}

impl<K> Renderings<K> {
    fn replace(&mut self, key: K, bytes: Bytes) -> Rendered {
        let rendered = Rendered { bytes, cancel: Cancel::default() };
        if let Some((_, former)) = self.latest.replace((key, rendered.clone())) {
            self.former.push_back((former.bytes.len(), former.cancel));
        }
        self.former.retain(|(_, cancel)| cancel.holders() > 1);
        let mut total: usize = self.former.iter().map(|(length, _)| length).sum();
        while total > MAX_OLD
            && self.former.len() > KEPT
            && let Some((length, cancel)) = self.former.pop_front()
        {
            cancel.cancel();
            total -= length;
        }
        rendered
    }
}

impl Rendered {
    /// The answer: these bytes and then those that are the request's own. Nothing is copied.
    pub(super) fn respond(self, more: Bytes, content_type: &'static str) -> Response {
        let chunks = Chunks([self.bytes, more].into_iter().filter(|bytes| !bytes.is_empty()).collect());
        let mut response = Body::new(chunks).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.extensions_mut().insert(self.cancel);
        response
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
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    async fn get(shared: &SharedBody<u64>, key: u64, length: usize) -> Rendered {
        let now = || Ok::<_, Infallible>((key, move || Ok(vec![b'x'; length])));
        shared.get(now).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn many_requests_share_one_rendering() {
        let (shared, rendered) = (Arc::new(SharedBody::default()), Arc::new(AtomicUsize::new(0)));
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let (shared, rendered) = (Arc::clone(&shared), Arc::clone(&rendered));
            requests.spawn(async move {
                let render = move || {
                    rendered.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                    Ok::<_, Infallible>(vec![b'x'; 1 << 20])
                };
                shared.get(move || Ok((1, render))).await.unwrap().unwrap().bytes
            });
        }
        let all = requests.join_all().await;
        assert!(all.iter().all(|bytes| bytes.as_ptr() == all[0].as_ptr()));
        assert_eq!((all.len(), rendered.load(Ordering::Relaxed)), (40, 1));
    }

    #[tokio::test]
    async fn a_peer_that_leaves_starts_no_second_rendering() {
        let (shared, under_way) = (SharedBody::default(), Arc::new(AtomicUsize::new(0)));
        let render = |key: u64| {
            let under_way = Arc::clone(&under_way);
            shared.get(move || {
                let render = move || {
                    assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0, "beside another one");
                    std::thread::sleep(Duration::from_millis(200));
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(Vec::new())
                };
                Ok((key, render))
            })
        };
        for key in 0..3 {
            let left = tokio::time::timeout(Duration::from_millis(20), render(key)).await;
            assert!(left.is_err(), "it takes longer");
        }
        render(3).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn slow_readers_hold_a_few_renderings_only() {
        let shared = SharedBody::default();
        let mut slow = Vec::new();
        for key in 0..10 {
            slow.push(get(&shared, key, MAX_OLD / 3).await);
        }
        let given_up = slow.iter().filter(|rendered| rendered.cancel.is_cancelled()).count();
        assert_eq!(given_up, 6, "the latest and three former ones stay");
        assert!(slow[0].cancel.is_cancelled() && !slow[9].cancel.is_cancelled());

        let shared = SharedBody::default();
        let slow = [get(&shared, 0, MAX_OLD).await, get(&shared, 1, MAX_OLD).await, get(&shared, 2, 1).await];
        assert!(!slow[0].cancel.is_cancelled(), "a large one has the time of two others");
    }

    #[tokio::test]
    async fn who_has_read_is_forgotten() {
        let shared = SharedBody::default();
        for key in 0..10 {
            drop(get(&shared, key, 1).await);
        }
        assert!(shared.0.lock().await.former.len() <= 1);
    }

    #[tokio::test]
    async fn the_length_is_announced() {
        let rendered = get(&SharedBody::default(), 0, 3).await;
        let response = rendered.respond(Bytes::from_static(b"yz"), "text/plain");
        assert_eq!(response.body().size_hint().exact(), Some(5));
        assert!(response.extensions().get::<Cancel>().is_some());
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, "xxxyz");
    }
}
