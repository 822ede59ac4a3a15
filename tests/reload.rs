//! SIGHUP: the configuration is read again; what changes, changes under the readers' hands, and what is wrong changes nothing.
#![cfg(feature = "sim")]

mod system;

use std::path::PathBuf;
use std::time::Duration;

use camring_ring::{Counter, Reason, State};
use rustix::process::Signal;
use system::reader::{Reader, Way};
use system::{Daemon, Shm, Sim, until};

const SMALL: [&str; 6] = ["--size", "640x360", "--fps", "10", "--gop", "200ms"];

/// A daemon that is live on a file of ours, and a reader that attached once.
struct Scene {
    reader: Reader,
    daemon: Daemon,
    shm: Shm,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn live(text: &str) -> Self {
        let (shm, folder) = (Shm::new(), tempfile::tempdir().unwrap());
        let file = folder.path().join("camring.toml");
        std::fs::write(&file, text).unwrap();
        let daemon = Daemon::spawn_config(&shm, "cam", &file);
        let reader = Reader::attach(&shm, "cam", Way::Next);
        reader.first("a frame", |_| true);
        until("the state is live", || reader.ring.status().state == State::Live);
        Self { reader, daemon, shm, file, _folder: folder }
    }

    /// Replaces the file, asks for a reload, and waits until the log has `line`.
    fn reload(&self, text: &str, line: &str) {
        std::fs::write(&self.file, text).unwrap();
        let before = self.daemon.log().matches(line).count();
        self.daemon.process.signal(Signal::HUP);
        until(line, || self.daemon.log().matches(line).count() > before);
    }

    /// Frames go on from here, in the same session and generation.
    fn goes_on(&self) {
        let before = self.reader.newest().unwrap();
        let status = self.reader.ring.status();
        self.reader.first("frames go on", |seen| seen.frame.meta.seq.0 > before.frame.meta.seq.0 + 5);
        let after = self.reader.ring.status();
        assert_eq!((after.session_id, after.generation), (status.session_id, status.generation));
        assert_eq!((after.state, after.counter(Counter::Reconnects)), (State::Live, 0));
    }
}

fn camera(url: &str, more: &str) -> String {
    format!("[camera.cam]\nurl = \"{url}\"\n{more}")
}

#[test]
fn another_address_is_followed_in_the_same_ring() {
    let sims = [Sim::spawn(&SMALL), Sim::spawn(&SMALL)];
    let scene = Scene::live(&camera(&sims[0].url, ""));
    let before = scene.reader.newest().unwrap();
    scene.reload(&camera(&sims[1].url, ""), "url has changed");
    let other = scene.reader.first("a picture of the other camera", |seen| seen.stamp.run_id != before.stamp.run_id);
    assert_eq!(other.frame.generation, before.frame.generation, "the ring stayed");
    assert_eq!(other.frame.meta.session_id, before.frame.meta.session_id + 1);
    until("the state is live", || scene.reader.ring.status().state == State::Live);
    let status = scene.reader.ring.status();
    assert_eq!((status.writer_epoch, status.counter(Counter::Reconnects)), (1, 1));
    assert!(matches!(status.reconnects[..], [(Reason::Planned, 1)]), "{:?}", status.reconnects);
    let log = scene.daemon.log();
    assert!(log.contains(&sims[0].url) && log.contains(&sims[1].url), "the difference is told: {log}");
    // The reader's thread has judged every frame: the sequence never went back.
    scene.reader.finish();
}

#[test]
fn another_number_of_slots_is_a_new_generation_that_readers_follow() {
    let sim = Sim::spawn(&SMALL);
    let scene = Scene::live(&camera(&sim.url, ""));
    let before = scene.reader.newest().unwrap();
    let generations = scene.reader.ring.status().counter(Counter::Generations);
    let text = camera(&sim.url, "slots = 5\nring.mode = \"0600\"\nstale_after = \"7s\"\n");
    scene.reload(&text, "the ring was made anew");
    let after = scene.reader.first("the next generation", |seen| seen.frame.generation != before.frame.generation);
    assert_eq!(after.frame.meta.session_id, before.frame.meta.session_id, "the camera was not disturbed");
    let layout = scene.reader.ring.layout();
    assert_eq!((layout.slot_count, layout.stale_after_ms), (5, 7000));
    let status = scene.reader.ring.status();
    assert_eq!((status.counter(Counter::Generations), status.counter(Counter::Reconnects)), (generations + 1, 0));
    let mode = std::fs::metadata(scene.shm.path().join("camring.cam")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777, 0o600);
    scene.goes_on();
    assert_eq!(scene.shm.attach("cam").layout().slot_count, 5, "a new reader finds it too");
    let seen = scene.reader.finish();
    let generations: std::collections::BTreeSet<_> =
        seen.iter().map(|seen| seen.frame.generation.to_string()).collect();
    assert_eq!(generations.len(), 2);
}

#[test]
fn an_invalid_file_changes_nothing_and_is_told_with_its_line() {
    let sim = Sim::spawn(&SMALL);
    let scene = Scene::live(&camera(&sim.url, ""));
    let wrong = camera(&sim.url, "slots = 5\nfrozen_aftr = \"9s\"\n");
    scene.reload(&wrong, "the configuration is not taken over");
    let place = format!("{}:4:1: unknown key `frozen_aftr`", scene.file.display());
    assert!(scene.daemon.log().contains(&place), "{place} in {}", scene.daemon.log());
    scene.goes_on();
    assert_eq!(scene.reader.ring.layout().slot_count, 8);
    scene.reload("[camera.other]\ntest = {}\n", "no camera \"cam\" in");
    scene.goes_on();
    scene.reload(&camera(&sim.url, "segment = \"elsewhere\"\n"), "restart camring@cam");
    scene.goes_on();
    scene.reload(&camera(&sim.url, "user = \"u\"\npassword = \"${no_such_secret}\"\n"), "no_such_secret");
    scene.goes_on();
    // What was wrong is not remembered either.
    scene.reload(&camera(&sim.url, ""), "nothing has changed for this camera");
    scene.reader.finish();
}

#[test]
fn one_camera_of_sixteen_changes_and_the_others_do_not_notice() {
    const CAMERAS: usize = 16;
    const CHANGED: usize = 5;
    let (shm, folder) = (Shm::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("camring.toml");
    let name = |camera: usize| format!("cam{camera}");
    let text = |fps: u32| {
        let camera = |camera: usize| {
            let fps = if camera == CHANGED { fps } else { 5 };
            format!("[camera.cam{camera}]\ntest = {{ pattern = \"ball\", size = \"160x120\", fps = {fps} }}\n")
        };
        (0..CAMERAS).map(camera).collect::<String>()
    };
    std::fs::write(&file, text(5)).unwrap();
    let daemons: Vec<Daemon> = (0..CAMERAS).map(|camera| Daemon::spawn_config(&shm, &name(camera), &file)).collect();
    let rings: Vec<_> = (0..CAMERAS).map(|camera| shm.attach(&name(camera))).collect();
    until("all of them are live", || rings.iter().all(|ring| ring.status().state == State::Live));
    let before: Vec<_> = rings.iter().map(camring_ring::Ring::status).collect();
    std::fs::write(&file, text(6)).unwrap();
    daemons.iter().for_each(|daemon| daemon.process.signal(Signal::HUP));
    for (camera, daemon) in daemons.iter().enumerate() {
        let line =
            if camera == CHANGED { "it takes effect in a new session" } else { "nothing has changed for this camera" };
        until(line, || daemon.log().contains(line));
    }
    until("the changed one is live in another session", || {
        let status = rings[CHANGED].status();
        status.state == State::Live && status.session_id == before[CHANGED].session_id + 1
    });
    let marks: Vec<u64> = rings.iter().map(|ring| ring.status().seq.0).collect();
    until("every camera goes on", || rings.iter().zip(&marks).all(|(ring, mark)| ring.status().seq.0 > mark + 2));
    for (camera, (ring, before)) in rings.iter().zip(&before).enumerate() {
        let after = ring.status();
        let sessions = before.session_id + u32::from(camera == CHANGED);
        assert_eq!((after.session_id, after.writer_epoch), (sessions, before.writer_epoch), "camera {camera}");
        assert_eq!((after.generation, after.state), (before.generation, State::Live), "camera {camera}");
        assert_eq!(after.counter(Counter::Reconnects), u64::from(camera == CHANGED), "camera {camera}");
    }
}

#[test]
fn an_unchanged_file_changes_nothing_and_limits_change_without_a_new_session() {
    let sim = Sim::spawn(&SMALL);
    let scene = Scene::live(&camera(&sim.url, ""));
    scene.reload(&camera(&sim.url, ""), "nothing has changed for this camera");
    scene.goes_on();
    let other = "[camera.another]\ntest = {}\n";
    scene.reload(&format!("{}{other}", camera(&sim.url, "slots = 8\n")), "nothing has changed for this camera");
    scene.goes_on();
    scene.reload(&camera(&sim.url, "stall_after = \"60s\"\n"), "stall_after has changed; it takes effect in place");
    scene.goes_on();
    sim.process.signal(Signal::STOP);
    // Longer than the limit before, which was 5 s at most.
    system::let_pass(Duration::from_secs(7));
    assert_eq!(scene.reader.ring.status().state, State::Live, "the new limit is in effect");
    scene.reload(&camera(&sim.url, "stall_after = \"1s\"\n"), "stall_after has changed");
    until("the limit is in effect", || scene.reader.ring.status().state != State::Live);
    sim.process.signal(Signal::CONT);
    until("the state is live", || scene.reader.ring.status().state == State::Live);
    scene.reader.finish();
}

#[test]
fn a_corrected_password_is_tried_at_once_and_appears_nowhere() {
    const RIGHT: &str = "r1ght-p4ssw0rd";
    const WRONG: &str = "wr0ng-p4ssw0rd";
    let (shm, sim) = (Shm::new(), Sim::spawn_with_password(&SMALL, RIGHT));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("camring.toml");
    let text = |password: &str| camera(&sim.url, &format!("user = \"viewer\"\npassword = \"{password}\"\n"));
    std::fs::write(&file, text(WRONG)).unwrap();
    let daemon = Daemon::spawn_config(&shm, "cam", &file);
    let ring = shm.attach("cam");
    until("the password is refused", || ring.status().reason == Reason::Auth && ring.status().next_retry_mono_ns != 0);
    std::fs::write(&file, text(RIGHT)).unwrap();
    daemon.process.signal(Signal::HUP);
    until("the state is live", || ring.status().state == State::Live);
    let log = daemon.log();
    assert!(log.contains("password has changed"), "{log}");
    assert!(!log.contains(RIGHT) && !log.contains(WRONG), "a password is in the log");
}

#[test]
fn the_service_manager_hears_of_a_reload_and_of_its_end() {
    let (shm, folder) = (Shm::new(), tempfile::tempdir().unwrap());
    let (file, socket) = (folder.path().join("camring.toml"), folder.path().join("notify"));
    let ear = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    ear.set_read_timeout(Some(system::PATIENCE)).unwrap();
    let hear = |wanted: &str| {
        let mut heard = Vec::new();
        while !heard.iter().any(|text: &String| text.contains(wanted)) {
            let mut bytes = [0; 4096];
            let len = ear.recv(&mut bytes).unwrap();
            heard.push(String::from_utf8_lossy(&bytes[..len]).into_owned());
        }
        heard
    };
    let text = |slots: u32| {
        format!("[camera.cam]\ntest = {{ pattern = \"ball\", size = \"320x240\", fps = 10 }}\nslots = {slots}\n")
    };
    std::fs::write(&file, text(4)).unwrap();
    let mut command = system::camring();
    command.args(["run", "cam", "--config"]).arg(&file).arg("--shm-dir").arg(shm.path());
    command.env("NOTIFY_SOCKET", &socket);
    let daemon = Daemon::spawn_command(command, None);
    hear("READY=1");
    std::fs::write(&file, text(6)).unwrap();
    daemon.process.signal(Signal::HUP);
    let begun = hear("RELOADING=1");
    assert!(begun.last().unwrap().contains("MONOTONIC_USEC="), "{begun:?}");
    assert!(!begun.iter().any(|text| text.contains("READY=1")), "{begun:?}");
    hear("READY=1");
}

#[test]
fn a_camera_without_a_file_says_that_there_is_nothing_to_read_again() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&SMALL));
    let daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let reader = Reader::attach(&shm, "cam", Way::Next);
    reader.first("a frame", |_| true);
    daemon.process.signal(Signal::HUP);
    until("it is told", || daemon.log().contains("this camera is in no file"));
    let newest = reader.newest().unwrap().frame.meta.seq.0;
    reader.first("frames go on", |seen| seen.frame.meta.seq.0 > newest + 3);
    reader.finish();
}
