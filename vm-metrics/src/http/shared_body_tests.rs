//! Documents are rendered once, compressed once, and sent to all.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

async fn get(shared: &SharedBody<u64>, key: u64, length: usize) -> Rendering {
    let now = || Ok::<_, Infallible>((key, move || Ok(vec![b'x'; length])));
    shared.get(Coding::Plain, now).await.unwrap().unwrap()
}

async fn get_compressed(shared: &SharedBody<u64>, key: u64, length: usize) -> Rendering {
    let now = || Ok::<_, Infallible>((key, move || Ok(vec![b'x'; length])));
    shared.get(Coding::Gzip, now).await.unwrap().unwrap()
}

#[tokio::test]
async fn many_requests_share_one_rendering() {
    let (shared, rendered) = (Arc::new(SharedBody::default()), Arc::new(AtomicUsize::new(0)));
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (shared, rendered) = (Arc::clone(&shared), Arc::clone(&rendered));
        requests.spawn(async move {
            let render = move || {
                rendered.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
                Ok::<_, Infallible>(vec![b'x'; 1 << 20])
            };
            let coding = if number % 2 == 0 { Coding::Gzip } else { Coding::Plain };
            let content = shared.get(coding, move || Ok((1, render))).await.unwrap().unwrap().content;
            (coding == Coding::Gzip, content.bytes().as_ptr() as usize)
        });
    }
    let all = requests.join_all().await;
    let different: HashSet<(bool, usize)> = all.iter().copied().collect();
    assert_eq!((different.len(), all.len(), rendered.load(Ordering::Relaxed)), (2, 40, 1));
}

#[tokio::test]
async fn a_document_is_compressed_once_on_request() {
    let shared = SharedBody::default();
    get(&shared, 1, 1 << 20).await;
    assert!(shared.0.lock().await.latest.compressed.is_none());
    let first = get_compressed(&shared, 1, 1 << 20).await;
    let second = get_compressed(&shared, 1, 1 << 20).await;
    assert_eq!(first.content.bytes().as_ptr(), second.content.bytes().as_ptr());
    assert!(first.content.bytes().len() < 1 << 13);
    let next = get_compressed(&shared, 2, 1 << 20).await;
    assert_ne!(first.content.bytes().as_ptr(), next.content.bytes().as_ptr());
}

#[tokio::test]
async fn short_documents_stay_plain() {
    for (length, is_compressed) in [(MIN_COMPRESSED - 1, false), (MIN_COMPRESSED, true)] {
        let response = get_compressed(&SharedBody::default(), 1, length).await.respond(Bytes::new(), "x");
        assert_eq!(response.headers().contains_key(header::CONTENT_ENCODING), is_compressed, "{length}");
        assert_eq!(response.headers()[header::VARY], "accept-encoding");
    }
}

/// All that is of a sixth of what may be kept, once plain and once compressed.
#[tokio::test]
async fn compressed_copies_count_among_the_old() {
    let shared = SharedBody::default();
    let mut slow = Vec::new();
    for key in 0..10 {
        slow.push(get(&shared, key, MAX_OLD / 6).await);
        let compressed = slow[slow.len() - 1].content.clone();
        slow.push(Rendering::new(compressed));
        shared.0.lock().await.latest.compressed = slow.last().cloned();
    }
    let given_up: Vec<bool> = slow.iter().map(|rendered| rendered.cancel.is_cancelled()).collect();
    assert_eq!(given_up, [[true; 12].as_slice(), &[false; 8]].concat(), "the latest and three former stay");
}

#[tokio::test]
async fn a_peer_that_leaves_starts_no_second_rendering() {
    let (shared, under_way) = (SharedBody::default(), Arc::new(AtomicUsize::new(0)));
    let render = |key: u64| {
        let under_way = Arc::clone(&under_way);
        shared.get(Coding::Plain, move || {
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
