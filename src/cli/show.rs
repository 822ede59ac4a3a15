//! `camring show`: one ring in detail.
//!
//! # Keys of `--json`
//!
//! The keys of [`RingReport`], and these besides; stable like those.
//!
//! | key | meaning |
//! |---|---|
//! | `path` | the file that the name leads to |
//! | `layout_version`, `builder` | of the segment's byte layout; the version of camring that made it |
//! | `owner_uid`, `owner_gid`, `mode` | of the file; mode as octal text |
//! | `created_unix_ns` | when this generation was made |
//! | `lease_policy` | `fresh`, `protect` or `off` |
//! | `slot_states` | object: `published`, `writing`, `empty`, `leased`, `oldest_seq`; `null` when they cannot be read |
//! | `reconnects` | object: ended sessions by reason |
//! | `decode_to_publish`, `frame_interval` | objects: `count`, `mean_ms`, `p50_ms`, `p99_ms`; a percentile is the upper bound of its bucket, `null` without values or above the last bound |
//! | `process` | object: `pid`, `start_unix_ns`, `rss_bytes`, `rss_anon_bytes`, `cpu_user_ms`, `cpu_sys_ms`, `cpu_percent` (of one core, since its start), `threads`, `open_fds` |
//! | `heartbeat_age_ms` | since the daemon's last sign of life |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::layout::{ABI_MAJOR, BUCKET_FIRST_NS, Layout};
use camring_ring::{Histogram, LeasePolicy, Ring, ShmDir, Status, mebibytes};
use serde::Serialize;

use super::Global;
use super::output::{Reading, attach_failure, emit, emit_json};
use crate::exit::Failure;
use crate::report::{RingReport, Span, liveness_word, milliseconds};
use crate::slots::{self, SlotState};

/// Pids of readers that a person is shown; one reader alone can announce itself any number of times.
const PIDS_SHOWN: usize = 32;

/// Show one ring in detail: state, frames, counters, slots, readers, the daemon.
///
/// Works when no daemon runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Camera, output or segment.
    ring: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

#[derive(Debug, Serialize)]
struct Details {
    #[serde(flatten)]
    report: RingReport,
    path: Option<PathBuf>,
    layout_version: String,
    builder: String,
    owner_uid: u32,
    owner_gid: u32,
    mode: Option<String>,
    created_unix_ns: i64,
    lease_policy: &'static str,
    slot_states: Option<SlotStates>,
    reconnects: BTreeMap<String, u64>,
    decode_to_publish: Times,
    frame_interval: Times,
    process: Process,
    heartbeat_age_ms: Option<f64>,
}

/// What the slots hold, as a look at one after the other found it.
#[derive(Debug, Default, PartialEq, Serialize)]
struct SlotStates {
    published: u32,
    writing: u32,
    empty: u32,
    leased: Option<u32>,
    oldest_seq: Option<u64>,
}

/// A histogram in four numbers.
#[derive(Debug, PartialEq, Serialize)]
struct Times {
    count: u64,
    mean_ms: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// The capture process as it last described itself.
#[derive(Debug, Serialize)]
struct Process {
    pid: Option<u32>,
    start_unix_ns: Option<u64>,
    rss_bytes: u64,
    rss_anon_bytes: u64,
    cpu_user_ms: f64,
    cpu_sys_ms: f64,
    cpu_percent: Option<f64>,
    threads: u32,
    open_fds: u32,
}

/// Shows the ring.
///
/// # Errors
///
/// 66 no such ring, 76 its layout is not readable, 77 not permitted.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let ring = args.reading.look(global, &args.ring).map_err(attach_failure)?;
    let details = details(&ring, args, global);
    let _ = if args.json { emit_json(&details)? } else { emit(text(&details).as_bytes())? };
    Ok(())
}

fn details(ring: &Ring, args: &Args, global: &Global) -> Details {
    let status = ring.status();
    let layout = ring.layout();
    let found = slots::open_same(&args.ring, &ShmDir::new(&global.shm_dir), &layout);
    let metadata = found.as_ref().and_then(|(_, file)| file.metadata().ok());
    let slot_states = found.as_ref().and_then(|(_, file)| slot_states(file, &layout));
    Details {
        report: RingReport::new(ring, &args.ring, &status),
        path: found.map(|(path, _)| path),
        layout_version: format!("{ABI_MAJOR}.{}", layout.abi_minor),
        builder: layout.builder,
        owner_uid: metadata.as_ref().map_or(layout.owner_uid, MetadataExt::uid),
        owner_gid: metadata.as_ref().map_or(layout.owner_gid, MetadataExt::gid),
        mode: metadata.map(|metadata| format!("{:04o}", metadata.mode() & 0o7777)),
        created_unix_ns: layout.created_real_ns,
        lease_policy: LeasePolicy::from_code(layout.lease_policy).map_or("unknown", LeasePolicy::word),
        slot_states,
        reconnects: status.reconnects.iter().map(|(reason, count)| (reason.to_string(), *count)).collect(),
        decode_to_publish: times(&status.decode_to_publish),
        frame_interval: times(&status.frame_interval),
        process: process(&status),
        heartbeat_age_ms: (status.heartbeat_mono_ns > 0)
            .then(|| milliseconds(mono_ns() - status.heartbeat_mono_ns.cast_signed())),
    }
}

/// Counts what the slots hold.
fn slot_states(file: &File, layout: &Layout) -> Option<SlotStates> {
    let leased = slots::leased(file, layout).map(|slots| u32::try_from(slots.len()).unwrap_or(u32::MAX));
    let mut states = SlotStates { leased, ..SlotStates::default() };
    for slot in slots::read(file, layout)? {
        match slot.state {
            SlotState::Empty => states.empty += 1,
            SlotState::Writing => states.writing += 1,
            SlotState::Published(seq) => {
                states.published += 1;
                states.oldest_seq = Some(states.oldest_seq.map_or(seq, |oldest| oldest.min(seq)));
            }
        }
    }
    Some(states)
}

fn times(histogram: &Histogram) -> Times {
    let Histogram { count, sum_ns, .. } = *histogram;
    let mean_ms = (count > 0).then(|| milliseconds((sum_ns / count.max(1)).cast_signed()));
    Times { count, mean_ms, p50_ms: percentile(histogram, 50), p99_ms: percentile(histogram, 99) }
}

/// The upper bound of the bucket that holds the percentile.
fn percentile(histogram: &Histogram, percent: u128) -> Option<f64> {
    let total: u128 = histogram.buckets.iter().map(|count| u128::from(*count)).sum();
    let wanted = (total * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let bucket = histogram.buckets.iter().position(|count| {
        seen += u128::from(*count);
        seen >= wanted
    })?;
    let bounded = bucket + 1 < histogram.buckets.len();
    bounded.then(|| milliseconds((BUCKET_FIRST_NS << bucket).cast_signed()))
}

fn process(status: &Status) -> Process {
    let stats = status.process;
    let start = Some(status.process_start_real_ns).filter(|start| *start > 0);
    let busy = stats.cpu_user_ns.saturating_add(stats.cpu_sys_ns);
    // As of the last sign of life, so that a dead process does not seem to get idler.
    let silent = (mono_ns() - status.heartbeat_mono_ns.cast_signed()).max(0);
    let lived = start.map(|start| real_ns() - start.cast_signed() - silent).filter(|lived| *lived > 0);
    Process {
        pid: Some(status.writer_pid).filter(|pid| *pid > 0),
        start_unix_ns: start,
        rss_bytes: stats.rss_bytes,
        rss_anon_bytes: stats.rss_anon_bytes,
        cpu_user_ms: milliseconds(stats.cpu_user_ns.cast_signed()),
        cpu_sys_ms: milliseconds(stats.cpu_sys_ns.cast_signed()),
        cpu_percent: lived.map(|lived| (busy as f64 / lived as f64 * 1000.0).round() / 10.0),
        threads: stats.threads,
        open_fds: stats.open_fds,
    }
}

fn text(details: &Details) -> String {
    let mut out = String::new();
    let mut line = |label: &str, text: &str| {
        // Texts come from the segment, which another user may own: no control character reaches the terminal.
        let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        writeln!(out, "{label:<12}{text}").expect("writing to a string cannot fail");
    };
    frame_lines(details, &mut line);
    daemon_lines(details, &mut line);
    segment_lines(details, &mut line);
    count_lines(details, &mut line);
    out
}

fn frame_lines(details: &Details, line: &mut impl FnMut(&str, &str)) {
    let report = &details.report;
    line("ring", &report.name);
    let note = report.note();
    let note = if note.is_empty() { note } else { format!(" ({note})") };
    line("state", &format!("{} since {}{note}", report.state_words(), Span(report.state_age_ms)));
    let frame = format!("{} {}, {:.1} fps", report.size_text(), report.format_text(), report.fps);
    match report.age_ms {
        Some(age) => line("frame", &format!("{}, {frame}, {} old", report.seq, Span(age))),
        None => line("frame", "none yet"),
    }
    if !(report.codec.is_empty() && report.decoder.is_empty()) {
        line("source", &format!("{} decoded by {}, session {}", report.codec, report.decoder, report.session));
    }
    line("interval", &times_text(&details.frame_interval));
    line("publish", &format!("{} after decoding", times_text(&details.decode_to_publish)));
}

fn daemon_lines(details: &Details, line: &mut impl FnMut(&str, &str)) {
    let (report, process) = (&details.report, &details.process);
    let mut daemon = liveness_word(report.liveness).to_owned();
    if let Some(pid) = process.pid {
        daemon.push_str(&format!(", pid {pid}"));
    }
    if let Some(start) = process.start_unix_ns {
        daemon.push_str(&format!(", started {} ago", Span(milliseconds(real_ns() - start.cast_signed()))));
    }
    if let Some(age) = details.heartbeat_age_ms {
        daemon.push_str(&format!(", last sign of life {} ago", Span(age)));
    }
    line("daemon", &format!("{daemon}, writer epoch {}", report.writer_epoch));
    let cpu = process.cpu_percent.map(|percent| format!(" ({percent} %)")).unwrap_or_default();
    line(
        "process",
        &format!(
            "RSS {} of which private {}, {} threads, {} descriptors, CPU {} user {} system{cpu}",
            mebibytes(process.rss_bytes),
            mebibytes(process.rss_anon_bytes),
            process.threads,
            process.open_fds,
            Span(process.cpu_user_ms),
            Span(process.cpu_sys_ms)
        ),
    );
}

fn segment_lines(details: &Details, line: &mut impl FnMut(&str, &str)) {
    let report = &details.report;
    let path = details.path.as_ref().map_or_else(|| "-".into(), |path| path.display().to_string());
    let mode = details.mode.as_deref().unwrap_or("?");
    line("segment", &format!("{}, {path}, mode {mode}", report.segment));
    line("", &format!("owner {}:{}, {}", details.owner_uid, details.owner_gid, mebibytes(report.file_bytes)));
    let (version, builder) = (&details.layout_version, &details.builder);
    line("layout", &format!("version {version} by camring {builder}, generation {}", report.generation));
    let mut slots = format!("{} of at most {}", report.slots, mebibytes(report.slot_bytes));
    if let Some(states) = &details.slot_states {
        slots.push_str(&format!(
            ": {} published, {} being written, {} empty",
            states.published, states.writing, states.empty
        ));
        if let Some(leased) = states.leased {
            slots.push_str(&format!(", {leased} leased"));
        }
        if let Some(oldest) = states.oldest_seq {
            slots.push_str(&format!("; oldest frame {oldest}"));
        }
    }
    line("slots", &format!("{slots}; lease policy {}", details.lease_policy));
    let pids: Vec<String> = report.reader_pids.iter().take(PIDS_SHOWN).map(ToString::to_string).collect();
    match report.reader_pids.len() {
        0 => line("readers", "none"),
        count if count > PIDS_SHOWN => {
            line("readers", &format!("{count}: pid {} and {} more", pids.join(", "), count - PIDS_SHOWN));
        }
        count => line("readers", &format!("{count}: pid {}", pids.join(", "))),
    }
}

fn count_lines(details: &Details, line: &mut impl FnMut(&str, &str)) {
    let report = &details.report;
    let reconnects: Vec<String> =
        details.reconnects.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if !reconnects.is_empty() {
        line("reconnects", &reconnects.join(", "));
    }
    for (index, (name, count)) in report.counters.iter().filter(|(_, count)| **count > 0).enumerate() {
        line(if index == 0 { "counters" } else { "" }, &format!("{name:<18}{count:>12}"));
    }
}

fn times_text(times: &Times) -> String {
    let bound = |value: Option<f64>| value.map_or_else(|| "> 1 s".into(), |value| format!("<= {value} ms"));
    match times.mean_ms {
        None => "no values".into(),
        Some(mean) => {
            format!("mean {mean:.2} ms, p50 {}, p99 {} of {}", bound(times.p50_ms), bound(times.p99_ms), times.count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(usize, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        for (bucket, count) in counts {
            histogram.buckets[*bucket] = *count;
            histogram.count += count;
            histogram.sum_ns += count * (BUCKET_FIRST_NS << bucket);
        }
        histogram
    }

    #[test]
    fn a_percentile_is_the_bound_of_the_bucket_that_holds_it() {
        let spread = histogram(&[(0, 50), (1, 49), (3, 1)]);
        assert_eq!((percentile(&spread, 50), percentile(&spread, 99)), (Some(0.064), Some(0.128)));
        assert_eq!(percentile(&spread, 100), Some(0.512));
        assert_eq!(percentile(&histogram(&[(15, 1)]), 50), None, "above the last bound");
        assert_eq!(percentile(&Histogram::default(), 50), None);
    }

    #[test]
    fn a_histogram_without_values_says_so() {
        assert_eq!(times_text(&times(&Histogram::default())), "no values");
        assert_eq!(times_text(&times(&histogram(&[(0, 4)]))), "mean 0.06 ms, p50 <= 0.064 ms, p99 <= 0.064 ms of 4");
    }
}
