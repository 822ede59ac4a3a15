//! From `publish` to a reader's view, in a process of its own, beside the bare ring: by number of readers and by size.
//!
//! A view is the frame's description and place, to be validated after use, which is all that the bare ring has; or a
//! leased one, which stays as it is: that stands beside a bare ring whose readers take and drop a lock per frame.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::{FrameMeta, Geometry, HugePages, PixelFormat, Ring, Sequence, Writer};

use crate::bare::BareRing;
use crate::figures::{Bar, Line, median, percentile};
use crate::{Folder, attach_options};

const SLOTS: u32 = 8;
const ROUNDS: usize = 5;
/// Frames before the measured ones of a round.
const WARM_UP: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// What a reader has at the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum View {
    Described,
    Leased,
}

impl View {
    const ALL: [Self; 2] = [Self::Described, Self::Leased];

    fn word(self) -> &'static str {
        match self {
            Self::Described => "described",
            Self::Leased => "leased",
        }
    }
}

/// One way to hand a frame over.
trait Side {
    /// What its readers are told to be.
    fn kind(&self) -> &'static str;
    /// Puts the pixels of the next frame into place.
    fn fill(&mut self, value: u8);
    /// Publishes it with the time at which publishing began.
    fn publish(&mut self, t0_ns: i64);
}

/// The word for readers of the bare ring.
const BARE: &str = "bare";

impl Side for BareRing {
    fn kind(&self) -> &'static str {
        BARE
    }
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
    fn kind(&self) -> &'static str {
        "ours"
    }
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
    fn spawn(kind: &str, folder: &Folder, name: &str, plan: Plan, slot: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["reader", kind, plan.view.word()])
            .arg(folder.path())
            .args([name, &plan.all_frames().to_string(), &slot.to_string()])
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
pub fn read(kind: &str, view: &str, dir: &Path, name: &str, frames: &str, slot: &str) {
    let (frames, slot) = (frames.parse::<u64>().expect("a number"), slot.parse::<usize>().expect("a number"));
    let view = View::ALL.into_iter().find(|known| known.word() == view).expect("a known view");
    let mut values = Vec::with_capacity(frames as usize);
    let mut last = 0;
    if kind == BARE {
        let ring = BareRing::open(&dir.join(name), SLOTS as usize, slot);
        println!("ready");
        while last < frames {
            let (seq, t0_ns) = if view == View::Leased { ring.next_locked(last) } else { ring.next(last) };
            values.push((mono_ns() - t0_ns) as f64 / 1e3);
            last = seq;
        }
    } else {
        let ring = Ring::attach(name, attach_options(dir)).expect("a ring");
        println!("ready");
        while last < frames {
            let (seq, t0_ns) = of_ours(&ring, view, last);
            values.push((mono_ns() - t0_ns) as f64 / 1e3);
            last = seq;
        }
    }
    for value in values.iter().skip(WARM_UP as usize) {
        println!("{value}");
    }
}

/// The next frame of our ring: its number, and when publishing it began.
fn of_ours(ring: &Ring, view: View, last: u64) -> (u64, i64) {
    let meta = match view {
        View::Leased => ring.lease_next(Some(PATIENCE)).expect("a frame").frame().meta,
        View::Described => {
            assert!(ring.wait(Sequence(last), Some(PATIENCE)), "a frame in time");
            ring.peek().expect("a frame")
        }
    };
    (meta.seq.0, meta.decoded_mono_ns)
}

/// One side of a round: what publishes, and its readers.
struct Lane<'a> {
    side: &'a mut dyn Side,
    readers: Vec<Reader>,
}

impl<'a> Lane<'a> {
    fn new(side: &'a mut dyn Side, folder: &Folder, name: &str, plan: Plan, slot: usize) -> Self {
        let readers = (0..plan.readers).map(|_| Reader::spawn(side.kind(), folder, name, plan, slot)).collect();
        Self { side, readers }
    }
}

/// One round: each side's readers get `plan.frames` frames, the sides in turn, so that both meet the same machine.
fn round(mut lanes: [Lane; 2], plan: Plan) -> [Vec<f64>; 2] {
    let mut due = Instant::now();
    for frame in 0..plan.all_frames() {
        for lane in &mut lanes {
            due += Duration::from_secs(1) / plan.fps / 2;
            lane.side.fill(frame as u8);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            lane.side.publish(mono_ns());
        }
    }
    lanes.map(|lane| lane.readers.into_iter().flat_map(Reader::end).collect())
}

#[derive(Clone, Copy)]
struct Plan {
    readers: usize,
    frames: u64,
    fps: u32,
    geometry: Geometry,
    view: View,
}

impl Plan {
    fn all_frames(&self) -> u64 {
        self.frames + WARM_UP
    }
}

/// Rounds of both at once: the medians of the rounds' medians and of their 99th percentiles, ours first.
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
        let lanes =
            [Lane::new(&mut ours, folder, &name, plan, slot), Lane::new(&mut bare, folder, &bare_name, plan, slot)];
        for (side, values) in rounds.iter_mut().zip(round(lanes, plan)) {
            side.push(of_round(values));
        }
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

fn lines(what: &str, view: View, [(ours, ours_high), (bare, bare_high)]: [(f64, f64); 2]) -> [Line; 3] {
    let (to, limit) = match view {
        View::Described => ("view", "bare ring"),
        View::Leased => ("leased view", "bare ring with a lock"),
    };
    let line = |of: &str, ours, beside: Option<f64>, bar| Line {
        what: format!("publish to {to}, {what}, {of}"),
        ours,
        unit: "us",
        beside: beside.map(|beside| (beside, limit)),
        bar,
    };
    [
        line("median", ours, Some(bare), Bar::Times(1.15)),
        line("median above the bare ring's", ours - bare, None, Bar::None),
        line("99 %", ours_high, Some(bare_high), Bar::Times(1.5)),
    ]
}

/// Views of 1080p at 100 frames a second in 1, 4 and 16 readers.
pub fn described(folder: &Folder) -> Vec<Line> {
    by_readers(folder, View::Described)
}

/// The same, leased.
pub fn leased(folder: &Folder) -> Vec<Line> {
    by_readers(folder, View::Leased)
}

fn by_readers(folder: &Folder, view: View) -> Vec<Line> {
    let geometry = Geometry::packed(1920, 1080, PixelFormat::Bgr).expect("a picture");
    let of = |readers: usize| {
        let plan = Plan { readers, frames: 200, fps: 100, geometry, view };
        lines(&format!("{readers} readers"), view, compare(folder, plan))
    };
    [1, 4, 16].into_iter().flat_map(of).collect()
}

/// 64x64 pictures and tensors of 50.3 MB at 20 frames a second: the size must not matter.
pub fn by_size(folder: &Folder) -> Vec<Line> {
    let plan = |side, format| {
        let geometry = Geometry::packed(side, side, format).expect("a picture");
        // Enough frames for a 99th percentile that is not the slowest of them.
        Plan { readers: 1, frames: 200, fps: 20, geometry, view: View::Described }
    };
    let small = compare(folder, plan(64, PixelFormat::Bgr));
    let large = compare(folder, plan(2048, PixelFormat::RgbPlanarF32));
    let view = View::Described;
    let mut all: Vec<Line> = lines("64x64", view, small).into_iter().chain(lines("50.3 MB", view, large)).collect();
    all.push(Line {
        what: "publish to view, 50.3 MB against 64x64, median".into(),
        ours: large[0].0,
        unit: "us",
        beside: Some((small[0].0, "ours, 64x64")),
        bar: Bar::Times(1.1),
    });
    all
}
