//! Every byte is on exactly one VM, under a random schedule.
//!
//! TAPs come and go under the same names, VMs restart, and daemons stop, die and start again, all under traffic.
//!
//! `schedule` draws the steps and `world` makes them, `neighbours` attack, and `oracle` checks each scrape.
//! `TESTKIT_SEED=<number>` repeats a schedule, `TESTKIT_LIVES=<number>` sets its length, and `TESTKIT_NEIGHBOURS=0`
//! runs it without neighbours.

mod host;
mod neighbours;
mod oracle;
mod published;
mod schedule;
mod traffic;
mod world;

use std::env;
use std::time::Instant;

use vm_metrics_testkit::random;

use self::oracle::Sums;
use self::schedule::Schedule;
use self::world::World;
use crate::isolation::{figures, isolated};
use crate::lab::ways;
use crate::user::User;

/// The variable with the seed that repeats a schedule.
pub(crate) const SEED: &str = "TESTKIT_SEED";

/// Number of devices in a run. One of seven ends while no daemon runs.
const LIVES: usize = 1230;

/// The test compares at least so many lives, unless the environment asks for fewer.
const COMPARED: u64 = 1000;

/// Number of devices with a daemon of an ordinary user.
const LIVES_WITH_SERVICE: usize = 100;

/// Number of kinds of attacks.
const KINDS: usize = 9;

#[test]
fn every_byte_is_on_exactly_one_vm() {
    isolated("conservation::every_byte_is_on_exactly_one_vm", || {
        let with_neighbours = env::var("TESTKIT_NEIGHBOURS").ok().is_none_or(|value| value != "0");
        let (compared, world) = run(User::Root, fewer().unwrap_or(LIVES), with_neighbours);
        let acts = &world.counts.acts;
        let all_acted = acts.len() == KINDS && acts.values().all(|times| *times > 0);
        assert!(all_acted || !with_neighbours, "attacks of the neighbours: {acts:?}");
        assert!(fewer().is_some() || compared >= COMPARED, "only {compared} lives are compared");
    });
}

/// The unit's user takes over the pins of its killed daemons, as root does.
#[test]
fn an_unprivileged_daemon_publishes_every_byte() {
    isolated("conservation::an_unprivileged_daemon_publishes_every_byte", || {
        let lives = fewer().map_or(LIVES_WITH_SERVICE, |fewer| fewer.min(LIVES_WITH_SERVICE));
        let (compared, world) = run(User::Service, lives, false);
        assert!(compared > 0 && world.counts.kills > 0, "{compared} lives, {:?}", world.counts);
    });
}

/// Number of lives that the environment asks for.
fn fewer() -> Option<usize> {
    env::var("TESTKIT_LIVES").ok().map(|lives| lives.parse().unwrap())
}

/// Runs a schedule, and returns the number of compared lives and the world.
fn run(user: User, lives: usize, with_neighbours: bool) -> (u64, World) {
    let seed = random::seed(SEED);
    eprintln!("{SEED}={seed} makes these steps once more");
    let mut schedule = Schedule::new(seed, World::slots(user));
    let mut world = World::new(user, seed, ways(), with_neighbours);
    let start = Instant::now();
    while world.counts.begun < lives {
        let step = schedule.next();
        if world.make(step) {
            eprintln!("{:?} {step:?}", start.elapsed());
        }
    }
    world.finish();
    (report(&world, seed, user), world)
}

/// Prints the result, and returns the number of compared lives.
fn report(world: &World, seed: u64, user: User) -> u64 {
    let (mut all, mut unseen) = (Sums::default(), Sums::default());
    for (vm, (of_vm, unseen_of_vm)) in world.oracle.sums() {
        assert_eq!(of_vm.published, of_vm.written, "{vm}");
        all.add_all(&of_vm);
        unseen.add_all(&unseen_of_vm);
    }
    let [rx_bytes, rx_packets, tx_bytes, tx_packets] = all.written;
    let difference = (0..4).map(|index| all.written[index] - all.published[index]).sum::<u64>();
    figures(&format!(
        "conservation, a daemon of {user:?}: {} incarnations of TAPs, {} kills and {} orderly restarts of the daemon; \
         received {rx_bytes} bytes in {rx_packets} packets, sent {tx_bytes} bytes in {tx_packets} packets; \
         written - published = {difference}; {} more ended without a daemon; \
         {} scrapes; {} hostile acts of neighbours: {} (seed {seed})",
        all.lives,
        world.counts.kills,
        world.counts.stops,
        unseen.lives,
        world.counts.scrapes,
        world.counts.acts.values().sum::<u64>(),
        world
            .counts
            .acts
            .iter()
            .map(|(what, times)| format!("{times} {what}"))
            .collect::<Vec<_>>()
            .join(", "),
    ));
    all.lives
}
