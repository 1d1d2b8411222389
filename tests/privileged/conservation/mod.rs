//! Not a byte is lost, counted twice, or counted for the wrong VM: over a schedule in which TAPs come and go under the
//! same names, VMs restart, and the daemon is killed and started again, all under traffic.
//!
//! `schedule` says what happens, `world` does it, `neighbours` try to spoil it, and `oracle` know what was written and check
//! each scrape.
//! `TESTKIT_SEED=<number>` makes the same steps once more, `TESTKIT_LIVES=<number>` fewer or more of them, and
//! `TESTKIT_NEIGHBOURS=0` makes them without neighbours.

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

/// With this seed the same steps are made again.
pub(crate) const SEED: &str = "TESTKIT_SEED";

/// How many devices live and die in a run. One of seven ends while no daemon is there to see it.
const LIVES: usize = 1230;

/// So many are to be compared, unless fewer are asked for.
const COMPARED: u64 = 1000;

/// The same with a daemon of an ordinary user.
const LIVES_WITH_SERVICE: usize = 100;

/// So many kinds of hostile acts there are.
const KINDS: usize = 9;

#[test]
fn every_byte_is_on_exactly_one_vm() {
    isolated("conservation::every_byte_is_on_exactly_one_vm", || {
        let with_neighbours = env::var("TESTKIT_NEIGHBOURS").ok().is_none_or(|value| value != "0");
        let (compared, world) = run(User::Root, fewer().unwrap_or(LIVES), with_neighbours);
        let acts = &world.counts.acts;
        let all_acted = acts.len() == KINDS && acts.values().all(|times| *times > 0);
        assert!(all_acted || !with_neighbours, "what the neighbours did: {acts:?}");
        assert!(fewer().is_some() || compared >= COMPARED, "only {compared} lives are compared");
    });
}

/// The unit's user takes over what its killed daemons have pinned, as root does.
#[test]
fn an_unprivileged_daemon_publishes_every_byte() {
    isolated("conservation::an_unprivileged_daemon_publishes_every_byte", || {
        let lives = fewer().map_or(LIVES_WITH_SERVICE, |fewer| fewer.min(LIVES_WITH_SERVICE));
        let (compared, world) = run(User::Service, lives, false);
        assert!(compared > 0 && world.counts.kills > 0, "{compared} lives, {:?}", world.counts);
    });
}

/// The number of lives that is asked for.
fn fewer() -> Option<usize> {
    env::var("TESTKIT_LIVES").ok().map(|lives| lives.parse().unwrap())
}

/// How many lives were compared, and the world they were in.
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

/// How many lives were compared.
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
         written - published = {difference}; {} more ended while nobody was there to see it; \
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
