//! A limit that is too small stops the daemon at once and names the minimum.

use std::process::Command;

use crate::fixture::{BINARY, Fixture, serve_with_files, stderr};

#[test]
fn too_few_open_files_name_the_minimum() {
    let fixture = Fixture::new("mixed");
    for limit in [24, 64, 111] {
        let mut shell = Command::new("sh");
        let serve = "exec \"$0\" serve --listen 127.0.0.1:0 --no-ebpf --config \"$1\"";
        shell.args(["-ec", &format!("ulimit -n {limit}; {serve}"), BINARY]).arg(&fixture.config);
        let refused = shell.output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{limit}");
        let wording = format!("the limit of open files is {limit}: at least 112 are needed (LimitNOFILE=");
        assert!(stderr(&refused).contains(&wording), "{}", stderr(&refused));
    }
}

#[test]
fn the_minimum_of_open_files_serves_scrapes() {
    let daemon = serve_with_files(112, &Fixture::new("mixed").config);
    daemon.metrics().unwrap();
    assert!(daemon.log().contains("enough for about 1 VMs (LimitNOFILE=)"), "{}", daemon.log());
}
