//! `camring watch`: a line per frame, and a line per change of the camera's state.
//!
//! # Keys of `--json`
//!
//! One object per line; the keys are stable. A change of state has `event` = `state` and `null` for what only a frame
//! has.
//!
//! | key | meaning |
//! |---|---|
//! | `event` | `frame` or `state` |
//! | `seq` | number of the frame |
//! | `skipped` | frames published since the one before in this output; 0 for the first |
//! | `age_ms` | since the frame's last packet arrived |
//! | `publish_to_read_us` | from publication to this read |
//! | `width`, `height`, `format` | of the frame |
//! | `state`, `reason` | of the camera, now |
//! | `writer_alive` | whether there is a daemon |
//! | `writer_epoch`, `geometry_epoch`, `session`, `generation` | of the frame |
//! | `flags` | array of words |
//! | `source_seq`, `pts_ns`, `lag_ms` | number of the decoded picture, its time in the stream, arrival to conversion |
//! | `painted`, `latency_ms`, `verify_error` | with `--verify`: the number painted by the simulated camera, time from its painting to this read, why there is none |
//!
//! With `--latency` frames have no lines; at the end there is one object with `event` = `latency`: `ring`, `basis`
//! (`painted` or `arrival`; `null` without a frame), `frames`, `skipped`, `unreadable` (no time in the picture, where others had
//! one), `p50_ms`, `p90_ms`, `p99_ms`, `max_ms`, `buckets` (array of `le_ms`, `count`; the last one has no end).

use std::time::Duration;

use camring_ring::clock::mono_ns;
use camring_ring::{FrameMeta, Generation, Liveness, ReadError, Reason, Ring, Sequence, State, Status};
use serde::Serialize;

use super::Global;
use super::latency::Latencies;
use super::output::{Listener, Reading, Wait, duration, emit_json, emit_line, read_failure};
use crate::exit::Failure;
use crate::report::{Span, age_ms, milliseconds};

/// Print a line for every frame: number, frames skipped, age, size, flags.
///
/// Frames are described, not copied. An outage prints the camera's state and goes on. Ends with 0 after `--count`
/// frames, at Ctrl-C, or when the reader of its output goes away; with 75 after `--timeout` without a frame.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Camera, output or segment.
    ring: String,
    /// End after so many frames.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// End with code 75 when no new frame comes for so long, with 66 when the ring does not appear; default: never.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Copy every frame and check it: its checksum, if it has one, and the stamp that the simulated camera paints.
    #[arg(long)]
    verify: bool,
    /// Instead of the lines, a histogram at the end: from the time that the simulated camera paints into each picture,
    /// else from the arrival of its last packet, until this reader has a copy (or sees the frame, from arrival).
    #[arg(long, conflicts_with = "verify")]
    latency: bool,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

/// What a line says about a frame.
#[derive(Debug, Serialize)]
struct FrameLine {
    event: &'static str,
    seq: Option<u64>,
    skipped: Option<u64>,
    age_ms: Option<f64>,
    publish_to_read_us: Option<f64>,
    width: Option<u32>,
    height: Option<u32>,
    format: Option<String>,
    state: String,
    reason: String,
    writer_alive: bool,
    writer_epoch: u32,
    geometry_epoch: u32,
    session: u32,
    generation: String,
    flags: Vec<&'static str>,
    source_seq: Option<u64>,
    pts_ns: Option<i64>,
    lag_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    painted: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify_error: Option<String>,
}

/// The camera as a watcher sees it; a line is printed when it changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Shown {
    state: State,
    reason: Reason,
    writer_alive: bool,
    removed: bool,
}

impl Shown {
    fn of(ring: &Ring, status: &Status) -> Self {
        let writer_alive = ring.liveness() != Liveness::Gone;
        Self { state: status.state, reason: status.reason, writer_alive, removed: ring.is_removed() }
    }

    fn text(self, status: &Status) -> String {
        let mut text = self.state.to_string();
        let mut add = |part: &str| {
            text.push_str(", ");
            text.push_str(part);
        };
        if self.reason != Reason::None {
            add(&self.reason.to_string());
        }
        if !self.writer_alive && self.state != State::Stopped {
            add("dead writer");
        }
        if self.removed {
            add("removed by its operator");
        }
        let wait = status.next_retry_mono_ns.cast_signed() - mono_ns();
        if status.next_retry_mono_ns > 0 && wait > 0 && self.writer_alive {
            add(&format!("next try in {}", Span(milliseconds(wait))));
        }
        text
    }
}

/// A frame with what this output makes of it.
struct Seen {
    meta: FrameMeta,
    skipped: u64,
    read_mono_ns: i64,
    verified: Option<Verified>,
}

/// What `--verify` found.
#[derive(Debug, Default, PartialEq)]
struct Verified {
    painted: Option<u32>,
    latency_ms: Option<f64>,
    error: Option<String>,
}

struct Watch<'a> {
    args: &'a Args,
    ring: Ring,
    last: Sequence,
    generation: Generation,
    shown: Option<Shown>,
    pixels: Vec<u8>,
    latencies: Option<Latencies>,
}

/// Prints until something ends it.
///
/// # Errors
///
/// 66, 75, 76, 77 as above.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let mut wait = Wait::new(args.timeout).counted().interruptible()?;
    let Some(ring) = args.reading.attach(global, &args.ring, &wait)? else { return Ok(()) };
    let generation = ring.layout().ring_uuid;
    let latencies = args.latency.then(Latencies::default);
    let mut watch = Watch { args, ring, last: Sequence(0), generation, shown: None, pixels: Vec::new(), latencies };
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 && !wait.is_interrupted() {
        let Some(listener) = watch.step(&wait)? else {
            if wait.is_over() {
                watch.print_latencies()?;
                return Err(watch.timed_out(&wait));
            }
            continue;
        };
        if listener == Listener::Gone {
            break;
        }
        wait.restart();
        left -= 1;
    }
    watch.print_latencies()
}

impl Watch<'_> {
    /// Waits for one slice; prints a new frame if there is one, else a change of state. `None` = no frame.
    fn step(&mut self, wait: &Wait) -> Result<Option<Listener>, Failure> {
        self.begin_anew_after_reset();
        let seen = if self.ring.wait(self.last, Some(wait.slice())) { self.look()? } else { None };
        let status = self.ring.status();
        let shown = Shown::of(&self.ring, &status);
        let news = match self.shown {
            Some(before) => before != shown,
            // The first look at a healthy camera is no change.
            None => seen.is_none() && shown.state != State::Live,
        };
        self.shown = Some(shown);
        if news && self.print_state(&status, shown)? == Listener::Gone {
            return Ok(Some(Listener::Gone));
        }
        match seen {
            Some(seen) if self.collect(&seen) => Ok(Some(Listener::There)),
            Some(seen) => self.print_frame(&seen, &status, shown).map(Some),
            None => Ok(None),
        }
    }

    /// A generation that does not continue the numbers of the one before begins anew: nothing of it has been printed.
    ///
    /// The handle counts such resets only for readers that take frames, and this one looks at them.
    fn begin_anew_after_reset(&mut self) {
        let layout = self.ring.layout();
        if layout.ring_uuid != self.generation {
            self.generation = layout.ring_uuid;
            if self.ring.status().seq.0.max(layout.base_seq) < self.last.0 {
                self.last = Sequence(0);
            }
        }
    }

    /// The newest frame if it has not been printed yet.
    fn look(&mut self) -> Result<Option<Seen>, Failure> {
        let wants_pixels = self.args.verify || self.latencies.as_ref().is_some_and(Latencies::wants_pixels);
        let result =
            if wants_pixels { self.ring.latest(&mut self.pixels).map(|frame| frame.meta) } else { self.ring.peek() };
        let read_mono_ns = mono_ns();
        let meta = match result {
            Ok(meta) => meta,
            // Overtaken again and again: the next slice brings a newer frame.
            Err(ReadError::NoFrame { .. } | ReadError::Overrun { .. }) => return Ok(None),
            Err(error) => return Err(read_failure(error)),
        };
        self.begin_anew_after_reset();
        if meta.seq <= self.last {
            return Ok(None);
        }
        let skipped = if self.last.0 == 0 { 0 } else { meta.seq.0 - self.last.0 - 1 };
        self.last = meta.seq;
        let verified = wants_pixels.then(|| verify(&meta, &self.pixels, read_mono_ns));
        Ok(Some(Seen { meta, skipped, read_mono_ns, verified }))
    }

    /// Adds a frame to the histogram; false when there is none.
    fn collect(&mut self, seen: &Seen) -> bool {
        let Some(latencies) = &mut self.latencies else { return false };
        let painted_ms = seen.verified.as_ref().and_then(|verified| verified.latency_ms);
        latencies.add(painted_ms, age_ms(&seen.meta), seen.skipped);
        true
    }

    fn print_latencies(&self) -> Result<(), Failure> {
        let Some(latencies) = &self.latencies else { return Ok(()) };
        let ring = &self.args.ring;
        // Nothing comes after it: whether its reader is still there makes no difference.
        let _ = if self.args.json { emit_json(&latencies.json(ring))? } else { emit_line(&latencies.text(ring))? };
        Ok(())
    }

    fn print_state(&self, status: &Status, shown: Shown) -> Result<Listener, Failure> {
        if self.args.json {
            return emit_json(&line(status, shown, None));
        }
        emit_line(&format!("{}: {}", self.args.ring, shown.text(status)))
    }

    fn print_frame(&self, seen: &Seen, status: &Status, shown: Shown) -> Result<Listener, Failure> {
        let line = line(status, shown, Some(seen));
        if self.args.json { emit_json(&line) } else { emit_line(&text(&line, seen)) }
    }

    fn timed_out(&self, wait: &Wait) -> Failure {
        let status = self.ring.status();
        read_failure(ReadError::Timeout {
            ring: self.args.ring.clone(),
            state: status.state,
            reason: status.reason,
            writer_alive: self.ring.liveness() != Liveness::Gone,
            waited_ms: wait.waited_ms(),
        })
    }
}

fn line(status: &Status, shown: Shown, seen: Option<&Seen>) -> FrameLine {
    let meta = seen.map(|seen| &seen.meta);
    let verified = seen.and_then(|seen| seen.verified.as_ref());
    FrameLine {
        event: if seen.is_some() { "frame" } else { "state" },
        seq: meta.map(|meta| meta.seq.0),
        skipped: seen.map(|seen| seen.skipped),
        age_ms: meta.map(age_ms),
        publish_to_read_us: seen.map(|seen| (seen.read_mono_ns - seen.meta.publish_mono_ns) as f64 / 1000.0),
        width: meta.map(|meta| meta.geometry.width),
        height: meta.map(|meta| meta.geometry.height),
        format: meta.map(|meta| meta.geometry.format.to_string()),
        state: shown.state.to_string(),
        reason: shown.reason.to_string(),
        writer_alive: shown.writer_alive,
        writer_epoch: meta.map_or(status.writer_epoch, |meta| meta.writer_epoch),
        geometry_epoch: meta.map_or(status.geometry_epoch, |meta| meta.geometry_epoch),
        session: meta.map_or(status.session_id, |meta| meta.session_id),
        generation: status.generation.to_string(),
        flags: meta.map(|meta| meta.flags.words().collect()).unwrap_or_default(),
        source_seq: meta.map(|meta| meta.source_seq),
        pts_ns: meta.map(|meta| meta.pts_ns),
        lag_ms: meta.map(|meta| milliseconds(meta.lag_ns.cast_signed())),
        painted: verified.and_then(|verified| verified.painted),
        latency_ms: verified.and_then(|verified| verified.latency_ms),
        verify_error: verified.and_then(|verified| verified.error.clone()),
    }
}

/// `1204331  age 18.2 ms  read after 0.2 ms  1920x1080 bgr  skipped 2  keyframe,discont`
fn text(line: &FrameLine, seen: &Seen) -> String {
    let geometry = &seen.meta.geometry;
    let mut text = format!(
        "{:>8}  age {:>6.1} ms  read after {:>5.2} ms  {}x{} {}",
        seen.meta.seq,
        line.age_ms.unwrap_or_default(),
        line.publish_to_read_us.unwrap_or_default() / 1000.0,
        geometry.width,
        geometry.height,
        geometry.format
    );
    let mut add = |part: String| {
        text.push_str("  ");
        text.push_str(&part);
    };
    if seen.skipped > 0 {
        add(format!("skipped {}", seen.skipped));
    }
    if !line.flags.is_empty() {
        add(line.flags.join(","));
    }
    if let (Some(painted), Some(latency)) = (line.painted, line.latency_ms) {
        add(format!("painted {painted} latency {latency:.1} ms"));
    }
    if let Some(error) = &line.verify_error {
        add(error.clone());
    }
    text
}

/// Checks a copied frame: its checksum if it has one, and the simulated camera's stamp.
fn verify(meta: &FrameMeta, pixels: &[u8], now_ns: i64) -> Verified {
    let computed = camring_ring::layout::crc32c(pixels);
    if meta.payload_crc32c != 0 && meta.payload_crc32c != computed {
        let text = format!("the checksum is {computed:08x}, expected {:08x}: the frame is torn", meta.payload_crc32c);
        return Verified { error: Some(text), ..Verified::default() };
    }
    read_stamp(meta, pixels, now_ns)
}

#[cfg(not(feature = "sim"))]
fn read_stamp(_: &FrameMeta, _: &[u8], _: i64) -> Verified {
    Verified { error: Some("this build has no simulated camera, so no stamp is read".into()), ..Verified::default() }
}

#[cfg(feature = "sim")]
fn read_stamp(meta: &FrameMeta, pixels: &[u8], now_ns: i64) -> Verified {
    use crate::sim::stamp;
    use camring_ring::{Geometry, PixelFormat};
    let Geometry { width, height, format, plane_strides, .. } = meta.geometry;
    let stride = plane_strides[0] as usize;
    let read = match format {
        PixelFormat::Bgr | PixelFormat::Rgb => stamp::read_bgr(pixels, stride, width, height),
        PixelFormat::Gray | PixelFormat::I420 | PixelFormat::Nv12 => stamp::read_luma(pixels, stride, width, height),
        format => {
            let text = format!("no stamp is read from {format} frames");
            return Verified { error: Some(text), ..Verified::default() };
        }
    };
    match read {
        Ok(stamp) => {
            let latency_us = (now_ns / 1000).cast_unsigned().wrapping_sub(stamp.mono_us) as f64;
            Verified { painted: Some(stamp.number), latency_ms: Some(latency_us / 1000.0), error: None }
        }
        Err(error) => Verified { error: Some(error.to_string()), ..Verified::default() },
    }
}
