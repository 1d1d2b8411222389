//! Attacks by an ordinary user of the host against the daemon with the README's capabilities, one per module.
//!
//! Each test has a [`lab::Scene`]: a daemon, a [`lab::Victim`] whose bytes are known, and tenants of [`user`].

mod flooding_api;
mod frame;
mod hanging_config_file;
mod lab;
mod links_out_of_a_jail;
mod pace;
mod pid_file_in_a_jail;
mod user;

/// Before `main`, and so before the test harness reads a command line that is not its own: see `tenant`.
#[used]
// SAFETY: the section is for pointers to functions like this one, which the C library calls once, after its own start.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    vm_metrics_testkit::tenant::run_if_asked();
}
