//! Observes a manager without keeping it alive.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::Duration;

use super::Manager;
use super::engine::Engine;
use crate::host::Host;
use crate::model::{MissedTicks, Snapshot};

/// Two calls within this time get one snapshot: numbers do not change faster than is worth reading.
const RECENT: Duration = Duration::from_millis(100);

/// While a tick runs, callers get the snapshot before it, unless ticks hang.
const STALE: Duration = Duration::from_secs(30);

pub(crate) struct WeakManager {
    engine: Weak<Mutex<Engine>>,
    latest: Weak<Mutex<Option<Arc<Snapshot>>>>,
    host: Host,
    label_budget: Arc<AtomicUsize>,
}

impl Manager {
    pub(crate) fn downgrade(&self) -> WeakManager {
        WeakManager {
            engine: Arc::downgrade(&self.engine),
            latest: Arc::downgrade(&self.latest),
            host: self.host.clone(),
            label_budget: Arc::clone(&self.label_budget),
        }
    }

    fn younger_than(&self, age: Duration) -> Option<Arc<Snapshot>> {
        self.latest().filter(|snapshot| snapshot.taken.elapsed() < age)
    }
}

impl WeakManager {
    /// A recent snapshot; `None` when the manager is gone, or hangs. It waits for no tick: a source may wait for the
    /// caller, and the two would block each other.
    pub(crate) fn recent(&self) -> Option<Arc<Snapshot>> {
        let manager = self.upgrade()?;
        if let Some(snapshot) = manager.younger_than(RECENT) {
            return Some(snapshot);
        }
        let engine = match manager.engine.try_lock() {
            Ok(engine) => engine,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return manager.younger_than(STALE),
        };
        Some(manager.tick_of(engine, MissedTicks::default()))
    }

    fn upgrade(&self) -> Option<Manager> {
        let (engine, latest) = (self.engine.upgrade()?, self.latest.upgrade()?);
        let label_budget = Arc::clone(&self.label_budget);
        Some(Manager { engine, latest, host: self.host.clone(), label_budget })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::sources::InstanceListerAdapter;

    #[test]
    fn looks_that_follow_closely_are_one() {
        let manager = Manager::new();
        let weak = manager.downgrade();
        let first = weak.recent().unwrap();
        assert!(first.taken.elapsed() > RECENT || weak.recent().unwrap().tick == first.tick);
        thread::sleep(RECENT);
        assert!(weak.recent().unwrap().tick > first.tick);
        assert_eq!(manager.collect().tick, weak.recent().unwrap().tick, "also that of somebody else");
    }

    #[test]
    fn a_manager_that_is_gone_shows_nothing() {
        let manager = Manager::new();
        let weak = manager.downgrade();
        assert!(weak.recent().is_some());
        drop(manager);
        assert!(weak.recent().is_none());
    }

    #[test]
    fn a_source_may_wait_for_a_look() {
        let manager = Manager::new();
        let weak = manager.downgrade();
        let (ask, asked) = mpsc::channel();
        let (answer, answered) = mpsc::channel();
        let looks = thread::spawn(move || {
            for () in asked {
                answer.send(weak.recent().map(|snapshot| snapshot.tick)).unwrap();
            }
        });
        let before = manager.collect().tick;
        let (seen, saw) = mpsc::channel();
        manager.set_instance_source(InstanceListerAdapter::new(move || {
            thread::sleep(RECENT);
            ask.send(()).unwrap();
            seen.send(answered.recv_timeout(Duration::from_secs(20)).ok().flatten()).unwrap();
            Ok(Vec::new())
        }));
        manager.collect();
        assert_eq!(saw.recv().unwrap(), Some(before));
        drop(manager);
        looks.join().unwrap();
    }
}
