//! `camring up`: cameras as children of one process, with real processes, real signals and real kill -9.
#![cfg(feature = "sim")]

mod system;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use camring_ring::{Counter, Reason, Ring, Sequence, State};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use system::{Daemon, Shm, camring, ended, until, until_within};

/// `camring up` on a file of ours with test pictures.
struct Scene {
    up: Daemon,
    shm: Shm,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

/// A camera of small pictures whose ring holds the last four seconds.
fn camera(name: &str, more: &str) -> String {
    format!("[camera.{name}]\nslots = 100\ntest = {{ size = \"160x120\", fps = 25 }}\n{more}")
}

fn cameras(names: &[&str]) -> String {
    names.iter().map(|name| camera(name, "")).collect()
}

impl Scene {
    fn start(text: &str) -> Self {
        let (shm, folder) = (Shm::new(), tempfile::tempdir().unwrap());
        let file = folder.path().join("camring.toml");
        std::fs::write(&file, text).unwrap();
        let up = Daemon::spawn_with(&shm, &["up", "--config", file.to_str().unwrap()], None);
        Self { up, shm, file, _folder: folder }
    }

    /// The rings of these cameras, once they are live.
    fn live(&self, names: &[&str]) -> BTreeMap<String, Ring> {
        let rings: BTreeMap<_, _> = names.iter().map(|name| ((*name).to_owned(), self.shm.attach(name))).collect();
        for (name, ring) in &rings {
            until(&format!("{name} is live"), || ring.status().state == State::Live);
        }
        rings
    }

    fn says(&self, line: &str) {
        until(line, || self.up.log().contains(line));
    }

    fn reload(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
        self.up.process.signal(Signal::HUP);
    }

    /// Asks for the end and expects it in order.
    fn stops(mut self) -> String {
        self.up.process.signal(Signal::TERM);
        assert_eq!(self.up.process.wait().code(), Some(0), "{}", self.up.log());
        self.up.log()
    }
}

fn pid(ring: &Ring) -> Pid {
    Pid::from_raw(ring.status().writer_pid.cast_signed()).expect("a writer that runs")
}

fn is_there(pid: Pid) -> bool {
    // A zombie whose new parent has not waited yet is gone all the same.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn a_killed_child_is_started_again_alone_and_the_others_have_no_gap() {
    let scene = Scene::start(&cameras(&["one", "two", "three"]));
    let rings = scene.live(&["one", "two", "three"]);
    let (victim, others) = (&rings["two"], [&rings["one"], &rings["three"]]);
    let pids = others.map(pid);
    let mut pixels = Vec::new();
    let mut last = others.map(|ring| ring.latest(&mut pixels).unwrap().meta.seq);
    let killed = pid(victim);
    kill_process(killed, Signal::KILL).unwrap();
    let mut read = 0;
    // The others are read frame by frame, and go on for a second after the third one is back.
    let mut until_seq = None;
    loop {
        for (ring, last) in others.iter().zip(&mut last) {
            let frame = ring.after(*last, &mut pixels, Some(Duration::from_secs(5))).unwrap();
            assert_eq!((frame.meta.seq, frame.meta.gap), (Sequence(last.0 + 1), 0), "no frame is missing");
            *last = frame.meta.seq;
            read += 1;
        }
        let status = victim.status();
        if until_seq.is_none() && status.writer_epoch == 2 && status.state == State::Live {
            until_seq = Some(last[0].0 + 25);
        }
        if until_seq.is_some_and(|until| last[0].0 >= until) {
            break;
        }
        assert!(read < 2 * 25 * 60, "the killed camera is not back: {}", scene.up.log());
    }
    assert_ne!(pid(victim), killed);
    for (ring, before) in others.iter().zip(pids) {
        let status = ring.status();
        assert_eq!((pid(ring), status.writer_epoch), (before, 1), "the others were not touched");
        assert_eq!((status.counter(Counter::Reconnects), status.counter(Counter::DroppedOverload)), (0, 0));
    }
    let log = scene.stops();
    assert!(log.contains("its process has ended (signal: 9 (SIGKILL)); starting another one in 100ms"), "{log}");
}

#[test]
fn sigterm_ends_every_child_in_order_and_their_lines_name_their_cameras() {
    let scene = Scene::start(&cameras(&["one", "two"]));
    let rings = scene.live(&["one", "two"]);
    let pids: Vec<Pid> = rings.values().map(pid).collect();
    let log = scene.stops();
    for (name, ring) in &rings {
        let status = ring.status();
        assert_eq!((status.state, status.reason), (State::Stopped, Reason::Operator), "{name}");
    }
    assert!(!pids.into_iter().any(is_there), "a child is left");
    for name in ["one", "two"] {
        let of_camera: Vec<&str> = log.lines().filter(|line| line.starts_with(&format!("{name} | "))).collect();
        assert!(of_camera.iter().any(|line| line.contains(" live ")), "{log}");
        assert!(of_camera.iter().any(|line| line.contains("stopped")), "the last lines come through: {log}");
    }
    assert!(log.contains("camring | ") && log.contains("ending every camera"), "{log}");
}

#[test]
fn a_second_signal_ends_what_the_first_one_could_not() {
    let scene = Scene::start(&cameras(&["one"]));
    let rings = scene.live(&["one"]);
    let child = pid(&rings["one"]);
    kill_process(child, Signal::STOP).unwrap();
    let mut up = scene.up;
    up.process.signal(Signal::TERM);
    until("the first is heard", || up.log().contains("ending every camera"));
    assert!(is_there(child), "a stopped process does not end in order");
    let asked = Instant::now();
    up.process.signal(Signal::INT);
    assert_eq!(up.process.wait().code(), Some(0));
    assert!(!is_there(child));
    assert!(asked.elapsed() < Duration::from_secs(4), "before the deadline of the first: {:?}", asked.elapsed());
}

#[test]
fn kill_9_of_up_leaves_no_child() {
    let mut scene = Scene::start(&cameras(&["one", "two"]));
    let rings = scene.live(&["one", "two"]);
    let pids: Vec<Pid> = rings.values().map(pid).collect();
    assert!(pids.iter().all(|pid| is_there(*pid)));
    scene.up.process.kill();
    until_within(Duration::from_secs(1), "no child is left", || !pids.iter().any(|pid| is_there(*pid)));
    // Whoever starts it again finds the rings as they are.
    let up = Daemon::spawn_with(&scene.shm, &["up", "--config", scene.file.to_str().unwrap()], None);
    for ring in rings.values() {
        until("the same handle goes on", || ring.status().writer_epoch == 2 && ring.status().state == State::Live);
    }
    drop(up);
}

#[test]
fn a_child_that_needs_a_person_is_left_alone_until_a_reload() {
    let wrong = "[camera.bad]\npipeline = \"nosuchelement ! appsink name=out\"\n";
    let scene = Scene::start(&format!("{}{wrong}", cameras(&["good"])));
    let rings = scene.live(&["good"]);
    scene.says("its process has ended with 78, which only a change cures; reload after it");
    let before = scene.up.log().matches("nosuchelement").count();
    let good = pid(&rings["good"]);
    scene.reload(&cameras(&["good", "bad"]));
    scene.live(&["bad"]);
    assert_eq!(pid(&rings["good"]), good, "the other one was not disturbed");
    assert_eq!(scene.up.log().matches("nosuchelement").count(), before, "it was not tried again before");
    scene.stops();
}

#[test]
fn without_a_child_that_can_go_on_up_ends_with_its_code() {
    let wrong = "[camera.bad]\npipeline = \"nosuchelement ! appsink name=out\"\n";
    let mut scene = Scene::start(wrong);
    assert_eq!(scene.up.process.wait().code(), Some(78), "{}", scene.up.log());
    let missing = Path::new("/nonexistent/camring.toml");
    let mut command = camring();
    command.args(["up", "--config"]).arg(missing);
    let said = ended(command);
    assert_eq!(said.code, Some(78));
    assert!(said.stderr.contains("/nonexistent/camring.toml cannot be read"), "{}", said.stderr);
    let mut command = camring();
    std::fs::write(&scene.file, cameras(&["front"])).unwrap();
    command.args(["up", "frnt", "--config"]).arg(&scene.file);
    let said = ended(command);
    assert_eq!(said.code, Some(78));
    assert!(said.stderr.contains("did you mean front?"), "{}", said.stderr);
}

#[test]
fn a_reload_begins_new_cameras_ends_those_that_are_gone_and_tells_the_others() {
    let scene = Scene::start(&cameras(&["one", "two"]));
    let rings = scene.live(&["one", "two"]);
    let one = pid(&rings["one"]);
    let generation = rings["one"].status().generation;
    scene.reload("[camera.one\n");
    scene.says("the configuration is not taken over");
    scene.reload(&format!("{}{}", camera("one", "max_fps = 10\n"), camera("three", "")));
    let three = scene.live(&["three"]);
    until("the one that is gone is stopped", || rings["two"].status().state == State::Stopped);
    scene.says("max_fps has changed; it takes effect with the next frame");
    let status = rings["one"].status();
    assert_eq!((pid(&rings["one"]), status.writer_epoch, status.generation), (one, 1, generation));
    assert_eq!(three["three"].status().writer_epoch, 1);
    scene.stops();
}

#[test]
fn json_lines_are_objects_that_name_their_camera() {
    let text = format!("[log]\nformat = \"json\"\n{}", cameras(&["one"]));
    let scene = Scene::start(&text);
    scene.live(&["one"]);
    scene.says("\"message\":\"live\"");
    let log = scene.stops();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect();
    assert!(lines.iter().any(|line| line["camera"] == "one" && line["message"] == "live"), "{log}");
    assert!(lines.iter().any(|line| line["message"] == "ending every camera"), "{log}");
}
