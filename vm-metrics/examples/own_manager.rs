//! A program whose instance manager lists the VMs, and whose ticks the library makes.
//!
//! `cargo run --example own_manager` ticks three times.

use std::error::Error;
use std::process;
use std::time::Duration;

use vm_metrics::TickThread;
use vm_metrics::{InstanceManager, InstanceManagerAdapter, InstanceUtilizationInfo, Manager};

/// Stands for whatever starts and stops the VMs.
struct Fleet {
    running: Vec<(String, u32)>,
}

impl InstanceManager for Fleet {
    fn list_running_instances_info(
        &mut self,
    ) -> Result<Vec<InstanceUtilizationInfo>, Box<dyn Error + Send + Sync>> {
        let info = |(name, pid): &(String, u32)| InstanceUtilizationInfo {
            id: name.clone(),
            name: name.clone(),
            hypervisor_pid: Some(*pid),
            ..InstanceUtilizationInfo::default()
        };
        Ok(self.running.iter().map(info).collect())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new();
    manager.set_instance_source(InstanceManagerAdapter::new(Fleet {
        running: vec![("web".into(), process::id())],
    }));

    let (_ticks, mut ticker) = TickThread::spawn(manager, Duration::from_millis(100))?;
    for _ in 0..3 {
        let Some(snapshot) = ticker.next().await else { break };
        for vm in &snapshot.vms {
            println!("tick {}: {} has used {:?} s of CPU", snapshot.tick, vm.instance_name, vm.cpu_seconds());
        }
    }
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
