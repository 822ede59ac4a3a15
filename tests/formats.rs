//! Formats: every codec, size and colour against an independent decode; sizes that change; sources without a camera.
#![cfg(feature = "sim")]

mod system;

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use camring::sim::picture::Color as SimColor;
use camring::sim::{Codec, Size, stamp};
use camring_ring::{Frame, FrameFlags, Generation, Ring, State};
use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use system::colours::{EXACT, LOSSY, assert_bars_of, assert_described};
use system::join::from_the_second_keyframe;
use system::net::Net;
use system::turns::Turns;
use system::{Daemon, PATIENCE, Shm, Sim, amount, camring, is_full, measured, stamp_of, until};

/// Three cameras at a time, each with a decoder or two: they wait for keyframes and encoders more than they work.
static TURNS: Turns = Turns::of(3);

/// Pictures that a reference keeps, so that a frame of the ring finds its own.
const KEPT: usize = 48;

/// A plain client of the same stream: depayloader, parser, decoder; the decoder's own planes, nothing converted.
struct Reference {
    pipeline: gst::Pipeline,
    pictures: Arc<Mutex<VecDeque<(u32, gst::Sample)>>>,
}

impl Reference {
    fn play(url: &str, codec: Codec) -> Self {
        gst::init().unwrap();
        let tail = match codec {
            Codec::H264 => "rtph264depay ! h264parse ! avdec_h264 name=decoder max-threads=1",
            Codec::H265 => "rtph265depay ! h265parse ! avdec_h265 name=decoder max-threads=1",
            Codec::Mjpeg => "rtpjpegdepay ! jpegdec name=decoder",
            Codec::Vp8 => "rtpvp8depay ! vp8dec name=decoder",
            Codec::Vp9 => "rtpvp9depay ! vp9parse ! vp9dec name=decoder",
            Codec::Mpeg4 => "rtpmp4vdepay ! mpeg4videoparse ! avdec_mpeg4 name=decoder max-threads=1",
            Codec::Theora => "rtptheoradepay ! theoradec name=decoder",
        };
        let line = format!("rtspsrc name=source protocols=tcp ! {tail} ! appsink name=sink sync=false");
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        pipeline.by_name("source").unwrap().set_property("location", url);
        from_the_second_keyframe(&pipeline.by_name("decoder").unwrap());
        let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        let pictures = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&pictures);
        let keep = move |sink: &gst_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let number = painted_number(&sample);
            let mut kept = kept.lock().unwrap();
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back((number, sample));
            Ok(gst::FlowSuccess::Ok)
        };
        sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(keep).build());
        pipeline.set_state(gst::State::Playing).unwrap();
        let reference = Self { pipeline, pictures };
        until("the reference client has a picture", || reference.newest().is_some());
        reference
    }

    fn newest(&self) -> Option<u32> {
        self.pictures.lock().unwrap().back().map(|(number, _)| *number)
    }

    /// The picture with this number; waits for it when it is still on its way. `None`: this client did not get it.
    fn picture(&self, number: u32) -> Option<gst::Sample> {
        until("the reference client is as far as the ring", || self.newest() >= Some(number));
        let pictures = self.pictures.lock().unwrap();
        pictures.iter().find(|(painted, _)| *painted == number).map(|(_, sample)| sample.clone())
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

fn info_of(sample: &gst::Sample) -> VideoInfo {
    VideoInfo::from_caps(sample.caps().unwrap()).unwrap()
}

fn painted_number(sample: &gst::Sample) -> u32 {
    let info = info_of(sample);
    let picture = VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
    let stride = picture.plane_stride()[0].unsigned_abs() as usize;
    let luma = picture.plane_data(0).unwrap();
    let deep = info.format_info().depth()[0] > 8;
    let value = |x: u32, y: u32| {
        let (x, y) = (x as usize, y as usize);
        if deep { eight_bits(luma, y * stride + x * 2) as u8 } else { luma[y * stride + x] }
    };
    stamp::read(info.width(), info.height(), value).unwrap().number
}

/// A sample of 10 bits on the scale of 8.
fn eight_bits(bytes: &[u8], at: usize) -> f64 {
    f64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])) / 4.0
}

/// Blue, green and red of one Y'CbCr value, 0..=255, by the definition of ITU-R BT.601 and BT.709.
fn bgr(yuv: [f64; 3], color: SimColor) -> [f64; 3] {
    let (kr, kb) = if color == SimColor::Bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
    let (base, luma_range, chroma_range) =
        if color == SimColor::Jpeg { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
    let y = (yuv[0] - base) / luma_range;
    let [cb, cr] = [yuv[1], yuv[2]].map(|value| (value - 128.0) / chroma_range);
    let (red, blue) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
    let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
    [blue, green, red].map(|value| (value * 255.0).clamp(0.0, 255.0))
}

/// Whether an encoder may produce this value; decoders overshoot at hard edges, where converters clip in their own way.
fn is_legal(yuv: [f64; 3], color: SimColor) -> bool {
    let legal = |value: f64, most: f64| (16.0..=most).contains(&value);
    color == SimColor::Jpeg || (legal(yuv[0], 235.0) && yuv[1..].iter().all(|value| legal(*value, 240.0)))
}

/// How far the ring's pixels are from the reference: mean, and greatest of the legal values, of 255.
fn differences(pixels: &[u8], stride: usize, sample: &gst::Sample, color: SimColor) -> (f64, f64) {
    let info = info_of(sample);
    let picture = VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
    let (width, height) = (info.width() as usize, info.height() as usize);
    let format = info.format_info();
    assert!(format.is_yuv() && format.n_components() == 3 && format.depth()[0] <= 10, "{:?}", info.format());
    let (deep, woven) = (format.depth()[0] == 10, picture.is_interlaced());
    let component = |number: u32| {
        let at = number as usize;
        let data = &picture.comp_data(number).unwrap();
        (
            *data,
            info.comp_stride(number as u8) as usize,
            format.pixel_stride()[at] as usize,
            format.w_sub()[at],
            format.h_sub()[at],
        )
    };
    let components = [0, 1, 2].map(component);
    let (mut sum, mut greatest) = (0.0, 0.0_f64);
    for y in 0..height {
        let row = &pixels[y * stride..][..width * 3];
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            let yuv = components.map(|(data, stride, step, right, down)| {
                // Chroma rows of woven fields belong to one field each.
                let row = if woven && down == 1 { y / 4 * 2 + y % 2 } else { y >> down };
                let at = row * stride + (x >> right) * step;
                if deep { eight_bits(data, at) } else { f64::from(data[at]) }
            });
            for (found, expected) in pixel.iter().zip(bgr(yuv, color)) {
                let difference = (f64::from(*found) - expected).abs();
                sum += difference;
                if is_legal(yuv, color) {
                    greatest = greatest.max(difference);
                }
            }
        }
    }
    (sum / (width * height * 3) as f64, greatest)
}

fn options(codec: Codec, size: Size, fps: &str) -> Vec<String> {
    ["--codec", codec.name(), "--size", &size.to_string(), "--fps", fps].map(str::to_owned).to_vec()
}

fn start(options: &[impl AsRef<str>]) -> Sim {
    Sim::spawn(&options.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// Compares whole pictures of the ring with the reference's pictures of the same number.
fn assert_equal_to_a_reference_decode(codec: Codec, size: Size, fps: &str) {
    assert_equal_when_encoded(codec, size, fps, &[]);
}

/// The same with more options of the simulated camera.
fn assert_equal_when_encoded(codec: Codec, size: Size, fps: &str, encoding: &[&str]) {
    let _turn = TURNS.take();
    let mut options = options(codec, size, fps);
    options.extend(encoding.iter().map(|option| (*option).to_owned()));
    let (shm, sim) = (Shm::new(), start(&options));
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let reference = Reference::play(&sim.url, codec);
    let ring = shm.attach("cam");
    let color = size.color(codec);
    let mut pixels = Vec::new();
    let wanted = amount(4, 100);
    let (mut compared, mut mean, mut greatest) = (0, 0.0_f64, 0.0_f64);
    let deadline = Instant::now() + PATIENCE;
    while compared < wanted {
        assert!(Instant::now() < deadline, "only {compared} pictures could be compared");
        let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        assert_described(&frame, &pixels, size, color);
        let number = stamp_of(&frame, &pixels).number;
        let Some(sample) = reference.picture(number) else { continue };
        let stride = frame.meta.geometry.plane_strides[0] as usize;
        let (this_mean, this_greatest) = differences(&pixels, stride, &sample, color);
        assert!(this_mean <= 1.0, "picture {number} is {this_mean:.3} of 255 away from the reference in the mean");
        assert!(this_greatest <= 1.5, "a value of picture {number} is {this_greatest:.2} away from the reference");
        (mean, greatest) = (mean.max(this_mean), greatest.max(this_greatest));
        compared += 1;
    }
    let word = options[1..2].iter().chain(&options[6..]).map(String::as_str).collect::<Vec<_>>().join(" ");
    measured(format!("{word} {size}: {compared} pictures, mean error {mean:.3}, greatest {greatest:.2} of 255"));
}

#[test]
fn mjpeg_of_odd_size_is_equal_to_a_reference_decode() {
    assert_equal_to_a_reference_decode(Codec::Mjpeg, Size::new(641, 359), "25");
}

#[test]
fn h264_of_1366_columns_is_equal_to_a_reference_decode() {
    assert_equal_to_a_reference_decode(Codec::H264, Size::new(1366, 768), "10");
}

#[test]
fn h265_of_1366_columns_is_equal_to_a_reference_decode() {
    assert_equal_to_a_reference_decode(Codec::H265, Size::new(1366, 768), "5");
}

#[test]
fn h264_of_bt709_is_equal_to_a_reference_decode() {
    assert_equal_to_a_reference_decode(Codec::H264, Size::new(1280, 720), "15");
}

#[test]
fn h264_of_bt601_is_equal_to_a_reference_decode() {
    assert_equal_to_a_reference_decode(Codec::H264, Size::new(640, 360), "25");
}

#[test]
fn pictures_of_ten_bits_are_equal_to_a_reference_decode() {
    let size = Size::new(642, 362);
    assert_equal_when_encoded(Codec::H264, size, "15", &["--depth", "10"]);
    assert_equal_when_encoded(Codec::H264, size, "15", &["--depth", "10", "--chroma", "422"]);
    assert_equal_when_encoded(Codec::H265, size, "10", &["--depth", "10"]);
}

#[test]
fn pictures_with_more_colour_samples_are_equal_to_a_reference_decode() {
    let size = Size::new(642, 362);
    assert_equal_when_encoded(Codec::H264, size, "15", &["--chroma", "422"]);
    assert_equal_when_encoded(Codec::H264, size, "15", &["--chroma", "444"]);
}

#[test]
fn interlaced_pictures_are_equal_to_a_reference_decode() {
    assert_equal_when_encoded(Codec::H264, Size::new(640, 360), "15", &["--interlaced"]);
}

#[test]
fn vp8_vp9_and_mpeg4_are_equal_to_a_reference_decode() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Mpeg4] {
        assert_equal_to_a_reference_decode(codec, Size::new(641, 359), "15");
    }
}

/// Widths that are no multiple of 4, 8 or 16.
#[test]
fn narrow_and_odd_widths_are_not_skewed() {
    assert_equal_to_a_reference_decode(Codec::H264, Size::new(854, 480), "15");
    assert_equal_to_a_reference_decode(Codec::Mjpeg, Size::new(405, 303), "15");
}

/// What a reader saw of a change of size.
struct Change {
    before: Frame,
    after: Frame,
}

/// Reads on one handle across the change, from a frame of the old size on; every frame on the way must be whole and in order.
fn read_across(ring: &Ring, mut before: Frame, old: Size, new: Size) -> Change {
    let mut pixels = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no frame of {new} came");
        let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        let number = stamp_of(&frame, &pixels).number;
        assert!(frame.meta.seq > before.meta.seq, "frame {} after {}", frame.meta.seq, before.meta.seq);
        assert_eq!(frame.meta.writer_epoch, before.meta.writer_epoch, "painted {number}: a restart");
        let (geometry, size) = (&frame.meta.geometry, size_of(&frame));
        assert!(size == old || size == new, "a frame of {size}");
        assert_eq!(geometry.plane_strides[0], size.width * 3);
        if size == new {
            return Change { before, after: frame };
        }
        before = frame;
    }
}

fn size_of(frame: &Frame) -> Size {
    Size::new(frame.meta.geometry.width, frame.meta.geometry.height)
}

/// A camera that changes its size in the middle of a session, and a reader that was there before.
fn follow_a_change(old: Size, new: Size, mut between: impl FnMut(&Shm, &Ring)) -> Change {
    let (from, to) = (old.to_string(), new.to_string());
    // A busy machine may not have shown the first picture when the camera changes already; then it is to change later.
    for after in ["2s", "6s", "20s"] {
        let options = ["--size", &from, "--fps", "10", "--switch-size", &to, "--switch-after", after];
        let (shm, sim) = (Shm::new(), Sim::spawn(&options));
        let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
        let ring = shm.attach("cam");
        let first = ring.next(&mut Vec::new(), Some(PATIENCE)).unwrap();
        if size_of(&first) == old {
            between(&shm, &ring);
            return check_change(&shm, &ring, read_across(&ring, first, old, new));
        }
    }
    panic!("no frame of {old} was seen");
}

fn check_change(shm: &Shm, ring: &Ring, change: Change) -> Change {
    let new = size_of(&change.after);
    let (before, after) = (&change.before.meta, &change.after.meta);
    assert_eq!(after.geometry_epoch, before.geometry_epoch + 1);
    // A reader on a busy machine may miss the very frame that carries the flag.
    assert!(
        after.flags.contains(FrameFlags::GEOMETRY_CHANGED) || change.after.skipped > 0,
        "the first frame of {new} says {:?}",
        after.flags.words().collect::<Vec<_>>()
    );
    assert!(!before.flags.contains(FrameFlags::GEOMETRY_CHANGED));
    let stats = ring.stats();
    assert_eq!(stats.resets, 0, "{stats:?}");
    // The simulated camera may have paused: on a busy machine its encoder takes seconds to begin anew.
    until("the camera is live", || ring.status().state == State::Live);
    assert_eq!(shm.files(), ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"]);
    change
}

#[test]
fn a_reader_follows_a_change_to_a_larger_size() {
    let _turn = TURNS.take();
    let mut old_file = None;
    let mut picture = Vec::new();
    let mut painted = None;
    let change = follow_a_change(Size::new(1280, 720), Size::new(1920, 1080), |shm, ring| {
        let file = std::fs::File::open(shm.path().join("camring.d/cam")).unwrap();
        old_file = Some((file.metadata().unwrap().len(), file));
        let frame = ring.latest(&mut picture).unwrap();
        painted = Some((frame, stamp_of(&frame, &picture)));
    });
    assert_ne!(change.before.generation, change.after.generation);
    // Whoever has the old generation mapped must never touch a page that is not there.
    let (len, file) = old_file.unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.nlink()), (len, 0));
    let (frame, stamp) = painted.unwrap();
    assert_eq!(stamp_of(&frame, &picture), stamp);
}

#[test]
fn a_change_to_a_smaller_size_stays_in_the_ring() {
    let _turn = TURNS.take();
    let change = follow_a_change(Size::new(1920, 1080), Size::new(640, 360), |_, _| {});
    assert_eq!(change.before.generation, change.after.generation);
    assert_ne!(change.after.generation, Generation::default());
}

/// Samples the middle of every bar and compares with the documented colours.
fn assert_bars(codec: Codec, size: Size) {
    let options = [&options(codec, size, "10")[..], &["--pattern".to_owned(), "bars".to_owned()]].concat();
    let (shm, sim) = (Shm::new(), start(&options));
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let mut pixels = Vec::new();
    let frame = shm.attach("cam").next(&mut pixels, Some(PATIENCE)).unwrap();
    assert_bars_of(&frame, &pixels, EXACT, &format!("{codec:?}"));
}

#[test]
fn colour_bars_have_their_documented_colours() {
    let _turn = TURNS.take();
    assert_bars(Codec::Mjpeg, Size::new(1920, 1080));
    assert_bars(Codec::H264, Size::new(1024, 576));
    assert_bars(Codec::H264, Size::new(1920, 1080));
}

/// A camera of a configuration file, live; `check` reads on.
fn with_configured(camera: &str, check: impl FnOnce(&Ring)) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("camring.toml");
    std::fs::write(&file, camera).unwrap();
    let shm = Shm::new();
    let _daemon = Daemon::spawn_config(&shm, "cam", &file);
    check(&shm.attach("cam"));
}

#[test]
fn a_test_source_is_live_and_marked_synthetic() {
    let _turn = TURNS.take();
    let camera = "[camera.cam]\ntest = { pattern = \"smpte\", size = \"640x360\", fps = 10 }\n";
    with_configured(camera, |ring| {
        let mut pixels = Vec::new();
        let mut last = 0;
        for _ in 0..5 {
            let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
            let geometry = &frame.meta.geometry;
            assert_eq!((geometry.width, geometry.height, geometry.plane_strides[0]), (640, 360, 1920));
            assert!(frame.meta.flags.contains(FrameFlags::SYNTHETIC));
            assert!(frame.meta.seq.0 > last);
            last = frame.meta.seq.0;
        }
        until("the state is live", || ring.status().state == State::Live);
    });
}

#[test]
fn a_file_plays_in_a_loop_and_is_marked_synthetic() {
    let _turn = TURNS.take();
    const PICTURES: u64 = 15;
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mkv");
    let made = Command::new("gst-launch-1.0")
        .args(["-q", "videotestsrc", &format!("num-buffers={PICTURES}"), "!"])
        .args(["video/x-raw,width=320,height=240,framerate=15/1", "!", "x264enc", "key-int-max=5", "!"])
        .args(["h264parse", "!", "matroskamux", "!", "filesink", &format!("location={}", clip.display())])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success(), "gst-launch-1.0: {made}");
    with_configured(&format!("[camera.cam]\nfile = \"{}\"\n", clip.display()), |ring| {
        let mut pixels = Vec::new();
        let (mut last, mut last_pts_ns) = (0, i64::MIN);
        while last <= 3 * PICTURES {
            let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
            assert!(frame.meta.flags.contains(FrameFlags::SYNTHETIC));
            assert_eq!((frame.meta.geometry.width, frame.meta.geometry.height), (320, 240));
            assert!(frame.meta.seq.0 > last && frame.meta.pts_ns > last_pts_ns, "frame {}", frame.meta.seq);
            (last, last_pts_ns) = (frame.meta.seq.0, frame.meta.pts_ns);
        }
        assert_eq!(ring.status().reconnects, [], "a loop is no new session");
        until("the state is live", || ring.status().state == State::Live);
    });
}

/// One row of the matrix: what a camera sends.
struct Row {
    options: &'static [&'static str],
    size: Size,
    fps: &'static str,
}

/// One column: the way that packets take. The cable leads from one network namespace to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Column {
    Tcp,
    Udp,
    Http,
    Rtsps,
    Multicast,
}

const COLUMNS: [Column; 5] = [Column::Tcp, Column::Udp, Column::Http, Column::Rtsps, Column::Multicast];

impl Column {
    fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Rtsps => "rtsps",
            Self::Multicast => "multicast",
        }
    }
}

const fn row(options: &'static [&'static str]) -> Row {
    Row { options, size: Size::new(320, 240), fps: "25" }
}

const fn sized(codec: &'static [&'static str], width: u32, height: u32, fps: &'static str) -> Row {
    Row { options: codec, size: Size::new(width, height), fps }
}

/// Codecs and their kinds at a small size, then sizes.
const MATRIX: &[Row] = &[
    row(&["--profile", "baseline"]),
    row(&["--profile", "main"]),
    row(&["--profile", "high"]),
    row(&["--b-frames", "2"]),
    row(&["--slices", "4"]),
    row(&["--slices", "3", "--mark-slices"]),
    row(&["--interlaced"]),
    row(&["--chroma", "422"]),
    row(&["--chroma", "444"]),
    row(&["--depth", "10"]),
    row(&["--depth", "10", "--chroma", "422"]),
    row(&["--depth", "10", "--chroma", "444"]),
    row(&["--codec", "h265"]),
    row(&["--codec", "h265", "--depth", "10"]),
    row(&["--codec", "h265", "--b-frames", "2"]),
    row(&["--codec", "mjpeg"]),
    row(&["--codec", "mjpeg", "--chroma", "422"]),
    row(&["--codec", "vp8"]),
    row(&["--codec", "vp9"]),
    row(&["--codec", "mpeg4"]),
    sized(&["--codec", "mjpeg"], 641, 359, "25"),
    sized(&["--codec", "vp8"], 641, 359, "25"),
    sized(&["--codec", "h264"], 720, 1280, "10"),
    sized(&["--codec", "h264"], 1920, 1080, "10"),
    sized(&["--codec", "h264"], 2560, 1440, "5"),
    sized(&["--codec", "h264"], 3840, 2160, "2"),
    sized(&["--codec", "h265"], 1920, 1080, "5"),
    sized(&["--codec", "mjpeg"], 3840, 2160, "2"),
];

/// Frames of a cell in the short form, and the time that a cell is read in the full form.
const CELL_FRAMES: u32 = 4;
const CELL_TIME: Duration = Duration::from_secs(10);

/// The rows of this part under `scripts/soak`, else all.
fn rows_of_this_part() -> impl Iterator<Item = &'static Row> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    let (part, parts) = if is_full() { (number("CAMRING_SOAK_PART"), number("CAMRING_SOAK_PARTS")) } else { (1, 1) };
    MATRIX.iter().enumerate().filter(move |(index, _)| index % parts == part - 1).map(|(_, row)| row)
}

impl Row {
    /// H.264 takes every way in `tests/transports.rs` and `tests/tls.rs`; of the others the suite has a few.
    fn columns(&self) -> &'static [Column] {
        const SHORT: [&[&str]; 3] = [&["--codec", "h265"], &["--codec", "mjpeg"], &["--codec", "vp9"]];
        if is_full() || (SHORT.contains(&self.options) && self.size.width == 320) { &COLUMNS } else { &COLUMNS[..2] }
    }

    fn start(&self, column: Column, cable: Option<&[Net; 2]>) -> Sim {
        let size = self.size.to_string();
        let mut options = [self.options, &["--pattern", "bars", "--size", &size, "--fps", self.fps]].concat();
        if !self.options.contains(&"mjpeg") {
            // What an encoder loses is not what is looked for.
            options.extend(["--bitrate", "6M"]);
        }
        match (column, cable) {
            (Column::Rtsps, _) => Sim::spawn(&[&options[..], &["--tls-certificate", PEM]].concat()),
            (Column::Multicast, Some([camera, _])) => {
                Sim::spawn_at(camera, "10.77.0.1", &[&options[..], &["--multicast", "239.255.42.1:5600"]].concat())
            }
            _ => Sim::spawn(&options),
        }
    }

    /// Reads one cell: numbers rise, both stamps of each picture agree, the bars have their colours.
    fn read(&self, shm: &Shm, column: Column) -> String {
        let what = format!("{} {} {}", column.word(), self.options.join(" "), self.size);
        let ring = shm.attach(column.word());
        let lossy = self.options.iter().any(|option| ["mjpeg", "vp8", "vp9", "mpeg4"].contains(option));
        let tolerance = if lossy { LOSSY } else { EXACT };
        let mut pixels = Vec::new();
        let (mut frames, mut last, mut run_id) = (0, None, None);
        let mut until = None;
        while frames < CELL_FRAMES || until.is_some_and(|until| Instant::now() < until) {
            let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap_or_else(|error| panic!("{what}: {error}"));
            let geometry = &frame.meta.geometry;
            assert_eq!((geometry.width, geometry.height), (self.size.width, self.size.height), "{what}");
            let stamp = stamp_of(&frame, &pixels);
            assert!(last < Some(stamp.number), "{what}: number {} after {last:?}", stamp.number);
            assert_eq!(*run_id.get_or_insert(stamp.run_id), stamp.run_id, "{what}");
            assert_bars_of(&frame, &pixels, tolerance, &what);
            let interlaced = self.options.contains(&"--interlaced");
            assert_eq!(frame.meta.flags.contains(FrameFlags::INTERLACED), interlaced, "{what}");
            last = Some(stamp.number);
            frames += 1;
            until = until.or_else(|| is_full().then(|| Instant::now() + CELL_TIME));
        }
        format!("{what}: {frames} frames")
    }

    /// Starts a daemon for one cell, and reads it.
    fn cell(&self, sim: &Sim, column: Column, cable: Option<&[Net; 2]>) -> String {
        let (word, file) = (column.word(), tempfile::NamedTempFile::with_suffix(".toml").unwrap());
        let transport = if column == Column::Rtsps { format!("tcp\"\ntls.ca = \"{PEM}") } else { word.to_owned() };
        let text = format!("[camera.{word}]\nurl = \"{}\"\ntransport = \"{transport}\"\n", sim.url);
        std::fs::write(file.path(), text).unwrap();
        let shm = Shm::new();
        let mut command = match (column, cable) {
            (Column::Multicast, Some([_, there])) => there.command(env!("CARGO_BIN_EXE_camring")),
            _ => camring(),
        };
        command.args(["run", word, "--config", file.path().to_str().unwrap(), "--shm-dir"]).arg(shm.path());
        let daemon = Daemon::spawn_command(command, None);
        if self.options.contains(&"--mark-slices") {
            // Until it is known what this camera does, its slices count as pictures.
            until("the camera is live as one that marks slices", || {
                let log = daemon.log();
                log.split_once("MARKER_PER_SLICE").is_some_and(|(_, since)| since.contains("state=live"))
            });
        }
        self.read(&shm, column)
    }
}

/// The certificate of the encrypted cameras.
const PEM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/test-camera.pem");

#[test]
fn every_codec_and_size_has_its_pictures_and_colours_over_every_transport() {
    let _turn = TURNS.take();
    let cable = Net::new().and_then(|camera| camera.beside().map(|there| [camera, there]));
    for row in rows_of_this_part() {
        let is_here = |column: &&Column| **column != Column::Multicast || cable.is_some();
        let columns: Vec<Column> = row.columns().iter().filter(is_here).copied().collect();
        // The three that share a camera share its encoder, too.
        let own = |column: &Column| matches!(column, Column::Tcp | Column::Rtsps | Column::Multicast);
        let sims: Vec<(Column, Sim)> = columns
            .iter()
            .filter(|column| own(column))
            .map(|column| (*column, row.start(*column, cable.as_ref())))
            .collect();
        std::thread::scope(|scope| {
            let cells = columns.iter().map(|column| {
                let (_, sim) = sims.iter().find(|(of, _)| of == column).unwrap_or(&sims[0]);
                let cable = cable.as_ref();
                scope.spawn(move || row.cell(sim, *column, cable))
            });
            for cell in cells.collect::<Vec<_>>() {
                measured(cell.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
    }
}

#[test]
fn interlaced_pictures_are_flagged_or_made_whole_as_asked_for() {
    let _turn = TURNS.take();
    let sim = start(&["--interlaced", "--size", "640x360", "--fps", "15"]);
    for method in ["off", "linear", "yadif"] {
        let camera = format!("[camera.cam]\nurl = \"{}\"\ndeinterlace = \"{method}\"\n", sim.url);
        with_configured(&camera, |ring| {
            let (mut pixels, mut last, mut timed) = (Vec::new(), None, false);
            let (mut read, deadline) = (0, Instant::now() + PATIENCE);
            // The camera's own time comes with its first report, seconds later.
            while read < 10 || !timed {
                assert!(Instant::now() < deadline, "{method}: {read} frames, the camera's time: {timed}");
                let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
                let number = stamp_of(&frame, &pixels).number;
                assert!(last < Some(number), "{method}: number {number} after {last:?}");
                let meta = &frame.meta;
                assert_eq!(meta.flags.contains(FrameFlags::INTERLACED), method == "off", "{method}");
                assert!(meta.rtp_timestamp != 0, "{method}: the arrival of picture {number} was not found");
                timed = meta.source_unix_ns.is_some();
                (last, read) = (Some(number), read + 1);
            }
        });
    }
}

/// The stamp of a picture that was scaled to half its width and height.
fn stamp_of_half(frame: &Frame, pixels: &[u8]) -> stamp::Stamp {
    let geometry = &frame.meta.geometry;
    let stride = geometry.plane_strides[0] as usize;
    let value = |x: u32, y: u32| pixels[y as usize / 2 * stride + x as usize / 2 * 3 + 1];
    stamp::read(geometry.width * 2, geometry.height * 2, value)
        .unwrap_or_else(|error| panic!("frame {}: {error}", frame.meta.seq))
}

fn assert_half(frame: &Frame, pixels: &[u8]) -> u32 {
    let meta = &frame.meta;
    assert!(meta.flags.contains(FrameFlags::SCALED));
    assert_eq!((meta.geometry.width, meta.geometry.height, meta.source_size), (640, 360, (1280, 720)));
    assert_eq!((meta.scale, meta.offset), ((0.5, 0.5), (0.0, 0.0)));
    assert_bars_of(frame, pixels, LOSSY, "half");
    stamp_of_half(frame, pixels).number
}

fn at_most_vga(sim: &Sim, more: &str) -> String {
    format!("[camera.cam]\nurl = \"{}\"\nmax_size = \"640x480\"\n{more}", sim.url)
}

#[test]
fn a_larger_picture_is_scaled_down_to_max_size_and_says_so() {
    let _turn = TURNS.take();
    // Planes of 8 bits are scaled before they are converted, others while they are.
    let cases: [&[&str]; 4] = [&[], &["--depth", "10"], &["--chroma", "444"], &["--codec", "mjpeg"]];
    for encoding in cases {
        let options = [encoding, &["--size", "1280x720", "--fps", "10", "--pattern", "bars"]].concat();
        with_configured(&at_most_vga(&start(&options), ""), |ring| {
            let (mut pixels, mut last) = (Vec::new(), None);
            for _ in 0..5 {
                let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
                let number = assert_half(&frame, &pixels);
                assert!(last < Some(number), "{encoding:?}: number {number} after {last:?}");
                last = Some(number);
            }
        });
    }
}

#[test]
fn a_ring_with_max_size_keeps_its_generation_when_the_camera_sends_more() {
    let _turn = TURNS.take();
    let sim = start(&[
        "--size",
        "640x360",
        "--switch-size",
        "1280x720",
        "--switch-after",
        "2s",
        "--fps",
        "10",
        "--pattern",
        "bars",
    ]);
    with_configured(&at_most_vga(&sim, ""), |ring| {
        let mut pixels = Vec::new();
        let first = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        assert!(!first.meta.flags.contains(FrameFlags::SCALED));
        assert_eq!((first.meta.source_size, first.meta.color.matrix), ((640, 360), 6));
        stamp_of(&first, &pixels);
        let deadline = Instant::now() + PATIENCE;
        let mut scaled = 0;
        while scaled < 5 {
            assert!(Instant::now() < deadline, "no frame of the second size came");
            let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
            assert_eq!((frame.meta.geometry.width, frame.meta.geometry.height), (640, 360));
            assert_eq!(frame.generation, first.generation);
            assert_eq!(frame.meta.geometry_epoch, first.meta.geometry_epoch);
            if frame.meta.source_size == (640, 360) {
                assert_bars_of(&frame, &pixels, LOSSY, "before");
                continue;
            }
            // The colours of the second size are coded by another matrix.
            assert_eq!(frame.meta.color.matrix, 1);
            assert_half(&frame, &pixels);
            scaled += 1;
        }
        assert_eq!(ring.stats().resets, 0);
    });
}
