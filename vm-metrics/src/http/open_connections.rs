//! The open connections, and the choice of the one to close for a new peer.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::activity::Activity;
use super::peer::Peer;
use super::rate::Rates;

/// A peer may have at most this many times the free connections. So a greedy peer leaves a third of all, and each further
/// greedy peer leaves a third of the rest.
const SHARE: usize = 2;

/// The last free connections are for peers without a connection.
const RESERVE: usize = 4;

/// Share of all connections for remote addresses, in fourths. So a thousand addresses cannot lock out users of this host.
const FOURTHS_OF_ADDRESSES: usize = 3;

/// Time for the first request, during which a connection is not closed for another peer.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Interval of the warnings in the log.
const NEWS: Duration = Duration::from_secs(60);

/// All connections of a server.
#[derive(Debug)]
pub(super) struct OpenConnections {
    max: usize,
    connections: Vec<Connection>,
    rates: Rates,
    refused: RefusalLog,
}

#[derive(Debug)]
struct Connection {
    peer: Peer,
    activity: Activity,
    task: JoinHandle<()>,
}

/// The decision about a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// There is room after the connection of this index is closed.
    After(usize),
    Full,
}

impl OpenConnections {
    pub(super) fn new(max: usize) -> Self {
        Self { max, connections: Vec::new(), rates: Rates::default(), refused: RefusalLog::default() }
    }

    /// Makes room for one more connection of this peer. Never closes a connection with a request under way.
    pub(super) async fn make_room(&mut self, peer: Peer) -> bool {
        self.connections.retain(|connection| !connection.task.is_finished());
        let mut room = if self.rates.allow(peer, Instant::now()) { self.room(peer) } else { Room::Full };
        if matches!(room, Room::After(_)) {
            // Pending bytes are read first, so that a connection with an unread request does not count as idle.
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            room = self.room(peer);
        }
        match room {
            Room::Free => {}
            Room::After(index) => self.close(index).await,
            Room::Full => self.refused.note(peer),
        }
        room != Room::Full
    }

    pub(super) fn add(&mut self, peer: Peer, activity: Activity, task: JoinHandle<()>) {
        self.connections.push(Connection { peer, activity, task });
    }

    /// Frees a file descriptor when the process or the host has none left.
    pub(super) async fn close_an_idle_one(&mut self) {
        self.connections.retain(|connection| !connection.task.is_finished());
        if let Some(index) = self.longest_idle(|_| true) {
            self.close(index).await;
        }
    }

    fn room(&self, peer: Peer) -> Room {
        let is_address = |peer: Peer| matches!(peer, Peer::Address(_));
        let free_of_all = self.max.saturating_sub(self.connections.len());
        let of_addresses = self.connections.iter().filter(|one| is_address(one.peer)).count();
        let free_of_addresses = (self.max * FOURTHS_OF_ADDRESSES / 4).saturating_sub(of_addresses);
        let free = if is_address(peer) { free_of_all.min(free_of_addresses) } else { free_of_all };
        let own = self.count(peer);
        if free > 0 && (own == 0 || (free > RESERVE && own < free * SHARE)) {
            return Room::Free;
        }
        // The peer replaces a connection of its own, or one of the peers with the most connections.
        let is_mine = |connection: &Connection| connection.peer == peer;
        let is_larger = |connection: &Connection| {
            free == 0
                && (free_of_all == 0 || is_address(connection.peer))
                && self.count(connection.peer) > own
                && connection.may_be_closed_for_others()
        };
        let largest =
            self.connections.iter().filter(|one| is_larger(one)).map(|one| self.count(one.peer)).max();
        let of_largest =
            |connection: &Connection| is_larger(connection) && Some(self.count(connection.peer)) == largest;
        let index = self.longest_idle(of_largest).or_else(|| self.longest_idle(is_mine));
        index.map_or(Room::Full, Room::After)
    }

    fn count(&self, peer: Peer) -> usize {
        self.connections.iter().filter(|connection| connection.peer == peer).count()
    }

    fn longest_idle(&self, wanted: impl Fn(&Connection) -> bool) -> Option<usize> {
        let connections = self.connections.iter().enumerate().filter(|(_, connection)| wanted(connection));
        let idle = connections.filter_map(|(index, one)| Some((one.activity.idle()?, index)));
        idle.max().map(|(_, index)| index)
    }

    async fn close(&mut self, index: usize) {
        let connection = self.connections.swap_remove(index);
        connection.task.abort();
        // The file is closed only after the task has ended; its result does not matter.
        let _ = connection.task.await;
    }
}

impl Connection {
    fn may_be_closed_for_others(&self) -> bool {
        self.activity.idle().is_some_and(|idle| self.activity.had_request() || idle > FIRST_REQUEST)
    }
}

/// Logs refused connections, at most once a minute.
#[derive(Debug, Default)]
struct RefusalLog {
    since: usize,
    logged: Option<Instant>,
}

impl RefusalLog {
    fn note(&mut self, peer: Peer) {
        self.since += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() > NEWS) {
            tracing::warn!("{} connections refused, the last of {peer}", self.since);
            *self = Self { since: 0, logged: Some(Instant::now()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Peer = Peer::User(1000);
    const B: Peer = Peer::User(2000);

    /// Opens as many as it may; returns how many it has then.
    async fn fill(open: &mut OpenConnections, peer: Peer, is_busy: bool) -> usize {
        for _ in 0..open.max * 2 {
            if open.make_room(peer).await {
                let activity = Activity::new();
                if is_busy {
                    activity.begin();
                }
                open.add(peer, activity, tokio::spawn(std::future::pending()));
            }
        }
        open.count(peer)
    }

    #[tokio::test]
    async fn no_peer_takes_all_connections() {
        let mut open = OpenConnections::new(64);
        assert_eq!(fill(&mut open, A, true).await, 43);
        assert_eq!(fill(&mut open, B, true).await, 14);
        for uid in 3000..3005 {
            assert!(fill(&mut open, Peer::User(uid), true).await > 0, "{uid}");
        }
        assert_eq!((open.count(A), open.count(B)), (43, 14), "no request is cut off");
    }

    #[tokio::test]
    async fn an_idle_connection_yields_to_its_own_peer() {
        let mut open = OpenConnections::new(64);
        assert_eq!(fill(&mut open, A, false).await, 43);
        assert!(open.make_room(A).await);
        assert_eq!(open.count(A), 42);
    }

    #[tokio::test]
    async fn a_full_table_takes_from_who_has_most() {
        let mut open = OpenConnections::new(4);
        let c = Peer::User(3000);
        for peer in [A, A, A, B] {
            let activity = Activity::new();
            activity.begin();
            if peer == B || open.count(A) > 0 {
                activity.answered();
                activity.flushed();
            }
            open.add(peer, activity, tokio::spawn(std::future::pending()));
        }
        assert!(open.make_room(c).await);
        assert_eq!((open.count(A), open.count(B)), (2, 1));
        open.add(c, Activity::new(), tokio::spawn(std::future::pending()));
        // B has as many as C; so it is A again that gives.
        assert!(open.make_room(B).await);
        assert_eq!((open.count(A), open.count(B)), (1, 1));
        open.add(B, Activity::new(), tokio::spawn(std::future::pending()));
        let Room::After(index) = open.room(c) else { panic!("{:?}", open.room(c)) };
        assert_eq!(open.connections[index].peer, B, "it has most now");
        open.connections.iter().for_each(|connection| connection.activity.begin());
        assert_eq!(open.room(A), Room::Full, "all have a request under way");
    }

    #[tokio::test]
    async fn a_thousand_addresses_leave_room_for_users() {
        let mut open = OpenConnections::new(64);
        for number in 0..1000_u32 {
            fill(&mut open, Peer::Address(std::net::Ipv4Addr::from(number).into()), true).await;
        }
        assert_eq!(open.connections.len(), 48);
        assert_eq!(fill(&mut open, A, true).await, 11);
    }

    #[tokio::test]
    async fn a_first_request_is_waited_for() {
        let mut open = OpenConnections::new(2);
        for _ in 0..2 {
            open.add(A, Activity::new(), tokio::spawn(std::future::pending()));
        }
        assert_eq!(open.room(B), Room::Full);
        assert!(matches!(open.room(A), Room::After(_)));
    }
}
