//! From `publish` to a reader's view, in a process of its own, beside the bare ring: by number of readers and by size.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::{FrameMeta, Geometry, HugePages, PixelFormat, Ring, Writer};

use crate::bare::BareRing;
use crate::figures::{Bar, Line, median, percentile};
use crate::{Folder, attach_options};

const SLOTS: u32 = 8;
const ROUNDS: usize = 5;
/// Frames before the measured ones of a round.
const WARM_UP: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// One way to hand a frame over.
trait Side {
    const KIND: &'static str;
    /// Puts the pixels of the next frame into place.
    fn fill(&mut self, value: u8);
    /// Publishes it with the time at which publishing began.
    fn publish(&mut self, t0_ns: i64);
}

impl Side for BareRing {
    const KIND: &'static str = "bare";
    fn fill(&mut self, value: u8) {
        BareRing::fill(self, value);
    }
    fn publish(&mut self, t0_ns: i64) {
        BareRing::publish(self, t0_ns);
    }
}

struct Ours {
    writer: Writer,
    slot: Option<camring_ring::SlotMut>,
    geometry: Geometry,
}

impl Side for Ours {
    const KIND: &'static str = "ours";
    fn fill(&mut self, value: u8) {
        let mut slot = self.writer.claim(self.geometry.len).expect("a slot");
        slot.as_mut().fill(value);
        self.slot = Some(slot);
    }
    fn publish(&mut self, t0_ns: i64) {
        let mut meta = FrameMeta::new(self.geometry);
        meta.decoded_mono_ns = t0_ns;
        self.writer.publish(self.slot.take().expect("a filled slot"), meta).expect("published");
    }
}

/// A reader in a process of its own.
struct Reader {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Reader {
    fn spawn(kind: &str, folder: &Folder, name: &str, frames: u64, slot: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["reader", kind])
            .arg(folder.path())
            .args([name, &frames.to_string(), &slot.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "ready");
        Self { child, lines }
    }

    /// Microseconds from publish to view, a value per frame that it saw.
    fn end(mut self) -> Vec<f64> {
        let values = self.lines.by_ref().map(|line| line.expect("text").parse().expect("a number")).collect();
        assert!(self.child.wait().expect("its end").success());
        values
    }
}

/// The reader's process: prints the microseconds of each of `frames` frames.
pub fn read(kind: &str, dir: &Path, name: &str, frames: &str, slot: &str) {
    let (frames, slot) = (frames.parse::<u64>().expect("a number"), slot.parse::<usize>().expect("a number"));
    let mut values = Vec::with_capacity(frames as usize);
    if kind == BareRing::KIND {
        let ring = BareRing::open(&dir.join(name), SLOTS as usize, slot);
        println!("ready");
        let mut last = 0;
        while last < frames {
            let (seq, t0_ns) = ring.next(last);
            values.push((mono_ns() - t0_ns) as f64 / 1e3);
            last = seq;
        }
    } else {
        let ring = Ring::attach(name, attach_options(dir)).expect("a ring");
        println!("ready");
        while ring.last_seq().0 < frames {
            let lease = ring.lease_next(Some(PATIENCE)).expect("a frame");
            values.push((mono_ns() - lease.frame().meta.decoded_mono_ns) as f64 / 1e3);
        }
    }
    for value in values.iter().skip(WARM_UP as usize) {
        println!("{value}");
    }
}

/// One round: `readers` readers get `frames` frames at `fps`; `slot` bytes of a bare slot.
fn round<S: Side>(side: &mut S, folder: &Folder, name: &str, plan: Plan, slot: usize) -> Vec<f64> {
    let frames = plan.frames + WARM_UP;
    let readers: Vec<Reader> = (0..plan.readers).map(|_| Reader::spawn(S::KIND, folder, name, frames, slot)).collect();
    let mut due = Instant::now();
    for frame in 0..frames {
        due += Duration::from_secs(1) / plan.fps;
        side.fill(frame as u8);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        side.publish(mono_ns());
    }
    readers.into_iter().flat_map(Reader::end).collect()
}

#[derive(Clone, Copy)]
struct Plan {
    readers: usize,
    frames: u64,
    fps: u32,
    geometry: Geometry,
}

/// Rounds of both in turn: the medians of the rounds' medians and of their 99th percentiles, ours first.
fn compare(folder: &Folder, plan: Plan) -> [(f64, f64); 2] {
    let mut rounds: [Vec<(f64, f64)>; 2] = Default::default();
    for number in 0..ROUNDS {
        let name = format!("r{number}");
        let slot = plan.geometry.len.next_multiple_of(1 << 16) as usize;
        let bare_name = format!("bare{number}");
        let mut bare = BareRing::create(&folder.path().join(&bare_name), SLOTS as usize, slot);
        let options = folder.options(&name, SLOTS, plan.geometry.len, HugePages::Try);
        let mut ours = Ours { writer: Writer::start(options).expect("a ring").0, slot: None, geometry: plan.geometry };
        let of_round = |values: Vec<f64>| (median(&values), percentile(&values, 99.0));
        rounds[0].push(of_round(round(&mut ours, folder, &name, plan, slot)));
        rounds[1].push(of_round(round(&mut bare, folder, &bare_name, plan, slot)));
        drop((ours, bare));
        for entry in std::fs::read_dir(folder.path()).expect("the folder").flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
    rounds.map(|rounds| {
        let column = |pick: fn(&(f64, f64)) -> f64| median(&rounds.iter().map(pick).collect::<Vec<_>>());
        (column(|round| round.0), column(|round| round.1))
    })
}

fn lines(what: &str, [(ours, ours_high), (bare, bare_high)]: [(f64, f64); 2]) -> [Line; 2] {
    let line = |what, ours, bare, bar| Line { what, ours, unit: "us", beside: Some((bare, "bare ring")), bar };
    [
        line(format!("publish to view, {what}, median"), ours, bare, Bar::Times(1.15)),
        line(format!("publish to view, {what}, 99 %"), ours_high, bare_high, Bar::Times(1.5)),
    ]
}

/// 1080p at 100 frames a second to 1, 4 and 16 readers.
pub fn by_readers(folder: &Folder) -> Vec<Line> {
    let geometry = Geometry::packed(1920, 1080, PixelFormat::Bgr).expect("a picture");
    let plan = |readers| Plan { readers, frames: 200, fps: 100, geometry };
    [1, 4, 16]
        .into_iter()
        .flat_map(|readers| lines(&format!("{readers} readers"), compare(folder, plan(readers))))
        .collect()
}

/// 64x64 pictures and tensors of 50.3 MB at 20 frames a second: the size must not matter.
pub fn by_size(folder: &Folder) -> Vec<Line> {
    let plan = |side, format| {
        let geometry = Geometry::packed(side, side, format).expect("a picture");
        Plan { readers: 1, frames: 60, fps: 20, geometry }
    };
    let small = compare(folder, plan(64, PixelFormat::Bgr));
    let large = compare(folder, plan(2048, PixelFormat::RgbPlanarF32));
    let mut all: Vec<Line> = lines("64x64", small).into_iter().chain(lines("50.3 MB", large)).collect();
    all.push(Line {
        what: "publish to view, 50.3 MB against 64x64, median".into(),
        ours: large[0].0,
        unit: "us",
        beside: Some((small[0].0, "ours, 64x64")),
        bar: Bar::Times(1.1),
    });
    all
}
