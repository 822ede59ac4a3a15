//! `camring bench`: how fast this host hands frames to readers, in words.
//!
//! A writer here, readers in processes of their own, a ring that is removed afterwards; no camera, no decoder. First
//! frames at a camera's pace, then as fast as they can be written.
//!
//! # Keys of `--json`
//!
//! | key | meaning |
//! |---|---|
//! | `verdict`, `why` | `good`, `busy` or `poor`, and what that says |
//! | `size`, `readers`, `fps`, `frames`, `slots` | what was handed over at a camera's pace |
//! | `view_us_p50`, `view_us_p99` | from the call that publishes until a reader sees the frame, in place |
//! | `copy_us_p50`, `copy_us_p99` | until it has a copy of its own |
//! | `publish_us_p50`, `publish_us_p99` | length of that call: what hand-over costs the writer, pixels apart |
//! | `read`, `skipped` | frames that all readers together got, and that they did not |
//! | `full_speed_fps`, `full_speed_gb_s` | written without pause, copied into the ring |
//! | `memcpy_gb_s` | the same bytes copied within this process, in the same run |
//! | `slowest_reader_fps` | frames that the slowest reader copied meanwhile, per second |
//! | `processors`, `load` | of the host; the load before |

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use camring_ring::clock::mono_ns;
use camring_ring::{
    AttachOptions, Capacity, FrameMeta, Geometry, HugePages, PixelFormat, Ring, RingName, Sequence, ShmDir, Writer,
    WriterOptions,
};
use crossbeam_channel::{Receiver, bounded};
use serde::{Deserialize, Serialize};

use super::Global;
use super::output::{attach_failure, create_failure, emit_json, emit_line, read_failure};
use super::progress::Progress;
use crate::exit::{Exit, Failure};

const SLOTS: u32 = 8;
const FPS: u32 = 30;
/// Frames at the beginning that are not counted: the first touch of everything.
const WARM_UP: u64 = 10;
/// Pictures that are written in turn, so that caches stay cold.
const SOURCES: usize = 4;
/// For a reader to come up, and to say what it saw.
const PATIENCE: Duration = Duration::from_secs(30);
/// A reader that gets no frame for so long is at its end.
const QUIET: Duration = Duration::from_millis(700);
/// How long frames are written without pause.
const FULL_SPEED: Duration = Duration::from_secs(2);
/// Of a view, 99 %: above it, something keeps readers waiting.
const GOOD_US: f64 = 5_000.0;

/// Measure how fast this host hands frames to readers, and say whether that is good.
///
/// Writes frames into a ring of its own, at 30 a second and then as fast as they go, with readers in processes of
/// their own; takes ten seconds and no camera. Other work on the host is part of what is measured. Ends with 0 whatever
/// the verdict.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Size of the frames, three bytes a pixel.
    #[arg(long, default_value = "1920x1080", value_name = "WxH", value_parser = size)]
    size: (u32, u32),
    /// Readers, each a process of its own.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    readers: u32,
    /// How long to hand frames over at 30 a second.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Be a reader of this ring, up to this frame at a camera's pace.
    #[arg(long, hide = true, num_args = 2, value_names = ["RING", "SEQ"])]
    reader: Option<Vec<String>>,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let usable = parsed.filter(|(width, height)| (16..=16384).contains(width) && (16..=16384).contains(height));
    usable.ok_or_else(|| "expected a size such as 1920x1080, 16 to 16384 either way".to_owned())
}

/// What a reader saw; its one line of output after `ready`.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Seen {
    view_us: Vec<f64>,
    copy_us: Vec<f64>,
    /// Frames read and skipped at a camera's pace.
    read: u64,
    skipped: u64,
    /// Frames copied after that, and in what time.
    fast: u64,
    fast_seconds: f64,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    verdict: &'static str,
    why: &'static str,
    size: String,
    readers: u32,
    fps: u32,
    frames: u64,
    slots: u32,
    view_us_p50: f64,
    view_us_p99: f64,
    copy_us_p50: f64,
    copy_us_p99: f64,
    publish_us_p50: f64,
    publish_us_p99: f64,
    read: u64,
    skipped: u64,
    full_speed_fps: f64,
    full_speed_gb_s: f64,
    memcpy_gb_s: f64,
    slowest_reader_fps: f64,
    processors: usize,
    load: f64,
}

/// What the writer measured.
struct Written {
    publish_us: Vec<f64>,
    fast: u64,
    fast_seconds: f64,
}

/// A reader in a process of its own; killed when dropped.
struct Reader {
    child: Child,
    lines: Receiver<String>,
}

impl Reader {
    fn spawn(global: &Global, ring: &RingName, last: u64) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .args(["bench", "--reader", ring.as_str(), &last.to_string(), "--shm-dir"])
            .arg(&global.shm_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a reader")?;
        let output = child.stdout.take().context("a reader without output")?;
        let (sender, lines) = bounded(2);
        // Ends with the reader's output; a full or closed channel ends it too.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    fn line(&self) -> anyhow::Result<String> {
        let waited = self.lines.recv_timeout(PATIENCE);
        waited
            .map_err(|_| anyhow!("a reader ended, or said nothing for {} s; see its message above", PATIENCE.as_secs()))
    }

    fn seen(&self) -> anyhow::Result<Seen> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("a reader printed {line:?}, expected one JSON object"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It has said everything or is being thrown away: there is nobody left to tell when this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the command.
///
/// # Errors
///
/// 73 no room for the ring, 1 when a reader fails.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    if let Some([ring, last]) = args.reader.as_deref() {
        let last = last.parse().map_err(|_| Failure::message(Exit::Usage, "--reader wants a ring and a number"))?;
        return read(global, ring, last);
    }
    let shm = ShmDir::new(&global.shm_dir);
    let ring = RingName::new(format!("bench-{}", std::process::id())).map_err(|e| Failure::new(Exit::Failure, e))?;
    let outcome = measure(args, global, &ring, &shm);
    let removed = camring_ring::remove(&shm, &ring);
    let outcome = outcome?;
    removed.map_err(|e| Failure::new(Exit::Failure, e))?;
    let listener = if args.json { emit_json(&outcome)? } else { emit_line(&text(args, &outcome))? };
    // Whoever closed the pipe wants no more, and there is no more.
    let _ = listener;
    Ok(())
}

fn measure(args: &Args, global: &Global, ring: &RingName, shm: &ShmDir) -> Result<Outcome, Failure> {
    let (width, height) = args.size;
    let geometry = Geometry::packed(width, height, PixelFormat::Bgr)
        .ok_or_else(|| Failure::message(Exit::Usage, format!("a picture of {width}x{height} cannot be")))?;
    let load = load();
    let progress = Progress::spinner("copying in this process, for comparison");
    let sources = sources(geometry.len);
    let memcpy = memcpy_gb_s(&sources);
    let mut options = WriterOptions::new(ring.clone());
    options.shm = shm.clone();
    options.slots = SLOTS;
    options.capacity = Capacity::Bytes(geometry.len);
    options.huge_pages = HugePages::Try;
    let (mut writer, _) = Writer::start(options).map_err(create_failure)?;
    let frames = args.seconds * u64::from(FPS) + WARM_UP;
    let readers = (0..args.readers).map(|_| Reader::spawn(global, ring, frames)).collect::<Result<Vec<_>, _>>()?;
    for reader in &readers {
        reader.line()?;
    }
    progress.say(&format!("handing over {FPS} frames a second for {} s, then as many as go", args.seconds));
    let written = write(&mut writer, geometry, frames, &sources)?;
    progress.say("waiting for the readers' figures");
    let seen = readers.iter().map(Reader::seen).collect::<Result<Vec<_>, _>>()?;
    outcome(args, frames - WARM_UP, geometry.len, &written, &seen, (memcpy, load))
}

/// Frames at a camera's pace, then without pause.
fn write(writer: &mut Writer, geometry: Geometry, frames: u64, sources: &[Vec<u8>]) -> anyhow::Result<Written> {
    let mut next = 0;
    let mut fill = |writer: &mut Writer| {
        next += 1;
        writer.claim(geometry.len).map(|mut slot| {
            slot.as_mut().copy_from_slice(&sources[next % SOURCES]);
            slot
        })
    };
    let mut publish_us = Vec::with_capacity(usize::try_from(frames).unwrap_or_default());
    let mut due = Instant::now();
    for _ in 0..frames {
        due += Duration::from_secs(1) / FPS;
        let slot = fill(writer).context("no slot to write into")?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut meta = FrameMeta::new(geometry);
        meta.decoded_mono_ns = mono_ns();
        writer.publish(slot, meta).context("cannot publish")?;
        publish_us.push(microseconds(mono_ns() - meta.decoded_mono_ns));
    }
    // The last of them is to be read as the others were.
    due += Duration::from_secs(1) / FPS;
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    let began = Instant::now();
    let mut fast = 0;
    while began.elapsed() < FULL_SPEED {
        let slot = fill(writer).context("no slot to write into")?;
        writer.publish(slot, FrameMeta::new(geometry)).context("cannot publish")?;
        fast += 1;
    }
    Ok(Written { publish_us, fast, fast_seconds: began.elapsed().as_secs_f64() })
}

/// The reader's process.
fn read(global: &Global, ring: &str, last: u64) -> Result<(), Failure> {
    let options =
        AttachOptions { shm: ShmDir::new(&global.shm_dir), timeout: Some(PATIENCE), ..AttachOptions::default() };
    let ring = Ring::attach(ring, options).map_err(attach_failure)?;
    let mut pixels = Vec::new();
    let mut seen = Seen::default();
    if emit_line("ready")? == super::output::Listener::Gone {
        return Ok(());
    }
    let mut before = Sequence(0);
    let mut patience = PATIENCE;
    while before.0 < last && ring.wait(before, Some(patience)) {
        patience = QUIET;
        let viewed_ns = ring.peek().map(|meta| (meta.seq, mono_ns())).map_err(read_failure)?;
        let frame = ring.next(&mut pixels, Some(QUIET)).map_err(read_failure)?;
        let copied_ns = mono_ns();
        // Of the frames between the last one and this one those that count.
        seen.skipped += (frame.meta.seq.0 - 1).min(last).saturating_sub(before.0.max(WARM_UP));
        before = frame.meta.seq;
        if before.0 <= WARM_UP || before.0 > last {
            continue;
        }
        seen.read += 1;
        if viewed_ns.0 == frame.meta.seq {
            seen.view_us.push(microseconds(viewed_ns.1 - frame.meta.decoded_mono_ns));
        }
        seen.copy_us.push(microseconds(copied_ns - frame.meta.decoded_mono_ns));
    }
    let began = Instant::now();
    let mut ended = began;
    while ring.wait(before, Some(QUIET)) {
        match ring.latest(&mut pixels) {
            Ok(frame) => {
                before = frame.meta.seq;
                seen.fast += 1;
                ended = Instant::now();
            }
            // The writer came round while this was being copied.
            Err(camring_ring::ReadError::Overrun { .. }) => {}
            Err(error) => return Err(read_failure(error)),
        }
    }
    seen.fast_seconds = ended.duration_since(began).as_secs_f64();
    emit_json(&seen).map(drop)
}

fn outcome(
    args: &Args,
    frames: u64,
    bytes: u64,
    written: &Written,
    seen: &[Seen],
    (memcpy_gb_s, load): (f64, f64),
) -> Result<Outcome, Failure> {
    let all = |pick: fn(&Seen) -> &Vec<f64>| {
        let mut values: Vec<f64> = seen.iter().flat_map(pick).copied().collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (view, copy) = (all(|seen| &seen.view_us), all(|seen| &seen.copy_us));
    let mut publish = written.publish_us.clone();
    publish.sort_by(f64::total_cmp);
    let of = |sorted: &[f64], percent| {
        percentile(sorted, percent).ok_or_else(|| Failure::message(Exit::Failure, "the readers saw no frame in time"))
    };
    let (read, skipped) = (seen.iter().map(|one| one.read).sum(), seen.iter().map(|one| one.skipped).sum());
    let view_us_p99 = of(&view, 99)?;
    let (verdict, why) = verdict(view_us_p99, skipped, read);
    let full_speed_fps = written.fast as f64 / written.fast_seconds;
    let speeds = seen.iter().map(|one| one.fast as f64 / one.fast_seconds.max(1e-3));
    Ok(Outcome {
        verdict,
        why,
        size: format!("{}x{}", args.size.0, args.size.1),
        readers: args.readers,
        fps: FPS,
        frames,
        slots: SLOTS,
        view_us_p50: of(&view, 50)?,
        view_us_p99,
        copy_us_p50: of(&copy, 50)?,
        copy_us_p99: of(&copy, 99)?,
        publish_us_p50: of(&publish, 50)?,
        publish_us_p99: of(&publish, 99)?,
        read,
        skipped,
        full_speed_fps,
        full_speed_gb_s: full_speed_fps * bytes as f64 / 1e9,
        memcpy_gb_s,
        slowest_reader_fps: speeds.fold(f64::INFINITY, f64::min),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        load,
    })
}

/// Plain words for it.
fn verdict(view_us_p99: f64, skipped: u64, read: u64) -> (&'static str, &'static str) {
    let period_us = 1e6 / f64::from(FPS);
    if view_us_p99 > period_us || skipped * 50 > read {
        return (
            "poor",
            "frames come a frame late or not at all; use fewer readers or a smaller picture, or leave the processors less other work",
        );
    }
    if view_us_p99 > GOOD_US || skipped > 0 {
        return ("busy", "frames come, some of them late; other work keeps the processors from the readers");
    }
    ("good", "readers have frames as fast as the kernel wakes them")
}

fn text(args: &Args, outcome: &Outcome) -> String {
    let o = outcome;
    let time = |us: f64| if us < 1000.0 { format!("{us:.0} us") } else { format!("{:.1} ms", us / 1e3) };
    let pair = |p50, p99| format!("{:>8} median  {:>8} 99 %", time(p50), time(p99));
    [
        format!(
            "{} frames of {} at {} a second, {} readers in processes of their own, {} processors, load {:.1}",
            o.frames, o.size, o.fps, args.readers, o.processors, o.load
        ),
        format!("view     {}  publish call -> a reader sees the frame", pair(o.view_us_p50, o.view_us_p99)),
        format!("copy     {}  publish call -> a reader has a copy of its own", pair(o.copy_us_p50, o.copy_us_p99)),
        format!("publish  {}  the call, which is what hand-over costs", pair(o.publish_us_p50, o.publish_us_p99)),
        format!("skipped  {} of {}", o.skipped, o.read + o.skipped),
        format!(
            "speed    {:.0} frames a second written without pause, {:.1} GB/s; memcpy alone {:.1} GB/s; slowest reader {:.0} frames a second",
            o.full_speed_fps, o.full_speed_gb_s, o.memcpy_gb_s, o.slowest_reader_fps
        ),
        format!("verdict  {}: {}", o.verdict, o.why),
    ]
    .join("\n")
}

fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
}

fn microseconds(ns: i64) -> f64 {
    ns as f64 / 1e3
}

/// Gradients with noise: no page is like another.
fn sources(bytes: u64) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(1);
    let picture = |_| (0..bytes).map(|at| (at / 64) as u8 ^ random.u8(..16)).collect();
    (0..SOURCES).map(picture).collect()
}

/// What this process copies in a second, over rotating places.
fn memcpy_gb_s(sources: &[Vec<u8>]) -> f64 {
    let bytes = sources[0].len();
    let mut places = vec![vec![1u8; bytes]; SLOTS as usize];
    let began = Instant::now();
    let mut copied = 0usize;
    while began.elapsed() < Duration::from_millis(300) || copied < places.len() {
        let place = copied % places.len();
        places[place].copy_from_slice(&sources[copied % SOURCES]);
        std::hint::black_box(&places);
        copied += 1;
    }
    (copied * bytes) as f64 / began.elapsed().as_secs_f64() / 1e9
}

/// The host's load over the last minute; 0 where the kernel does not tell.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_from_late_and_missing_frames() {
        assert_eq!(verdict(300.0, 0, 1000).0, "good");
        assert_eq!(verdict(6_000.0, 0, 1000).0, "busy");
        assert_eq!(verdict(300.0, 3, 1000).0, "busy");
        assert_eq!(verdict(40_000.0, 0, 1000).0, "poor");
        assert_eq!(verdict(300.0, 100, 1000).0, "poor");
    }

    #[test]
    fn a_size_is_two_numbers_that_a_picture_can_have() {
        assert_eq!(size("1920x1080"), Ok((1920, 1080)));
        for wrong in ["1920", "0x0", "1920x", "x", "99999x10", "-1x10"] {
            assert!(size(wrong).is_err_and(|text| text.contains("1920x1080")), "{wrong}");
        }
    }

    #[test]
    fn percentiles_lie_inside_what_was_measured() {
        let values = [1.0, 2.0, 3.0];
        assert_eq!(
            (percentile(&values, 50), percentile(&values, 100), percentile(&[], 50)),
            (Some(2.0), Some(3.0), None)
        );
    }
}
