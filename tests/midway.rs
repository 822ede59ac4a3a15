//! A connection that goes silent in the middle of a packet: noticed, survived, and no part of a picture shown.
#![cfg(feature = "sim")]

mod system;

use std::time::{Duration, Instant};

use camring_ring::State;
use system::proxy::Proxy;
use system::reader::{Reader, Way};
use system::{Daemon, Shm, Sim, amount, let_pass, measured, until, until_within};

/// Within this the state must say that the camera is gone.
const NOTICED: Duration = Duration::from_secs(5);

#[test]
fn a_connection_that_freezes_in_the_middle_of_a_packet_is_noticed_and_shows_no_part_of_a_picture() {
    // Large pictures of many packets, so that the middle of one is the middle of a picture as well.
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--codec", "mjpeg", "--size", "640x360", "--fps", "10"]));
    let proxy = Proxy::to(sim.port());
    let url = sim.url.replace(&sim.port().to_string(), &proxy.port.to_string());
    let mut daemon = Daemon::spawn(&shm, "cam", &url);
    let (reader, ring) = (Reader::attach(&shm, "cam", Way::Next), shm.attach("cam"));
    for _ in 0..amount(2, 30) {
        until("the camera is live", || ring.status().state == State::Live);
        let first = ring.status().seq.0;
        reader.first("frames of this session", |seen| seen.frame.meta.seq.0 > first + 10);
        proxy.freeze();
        until("a packet was left half sent", || proxy.is_frozen_midway());
        let frozen = Instant::now();
        until_within(NOTICED, "the state leaves live", || ring.status().state != State::Live);
        measured(format!("noticed after {} ms, {}", frozen.elapsed().as_millis(), ring.status().reason));
        let last = ring.status().seq.0;
        let_pass(Duration::from_secs(1));
        assert_eq!(ring.status().seq.0, last, "something was published although nothing arrives");
        assert!(ring.peek().is_ok(), "the last frame stays readable");
        proxy.thaw();
        // A teardown that hangs costs the process on purpose, and the next one goes on with the ring.
        if let Some(status) = daemon.process.0.try_wait().unwrap() {
            assert_eq!(status.code(), Some(75), "{}", daemon.log());
            daemon = Daemon::spawn(&shm, "cam", &url);
        }
        reader.first("a new frame", |seen| seen.frame.meta.seq.0 > last);
    }
    reader.finish();
}
