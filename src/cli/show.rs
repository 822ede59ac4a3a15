//! `camring show`: one ring in detail.
//!
//! The keys of `--json` are those of [`Details`](crate::details::Details).

use std::fmt::Write as _;

use camring_ring::clock::real_ns;
use camring_ring::{ShmDir, mebibytes};

use super::Global;
use super::output::{Reading, attach_failure, emit, emit_json};
use crate::details::{Details, Times};
use crate::exit::Failure;
use crate::report::{Span, liveness_word, milliseconds};

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

/// Shows the ring.
///
/// # Errors
///
/// 66 no such ring, 76 its layout is not readable, 77 not permitted.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let ring = args.reading.look(global, &args.ring).map_err(attach_failure)?;
    let details = Details::observe(&ring, &args.ring, &ShmDir::new(&global.shm_dir));
    let _ = if args.json { emit_json(&details)? } else { emit(text(&details).as_bytes())? };
    Ok(())
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

    #[test]
    fn a_histogram_without_values_says_so() {
        let none = Times { count: 0, mean_ms: None, p50_ms: None, p99_ms: None };
        assert_eq!(times_text(&none), "no values");
        let some = Times { count: 4, mean_ms: Some(0.064), p50_ms: Some(0.064), p99_ms: None };
        assert_eq!(times_text(&some), "mean 0.06 ms, p50 <= 0.064 ms, p99 > 1 s of 4");
    }
}
