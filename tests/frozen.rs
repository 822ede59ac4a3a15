//! A camera that goes on sending one picture: named as frozen, and only then.
#![cfg(feature = "sim")]

mod system;

use std::path::Path;
use std::time::{Duration, Instant};

use camring_ring::{Counter, Reason, Ring, State};
use system::{Daemon, PATIENCE, Shm, Sim, amount, camring, ended, measured, stamp_of, until};

/// A configuration of one camera.
fn config(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn is_frozen(ring: &Ring) -> bool {
    let status = ring.status();
    (status.state, status.reason) == (State::Degraded, Reason::Frozen)
}

/// `list` and `show`, as JSON, say what the ring says.
fn listed(shm: &Shm) -> Vec<(String, String)> {
    let said = |arguments: &[&str]| {
        let mut command = camring();
        command.args(arguments).arg("--json").arg("--shm-dir").arg(shm.path());
        let json: serde_json::Value = serde_json::from_str(&ended(command).stdout).unwrap();
        let ring = json.as_array().map_or(&json, |rings| &rings[0]);
        let word = |key: &str| ring[key].as_str().unwrap_or_default().to_owned();
        (word("state"), word("reason"))
    };
    vec![said(&["list"]), said(&["show", "cam"])]
}

#[test]
fn a_picture_that_stands_still_is_frozen_until_it_changes() {
    let still = format!("{}s", amount(8, 30));
    let options = ["--codec", "mjpeg", "--size", "640x360", "--fps", "10", "--freeze-after", "3s", "--freeze-for"];
    let (shm, sim) = (Shm::new(), Sim::spawn(&[&options[..], &[&still]].concat()));
    let file = config(&format!("[camera.cam]\nurl = \"{}\"\nfrozen_after = \"2s\"\n", sim.url));
    let daemon = Daemon::spawn_config(&shm, "cam", file.path());
    let ring = shm.attach("cam");
    until("the state is live", || ring.status().state == State::Live);
    let session = ring.status().session_id;
    until("the state is frozen", || is_frozen(&ring));
    let named = Instant::now();
    let mut pixels = Vec::new();
    let before = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    let picture = pixels.clone();
    let frozen = stamp_of(&before, &pixels);
    let after = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    assert!(after.meta.seq > before.meta.seq, "frames go on");
    assert!(picture == pixels, "and show the same");
    assert!(is_frozen(&ring));
    assert_eq!(listed(&shm), vec![("degraded".to_owned(), "frozen".to_owned()); 2]);
    until("the state is live again", || ring.status().state == State::Live);
    let frame = ring.latest(&mut pixels).unwrap();
    assert!(stamp_of(&frame, &pixels).number > frozen.number, "another picture");
    let status = ring.status();
    assert_eq!((status.session_id, status.counter(Counter::Reconnects)), (session, 0), "nothing was reconnected");
    assert!(daemon.log().contains("has not changed by a bit"), "{}", daemon.log());
    measured(format!(
        "a still picture: called frozen for {} ms, live again when it moved",
        named.elapsed().as_millis()
    ));
}

#[test]
fn a_still_test_picture_is_frozen_and_stays_connected() {
    let shm = Shm::new();
    let file =
        config("[camera.cam]\ntest = { pattern = \"black\", size = \"320x240\", fps = 10 }\nfrozen_after = \"1s\"\n");
    let _daemon = Daemon::spawn_config(&shm, "cam", file.path());
    let ring = shm.attach("cam");
    until("the state is frozen", || is_frozen(&ring));
    let seq = ring.status().seq;
    until("frames go on", || ring.status().seq.0 > seq.0 + 10);
    assert!(is_frozen(&ring));
}

/// The state of a camera that is watched with the shortest limit there is, for as long as the test lasts.
fn never_frozen(shm: &Shm, config: &Path) {
    let _daemon = Daemon::spawn_config(shm, "cam", config);
    let ring = shm.attach("cam");
    until("the state is live", || ring.status().state == State::Live);
    let deadline = Instant::now() + Duration::from_secs(amount(6, 60));
    while Instant::now() < deadline {
        assert_ne!(ring.status().reason, Reason::Frozen);
        system::pause();
    }
    assert!(ring.status().seq.0 > 20, "frames came");
}

#[test]
fn a_moving_scene_is_never_called_frozen() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--size", "640x360", "--fps", "10"]));
    let file = config(&format!("[camera.cam]\nurl = \"{}\"\nfrozen_after = \"1s\"\n", sim.url));
    never_frozen(&shm, file.path());
}

#[test]
fn noise_on_a_still_scene_is_never_called_frozen() {
    let shm = Shm::new();
    // Still bars with a patch of noise in one corner.
    let file =
        config("[camera.cam]\ntest = { pattern = \"smpte\", size = \"320x240\", fps = 10 }\nfrozen_after = \"1s\"\n");
    never_frozen(&shm, file.path());
}
