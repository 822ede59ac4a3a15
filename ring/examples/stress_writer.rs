//! The writer of the stress tests: a camera of any size, rate and policy that dies on demand.
//!
//! ```text
//! stress_writer RING --shm-dir DIR [--size WxH[:FORMAT][,...]] [--per-size N] [--fps N] [--frames N] [--slots N]
//!               [--policy fresh|protect|off] [--crc] [--abandon N] [--lock-wait-ms N]
//! ```
//!
//! Byte `k` of frame `seq` is `(seq * 31 + k) mod 251`, so any mixture of two frames shows. Several sizes take turns
//! every `--per-size` frames. `--fps 0` publishes as fast as it can. `--abandon N` claims every free slot and gives
//! all of them back after each N frames, as a flush of a pipeline does. Prints `ready` when the ring is there.
//!
//! Each line of standard input is an order: `size WxH[:FORMAT]`, `fps N`, `panic`, `abort`, `eat` (takes memory until
//! somebody ends it). Closed, it means an orderly end: the ring says `stopped`, and the last line printed is
//! `end published=N dropped=N`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use camring_ring::layout::crc32c;
use camring_ring::{
    ClaimError, Counter, FrameFlags, FrameMeta, Geometry, Housekeeping, LeasePolicy, PixelFormat, Reason, RingName,
    ShmDir, State, Writer, WriterOptions,
};

struct Plan {
    options: WriterOptions,
    sizes: Vec<Geometry>,
    per_size: u64,
    fps: u64,
    frames: Option<u64>,
    abandon: Option<u64>,
    crc: bool,
}

fn parse() -> Result<Plan, String> {
    let mut words = std::env::args().skip(1);
    let ring = words.next().ok_or("usage: stress_writer RING --shm-dir DIR [options]")?;
    let mut plan = Plan {
        options: WriterOptions::new(RingName::new(ring).map_err(|e| e.to_string())?),
        sizes: vec![geometry("64x48")?],
        per_size: 50,
        fps: 0,
        frames: None,
        abandon: None,
        crc: false,
    };
    // The tests choose their own moment to give up on a writer that has not ended yet.
    plan.options.lock_wait = Duration::from_secs(30);
    while let Some(option) = words.next() {
        if option == "--crc" {
            plan.crc = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{option} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{option} {value}: expected a number"));
        match option.as_str() {
            "--shm-dir" => plan.options.shm = ShmDir::new(&value),
            "--size" => plan.sizes = value.split(',').map(geometry).collect::<Result<_, _>>()?,
            "--per-size" => plan.per_size = number()?.max(1),
            "--fps" => plan.fps = number()?,
            "--frames" => plan.frames = Some(number()?),
            "--slots" => plan.options.slots = u32::try_from(number()?).map_err(|e| e.to_string())?,
            "--policy" => plan.options.lease_policy = policy(&value)?,
            "--abandon" => plan.abandon = Some(number()?.max(1)),
            "--lock-wait-ms" => plan.options.lock_wait = Duration::from_millis(number()?),
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(plan)
}

fn policy(word: &str) -> Result<LeasePolicy, String> {
    match word {
        "fresh" => Ok(LeasePolicy::Fresh),
        "protect" => Ok(LeasePolicy::Protect),
        "off" => Ok(LeasePolicy::Off),
        other => Err(format!("unknown policy {other}")),
    }
}

/// `WxH` or `WxH:FORMAT`; bgr unless named.
fn geometry(text: &str) -> Result<Geometry, String> {
    let (size, format) = text.split_once(':').unwrap_or((text, "bgr"));
    let wrong = || format!("{text}: expected WxH or WxH:FORMAT");
    let (width, height) = size.split_once('x').ok_or_else(wrong)?;
    let sides = (width.parse().map_err(|_| wrong())?, height.parse().map_err(|_| wrong())?);
    let format = PixelFormat::from_word(format).ok_or_else(wrong)?;
    Geometry::packed(sides.0, sides.1, format).ok_or_else(wrong)
}

/// One period of the pattern for every remainder, so that filling is one copy per period.
fn pattern() -> Vec<u8> {
    (0..251u32 * 2).map(|k| (k % 251) as u8).collect()
}

fn fill(payload: &mut [u8], seq: u64, pattern: &[u8]) {
    let start = (seq % 251 * 31 % 251) as usize;
    for chunk in payload.chunks_mut(251) {
        chunk.copy_from_slice(&pattern[start..start + chunk.len()]);
    }
}

/// Publishes one frame; `false` when every slot was taken and the frame was dropped.
fn publish(writer: &mut Writer, geometry: Geometry, crc: bool, pattern: &[u8]) -> Result<bool, String> {
    let next = writer.status().newest().0 + 1;
    let mut slot = match writer.claim(geometry.len) {
        Ok(slot) => slot,
        Err(ClaimError::NoSlot) => {
            writer.count_drop(Counter::DroppedNoSlot);
            return Ok(false);
        }
        // A larger ring that finds no room: the frames of that size are lost, the ring as it is goes on.
        Err(error @ (ClaimError::NoLargerRing(_) | ClaimError::Waiting)) => {
            if let ClaimError::NoLargerRing(_) = error {
                eprintln!("stress_writer: {error}");
            }
            writer.count_drop(Counter::DroppedOverload);
            return Ok(false);
        }
        Err(error) => return Err(error.to_string()),
    };
    fill(slot.as_mut(), next, pattern);
    let mut meta = FrameMeta::new(geometry);
    meta.flags = FrameFlags::SYNTHETIC.with(FrameFlags::KEYFRAME);
    meta.source_seq = writer.source_seq() + 1;
    meta.payload_crc32c = if crc { crc32c(slot.as_mut()) } else { 0 };
    writer.publish(slot, meta).map_err(|e| e.to_string())?;
    Ok(true)
}

/// Claims what can be claimed and gives all of it back.
fn flush(writer: &mut Writer, len: u64) {
    let mut claimed = Vec::new();
    while let Ok(slot) = writer.claim(len) {
        claimed.push(slot);
    }
}

/// What standard input says, line by line; its end ends the writer.
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

/// Takes and touches memory until somebody ends this process.
fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&eaten);
    }
}

/// Carries an order out; `false` when it was to stop.
fn obey(orders: &Receiver<String>, plan: &mut Plan) -> Result<bool, String> {
    let order = match orders.try_recv() {
        Ok(order) => order,
        Err(TryRecvError::Empty) => return Ok(true),
        Err(TryRecvError::Disconnected) => return Ok(false),
    };
    match order.split_once(' ').unwrap_or((&order, "")) {
        ("size", size) => plan.sizes = vec![geometry(size)?],
        ("fps", fps) => plan.fps = fps.parse().map_err(|_| format!("fps {fps}: expected a number"))?,
        ("panic", _) => panic!("as ordered"),
        ("abort", _) => std::process::abort(),
        ("eat", _) => eat(),
        (other, _) => return Err(format!("unknown order {other}")),
    }
    Ok(true)
}

fn run() -> Result<(), String> {
    let mut plan = parse()?;
    let (mut writer, _) = Writer::start(plan.options.clone()).map_err(|e| e.to_string())?;
    let status = writer.status();
    let _house = Housekeeping::spawn(status.clone(), |event| eprintln!("{event:?}")).map_err(|e| e.to_string())?;
    status.set_state(State::Live, Reason::None, 0, None);
    let orders = orders();
    say("ready")?;
    let (pattern, mut due) = (pattern(), Instant::now());
    let (mut published, mut dropped) = (0, 0);
    while plan.frames.is_none_or(|frames| published < frames) && obey(&orders, &mut plan)? {
        let geometry = plan.sizes[(published / plan.per_size) as usize % plan.sizes.len()];
        if publish(&mut writer, geometry, plan.crc, &pattern)? {
            published += 1;
        } else {
            dropped += 1;
        }
        if plan.abandon.is_some_and(|every| published % every == 0) {
            flush(&mut writer, geometry.len);
        }
        due = match 1_000_000_000u64.checked_div(plan.fps) {
            Some(period_ns) => due + Duration::from_nanos(period_ns),
            None => Instant::now(),
        };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    status.stopped(Reason::Operator);
    say(&format!("end published={published} dropped={dropped}"))
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stress_writer: {error}");
            ExitCode::FAILURE
        }
    }
}
