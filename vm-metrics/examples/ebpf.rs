//! A program with the eBPF programs and the VMs that the daemon finds.
//!
//! `cargo run --example ebpf`, as root; without rights it says what is missing and shows the rest.

use std::path::Path;
use std::thread;
use std::time::Duration;

use vm_metrics::Purpose;
use vm_metrics::{Config, Manager, StartError};

/// The keys are those of the daemon. Without pins the programs leave with this process.
const CONFIG: &str = "
[readers.tap_ebpf]
pin = false
";

fn main() -> Result<(), StartError> {
    let config = Config::parse(Path::new("ebpf example"), CONFIG)?;
    let manager = Manager::with_config(config, Purpose::Serve)?;
    // The first look attaches the programs, the second shows what they have counted.
    manager.collect();
    thread::sleep(Duration::from_secs(1));
    let snapshot = manager.collect();
    for part in &snapshot.components {
        println!(
            "{} {}: {} {}",
            part.kind.as_str(),
            part.name,
            part.health.state.as_str(),
            part.health.reason
        );
    }
    for vm in &snapshot.vms {
        for nic in &vm.nics {
            println!("{} {}: {:?}", vm.instance_name, nic.device, nic.ebpf);
        }
    }
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
