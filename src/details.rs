//! One ring in detail: the object behind `show --json` and `/api/rings/NAME`.
//!
//! # Keys
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
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::layout::{ABI_MAJOR, BUCKET_FIRST_NS, Layout};
use camring_ring::{Histogram, LeasePolicy, Ring, ShmDir, Status};
use serde::Serialize;

use crate::report::{RingReport, milliseconds};
use crate::slots::{self, SlotState};

/// One ring in detail; see the table of keys above.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Details {
    #[serde(flatten)]
    pub report: RingReport,
    pub path: Option<PathBuf>,
    pub layout_version: String,
    pub builder: String,
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub mode: Option<String>,
    pub created_unix_ns: i64,
    pub lease_policy: &'static str,
    pub slot_states: Option<SlotStates>,
    pub reconnects: BTreeMap<String, u64>,
    pub decode_to_publish: Times,
    pub frame_interval: Times,
    pub process: Process,
    pub heartbeat_age_ms: Option<f64>,
}

/// What the slots hold, as a look at one after the other found it.
#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct SlotStates {
    pub published: u32,
    pub writing: u32,
    pub empty: u32,
    pub leased: Option<u32>,
    pub oldest_seq: Option<u64>,
}

/// A histogram in four numbers.
#[derive(Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Times {
    pub count: u64,
    pub mean_ms: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// The capture process as it last described itself.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Process {
    pub pid: Option<u32>,
    pub start_unix_ns: Option<u64>,
    pub rss_bytes: u64,
    pub rss_anon_bytes: u64,
    pub cpu_user_ms: f64,
    pub cpu_sys_ms: f64,
    pub cpu_percent: Option<f64>,
    pub threads: u32,
    pub open_fds: u32,
}

impl Details {
    /// Looks at an attached ring once; `name` is what it was attached by. Copies no pixels, waits for nothing; reads one
    /// word of every slot and the kernel's table of locks.
    #[must_use]
    pub fn observe(ring: &Ring, name: &str, shm: &ShmDir) -> Self {
        let status = ring.status();
        let layout = ring.layout();
        let found = slots::open_same(name, shm, &layout);
        let metadata = found.as_ref().and_then(|(_, file)| file.metadata().ok());
        let slot_states = found.as_ref().and_then(|(_, file)| slot_states(file, &layout));
        Self {
            report: RingReport::new(ring, name, &status),
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
}
