//! What networks do to a stream: silence, resets, lost packets, too little bandwidth, name servers that never answer.
//!
//! Camera and daemon run in a network of their own; the reader is this process, because rings need no network.
#![cfg(feature = "sim")]

mod system;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camring::sim::stamp::Stamp;
use camring_ring::{Counter, FrameFlags, FrameMeta, ReadError, Reason, Ring, State};
use rustix::process::Signal;
use system::damage::Judge;
use system::net::Net;
use system::reader::{Reader, Way};
use system::{Daemon, Shm, Sim, amount, is_full, let_pass, measured, pause, stamp_in, until, until_within};

/// Within this the state must say that a camera is gone.
const NOTICED: Duration = Duration::from_secs(5);
/// The longest pause between two tries, the connect, and a group of pictures, on a machine with two busy cores.
const BACK: Duration = Duration::from_secs(25);
/// The longest silence while packets are lost: above ten times the longest `keyframe_wait` here.
const SILENCE: Duration = Duration::from_secs(130);
const SMALL: [&str; 6] = ["--size", "640x360", "--fps", "10", "--gop", "200ms"];

/// `camring run cam` inside, with these lines in the camera's table.
fn daemon_in(net: &Net, shm: &Shm, url: &str, lines: &str) -> (Daemon, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[camera.cam]\nurl = \"{url}\"\n{lines}\n")).unwrap();
    let mut command = net.command(env!("CARGO_BIN_EXE_camring"));
    command.args(["run", "cam", "--config", file.path().to_str().unwrap(), "--shm-dir"]).arg(shm.path());
    (Daemon::spawn_command(command, None), file)
}

/// A camera that is live inside a network, with a reader that stays attached.
struct Scene {
    reader: Reader,
    ring: Ring,
    daemon: Daemon,
    _sim: Sim,
    net: Net,
    _file: tempfile::NamedTempFile,
    _shm: Shm,
}

impl Scene {
    fn live(camera: &[&str], lines: &str) -> Option<Self> {
        let net = Net::new()?;
        let (shm, sim) = (Shm::new(), Sim::spawn_in(&net, camera));
        let (daemon, file) = daemon_in(&net, &shm, &sim.url, lines);
        let (reader, ring) = (Reader::attach(&shm, "cam", Way::Next), shm.attach("cam"));
        let mut frames = 0;
        reader.first("ten frames", |_| {
            frames += 1;
            frames > 10
        });
        until("the state is live", || ring.status().state == State::Live);
        Some(Self { reader, ring, daemon, _sim: sim, net, _file: file, _shm: shm })
    }

    fn newest(&self) -> u64 {
        self.ring.status().seq.0
    }

    /// The same reader gets new frames, and the state is live again.
    fn comes_back(&self, last: u64) {
        self.reader.first_within(BACK, "a new frame", |seen| seen.frame.meta.seq.0 > last + 5);
        until_within(BACK, "the state is live", || self.ring.status().state == State::Live);
    }
}

#[test]
fn a_network_that_swallows_everything_is_noticed_and_survived() {
    for transport in ["tcp", "udp"] {
        let Some(scene) = Scene::live(&SMALL, &format!("transport = \"{transport}\"")) else { return };
        let (threads_fds, rss) = (scene.daemon.process.threads_and_fds(), scene.daemon.process.rss_anon());
        let swallowed = Instant::now();
        scene.net.rule("drop");
        until_within(NOTICED, "the state leaves live", || scene.ring.status().state != State::Live);
        let noticed = swallowed.elapsed();
        until("the old session is over", || scene.ring.status().state == State::Reconnecting);
        let (last, cpu, away) = (scene.newest(), scene.daemon.process.cpu_ms(), Instant::now());
        let_pass(Duration::from_secs(amount(3, 60)));
        let cpu = scene.daemon.process.cpu_ms() - cpu;
        assert_eq!(scene.newest(), last, "something was published although nothing can arrive");
        assert!(scene.ring.peek().is_ok(), "the last frame stays readable");
        let (away, back) = (away.elapsed(), Instant::now());
        scene.net.no_rule();
        scene.comes_back(last);
        measured(format!(
            "{transport}, everything swallowed for {} s: noticed after {} ms, {cpu} ms of processor meanwhile, live {} ms \
             after it passed again; threads and descriptors {threads_fds:?} and {:?}, private memory {rss} and {}",
            away.as_secs(),
            noticed.as_millis(),
            back.elapsed().as_millis(),
            scene.daemon.process.threads_and_fds(),
            scene.daemon.process.rss_anon(),
        ));
        scene.reader.finish();
    }
}

/// Waits for the beginning of the next try; when that was.
fn next_try(ring: &Ring) -> Instant {
    let before = ring.status().attempt;
    until("another try begins", || ring.status().attempt > before);
    Instant::now()
}

#[test]
fn a_try_begins_every_five_seconds_however_long_a_black_hole_lasts() {
    const MOST: Duration = Duration::from_secs(5);
    // Looks of a busy machine, and the jitter.
    const SLACK: Duration = Duration::from_millis(1500);
    // A camera that needs so long for its answers is connected to as fast as any other.
    let patient = "reconnect.request_timeout = \"9s\"\nreconnect.connect_timeout = \"20s\"";
    let Some(scene) = Scene::live(&SMALL, patient) else { return };
    // Refused, tries follow each other fast: soon the pauses between them are as long as they get.
    scene.net.rule("tcp dport 8554 reject with tcp reset");
    until("six tries have failed", || scene.ring.status().attempt >= 6);
    let mut longest = Duration::ZERO;
    for _ in 0..amount(1, 6) {
        scene.net.rule("drop");
        until("the camera is tried", || scene.ring.status().attempt > 0);
        let mut begun = next_try(&scene.ring);
        for _ in 0..3 {
            let next = next_try(&scene.ring);
            longest = longest.max(next - std::mem::replace(&mut begun, next));
            assert!(longest < MOST + SLACK, "two tries began {longest:?} apart");
        }
        // The worst moment: the kernel has just asked for the third time, and asks again after 4 s.
        let_pass(Duration::from_millis(3200).saturating_sub(begun.elapsed()));
        let (last, back) = (scene.newest(), Instant::now());
        scene.net.no_rule();
        scene.reader.first_within(BACK, "a new frame", |seen| seen.frame.meta.seq.0 > last);
        let away = back.elapsed();
        measured(format!("a black hole: new frames {} ms after it passed again", away.as_millis()));
        assert!(away < MOST + Duration::from_secs(3), "{away:?} for pause, connect and a group of pictures");
        scene.comes_back(last);
    }
    measured(format!("in a black hole two tries began {} ms apart at most", longest.as_millis()));
    scene.reader.finish();
}

#[test]
fn connections_that_are_reset_over_and_over_end_in_a_live_camera() {
    let Some(scene) = Scene::live(&SMALL, "") else { return };
    let last = scene.newest();
    let resets = amount(3, 30);
    for _ in 0..resets {
        scene.net.rule("tcp dport 8554 reject with tcp reset");
        until("the session is over", || matches!(scene.ring.status().state, State::Reconnecting | State::Stalled));
        scene.net.no_rule();
        let_pass(Duration::from_secs(2));
    }
    scene.comes_back(last);
    let status = scene.ring.status();
    measured(format!("{resets} resets: {} reconnects, {:?}", status.counter(Counter::Reconnects), status.reconnects));
    assert!(status.counter(Counter::Reconnects) >= 1);
    scene.reader.finish();
}

#[test]
fn name_servers_that_never_answer_are_named() {
    let Some(net) = Net::new() else { return };
    net.rule("udp dport 53 drop");
    let shm = Shm::new();
    let mut command = net.command_with_resolver(env!("CARGO_BIN_EXE_camring"));
    command.args(["run", "cam", "--url", "rtsp://camera.invalid/stream", "--shm-dir"]).arg(shm.path());
    let daemon = Daemon::spawn_command(command, None);
    let ring = shm.attach("cam");
    until("a try has failed", || ring.status().next_retry_mono_ns != 0);
    let status = ring.status();
    assert_eq!((status.state, status.reason), (State::Connecting, Reason::Dns), "{}", daemon.log());
    until("the log names the camera", || daemon.log().contains("camera.invalid"));
    let (wanted, first) = (amount(1, 12), daemon.process.threads_and_fds());
    for number in 1..=wanted {
        until(&format!("try {number} has failed"), || u64::from(ring.status().attempt) >= number);
        assert_eq!(ring.status().reason, Reason::Dns, "{}", daemon.log());
    }
    let (threads, fds) = daemon.process.threads_and_fds();
    // A question that is still out holds a thread for some ten seconds; it must not be one for each question ever asked.
    assert!(wanted == 1 || threads < first.0 + wanted as usize / 2, "threads {} and then {threads}", first.0);
    measured(format!(
        "{wanted} questions to name servers that never answer: threads {} and {threads}, descriptors {} and {fds}, \
         {} ms of processor time",
        first.0,
        first.1,
        daemon.process.cpu_ms()
    ));
}

/// A daemon that lacks the processor now and then gets packets late and in bursts.
const SUSPENDED_EVERY: Duration = Duration::from_millis(2500);
const SUSPENDED_FOR: Duration = Duration::from_millis(900);

/// What somebody gets of the same camera whom nothing is lost for: another daemon, by TCP.
struct Perfect {
    /// Hash of each picture by its painted number.
    pictures: Arc<Mutex<BTreeMap<u32, u64>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _daemon: (Daemon, tempfile::NamedTempFile),
    _shm: Shm,
}

/// Pictures that are kept for whoever is behind.
const KEPT: usize = 250;

impl Perfect {
    fn of(net: &Net, sim: &Sim) -> Self {
        let shm = Shm::new();
        let daemon = daemon_in(net, &shm, &sim.url, "transport = \"tcp\"");
        let (ring, pictures, over) = (shm.attach("cam"), Arc::new(Mutex::new(BTreeMap::new())), Arc::default());
        let (kept, asked) = (Arc::clone(&pictures), Arc::<AtomicBool>::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut pixels = Vec::new();
            while !asked.load(Ordering::Relaxed) {
                let Ok(frame) = ring.next(&mut pixels, Some(Duration::from_millis(200))) else { continue };
                let Ok(stamp) = stamp_in(&frame, &pixels) else { continue };
                let mut kept = kept.lock().unwrap();
                kept.insert(stamp.number, hash(&pixels));
                while kept.len() > KEPT {
                    kept.pop_first();
                }
            }
        });
        until("the perfect network delivers", || !pictures.lock().unwrap().is_empty());
        Self { pictures, over, thread: Some(thread), _daemon: daemon, _shm: shm }
    }

    /// Whether these are the pixels of the picture of this number; `None`: it was not delivered here either.
    fn has(&self, number: u32, pixels: &[u8]) -> Option<bool> {
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            let pictures = self.pictures.lock().unwrap();
            if let Some(found) = pictures.get(&number) {
                return Some(*found == hash(pixels));
            }
            if pictures.last_key_value().is_some_and(|(newest, _)| *newest > number) {
                return None;
            }
            drop(pictures);
            pause();
        }
        None
    }
}

impl Drop for Perfect {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn hash(pixels: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(pixels);
    hasher.finish()
}

/// What became of the pictures of a camera whose packets are lost.
#[derive(Default)]
struct Lossy {
    came: usize,
    /// Neither whole nor marked.
    broken: usize,
    /// `corrupt`, or `tainted` where no whole keyframe came within ten times `keyframe_wait`.
    marked: usize,
    /// Not marked, and equal to those of a perfect network bit by bit.
    equal: usize,
    /// The greatest distance of a block from what was painted, of those not marked, in levels.
    worst: f32,
}

/// A picture that is neither whole nor marked: what it says of itself, what is painted in it, whether it is that of the
/// perfect network, and its worst block.
type Fault = (FrameMeta, Option<Stamp>, Option<bool>, f32);

fn tell(found: &Lossy, faults: &[Fault], daemon: &Daemon) {
    println!("broken and not marked: {} of {}\n{}", found.broken, found.came, daemon.log());
    for (meta, stamp, equal, distance) in faults {
        println!(
            "frame {}, session {}, pts {}: {:?}, painted {:?}, equal {equal:?}, {distance} levels",
            meta.seq,
            meta.session_id,
            meta.pts_ns,
            meta.flags,
            stamp.map(|stamp| stamp.number)
        );
    }
}

/// Loses `per_mille` of the packets of a camera on UDP, and compares each picture that is not marked with that of a
/// perfect network; where that has none, with what was painted.
fn lossy(on_corrupt: &str, keyframe_wait: &str, per_mille: u32, time: Duration) -> Option<Lossy> {
    const CAMERA: [&str; 8] = ["--size", "640x360", "--fps", "25", "--gop", "1s", "--bitrate", "2M"];
    let net = Net::new()?;
    let (shm, sim) = (Shm::new(), Sim::spawn_in(&net, &CAMERA));
    let lines = format!("transport = \"udp\"\non_corrupt = \"{on_corrupt}\"\nkeyframe_wait = \"{keyframe_wait}\"");
    let (daemon, _file) = daemon_in(&net, &shm, &sim.url, &lines);
    let (ring, judge) = (shm.attach("cam"), Judge::new(640, 360));
    let perfect = Perfect::of(&net, &sim);
    let (mut pixels, mut last) = (Vec::new(), 0);
    let mut next = |judged: &mut dyn FnMut(camring_ring::Frame, &[u8])| {
        let frame = loop {
            match ring.next(&mut pixels, Some(SILENCE)) {
                Err(ReadError::Overrun { .. }) => {}
                frame => break frame.unwrap(),
            }
        };
        assert!(frame.meta.seq.0 > last, "frame {} after {last}", frame.meta.seq);
        last = frame.meta.seq.0;
        judged(frame, &pixels);
    };
    // What the codec alone does to a picture; a busy machine loses packets, too.
    let is_marked = |frame: &camring_ring::Frame| {
        [FrameFlags::CORRUPT, FrameFlags::TAINTED].into_iter().any(|mark| frame.meta.flags.contains(mark))
    };
    let mut clean = 0.0_f32;
    for _ in 0..50 {
        next(&mut |frame, pixels| {
            if !is_marked(&frame) {
                clean = clean.max(judge.worst(&frame, pixels, &stamp_in(&frame, pixels).expect("a whole stamp")));
            }
        });
    }
    net.rule(&format!("udp sport != 53 numgen random mod 1000 < {per_mille} drop"));
    let (began, mut found, mut faults) = (Instant::now(), Lossy::default(), Vec::<Fault>::new());
    let mut suspended = Instant::now();
    while began.elapsed() < time || found.came < 20 {
        if suspended.elapsed() > SUSPENDED_EVERY {
            daemon.process.signal(Signal::STOP);
            let_pass(SUSPENDED_FOR);
            daemon.process.signal(Signal::CONT);
            suspended = Instant::now();
        }
        next(&mut |frame, pixels| {
            found.came += 1;
            if is_marked(&frame) {
                found.marked += 1;
                return;
            }
            let stamp = stamp_in(&frame, pixels).ok();
            let distance = stamp.map_or(f32::INFINITY, |stamp| judge.worst(&frame, pixels, &stamp));
            let equal = stamp.and_then(|stamp| perfect.has(stamp.number, pixels));
            found.worst = found.worst.max(distance);
            found.equal += usize::from(equal == Some(true));
            if !equal.unwrap_or(distance <= clean * 1.5 + 2.0) {
                found.broken += 1;
                faults.push((frame.meta, stamp, equal, distance));
            }
        });
    }
    if !faults.is_empty() {
        tell(&found, &faults, &daemon);
    }
    measured(format!(
        "{on_corrupt}, {} % of the packets lost for {} s: {} pictures, {} broken and not marked, {} marked, {} equal to \
         those of a perfect network, {} not published; worst block {:.1} levels off, {clean:.1} without loss",
        f64::from(per_mille) / 10.0,
        began.elapsed().as_secs(),
        found.came,
        found.broken,
        found.marked,
        found.equal,
        ring.status().counter(Counter::DroppedGate),
        found.worst,
    ));
    Some(found)
}

#[test]
fn of_a_stream_that_loses_packets_no_broken_picture_is_shown() {
    let drops = |per_mille: u32| {
        let time = Duration::from_secs(if per_mille == 30 { amount(6, 600) } else { amount(4, 60) });
        // Of three in a hundred some keyframe is whole within the ten default waits that are given to a stream whose
        // keyframes are sent and lost; of ten in a hundred none may be, and what is shown after ten waits is marked.
        let keyframe_wait = if per_mille == 100 { "1500ms" } else { "10s" };
        let Some(Lossy { broken, marked, equal, .. }) = lossy("drop", keyframe_wait, per_mille, time) else { return };
        assert_eq!(broken, 0, "{per_mille} of 1000 packets lost");
        assert!(marked == 0 || per_mille == 100, "{per_mille} of 1000 packets lost, {marked} marked");
        assert!(equal > 0 || per_mille == 100, "nothing could be compared");
    };
    if is_full() {
        return [10, 30, 100].into_iter().for_each(drops);
    }
    std::thread::scope(|scope| [10, 30, 100].map(|per_mille| scope.spawn(move || drops(per_mille))).map(drop));
}

#[test]
fn of_a_stream_that_loses_packets_every_broken_picture_is_marked_when_asked_for() {
    let time = Duration::from_secs(amount(6, 600));
    let Some(Lossy { came, broken, marked, .. }) = lossy("flag", "10s", 30, time) else { return };
    assert_eq!(broken, 0);
    assert!(marked > 0 && marked < came, "{marked} of {came} marked");
}

#[test]
fn too_little_bandwidth_costs_frames_and_never_whole_pictures() {
    const CAMERA: [&str; 8] = ["--size", "640x360", "--fps", "25", "--gop", "1s", "--bitrate", "3M"];
    let Some(scene) = Scene::live(&CAMERA, "") else { return };
    scene.net.bandwidth(Some("1mbit"));
    let last = scene.newest();
    // The reader judges every picture that gets through; the supervisor may give the session up, and try again.
    let_pass(Duration::from_secs(amount(6, 60)));
    scene.net.bandwidth(None);
    scene.comes_back(last);
    let fresh = scene.reader.first_within(BACK, "a frame that is not late", |seen| {
        seen.frame.meta.seq.0 > last && seen.frame.meta.lag_ns < 500_000_000
    });
    let seen = scene.reader.finish();
    let worst = seen.iter().map(|seen| seen.frame.meta.lag_ns).max().unwrap_or(0);
    measured(format!(
        "1 Mbit/s for a stream of 3: {} frames, the slowest {} ms from arrival to publication; frame {} is fresh again",
        seen.len(),
        worst / 1_000_000,
        fresh.frame.meta.seq
    ));
    assert!(worst < 1_500_000_000, "{worst} ns from arrival to publication");
}
