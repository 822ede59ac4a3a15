//! `camring doctor`: every fault of the simulated camera gets its own diagnosis, and the host its checks.
#![cfg(feature = "sim")]

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use system::{Daemon, Ended, Shm, Sim, camring, ended, free_port, is_full, until};

const SMALL: [&str; 6] = ["--size", "320x240", "--fps", "10", "--gop", "1s"];
const PASSWORD: &str = "correct-horse";
/// Long enough for the latest of the scripts, on a machine whose two cores serve all of them.
const ALL_SAID: Duration = Duration::from_secs(150);

fn doctor(shm: &Shm, options: &[&str]) -> Ended {
    let mut command = camring();
    command.arg("doctor").args(options).arg("--shm-dir").arg(shm.path());
    ended(command)
}

fn json(said: &Ended) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error} in {said:#?}"))
}

/// The checks of one kind, as subject, cause and both sentences.
fn checks(report: &Value, check: &str) -> Vec<(String, String, String)> {
    let of = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let all = report["checks"].as_array().unwrap().iter().filter(|value| value["check"] == check);
    all.map(|value| {
        let text = format!("{} -> {}", of(value, "found"), of(value, "cure"));
        (of(value, "subject"), of(value, "cause"), text)
    })
    .collect()
}

/// Every case: its name; options of the simulated camera, or `nobody` listens there; a script that is shipped, or the text
/// of one; lines of the camera's table besides its address; the causes that name it; words that one of the sentences must
/// have; whether it is among the few that are run each time. `; ` stands for a new line.
const CASES: &str = r#"
stall |  | stall.toml |  | stalled | stopped sending |
stalls |  | [[fault]]; at = "4s"; for = "12s"; repeat = "24s"; do = "stall" |  | stalled | stopped sending | short
half-open |  | half-open.toml |  | half_open | answered no connection since |
reboot |  | reboot.toml |  | refused | nothing listens on its port |
cuts |  | cuts.toml |  | session_cuts | has ended 2 sessions |
busy |  | busy.toml |  | server_busy | no session left |
slow-answers |  | slow-answers.toml |  | no_answer | does not answer in time |
wrong-sdp |  | wrong-sdp.toml |  | no_video unsupported_codec |  |
session-timeout |  | session-timeout.toml |  | session_cuts | cut each session at one age |
clock |  | clock.toml |  | camera_clock | camera's clock |
lossy |  | lossy.toml |  | packet_loss | packets were lost |
datagrams |  | datagrams.toml | transport = "udp" | stalled | stopped sending |
narrow |  | narrow.toml |  | bandwidth | uplink is too narrow |
pictures |  | pictures.toml |  | black one_colour frozen |  |
moody |  | moody.toml |  | packet_loss stalled refused session_cuts half_open |  |
nobody | nobody |  |  | refused | nothing listens on its port | short
nameless | nobody |  | url = "rtsp://no-such-camera.invalid/x" | dns | does not resolve | short
password |  |  | user = "viewer"; password = "guess-work" | password | refuses user or password | short
elsewhere |  |  | PATH | not_found | correct the path | short
forbidden |  | from = "start"; [[fault]]; do = "status"; code = 403 |  | password | refuses user or password |
status-503 |  | from = "start"; [[fault]]; do = "status"; code = 503 |  | server_busy | no session left | short
status-453 |  | from = "start"; [[fault]]; do = "status"; code = 453 |  | server_busy | no session left |
status-500 |  | from = "start"; [[fault]]; do = "status"; code = 500 |  | session_closed | refused a request |
sdp-empty |  | from = "start"; [[fault]]; do = "sdp"; kind = "empty" |  | no_video | empty |
sdp-malformed |  | from = "start"; [[fault]]; do = "sdp"; kind = "malformed" |  | no_video session_closed not_rtsp |  |
audio-only |  | from = "start"; [[fault]]; do = "sdp"; kind = "audio-only" |  | no_video | sound only |
unknown-codec |  | from = "start"; [[fault]]; do = "sdp"; kind = "unknown-codec" |  | unsupported_codec | set the camera to H.264 |
mail |  | from = "start"; [[fault]]; do = "garbage" |  | not_rtsp | 554 is usual |
deaf |  | from = "start"; [[fault]]; do = "no-answer"; method = "any" |  | no_answer | does not answer |
tls |  |  | TLS | tls | TLS handshake |
firewall |  | transport = "udp"; from = "start"; [[fault]]; do = "loss"; percent = 100 | transport = "udp"; reconnect.request_timeout = "2s"; reconnect.connect_timeout = "3s" | udp_blocked no_answer |  |
lost |  | from = "start"; [[fault]]; do = "loss"; percent = 3 |  | packet_loss | transport = "tcp" | short
thin |  | [[fault]]; at = "2s"; do = "bandwidth"; kbit = 150 |  | bandwidth | lower the bit rate | short
frozen | --codec mjpeg | [[fault]]; at = "2s"; do = "frozen" |  | frozen | show the same picture | short
black |  | from = "start"; [[fault]]; do = "black" |  | black | lens cap | short
green |  | from = "start"; [[fault]]; do = "green" |  | one_colour | green |
still | --codec mjpeg | [[fault]]; at = "2s"; do = "frozen" | frozen_after = "2s" | frozen |  |
b-frames | --b-frames 2 |  |  | b_frames | B-frames off | short
slices | --slices 4 --mark-slices |  |  | marker_per_slice | every slice as if it were a picture | short
interlaced | --interlaced |  |  | interlaced | deinterlace |
resized | --switch-size 160x128 --switch-after 2s |  |  | size_changes | 160x128 now |
dead |  |  |  | writer_dead | systemctl start camring@dead | short
hung |  |  |  | writer_hung | systemctl restart camring@hung | short
fine |  |  |  | fine | live: 320x240 | short
"#;

/// What happens to one camera, and which causes name it.
struct Case {
    name: &'static str,
    /// Options of the simulated camera; none = nobody listens at the address.
    camera: Option<Vec<&'static str>>,
    /// A script that is shipped, or the text of one.
    script: Option<String>,
    /// Lines of the camera's table besides its address.
    config: String,
    causes: Vec<&'static str>,
    words: &'static str,
    short: bool,
}

impl Case {
    fn read(line: &'static str) -> Self {
        let mut fields = line.split('|').map(str::trim);
        let mut field = || fields.next().unwrap_or_default();
        let lines = |text: &str| text.replace("; ", "\n");
        let (name, camera, script, config) = (field(), field(), field(), field());
        Self {
            name,
            camera: (camera != "nobody").then(|| camera.split_whitespace().collect()),
            script: Some(lines(script)).filter(|script| !script.is_empty()),
            config: lines(config),
            causes: field().split_whitespace().collect(),
            words: field(),
            short: field() == "short",
        }
    }
}

fn cases() -> Vec<Case> {
    CASES.trim().lines().map(Case::read).collect()
}

/// A camera and its daemon, for as long as they are needed.
struct Scene {
    _sim: Option<Sim>,
    daemon: Daemon,
    _files: Vec<tempfile::NamedTempFile>,
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

impl Case {
    fn stage(&self, shm: &Shm) -> Scene {
        let mut files = Vec::new();
        let mut options: Vec<String> = SMALL.iter().map(ToString::to_string).collect();
        options.extend(self.camera.iter().flatten().map(ToString::to_string));
        if let Some(script) = &self.script {
            let path: PathBuf = if script.ends_with(".toml") {
                Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sim").join(script)
            } else {
                files.push(written(script));
                files.last().unwrap().path().to_owned()
            };
            options.extend(["--script".to_owned(), path.display().to_string()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let sim = self.camera.as_ref().map(|_| match self.name {
            "password" => Sim::spawn_with_password(&options, PASSWORD),
            _ => Sim::spawn(&options),
        });
        let mut url = sim.as_ref().map_or_else(|| format!("rtsp://127.0.0.1:{}/x", free_port()), |sim| sim.url.clone());
        let mut config = self.config.clone();
        match self.config.as_str() {
            "PATH" => (url, config) = (format!("{url}-elsewhere"), String::new()),
            // A camera that speaks no TLS at an address that says it does.
            "TLS" => (url, config) = (url.replacen("rtsp://", "rtsps://", 1), String::new()),
            _ => {}
        }
        let address = if config.contains("url =") { String::new() } else { format!("url = \"{url}\"\n") };
        let file = written(&format!("[camera.{}]\n{address}{config}\n", self.name));
        let daemon = Daemon::spawn_config(shm, self.name, file.path());
        files.push(file);
        Scene { _sim: sim, daemon, _files: files }
    }
}

/// Kills one daemon and stops another, once they are live.
fn strike(shm: &Shm, scenes: &mut BTreeMap<&'static str, Scene>) {
    for (name, signal) in [("dead", Signal::KILL), ("hung", Signal::STOP)] {
        let Some(scene) = scenes.get_mut(name) else { continue };
        let ring = shm.attach(name);
        until("it is live", || ring.status().state == camring_ring::State::Live);
        scene.daemon.process.signal(signal);
        if signal == Signal::KILL {
            scene.daemon.process.wait();
        }
    }
}

#[test]
fn every_fault_of_the_simulated_camera_gets_its_own_diagnosis() {
    let shm = Shm::new();
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.short || is_full()).collect();
    // Two cores cannot serve all of them at once.
    for batch in cases.chunks(15) {
        examine(&shm, batch);
    }
}

fn examine(shm: &Shm, cases: &[Case]) {
    let mut scenes: BTreeMap<&'static str, Scene> = cases.iter().map(|case| (case.name, case.stage(shm))).collect();
    strike(shm, &mut scenes);
    let mut open: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    let mut last: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let deadline = Instant::now() + ALL_SAID;
    while !open.is_empty() {
        assert!(Instant::now() < deadline, "no right word about {open:?}; said: {last:#?}");
        let said = doctor(shm, &["--json"]);
        for (ring, cause, text) in checks(&json(&said), "ring") {
            let Some(case) = cases.iter().find(|case| case.name == ring) else { continue };
            if case.causes.contains(&cause.as_str()) && text.contains(case.words) {
                open.remove(case.name);
            }
            let heard = last.entry(ring).or_default();
            heard.push((cause, text));
            let old = heard.len().saturating_sub(12);
            heard.drain(..old);
        }
        assert!(!said.stdout.contains("guess-work") && !said.stdout.contains(PASSWORD), "{said:#?}");
    }
}

#[test]
fn a_host_is_described_check_by_check_and_only_a_failure_ends_with_1() {
    let shm = Shm::new();
    let said = doctor(&shm, &["--json"]);
    let report = json(&said);
    for check in [
        "mount",
        "gstreamer",
        "codecs",
        "tls",
        "users",
        "anchors",
        "limits",
        "kernel",
        "clock",
        "load",
        "logout",
        "units",
    ] {
        assert!(!checks(&report, check).is_empty(), "nothing is said of {check}: {report:#}");
    }
    let fails = report["checks"].as_array().unwrap().iter().filter(|check| check["level"] == "fail").count();
    assert_eq!((report["fails"].as_u64(), report["ok"].as_bool()), (Some(fails as u64), Some(fails == 0)));
    assert_eq!(said.code, Some(i32::from(fails > 0)), "{report:#}");
    let text = doctor(&shm, &[]);
    assert!(text.stdout.contains("ok    mount") && text.stdout.contains("GStreamer 1."), "{text:#?}");
    assert!(!text.stdout.contains('\x1b'), "colour in a pipe");
    assert_eq!(text.stderr, "");
}

#[test]
fn a_wrong_configuration_and_a_camera_that_cannot_be_reached_fail_with_their_cures() {
    let shm = Shm::new();
    let wrong = written("[camera.front]\nurl = \"rtsp://127.0.0.1/x\"\nslotz = 8\n");
    let said = doctor(&shm, &["--json", "--config", wrong.path().to_str().unwrap()]);
    let found = checks(&json(&said), "config");
    assert_eq!(said.code, Some(1));
    assert!(found.iter().any(|(place, _, text)| place.ends_with(":3:1") && text.contains("slots")), "{found:?}");
    let right = written(&format!("[camera.front]\nurl = \"rtsp://127.0.0.1:{}/x\"\n", free_port()));
    let said = doctor(&shm, &["--json", "--connect", "--config", right.path().to_str().unwrap()]);
    let found = checks(&json(&said), "camera");
    assert_eq!(said.code, Some(1));
    assert!(found.len() == 1 && found[0].1 == "connect_refused" && found[0].2.contains("check the port"), "{found:?}");
}

#[test]
fn a_full_mount_is_named_with_the_command_that_enlarges_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small tmpfs");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("unshare");
    let script = "mount -t tmpfs -o size=4M tmpfs \"$1\" && head -c 3600000 /dev/zero >\"$1/other\" && exec \"$2\" doctor --json --shm-dir \"$1\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(place.path()).arg(env!("CARGO_BIN_EXE_camring"));
    let said = ended(command);
    if said.stdout.is_empty() {
        println!("skipped: no mount namespace here: {}", said.stderr);
        return;
    }
    let found = checks(&json(&said), "mount");
    assert!(found[0].1 == "mount_full" && found[0].2.contains("-o remount,size=8M"), "{found:?}");
}
