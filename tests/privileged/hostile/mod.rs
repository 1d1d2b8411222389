//! Attacks by an ordinary user on a daemon with the unit's capabilities.
//!
//! Each module has one attack. Each test has a [`lab::Scene`]: a daemon, a [`lab::Victim`] with known bytes, and
//! tenants of [`user`].

mod api_device;
mod baseline;
mod blocked_process;
mod changed_program;
mod churning_fakes;
mod closed_host;
mod closed_tap;
mod connection_flood;
mod few_descriptors;
mod flapping_links;
mod flood;
mod flooding_api;
mod hanging_config_file;
mod hanging_directory;
mod hidden_final_counters;
mod lab;
mod macvtap_file;
mod many_threads;
mod many_users;
mod pace;
mod pid_file;
mod planted_directories;
mod planted_state;
mod remade_taps;
mod scrapes_at_once;
mod small_limits;
mod static_vm;
mod stolen_id;
mod swapped_descriptor;
mod symlinks;
mod user;

/// The uuid of a victim.
const VICTIM: &str = "11111111-1111-4111-8111-111111111111";

/// Runs before `main`, because the test harness must not read a foreign command line: see `tenant`.
#[used]
// SAFETY: the section is for pointers to functions like this one, which the C library calls once, after its own start.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    vm_metrics_testkit::tenant::run_if_asked();
}
