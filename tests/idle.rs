//! A camera that nobody watches: costs little, raises no alarm, and has a fresh frame for its first reader.
#![cfg(feature = "sim")]

mod system;

use std::time::{Duration, Instant};

use camring::clock::{Clock, SystemClock};
use camring_ring::{AttachOptions, Counter, FrameFlags, Presence, Reason, Ring, Sequence, State, age_ns};
use rustix::process::Signal;
use system::{Daemon, PATIENCE, Shm, Sim, amount, let_pass, measured, stamp_of, until};

/// From one keyframe of the simulated camera to the next.
const GOP: Duration = Duration::from_secs(2);
/// On a machine with two busy cores, beyond the keyframe interval: noticing, packets, decoding, waking up.
const TOLERANCE: Duration = Duration::from_secs(3);
const STREAM: [&str; 6] = ["--size", "1280x720", "--fps", "25", "--gop", "2s"];

/// A camera under `idle`, and an onlooker that does not count as a reader.
struct Scene {
    ring: Ring,
    daemon: Daemon,
    sim: Sim,
    shm: Shm,
}

impl Scene {
    fn new(idle: &str) -> Self {
        let (shm, sim) = (Shm::new(), Sim::spawn(&STREAM));
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), format!("[camera.cam]\nurl = \"{}\"\nidle = \"{idle}\"\n", sim.url)).unwrap();
        let daemon = Daemon::spawn_config(&shm, "cam", file.path());
        let options = AttachOptions {
            shm: shm.dir(),
            timeout: Some(PATIENCE),
            presence: Presence::Uncounted,
            ..AttachOptions::default()
        };
        let ring = Ring::attach("cam", options).unwrap();
        until("the camera is parked", || ring.status().state == State::Parked);
        Self { ring, daemon, sim, shm }
    }

    /// The newest frame's number once the camera rests: a picture may have been on its way when that was decided.
    fn settled(&self) -> Sequence {
        let mut newest = (self.ring.status().seq, Instant::now());
        until("nothing is published any more", || {
            let seq = self.ring.status().seq;
            if seq != newest.0 {
                newest = (seq, Instant::now());
            }
            newest.1.elapsed() >= Duration::from_millis(500)
        });
        newest.0
    }

    /// Processor time that the daemon takes in `window`, ms.
    fn cpu_ms(&self, window: Duration) -> u64 {
        let before = self.daemon.process.cpu_ms();
        let_pass(window);
        self.daemon.process.cpu_ms() - before
    }

    fn no_alarm(&self) {
        let status = self.ring.status();
        assert_eq!((status.state, status.reason), (State::Parked, Reason::None));
        assert_eq!((status.session_id, status.counter(Counter::Reconnects)), (1, 0));
    }

    /// The first reader: told the age of what is there, then given what was painted after it had come.
    fn first_reader(&self) {
        let attached = SystemClock.now();
        let began = Instant::now();
        let reader = self.shm.attach("cam");
        let mut pixels = Vec::new();
        let old = reader.latest(&mut pixels).unwrap();
        assert!(age_ns(&old.meta) > 0, "the frame that is there says how old it is");
        let painted_before = |micros: u64| i64::try_from(micros).unwrap() * 1000 < attached.0;
        assert!(painted_before(stamp_of(&old, &pixels).mono_us));
        let mut frame = reader.next(&mut pixels, Some(PATIENCE)).unwrap();
        while painted_before(stamp_of(&frame, &pixels).mono_us) {
            frame = reader.next(&mut pixels, Some(PATIENCE)).unwrap();
        }
        let took = began.elapsed();
        assert!(took <= GOP + TOLERANCE, "a fresh frame only after {} ms", took.as_millis());
        assert!(frame.meta.arrival_mono_ns > attached.0, "it arrived after the reader had");
        until("the camera is live", || reader.status().state == State::Live);
        let (first, mut last) = (stamp_of(&frame, &pixels), frame.meta.seq.0);
        for _ in 0..30 {
            let frame = reader.next(&mut pixels, Some(PATIENCE)).unwrap();
            assert!(frame.meta.seq.0 > last && stamp_of(&frame, &pixels).number > first.number);
            last = frame.meta.seq.0;
        }
        measured(format!("the first reader of a resting camera had a fresh frame after {} ms", took.as_millis()));
    }
}

#[test]
fn a_parked_camera_costs_less_than_half_and_its_first_reader_gets_a_fresh_frame() {
    let scene = Scene::new("park");
    let window = Duration::from_secs(amount(3, 30));
    let seq = scene.settled();
    let parked = scene.cpu_ms(window);
    assert_eq!(scene.ring.status().seq, seq, "nothing is published");
    let age = age_ns(&scene.ring.peek().unwrap());
    assert!(u128::try_from(age).unwrap() >= window.as_nanos(), "its age says so: {age} ns");
    scene.no_alarm();
    let dropped = scene.ring.status().counter(Counter::DroppedGate);
    scene.first_reader();
    assert_eq!(scene.ring.status().counter(Counter::DroppedGate), dropped, "resting is no loss");
    let reader = scene.shm.attach("cam");
    let full = scene.cpu_ms(window);
    assert_eq!(reader.status().state, State::Live);
    assert!(parked * 2 < full, "{parked} ms parked, {full} ms with a reader");
    measured(format!("720p25 for {} s: {parked} ms of processor parked, {full} ms decoding", window.as_secs()));
    drop(reader);
    until("it is parked again", || scene.ring.status().state == State::Parked);
}

#[test]
fn keyframes_alone_are_decoded_while_nobody_reads() {
    let scene = Scene::new("keyframes");
    let began = (Instant::now(), scene.ring.status().seq.0);
    // The first frame after the change may be of before it.
    until("two keyframes come", || scene.ring.status().seq.0 >= began.1 + 3);
    let intervals = began.0.elapsed().as_secs_f64() / GOP.as_secs_f64();
    assert!(intervals > 1.0, "three frames in {intervals} keyframe intervals");
    let meta = scene.ring.peek().unwrap();
    assert!(meta.flags.contains(FrameFlags::KEYFRAME), "{:?}", meta.flags);
    // 25 fps, 50 pictures from keyframe to keyframe: what was left out is counted.
    assert!(meta.gap >= 20, "{}", meta.gap);
    scene.no_alarm();
    scene.first_reader();
}

#[test]
fn a_parked_camera_that_dies_is_noticed_and_parked_again_with_a_fresh_frame() {
    let mut scene = Scene::new("park");
    let (seq, run) = (scene.settled(), scene.ring.status().session_id);
    scene.sim.process.signal(Signal::STOP);
    until("its silence is noticed", || scene.ring.status().state != State::Parked);
    scene.sim.process.kill();
    scene.sim.respawn();
    until("a fresh frame is there", || scene.ring.status().seq > seq);
    until("it is parked again", || scene.ring.status().state == State::Parked);
    assert!(scene.ring.status().session_id > run);
    scene.first_reader();
}
