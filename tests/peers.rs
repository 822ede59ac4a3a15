//! RTSP servers of others, between the simulated camera and the daemon: what camring reads is their packets.
#![cfg(feature = "sim")]

mod system;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camring_ring::{Counter, State};
use gst::prelude::*;
use system::reader::{Reader, Way};
use system::{Daemon, PATIENCE, Process, Shm, Sim, amount, free_port, measured, until};

const CAMERA: [&str; 8] = ["--size", "640x360", "--fps", "25", "--gop", "400ms", "--bitrate", "1M"];

/// Reads `url` for a while: every picture is whole, none goes back, and they come as fast as they are sent.
fn reads_whole_pictures(peer: &str, url: &str, transport: &str) {
    reads_from_session(1, peer, url, transport);
}

/// The same, counted from the session of this number: a server may have to be got to know in the ones before.
fn reads_from_session(session: u32, peer: &str, url: &str, transport: &str) {
    let (shm, time) = (Shm::new(), Duration::from_secs(amount(5, 300)));
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[camera.cam]\nurl = \"{url}\"\ntransport = \"{transport}\"\n")).unwrap();
    let _daemon = Daemon::spawn_config(&shm, "cam", file.path());
    let reader = Reader::attach(&shm, "cam", Way::Next);
    let first = reader.first("a frame of the session that lasts", |seen| seen.frame.meta.session_id >= session);
    until("the state is live", || reader.ring.status().state == State::Live);
    let reconnects = reader.ring.status().counter(Counter::Reconnects);
    assert!(reconnects < u64::from(session), "{reconnects} reconnects before session {session}");
    let began = Instant::now();
    reader.first_within(time + PATIENCE, "the last frame", |_| began.elapsed() >= time);
    let status = reader.ring.status();
    let seen = reader.finish();
    let newest = seen.last().unwrap();
    let (numbers, frames) =
        (newest.stamp.number - first.stamp.number + 1, newest.frame.meta.seq.0 - first.frame.meta.seq.0 + 1);
    measured(format!(
        "{peer}, {transport}: {} s, {frames} frames published of {numbers} painted, {} read, {} reconnects, {} gated, {}",
        began.elapsed().as_secs(),
        seen.len(),
        status.counter(Counter::Reconnects),
        status.counter(Counter::DroppedGate),
        status.decoder,
    ));
    assert_eq!((newest.frame.meta.session_id, status.counter(Counter::Reconnects)), (session, reconnects), "it lasts");
    assert!(frames * 10 >= u64::from(numbers) * 8, "{frames} frames of {numbers} pictures");
}

/// Takes the access units off the simulated camera and hands them to a server that wants them from its program.
struct Relay {
    over: Arc<AtomicBool>,
    pipeline: gst::Pipeline,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// `format`: from access units to what `hand` gets.
    fn start(from: &str, format: &str, mut hand: impl FnMut(&[u8]) + Send + 'static) -> Self {
        gst::init().unwrap();
        let launch = format!(
            "rtspsrc location={from} protocols=tcp latency=0 ! rtph264depay \
             ! video/x-h264,stream-format=byte-stream,alignment=au ! {format} \
             ! appsink name=units sync=false max-buffers=50"
        );
        let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
        let units = pipeline.by_name("units").unwrap().downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let asked = over.clone();
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                let Some(sample) = units.try_pull_sample(gst::ClockTime::from_mseconds(100)) else { continue };
                hand(&sample.buffer().unwrap().map_readable().unwrap());
            }
        });
        Self { over, pipeline, thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn pictures_of_a_server_in_rust_are_read_whole() {
    let (sim, port) = (Sim::spawn(&CAMERA), free_port());
    let mut server = rtsp::Server::new(&format!("127.0.0.1:{port}"));
    server.start().unwrap();
    let server = Arc::new(server);
    let theirs = server.clone();
    // 3600 steps of 1/90000 s: 25 pictures a second. Nobody watches at first, which is no fault.
    let relay = Relay::start(&sim.url, "identity", move |unit| drop(theirs.send_frame(unit, 3600)));
    // It knows UDP alone, and says so when asked for TCP.
    for transport in ["udp", "auto"] {
        reads_whole_pictures("rtsp-rs", &format!("rtsp://127.0.0.1:{port}/stream"), transport);
    }
    drop(relay);
}

#[test]
#[ignore = "wants vlc-bin and vlc-plugin-base; scripts/soak peer-vlc installs them"]
fn pictures_of_vlc_are_read_whole() {
    let (sim, port) = (Sim::spawn(&CAMERA), free_port());
    // VLC refuses to run as root.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/tmp", "cvlc", "--quiet"]);
    command.args(["--demux=ts", "fd://0", &format!("--sout=#rtp{{sdp=rtsp://127.0.0.1:{port}/relay}}")]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut server = Process(child);
    let mut input = server.0.stdin.take().unwrap();
    let _relay = Relay::start(&sim.url, "mpegtsmux", move |bytes| drop(input.write_all(bytes)));
    until("VLC listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    // UDP alone, here too.
    for transport in ["udp", "auto"] {
        reads_whole_pictures("VLC", &format!("rtsp://127.0.0.1:{port}/relay"), transport);
    }
}

#[test]
#[ignore = "wants live555; scripts/soak peer-live555 compiles it"]
fn pictures_of_live555_are_read_whole() {
    let whole = Sim::spawn(&[&CAMERA[..], &["--slices", "1"]].concat());
    let server = Live555::before(&whole);
    for transport in ["tcp", "udp", "auto"] {
        reads_whole_pictures("live555", &server.url, transport);
    }
    drop(server);
    // It marks each slice that it passes on as the end of a picture, whatever the camera marked.
    let sliced = Sim::spawn(&[&CAMERA[..], &["--slices", "4"]].concat());
    let server = Live555::before(&sliced);
    reads_from_session(2, "live555 (4 slices)", &server.url, "tcp");
}

/// The RTSP proxy of live555 in front of the simulated camera: it takes the packets apart and makes its own.
struct Live555 {
    url: String,
    _process: Process,
}

impl Live555 {
    fn before(sim: &Sim) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("/usr/bin/python3");
        command.arg(root.join("tests/peers/live555.py")).args([&free_port().to_string(), &sim.url]);
        command.env("PYTHONPATH", root.join(".cache/live555"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let server = Self { url: url.trim().to_owned(), _process: Process(child) };
        assert!(server.url.starts_with("rtsp://"), "live555 printed {url:?}");
        server
    }
}
