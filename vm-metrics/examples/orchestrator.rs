//! A program that lists its own VMs and reads their usage, without a daemon.
//!
//! `cargo run --example orchestrator` shows this very process as if it were a VM.

use std::process;

use vm_metrics::{CollectError, InstanceData, InstanceListerAdapter, Manager, build_instance_info};

fn main() -> Result<(), CollectError> {
    let manager = Manager::new();
    manager.set_instance_source(InstanceListerAdapter::new(|| Ok(list())));
    for vm in manager.collect_all()? {
        println!(
            "{}: {:?} s of CPU, {:?} bytes resident",
            vm.instance_name,
            vm.cpu_seconds(),
            vm.process.memory_rss_bytes
        );
    }

    // One VM, of which no source needs to know.
    let me = build_instance_info("me", "me", Some(process::id()), false, 1, 64 << 20);
    let stats = manager.get_instance_stats(&me);
    println!("me: {:?} of its memory", stats.and_then(|vm| vm.memory_utilization_ratio()));
    Ok(())
}

/// What an orchestrator has in its database.
fn list() -> Vec<InstanceData> {
    vec![InstanceData {
        id: "0123456789ab".to_owned(),
        name: "web".to_owned(),
        hypervisor_pid: Some(process::id()),
        network_enabled: false,
        allocated_vcpus: 2,
        allocated_memory_bytes: 64 << 20,
    }]
}

#[test]
fn it_runs() {
    main().unwrap();
}
