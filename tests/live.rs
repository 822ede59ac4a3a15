//! The live path: a simulated camera, a daemon, readers; every picture is checked by what is painted in it.
#![cfg(feature = "sim")]

mod system;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camring::sim::stamp::Stamp;
use camring_ring::State;
use rustix::process::Signal;
use system::{Daemon, PATIENCE, Process, Shm, Sim, amount, camring, is_full, measured, stamp_of, until};
use tempfile::NamedTempFile;

/// Ticks of the RTP clock between two pictures at 25 fps.
const TICKS: u32 = 90_000 / 25;

/// A simulated camera that says at its end how many pictures it had no time to paint.
struct Counting {
    process: Process,
    url: String,
    said: NamedTempFile,
}

impl Counting {
    fn spawn(options: &[&str]) -> Self {
        let said = NamedTempFile::new().unwrap();
        let mut command = camring();
        command.args(["sim", "--listen", "127.0.0.1:0"]).args(options);
        let mut child = command.stdout(Stdio::piped()).stderr(said.reopen().unwrap()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { process: Process(child), url: url.trim_end().to_owned(), said }
    }

    fn skipped(mut self) -> u64 {
        self.process.signal(Signal::TERM);
        self.process.wait();
        let said = std::fs::read_to_string(self.said.path()).unwrap();
        let count = said.split_once(" frames pushed, ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("no count in {said:?}"))
    }
}

#[test]
fn the_painted_number_is_the_metadatas_number() {
    let (shm, sim) = (Shm::new(), Counting::spawn(&["--size", "1920x1080", "--fps", "25"]));
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let ring = shm.attach("cam");
    let mut pixels = Vec::new();
    let mut before: Option<(Stamp, u32, u64, u64)> = None;
    let (mut frames, mut vanished) = (0u64, 0u64);
    ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    let end = Instant::now() + Duration::from_secs(amount(4, 60));
    while Instant::now() < end || frames <= 25 {
        let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        let stamp = stamp_of(&frame, &pixels);
        let now = (stamp, frame.meta.rtp_timestamp, frame.meta.seq.0, frame.meta.source_seq);
        if let Some((old, rtp, seq, source_seq)) = before {
            assert!(now.2 > seq, "sequence {} after {seq}", now.2);
            assert!(stamp.number > old.number, "painted {} after {}", stamp.number, old.number);
            // The server rounds each picture's time to a tick.
            let periods = (now.1.wrapping_sub(rtp) + TICKS / 2) / TICKS;
            assert_eq!(periods, stamp.number - old.number, "RTP time and painted number disagree at frame {}", now.2);
            if frame.skipped == 0 {
                let lost = u64::from(stamp.number - old.number) - (now.3 - source_seq);
                vanished += lost.saturating_sub(u64::from(frame.meta.gap));
            }
        }
        before = Some(now);
        frames += 1;
    }
    let stats = ring.stats();
    until("the state is live", || ring.status().state == State::Live);
    let skipped = sim.skipped();
    assert!(vanished <= skipped, "{vanished} pictures vanished, and the camera left out only {skipped}");
    measured(format!("{frames} frames of 1080p25 read, {} skipped, 0 torn, {} retries", stats.skipped, stats.retries));
}

#[test]
fn a_reader_that_needs_400_ms_gets_fresh_frames() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--size", "1280x720", "--fps", "25"]));
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let ring = shm.attach("cam");
    let mut pixels = Vec::new();
    let first = ring.next(&mut pixels, Some(PATIENCE)).unwrap().meta.seq.0;
    let until = Instant::now() + Duration::from_secs(amount(6, 60));
    let mut last = first;
    let mut skipped = 0;
    let mut ages_ms = Vec::new();
    while Instant::now() < until {
        // The inference that this test stands for; not a wait for anything.
        std::thread::park_timeout(Duration::from_millis(400));
        let newest = ring.peek().unwrap().seq;
        let frame = ring.latest(&mut pixels).unwrap();
        assert!(frame.meta.seq >= newest, "frame {} although there was {newest}", frame.meta.seq);
        let age_ms = camring_ring::age_ns(&frame.meta) / 1_000_000;
        stamp_of(&frame, &pixels);
        assert_eq!(frame.skipped, (frame.meta.seq.0 - last).saturating_sub(1), "after frame {last}");
        skipped += frame.skipped;
        last = frame.meta.seq.0;
        ages_ms.push(age_ms);
    }
    ages_ms.sort_unstable();
    let median = ages_ms[ages_ms.len() / 2];
    // How long a picture takes to the ring is a matter of the machine; the soak has one for itself.
    assert!(
        !is_full() || median <= 80,
        "frames are {median} ms old when they are read, expected at most two periods (80 ms)"
    );
    assert_eq!(ring.stats().skipped, skipped);
    let worst = ages_ms[ages_ms.len() - 1];
    measured(format!(
        "{} reads every 400 ms: age {median} ms median, {worst} ms worst; {skipped} skipped",
        ages_ms.len()
    ));
}

/// A daemon without a list of plugins, on a machine that needs `seconds` to begin to make one; how it is slow is told to
/// `folder`, where `begun` is then.
fn daemon_that_starts_slowly(shm: &Shm, url: &str, seconds: u32, folder: &Path) -> Daemon {
    let find = Command::new("find").args(["/usr/lib", "/usr/libexec", "-name", "gst-plugin-scanner"]).output().unwrap();
    let found = String::from_utf8(find.stdout).unwrap();
    let scanner = found.lines().next().expect("GStreamer has a gst-plugin-scanner");
    let (slow, config) = (folder.join("scanner"), folder.join("camring.toml"));
    let text = format!("#!/bin/sh\ntouch {}\nsleep {seconds}\nexec {scanner} \"$@\"\n", folder.join("begun").display());
    fs::write(&slow, text).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    let limits = "reconnect.connect_timeout = \"2s\"\nreconnect.request_timeout = \"1s\"\n";
    fs::write(&config, format!("[camera.cam]\nurl = \"{url}\"\n{limits}")).unwrap();
    let mut command = camring();
    command.args(["run", "cam", "--config", config.to_str().unwrap(), "--shm-dir"]).arg(shm.path());
    command.env("GST_PLUGIN_SCANNER", &slow).env("GST_REGISTRY", folder.join("registry"));
    Daemon::spawn_command(command, None)
}

#[test]
fn the_first_start_on_a_slow_machine_takes_its_time_and_is_not_given_up() {
    let (shm, sim, folder) = (Shm::new(), Sim::spawn(&["--size", "320x240"]), tempfile::tempdir().unwrap());
    // Longer than a session may take to connect (2 s) and to end after that (3 s).
    let daemon = daemon_that_starts_slowly(&shm, &sim.url, 8, folder.path());
    let ring = shm.attach("cam");
    ring.next(&mut Vec::new(), Some(PATIENCE)).unwrap();
    assert_eq!(ring.status().writer_pid, daemon.process.pid(), "{}", daemon.log());
}

#[test]
fn a_stop_during_a_slow_first_start_is_not_put_off() {
    let (shm, folder) = (Shm::new(), tempfile::tempdir().unwrap());
    let mut daemon = daemon_that_starts_slowly(&shm, "rtsp://127.0.0.1:9/none", 60, folder.path());
    until("plugins are looked for", || folder.path().join("begun").exists());
    let asked = Instant::now();
    daemon.process.signal(Signal::TERM);
    assert_eq!(daemon.process.wait().code(), Some(0), "{}", daemon.log());
    assert!(asked.elapsed() < Duration::from_secs(30), "it waited for the plugins");
}
