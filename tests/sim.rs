//! The simulated camera as its clients see it: every picture is read back over RTSP on loopback.
#![cfg(feature = "sim")]

mod system;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camring::sim::picture::{Color, bars_rgb};
use camring::sim::stamp::{self, Stamp};
use camring::sim::{
    AuthScheme, Chroma, Codec, Depth, Encoding, FrameRate, ListenRefusal, Login, Markers, Pattern, Profile, Scan,
    SimConfig, SimError, SimServer, Size, StreamConfig, Switch, SwitchTo,
};
use gst::glib;
use gst::prelude::*;
use gst_video::prelude::*;
use system::join::from_the_second_keyframe;

const DEADLINE: Duration = Duration::from_secs(20);
const PASSWORD: &str = "p@ss:w/rd#%?";

/// One camera at a time: two encoders already fill a small machine, and threads are counted.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From one keyframe to the next: a client begins with the second.
const GOP: Duration = Duration::from_millis(200);

fn small(codec: Codec) -> StreamConfig {
    StreamConfig { codec, size: Size::new(320, 240), gop: GOP, ..StreamConfig::default() }
}

fn start(stream: StreamConfig) -> SimServer {
    SimServer::start(SimConfig::with_stream(stream)).expect("the camera starts")
}

/// A client as plain as can be: rtspsrc, depayloader, parser, decoder, appsink.
struct Client {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    deadline: Instant,
}

#[derive(Clone, Debug)]
struct Picture {
    info: gst_video::VideoInfo,
    buffer: gst::Buffer,
    stamp: Stamp,
    age_us: u64,
}

impl Client {
    fn connect(url: &str, codec: Codec) -> Self {
        Self::log_in(url, codec, "tcp", None)
    }

    fn log_in(url: &str, codec: Codec, transport: &str, login: Option<(&str, &str)>) -> Self {
        gst::init().expect("GStreamer is installed");
        let tail = match codec {
            Codec::H264 => "rtph264depay ! h264parse ! avdec_h264 name=decoder max-threads=1",
            Codec::H265 => "rtph265depay ! h265parse ! avdec_h265 name=decoder max-threads=1",
            Codec::Mjpeg => "rtpjpegdepay ! jpegdec name=decoder",
            Codec::Vp8 => "rtpvp8depay ! vp8dec name=decoder",
            Codec::Vp9 => "rtpvp9depay ! vp9parse ! vp9dec name=decoder",
            Codec::Mpeg4 => "rtpmp4vdepay ! mpeg4videoparse ! avdec_mpeg4 name=decoder max-threads=1",
            Codec::Theora => "rtptheoradepay ! theoradec name=decoder",
        };
        let line = format!(
            "rtspsrc name=source latency=100 buffer-mode=none protocols={transport} ! {tail} ! appsink name=sink sync=false"
        );
        let pipeline = gst::parse::launch(&line).expect("all elements are installed");
        let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a launch line with links is a pipeline");
        let source = pipeline.by_name("source").expect("named in the line");
        source.set_property("location", url);
        if let Some((user, password)) = login {
            source.set_property("user-id", user);
            source.set_property("user-pw", password);
        }
        // Theora begins with headers, without which its decoder does nothing; it waits for a keyframe by itself.
        if codec != Codec::Theora {
            from_the_second_keyframe(&pipeline.by_name("decoder").expect("named in the line"));
        }
        let sink = pipeline.by_name("sink").expect("named in the line").downcast().expect("an appsink");
        pipeline.set_state(gst::State::Playing).expect("the pipeline can be started");
        Self { pipeline, sink, deadline: Instant::now() + DEADLINE }
    }

    /// The next picture, or the error that the pipeline reports instead.
    fn next(&self) -> Result<Picture, glib::Error> {
        let bus = self.pipeline.bus().expect("a pipeline has a bus");
        while Instant::now() < self.deadline {
            if let Some(sample) = self.sink.try_pull_sample(gst::ClockTime::from_mseconds(50)) {
                return Ok(Picture::new(&sample));
            }
            if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
                let gst::MessageView::Error(error) = message.view() else { unreachable!("filtered") };
                return Err(error.error());
            }
        }
        panic!("no picture and no error within {DEADLINE:?}");
    }

    fn take(&self, count: usize) -> Vec<Picture> {
        (0..count).map(|index| self.next().unwrap_or_else(|error| panic!("picture {index}: {error}"))).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).expect("a pipeline can always be stopped");
    }
}

impl Picture {
    fn new(sample: &gst::Sample) -> Self {
        let now_us = glib::monotonic_time().unsigned_abs();
        let info = gst_video::VideoInfo::from_caps(sample.caps().expect("pictures have caps")).expect("video");
        assert_eq!(info.format(), gst_video::VideoFormat::I420);
        let buffer = sample.buffer_owned().expect("a sample with a buffer");
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).expect("mappable");
        let (width, height) = (info.width(), info.height());
        let stride = frame.plane_stride()[0].unsigned_abs() as usize;
        let luma = frame.plane_data(0).expect("I420 has luma");
        let stamp = stamp::read_luma(luma, stride, width, height)
            .unwrap_or_else(|error| panic!("a picture of {width}x{height} without a stamp: {error}"));
        drop(frame);
        Self { info, buffer, stamp, age_us: now_us.saturating_sub(stamp.mono_us) }
    }

    fn size(&self) -> Size {
        Size::new(self.info.width(), self.info.height())
    }

    fn yuv(&self, x: usize, y: usize) -> [u8; 3] {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&self.buffer, &self.info).expect("mappable");
        [(0, x, y), (1, x / 2, y / 2), (2, x / 2, y / 2)].map(|(plane, x, y)| {
            let stride = frame.plane_stride()[plane as usize].unsigned_abs() as usize;
            frame.plane_data(plane).expect("three planes")[y * stride + x]
        })
    }
}

/// Asserts that the numbers rise by one, apart from gaps that the camera itself has counted.
fn assert_numbered(camera: &SimServer, pictures: &[Picture]) {
    let numbers: Vec<u32> = pictures.iter().map(|picture| picture.stamp.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "numbers rise: {numbers:?}");
    let gaps = u64::from(numbers[numbers.len() - 1] - numbers[0]) + 1 - numbers.len() as u64;
    let skipped = camera.frames_skipped();
    assert!(gaps <= skipped, "{gaps} frames are missing but the camera skipped {skipped}: {numbers:?}");
    assert!(pictures.iter().all(|picture| picture.stamp.run_id == camera.run_id()));
    assert!(camera.frames_pushed() >= pictures.len() as u64);
}

/// Prints what nobody should assert: how old the pictures were when they arrived.
fn report_age(what: &str, pictures: &[Picture]) {
    let mut ages: Vec<u64> = pictures.iter().skip(1).map(|picture| picture.age_us).collect();
    ages.sort_unstable();
    let at = |percent: usize| ages[(ages.len() - 1) * percent / 100];
    println!("{what}: age of a picture p50 {} us, p95 {} us, max {} us", at(50), at(95), at(100));
}

fn reads_every_stamp(stream: StreamConfig, count: usize) {
    let _turn = alone();
    let (codec, size, what) = (stream.codec, stream.size, format!("{} {}", stream.codec.name(), stream.size));
    let camera = start(stream);
    let client = Client::connect(camera.url(), codec);
    let pictures = client.take(count);
    assert!(pictures.iter().all(|picture| picture.size() == size));
    assert_numbered(&camera, &pictures);
    report_age(&what, &pictures);
    drop(client);
    camera.stop().expect("the camera stops in time");
}

#[test]
fn every_stamp_of_an_h264_stream_reads() {
    reads_every_stamp(small(Codec::H264), 25);
}

#[test]
fn every_stamp_of_an_h265_stream_reads() {
    reads_every_stamp(small(Codec::H265), 25);
}

#[test]
fn every_stamp_of_an_mjpeg_stream_reads() {
    reads_every_stamp(small(Codec::Mjpeg), 25);
}

#[test]
fn every_stamp_of_vp8_vp9_and_mpeg4_streams_reads() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Mpeg4] {
        reads_every_stamp(small(codec), 25);
    }
}

#[test]
fn every_stamp_of_a_theora_stream_reads() {
    reads_every_stamp(small(Codec::Theora), 25);
}

#[test]
fn every_stamp_of_odd_sized_streams_reads() {
    for codec in [Codec::Mjpeg, Codec::Vp8, Codec::Vp9, Codec::Mpeg4] {
        reads_every_stamp(StreamConfig { size: Size::new(641, 359), ..small(codec) }, 25);
    }
}

#[test]
fn every_stamp_of_an_mjpeg_stream_wider_than_rtp_can_say_reads() {
    reads_every_stamp(StreamConfig { size: Size::new(2561, 721), ..small(Codec::Mjpeg) }, 5);
}

#[test]
fn every_stamp_of_the_smallest_streams_reads() {
    for codec in [Codec::H264, Codec::H265, Codec::Mjpeg, Codec::Vp8, Codec::Vp9, Codec::Mpeg4, Codec::Theora] {
        reads_every_stamp(StreamConfig { size: Size::new(128, 64), ..small(codec) }, 5);
    }
}

#[test]
fn every_stamp_of_full_hd_h264_reads() {
    reads_every_stamp(StreamConfig::default(), 50);
}

#[test]
fn every_stamp_reads_at_a_starved_bit_rate() {
    let size = Size::new(640, 360);
    reads_every_stamp(
        StreamConfig { bitrate: Some(200_000), size, gop: Duration::from_secs(1), ..small(Codec::H264) },
        50,
    );
}

#[test]
fn udp_carries_the_stream_too() {
    let _turn = alone();
    let camera = start(small(Codec::H264));
    let client = Client::log_in(camera.url(), Codec::H264, "udp", None);
    assert_numbered(&camera, &client.take(20));
}

#[test]
fn time_stamps_are_a_frame_interval_apart() {
    let _turn = alone();
    let rate = FrameRate { frames: 30_000, seconds: 1001 };
    let camera = start(StreamConfig { rate, ..small(Codec::Mjpeg) });
    let pictures = Client::connect(camera.url(), Codec::Mjpeg).take(20);
    // The first may have waited for PLAY. RTP counts in 1/90000 s: 11 us.
    for pair in pictures[1..].windows(2) {
        let frames = u64::from(pair[1].stamp.number - pair[0].stamp.number);
        let apart = pair[1].buffer.pts().zip(pair[0].buffer.pts()).map(|(later, earlier)| later - earlier);
        let expected = gst::ClockTime::from_nseconds(frames * 1_001_000_000 / 30);
        let apart = apart.expect("pictures have times");
        assert!(apart.nseconds().abs_diff(expected.nseconds()) < 25_000, "{apart} instead of {expected}");
    }
}

#[test]
fn bars_arrive_with_the_documented_colours_and_the_stated_colorimetry() {
    let _turn = alone();
    let cases = [
        (Codec::H264, Size::new(640, 360), Color::Bt601),
        (Codec::H264, Size::new(1280, 720), Color::Bt709),
        (Codec::H265, Size::new(640, 360), Color::Bt601),
        (Codec::Mjpeg, Size::new(641, 359), Color::Jpeg),
        (Codec::Vp8, Size::new(640, 360), Color::Bt601),
        (Codec::Vp9, Size::new(1280, 720), Color::Bt709),
        (Codec::Mpeg4, Size::new(640, 360), Color::Bt601),
    ];
    for (codec, size, color) in cases {
        let camera = start(StreamConfig { size, pattern: Pattern::Bars, ..small(codec) });
        println!("{codec:?} {size}");
        let picture = Client::connect(camera.url(), codec).take(5).pop().expect("five pictures");
        let whole = (size.width as usize, size.height as usize);
        for bar in 0..7 {
            // Between the two stamps and no closer to either than a coding block, so that neither rings into it.
            let at = (whole.0 * (2 * bar + 1) / 14, whole.1 * 45 / 100);
            let (found, expected) = (picture.yuv(at.0, at.1), color.encode(bars_rgb(at, whole)));
            let off = (0..3).map(|plane| found[plane].abs_diff(expected[plane])).max();
            assert!(off <= Some(4), "{codec:?} {size} bar {bar}: {found:?} instead of {expected:?}");
        }
        if codec != Codec::Mjpeg {
            assert_eq!(picture.info.colorimetry().to_string(), color.caps_field(), "{codec:?} {size}");
        }
    }
}

#[test]
fn the_right_password_is_let_in_and_the_wrong_one_is_not() {
    let _turn = alone();
    for scheme in [AuthScheme::Basic, AuthScheme::Digest] {
        let login = Login { scheme, user: "viewer".to_owned(), password: PASSWORD.to_owned().into() };
        let config = SimConfig { login: Some(login), ..SimConfig::with_stream(small(Codec::Mjpeg)) };
        let camera = SimServer::start(config).expect("the camera starts");
        assert!(!camera.url().contains("viewer"));
        let client = Client::log_in(camera.url(), Codec::Mjpeg, "tcp", Some(("viewer", PASSWORD)));
        assert_numbered(&camera, &client.take(3));
        drop(client);
        for wrong in [None, Some(("viewer", "p@ss:w/rd#%")), Some(("other", PASSWORD))] {
            let client = Client::log_in(camera.url(), Codec::Mjpeg, "tcp", wrong);
            let error = client.next().expect_err("nobody is let in without the password");
            let refused = error.matches(gst::ResourceError::NotAuthorized);
            assert!(refused, "{scheme:?} as {wrong:?}: {error}");
        }
    }
}

#[test]
fn the_size_changes_in_the_middle_of_a_session() {
    let _turn = alone();
    for codec in [Codec::H264, Codec::H265, Codec::Mjpeg, Codec::Vp8, Codec::Vp9] {
        let (before, after) = (Size::new(320, 240), Size::new(640, 360));
        let switches = vec![Switch { to: SwitchTo::Size(after), after: Duration::from_secs(2) }];
        let camera = start(StreamConfig { switches, ..small(codec) });
        let client = Client::connect(camera.url(), codec);
        let mut pictures = client.take(1);
        while pictures.iter().filter(|picture| picture.size() == after).count() < 20 {
            pictures.extend(client.take(1));
        }
        let second = pictures.iter().position(|picture| picture.size() == after).expect("the second size comes");
        assert!(second > 0 && pictures[..second].iter().all(|picture| picture.size() == before), "{codec:?}");
        assert!(pictures[second..].iter().all(|picture| picture.size() == after), "{codec:?}");
        assert_numbered(&camera, &pictures);
    }
}

/// The parameter sets in an access unit of a byte stream.
fn parameter_sets(bytes: &[u8], codec: Codec) -> BTreeSet<Vec<u8>> {
    let starts: Vec<usize> =
        bytes.windows(3).enumerate().filter(|(_, three)| *three == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let ends = starts.iter().skip(1).map(|next| next - 3).chain([bytes.len()]);
    let is_set = |header: u8| match codec {
        Codec::H265 => matches!(header >> 1 & 0x3f, 32..=34),
        _ => matches!(header & 0x1f, 7 | 8),
    };
    // A start code of four bytes leaves a zero behind the unit before it.
    let unit = |(start, end): (&usize, usize)| {
        let last = bytes[*start..end].iter().rposition(|byte| *byte != 0)?;
        Some(bytes[*start..=start + last].to_vec())
    };
    starts.iter().zip(ends).filter_map(unit).filter(|unit| is_set(unit[0])).collect()
}

#[test]
fn an_encoder_begins_anew_with_other_parameter_sets_in_the_middle_of_a_session() {
    let _turn = alone();
    gst::init().expect("GStreamer is installed");
    // H.264: both sets differ, in what a decoder must know; H.265: the set of the sequence alone.
    for (codec, different) in [(Codec::H264, 4), (Codec::H265, 4)] {
        let switches = ["1s:encoder", "2s:encoder"].map(|text| text.parse().expect("a change")).to_vec();
        let camera = start(StreamConfig { switches, ..small(codec) });
        let name = codec.name();
        let line = format!(
            "rtspsrc name=source protocols=tcp ! rtp{name}depay \
             ! video/x-{name},stream-format=byte-stream,alignment=au ! appsink name=sink sync=false"
        );
        let pipeline = gst::parse::launch(&line).expect("installed").downcast::<gst::Pipeline>().expect("a pipeline");
        pipeline.by_name("source").expect("named").set_property("location", camera.url());
        let sink = pipeline.by_name("sink").expect("named").downcast::<gst_app::AppSink>().expect("an appsink");
        pipeline.set_state(gst::State::Playing).expect("it starts");
        let (mut found, mut in_order) = (BTreeSet::new(), Vec::new());
        while in_order.len() < 3 {
            let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(20)).expect("an access unit");
            let bytes = sample.buffer().expect("bytes").map_readable().expect("readable");
            let sets = parameter_sets(&bytes, codec);
            if !sets.is_empty() && in_order.last() != Some(&sets) {
                in_order.push(sets.clone());
            }
            found.extend(sets);
        }
        pipeline.set_state(gst::State::Null).expect("it stops");
        assert_eq!(in_order[0], in_order[2], "{codec:?}: the first sets come back");
        assert_eq!(found.len(), different, "{codec:?}: {found:x?}");
    }
}

/// What a parser finds out about a stream before it is decoded.
#[derive(Debug, PartialEq)]
struct Found {
    profile: String,
    chroma: String,
    bits: u32,
    /// Slices of the first pictures, all alike.
    slices: usize,
    /// Whether pictures are sent in another order than they are shown.
    reordered: bool,
}

/// Slices in an access unit of H.264 or H.265 in a byte stream.
fn slices(unit: &[u8], codec: Codec) -> usize {
    let is_slice = |header: u8| match codec {
        Codec::H265 => matches!(header >> 1 & 0x3f, 0..=21),
        _ => matches!(header & 0x1f, 1 | 5),
    };
    unit.windows(4).filter(|bytes| bytes[..3] == [0, 0, 1] && is_slice(bytes[3])).count()
}

fn look(codec: Codec, encoding: Encoding) -> Found {
    gst::init().expect("GStreamer is installed");
    let camera = start(StreamConfig { encoding, ..small(codec) });
    let name = codec.name();
    let line = format!(
        "rtspsrc name=source protocols=tcp ! rtp{name}depay ! {name}parse \
         ! video/x-{name},stream-format=byte-stream,alignment=au ! appsink name=sink sync=false"
    );
    let pipeline = gst::parse::launch(&line).expect("installed").downcast::<gst::Pipeline>().expect("a pipeline");
    pipeline.by_name("source").expect("named").set_property("location", camera.url());
    let sink = pipeline.by_name("sink").expect("named").downcast::<gst_app::AppSink>().expect("an appsink");
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let pull = || sink.try_pull_sample(gst::ClockTime::from_seconds(20)).expect("an access unit");
    // The first ones may have lost their beginning while PLAY was being answered.
    let samples: Vec<_> = (0..20).map(|_| pull()).skip(5).collect();
    pipeline.set_state(gst::State::Null).expect("it stops");
    let caps = samples[0].caps().and_then(|caps| caps.structure(0)).expect("caps");
    let text = |field: &str| caps.get::<String>(field).unwrap_or_else(|_| panic!("{field} in {caps}"));
    let buffers = || samples.iter().filter_map(|sample| sample.buffer());
    let times: Vec<_> = buffers().map(|buffer| buffer.pts().expect("a time")).collect();
    let counts: BTreeSet<_> =
        buffers().map(|buffer| slices(&buffer.map_readable().expect("readable"), codec)).collect();
    assert_eq!(counts.len(), 1, "slices of the pictures: {counts:?}");
    Found {
        profile: text("profile"),
        chroma: text("chroma-format"),
        bits: caps.get("bit-depth-luma").expect("a depth"),
        slices: counts.first().copied().expect("one"),
        reordered: !times.is_sorted(),
    }
}

#[test]
fn encoders_do_what_is_asked_of_them() {
    let _turn = alone();
    let plain = Encoding { slices: Some(1), ..Encoding::default() };
    let found = |profile: &str, chroma: &str, bits| Found {
        profile: profile.to_owned(),
        chroma: chroma.to_owned(),
        bits,
        slices: 1,
        reordered: false,
    };
    let profile = |profile| Encoding { profile: Some(profile), ..plain };
    let samples = |chroma, depth| Encoding { chroma, depth, ..plain };
    let h264 = [
        (profile(Profile::Baseline), found("constrained-baseline", "4:2:0", 8)),
        (profile(Profile::Main), found("main", "4:2:0", 8)),
        (profile(Profile::High), found("high", "4:2:0", 8)),
        (Encoding { b_frames: 2, ..plain }, Found { reordered: true, ..found("main", "4:2:0", 8) }),
        (Encoding { slices: Some(4), ..plain }, Found { slices: 4, ..found("constrained-baseline", "4:2:0", 8) }),
        (Encoding { scan: Scan::Interlaced, ..plain }, found("main", "4:2:0", 8)),
        (samples(Chroma::C422, Depth::D8), found("high-4:2:2", "4:2:2", 8)),
        (samples(Chroma::C444, Depth::D8), found("high-4:4:4", "4:4:4", 8)),
        (samples(Chroma::C420, Depth::D10), found("high-10", "4:2:0", 10)),
        (samples(Chroma::C422, Depth::D10), found("high-4:2:2", "4:2:2", 10)),
    ];
    let plain = Encoding::default();
    let h265 = [
        (plain, found("main", "4:2:0", 8)),
        (Encoding { depth: Depth::D10, ..plain }, found("main-10", "4:2:0", 10)),
        (Encoding { b_frames: 2, ..plain }, Found { reordered: true, ..found("main", "4:2:0", 8) }),
    ];
    let cases = h264.map(|case| (Codec::H264, case)).into_iter().chain(h265.map(|case| (Codec::H265, case)));
    for (codec, (encoding, expected)) in cases {
        assert_eq!(look(codec, encoding), expected, "{codec:?} {encoding:?}");
    }
}

#[test]
fn every_slice_is_marked_when_asked_for() {
    let _turn = alone();
    let encoding = Encoding { slices: Some(3), markers: Markers::PerSlice, ..Encoding::default() };
    let camera = start(StreamConfig { encoding, ..small(Codec::H264) });
    // The depayloader takes each marker for the end of a picture.
    let line = "rtspsrc name=source protocols=tcp ! rtph264depay \
                ! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=sink sync=false";
    let pipeline = gst::parse::launch(line).expect("installed").downcast::<gst::Pipeline>().expect("a pipeline");
    pipeline.by_name("source").expect("named").set_property("location", camera.url());
    let sink = pipeline.by_name("sink").expect("named").downcast::<gst_app::AppSink>().expect("an appsink");
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let pull = || sink.try_pull_sample(gst::ClockTime::from_seconds(20)).expect("a slice");
    let samples: Vec<_> = (0..30).map(|_| pull()).skip(6).collect();
    pipeline.set_state(gst::State::Null).expect("it stops");
    for sample in &samples {
        let bytes = sample.buffer().expect("bytes").map_readable().expect("readable");
        assert_eq!(slices(&bytes, Codec::H264), 1);
    }
}

#[test]
fn all_clients_of_a_mount_see_the_same_frames() {
    let _turn = alone();
    let camera = start(small(Codec::Mjpeg));
    let clients = [Client::connect(camera.url(), Codec::Mjpeg), Client::connect(camera.url(), Codec::Mjpeg)];
    let seen = clients.each_ref().map(|client| client.take(20));
    let numbers = seen.each_ref().map(|pictures| pictures.iter().map(|picture| picture.stamp).collect::<Vec<_>>());
    let common: Vec<_> = numbers[0].iter().filter(|stamp| numbers[1].contains(stamp)).collect();
    assert!(common.len() >= 5, "the same frame has the same stamp for all: {numbers:?}");
}

#[test]
fn the_camera_goes_on_while_nobody_watches() {
    let _turn = alone();
    let camera = start(small(Codec::H264));
    let first = Client::connect(camera.url(), Codec::H264).take(5);
    let again = Client::connect(camera.url(), Codec::H264).take(5);
    assert!(again[0].stamp.number > first[4].stamp.number);
    assert_eq!(again[0].stamp.run_id, first[0].stamp.run_id);
}

#[test]
fn each_mount_is_a_stream_of_its_own() {
    let _turn = alone();
    let streams = [("/wide", Codec::H264, (320, 180)), ("/still", Codec::Mjpeg, (161, 121))];
    let stream = |(mount, codec, (width, height)): (&str, Codec, (u32, u32))| StreamConfig {
        mount: mount.to_owned(),
        size: Size::new(width, height),
        ..small(codec)
    };
    let config = SimConfig { streams: streams.map(stream).to_vec(), ..SimConfig::default() };
    let camera = SimServer::start(config).expect("the camera starts");
    for (url, (mount, codec, (width, height))) in camera.urls().iter().zip(streams) {
        assert!(url.ends_with(mount));
        assert!(Client::connect(url, codec).take(3).iter().all(|picture| picture.size() == Size::new(width, height)));
    }
    let elsewhere = format!("rtsp://127.0.0.1:{}/elsewhere", camera.port());
    let error = Client::connect(&elsewhere, Codec::H264).next().expect_err("there is no such mount");
    assert!(error.matches(gst::ResourceError::NotFound), "{error}");
}

#[test]
fn a_port_in_use_is_named() {
    let _turn = alone();
    let first = start(small(Codec::Mjpeg));
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], first.port()));
    let error = SimServer::start(SimConfig { listen, ..SimConfig::with_stream(small(Codec::Mjpeg)) });
    let error = error.expect_err("the port is taken");
    assert!(matches!(error, SimError::Listen { refusal: ListenRefusal::InUse, .. }), "{error:?}");
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

fn own_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

#[test]
fn stopping_with_clients_connected_leaves_no_thread_behind() {
    let _turn = alone();
    let cycle = || {
        let camera = start(small(Codec::Mjpeg));
        let clients = ["tcp", "udp"].map(|transport| Client::log_in(camera.url(), Codec::Mjpeg, transport, None));
        clients.iter().for_each(|client| drop(client.take(2)));
        camera.stop().expect("the camera stops in time");
        let left: BTreeSet<_> =
            own_threads().into_iter().filter(|name| ["sim-rtsp", "sim-feed"].contains(&name.as_str())).collect();
        assert!(left.is_empty(), "{left:?}");
    };
    (0..3).for_each(|_| cycle());
    let before = own_threads().len();
    (0..6).for_each(|_| cycle());
    // GLib keeps a few idle threads of its pools; what counts is that cycles do not add any.
    let after = own_threads();
    assert!(after.len() <= before + 3, "{before} threads became {}: {after:?}", after.len());
}

/// `camring sim` as a child process, killed when dropped.
struct Sim {
    child: Child,
    line: String,
}

impl Sim {
    fn spawn(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_camring"));
        command.args(["sim", "--listen", "127.0.0.1:0", "--size", "320x240"]).args(options);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line or the end");
        Self { child, line: line.trim_end().to_owned() }
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status.code();
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("camring sim is still there after {DEADLINE:?}");
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_command_prints_its_url_and_ends_well_on_a_signal() {
    let _turn = alone();
    for signal in ["-TERM", "-INT"] {
        let mut sim = Sim::spawn(&[]);
        assert_numbers_rise(&Client::connect(&sim.line, Codec::H264).take(3));
        let pid = sim.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
        assert_eq!(sim.exit_code(), Some(0), "{signal}");
    }
}

fn assert_numbers_rise(pictures: &[Picture]) {
    assert!(pictures.windows(2).all(|pair| pair[0].stamp.number < pair[1].stamp.number));
}

#[test]
fn the_command_ends_with_its_standard_input_when_asked_to() {
    let _turn = alone();
    let mut sim = Sim::spawn(&["--json", "--until-stdin-closes", "--codec", "mjpeg"]);
    let line: serde_json::Value = serde_json::from_str(&sim.line).expect("one line of JSON");
    assert_eq!(line["pid"], sim.child.id());
    assert_eq!((&line["codec"], &line["width"], &line["height"]), (&"mjpeg".into(), &320.into(), &240.into()));
    let url = line["url"].as_str().expect("a URL");
    assert_numbers_rise(&Client::connect(url, Codec::Mjpeg).take(3));
    drop(sim.child.stdin.take());
    assert_eq!(sim.exit_code(), Some(0));
}

fn refusal(options: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_camring")).arg("sim").args(options).stdin(Stdio::null()).output();
    let output = output.expect("the binary starts");
    assert!(output.stdout.is_empty(), "a camera that cannot start prints no URL");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn the_command_says_why_it_cannot_start() {
    let _turn = alone();
    let (code, text) = refusal(&["--size", "641x359"]);
    assert_eq!(code, Some(2));
    assert_eq!(text, "camring: h264 needs an even width and height, not 641x359; use an even size or --codec mjpeg\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let (code, text) = refusal(&["--listen", &address, "--size", "320x240"]);
    assert_eq!(code, Some(69));
    assert!(text.starts_with(&format!("camring: cannot listen on {address}: ")), "{text}");
    assert!(text.ends_with("; stop the process that has the port, or use port 0 for any free one\n"), "{text}");
    let (code, text) = refusal(&["--user", "viewer", "--password-file", "/nonexistent/password"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("/nonexistent/password"), "{text}");
    assert_eq!(refusal(&["--user", "viewer"]).0, Some(2));
    assert_eq!(refusal(&["--auth", "basic"]).0, Some(2));
}

#[test]
fn the_command_takes_its_password_from_a_file_or_standard_input_only() {
    let _turn = alone();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), format!("{PASSWORD}\n")).expect("writable");
    let path = file.path().to_str().expect("UTF-8");
    let sim = Sim::spawn(&["--codec", "mjpeg", "--user", "viewer", "--password-file", path]);
    let client = Client::log_in(&sim.line, Codec::Mjpeg, "tcp", Some(("viewer", PASSWORD)));
    assert_numbers_rise(&client.take(3));
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", sim.child.id())).expect("our own child");
    assert!(!arguments.contains(PASSWORD) && !sim.line.contains(PASSWORD));
}
