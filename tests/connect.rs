//! `camring check --connect`: what each camera of a file sends, or why it does not, in words and as JSON.
#![cfg(feature = "sim")]

mod system;

use std::path::Path;

use system::{Ended, Shm, Sim, camring, ended, free_port};

const SMALL: [&str; 6] = ["--size", "320x240", "--fps", "10", "--gop", "200ms"];
const PASSWORD: &str = "correct-horse";

fn check(file: &Path, options: &[&str]) -> Ended {
    let mut command = camring();
    command.arg("check").arg(file).arg("--connect").args(options);
    ended(command)
}

/// The rate of a camera of ten pictures a second, from about ten distances: the times at both ends follow the arrival, by a
/// period each where the machine is busy.
const TEN: std::ops::RangeInclusive<f64> = 8.0..=12.5;

/// The line of one camera.
fn line<'a>(said: &'a Ended, camera: &str) -> &'a str {
    let found = said.stdout.lines().find(|line| line.split_whitespace().next() == Some(camera));
    found.unwrap_or_else(|| panic!("no line of {camera} in {said:#?}"))
}

/// A file with cameras of every kind, and the cameras.
fn street() -> (tempfile::NamedTempFile, Sim, Sim) {
    let (open, locked) = (Sim::spawn(&SMALL), Sim::spawn_with_password(&SMALL, PASSWORD));
    let nobody = free_port();
    let text = format!(
        "[camera.good]\nurl = \"{open}\"\n\
         [camera.known]\nurl = \"{locked}\"\nuser = \"viewer\"\npassword = \"{PASSWORD}\"\n\
         [camera.wrong-password]\nurl = \"{locked}\"\nuser = \"viewer\"\npassword = \"guess-work\"\n\
         [camera.refused]\nurl = \"rtsp://127.0.0.1:{nobody}/stream\"\n\
         [camera.not-found]\nurl = \"{open}-elsewhere\"\n\
         [camera.secret]\nurl = \"{open}\"\nuser = \"viewer\"\npassword = \"${{no_such_secret}}\"\n\
         [camera.drawn]\ntest = {{ size = \"64x48\", fps = 25 }}\n",
        open = open.url,
        locked = locked.url,
    );
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    (file, open, locked)
}

#[test]
fn each_camera_is_said_to_deliver_or_the_cause_is_named_with_what_to_do() {
    let (file, open, locked) = street();
    let said = check(file.path(), &[]);
    assert_eq!(said.code, Some(69), "{said:#?}");
    for camera in ["good", "known"] {
        let line = line(&said, camera);
        assert!(line.contains(" live ") && line.contains("h264 320x240, "), "{line}");
        assert!(line.contains(" fps, avdec_h264, first frame after "), "{line}");
        let fps: f64 = line.split_once(" fps").unwrap().0.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(TEN.contains(&fps), "{line}");
    }
    assert!(line(&said, "drawn").contains("raw 64x48, 25.0 fps, videotestsrc"), "{said:#?}");
    let refused = format!("127.0.0.1:{} refused user or password (status 401); check user and password", locked.port());
    let missing = format!("127.0.0.1:{} has no such stream (status 404); check the path of the url", open.port());
    for (camera, reason, sentence) in [
        ("wrong-password", "auth", refused.as_str()),
        ("refused", "connect_refused", "refused the connection; check the port"),
        ("not-found", "not_found", &missing),
        ("secret", "config", "no_such_secret"),
    ] {
        let line = line(&said, camera);
        assert!(line.contains(&format!(" {reason} ")) && line.contains(sentence), "{line}");
    }
    assert!(said.stderr.contains("4 of 7 cameras gave no picture; what to do is said beside each"), "{said:#?}");
    assert!(!said.stdout.contains("guess-work") && !said.stderr.contains("guess-work"), "{said:#?}");
}

#[test]
fn the_same_is_said_as_json() {
    let (file, _open, _locked) = street();
    let said = check(file.path(), &["--json"]);
    assert_eq!(said.code, Some(69), "{said:#?}");
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let visits = report["connect"].as_array().unwrap();
    let names: Vec<&str> = visits.iter().map(|visit| visit["camera"].as_str().unwrap()).collect();
    assert_eq!(names, ["drawn", "good", "known", "not-found", "refused", "secret", "wrong-password"]);
    let of = |name: &str| visits.iter().find(|visit| visit["camera"] == name).unwrap();
    let good = of("good");
    assert_eq!(
        (&good["ok"], &good["state"], &good["reason"]),
        (&true.into(), &"live".into(), &serde_json::Value::Null)
    );
    assert_eq!((&good["codec"], &good["width"], &good["height"]), (&"h264".into(), &320.into(), &240.into()));
    assert!(TEN.contains(&good["fps"].as_f64().unwrap()) && good["first_frame_ms"].is_u64(), "{good}");
    let wrong = of("wrong-password");
    assert_eq!((&wrong["ok"], &wrong["state"], &wrong["reason"]), (&false.into(), &"failed".into(), &"auth".into()));
    assert!(wrong["message"].as_str().unwrap().contains("check user and password") && wrong["width"].is_null());
}

#[test]
fn a_check_of_cameras_that_all_deliver_ends_with_0_and_leaves_no_ring() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&SMALL));
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[camera.good]\nurl = \"{}\"\n", sim.url)).unwrap();
    let said = check(file.path(), &["--shm-dir", shm.path().to_str().unwrap()]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:#?}");
    assert!(shm.files().is_empty(), "{:?}", shm.files());
}

#[test]
fn a_camera_that_says_nothing_does_not_hold_the_others_up() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sim = Sim::spawn(&SMALL);
    let limits = "reconnect.connect_timeout = \"2s\"\nreconnect.request_timeout = \"1s\"\n";
    let text = format!(
        "[camera.deaf]\nurl = \"rtsp://{}/x\"\n{limits}[camera.good]\nurl = \"{}\"\n",
        deaf.local_addr().unwrap(),
        sim.url
    );
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    let said = check(file.path(), &[]);
    assert_eq!(said.code, Some(69), "{said:#?}");
    assert!(line(&said, "good").contains(" live "), "{said:#?}");
    assert!(line(&said, "deaf").contains(" connect_timeout "), "{said:#?}");
}
