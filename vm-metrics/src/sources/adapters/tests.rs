//! Tests of the adapters for embedding programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Builder;
use tokio::sync::Notify;

use super::*;

#[test]
fn what_a_list_function_says_is_said_on() {
    let mut source = InstanceListerAdapter::new(|| Err("the database is away".into()));
    let error = source.list_running_instances_for_metrics().unwrap_err();
    assert_eq!(error.to_string(), "the database is away");
}

#[test]
fn tap_names_follow_the_given_rule() {
    let data = InstanceData { id: "Ab".into(), network_enabled: true, ..InstanceData::default() };
    let mut source =
        InstanceListerAdapter::new(move || Ok(vec![data.clone()])).with_tap_name(|id| format!("vm-{id}"));
    let listing = source.list_running_instances_for_metrics().unwrap();
    assert_eq!(listing.instances[0].nics, [Nic::local("vm-Ab")]);
}

/// An empty device name is no NIC.
#[test]
fn zero_means_unknown() {
    let info = InstanceInfo::from(InstanceUtilizationInfo { id: "a".into(), ..Default::default() });
    assert_eq!((info.allocated_vcpus, info.allocated_memory_bytes, info.nics), (None, None, Vec::new()));
}

/// The function is not called again while its call is pending.
#[test]
fn the_next_tick_takes_a_late_answer() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let list = {
        let (asked, go) = (asked.clone(), go.clone());
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let go = go.clone();
            async move {
                go.notified().await;
                Ok(vec![InstanceData { id: "late".into(), ..InstanceData::default() }])
            }
        }
    };
    let deadline = Duration::from_millis(20);
    let mut source = InstanceListerAdapter::from_async(runtime.handle().clone(), deadline, list);
    for _ in 0..3 {
        let error = source.list_running_instances_for_metrics().unwrap_err();
        assert_eq!(error.to_string(), "the list function has not answered within 20ms");
    }
    go.notify_one();
    let listing = loop {
        match source.list_running_instances_for_metrics() {
            Ok(listing) => break listing,
            Err(error) => assert!(matches!(error, SourceError::Late { .. }), "{error}"),
        }
    };
    assert_eq!((listing.instances[0].id.as_str(), asked.load(Ordering::SeqCst)), ("late", 1));
}

#[test]
fn a_list_function_that_panics_is_an_error() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let list = || async { panic!("a fault of theirs") };
    let mut source =
        InstanceListerAdapter::from_async(runtime.handle().clone(), Duration::from_secs(60), list);
    assert!(source.list_running_instances_for_metrics().unwrap_err().to_string().contains("panicked"));
}
