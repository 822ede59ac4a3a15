//! Formats: every codec, size and colour against an independent decode; sizes that change; sources without a camera.
#![cfg(feature = "sim")]

mod system;

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use camring::sim::picture::{Color as SimColor, bars_rgb};
use camring::sim::{Codec, Size, stamp};
use camring_ring::{Frame, FrameFlags, Generation, PixelFormat, Ring, State};
use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use system::{Daemon, PATIENCE, Shm, Sim, amount, measured, stamp_of, until};

/// One stream at a time: two encoders and two decoders already fill a small machine.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

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

/// Lets the decoder see the stream from the second keyframe on: whoever joins may have missed a part of the first.
fn from_the_second_keyframe(decoder: &gst::Element) {
    let keyframes = AtomicU32::new(0);
    let gate = move |_: &gst::Pad, info: &mut gst::PadProbeInfo<'_>| {
        let is_key = info.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        if keyframes.fetch_add(u32::from(is_key), Ordering::Relaxed) + u32::from(is_key) >= 2 {
            return gst::PadProbeReturn::Ok;
        }
        // Not `Drop`: the bindings free the buffer before GStreamer 1.22 frees it again.
        info.data = None;
        gst::PadProbeReturn::Handled
    };
    decoder.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, gate);
}

fn info_of(sample: &gst::Sample) -> VideoInfo {
    VideoInfo::from_caps(sample.caps().unwrap()).unwrap()
}

fn painted_number(sample: &gst::Sample) -> u32 {
    let info = info_of(sample);
    let picture = VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
    let stride = picture.plane_stride()[0].unsigned_abs() as usize;
    stamp::read_luma(picture.plane_data(0).unwrap(), stride, info.width(), info.height()).unwrap().number
}

/// Blue, green and red of one Y'CbCr value, 0..=255, by the definition of ITU-R BT.601 and BT.709.
fn bgr(yuv: [u8; 3], color: SimColor) -> [f64; 3] {
    let (kr, kb) = if color == SimColor::Bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
    let (base, luma_range, chroma_range) =
        if color == SimColor::Jpeg { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
    let y = (f64::from(yuv[0]) - base) / luma_range;
    let [cb, cr] = [yuv[1], yuv[2]].map(|value| (f64::from(value) - 128.0) / chroma_range);
    let (red, blue) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
    let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
    [blue, green, red].map(|value| (value * 255.0).clamp(0.0, 255.0))
}

/// Whether an encoder may produce this value; decoders overshoot at hard edges, where converters clip in their own way.
fn is_legal(yuv: [u8; 3], color: SimColor) -> bool {
    color == SimColor::Jpeg || ((16..=235).contains(&yuv[0]) && yuv[1..].iter().all(|value| (16..=240).contains(value)))
}

/// How far the ring's pixels are from the reference: mean, and greatest of the legal values, of 255.
fn differences(pixels: &[u8], stride: usize, sample: &gst::Sample, color: SimColor) -> (f64, f64) {
    let info = info_of(sample);
    let picture = VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
    let (width, height) = (info.width() as usize, info.height() as usize);
    let format = info.format_info();
    assert!(format.is_yuv() && format.n_components() == 3 && format.depth()[0] == 8, "{:?}", info.format());
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
            let yuv =
                components.map(|(data, stride, step, right, down)| data[(y >> down) * stride + (x >> right) * step]);
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

fn options(codec: Codec, size: Size, fps: &str) -> [String; 6] {
    ["--codec", codec.name(), "--size", &size.to_string(), "--fps", fps].map(str::to_owned)
}

fn start(options: &[impl AsRef<str>]) -> Sim {
    Sim::spawn(&options.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// Compares whole pictures of the ring with the reference's pictures of the same number.
fn assert_equal_to_a_reference_decode(codec: Codec, size: Size, fps: &str) {
    let _turn = alone();
    let (shm, sim) = (Shm::new(), start(&options(codec, size, fps)));
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
    let word = codec.name();
    measured(format!("{word} {size}: {compared} pictures, mean error {mean:.3}, greatest {greatest:.2} of 255"));
}

fn assert_described(frame: &Frame, pixels: &[u8], size: Size, color: SimColor) {
    let geometry = &frame.meta.geometry;
    assert_eq!((geometry.width, geometry.height), (size.width, size.height));
    assert_eq!((geometry.format, geometry.plane_count), (PixelFormat::Bgr, 1));
    assert_eq!((geometry.plane_offsets[0], geometry.plane_strides[0]), (0, size.width * 3));
    assert_eq!(geometry.len, u64::from(size.width) * u64::from(size.height) * 3);
    assert_eq!(pixels.len() as u64, geometry.len);
    assert_eq!(frame.meta.source_size, (size.width, size.height));
    let matrix = if color == SimColor::Bt709 { &[1][..] } else { &[5, 6] };
    let stated = frame.meta.color;
    assert!(matrix.contains(&stated.matrix), "{stated:?} for a stream of {color:?}");
    assert_eq!(stated.full_range, u8::from(color == SimColor::Jpeg), "{stated:?} for a stream of {color:?}");
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

/// Reads on one handle across the change; every frame on the way must be whole and in order.
fn read_across(ring: &Ring, old: Size, new: Size) -> Change {
    let mut pixels = Vec::new();
    let mut before: Option<Frame> = None;
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no frame of {new} came");
        let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        let number = stamp_of(&frame, &pixels).number;
        if let Some(before) = &before {
            assert!(frame.meta.seq > before.meta.seq, "frame {} after {}", frame.meta.seq, before.meta.seq);
            assert_eq!(frame.meta.writer_epoch, before.meta.writer_epoch, "painted {number}: a restart");
        }
        let geometry = &frame.meta.geometry;
        let size = Size::new(geometry.width, geometry.height);
        assert!(size == old || size == new, "a frame of {size}");
        assert_eq!(geometry.plane_strides[0], size.width * 3);
        match before {
            Some(before) if size == new => return Change { before, after: frame },
            _ => before = Some(frame),
        }
    }
}

/// A camera that changes its size in the middle of a session, and a reader that was there before.
fn follow_a_change(old: Size, new: Size, between: impl FnOnce(&Shm, &Ring)) -> Change {
    let (from, to) = (old.to_string(), new.to_string());
    let (shm, sim) =
        (Shm::new(), Sim::spawn(&["--size", &from, "--fps", "10", "--switch-size", &to, "--switch-after", "2s"]));
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let ring = shm.attach("cam");
    ring.next(&mut Vec::new(), Some(PATIENCE)).unwrap();
    between(&shm, &ring);
    let change = read_across(&ring, old, new);
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
    let _turn = alone();
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
    let _turn = alone();
    let change = follow_a_change(Size::new(1920, 1080), Size::new(640, 360), |_, _| {});
    assert_eq!(change.before.generation, change.after.generation);
    assert_ne!(change.after.generation, Generation::default());
}

/// Whether one of the two stamps hides this pixel.
fn is_stamped((x, y): (usize, usize), size: Size) -> bool {
    let side = stamp::cell_side(size.width, size.height).unwrap();
    let (across, down) = ((stamp::COLUMNS * side) as usize, (stamp::ROWS * side) as usize);
    let (width, height) = (size.width as usize, size.height as usize);
    (x < across && y < down) || (x + 1 + across >= width && y + 1 + down >= height)
}

/// Samples the middle of every bar and compares with the documented colours.
fn assert_bars(codec: Codec, size: Size) {
    let options = [&options(codec, size, "10")[..], &["--pattern".to_owned(), "bars".to_owned()]].concat();
    let (shm, sim) = (Shm::new(), start(&options));
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let mut pixels = Vec::new();
    let frame = shm.attach("cam").next(&mut pixels, Some(PATIENCE)).unwrap();
    let stride = frame.meta.geometry.plane_strides[0] as usize;
    let (width, height) = (size.width as usize, size.height as usize);
    let mut sampled = 0;
    for (row, bars) in [(height * 3 / 5, 7), (height * 17 / 24, 7), (height * 19 / 24, 8)] {
        let columns = (0..bars).map(|bar| (2 * bar + 1) * width / (2 * bars));
        for column in columns.filter(|column| !is_stamped((*column, row), size)) {
            let [red, green, blue] = bars_rgb((column, row), (width, height));
            let found = &pixels[row * stride + column * 3..][..3];
            let near = found.iter().zip([blue, green, red]).all(|(found, expected)| found.abs_diff(expected) <= 3);
            assert!(near, "{codec:?} {size}: BGR at {column},{row} is {found:?}, not {:?}", [blue, green, red]);
            sampled += 1;
        }
    }
    assert!(sampled >= 16, "only {sampled} bars of {size} can be seen");
}

#[test]
fn colour_bars_have_their_documented_colours() {
    let _turn = alone();
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
    let _turn = alone();
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
    let _turn = alone();
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
