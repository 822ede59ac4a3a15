//! A camera without a camera: publishes frames whose every byte follows from their number.
//!
//! ```text
//! synthetic RING [--shm-dir DIR] [--size WxH[,WxH]...] [--per-size N] [--fps N] [--frames N] [--slots N] [--crc]
//!           [--policy fresh|protect|off] [--abandon N] [--remove]
//! ```
//!
//! Byte `k` of frame `seq` is `(seq * 31 + k) mod 251`, so any mixture of two frames shows. Several sizes take
//! turns every `--per-size` frames. `--fps 0` publishes as fast as it can; `--frames 0` makes only the empty ring.
//! `--crc` fills the payload checksum in. `--abandon N` gives every N-th slot back unpublished before it claims
//! again. A frame that policy `protect` refuses is counted and its turn is over. Prints `ready` when the ring is there;
//! ends after `--frames` when given (the ring then says `stopped`), else when standard input closes; `--remove` removes
//! the ring then.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::layout::crc32c;
use camring_ring::{
    ClaimError, Counter, FrameFlags, FrameMeta, Geometry, Housekeeping, LeasePolicy, PixelFormat, Reason, RingName,
    ShmDir, State, Writer, WriterOptions,
};

struct Plan {
    options: WriterOptions,
    sizes: Vec<(u32, u32)>,
    per_size: u64,
    fps: u32,
    frames: Option<u64>,
    crc: bool,
    abandon: Option<u64>,
    remove: bool,
}

fn parse() -> Result<Plan, String> {
    let mut words = std::env::args().skip(1);
    let ring = words.next().ok_or("usage: synthetic RING [--shm-dir DIR] [--size WxH] [--fps N] [--frames N]")?;
    let mut plan = Plan {
        options: WriterOptions::new(RingName::new(ring).map_err(|e| e.to_string())?),
        sizes: vec![(64, 48)],
        per_size: 50,
        fps: 25,
        frames: None,
        crc: false,
        abandon: None,
        remove: false,
    };
    while let Some(option) = words.next() {
        match option.as_str() {
            "--crc" => plan.crc = true,
            "--remove" => plan.remove = true,
            _ => with_value(&mut plan, &option, &words.next().ok_or_else(|| format!("{option} needs a value"))?)?,
        }
    }
    Ok(plan)
}

fn with_value(plan: &mut Plan, option: &str, value: &str) -> Result<(), String> {
    let number = || value.parse::<u64>().map_err(|_| format!("{option} {value}: expected a number"));
    match option {
        "--shm-dir" => plan.options.shm = ShmDir::new(value),
        "--size" => plan.sizes = value.split(',').map(size).collect::<Result<_, _>>()?,
        "--per-size" => plan.per_size = number()?.max(1),
        "--fps" => plan.fps = number()? as u32,
        "--frames" => plan.frames = Some(number()?),
        "--slots" => plan.options.slots = number()? as u32,
        "--abandon" => plan.abandon = Some(number()?.max(1)),
        "--policy" => {
            plan.options.lease_policy = match value {
                "fresh" => LeasePolicy::Fresh,
                "protect" => LeasePolicy::Protect,
                "off" => LeasePolicy::Off,
                other => return Err(format!("--policy {other}: expected fresh, protect or off")),
            };
        }
        other => return Err(format!("unknown option {other}")),
    }
    Ok(())
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let (width, height) = text.split_once('x').ok_or_else(|| format!("{text}: expected WxH"))?;
    match (width.parse(), height.parse()) {
        (Ok(width), Ok(height)) => Ok((width, height)),
        _ => Err(format!("{text}: expected WxH")),
    }
}

/// One period of the pattern for every remainder, so that filling is one copy.
fn pattern() -> Vec<u8> {
    (0..251u32 * 2).map(|k| (k % 251) as u8).collect()
}

fn fill(payload: &mut [u8], seq: u64, pattern: &[u8]) {
    let start = (seq * 31 % 251) as usize;
    for chunk in payload.chunks_mut(251) {
        chunk.copy_from_slice(&pattern[start..start + chunk.len()]);
    }
}

fn publish(writer: &mut Writer, geometry: Geometry, plan: &Plan, pattern: &[u8]) -> Result<(), String> {
    let arrival = (mono_ns(), real_ns());
    let next = writer.status().newest().0 + 1;
    if plan.abandon.is_some_and(|every| next.is_multiple_of(every)) {
        drop(writer.claim(geometry.len));
    }
    let mut slot = match writer.claim(geometry.len) {
        Ok(slot) => slot,
        Err(ClaimError::Leased) => {
            writer.count_drop(Counter::DroppedNoSlot);
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    };
    fill(slot.as_mut(), next, pattern);
    let mut meta = FrameMeta::new(geometry);
    meta.flags = FrameFlags::SYNTHETIC.with(FrameFlags::KEYFRAME);
    meta.source_seq = writer.source_seq() + 1;
    (meta.arrival_mono_ns, meta.arrival_real_ns) = arrival;
    meta.decoded_mono_ns = arrival.0;
    meta.payload_crc32c = if plan.crc { crc32c(slot.as_mut()) } else { 0 };
    writer.publish(slot, meta).map_err(|e| e.to_string())?;
    Ok(())
}

fn run() -> Result<(), String> {
    let plan = parse()?;
    let (mut writer, _) = Writer::start(plan.options.clone()).map_err(|e| e.to_string())?;
    let status = writer.status();
    let house = Housekeeping::spawn(status.clone(), |event| eprintln!("{event:?}")).map_err(|e| e.to_string())?;
    status.set_state(State::Connecting, Reason::None, 1, None);
    println!("ready");
    std::io::stdout().flush().map_err(|e| e.to_string())?;
    let stop = Arc::new(AtomicBool::new(false));
    let closed = Arc::clone(&stop);
    std::thread::spawn(move || {
        // End of input and a broken input both mean that nobody wants frames any more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        closed.store(true, Ordering::Relaxed);
    });
    let pattern = pattern();
    let started = Instant::now();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) && plan.frames != Some(count) {
        let (width, height) = plan.sizes[(count / plan.per_size) as usize % plan.sizes.len()];
        let geometry = Geometry::packed(width, height, PixelFormat::Bgr).ok_or("a size of zero")?;
        publish(&mut writer, geometry, &plan, &pattern)?;
        if count == 0 {
            status.set_state(State::Live, Reason::None, 0, None);
        }
        count += 1;
        if plan.fps > 0 {
            let due = Duration::from_nanos(count * 1_000_000_000 / u64::from(plan.fps));
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    while plan.frames == Some(0) && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    status.stopped(Reason::Operator);
    if plan.remove {
        let (shm, ring) = (plan.options.shm, plan.options.ring);
        drop((house, writer, status));
        camring_ring::remove(&shm, &ring).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("synthetic: {error}");
            ExitCode::FAILURE
        }
    }
}
