//! One ring as C sees it: one struct with what the ring says about its camera, its daemon and this handle.

use std::ffi::c_char;
use std::mem::{offset_of, size_of};

use camring_ring::layout::{ABI_MAJOR, ABI_MINOR};
use camring_ring::{Counter, Liveness, ReadError, Ring, Status};

use crate::frame::CAMRING_NO_TIME;
use crate::memory::{Sized32, padded};

/// One ring: what its camera and daemon are doing, how large it is, what this handle has been through. Later versions
/// add fields at the end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Info {
    /// In: sizeof(struct camring_ring_info). Kept as it is.
    pub struct_size: u32,
    /// Layout version that this library speaks: major << 16 | minor.
    pub layout_version: u32,
    /// enum camring_state: what the daemon is doing.
    pub state: u32,
    /// enum camring_reason: why.
    pub reason: u32,
    /// enum camring_daemon: whether there is one; a dead one leaves its last state behind.
    pub daemon: u32,
    /// Attempts since the camera was last live, at most 255.
    pub attempt: u32,
    /// Number of the newest frame; 0 = none yet.
    pub seq: u64,
    /// Age of the newest frame now; CAMRING_NO_TIME without one.
    pub age_ns: i64,
    /// The age above which the configuration calls a frame stale; 0 = never.
    pub stale_after_ns: u64,
    /// Moving average of the time between frames.
    pub frame_interval_ns: u64,
    /// Bytes that hold every frame of this generation: a buffer of so many needs no second call.
    pub slot_capacity: u64,
    /// Bytes of the segment.
    pub file_bytes: u64,
    /// Frames kept.
    pub slot_count: u32,
    /// enum camring_lease_policy.
    pub lease_policy: u32,
    /// Pixels in a row of the newest frame; 0 without one.
    pub width: u32,
    /// Rows of the newest frame; 0 without one.
    pub height: u32,
    /// enum camring_pixfmt of the newest frame.
    pub pixfmt: u32,
    /// Daemons that have owned this generation.
    pub writer_epoch: u32,
    /// Sizes and formats in this generation.
    pub geometry_epoch: u32,
    /// Sessions with the camera.
    pub session_id: u32,
    /// The daemon's pid in its own namespace; 0 = stopped.
    pub writer_pid: u32,
    /// 1 = the operator has removed the ring and no new one has come.
    pub removed: u32,
    /// Identity of this generation.
    pub generation: [u8; 16],
    /// Since when the state is what it is.
    pub state_since_mono_ns: u64,
    /// When the next attempt is due; 0 = none.
    pub next_retry_mono_ns: u64,
    /// When the newest frame was published; 0 = never.
    pub last_publish_mono_ns: u64,
    /// The daemon's last sign of life.
    pub heartbeat_mono_ns: u64,
    /// Frames published in this generation.
    pub published: u64,
    /// Pictures that never became frames of this ring, all causes together.
    pub dropped: u64,
    /// Leased slots that the writer took back, of all readers.
    pub leases_revoked: u64,
    /// Sessions with the camera after the first.
    pub reconnects: u64,
    /// Different frames returned by this handle.
    pub frames: u64,
    /// Frames published but not returned by this handle.
    pub skipped: u64,
    /// Copies that the writer overtook and that were repeated.
    pub retries: u64,
    /// Generations that this handle has followed.
    pub followed: u64,
    /// Generations that did not continue the numbers of the one before.
    pub resets: u64,
    /// Sleeps that ended by themselves although something had changed.
    pub missed_wakes: u64,
    /// The word for `state`.
    pub state_word: [c_char; 16],
    /// The word for `reason`.
    pub reason_word: [c_char; 24],
    /// The word for `pixfmt`.
    pub pixfmt_word: [c_char; 24],
    /// The camera.
    pub camera: [c_char; 72],
    /// The public name of the segment.
    pub segment: [c_char; 256],
    /// The decoder; empty before the first session.
    pub decoder: [c_char; 32],
    /// The stream's codec; empty before the first session.
    pub codec: [c_char; 32],
}

// SAFETY: repr(C) and without padding: the assertion below adds the fields up; integers may have any bytes;
// struct_size comes first.
unsafe impl Sized32 for Info {
    const WHAT: &'static str = "camring_ring_info";
    const LEAST: usize = offset_of!(Self, age_ns);
    fn with_size(self, size: u32) -> Self {
        Self { struct_size: size, ..self }
    }
}

const _: () = assert!(size_of::<Info>() == 6 * 4 + 6 * 8 + 10 * 4 + 16 + 14 * 8 + 16 + 24 + 24 + 72 + 256 + 32 + 32);

/// What a ring says now.
pub(crate) fn of(ring: &Ring) -> Info {
    let (status, layout, stats) = (ring.status(), ring.layout(), ring.stats());
    let newest = Newest::of(ring);
    Info {
        struct_size: 0,
        layout_version: u32::from(ABI_MAJOR) << 16 | u32::from(ABI_MINOR),
        state: u32::from(status.state.code()),
        reason: u32::from(status.reason.code()),
        daemon: match ring.liveness() {
            Liveness::Gone => 0,
            Liveness::Alive => 1,
            Liveness::Hung => 2,
        },
        attempt: u32::from(status.attempt),
        seq: status.seq.0,
        age_ns: newest.age_ns,
        stale_after_ns: u64::from(layout.stale_after_ms) * 1_000_000,
        frame_interval_ns: u64::from(status.frame_interval_us) * 1_000,
        slot_capacity: layout.slot_capacity,
        file_bytes: layout.file_bytes,
        slot_count: layout.slot_count,
        lease_policy: layout.lease_policy,
        width: newest.width,
        height: newest.height,
        pixfmt: newest.pixfmt,
        writer_epoch: status.writer_epoch,
        geometry_epoch: status.geometry_epoch,
        session_id: status.session_id,
        writer_pid: status.writer_pid,
        removed: u32::from(ring.is_removed()),
        generation: status.generation.0,
        state_since_mono_ns: status.state_since_mono_ns,
        next_retry_mono_ns: status.next_retry_mono_ns,
        last_publish_mono_ns: status.last_publish_mono_ns,
        heartbeat_mono_ns: status.heartbeat_mono_ns,
        published: status.counter(Counter::Published),
        dropped: dropped(&status),
        leases_revoked: status.counter(Counter::LeasesRevoked),
        reconnects: status.counter(Counter::Reconnects),
        frames: stats.frames,
        skipped: stats.skipped,
        retries: stats.retries,
        followed: stats.followed,
        resets: stats.resets,
        missed_wakes: stats.missed_wakes,
        state_word: padded(&status.state.to_string()),
        reason_word: padded(&status.reason.to_string()),
        pixfmt_word: padded(&newest.word),
        camera: padded(&layout.camera_id),
        segment: padded(&layout.segment_name),
        decoder: padded(&status.decoder),
        codec: padded(&status.codec),
    }
}

fn dropped(status: &Status) -> u64 {
    let counts = status.counters.iter().filter(|(word, _)| word.starts_with("dropped_"));
    counts.fold(0, |sum, (_, count)| sum.saturating_add(*count))
}

/// What is known of the newest frame without reading it.
struct Newest {
    width: u32,
    height: u32,
    pixfmt: u32,
    word: String,
    age_ns: i64,
}

impl Newest {
    fn of(ring: &Ring) -> Self {
        let none = |pixfmt: u32, word: String| Self { width: 0, height: 0, pixfmt, word, age_ns: CAMRING_NO_TIME };
        match ring.peek() {
            Ok(meta) => Self {
                width: meta.geometry.width,
                height: meta.geometry.height,
                pixfmt: meta.geometry.format.code(),
                word: meta.geometry.format.to_string(),
                age_ns: ring.age(&meta).ns,
            },
            Err(ReadError::UnknownFormat { format, .. }) => none(format, format.to_string()),
            // No frame, or none that can be described: the state beside it says why.
            Err(_) => none(0, String::new()),
        }
    }
}
