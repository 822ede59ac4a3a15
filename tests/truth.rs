//! One truth: whatever happens to a camera, everybody who is asked says the same of it, in the words of the manual.
#![cfg(feature = "sim")]

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use camring::report::{RingReport, liveness_word, needs_person};
use camring_ring::{AttachOptions, Presence, Reason, Ring, State};
use rustix::process::Signal;
use serde_json::Value as Json;
use system::http::{Server, monitoring};
use system::{Daemon, Ended, PATIENCE, Shm, Sim, camring, ended, is_full, measured, until, until_within};

/// From the moment at which the ring knows of a fault to the moment at which everybody has said so.
const TOLD: Duration = Duration::from_secs(5);
/// What the page and the metrics say may be so old: a look each half second, and numbers each second.
const LOOKED: Duration = Duration::from_millis(1500);
/// The rule that needs no `for`: an age of five seconds is the wait.
const STALE: (&str, &str) = ("CamringStale", "0s");
const PICTURES: [&str; 6] = ["--size", "320x240", "--fps", "10", "--gop", "200ms"];

// --- what is true ---

/// What can be said of a camera: the daemon's state and reason, and whether there is a daemon.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Truth {
    state: String,
    reason: String,
    daemon: &'static str,
}

impl Truth {
    fn of(ring: &Ring) -> Self {
        let report = RingReport::observe(ring, "cam");
        let daemon = if report.state == State::Stopped { "gone" } else { liveness_word(report.liveness) };
        Self { state: report.state.to_string(), reason: report.reason.to_string(), daemon }
    }

    fn is(&self, (states, reasons, daemon): (&str, &str, &str)) -> bool {
        let has = |list: &str, word: &str| list.split(' ').any(|listed| listed == word);
        has(states, &self.state) && has(reasons, &self.reason) && self.daemon == daemon
    }
}

/// Everything that was true, from when on; written down by a thread that looks all the time.
#[derive(Default)]
struct Chronicle {
    truths: Mutex<Vec<(Instant, Truth)>>,
    is_over: AtomicBool,
}

impl Chronicle {
    fn write(&self, ring: &Ring) {
        while !self.is_over.load(Ordering::Relaxed) {
            let (at, now) = (Instant::now(), Truth::of(ring));
            let mut truths = self.truths.lock().unwrap();
            if truths.last().is_none_or(|(_, last)| *last != now) {
                truths.push((at, now));
            }
            drop(truths);
            system::pause();
        }
    }

    /// What was true at some time between the two.
    fn between(&self, from: Instant, to: Instant) -> Vec<Truth> {
        let truths = self.truths.lock().unwrap();
        let ends = truths.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
        let in_force =
            truths.iter().zip(ends).filter(|((began, _), end)| *began <= to && end.is_none_or(|end| end >= from));
        in_force.map(|((_, truth), _)| truth.clone()).collect()
    }
}

// --- who is asked ---

/// What somebody says. What it does not tell (the state of a camera whose daemon is dead, in a metric) is `None`.
#[derive(Clone, Debug, Default)]
struct Said {
    state: Option<String>,
    reason: Option<String>,
    daemon: &'static str,
    /// Every word of it that the manual has to explain.
    words: Vec<String>,
}

impl Said {
    /// From the words of the table: `reconnecting, dead writer, stale`, and `no_packets, try 3, next in 2 s` beside them.
    fn read(words: &str, note: &str) -> Self {
        let parts: Vec<String> = words.split(", ").map(str::to_owned).collect();
        let daemon = match &parts[..] {
            [state, ..] if state == "stopped" => "gone",
            parts if parts.iter().any(|part| part == "dead writer") => "gone",
            parts if parts.iter().any(|part| part == "hung writer") => "hung",
            _ => "alive",
        };
        let first = note.split([',', ';']).next().unwrap_or_default();
        let reason = Reason::ALL.iter().find(|reason| reason.to_string() == first).unwrap_or(&Reason::None);
        Self { state: Some(parts[0].clone()), reason: Some(reason.to_string()), daemon, words: parts }
    }

    fn agrees_with(&self, truth: &Truth) -> bool {
        self.state.as_ref().is_none_or(|state| *state == truth.state)
            && self.reason.as_ref().is_none_or(|reason| *reason == truth.reason)
            && self.daemon == truth.daemon
    }
}

/// The places at which an operator looks.
const SURFACES: [&str; 9] =
    ["list", "list --json", "show --json", "top", "/api/rings", "/readyz", "page", "/metrics", "doctor"];

/// One camera, `cam`, whatever it is and wherever its ring lies.
struct Place<'a> {
    shm: &'a Shm,
    server: &'a Server,
}

impl Place<'_> {
    fn command(&self, arguments: &[&str]) -> Ended {
        let mut command = camring();
        command.args(arguments).arg("--shm-dir").arg(self.shm.path());
        ended(command)
    }

    fn json(&self, arguments: &[&str]) -> Json {
        let said = self.command(arguments);
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:#?}"))
    }

    fn ask(&self, surface: &str) -> Said {
        match surface {
            "list" => table(&self.command(&["list"])),
            "top" => table(&self.command(&["top", "--count", "1"])),
            "list --json" => object(&self.json(&["list", "--json"])[0]),
            "show --json" => object(&self.json(&["show", "cam", "--json"])),
            "/api/rings" => object(&self.server.json("/api/rings")[0]),
            "/readyz" => {
                let ring = self.server.json("/readyz")["rings"][0].clone();
                let text = ring["reason"].as_str().unwrap();
                let (words, note) = text.split_once(": ").unwrap_or((text, ""));
                Said::read(words, note)
            }
            "page" => {
                let mut events = self.server.stream("/events?numbers=1");
                let rings = std::iter::from_fn(|| events.event()).find(|(kind, _)| kind == "rings").unwrap().1;
                let text = |key: &str| rings[0][key].as_str().unwrap_or_default().to_owned();
                let mut said = Said::read(&text("words"), &text("note"));
                said.words.extend([text("condition"), text("grade")]);
                said
            }
            "/metrics" => self.metrics(),
            "doctor" => self.doctor(),
            _ => unreachable!("{surface}"),
        }
    }

    fn metrics(&self) -> Said {
        let metrics = self.server.metrics();
        let label = |metric: &str, name: &str| {
            let of_cam = format!("{metric}{{camera=\"cam\",{name}=\"");
            let mut set = metrics
                .iter()
                .filter(|(_, value)| **value == 1.0)
                .filter_map(|(sample, _)| sample.strip_prefix(&of_cam));
            let found = set.next().map(|rest| rest.trim_end_matches("\"}").to_owned());
            assert!(set.next().is_none(), "{metric} is true twice");
            found
        };
        let condition = label("camring_state", "state").expect("a state");
        let reason = label("camring_reason", "reason").unwrap_or_else(|| "none".to_owned());
        let daemon = match condition.as_str() {
            "dead" | "stopped" => "gone",
            "hung" => "hung",
            _ => "alive",
        };
        let state = Some(condition.clone()).filter(|_| daemon == "alive");
        Said { state, reason: Some(reason), daemon, words: vec![condition] }
    }

    /// Its causes; the sentence of the worst begins with the state, and names the reason in brackets.
    fn doctor(&self) -> Said {
        let report = self.json(&["doctor", "--json"]);
        let checks = report["checks"].as_array().unwrap();
        let of_ring: Vec<&Json> =
            checks.iter().filter(|check| check["check"] == "ring" && check["subject"] == "cam").collect();
        let text = |check: &Json, key: &str| check[key].as_str().unwrap().to_owned();
        let causes: Vec<String> = of_ring.iter().map(|check| text(check, "cause")).collect();
        let daemon = match () {
            () if causes.iter().any(|cause| cause == "writer_dead") => "gone",
            () if causes.iter().any(|cause| cause == "writer_hung") => "hung",
            () => "alive",
        };
        let known = |word: &str| State::ALL.iter().any(|state| state.to_string() == word);
        let sentence = of_ring
            .iter()
            .map(|check| text(check, "found"))
            .find(|found| known(found.split([',', ':']).next().unwrap()));
        let mut said = Said { daemon, words: causes, ..Said::default() };
        if let Some(sentence) = sentence {
            let (words, rest) = sentence.split_once(": ").unwrap();
            let read = Said::read(words, rest.rsplit_once('(').map_or("", |(_, note)| note.trim_end_matches(')')));
            (said.state, said.reason) = (read.state, read.reason);
        }
        said
    }
}

/// The line of the camera in a table whose columns are two blanks apart.
fn table(said: &Ended) -> Said {
    let line =
        said.stdout.lines().find(|line| line.starts_with("cam ")).unwrap_or_else(|| panic!("no line: {said:#?}"));
    let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    // Without a note the last column is a number.
    Said::read(cells[1], cells.last().unwrap())
}

/// The object of a ring, as every command and address prints it.
fn object(ring: &Json) -> Said {
    let text = |key: &str| ring[key].as_str().unwrap().to_owned();
    let daemon = match text("liveness").as_str() {
        "gone" => "gone",
        "hung" => "hung",
        _ => "alive",
    };
    Said { state: Some(text("state")), reason: Some(text("reason")), daemon, words: vec![text("state")] }
}

/// Asks everybody at once, from the moment at which the ring knows, until each says what is true; returns all words.
fn all_say(place: &Place<'_>, chronicle: &Chronicle, wanted: (&str, &str, &str)) -> BTreeSet<String> {
    let began = Instant::now();
    let words = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for surface in SURFACES {
            let words = &words;
            scope.spawn(move || {
                let (mut said, mut complaint) = (Said::default(), String::new());
                // Doctor looks for three seconds before it says anything.
                let patience = if surface == "doctor" && !is_full() { PATIENCE } else { TOLD };
                until_within(patience, &format!("{surface} tells the truth, {wanted:?}"), || {
                    let asked = Instant::now();
                    said = place.ask(surface);
                    let true_then = chronicle.between(asked.checked_sub(LOOKED).unwrap(), Instant::now());
                    let is_true = true_then.iter().any(|truth| truth.is(wanted) && said.agrees_with(truth));
                    let now = format!("{surface} says {said:?}, where {true_then:?} was true");
                    if !is_true && complaint != now {
                        println!("{now}");
                        complaint = now;
                    }
                    is_true
                });
                measured(format!("{surface} after {} ms: {said:?}", began.elapsed().as_millis()));
                let reason = said.reason.filter(|reason| reason != "none");
                words.lock().unwrap().extend(said.words.into_iter().chain(reason));
            });
        }
    });
    words.into_inner().unwrap()
}

/// Runs `story` while the chronicle of the camera's ring is written.
fn chronicled<T>(shm: &Shm, story: impl FnOnce(&Chronicle) -> T) -> T {
    let options = AttachOptions {
        shm: shm.dir(),
        timeout: Some(PATIENCE),
        presence: Presence::Uncounted,
        ..AttachOptions::default()
    };
    let (ring, chronicle) = (Ring::attach("cam", options).unwrap(), Chronicle::default());
    std::thread::scope(|scope| {
        scope.spawn(|| chronicle.write(&ring));
        /// Ends the thread also when the story fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&chronicle.is_over);
        story(&chronicle)
    })
}

/// Waits until the ring itself says so.
fn known(chronicle: &Chronicle, wanted: (&str, &str, &str)) {
    until(&format!("the ring says {wanted:?}"), || {
        chronicle.between(Instant::now(), Instant::now()).iter().any(|truth| truth.is(wanted))
    });
}

// --- what the manual and the rules say ---

fn manual() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap()
}

/// Each word stands as the subject of a row of some table of the manual.
fn assert_explained(words: &BTreeSet<String>) {
    let text = manual();
    let subjects: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" |").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let missing: Vec<&String> = words.iter().filter(|word| !subjects.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "docs/operations.md explains no {missing:?}");
}

/// The shipped rules that a look at one moment can judge: name, expression, how long it has to be true.
fn rules() -> Vec<(String, String, String)> {
    let mut rules: Vec<(String, String, String)> = Vec::new();
    let mut folded = false;
    for line in monitoring("camring.rules.yml").lines() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("- alert: ") {
            rules.push((name.to_owned(), String::new(), "0s".to_owned()));
        } else if let Some(expression) = text.strip_prefix("expr: ") {
            folded = expression == ">";
            rules.last_mut().unwrap().1 = if folded { String::new() } else { expression.to_owned() };
        } else if let Some(time) = text.strip_prefix("for: ") {
            (rules.last_mut().unwrap().2, folded) = (time.to_owned(), false);
        } else if text == "labels:" {
            folded = false;
        } else if folded {
            let expression = &mut rules.last_mut().unwrap().1;
            *expression = format!("{expression} {text}").trim().to_owned();
        }
    }
    assert!(rules.len() > 10, "{rules:?}");
    let of_time = ["increase(", "deriv(", "up{", "abs("];
    rules.retain(|(_, expression, _)| !of_time.iter().any(|function| expression.contains(function)));
    rules
}

/// Names of the alerts whose expression is true for the camera or the mount; with a `for` they are pending at first.
fn alerts(metrics: &BTreeMap<String, f64>) -> BTreeMap<String, String> {
    let holds = |expression: &str| {
        let mut sides = expression.split(" unless on (instance, camera) ");
        let matched = series(metrics, sides.next().unwrap());
        let excused: Vec<String> = sides.flat_map(|side| series(metrics, side)).collect();
        let camera =
            |labels: &str| labels.split("camera=\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
        matched.iter().any(|labels| excused.iter().all(|other| camera(other) != camera(labels)))
    };
    rules().into_iter().filter(|(_, expression, _)| holds(expression)).map(|(name, _, time)| (name, time)).collect()
}

/// The labels of the series for which a comparison is true: `metric{label=~"a|b"} > 5`, `1 - metric / metric > 0.8`.
fn series(metrics: &BTreeMap<String, f64>, comparison: &str) -> Vec<String> {
    let parts: Vec<&str> = comparison.rsplitn(3, ' ').collect();
    let [limit, operator, value] = parts[..] else { panic!("no comparison: {comparison}") };
    let limit: f64 = limit.parse().unwrap_or_else(|_| panic!("no number: {comparison}"));
    let samples: Vec<(String, f64)> = match value.strip_prefix("1 - ").and_then(|share| share.split_once(" / ")) {
        Some((free, size)) => selected(metrics, free)
            .into_iter()
            .zip(selected(metrics, size))
            .map(|((labels, free), (_, size))| (labels, 1.0 - free / size))
            .collect(),
        None => selected(metrics, value),
    };
    let is_true = |value: f64| match operator {
        ">" => value > limit,
        "==" => (value - limit).abs() < f64::EPSILON,
        _ => panic!("no operator: {comparison}"),
    };
    samples.into_iter().filter(|(_, value)| is_true(*value)).map(|(labels, _)| labels).collect()
}

/// The samples of `metric{label="word", label=~"a|b"}`.
fn selected(metrics: &BTreeMap<String, f64>, selector: &str) -> Vec<(String, f64)> {
    let (name, wanted) = selector.split_once('{').unwrap_or((selector, "}"));
    let wanted: Vec<(&str, Vec<&str>)> = wanted
        .trim_end_matches('}')
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (label, words) = part.split_once('=').unwrap();
            (label, words.trim_start_matches('~').trim_matches('"').split('|').collect())
        })
        .collect();
    let has = |labels: &str, (label, words): &(&str, Vec<&str>)| {
        words.iter().any(|word| labels.contains(&format!("{label}=\"{word}\"")))
    };
    metrics
        .iter()
        .filter_map(|(sample, value)| Some((sample.strip_prefix(name)?, *value)))
        .filter(|(labels, _)| labels.starts_with('{') && wanted.iter().all(|want| has(labels, want)))
        .map(|(labels, value)| (labels.to_owned(), value))
        .collect()
}

/// Waits until these alerts, and no others but `CamringStale`, are due or pending by what is scraped.
fn alerted(server: &Server, patience: Duration, wanted: &[(&str, &str)]) {
    let wanted: BTreeMap<String, String> =
        wanted.iter().map(|(name, time)| ((*name).to_owned(), (*time).to_owned())).collect();
    let began = Instant::now();
    let mut found = BTreeMap::new();
    until_within(patience, &format!("the rules say {wanted:?}"), || {
        found = alerts(&server.metrics());
        // That one waits until the newest frame is five seconds old.
        if !wanted.contains_key(STALE.0) && !wanted.is_empty() {
            found.remove(STALE.0);
        }
        found == wanted
    });
    measured(format!("the rules after {} ms: {found:?}", began.elapsed().as_millis()));
}

// --- the stories ---

/// A live camera of which everybody says so.
fn live(shm: &Shm, config: &str) -> (tempfile::NamedTempFile, Daemon) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), config).unwrap();
    let daemon = Daemon::spawn_config(shm, "cam", file.path());
    let ring = shm.attach("cam");
    until("the camera is live", || ring.status().state == State::Live);
    (file, daemon)
}

#[test]
fn of_a_killed_capture_process_everybody_says_within_five_seconds_that_it_is_gone() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&PICTURES));
    let (file, mut daemon) = live(&shm, &format!("[camera.cam]\nurl = \"{}\"\n", sim.url));
    let server = Server::spawn(&shm, "", &[]);
    let place = Place { shm: &shm, server: &server };
    let mut words = chronicled(&shm, |chronicle| all_say(&place, chronicle, ("live", "none", "alive")));
    alerted(&server, TOLD, &[]);
    daemon.process.kill();
    words.extend(chronicled(&shm, |chronicle| {
        known(chronicle, ("live", "none", "gone"));
        alerted(&server, TOLD, &[("CamringDaemonDead", "5s")]);
        all_say(&place, chronicle, ("live", "none", "gone"))
    }));
    alerted(&server, PATIENCE, &[("CamringDaemonDead", "5s"), STALE]);
    for word in ["live", "dead writer", "dead", "writer_dead", "broken", "fine"] {
        assert!(words.contains(word), "nobody says {word:?}: {words:?}");
    }
    assert_explained(&words);
    let start = "its daemon is not running: start camring@cam";
    for said in
        [place.command(&["list"]).stdout, place.command(&["top", "--count", "1"]).stdout, server.get("/readyz").text()]
    {
        assert!(said.contains(start), "no {start:?} in\n{said}");
    }
    let _daemon = Daemon::spawn_config(&shm, "cam", file.path());
    chronicled(&shm, |chronicle| {
        known(chronicle, ("live", "none", "alive"));
        all_say(&place, chronicle, ("live", "none", "alive"));
    });
    alerted(&server, TOLD, &[]);
}

#[test]
fn of_a_frozen_camera_everybody_says_within_five_seconds_that_it_sends_nothing() {
    const AWAY: (&str, &str, &str) = ("stalled reconnecting", "no_packets connect_timeout", "alive");
    let (shm, sim) = (Shm::new(), Sim::spawn(&PICTURES));
    let (_file, _daemon) = live(&shm, &format!("[camera.cam]\nurl = \"{}\"\n", sim.url));
    let server = Server::spawn(&shm, "", &[]);
    let place = Place { shm: &shm, server: &server };
    let words = chronicled(&shm, |chronicle| {
        sim.process.signal(Signal::STOP);
        known(chronicle, AWAY);
        std::thread::scope(|scope| {
            scope.spawn(|| alerted(&server, TOLD, &[STALE]));
            all_say(&place, chronicle, AWAY)
        })
    });
    assert!(words.contains("stale") && words.contains("waiting"), "{words:?}");
    assert_explained(&words);
    sim.process.signal(Signal::CONT);
    chronicled(&shm, |chronicle| {
        known(chronicle, ("live", "none", "alive"));
        all_say(&place, chronicle, ("live", "none", "alive"));
    });
    alerted(&server, TOLD, &[]);
}

#[test]
fn of_a_full_mount_everybody_says_within_five_seconds_that_there_is_no_room() {
    const NO_ROOM: (&str, &str, &str) = ("error", "no_room", "alive");
    let can_mount = rustix::process::geteuid().is_root()
        && std::process::Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !can_mount {
        println!("skipped: a mount of one's own needs root");
        return;
    }
    let (folder, sim) = (tempfile::tempdir().unwrap(), Sim::spawn(&["--size", "1280x720", "--fps", "10"]));
    let place = folder.path().to_str().unwrap();
    let script = "mount -t tmpfs -o size=32m tmpfs \"$1\" && fallocate -l 27M \"$1/other\" && \
                  exec \"$2\" run cam --url \"$3\" --shm-dir \"$1\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", place, env!("CARGO_BIN_EXE_camring"), &sim.url]);
    let daemon = Daemon::spawn_command(command, None);
    // The mount is the daemon's alone; the way into it leads through the daemon.
    let mount = std::path::PathBuf::from(format!("/proc/{}/root{place}", daemon.process.pid()));
    until("the ring is there", || mount.join("camring.d/cam").exists());
    let shm = Shm::at(&mount);
    let server = Server::spawn(&shm, "", &[]);
    let place = Place { shm: &shm, server: &server };
    let words = chronicled(&shm, |chronicle| {
        known(chronicle, NO_ROOM);
        alerted(&server, TOLD, &[("CamringMountFull", "1m"), ("CamringNeedsOperator", "0s"), STALE]);
        all_say(&place, chronicle, NO_ROOM)
    });
    assert!(words.contains("no_room") && words.contains("broken"), "{words:?}");
    assert_explained(&words);
    let report = place.json(&["doctor", "--json"]);
    let mount = report["checks"].as_array().unwrap().iter().find(|check| check["check"] == "mount").unwrap();
    assert_eq!(mount["cause"], "mount_full", "{mount}");
    assert!(!words.contains("decoder_slow"), "what finds no room is no fault of the decoder: {words:?}");
    // Room again: everybody says that it is live.
    std::fs::remove_file(shm.path().join("other")).unwrap();
    chronicled(&shm, |chronicle| {
        known(chronicle, ("live", "none", "alive"));
        all_say(&place, chronicle, ("live", "none", "alive"));
    });
}

#[test]
fn of_a_wrong_password_everybody_says_within_five_seconds_that_it_is_refused() {
    const REFUSED: (&str, &str, &str) = ("reconnecting", "auth", "alive");
    let (shm, sim) = (Shm::new(), Sim::spawn_with_password(&PICTURES, "the-right-one"));
    let port = sim.port();
    let login = "user = \"viewer\"\npassword = \"the-right-one\"\n";
    let (file, daemon) = live(&shm, &format!("[camera.cam]\nurl = \"{}\"\n{login}", sim.url));
    let server = Server::spawn(&shm, "", &[]);
    let place = Place { shm: &shm, server: &server };
    drop(sim);
    let sim = Sim::spawn_on(
        port,
        &[&PICTURES[..], &["--auth", "digest", "--user", "viewer", "--password-stdin"]].concat(),
        Some("another-one"),
    );
    let words = chronicled(&shm, |chronicle| {
        known(chronicle, REFUSED);
        alerted(&server, TOLD, &[("CamringNeedsOperator", "0s")]);
        all_say(&place, chronicle, REFUSED)
    });
    alerted(&server, PATIENCE, &[("CamringNeedsOperator", "0s"), STALE]);
    for word in ["auth", "password", "broken"] {
        assert!(words.contains(word), "nobody says {word:?}: {words:?}");
    }
    assert_explained(&words);
    // The operator corrects it.
    let login = login.replace("the-right-one", "another-one");
    std::fs::write(file.path(), format!("[camera.cam]\nurl = \"{}\"\n{login}", sim.url)).unwrap();
    daemon.process.signal(Signal::HUP);
    chronicled(&shm, |chronicle| {
        known(chronicle, ("live", "none", "alive"));
        all_say(&place, chronicle, ("live", "none", "alive"));
    });
    alerted(&server, TOLD, &[]);
}

#[test]
fn of_a_picture_that_stands_still_everybody_says_within_five_seconds_that_it_is_frozen() {
    const FROZEN: (&str, &str, &str) = ("degraded", "frozen", "alive");
    let still = ["--codec", "mjpeg", "--freeze-after", "3s", "--freeze-for", "30s"];
    let (shm, sim) = (Shm::new(), Sim::spawn(&[&PICTURES[..4], &still].concat()));
    let (_file, _daemon) = live(&shm, &format!("[camera.cam]\nurl = \"{}\"\nfrozen_after = \"2s\"\n", sim.url));
    let server = Server::spawn(&shm, "", &[]);
    let place = Place { shm: &shm, server: &server };
    let words = chronicled(&shm, |chronicle| {
        known(chronicle, FROZEN);
        alerted(&server, TOLD, &[("CamringFrozen", "0s")]);
        all_say(&place, chronicle, FROZEN)
    });
    assert!(words.contains("frozen") && words.contains("waiting"), "{words:?}");
    assert_explained(&words);
}

#[test]
fn the_reasons_that_need_a_person_are_the_same_in_code_rules_and_manual() {
    let in_code: Vec<String> =
        Reason::ALL.iter().filter(|reason| needs_person(**reason)).map(ToString::to_string).collect();
    let (_, expression, _) = rules().into_iter().find(|(name, ..)| name == "CamringNeedsOperator").unwrap();
    let in_rule = expression.split("reason=~\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let sorted = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let in_code: BTreeSet<String> = in_code.into_iter().collect();
    assert_eq!(sorted(&in_rule.split('|').collect::<Vec<_>>()), in_code);
    let text = manual();
    let (_, rest) = text.split_once("Trying again cures none of ").expect("the sentence below the reasons");
    let sentence = rest.split_once(':').unwrap().0;
    assert_eq!(sorted(&sentence.split('`').skip(1).step_by(2).collect::<Vec<_>>()), in_code);
}
