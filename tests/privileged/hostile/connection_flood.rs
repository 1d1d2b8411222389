//! A connection flood of one user delays no scrape of another.

use std::net::SocketAddr;

use vm_metrics_testkit::tenant::{Action, Tenant};

use super::lab::Scene;
use super::pace::Pace;
use super::user::{ATTACKER, NEIGHBOUR};
use crate::isolation::isolated;

const REQUEST: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Scrapes in each tick, over TCP and the socket: fewer than the 100 connections a second of a peer.
const SCRAPES: usize = 3;

/// Fails unless each scrape gets its response.
fn assert_answered(scraper: &mut Tenant, address: SocketAddr, count: usize) {
    for number in 0..count {
        for path in ["/metrics", "/api/v1/vms"] {
            let status = scraper.perform(&Action::Get { address, path: path.to_owned() });
            assert_eq!(status.unwrap_or_else(|error| panic!("scrape {number}: {error:#}")), 200);
        }
    }
}

/// 20 000 connections a second: silent, with half a request, or with a whole one.
#[test]
fn a_connection_flood_blocks_no_scrape() {
    isolated("hostile::connection_flood::a_connection_flood_blocks_no_scrape", || {
        let scene = Scene::new();
        let mut victim = scene.victim("11111111-1111-4111-8111-111111111111", "vmt0");
        let daemon = scene.daemon("");
        let pace = Pace::of(&daemon);
        let (address, mut scraper) =
            (daemon.address(), scene.tenant_of(NEIGHBOUR, "scraper", &[], Vec::new()));
        let mut attacker = scene.attacker("tenant", &[]);
        for text in ["", &REQUEST[..30], REQUEST, REQUEST] {
            attacker.perform(&Action::KeepConnecting { address, text: text.to_owned() }).unwrap();
        }
        pace.assert_kept(&daemon, 60, || {
            victim.work(2);
            assert_answered(&mut scraper, address, SCRAPES);
        });
        victim.assert_exact(&daemon);
        attacker.perform(&Action::Stop).unwrap();
    });
}

/// All permitted connections are silent, incomplete, or do not read their response.
#[test]
fn open_connections_leave_room() {
    isolated("hostile::connection_flood::open_connections_leave_room", || {
        let scene = Scene::new();
        let mut victim = scene.victim("11111111-1111-4111-8111-111111111111", "vmt0");
        let daemon = scene.daemon("");
        let pace = Pace::of(&daemon);
        let (address, mut scraper) =
            (daemon.address(), scene.tenant_of(NEIGHBOUR, "scraper", &[], Vec::new()));
        let mut attacker = scene.attacker("tenant", &[]);
        let many = REQUEST.repeat(200);
        for (text, count) in [(REQUEST, 40), (&REQUEST[..30], 40), (&many, 40), ("", 400)] {
            attacker.perform(&Action::Connect { address, text: text.to_owned(), count }).unwrap();
            pace.assert_kept(&daemon, 5, || {
                victim.work(2);
                assert_answered(&mut scraper, address, SCRAPES);
            });
        }
        victim.assert_exact(&daemon);
        let log = daemon.log();
        let refused: Vec<&str> = log.lines().filter(|line| line.contains("connections refused")).collect();
        let user = format!("user {ATTACKER}");
        assert!(refused.len() == 1 && refused[0].contains(&user), "logged once a minute: {refused:?}");
    });
}
