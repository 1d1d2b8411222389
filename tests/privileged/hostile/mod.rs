//! Attacks by an ordinary user of the host against the daemon with the README's capabilities, one per module.
//!
//! Each test has a [`lab::Scene`]: a daemon, a [`lab::Victim`] whose bytes are known, and tenants of [`user`].

mod churning_fakes;
mod flapping_links;
mod frame;
mod lab;
mod pace;
mod remade_taps;
mod user;

/// Before `main`, and so before the test harness reads a command line that is not its own: see `tenant`.
#[used]
// SAFETY: the section is for pointers to functions like this one, which the C library calls once, after its own start.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    vm_metrics_testkit::tenant::run_if_asked();
}
