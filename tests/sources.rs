//! Cameras that are not RTSP: MJPEG over HTTP, a device of this machine, a pipeline of the operator's own. Readers see the
//! same words as with RTSP.
#![cfg(feature = "sim")]

mod system;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use camring_ring::{FrameFlags, Reason, State};
use rustix::process::Signal;
use system::reader::{Reader, Way};
use system::web::{self, WebCamera};
use system::{Daemon, Shm, Sim, amount, camring, ended, free_port, until};

const SMALL: [&str; 6] = ["--size", "640x360", "--fps", "20", "--gop", "200ms"];
/// What opens a locked [`WebCamera`], with user `viewer`.
const PASSWORD: &str = web::PASSWORD;

/// A daemon on a file of ours with one camera `cam`, and a reader that attached once.
struct Scene {
    reader: Reader,
    daemon: Daemon,
    file: tempfile::NamedTempFile,
    _shm: Shm,
}

impl Scene {
    fn of(text: &str) -> Self {
        let (shm, file) = (Shm::new(), tempfile::NamedTempFile::with_suffix(".toml").unwrap());
        std::fs::write(file.path(), format!("[camera.cam]\n{text}")).unwrap();
        let daemon = Daemon::spawn_config(&shm, "cam", file.path());
        let reader = Reader::attach(&shm, "cam", Way::Next);
        Self { reader, daemon, file, _shm: shm }
    }

    fn live(&self) {
        until("the state is live", || self.reader.ring.status().state == State::Live);
    }

    fn is_because(&self, reason: Reason) {
        until(&format!("the reason is {reason}"), || self.reader.ring.status().reason == reason);
        assert_ne!(self.reader.ring.status().state, State::Live);
    }

    /// A frame of a session after the one of `newest`.
    fn comes_back(&self) {
        let session = self.reader.newest().unwrap().frame.meta.session_id;
        self.reader.first("a frame of a later session", |seen| seen.frame.meta.session_id > session);
        self.live();
    }
}

#[test]
fn pictures_over_http_are_read_whole_with_their_times_and_a_password() {
    let camera = WebCamera::start();
    camera.mood.locked.store(true, Ordering::Relaxed);
    let url = camera.url("mjpeg");
    let scene = Scene::of(&format!("url = \"{url}\"\nuser = \"viewer\"\npassword = \"{PASSWORD}\"\n"));
    let wanted = usize::try_from(amount(60, 3000)).unwrap();
    let mut count = 0;
    scene.reader.first_within(Duration::from_secs(60 + amount(0, 300)), "enough frames", |_| {
        count += 1;
        count >= wanted
    });
    let status = scene.reader.ring.status();
    assert_eq!((status.state, status.codec.as_str(), status.decoder.as_str()), (State::Live, "mjpeg", "jpegdec"));
    assert!(!scene.daemon.log().contains(PASSWORD), "{}", scene.daemon.log());
    let seen = scene.reader.finish();
    for seen in &seen {
        let meta = &seen.frame.meta;
        assert!(!meta.flags.contains(FrameFlags::SYNTHETIC) && meta.flags.contains(FrameFlags::KEYFRAME));
        assert!(meta.arrival_mono_ns <= meta.decoded_mono_ns && meta.source_unix_ns.is_none(), "{meta:?}");
        assert_eq!(meta.color.full_range, 1, "JPEG is full range");
    }
    assert!(seen.windows(2).all(|pair| pair[0].frame.meta.pts_ns < pair[1].frame.meta.pts_ns), "times go on");
    assert!(
        seen.iter().any(|seen| seen.frame.meta.arrival_mono_ns < seen.frame.meta.decoded_mono_ns),
        "arrival is known"
    );
}

#[test]
fn a_web_camera_that_stalls_cuts_or_goes_away_is_named_and_followed() {
    let camera = WebCamera::start();
    let scene = Scene::of(&format!("url = \"{}\"\n", camera.url("mjpeg")));
    // So many that its pace is known.
    scene.reader.first("a few frames", |seen| seen.frame.meta.seq.0 >= 20);
    scene.live();
    camera.mood.silent.store(true, Ordering::Relaxed);
    until("the stall is noticed", || scene.reader.ring.status().state != State::Live);
    scene.is_because(Reason::NoPackets);
    assert!(scene.reader.ring.peek().is_ok(), "the last frame stays");
    camera.mood.silent.store(false, Ordering::Relaxed);
    scene.comes_back();
    camera.cut();
    scene.comes_back();
    assert!(scene.daemon.log().contains("server_closed"), "{}", scene.daemon.log());
    drop(camera);
    scene.is_because(Reason::ConnectRefused);
    let sentence = "refused the connection; check the port and that the camera's HTTP server is on";
    until(sentence, || scene.daemon.log().contains(sentence));
}

#[test]
fn what_is_wrong_with_a_web_camera_is_named_with_the_words_of_rtsp() {
    let camera = WebCamera::start();
    let address = camera.address;
    let open = |path: &str, reason, sentence: &str| {
        let scene = Scene::of(&format!("url = \"{}\"\n", camera.url(path)));
        scene.is_because(reason);
        until(sentence, || scene.daemon.log().contains(sentence));
    };
    let page = format!("{address} answers with text/html, expected multipart/x-mixed-replace (MJPEG); check the path");
    open("page", Reason::NoVideo, &page);
    open(
        "elsewhere",
        Reason::NotFound,
        &format!("{address} has no such stream (status 404); check the path of the url"),
    );
    camera.mood.locked.store(true, Ordering::Relaxed);
    open("mjpeg", Reason::Auth, &format!("{address} asks for user and password (status 401); set user and password"));
    let wrong = format!("url = \"{}\"\nuser = \"viewer\"\npassword = \"guess-work\"\n", camera.url("mjpeg"));
    let scene = Scene::of(&wrong);
    scene.is_because(Reason::Auth);
    let sentence = format!("{address} refused user or password (status 401)");
    until(&sentence, || scene.daemon.log().contains(&sentence));
    assert!(!scene.daemon.log().contains("guess-work"), "{}", scene.daemon.log());
}

#[test]
fn a_device_that_is_missing_or_none_is_named_and_looked_for_again() {
    let scene = Scene::of("device = \"/dev/video-of-nobody\"\nreconnect.max = \"200ms\"\n");
    scene.is_because(Reason::NotFound);
    until("it is looked for again", || scene.reader.ring.status().attempt >= 3);
    let log = scene.daemon.log();
    assert!(log.contains("/dev/video-of-nobody is not there; plug the camera in, or correct device"), "{log}");
    let scene = Scene::of("device = \"/dev/null\"\n");
    scene.is_because(Reason::NotFound);
    until("its words", || scene.daemon.log().contains("/dev/null is no camera that can be used"));
}

#[test]
fn a_pipeline_of_ones_own_is_supervised_like_a_camera() {
    let mut sim = Sim::spawn_on(free_port(), &SMALL, None);
    let launch = |sim: &Sim| {
        format!(
            "pipeline = \"rtspsrc location={} protocols=tcp latency=0 ! rtph264depay ! avdec_h264 ! appsink name=out sync=false\"\n",
            sim.url
        )
    };
    let scene = Scene::of(&launch(&sim));
    let first = scene.reader.first("a frame", |_| true);
    assert!(!first.frame.meta.flags.contains(FrameFlags::SYNTHETIC));
    scene.live();
    sim.process.kill();
    until("the end is noticed", || scene.reader.ring.status().state != State::Live);
    assert!(scene.reader.ring.peek().is_ok(), "the last frame stays");
    sim.respawn();
    scene.comes_back();
    // A reload takes another one, and refuses what cannot be built.
    let reload = |text: &str, line: &str| {
        std::fs::write(scene.file.path(), format!("[camera.cam]\n{text}")).unwrap();
        let before = scene.daemon.log().matches(line).count();
        scene.daemon.process.signal(Signal::HUP);
        until(line, || scene.daemon.log().matches(line).count() > before);
    };
    reload("pipeline = \"videotestsrc ! nosuchthing ! appsink name=out\"\n", "pipeline cannot be built");
    let other = Sim::spawn(&SMALL);
    reload(&launch(&other), "pipeline has changed");
    scene.reader.first("a picture of the other camera", |seen| seen.stamp.run_id != first.stamp.run_id);
    scene.live();
}

#[test]
fn a_wrong_pipeline_is_refused_with_its_place_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("camring.toml");
    for (launch, said, column) in [
        ("videotestsrc ! nosuchthing ! appsink name=out", "pipeline cannot be built: no element \"nosuchthing\"", 28),
        ("videotestsrc ! fakesink", "pipeline cannot be built: it has no appsink called out", 12),
        ("videotestsrc colour=7 ! appsink name=out", "no property \"colour\" in element", 26),
        ("rtspsrc location=rtsp://u:hunter2@h/ nope=1 ! appsink name=out", "no property \"nope\"", 50),
    ] {
        std::fs::write(&file, format!("[camera.cam]\npipeline = \"{launch}\"\n")).unwrap();
        for arguments in [&["check"][..], &["run", "cam", "--config"]] {
            let mut command = camring();
            command.args(arguments).arg(&file);
            let ended = ended(command);
            assert_eq!(ended.code, Some(78), "{ended:#?}");
            let place = format!("camring.toml:2:{column}");
            assert!(ended.stderr.contains(said) && ended.stderr.contains(&place), "{}", ended.stderr);
            assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        }
    }
}
