//! The readers of the stress tests: each checks every byte it is given and stops at the first broken promise.
//!
//! ```text
//! stress_reader copy|lease|hold|attach RING --shm-dir DIR [--floor SEQ] [--busy-ms N] [--frames N] [--ask-old]
//! ```
//!
//! `copy` copies each newest frame; `lease` leases it and looks at it in place, when it gets it and before it gives it
//! back; both are busy with a frame for a random time up to `--busy-ms`. `hold` does what standard input says: `lease`,
//! `check`, `release`. `attach` attaches and detaches `--frames` times and prints what that left behind.
//!
//! `copy` and `lease` print a line `tally NAME=N ...` about fifty times a second, so that the counts of a reader that is
//! killed are not lost, and at their end, which is after `--frames` frames or when standard input closes. The order
//! `report` makes `copy` print `phase ...`: counts and latencies since the last such order. A frame below `--floor`,
//! which somebody has seen before, is a broken promise: `violation ...` and exit code 1.

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::layout::crc32c;
use camring_ring::{AttachOptions, Frame, Lease, LeasePolicy, ReadError, Ring, Sequence, ShmDir};

const SAY_EVERY: Duration = Duration::from_millis(20);
/// A reader looks at its orders at least this often.
const LOOK: Duration = Duration::from_millis(50);
/// Frames between two questions for one of the past.
const ASK_EVERY: u64 = 500;

struct Plan {
    mode: String,
    name: String,
    attach: AttachOptions,
    floor: u64,
    busy_ms: u64,
    frames: Option<u64>,
    ask_old: bool,
}

fn parse() -> Result<Plan, String> {
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().ok_or("usage: stress_reader MODE RING [options]");
    let (mode, name) = (next()?, next()?);
    let mut plan =
        Plan { mode, name, attach: AttachOptions::default(), floor: 0, busy_ms: 0, frames: None, ask_old: false };
    plan.attach.timeout = Some(Duration::from_secs(60));
    while let Some(option) = words.next() {
        if option == "--ask-old" {
            plan.ask_old = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{option} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{option} {value}: expected a number"));
        match option.as_str() {
            "--shm-dir" => plan.attach.shm = ShmDir::new(&value),
            "--floor" => plan.floor = number()?,
            "--busy-ms" => plan.busy_ms = number()?,
            "--frames" => plan.frames = Some(number()?),
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(plan)
}

/// What a reader has counted; `changed` leases are those of the revoked ones whose bytes were seen to change.
#[derive(Default)]
struct Tally {
    copies: u64,
    constant: u64,
    revoked: u64,
    changed: u64,
    overruns: u64,
    refused_old: u64,
    last: u64,
}

struct Reader {
    ring: Ring,
    plan: Plan,
    tally: Tally,
    orders: Receiver<String>,
    said: Instant,
    /// Whether this handle has returned a frame.
    read_before: bool,
    phase: Phase,
    random: u64,
}

/// What `report` reports.
#[derive(Default)]
struct Phase {
    frames: u64,
    skipped: u64,
    /// The newest frame of the time before.
    after: u64,
    latencies_us: Vec<u64>,
}

impl Reader {
    fn new(plan: Plan) -> Result<Self, String> {
        let ring = Ring::attach(&plan.name, plan.attach.clone()).map_err(|e| e.to_string())?;
        let tally = Tally { last: plan.floor.saturating_sub(1), ..Tally::default() };
        let random = u64::from(std::process::id()) << 32 | mono_ns().cast_unsigned() & 0xFFFF_FFFF;
        let (said, phase) = (Instant::now(), Phase::default());
        Ok(Self { ring, plan, tally, orders: orders(), said, read_before: false, phase, random })
    }

    /// Reads until there were enough frames or nobody wants more.
    fn run(&mut self, read: impl Fn(&mut Self, &mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
        let mut pixels = Vec::new();
        while self.plan.frames.is_none_or(|frames| self.tally.copies + self.tally.constant < frames) {
            match self.orders.try_recv() {
                Ok(order) if order == "report" => self.report()?,
                Ok(other) => return Err(format!("unknown order {other}")),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {}
            }
            read(self, &mut pixels)?;
            if self.said.elapsed() >= SAY_EVERY {
                self.say()?;
            }
        }
        self.say()
    }

    fn copy(&mut self, pixels: &mut Vec<u8>) -> Result<(), String> {
        let frame = match self.ring.next(pixels, Some(LOOK)) {
            Ok(frame) => frame,
            Err(error) => return self.forgive(&error),
        };
        let latency_ns = mono_ns() - frame.meta.publish_mono_ns;
        check(&frame, pixels)?;
        self.tally.copies += 1;
        self.account(&frame, latency_ns)?;
        if self.plan.ask_old && self.tally.copies.is_multiple_of(ASK_EVERY) {
            self.ask_for_old(pixels)?;
        }
        self.busy();
        Ok(())
    }

    fn lease(&mut self, _: &mut Vec<u8>) -> Result<(), String> {
        let lease = match self.ring.lease_next(Some(LOOK)) {
            Ok(lease) => lease,
            Err(error) => return self.forgive(&error),
        };
        let frame = *lease.frame();
        let before = Look::at(&lease);
        if lease.is_valid()
            && let Some(problem) = before.problem
        {
            return Err(problem);
        }
        self.account(&frame, mono_ns() - frame.meta.publish_mono_ns)?;
        self.busy();
        let after = Look::at(&lease);
        let changed = before.hash != after.hash;
        match lease.release() {
            Ok(()) if changed => {
                return Err(format!("frame {} changed under a lease that ended valid", frame.meta.seq));
            }
            Ok(()) => {
                if let Some(problem) = after.problem {
                    return Err(problem);
                }
                self.tally.constant += 1;
            }
            Err(ReadError::Revoked { .. }) if self.ring.layout().lease_policy == LeasePolicy::Protect as u32 => {
                return Err(format!("the lease of frame {} was revoked under policy protect", frame.meta.seq));
            }
            Err(ReadError::Revoked { .. }) => {
                self.tally.revoked += 1;
                self.tally.changed += u64::from(changed);
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// Numbers only go forward, over killed writers and over readers before this one; skipped counts are exact.
    fn account(&mut self, frame: &Frame, latency_ns: i64) -> Result<(), String> {
        let (seq, last) = (frame.meta.seq.0, self.tally.last);
        if seq <= last {
            return Err(format!("frame {seq} after frame {last}"));
        }
        let skipped = if std::mem::replace(&mut self.read_before, true) { seq - last - 1 } else { 0 };
        if frame.skipped != skipped {
            return Err(format!("frame {seq} after frame {last} says that {} were skipped", frame.skipped));
        }
        self.tally.last = seq;
        if self.phase.frames == 0 {
            self.phase.after = seq - 1 - skipped;
        }
        self.phase.frames += 1;
        self.phase.skipped += skipped;
        if self.phase.latencies_us.len() < 1 << 20 {
            self.phase.latencies_us.push(latency_ns.max(0).cast_unsigned() / 1000);
        }
        Ok(())
    }

    /// Asks for a frame of the past: that very frame, which somebody may have leased, or a refusal; never another one.
    fn ask_for_old(&mut self, pixels: &mut Vec<u8>) -> Result<(), String> {
        let asked = self.tally.last.saturating_sub(u64::from(self.ring.layout().slot_count));
        match self.ring.at(Sequence(asked), pixels) {
            Err(ReadError::Overrun { .. }) => self.tally.refused_old += 1,
            Ok(frame) if frame.meta.seq.0 == asked => check(&frame, pixels)?,
            Ok(frame) => return Err(format!("asked for frame {asked} and got frame {}", frame.meta.seq)),
            Err(error) => return Err(format!("asked for frame {asked}: {error}")),
        }
        Ok(())
    }

    /// Reads that give nothing without anything being wrong.
    fn forgive(&mut self, error: &ReadError) -> Result<(), String> {
        match error {
            ReadError::Timeout { .. } | ReadError::NoFrame { .. } => Ok(()),
            ReadError::Overrun { .. } => {
                self.tally.overruns += 1;
                Ok(())
            }
            error => Err(error.to_string()),
        }
    }

    /// Does as if it used the frame.
    fn busy(&mut self) {
        if self.plan.busy_ms > 0 {
            // xorshift64: different in every process, good enough for different moments.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            std::thread::sleep(Duration::from_micros(self.random % (self.plan.busy_ms * 1000)));
        }
    }

    fn say(&mut self) -> Result<(), String> {
        self.said = Instant::now();
        let (tally, stats) = (&self.tally, self.ring.stats());
        say(&format!(
            "tally copies={} constant={} revoked={} changed={} overruns={} retries={} skipped={} missed={} refused_old={} \
             last={}",
            tally.copies,
            tally.constant,
            tally.revoked,
            tally.changed,
            tally.overruns,
            stats.retries,
            stats.skipped,
            stats.missed_wakes,
            tally.refused_old,
            tally.last
        ))
    }

    fn report(&mut self) -> Result<(), String> {
        let Phase { frames, skipped, after, mut latencies_us } = std::mem::take(&mut self.phase);
        latencies_us.sort_unstable();
        let quantile = |percent: usize| latencies_us.get(latencies_us.len() * percent / 100).copied().unwrap_or(0);
        say(&format!(
            "phase frames={frames} skipped={skipped} after={after} last={} p50_us={} p99_us={}",
            self.tally.last,
            quantile(50),
            quantile(99)
        ))
    }

    /// Holds one lease at a time, as ordered.
    fn hold(&mut self) -> Result<(), String> {
        let mut held: Option<Lease> = None;
        while let Ok(order) = self.orders.recv() {
            match (order.as_str(), &held) {
                ("lease", None) => {
                    let lease = self.ring.lease_next(Some(Duration::from_secs(30))).map_err(|e| e.to_string())?;
                    say(&format!("held {}", lease.frame().meta.seq))?;
                    held = Some(lease);
                }
                ("check", Some(lease)) => say(verdict(lease.is_valid()))?,
                ("release", Some(_)) => {
                    let ended = held.take().map(Lease::release);
                    say(verdict(matches!(ended, Some(Ok(())))))?;
                }
                (other, _) => return Err(format!("the order {other} makes no sense now")),
            }
        }
        Ok(())
    }
}

fn verdict(valid: bool) -> &'static str {
    if valid { "valid" } else { "revoked" }
}

/// What was seen in place at one moment.
struct Look {
    hash: u32,
    problem: Option<String>,
}

impl Look {
    fn at(lease: &Lease) -> Self {
        // SAFETY: what is read here counts only where the lease says afterwards that the bytes were constant; for the
        // others only whether two looks differed, which proves nothing and is printed as a number.
        let bytes = std::hint::black_box(unsafe { lease.bytes() });
        Self { hash: crc32fast::hash(bytes), problem: check(lease.frame(), bytes).err() }
    }
}

/// Every byte of a frame follows from its number; so does the checksum, where there is one.
fn check(frame: &Frame, pixels: &[u8]) -> Result<(), String> {
    let seq = frame.meta.seq.0;
    let start = (seq % 251 * 31 % 251) as usize;
    let mut row = [0; 251];
    row.iter_mut().enumerate().for_each(|(k, byte)| *byte = ((start + k) % 251) as u8);
    if pixels.len() as u64 != frame.meta.geometry.len {
        return Err(format!("frame {seq} has {} bytes, expected {}", pixels.len(), frame.meta.geometry.len));
    }
    if let Some(at) = pixels.chunks(251).position(|chunk| *chunk != row[..chunk.len()]) {
        return Err(format!("frame {seq} is torn near byte {}", at * 251));
    }
    let crc = frame.meta.payload_crc32c;
    if crc != 0 && crc32c(pixels) != crc {
        return Err(format!("frame {seq} has another checksum than its metadata"));
    }
    Ok(())
}

fn orders() -> Receiver<String> {
    let (send, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    orders
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| e.to_string())
}

/// Open descriptors and mappings of this process.
fn left_behind() -> Result<(usize, usize), String> {
    let fds = std::fs::read_dir("/proc/self/fd").map_err(|e| e.to_string())?.count();
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| e.to_string())?;
    Ok((fds, maps.lines().filter(|line| line.contains("camring")).count()))
}

/// Attaches, reads a frame and detaches, again and again.
fn attach(plan: &Plan) -> Result<(), String> {
    let (count, mut pixels, mut last) = (plan.frames.unwrap_or(1000), Vec::new(), plan.floor);
    let one = |pixels: &mut Vec<u8>| -> Result<u64, String> {
        let ring = Ring::attach(&plan.name, plan.attach.clone()).map_err(|e| e.to_string())?;
        let frame = ring.latest(pixels).map_err(|e| e.to_string())?;
        check(&frame, pixels)?;
        Ok(frame.meta.seq.0)
    };
    one(&mut pixels)?;
    let before = left_behind()?;
    let began = Instant::now();
    for _ in 0..count {
        let seq = one(&mut pixels)?;
        if seq < last {
            return Err(format!("frame {seq} after frame {last}"));
        }
        last = seq;
    }
    let per_second = count as f64 / began.elapsed().as_secs_f64();
    let after = left_behind()?;
    say(&format!(
        "attached count={count} per_second={per_second:.0} fds_before={} fds_after={} maps_before={} maps_after={}",
        before.0, after.0, before.1, after.1
    ))
}

fn run() -> Result<(), String> {
    let plan = parse()?;
    match plan.mode.as_str() {
        "copy" => Reader::new(plan)?.run(Reader::copy),
        "lease" => Reader::new(plan)?.run(Reader::lease),
        "hold" => Reader::new(plan)?.hold(),
        "attach" => attach(&plan),
        other => Err(format!("unknown mode {other}")),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("violation {problem}");
            ExitCode::FAILURE
        }
    }
}
