//! P6: CPU of capturing a 1080p25 H.264 camera, against the smallest pipeline that decodes the same stream
//! (`rtspsrc ! rtph264depay ! h264parse ! avdec_h264 max-threads=1 ! fakesink`); interleaved, ms of CPU per picture.
//!
//! Every part runs in a process of its own: `capture serve FILE`, `capture count URL`, `capture convert URL`. Besides,
//! `capture cycle URL SESSIONS` starts and stops sessions and prints memory, threads and descriptors, to find leaks.

mod figures;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use camring::convert::convert;
use camring::pipeline::{RtspSource, RtspSourceConfig};
use camring::source::{FrameRef, FrameSink, FrameSource, Loan, Progress, SourceEvent};
use camring_ring::frame::{Geometry, PixelFormat};
use figures::{Bar, Line, median};
use gst::glib;
use gst::prelude::*;
use gst_rtsp_server::prelude::*;

const FPS: u64 = 25;

/// How long a round measures.
fn seconds() -> u64 {
    if figures::is_quick() { 3 } else { 10 }
}

/// Counts pictures, and converts them into rotating slots when there are any.
struct Counter {
    count: Arc<AtomicU64>,
    slots: Vec<Vec<u8>>,
}

impl FrameSink for Counter {
    fn frame(&mut self, frame: &FrameRef<'_>) {
        let number = self.count.fetch_add(1, Ordering::Relaxed) as usize;
        let slots = self.slots.len();
        if let Some(slot) = self.slots.get_mut(number % slots.max(1)) {
            let geometry = Geometry::packed(frame.width, frame.height, PixelFormat::Bgr).expect("a picture");
            convert(frame, &geometry, slot).expect("it converts");
        }
    }
}

/// CPU time of a process so far, in ms: utime and stime of /proc/PID/stat, in ticks of 10 ms.
fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    ticks as f64 * 10.0
}

fn capture(url: &str, convert: bool) {
    let count = Arc::new(AtomicU64::new(0));
    let slots = if convert { vec![vec![1; 1920 * 1080 * 3]; 8] } else { vec![] };
    let (home, _home) = crossbeam_channel::bounded(1);
    let (events, _events) = crossbeam_channel::bounded(64);
    let sink: Box<dyn FrameSink> = Box::new(Counter { count: count.clone(), slots });
    let progress = Arc::new(Progress::default());
    let mut source = RtspSource::new(RtspSourceConfig::new(url));
    let session = source.start(Loan::new(sink, home), events, progress).expect("it starts");
    println!("started");
    std::thread::park_timeout(Duration::from_secs(seconds() + 4));
    session.stop();
}

/// Three pictures, or an end, and stop; over and over.
fn cycle(url: &str, sessions: u32) {
    let mut source = RtspSource::new(RtspSourceConfig::new(url));
    let mut slowest = Duration::ZERO;
    for session in 0..=sessions {
        if session % 25 == 0 {
            let status = std::fs::read_to_string("/proc/self/status").expect("proc");
            let line =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().to_owned();
            let descriptors = std::fs::read_dir("/proc/self/fd").expect("proc").count();
            let (memory, threads) = (line("RssAnon:"), line("Threads:"));
            println!(
                "{session} sessions: {memory} private, {threads} threads, {descriptors} descriptors, slowest stop {slowest:?}"
            );
        }
        let count = Arc::new(AtomicU64::new(0));
        let (home, at_home) = crossbeam_channel::bounded(1);
        let (events, ends) = crossbeam_channel::bounded(64);
        let sink: Box<dyn FrameSink> = Box::new(Counter { count: count.clone(), slots: vec![] });
        let running = source.start(Loan::new(sink, home), events, Arc::new(Progress::default())).expect("it starts");
        let is_end = |event| matches!(event, SourceEvent::Ended(_));
        while count.load(Ordering::Relaxed) < 3 && !ends.try_iter().any(is_end) {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        let began = Instant::now();
        running.stop();
        slowest = slowest.max(began.elapsed());
        at_home.recv_timeout(Duration::from_secs(5)).expect("the sink comes home");
    }
}

fn serve(file: &str) {
    gst::init().expect("GStreamer");
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service("0");
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch(&format!(
        "( filesrc location={file} ! qtdemux ! h264parse ! rtph264pay name=pay0 config-interval=1 )"
    ));
    server.mount_points().expect("mounts").add_factory("/stream", factory);
    server.attach(None).expect("a port");
    println!("{}", server.bound_port());
    glib::MainLoop::new(None, false).run();
}

fn write_stream(file: &str) {
    gst::init().expect("GStreamer");
    let launch = format!(
        "videotestsrc pattern=zone-plate kx2=6 ky2=4 kt=3 num-buffers={} ! video/x-raw,format=I420,width=1920,height=1080,framerate={FPS}/1 \
         ! x264enc speed-preset=superfast tune=zerolatency sliced-threads=false bitrate=4000 key-int-max=50 ! mp4mux ! filesink location={file}",
        (seconds() + 8) * FPS
    );
    let pipeline = gst::parse::launch(&launch).expect("the encoder is installed");
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let end = pipeline
        .bus()
        .expect("a bus")
        .timed_pop_filtered(gst::ClockTime::from_seconds(300), &[gst::MessageType::Eos, gst::MessageType::Error]);
    assert_eq!(end.expect("it ends").type_(), gst::MessageType::Eos);
    pipeline.set_state(gst::State::Null).expect("it stops");
}

fn itself(args: &[&str]) -> Child {
    let itself = std::env::current_exe().expect("a bench has a file");
    Command::new(itself).args(args).stdout(Stdio::piped()).spawn().expect("it runs")
}

fn bare(url: &str) -> Child {
    Command::new("gst-launch-1.0")
        .args(["-q", "rtspsrc", &format!("location={url}"), "protocols=tcp", "latency=100", "!", "rtph264depay", "!"])
        .args(["h264parse", "!", "avdec_h264", "max-threads=1", "!", "fakesink", "sync=false"])
        .spawn()
        .expect("gst-launch-1.0 is installed")
}

/// Lets a child settle for 2 s, then measures its CPU for `seconds()`, in ms per picture.
fn measure(mut child: Child) -> f64 {
    std::thread::park_timeout(Duration::from_secs(2));
    let before = cpu_ms(child.id());
    std::thread::park_timeout(Duration::from_secs(seconds()));
    let used = cpu_ms(child.id()) - before;
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    used / (seconds() * FPS) as f64
}

fn compare() {
    let file = std::env::temp_dir().join(format!("camring-bench-{}.mp4", std::process::id()));
    let file = file.to_str().expect("a plain path");
    write_stream(file);
    let mut server = itself(&["serve", file]);
    let mut port = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut port).expect("a port");
    let url = format!("rtsp://127.0.0.1:{}/stream", port.trim());
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..if figures::is_quick() { 2 } else { 5 } {
        times[0].push(measure(bare(&url)));
        times[1].push(measure(itself(&["count", &url])));
        times[2].push(measure(itself(&["convert", &url])));
    }
    server.kill().expect("our own child");
    server.wait().expect("our own child");
    std::fs::remove_file(file).expect("our own file");
    let [bare, count, convert] = times.map(median);
    let line = |what: &str, ours| Line {
        goal: "P6",
        group: "capture",
        what: format!("processor time per picture of 1080p{FPS} H.264, {what}"),
        unit: "ms",
        ours,
        beside: Some(bare),
        beside_is: "rtspsrc ! avdec_h264 ! fakesink",
        bar: Bar::Times(1.2),
    };
    figures::finish("capture", &[line("counted", count), line("converted to bgr", convert)]);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", file] => serve(file),
        ["count", url] => capture(url, false),
        ["convert", url] => capture(url, true),
        ["cycle", url, sessions] => cycle(url, sessions.parse().expect("a number of sessions")),
        _ => compare(),
    }
}
