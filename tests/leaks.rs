//! Sessions leave nothing behind: the last reconnect costs what the tenth did, in threads, descriptors and memory.
#![cfg(feature = "sim")]

mod system;

use std::time::Instant;

use camring_ring::{Counter, Reason, Ring, State};
use system::proxy::Proxy;
use system::reader::{Reader, Way};
use system::web::WebCamera;
use system::{Daemon, Process, Shm, Sim, amount, free_port, measured, pause, until};

/// Private memory may grow by as much between the tenth cycle and the last.
const GROWTH: u64 = 8 << 20;
/// Cycles after which caches, pools and lazily made threads are there.
const WARM: u64 = 10;
/// A session that is on its way holds more for a moment: what is held for good is the least of so many looks.
const LOOKS: u32 = 100;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    threads: usize,
    fds: usize,
    rss_anon: u64,
}

impl Held {
    /// The least that was seen in half a second.
    fn by(process: &Process) -> Self {
        let mut least = Self { threads: usize::MAX, fds: usize::MAX, rss_anon: u64::MAX };
        for _ in 0..LOOKS {
            let (threads, fds) = process.threads_and_fds();
            least.threads = least.threads.min(threads);
            least.fds = least.fds.min(fds);
            least.rss_anon = least.rss_anon.min(process.rss_anon());
            pause();
        }
        least
    }

    /// Fails the test unless the process comes back to what it held before.
    fn comes_back_in(self, process: &Process, what: &str) {
        let mut now = Self::by(process);
        until("threads and descriptors are those of the tenth cycle", || {
            now = Self::by(process);
            now.threads <= self.threads && now.fds <= self.fds
        });
        let kib = |bytes: u64| bytes / 1024;
        measured(format!(
            "{what}: threads {} -> {}, descriptors {} -> {}, RssAnon {} -> {} KiB",
            self.threads,
            now.threads,
            self.fds,
            now.fds,
            kib(self.rss_anon),
            kib(now.rss_anon)
        ));
        let grown = now.rss_anon.saturating_sub(self.rss_anon);
        assert!(grown < GROWTH, "private memory grew by {} KiB", kib(grown));
    }
}

/// A daemon for `port` that does not wait long between tries.
fn daemon(shm: &Shm, port: u16) -> Daemon {
    daemon_for(shm, &format!("rtsp://127.0.0.1:{port}/stream"))
}

fn daemon_for(shm: &Shm, url: &str) -> Daemon {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let config = format!("[camera.cam]\nurl = \"{url}\"\nreconnect.max = \"100ms\"\n");
    std::fs::write(file.path(), config).unwrap();
    let daemon = Daemon::spawn_config(shm, "cam", file.path());
    // It reads the file before it makes the ring.
    shm.attach("cam");
    daemon
}

fn reconnects(ring: &Ring) -> u64 {
    ring.status().counter(Counter::Reconnects)
}

#[test]
fn a_thousandth_reconnect_costs_what_the_first_did() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--size", "640x360", "--fps", "25", "--gop", "120ms"]));
    let proxy = Proxy::to(sim.port());
    let daemon = daemon(&shm, proxy.port);
    let reader = Reader::attach(&shm, "cam", Way::Next);
    reader.first("a frame", |_| true);
    until("the state is live", || reader.ring.status().state == State::Live);
    let (cycles, began) = (amount(40, 1000), Instant::now());
    let mut tenth = None;
    for cycle in 1..=cycles {
        proxy.cut();
        until("the camera is live again", || {
            reconnects(&reader.ring) == cycle && reader.ring.status().state == State::Live
        });
        if cycle == WARM {
            tenth = Some(Held::by(&daemon.process));
        }
    }
    let what = format!("{cycles} reconnects in {} s", began.elapsed().as_secs());
    tenth.unwrap().comes_back_in(&daemon.process, &what);
    assert_eq!(reconnects(&reader.ring), cycles);
    let status = reader.ring.status();
    assert!(status.reconnects.iter().all(|(reason, _)| *reason == Reason::ServerClosed), "{:?}", status.reconnects);
    let newest = reader.newest().unwrap().frame.meta;
    assert_eq!(status.writer_epoch, 1);
    reader.first("frames keep coming", |seen| seen.frame.meta.seq > newest.seq);
    reader.finish();
}

#[test]
fn a_hundredth_refused_connection_costs_what_the_tenth_did() {
    let shm = Shm::new();
    let daemon = daemon(&shm, free_port());
    let ring = shm.attach("cam");
    let tried = |tries: u64| until("more tries", || u64::from(ring.status().attempt) >= tries);
    let tries = amount(40, 250);
    tried(WARM);
    let tenth = Held::by(&daemon.process);
    tried(tries);
    assert_eq!((ring.status().state, ring.status().reason), (State::Connecting, Reason::ConnectRefused));
    tenth.comes_back_in(&daemon.process, &format!("{tries} refused connections"));
}

#[test]
fn a_web_camera_that_cuts_over_and_over_costs_what_it_did_at_first() {
    let (shm, camera) = (Shm::new(), WebCamera::start());
    let daemon = daemon_for(&shm, &camera.url("mjpeg"));
    let reader = Reader::attach(&shm, "cam", Way::Next);
    let live = |cycle: u64| {
        until("the camera is live again", || {
            reconnects(&reader.ring) == cycle && reader.ring.status().state == State::Live
        });
    };
    reader.first("a frame", |_| true);
    live(0);
    let cycles = amount(30, 500);
    let mut tenth = None;
    for cycle in 1..=cycles {
        camera.cut();
        live(cycle);
        if cycle == WARM {
            tenth = Some(Held::by(&daemon.process));
        }
    }
    tenth.unwrap().comes_back_in(&daemon.process, &format!("{cycles} cuts of a web camera"));
    reader.finish();
}
