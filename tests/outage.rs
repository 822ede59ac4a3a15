//! A camera that is not there, goes away, or says no: what a reader sees meanwhile, and that it need do nothing.
#![cfg(feature = "sim")]

mod system;

use std::time::{Duration, Instant};

use camring::clock::{Clock, Mono, SystemClock};
use camring_ring::{Counter, FrameFlags, Liveness, Reason, Ring, State, Status};
use rustix::process::Signal;
use system::reader::{Reader, Seen, Way};
use system::{Daemon, Shm, Sim, amount, camring, free_port, let_pass, measured, until, until_within};

/// Within this the state must say that a camera is gone.
const NOTICED: Duration = Duration::from_secs(5);
/// The longest pause between two tries, the connect, and a group of pictures, on a machine with two busy cores.
const BACK: Duration = Duration::from_secs(20);
/// Small pictures, a keyframe five times a second.
const SMALL: [&str; 6] = ["--size", "640x360", "--fps", "10", "--gop", "200ms"];

fn now() -> Mono {
    SystemClock.now()
}

/// Waits until the first try has failed and the second is planned.
fn first_failure(ring: &Ring) -> Status {
    until("the first try fails", || ring.status().next_retry_mono_ns != 0);
    ring.status()
}

/// A camera that fails in a way that only a human can mend: says why, and is left alone for `pause` from `began` on.
fn left_alone(ring: &Ring, daemon: &mut Daemon, reason: Reason, began: Mono, pause: Duration) {
    let status = first_failure(ring);
    assert_eq!((status.state, status.reason, status.attempt), (State::Connecting, reason, 1));
    let earliest = began.after(pause).0.cast_unsigned();
    assert!(status.next_retry_mono_ns >= earliest, "the next try is {} ns early", earliest - status.next_retry_mono_ns);
    assert_eq!(ring.liveness(), Liveness::Alive);
    assert!(ring.peek().is_err(), "nothing was ever published");
    assert!(daemon.process.0.try_wait().unwrap().is_none(), "the daemon is alive");
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.contains(&reason.to_string()), "the log names the reason");
}

#[test]
fn a_reader_attached_before_the_camera_was_reached_gets_its_first_frames() {
    let (shm, port) = (Shm::new(), free_port());
    let daemon = Daemon::spawn(&shm, "cam", &format!("rtsp://127.0.0.1:{port}/stream"));
    let reader = Reader::attach(&shm, "cam", Way::Next);
    until("the refused connection is seen", || reader.ring.status().reason == Reason::ConnectRefused);
    let status = reader.ring.status();
    assert_eq!((status.state, status.seq.0), (State::Connecting, 0));
    let began = (Instant::now(), daemon.process.cpu_ms());
    let_pass(Duration::from_secs(amount(2, 30)));
    let cpu_ms = daemon.process.cpu_ms() - began.1;
    measured(format!("a daemon without its camera: {cpu_ms} ms of processor in {} ms", began.0.elapsed().as_millis()));
    let _sim = Sim::spawn_on(port, &SMALL, None);
    let seen = reader.first_within(BACK, "a frame", |_| true);
    assert!(!seen.frame.meta.flags.contains(FrameFlags::AFTER_RECONNECT), "the camera was never lost");
    until("the state is live", || reader.ring.status().state == State::Live);
    assert_eq!(reader.ring.status().counter(Counter::Reconnects), 0);
    reader.finish();
}

#[test]
fn a_wrong_password_is_tried_once_a_minute_at_most() {
    const WRONG: &str = "wr0ng-p4ssw0rd";
    let (shm, sim) = (Shm::new(), Sim::spawn_with_password(&SMALL, "r1ght-p4ssw0rd"));
    let began = now();
    let mut daemon = Daemon::spawn_login(&shm, "cam", &sim.url, WRONG);
    let ring = shm.attach("cam");
    left_alone(&ring, &mut daemon, Reason::Auth, began, Duration::from_secs(60));
    let_pass(Duration::from_secs(amount(1, 250)));
    let (tries, seconds) = (ring.status().attempt, (now().0 - began.0) / 1_000_000_000);
    assert!(
        (1..=1 + seconds / 60).contains(&i64::from(tries)),
        "{tries} tries in {seconds} s: the account is not left alone"
    );
    assert_eq!(ring.status().reason, Reason::Auth);
    measured(format!("a wrong password: {tries} tries in {seconds} s"));
    assert!(!daemon.log().contains(WRONG), "the password is in the log");
}

#[test]
fn a_stream_that_does_not_exist_is_named_and_asked_for_slowly() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&SMALL));
    let began = now();
    let mut daemon = Daemon::spawn(&shm, "cam", &sim.url.replace("/stream", "/elsewhere"));
    left_alone(&shm.attach("cam"), &mut daemon, Reason::NotFound, began, Duration::from_secs(5));
}

#[test]
fn a_codec_without_a_decoder_is_named_and_asked_for_slowly() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--codec", "theora", "--size", "640x360", "--fps", "10"]));
    let began = now();
    let mut daemon = Daemon::spawn(&shm, "cam", &sim.url);
    left_alone(&shm.attach("cam"), &mut daemon, Reason::UnsupportedCodec, began, Duration::from_secs(5));
}

/// A camera that is live, and two handles that were attached before anything happened to it.
struct Scene {
    sim: Sim,
    reader: Reader,
    ring: Ring,
    before: Seen,
    session_id: u32,
    _daemon: Daemon,
    _shm: Shm,
}

impl Scene {
    fn live(config: Option<&str>) -> Self {
        let (shm, sim) = (Shm::new(), Sim::spawn(&SMALL));
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), format!("[camera.cam]\nurl = \"{}\"\n{}\n", sim.url, config.unwrap_or("")))
            .unwrap();
        let daemon = Daemon::spawn_config(&shm, "cam", file.path());
        let (reader, ring) = (Reader::attach(&shm, "cam", Way::Next), shm.attach("cam"));
        // A second of frames: before, the supervisor does not know how far apart they are to be.
        let mut frames = 0;
        let before = reader.first("ten frames", |_| {
            frames += 1;
            frames > 10
        });
        until("the state is live", || ring.status().state == State::Live);
        let session_id = ring.status().session_id;
        Self { sim, reader, ring, before, session_id, _daemon: daemon, _shm: shm }
    }

    /// Waits until the state says that the camera is gone; returns the reason.
    fn gone(&self) -> Reason {
        until_within(NOTICED, "the state leaves live", || self.ring.status().state != State::Live);
        let status = self.ring.status();
        assert!(matches!(status.state, State::Stalled | State::Reconnecting), "{} ({})", status.state, status.reason);
        status.reason
    }

    /// The camera is away for `time`: nothing new appears, and the last frame can be read and does not change.
    fn stays_away(&self, time: Duration) -> u64 {
        let (mut first, mut again) = (Vec::new(), Vec::new());
        let frame = self.ring.latest(&mut first).unwrap();
        let age = camring_ring::age_ns(&frame.meta);
        let_pass(time);
        let later = self.ring.latest(&mut again).unwrap();
        assert_eq!(later.meta, frame.meta, "something was published while the camera was away");
        assert!(first == again, "the last frame has changed");
        let older = camring_ring::age_ns(&later.meta) - age;
        assert!(older >= i64::try_from(time.as_nanos()).unwrap(), "only {older} ns older");
        assert_ne!(self.ring.status().state, State::Live);
        assert_eq!(self.ring.status().counter(Counter::Reconnects), 0);
        frame.meta.seq.0
    }

    /// The camera is there again: the same reader continues behind frame `last`, in the next session.
    fn comes_back(self, last: u64, reasons: &[Reason]) -> Seen {
        let seen = self.reader.first_within(BACK, "a new frame", |seen| seen.frame.meta.seq.0 > last);
        let meta = seen.frame.meta;
        assert_eq!(meta.session_id, self.session_id + 1);
        assert_eq!(seen.frame.generation, self.before.frame.generation);
        // The flags are on the first frame of the session; a reader that was late got a later one and was told so.
        if seen.frame.skipped == 0 {
            assert!(meta.flags.contains(FrameFlags::AFTER_RECONNECT.with(FrameFlags::DISCONT)), "{:?}", meta.flags);
            assert_eq!(meta.seq.0, last + 1);
        }
        until("the state is live", || self.ring.status().state == State::Live);
        let status = self.ring.status();
        assert_eq!((status.session_id, status.counter(Counter::Reconnects)), (self.session_id + 1, 1));
        assert!(matches!(status.reconnects[..], [(why, 1)] if reasons.contains(&why)), "{:?}", status.reconnects);
        self.reader.first("the stream goes on", |later| later.frame.meta.seq.0 > meta.seq.0 + 5);
        self.reader.finish();
        seen
    }
}

#[test]
fn a_camera_that_comes_back_with_another_codec_and_size_is_read_on() {
    const CODECS: [&str; 5] = ["h265", "mjpeg", "vp8", "vp9", "mpeg4"];
    for codec in &CODECS[..amount(1, CODECS.len() as u64) as usize] {
        comes_back_with(codec);
    }
}

/// The camera was live with H.264.
fn comes_back_with(codec: &str) {
    let mut scene = Scene::live(None);
    let port = scene.sim.port();
    scene.sim.process.kill();
    scene.gone();
    until("the port is found closed", || scene.ring.status().reason == Reason::ConnectRefused);
    let last = scene.stays_away(Duration::from_millis(200));
    let other = ["--codec", codec, "--size", "480x272", "--fps", "10", "--gop", "200ms"];
    let respawned = Instant::now();
    scene.sim = Sim::spawn_on(port, &other, None);
    let seen = scene.comes_back(last, &[Reason::ServerClosed, Reason::ConnectRefused]);
    let geometry = &seen.frame.meta.geometry;
    assert_eq!((geometry.width, geometry.height), (480, 272));
    measured(format!("back with {codec}: new frames {} ms after its start began", respawned.elapsed().as_millis()));
    assert!(seen.frame.skipped > 0 || seen.frame.meta.flags.contains(FrameFlags::GEOMETRY_CHANGED));
}

/// Kills the camera's server and starts another one on the same port.
fn killed_and_back(config: Option<&str>, reasons: &[Reason]) {
    let mut scene = Scene::live(config);
    let killed = Instant::now();
    scene.sim.process.kill();
    let reason = scene.gone();
    let noticed = killed.elapsed();
    // From then on the old session is over: nothing of it is on its way to the ring.
    until("the port is found closed", || scene.ring.status().reason == Reason::ConnectRefused);
    let last = scene.stays_away(Duration::from_secs(amount(2, 5)));
    let (run, respawned) = (scene.before.stamp.run_id, Instant::now());
    scene.sim.respawn();
    let seen = scene.comes_back(last, reasons);
    assert_ne!(seen.stamp.run_id, run, "the picture is of the new server");
    measured(format!(
        "a killed camera: noticed ({reason}) after {} ms, new frames {} ms after its restart began",
        noticed.as_millis(),
        respawned.elapsed().as_millis()
    ));
}

#[test]
fn a_killed_camera_is_noticed_and_its_reader_continues_by_itself() {
    killed_and_back(None, &[Reason::ServerClosed]);
}

#[test]
fn a_killed_camera_on_udp_is_noticed_and_its_reader_continues_by_itself() {
    killed_and_back(Some("transport = \"udp\""), &[Reason::ServerClosed, Reason::NoPackets]);
}

#[test]
fn a_frozen_camera_is_noticed_and_its_reader_continues_by_itself() {
    let scene = Scene::live(None);
    let frozen = Instant::now();
    scene.sim.process.signal(Signal::STOP);
    let reason = scene.gone();
    assert_eq!(reason, Reason::NoPackets);
    let noticed = frozen.elapsed();
    until("the old session is over", || scene.ring.status().state == State::Reconnecting);
    let last = scene.stays_away(Duration::from_secs(amount(2, 30)));
    let (run, thawed) = (scene.before.stamp.run_id, Instant::now());
    scene.sim.process.signal(Signal::CONT);
    let seen = scene.comes_back(last, &[Reason::NoPackets]);
    assert_eq!(seen.stamp.run_id, run, "the picture is of the same server");
    measured(format!(
        "a frozen camera: noticed ({reason}) after {} ms, new frames {} ms after it went on",
        noticed.as_millis(),
        thawed.elapsed().as_millis()
    ));
}

#[test]
fn of_a_camera_that_marks_every_slice_no_half_picture_is_shown() {
    no_half_picture_is_shown(&[]);
}

#[test]
fn of_marked_slices_that_come_one_by_one_no_half_picture_is_shown() {
    // So narrow that the decoder is done with a slice before the next one is there.
    let script = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let fault = "[[fault]]\nat = \"0s\"\ndo = \"bandwidth\"\nkbit = 2000\n";
    std::fs::write(script.path(), format!("from = \"start\"\n{fault}")).unwrap();
    no_half_picture_is_shown(&["--script", script.path().to_str().unwrap()]);
}

#[test]
fn of_slices_that_come_to_be_marked_later_no_half_picture_is_shown() {
    // One by one, as above; the camera has had true markers before.
    let script = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let slow = "[[fault]]\ndo = \"bandwidth\"\nkbit = 2000\n";
    std::fs::write(script.path(), format!("{slow}[[fault]]\nat = \"2s\"\ndo = \"marker\"\n")).unwrap();
    is_noticed_and_read_whole(&["--slices", "4", "--bitrate", "1M", "--script", script.path().to_str().unwrap()]);
}

fn no_half_picture_is_shown(more: &[&str]) {
    is_noticed_and_read_whole(&[&["--slices", "4", "--mark-slices", "--bitrate", "1M"], more].concat());
}

fn is_noticed_and_read_whole(camera: &[&str]) {
    let (shm, sim) = (Shm::new(), Sim::spawn(&[&SMALL[..], camera].concat()));
    let daemon = Daemon::spawn(&shm, "cam", &sim.url);
    // The reader judges every picture: both of its stamps must be there, and be the same.
    let reader = Reader::attach(&shm, "cam", Way::Next);
    until("the camera is noticed", || {
        assert!(reader.is_reading(), "the reader gave up");
        daemon.log().contains("MARKER_PER_SLICE")
    });
    let (noticed, mut frames) = (reader.newest().map_or(0, |seen| seen.frame.meta.seq.0), 0);
    reader.first("thirty frames", |seen| {
        frames += u32::from(seen.frame.meta.seq.0 > noticed);
        frames >= 30
    });
    let seen = reader.finish();
    let numbers: Vec<u32> = seen.iter().map(|seen| seen.stamp.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}

/// The library that lends a process another wall clock, where Debian's `libfaketime` puts it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[test]
fn a_wall_clock_that_steps_an_hour_forth_and_back_disturbs_nothing() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    if !std::path::Path::new(FAKETIME).exists() {
        println!("skipped: no {FAKETIME} here; install libfaketime");
        return;
    }
    let (shm, sim, step) = (Shm::new(), Sim::spawn(&SMALL), tempfile::NamedTempFile::new().unwrap());
    let stepped_by = |offset: &str| std::fs::write(step.path(), format!("{offset}\n")).unwrap();
    stepped_by("+0");
    let mut command = camring();
    command.args(["run", "cam", "--url", &sim.url, "--shm-dir"]).arg(shm.path());
    // Of the daemon alone; what is measured from event to event must not depend on it.
    command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", step.path());
    command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    let daemon = Daemon::spawn_command(command, None);
    let reader = Reader::attach(&shm, "cam", Way::Next);
    let real_minus_ours = |seen: &Seen| {
        let meta = &seen.frame.meta;
        let ours = camring_ring::clock::real_ns() - camring_ring::clock::mono_ns();
        meta.arrival_real_ns - meta.arrival_mono_ns - ours
    };
    reader.first("a frame", |_| true);
    until("the state is live", || reader.ring.status().state == State::Live);
    let (rounds, mut steps) = (amount(1, 20) as usize, 0);
    for (offset, hours) in [("+3600", 1), ("-3600", -1), ("+0", 0)].repeat(rounds) {
        stepped_by(offset);
        let last = reader.newest().unwrap().frame.meta.seq.0;
        let wanted = |seen: &Seen| {
            seen.frame.meta.seq.0 > last && (real_minus_ours(seen) - hours * HOUR_NS).abs() < HOUR_NS / 60
        };
        let stepped = reader.first(&format!("a frame of a wall clock {hours} h ahead"), wanted);
        let more = reader.first("twenty more frames", |seen| seen.frame.meta.seq.0 >= stepped.frame.meta.seq.0 + 20);
        let age_ns = camring_ring::age_ns(&more.frame.meta);
        assert!((0..30_000_000_000).contains(&age_ns), "{age_ns} ns old after a step to {hours} h");
        let status = reader.ring.status();
        assert_eq!((status.state, status.counter(Counter::Reconnects)), (State::Live, 0), "{}", daemon.log());
        assert_eq!(reader.ring.liveness(), Liveness::Alive);
        steps += 1;
    }
    let seen = reader.finish();
    measured(format!(
        "{steps} steps of the wall clock, of one or two hours each: {} frames of one session",
        seen.len()
    ));
    let monotonic =
        seen.windows(2).all(|pair| pair[0].frame.meta.arrival_mono_ns <= pair[1].frame.meta.arrival_mono_ns);
    assert!(monotonic, "arrivals went back with the wall clock");
}
