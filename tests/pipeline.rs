//! The capture side against real RTSP servers on 127.0.0.1, real files and the test picture.
#![cfg(feature = "sim")]

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camring::convert::convert;
use camring::pipeline::{AccessUnits, FileSource, OnCorrupt, RtspSource, RtspSourceConfig, TestSource, Transport};
use camring::source::{
    FrameRef, FrameSink, FrameSource, FrameTiming, Loan, Progress, RetryClass, RetryReason, Session, SourceEvent,
    SourceLayout,
};
use camring_ring::frame::{FrameFlags, Geometry, PixelFormat, Reason, TimeSource};
use crossbeam_channel::{Receiver, Sender, bounded};
use gst::glib;
use gst::prelude::*;
use gst_rtsp_server::prelude::*;

const H264: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=25/1 \
    ! x264enc tune=zerolatency key-int-max=25 ! rtph264pay name=pay0 config-interval=-1";
const H265: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=25/1 \
    ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph265pay name=pay0 config-interval=-1";
const MJPEG: &str =
    "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=25/1 ! jpegenc ! rtpjpegpay name=pay0";
const VP8: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=25/1 \
    ! vp8enc deadline=1 keyframe-max-dist=25 ! rtpvp8pay name=pay0";
const RAW: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=64,framerate=25/1 ! rtpvrawpay name=pay0";
const AUDIO: &str = "audiotestsrc is-live=true ! mulawenc ! rtppcmupay name=pay0";

/// Longest wait for anything; far above what a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until `condition` holds.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// An RTSP server with a main loop of its own.
struct Server {
    port: u16,
    main_loop: glib::MainLoop,
    server: gst_rtsp_server::RTSPServer,
    thread: Option<JoinHandle<()>>,
}

/// A user that a server asks for.
struct User(&'static str, &'static str);

fn role_token(role: &str) -> gst_rtsp_server::RTSPToken {
    gst_rtsp_server::RTSPToken::from_iter([("media.factory.role", role.to_send_value())])
}

impl Server {
    fn new(launch: &str) -> Self {
        Self::with(launch, None, None)
    }

    fn with(launch: &str, user: Option<User>, certificate: Option<&gio::TlsCertificate>) -> Self {
        gst::init().expect("GStreamer");
        let context = glib::MainContext::new();
        let server = gst_rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service("0");
        let factory = gst_rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(&format!("( {launch} )"));
        factory.set_shared(true);
        if user.is_some() || certificate.is_some() {
            let auth = gst_rtsp_server::RTSPAuth::new();
            auth.set_tls_certificate(certificate);
            let role = if let Some(User(name, password)) = user {
                let token = role_token("viewer");
                auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Digest);
                auth.add_digest(name, password, &token);
                "viewer"
            } else {
                let mut token = role_token("anonymous");
                auth.set_default_token(Some(&mut token));
                "anonymous"
            };
            factory.add_role_from_structure(
                &gst::Structure::builder(role)
                    .field("media.factory.access", true)
                    .field("media.factory.construct", true)
                    .build(),
            );
            server.set_auth(Some(&auth));
        }
        server.mount_points().expect("mounts").add_factory("/stream", factory);
        let main_loop = glib::MainLoop::new(Some(&context), false);
        server.attach(Some(&context)).expect("a port on 127.0.0.1");
        let port = u16::try_from(server.bound_port()).expect("a bound port");
        let running = main_loop.clone();
        let thread = std::thread::spawn(move || {
            context.with_thread_default(|| running.run()).expect("a context of its own");
        });
        Self { port, main_loop, server, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/stream", self.port)
    }

    /// Cuts every client off.
    fn cut(&self) {
        self.server.client_filter(Some(&mut |_, _| gst_rtsp_server::RTSPFilterResult::Remove));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cut();
        self.main_loop.quit();
        self.thread.take().expect("dropped once").join().expect("the server did not panic");
    }
}

/// What a test keeps of a picture.
#[derive(Clone, Debug)]
struct Seen {
    size: (u32, u32),
    layout: SourceLayout,
    matrix: u8,
    full_range: u8,
    timing: FrameTiming,
    flags: FrameFlags,
    lost_before: u32,
}

/// Keeps the description of every picture and the pixels of the newest one.
#[derive(Clone, Default)]
struct Album {
    seen: Arc<Mutex<Vec<Seen>>>,
    bgr: Arc<Mutex<Vec<u8>>>,
    count: Arc<AtomicU64>,
    panic_at: Option<u64>,
}

impl Album {
    fn pictures(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    fn pixel(&self, x: usize, y: usize, width: usize) -> [u8; 3] {
        let bgr = self.bgr.lock().expect("not poisoned");
        let at = (y * width + x) * 3;
        [bgr[at], bgr[at + 1], bgr[at + 2]]
    }
}

impl FrameSink for Album {
    fn frame(&mut self, frame: &FrameRef<'_>) {
        let number = self.count.load(Ordering::Relaxed);
        assert!(self.panic_at != Some(number), "a panic on purpose");
        let geometry = Geometry::packed(frame.width, frame.height, PixelFormat::Bgr).expect("a picture");
        let mut bgr = self.bgr.lock().expect("not poisoned");
        bgr.resize(geometry.len as usize, 0);
        convert(frame, &geometry, &mut bgr).expect("every picture converts");
        self.seen.lock().expect("not poisoned").push(Seen {
            size: (frame.width, frame.height),
            layout: frame.layout,
            matrix: frame.color.matrix,
            full_range: frame.color.full_range,
            timing: frame.timing,
            flags: frame.flags,
            lost_before: frame.lost_before,
        });
        self.count.store(number + 1, Ordering::Relaxed);
    }
}

/// A session under test.
struct Watch {
    session: Option<Box<dyn Session>>,
    home: Receiver<Box<dyn FrameSink>>,
    events: Receiver<SourceEvent>,
    progress: Arc<Progress>,
    album: Album,
}

fn lend(album: &Album) -> (Loan<Box<dyn FrameSink>>, Receiver<Box<dyn FrameSink>>) {
    let (home, arrivals): (Sender<Box<dyn FrameSink>>, _) = bounded(1);
    (Loan::new(Box::new(album.clone()), home), arrivals)
}

impl Watch {
    fn start(source: &mut dyn FrameSource) -> Self {
        Self::with(source, Album::default())
    }

    fn with(source: &mut dyn FrameSource, album: Album) -> Self {
        let (sink, home) = lend(&album);
        let (sender, events) = bounded(64);
        let progress = Arc::new(Progress::default());
        let session = source.start(sink, sender, progress.clone()).expect("it starts");
        Self { session: Some(session), home, events, progress, album }
    }

    fn wait_for(&self, pictures: u64) {
        wait_until(&format!("{pictures} pictures (events: {:?})", self.events), || {
            if let Some(end) = self.events.try_iter().find_map(as_end) {
                panic!("ended before {pictures} pictures: {end:?}");
            }
            self.album.count.load(Ordering::Relaxed) >= pictures
        });
    }

    fn end(&self) -> RetryReason {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let event = self.events.recv_deadline(deadline).expect("an end within the deadline");
            if let Some(end) = as_end(event) {
                return end;
            }
        }
    }

    /// Ends the session and waits for the sink.
    fn stop(&mut self) {
        self.session.take().expect("stopped once").stop();
        self.home.recv_timeout(DEADLINE).expect("the sink comes home");
    }
}

fn as_end(event: SourceEvent) -> Option<RetryReason> {
    match event {
        SourceEvent::Ended(end) => Some(end),
        _ => None,
    }
}

fn camera(server: &Server) -> RtspSource {
    RtspSource::new(RtspSourceConfig::new(&server.url()))
}

fn end_of(config: RtspSourceConfig) -> RetryReason {
    let mut watch = Watch::start(&mut RtspSource::new(config));
    let end = watch.end();
    watch.stop();
    end
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("proc").count()
}

/// Times grow, arrival comes before decoding, the first picture is a keyframe, nothing is lost.
fn assert_sound(pictures: &[Seen], size: (u32, u32)) {
    assert!(pictures.iter().all(|picture| picture.size == size), "{pictures:?}");
    for pair in pictures.windows(2) {
        let [one, two] = [&pair[0].timing, &pair[1].timing];
        assert!(one.pts_ns < two.pts_ns, "{one:?} {two:?}");
        assert!(one.decoded_mono_ns <= two.decoded_mono_ns, "{one:?} {two:?}");
    }
    for picture in pictures {
        assert!(picture.timing.arrival_mono_ns > 0, "{picture:?}");
        assert!(picture.timing.arrival_mono_ns <= picture.timing.decoded_mono_ns, "{picture:?}");
        assert_eq!(picture.lost_before, 0, "{picture:?}");
    }
    assert!(pictures[0].flags.contains(FrameFlags::KEYFRAME.with(FrameFlags::DISCONT)), "{:?}", pictures[0]);
}

#[test]
fn every_codec_gives_pictures_of_the_right_size_in_order() {
    for (launch, codec, decoder) in [
        (H264, "h264", "avdec_h264"),
        (H265, "h265", "avdec_h265"),
        (MJPEG, "mjpeg", "jpegdec"),
        (VP8, "vp8", "vp8dec"),
    ] {
        let server = Server::new(launch);
        let mut watch = Watch::start(&mut camera(&server));
        let named = watch.events.recv_timeout(DEADLINE).expect("an event");
        assert!(
            matches!(&named, SourceEvent::Decoder { codec: c, decoder: d } if c == codec && d == decoder),
            "{named:?}"
        );
        let first = watch.events.recv_timeout(DEADLINE).expect("an event");
        assert!(matches!(first, SourceEvent::FirstPacket), "{first:?}");
        watch.wait_for(30);
        watch.stop();
        let pictures = watch.album.pictures();
        assert_sound(&pictures, (640, 360));
        let rtp: Vec<u32> = pictures.iter().map(|picture| picture.timing.rtp_timestamp).collect();
        assert!(rtp.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == 3600), "{codec}: {rtp:?}");
        let keyframes = pictures.iter().filter(|picture| picture.flags.contains(FrameFlags::KEYFRAME)).count();
        if codec == "mjpeg" {
            assert_eq!(keyframes, pictures.len());
        } else {
            assert!(keyframes < pictures.len() / 2, "{codec}: {keyframes} of {}", pictures.len());
        }
        assert_eq!(watch.progress.packets_lost.load(Ordering::Relaxed), 0);
        assert_eq!(watch.progress.decoded.load(Ordering::Relaxed), pictures.len() as u64);
        assert!(!watch.progress.gate_closed.load(Ordering::Relaxed));
    }
}

#[test]
fn udp_and_auto_deliver_as_well() {
    let server = Server::new(H264);
    for transport in [Transport::Udp, Transport::Auto] {
        let config = RtspSourceConfig { transport, ..RtspSourceConfig::new(&server.url()) };
        let mut watch = Watch::start(&mut RtspSource::new(config));
        watch.wait_for(20);
        watch.stop();
        assert_sound(&watch.album.pictures()[..20], (640, 360));
    }
}

#[test]
fn parse_mode_gives_whole_pictures_too() {
    let server = Server::new(H264);
    let config = RtspSourceConfig { access_units: AccessUnits::Parse, ..RtspSourceConfig::new(&server.url()) };
    let mut watch = Watch::start(&mut RtspSource::new(config));
    watch.wait_for(20);
    watch.stop();
    assert_sound(&watch.album.pictures(), (640, 360));
}

#[test]
fn the_cameras_clock_is_known_after_its_first_report() {
    let server = Server::new(H264);
    let mut watch = Watch::start(&mut camera(&server));
    let known = || watch.album.pictures().iter().any(|picture| picture.timing.source_unix_ns.is_some());
    wait_until("a picture with the camera's time", known);
    watch.stop();
    let pictures = watch.album.pictures();
    let stamped = pictures.iter().find(|picture| picture.timing.source_unix_ns.is_some()).expect("seen above");
    assert_eq!(stamped.timing.time_source, Some(TimeSource::RtcpSr));
    assert!(!stamped.flags.contains(FrameFlags::UNTRUSTED_TIME), "{stamped:?}");
}

#[test]
fn every_refusal_has_its_word_and_its_class() {
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let end = end_of(RtspSourceConfig::new(&format!("rtsp://127.0.0.1:{port}/stream")));
    assert_eq!((end.reason, end.class), (Reason::ConnectRefused, RetryClass::Transient), "{end:?}");

    let server = Server::new(H264);
    let end = end_of(RtspSourceConfig::new(&format!("rtsp://127.0.0.1:{}/nothing", server.port)));
    assert_eq!((end.reason, end.class), (Reason::NotFound, RetryClass::Permanent), "{end:?}");

    let end = end_of(RtspSourceConfig::new("rtsp://no-such-camera.invalid/stream"));
    assert_eq!((end.reason, end.class), (Reason::Dns, RetryClass::Transient), "{end:?}");

    let server = Server::new(RAW);
    let end = end_of(RtspSourceConfig::new(&server.url()));
    assert_eq!((end.reason, end.class), (Reason::UnsupportedCodec, RetryClass::Permanent), "{end:?}");
    assert!(end.message.starts_with("codec RAW is not supported; set the camera to one of h264"), "{end:?}");

    let server = Server::new(AUDIO);
    let end = end_of(RtspSourceConfig::new(&server.url()));
    assert_eq!((end.reason, end.class), (Reason::NoVideo, RetryClass::Permanent), "{end:?}");
}

#[test]
fn something_that_is_no_rtsp_server_is_named_so_or_times_out() {
    use std::io::{Read, Write};
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let thread = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let read = client.read(&mut [0; 512]).expect("a request");
        assert!(read > 0);
        client.write_all(b"220 mail.example ESMTP ready\r\n\r\n").expect("an answer");
        let (silent, _) = listener.accept().expect("another client");
        silent
    });
    let config = RtspSourceConfig {
        request_timeout: Duration::from_secs(1),
        ..RtspSourceConfig::new(&format!("rtsp://127.0.0.1:{port}/stream"))
    };
    let end = end_of(config.clone());
    assert_eq!((end.reason, end.class), (Reason::NotRtsp, RetryClass::Permanent), "{end:?}");
    let end = end_of(config);
    assert_eq!((end.reason, end.class), (Reason::ConnectTimeout, RetryClass::Transient), "{end:?}");
    drop(thread.join().expect("the listener did not panic"));
}

#[test]
fn a_wrong_password_is_an_auth_failure_and_the_right_one_is_not() {
    let server = Server::with(H264, Some(User("viewer", "s3cr3t-Zq")), None);
    let config = |password: &str| RtspSourceConfig {
        user: Some("viewer".into()),
        password: Some(password.into()),
        ..RtspSourceConfig::new(&server.url())
    };
    let end = end_of(config("wr0ng-Xk"));
    assert_eq!((end.reason, end.class), (Reason::Auth, RetryClass::Auth), "{end:?}");
    assert!(!end.message.contains("wr0ng-Xk") && !end.message.contains("://"), "{end:?}");
    let end = end_of(RtspSourceConfig::new(&server.url()));
    assert_eq!(end.reason, Reason::Auth, "{end:?}");
    let mut watch = Watch::start(&mut RtspSource::new(config("s3cr3t-Zq")));
    watch.wait_for(3);
    watch.stop();
}

#[test]
fn a_server_that_goes_ends_the_session() {
    let server = Server::new(H264);
    let mut watch = Watch::start(&mut camera(&server));
    watch.wait_for(5);
    server.cut();
    let end = watch.end();
    assert_eq!((end.reason, end.class), (Reason::ServerClosed, RetryClass::Transient), "{end:?}");
    watch.stop();
    assert!(watch.events.try_iter().next().is_none(), "nothing follows the end");
}

#[test]
fn a_source_starts_again_after_an_end_and_leaves_no_thread_behind() {
    let server = Server::new(H264);
    let mut source = camera(&server);
    let cycle = |source: &mut RtspSource| {
        let mut watch = Watch::start(source);
        watch.wait_for(2);
        watch.stop();
    };
    (0..2).for_each(|_| cycle(&mut source));
    let alone = threads();
    (0..10).for_each(|_| cycle(&mut source));
    // Other tests run at the same time when nobody asks for one thread; they may only take away or add their own.
    if std::env::var("RUST_TEST_THREADS").as_deref() == Ok("1") {
        wait_until("as many threads as before", || threads() <= alone);
    }
}

#[test]
fn a_panic_in_the_sink_ends_the_session_and_the_sink_still_comes_home() {
    let mut source = TestSource { pattern: "ball".into(), size: (64, 48), fps: 50 };
    let mut watch = Watch::with(&mut source, Album { panic_at: Some(3), ..Album::default() });
    let end = watch.end();
    assert_eq!(end.reason, Reason::Internal, "{end:?}");
    watch.stop();
    assert_eq!(watch.album.pictures().len(), 3);
}

#[test]
fn a_session_that_is_dropped_gives_the_sink_back() {
    let server = Server::new(H264);
    let mut watch = Watch::start(&mut camera(&server));
    drop(watch.session.take());
    watch.home.recv_timeout(DEADLINE).expect("the sink comes home before the first packet, too");
    let mut watch = Watch::start(&mut camera(&server));
    watch.wait_for(1);
    drop(watch.session.take());
    watch.home.recv_timeout(DEADLINE).expect("the sink comes home");
}

#[test]
fn a_source_that_cannot_start_gives_the_sink_back() {
    let (sink, home) = lend(&Album::default());
    let (sender, _events) = bounded(4);
    let refused = RtspSource::new(RtspSourceConfig::new("rtsp://u:p@127.0.0.1/")).start(sink, sender, Arc::default());
    assert_eq!(refused.err().expect("a url with a user is refused").reason, Reason::Config);
    home.recv_timeout(DEADLINE).expect("the sink comes home");
}

/// Centre of each of the seven bars of the SMPTE pattern: white, yellow, cyan, green, magenta, red, blue; as BGR.
const BARS: [[u8; 3]; 7] =
    [[255, 255, 255], [0, 255, 255], [255, 255, 0], [0, 255, 0], [255, 0, 255], [0, 0, 255], [255, 0, 0]];

fn assert_bars(album: &Album, width: usize, tolerance: u8) {
    for (bar, expected) in BARS.iter().enumerate() {
        let found = album.pixel((bar * 2 + 1) * width / 14, 20, width);
        let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= tolerance);
        assert!(near, "bar {bar}: {found:?} instead of {expected:?}");
    }
}

#[test]
fn the_test_picture_has_exact_colours_and_is_marked() {
    let mut watch = Watch::start(&mut TestSource { pattern: "smpte".into(), size: (641, 359), fps: 50 });
    watch.wait_for(20);
    watch.stop();
    let pictures = watch.album.pictures();
    assert_sound(&pictures, (641, 359));
    assert!(pictures.iter().all(|picture| picture.flags.contains(FrameFlags::SYNTHETIC)));
    assert_eq!((pictures[0].layout, pictures[0].matrix, pictures[0].full_range), (SourceLayout::I420, 6, 0));
    assert_bars(&watch.album, 641, 3);
}

#[test]
fn colours_survive_every_codec_matrix_and_range() {
    let mjpeg =
        format!("{MJPEG} quality=95").replace("jpegenc", "jpegenc quality=95").replace("pay0 quality=95", "pay0");
    let h264 = |colorimetry: &str| {
        H264.replace("framerate=25/1", &format!("framerate=25/1,format=I420,colorimetry={colorimetry}"))
            .replace("x264enc", "x264enc quantizer=4 pass=quant")
    };
    for (launch, matrix, full_range) in
        [(mjpeg, 6, 1), (h264("bt601"), 6, 0), (h264("bt709"), 1, 0), (h264("1:3:5:1"), 1, 1)]
    {
        let server = Server::new(&launch);
        let mut watch = Watch::start(&mut camera(&server));
        watch.wait_for(3);
        watch.stop();
        let picture = watch.album.pictures()[0].clone();
        assert_eq!((picture.matrix, picture.full_range), (matrix, full_range), "{launch}: {picture:?}");
        assert_bars(&watch.album, 640, 6);
    }
}

#[test]
fn the_clock_moves() {
    let mut watch = Watch::start(&mut TestSource { pattern: "clock".into(), size: (320, 240), fps: 50 });
    watch.wait_for(1);
    let first = watch.album.bgr.lock().expect("not poisoned").clone();
    wait_until("another time of day", || *watch.album.bgr.lock().expect("not poisoned") != first);
    watch.stop();
}

#[test]
fn a_file_is_played_over_and_over_in_one_growing_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("loop.mp4");
    let make = format!(
        "videotestsrc num-buffers=10 ! video/x-raw,width=320,height=240,framerate=50/1 ! x264enc tune=zerolatency \
         ! mp4mux ! filesink location={}",
        path.display()
    );
    gst::init().expect("GStreamer");
    let writer = gst::parse::launch(&make).expect("the encoder is installed");
    writer.set_state(gst::State::Playing).expect("it plays");
    let done = writer.bus().expect("a bus").timed_pop_filtered(
        gst::ClockTime::from_seconds(DEADLINE.as_secs()),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    assert_eq!(done.expect("the file is written").type_(), gst::MessageType::Eos);
    writer.set_state(gst::State::Null).expect("it stops");

    let mut watch = Watch::start(&mut FileSource { path });
    watch.wait_for(35);
    watch.stop();
    let pictures = watch.album.pictures();
    assert_sound(&pictures, (320, 240));
    assert!(pictures.iter().all(|picture| picture.flags.contains(FrameFlags::SYNTHETIC)));
}

#[test]
fn files_that_cannot_be_played_are_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "these are words and not a video\n".repeat(50)).expect("it is written");
    let mut watch = Watch::start(&mut FileSource { path: text });
    let end = watch.end();
    assert_eq!(end.class, RetryClass::Permanent, "{end:?}");
    watch.stop();
    let (sink, home) = lend(&Album::default());
    let (sender, _events) = bounded(4);
    let refused = FileSource { path: folder.path().join("none.mp4") }.start(sink, sender, Arc::default());
    assert_eq!(refused.err().expect("there is no file").reason, Reason::NotFound);
    home.recv_timeout(DEADLINE).expect("the sink comes home");
}

/// Loses packets on the way from the payloader to the camera's socket.
fn lossy(launch: &str) -> String {
    launch.replace(
        "rtph264pay name=pay0 config-interval=-1",
        "rtph264pay config-interval=-1 mtu=400 name=pay ! netsim drop-probability=0.03 ! identity name=pay0",
    )
}

#[test]
fn after_a_loss_nothing_is_shown_before_the_next_keyframe() {
    let server = Server::new(&lossy(H264));
    for on_corrupt in [OnCorrupt::Drop, OnCorrupt::Flag] {
        let config = RtspSourceConfig { on_corrupt, ..RtspSourceConfig::new(&server.url()) };
        let mut watch = Watch::start(&mut RtspSource::new(config));
        wait_until("a loss, and a picture after it", || {
            watch.progress.packets_lost.load(Ordering::Relaxed) > 0
                && watch.album.pictures().iter().skip(1).any(|picture| picture.flags.contains(FrameFlags::DISCONT))
        });
        watch.stop();
        let pictures = watch.album.pictures();
        let dropped = watch.progress.dropped_gate.load(Ordering::Relaxed);
        let marked = pictures.iter().filter(|picture| picture.flags.contains(FrameFlags::CORRUPT)).count();
        match on_corrupt {
            OnCorrupt::Drop => {
                assert!(dropped > 0 && marked == 0, "{dropped} {marked}");
                let late = pictures.iter().skip(1).filter(|picture| picture.flags.contains(FrameFlags::DISCONT));
                for picture in late {
                    assert!(picture.flags.contains(FrameFlags::KEYFRAME), "{picture:?}");
                }
            }
            OnCorrupt::Flag => assert!(marked > 0, "{dropped} {marked}"),
        }
    }
}
