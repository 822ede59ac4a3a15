//! Outputs: several rings from one decode, each in its own size, format and rate; told, adopted, changed as the main one is.
#![cfg(feature = "sim")]

mod system;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use camring::sim::stamp::{self, Stamp};
use camring_ring::{
    AttachOptions, Counter, Fit, Frame, FrameFlags, Liveness, PixelFormat, Presence, Reason, Ring, RingName, State,
    remove,
};
use rustix::process::Signal;
use system::reader::{Reader, Seen, Way};
use system::turns::{Turn, Turns};
use system::{Daemon, PATIENCE, Shm, Sim, amount, camring, ended, measured, stamp_of, until};

/// Two cameras at a time: what they wait for, reloads, outages and rates, takes more time than they work.
static TURNS: Turns = Turns::of(2);

const SMALL: [&str; 6] = ["--size", "640x360", "--fps", "10", "--gop", "200ms"];
const MODEL: &str =
    "[camera.cam.output.small]\nsize = \"640x640\"\nformat = \"rgb-planar-f32\"\nnormalize = \"0..1\"\nmax_fps = 5\n";

/// A camera on a file of ours.
struct Scene {
    daemon: Daemon,
    shm: Shm,
    file: PathBuf,
    _folder: tempfile::TempDir,
    _turn: Turn,
}

impl Scene {
    fn new(text: &str) -> Self {
        let (turn, shm, folder) = (TURNS.take(), Shm::new(), tempfile::tempdir().unwrap());
        let file = folder.path().join("camring.toml");
        std::fs::write(&file, text).unwrap();
        let daemon = Daemon::spawn_config(&shm, "cam", &file);
        Self { daemon, shm, file, _folder: folder, _turn: turn }
    }

    /// Replaces the file, asks for a reload, and waits until the log has `line`.
    fn reload(&self, text: &str, line: &str) {
        std::fs::write(&self.file, text).unwrap();
        let before = self.daemon.log().matches(line).count();
        self.daemon.process.signal(Signal::HUP);
        until(line, || self.daemon.log().matches(line).count() > before);
    }

    /// A handle that does not count as a reader.
    fn look(&self, ring: &str) -> Ring {
        let options = AttachOptions {
            shm: self.shm.dir(),
            timeout: Some(PATIENCE),
            presence: Presence::Uncounted,
            ..AttachOptions::default()
        };
        Ring::attach(ring, options).unwrap()
    }

    /// `camring COMMAND RING... --json` as JSON.
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut command = camring();
        command.args(arguments).arg("--json").arg("--shm-dir").arg(self.shm.path());
        let said = ended(command);
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.stdout).unwrap()
    }
}

fn camera(url: &str, more: &str) -> String {
    format!("[camera.cam]\nurl = \"{url}\"\n{more}")
}

/// Green of a pixel, 0 to 255, in any format.
fn green(frame: &Frame, pixels: &[u8], x: u32, y: u32) -> f64 {
    let geometry = &frame.meta.geometry;
    let stride = geometry.plane_strides[0] as usize;
    let row = y as usize * stride;
    match geometry.format {
        PixelFormat::RgbPlanarF32 => {
            let at = geometry.plane_offsets[1] as usize + row + x as usize * 4;
            let value = f32::from_ne_bytes(pixels[at..at + 4].try_into().unwrap());
            f64::from((value - frame.meta.value_offset) / frame.meta.value_scale)
        }
        PixelFormat::Gray => pixels[row + x as usize].into(),
        // Limited range here: the simulated camera's.
        PixelFormat::I420 | PixelFormat::Nv12 => (f64::from(pixels[row + x as usize]) - 16.0) * 255.0 / 219.0,
        _ => pixels[row + x as usize * 3 + 1].into(),
    }
}

/// The stamp of the camera's picture behind a frame: each of its pixels is looked up where the metadata say it is.
fn stamp_behind(frame: &Frame, pixels: &[u8]) -> Stamp {
    let (scale, offset) = (frame.meta.scale, frame.meta.offset);
    let (width, height) = frame.meta.source_size;
    let at = |source: u32, scale: f32, offset: f32, most: u32| {
        ((((f64::from(source) + 0.5) * f64::from(scale)) + f64::from(offset)) as u32).min(most - 1)
    };
    let value = |x: u32, y: u32| {
        let geometry = &frame.meta.geometry;
        let (x, y) = (at(x, scale.0, offset.0, geometry.width), at(y, scale.1, offset.1, geometry.height));
        green(frame, pixels, x, y).round().clamp(0.0, 255.0) as u8
    };
    stamp::read(width, height, value).unwrap_or_else(|error| panic!("frame {}: {error}: {frame:?}", frame.meta.seq))
}

/// Where, between two neighbours in a row or column of samples, the first crossing of `level` is.
fn crossing(samples: &[f64], level: f64) -> Option<f64> {
    samples.windows(2).position(|pair| (pair[0] - level) * (pair[1] - level) < 0.0).map(|at| {
        let (before, after) = (samples[at], samples[at + 1]);
        // Samples stand for the middle of their pixels.
        at as f64 + 0.5 + (level - before) / (after - before)
    })
}

/// The painted box of the white cells 5 and 6 of the stamp's first row, mapped back to the camera's picture: left, right.
fn painted_box(frame: &Frame, pixels: &[u8]) -> (f64, f64) {
    let side = f64::from(stamp::cell_side(frame.meta.source_size.0, frame.meta.source_size.1).unwrap());
    let out = |x: f64, y: f64| {
        let (scale, offset) = (frame.meta.scale, frame.meta.offset);
        (x * f64::from(scale.0) + f64::from(offset.0), y * f64::from(scale.1) + f64::from(offset.1))
    };
    let edge = |cell: f64| {
        let ((from, y), (to, _)) = (out((cell - 0.8) * side, 0.5 * side), out((cell + 0.8) * side, 0.5 * side));
        let row: Vec<f64> = (from as u32..=to as u32).map(|x| green(frame, pixels, x, y as u32)).collect();
        let at = crossing(&row, 127.0).unwrap_or_else(|| panic!("no edge at cell {cell}: {row:?}"));
        frame.meta.to_source(f64::from(from as u32) + at, y).expect("there is a way back").0
    };
    (edge(5.0), edge(7.0))
}

/// The same picture in two rings says the same of itself.
fn same_picture(main: &Frame, other: &Frame) {
    let (a, b) = (&main.meta, &other.meta);
    assert_eq!(a.source_seq, b.source_seq);
    assert_eq!((a.pts_ns, a.arrival_mono_ns, a.arrival_real_ns), (b.pts_ns, b.arrival_mono_ns, b.arrival_real_ns));
    assert_eq!((a.rtp_timestamp, a.source_unix_ns, a.time_source), (b.rtp_timestamp, b.source_unix_ns, b.time_source));
    assert_eq!((a.decoded_mono_ns, a.duration_ns, a.session_id), (b.decoded_mono_ns, b.duration_ns, b.session_id));
    assert_eq!((a.source_size, a.color, a.source_format), (b.source_size, b.color, b.source_format));
}

/// Reads `count` frames of an output with the stamps behind them.
fn frames(ring: &Ring, count: usize) -> Vec<(Frame, Stamp, (f64, f64))> {
    let mut pixels = Vec::new();
    (0..count)
        .map(|_| {
            let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
            (frame, stamp_behind(&frame, &pixels), painted_box(&frame, &pixels))
        })
        .collect()
}

#[test]
fn full_pictures_and_a_model_input_at_five_frames_a_second_come_from_one_decoder() {
    let sim = Sim::spawn(&["--size", "1920x1080", "--fps", "25"]);
    let scene = Scene::new(&camera(&sim.url, MODEL));
    let main = Reader::attach(&scene.shm, "cam", Way::Next);
    let small = scene.shm.attach("cam.small");
    main.first("a frame", |_| true);
    let seconds = amount(10, 60) as usize;
    let read = frames(&small, seconds * 5);
    let seen: BTreeMap<u64, Seen> = main.finish().into_iter().map(|seen| (seen.frame.meta.source_seq, seen)).collect();
    let mut compared = 0;
    for (frame, stamp, (left, right)) in &read {
        let meta = &frame.meta;
        assert_eq!((meta.geometry.width, meta.geometry.height), (640, 640));
        assert_eq!((meta.geometry.format, meta.fit), (PixelFormat::RgbPlanarF32, Fit::Letterbox));
        assert_eq!((meta.source_size, meta.offset), ((1920, 1080), (0.0, 140.0)));
        assert!(meta.flags.contains(FrameFlags::SCALED));
        assert!((left - 120.0).abs() < 1.0 && (right - 168.0).abs() < 1.0, "the box is at {left} to {right}");
        if let Some(seen) = seen.get(&meta.source_seq) {
            compared += 1;
            same_picture(&seen.frame, frame);
            assert_eq!(seen.stamp, *stamp, "another picture under the same source_seq");
        }
    }
    // The reader of the main ring was given a core of a busy machine, not all of it.
    assert!(compared * 2 > read.len(), "{compared} of {} frames were seen in both rings", read.len());
    rate_is_even(&read.iter().map(|(frame, ..)| *frame).collect::<Vec<_>>(), 5.0);
    one_decoder(&scene, &small);
}

/// By the camera's own time: 5.0 +- 0.1 frames a second, no two further from their distance than a period of the camera.
///
/// Frames that this reader did not get to are counted by their numbers. Where the machine lost pictures of the camera before
/// they were decoded, there are fewer to choose from, and the rate may fall by as much.
fn rate_is_even(frames: &[Frame], fps: f64) {
    let (first, last) = (&frames[0].meta, &frames[frames.len() - 1].meta);
    let span = (last.pts_ns - first.pts_ns) as f64 / 1e9;
    let rate = (last.seq.0 - first.seq.0) as f64 / span;
    let source = (last.source_seq - first.source_seq) as f64 / span;
    let lost = (1.0 - source / 25.0).max(0.0);
    let least = if lost < 0.005 { fps - 0.1 } else { fps * (1.0 - 2.0 * lost) - 0.1 };
    assert!((least..=fps + 0.1).contains(&rate), "{rate} frames a second of {source} decoded");
    let pairs = frames.windows(2).filter(|pair| pair[1].skipped == 0);
    let distances: Vec<f64> =
        pairs.map(|pair| (pair[1].meta.pts_ns - pair[0].meta.pts_ns) as f64 / 1e9 - 1.0 / fps).collect();
    let uneven = distances.iter().filter(|off| off.abs() > 0.0405).count();
    let most = (frames.len() as f64 * 2.0 * lost).ceil() as usize;
    assert!(
        uneven <= if lost < 0.005 { 0 } else { most },
        "{uneven} uneven distances, {source} decoded: {distances:?}"
    );
    let furthest = distances.iter().fold(0.0_f64, |furthest, off| furthest.max(off.abs()));
    let skipped: u64 = frames.iter().skip(1).map(|frame| frame.skipped).sum();
    measured(format!(
        "{} frames at {rate:.3} a second of {source:.2}, at most {:.1} ms from even; this reader skipped {skipped}",
        frames.len(),
        furthest * 1e3
    ));
}

/// One session, one chain of elements, one picture decoded for both rings.
fn one_decoder(scene: &Scene, small: &Ring) {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", scene.daemon.process.pid())).unwrap();
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
    let decoding = names.iter().filter(|name| name.starts_with("queue") || name.starts_with("decod")).count();
    assert_eq!(decoding, 1, "threads that decode: {names:?}");
    let log = scene.daemon.log();
    assert_eq!(log.matches("avdec_h264").count(), 1, "{log}");
    let (status, main) = (small.status(), scene.look("cam").status());
    assert_eq!((status.decoder.as_str(), status.codec.as_str()), ("avdec_h264", "h264"));
    assert_eq!((status.state, main.state, status.session_id), (State::Live, State::Live, main.session_id));
    assert!(status.counter(Counter::DroppedRate) > 3 * status.counter(Counter::Published), "{status:?}");
    let now = status.heartbeat_mono_ns.abs_diff(main.heartbeat_mono_ns);
    assert!(now < 2_000_000_000, "both show signs of life: {now} ns apart");
}

#[test]
fn every_format_fit_and_region_shows_the_camera_and_leads_back_to_it() {
    let sim = Sim::spawn(&SMALL);
    let outputs = [
        ("rgb", "format = \"rgb\"\nsize = \"320x320\"\n", (320, 320)),
        ("gray", "format = \"gray\"\nsize = \"400x300\"\nfit = \"stretch\"\n", (400, 300)),
        ("i420", "format = \"i420\"\n", (640, 360)),
        ("nv12", "format = \"nv12\"\nsize = \"640x480\"\n", (640, 480)),
        ("part", "region = \"0,0,401,225\"\nsize = \"401x225\"\n", (401, 225)),
        ("large", "size = \"1280x720\"\nformat = \"rgb-planar-f32\"\n", (1280, 720)),
        ("cut", "size = \"360x300\"\nfit = \"crop\"\nregion = \"0,0,432,360\"\n", (360, 300)),
    ];
    let tables: String = outputs.iter().map(|(name, keys, _)| format!("[camera.cam.output.{name}]\n{keys}")).collect();
    let scene = Scene::new(&camera(&sim.url, &tables));
    let mut pixels = Vec::new();
    for (name, _, size) in outputs {
        let ring = scene.shm.attach(&format!("cam.{name}"));
        let mut last = None;
        for _ in 0..3 {
            let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
            assert_eq!((frame.meta.geometry.width, frame.meta.geometry.height), size, "{name}");
            assert_eq!(frame.meta.source_size, (640, 360), "{name}");
            let number = if matches!(name, "part" | "cut") {
                // The second copy of the stamp, by which torn pictures are told, is outside.
                None
            } else {
                Some(stamp_behind(&frame, &pixels).number)
            };
            assert!(number.is_none() || last < number, "{name}: {number:?} after {last:?}");
            last = number;
            let (left, right) = painted_box(&frame, &pixels);
            assert!((left - 70.0).abs() < 1.0 && (right - 98.0).abs() < 1.0, "{name}: the box is at {left} to {right}");
        }
        // What people and scripts see of it.
        let shown = scene.json(&["show", &format!("cam.{name}")]);
        let word = ring.peek().unwrap().geometry.format.to_string();
        assert_eq!((shown["format"].as_str(), shown["width"].as_u64()), (Some(word.as_str()), Some(size.0.into())));
        for format in ["png", "npy"] {
            let file = scene.file.with_extension(format);
            let described =
                scene.json(&["snap", &format!("cam.{name}"), "-o", file.to_str().unwrap(), "--max-age", "any"]);
            assert!(described["bytes"].as_u64().unwrap() > 1000, "{name}: {described}");
        }
    }
    let listed = scene.json(&["list"]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|ring| ring["name"].as_str()).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    assert!(scene.shm.files().contains(&"camring.cam.part".to_owned()), "{:?}", scene.shm.files());
}

#[test]
fn the_main_ring_has_every_format_and_its_own_rate() {
    for format in ["rgb", "gray", "i420", "nv12", "rgb-planar-f32"] {
        let sim = Sim::spawn(&["--size", "641x359", "--fps", "25", "--codec", "mjpeg"]);
        let scene = Scene::new(&camera(&sim.url, &format!("format = \"{format}\"\nmax_fps = 5\n")));
        let ring = scene.shm.attach("cam");
        let read = frames(&ring, 12);
        for (frame, ..) in &read {
            assert_eq!(frame.meta.geometry.format.to_string(), format);
            assert_eq!((frame.meta.geometry.width, frame.meta.geometry.height), (641, 359));
            assert!(!frame.meta.flags.contains(FrameFlags::SCALED));
        }
        assert!(read.windows(2).all(|pair| pair[0].1.number < pair[1].1.number), "{format}");
        let frames: Vec<Frame> = read.iter().map(|(frame, ..)| *frame).collect();
        // A busy camera may have painted no more pictures than are wanted here and there.
        let has_gap = |frame: &Frame| frame.meta.flags.contains(FrameFlags::GAP);
        let leaves_out =
            |pair: &&[Frame]| pair[1].skipped == 0 && pair[1].meta.source_seq > pair[0].meta.source_seq + 1;
        assert!(frames.windows(2).filter(leaves_out).all(|pair| has_gap(&pair[1])), "{format}");
        assert!(frames.iter().skip(1).any(has_gap), "{format}: nothing was left out");
        let (first, last) = (&frames[0].meta, &frames[11].meta);
        let (published, decoded) = (last.seq.0 - first.seq.0, last.source_seq - first.source_seq);
        let skipped: u64 = frames.iter().skip(1).map(|frame| frame.skipped).sum();
        let gaps: u64 = frames.iter().skip(1).map(|frame| u64::from(frame.meta.gap)).sum();
        assert!(skipped > 0 || gaps >= decoded - published, "{format}: {gaps} of {decoded} left out");
        let span = (last.pts_ns - first.pts_ns) as f64 / 1e9;
        let distance = span / published as f64;
        // A machine that loses pictures of the camera leaves fewer to choose from.
        let most = if decoded as f64 / span > 24.9 { 0.204 } else { 0.3 };
        assert!((0.196..=most).contains(&distance), "{format}: {published} frames in {span} s of the camera's time");
    }
}

#[test]
fn outputs_survive_the_death_of_the_daemon_on_the_same_handles() {
    let sim = Sim::spawn(&SMALL);
    let mut scene = Scene::new(&camera(&sim.url, "[camera.cam.output.small]\nsize = \"320x320\"\n"));
    let rings = [scene.shm.attach("cam"), scene.shm.attach("cam.small")];
    let mut pixels = Vec::new();
    let before = rings.each_ref().map(|ring| ring.next(&mut pixels, Some(PATIENCE)).unwrap());
    scene.daemon.process.kill();
    until("the death is seen", || rings.iter().all(|ring| ring.liveness() == Liveness::Gone));
    scene.daemon = Daemon::spawn_config(&scene.shm, "cam", &scene.file);
    let mut firsts = Vec::new();
    for (ring, before) in rings.iter().zip(&before) {
        let mut frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        while frame.meta.writer_epoch == before.meta.writer_epoch {
            frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        }
        assert_eq!(frame.generation, before.generation, "adopted");
        assert!(frame.meta.flags.contains(FrameFlags::AFTER_RESTART) || frame.skipped > 0);
        assert!(frame.meta.seq > before.meta.seq && frame.meta.source_seq > before.meta.source_seq);
        firsts.push(frame.meta.source_seq);
    }
    // The numbers of pictures go on together.
    let main = Reader::attach(&scene.shm, "cam", Way::Next);
    let small = frames(&rings[1], 5);
    let deadline = Instant::now() + PATIENCE;
    let (frame, stamp, _) = small[4];
    let same = main.first("the same picture", |seen| {
        assert!(Instant::now() < deadline);
        seen.frame.meta.source_seq >= frame.meta.source_seq
    });
    if same.frame.meta.source_seq == frame.meta.source_seq {
        assert_eq!(same.stamp, stamp);
    }
    main.finish();
}

/// Every sample around the picture is gray 114, and the picture is the camera's.
fn padding_is_whole(frame: &Frame, pixels: &[u8]) {
    let geometry = &frame.meta.geometry;
    let top = frame.meta.offset.1.round() as usize;
    let rows = (frame.meta.source_size.1 as f32 * frame.meta.scale.1).round() as usize;
    assert!(top > 0 && rows + 2 * top == geometry.height as usize, "{frame:?}");
    let expected = 114.0 * frame.meta.value_scale + frame.meta.value_offset;
    for plane in 0..3 {
        let (first, stride) = (geometry.plane_offsets[plane] as usize, geometry.plane_strides[plane] as usize);
        for row in (0..top).chain(top + rows..geometry.height as usize) {
            let samples = pixels[first + row * stride..][..stride].as_chunks::<4>().0;
            let wrong =
                samples.iter().map(|sample| f32::from_ne_bytes(*sample)).find(|it| (it - expected).abs() > 1e-5);
            assert_eq!(wrong, None, "frame {}, plane {plane}, row {row}: not {expected}", frame.meta.seq);
        }
    }
    stamp_behind(frame, pixels);
}

#[test]
fn padding_is_whole_in_every_frame_whatever_the_slot_held_before() {
    let sim = Sim::spawn(&["--size", "640x360", "--fps", "25", "--gop", "200ms"]);
    let output = |keys: &str| {
        let size = "size = \"320x320\"\nformat = \"rgb-planar-f32\"\nslots = 4\n";
        camera(&sim.url, &format!("[camera.cam.output.small]\n{size}{keys}"))
    };
    let model = "normalize = { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }\n";
    let mut scene = Scene::new(&output(""));
    let (small, mut pixels) = (scene.shm.attach("cam.small"), Vec::new());
    let mut next = || {
        let frame = small.next(&mut pixels, Some(PATIENCE)).unwrap();
        if frame.meta.fit == Fit::Letterbox {
            padding_is_whole(&frame, &pixels);
        }
        frame
    };
    // The same memory over and over: with other floats and with frames that fill it, killed in the middle of either.
    let generation = next().generation;
    for (number, keys) in [model, "fit = \"stretch\"\n", "", model, "fit = \"stretch\"\n", model].iter().enumerate() {
        for _ in 0..9 {
            next();
        }
        if number % 2 == 0 {
            scene.daemon.process.kill();
            std::fs::write(&scene.file, output(keys)).unwrap();
            scene.daemon = Daemon::spawn_config(&scene.shm, "cam", &scene.file);
        } else {
            scene.reload(&output(keys), "it takes effect with the next frame");
        }
        let wanted = if keys.contains("stretch") { Fit::Stretch } else { Fit::Letterbox };
        let scale = if *keys == model { 1.0 / (255.0 * 0.25) } else { 1.0 / 255.0 };
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no frame as the file says: {keys}");
            let frame = next();
            if frame.meta.fit == wanted && (frame.meta.value_scale - scale).abs() < 1e-6 {
                break;
            }
        }
    }
    assert_eq!((0..9).map(|_| next().generation).collect::<Vec<_>>(), [generation; 9]);
}

#[test]
fn a_bridge_of_an_output_is_that_output() {
    /// A name of this test alone in /dev/shm.
    struct Name(String);
    impl Drop for Name {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(format!("/dev/shm/{}", self.0));
        }
    }
    let sim = Sim::spawn(&SMALL);
    let scene = Scene::new(&camera(&sim.url, MODEL));
    let name = Name(format!("camring-bridge-output-{}", std::process::id()));
    let mut command = camring();
    command.args(["bridge", "cam.small", "--segment", &name.0]).arg("--shm-dir").arg(scene.shm.path());
    let bridge = system::Process(command.stdout(std::process::Stdio::null()).spawn().unwrap());
    let copy = Ring::attach(&name.0, AttachOptions { timeout: Some(PATIENCE), ..AttachOptions::default() }).unwrap();
    let source = scene.shm.attach("cam.small");
    let mut pixels = Vec::new();
    let mut newest = 0;
    for _ in 0..5 {
        let frame = copy.next(&mut pixels, Some(PATIENCE)).unwrap();
        let meta = &frame.meta;
        assert_eq!((meta.geometry.width, meta.geometry.format), (640, PixelFormat::RgbPlanarF32));
        assert_eq!((meta.fit, meta.source_size, meta.offset), (Fit::Letterbox, (640, 360), (0.0, 140.0)));
        assert!(meta.source_seq > newest, "{frame:?}");
        newest = meta.source_seq;
        stamp_behind(&frame, &pixels);
        let mut original = Vec::new();
        if let Ok(same) = source.latest(&mut original)
            && same.meta.source_seq == meta.source_seq
        {
            same_picture(&same, &frame);
            assert_eq!(original, pixels, "the copy is the original");
        }
    }
    drop(bridge);
}

#[test]
fn a_camera_that_changes_its_size_keeps_the_size_of_its_outputs() {
    let sim = Sim::spawn(&["--size", "640x360", "--switch-size", "1280x720", "--switch-after", "3s", "--fps", "10"]);
    let scene = Scene::new(&camera(&sim.url, "[camera.cam.output.small]\nsize = \"320x320\"\n"));
    let small = scene.shm.attach("cam.small");
    let (mut pixels, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let first = small.next(&mut pixels, Some(PATIENCE)).unwrap();
    assert_eq!(first.meta.source_size, (640, 360));
    stamp_behind(&first, &pixels);
    loop {
        assert!(Instant::now() < deadline, "no frame of the second size came");
        let frame = small.next(&mut pixels, Some(PATIENCE)).unwrap();
        assert_eq!((frame.meta.geometry.width, frame.meta.geometry.height), (320, 320));
        assert_eq!(frame.generation, first.generation);
        stamp_behind(&frame, &pixels);
        if frame.meta.source_size == (1280, 720) {
            assert_eq!((frame.meta.scale, frame.meta.offset), ((0.25, 0.25), (0.0, 70.0)));
            break;
        }
    }
    let main = scene.shm.attach("cam");
    let frame = main.next(&mut pixels, Some(PATIENCE)).unwrap();
    assert_eq!((frame.meta.geometry.width, frame.meta.geometry.height), (1280, 720));
}

#[test]
fn a_reload_adds_changes_and_ends_outputs_without_a_gap_in_the_main_ring() {
    let sim = Sim::spawn(&SMALL);
    let output = |keys: &str| camera(&sim.url, &format!("[camera.cam.output.small]\n{keys}"));
    let scene = Scene::new(&camera(&sim.url, ""));
    let main = Reader::attach(&scene.shm, "cam", Way::Next);
    main.first("a frame", |_| true);
    scene.reload(&output("size = \"320x320\"\n"), "there is a new output");
    let small = scene.shm.attach("cam.small");
    let mut pixels = Vec::new();
    let first = small.next(&mut pixels, Some(PATIENCE)).unwrap();
    stamp_behind(&first, &pixels);
    let status = small.status();
    assert_eq!((status.state, status.decoder.as_str(), status.session_id), (State::Live, "avdec_h264", 1));

    scene.reload(&output("size = \"320x320\"\nfit = \"stretch\"\n"), "it takes effect with the next frame");
    let mut frame = small.next(&mut pixels, Some(PATIENCE)).unwrap();
    while frame.meta.fit != Fit::Stretch {
        frame = small.next(&mut pixels, Some(PATIENCE)).unwrap();
    }
    assert_eq!(frame.generation, first.generation);
    stamp_behind(&frame, &pixels);

    scene.reload(&output("size = \"400x400\"\nformat = \"gray\"\nslots = 4\n"), "the ring was made anew");
    while frame.generation == first.generation {
        frame = small.next(&mut pixels, Some(PATIENCE)).unwrap();
    }
    assert_eq!((frame.meta.geometry.width, frame.meta.geometry.format), (400, PixelFormat::Gray));
    assert_eq!(small.layout().slot_count, 4);
    stamp_behind(&frame, &pixels);

    let wrong = output("size = \"400x400\"\nsegment = \"elsewhere\"\n");
    scene.reload(&wrong, "the configuration is not taken over");
    assert_eq!(small.next(&mut pixels, Some(PATIENCE)).unwrap().meta.geometry.width, 400);

    scene.reload(&camera(&sim.url, ""), "the output is gone");
    until("its readers are told", || small.status().state == State::Stopped);
    assert_eq!(small.status().reason, Reason::Operator);
    small.latest(&mut pixels).expect("its frames stay readable");
    until("its writer lets go", || small.liveness() == Liveness::Gone);
    remove(&scene.shm.dir(), &RingName::new("cam.small").unwrap()).expect("nobody writes it any more");
    assert!(!scene.shm.files().iter().any(|file| file.contains("cam.small")), "{:?}", scene.shm.files());
    scene.reload(&camera(&sim.url, ""), "nothing has changed");

    let seen = main.finish();
    assert!(seen.iter().all(|seen| seen.frame.meta.session_id == 1), "the camera was not disturbed");
    let gaps: u64 = seen.windows(2).map(|pair| pair[1].frame.meta.source_seq - pair[0].frame.meta.source_seq - 1).sum();
    let skipped: u64 = seen.iter().skip(1).map(|seen| seen.frame.skipped).sum();
    assert_eq!(gaps, skipped, "what the reader did not see was there");
}

#[test]
fn a_region_outside_the_picture_is_told_in_its_own_ring_and_disturbs_no_other() {
    let sim = Sim::spawn(&SMALL);
    let region = |x: u32| camera(&sim.url, &format!("[camera.cam.output.part]\nregion = \"{x},0,64,64\"\n"));
    let scene = Scene::new(&region(640));
    let (main, part) = (scene.shm.attach("cam"), scene.look("cam.part"));
    main.next(&mut Vec::new(), Some(PATIENCE)).unwrap();
    until("the ring says why it has no frame", || part.status().reason == Reason::Config);
    assert_eq!((part.status().state, main.status().state), (State::Error, State::Live));
    let sentence = "the region 64x64 at 640,0 is outside the camera's picture of 640x360";
    until(sentence, || scene.daemon.log().contains(sentence));
    scene.reload(&region(576), "region of output part has changed");
    let frame = part.next(&mut Vec::new(), Some(PATIENCE)).unwrap();
    assert_eq!((frame.meta.geometry.width, frame.meta.scale, frame.meta.offset), (64, (1.0, 1.0), (-576.0, 0.0)));
    until("it is live", || part.status().state == State::Live && part.status().reason == Reason::None);
}

#[test]
fn a_reader_of_any_output_wakes_a_parked_camera_and_every_ring_says_so() {
    let sim = Sim::spawn(&["--size", "640x360", "--fps", "25", "--gop", "1s"]);
    let text = "idle = \"park\"\n[camera.cam.output.small]\nsize = \"320x320\"\n";
    let scene = Scene::new(&camera(&sim.url, text));
    let looks = [scene.look("cam"), scene.look("cam.small")];
    until("both rings say that the camera rests", || looks.iter().all(|ring| ring.status().state == State::Parked));
    let seq = looks[1].status().seq;
    let reader = scene.shm.attach("cam.small");
    let mut pixels = Vec::new();
    let frame = reader.next(&mut pixels, Some(PATIENCE)).unwrap();
    assert!(frame.meta.seq > seq || reader.next(&mut pixels, Some(PATIENCE)).unwrap().meta.seq > seq);
    until("both rings are live", || looks.iter().all(|ring| ring.status().state == State::Live));
    drop(reader);
    until("both rest again", || looks.iter().all(|ring| ring.status().state == State::Parked));
}

#[test]
fn a_frozen_picture_is_told_in_every_ring() {
    let still = ["--codec", "mjpeg", "--size", "640x360", "--fps", "10", "--freeze-after", "3s", "--freeze-for", "8s"];
    let sim = Sim::spawn(&still);
    let text = "frozen_after = \"2s\"\n[camera.cam.output.small]\nsize = \"320x320\"\n";
    let scene = Scene::new(&camera(&sim.url, text));
    let rings = [scene.shm.attach("cam"), scene.shm.attach("cam.small")];
    let all = |state, reason| rings.iter().all(|ring| (ring.status().state, ring.status().reason) == (state, reason));
    until("both are live", || all(State::Live, Reason::None));
    until("both are frozen", || all(State::Degraded, Reason::Frozen));
    until("both are live again", || all(State::Live, Reason::None));
}

#[test]
fn an_outage_is_told_in_every_ring() {
    let mut sim = Sim::spawn(&SMALL);
    let text = "[camera.cam.output.small]\nsize = \"320x320\"\n";
    let scene = Scene::new(&camera(&sim.url, text));
    let rings = [scene.shm.attach("cam"), scene.shm.attach("cam.small")];
    let mut pixels = Vec::new();
    rings[1].next(&mut pixels, Some(PATIENCE)).unwrap();
    until("both are live", || rings.iter().all(|ring| ring.status().state == State::Live));
    sim.process.kill();
    until("both say that it is lost", || rings.iter().all(|ring| ring.status().state == State::Reconnecting));
    let last = rings[1].latest(&mut pixels).expect("the last frame stays readable");
    stamp_behind(&last, &pixels);
    sim.respawn();
    let mut frame = rings[1].next(&mut pixels, Some(PATIENCE)).unwrap();
    while frame.meta.session_id == last.meta.session_id {
        frame = rings[1].next(&mut pixels, Some(PATIENCE)).unwrap();
    }
    let expected = FrameFlags::AFTER_RECONNECT.with(FrameFlags::DISCONT);
    assert!(frame.meta.flags.contains(expected) || frame.skipped > 0, "{:?}", frame.meta.flags);
    until("both are live again", || rings.iter().all(|ring| ring.status().state == State::Live));
    for ring in &rings {
        assert_eq!(ring.status().counter(Counter::Reconnects), 1);
    }
    stamp_of(&rings[0].next(&mut pixels, Some(PATIENCE)).unwrap(), &pixels);
}
