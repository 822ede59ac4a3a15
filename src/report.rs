//! What an onlooker can say about one ring: the object behind `list`, `show` and everything else that lists rings.
//!
//! # Keys
//!
//! These are the keys of one object of `camring list --json`, and the first keys of `camring show --json`. They are
//! stable: new ones may come, none is renamed or changes its unit. A value that is not known is `null`; in the line of
//! a ring that cannot be read every value except `name` and `error` is `null`.
//!
//! | key | meaning |
//! |---|---|
//! | `name` | the ring: camera, or camera and output |
//! | `segment` | its public name in the memory mount |
//! | `error` | why the ring, or its newest frame, cannot be read |
//! | `state`, `reason`, `attempt` | what the daemon said last (words of the glossary); attempts since the camera was live |
//! | `state_age_ms` | how long it has said so |
//! | `next_retry_ms` | time to the next attempt |
//! | `liveness` | `alive`, `hung` (holds its lock but shows no sign of life) or `gone` |
//! | `writer_alive` | whether there is a daemon: `liveness` is not `gone` |
//! | `writer_pid` | its pid in its own namespace; `null` after an orderly stop |
//! | `offline` | the camera has been away for more than a minute |
//! | `stale`, `stale_after_ms` | the newest frame is older than the configured limit; the limit, `null` = none |
//! | `width`, `height`, `format` | of the newest frame; `null` before the first |
//! | `slots`, `slot_bytes`, `file_bytes` | frames kept, most bytes of a frame, size of the segment |
//! | `seq` | number of the newest frame; 0 before the first |
//! | `fps` | frames a second, moving average; 0 when frames have stopped |
//! | `age_ms` | age of the newest frame: since its last packet arrived |
//! | `writer_epoch` | daemons that have owned this generation |
//! | `geometry_epoch`, `session` | sizes and formats so far; sessions with the camera so far |
//! | `generation`, `retired` | identity of the segment's file; whether another has replaced it |
//! | `readers`, `reader_pids` | handles of library readers; their pids in their own namespaces |
//! | `decoder`, `codec` | texts; empty before the first session |
//! | `counters` | object of every counter of the ring |

use std::collections::BTreeMap;
use std::fmt;

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::frame::{FrameMeta, PixelFormat, Reason, State};
use camring_ring::{Liveness, ReadError, Ring, Status, age_ns};
use serde::{Serialize, Serializer};

/// A camera that has been away for longer than this is called offline.
const OFFLINE_AFTER_NS: i64 = 60_000_000_000;
/// A heartbeat comes every 200 ms; a daemon that has missed four is called hung.
const HEARTBEAT_LATE_NS: i64 = 1_000_000_000;
/// Frames have stopped when none came for this long and for [`STOPPED_INTERVALS`] average intervals.
const STOPPED_AFTER_NS: i64 = 1_000_000_000;
const STOPPED_INTERVALS: i64 = 5;

/// One ring at one moment; see the table of keys above.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct RingReport {
    pub name: String,
    pub segment: String,
    pub error: Option<String>,
    #[serde(serialize_with = "as_text")]
    pub state: State,
    #[serde(serialize_with = "as_text")]
    pub reason: Reason,
    pub attempt: u8,
    pub state_age_ms: f64,
    pub next_retry_ms: Option<f64>,
    #[serde(serialize_with = "liveness_text")]
    pub liveness: Liveness,
    pub writer_alive: bool,
    pub writer_pid: Option<u32>,
    pub offline: bool,
    pub stale: bool,
    pub stale_after_ms: Option<u32>,
    pub width: Option<u32>,
    pub height: Option<u32>,
    #[serde(serialize_with = "format_text")]
    pub format: Option<PixelFormat>,
    pub slots: u32,
    pub slot_bytes: u64,
    pub file_bytes: u64,
    pub seq: u64,
    pub fps: f64,
    pub age_ms: Option<f64>,
    pub writer_epoch: u32,
    pub geometry_epoch: u32,
    pub session: u32,
    pub generation: String,
    pub retired: bool,
    pub readers: usize,
    pub reader_pids: Vec<u32>,
    pub decoder: String,
    pub codec: String,
    pub counters: BTreeMap<&'static str, u64>,
}

impl RingReport {
    /// The keys above, in their order.
    pub const KEYS: [&'static str; 33] = [
        "name",
        "segment",
        "error",
        "state",
        "reason",
        "attempt",
        "state_age_ms",
        "next_retry_ms",
        "liveness",
        "writer_alive",
        "writer_pid",
        "offline",
        "stale",
        "stale_after_ms",
        "width",
        "height",
        "format",
        "slots",
        "slot_bytes",
        "file_bytes",
        "seq",
        "fps",
        "age_ms",
        "writer_epoch",
        "geometry_epoch",
        "session",
        "generation",
        "retired",
        "readers",
        "reader_pids",
        "decoder",
        "codec",
        "counters",
    ];

    /// Looks at a ring once. Makes a few system calls, copies no pixels, waits for nothing.
    #[must_use]
    pub fn observe(ring: &Ring, name: &str) -> Self {
        Self::new(ring, name, &ring.status())
    }

    /// As [`RingReport::observe`], with a status that has been read already.
    #[must_use]
    pub fn new(ring: &Ring, name: &str, status: &Status) -> Self {
        let layout = ring.layout();
        let liveness = judged(ring.liveness(), status, mono_ns());
        let (meta, error) = match ring.peek() {
            Ok(meta) => (Some(meta), None),
            Err(ReadError::NoFrame { .. }) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let now = mono_ns();
        let age_ms = meta.as_ref().map(|meta| milliseconds(age_ns(meta)));
        let stale_after_ms = Some(layout.stale_after_ms).filter(|limit| *limit > 0);
        let reader_pids = ring.readers();
        Self {
            name: name.to_owned(),
            segment: layout.segment_name,
            error,
            state: status.state,
            reason: status.reason,
            attempt: status.attempt,
            state_age_ms: milliseconds(now - status.state_since_mono_ns.cast_signed()),
            next_retry_ms: next_retry(status, now),
            liveness,
            writer_alive: liveness != Liveness::Gone,
            writer_pid: Some(status.writer_pid).filter(|pid| *pid > 0),
            offline: is_offline(status, now),
            stale: is_stale(age_ms, stale_after_ms),
            stale_after_ms,
            width: meta.map(|meta| meta.geometry.width),
            height: meta.map(|meta| meta.geometry.height),
            format: meta.map(|meta| meta.geometry.format),
            slots: layout.slot_count,
            slot_bytes: layout.slot_capacity,
            file_bytes: layout.file_bytes,
            seq: status.seq.0,
            fps: frames_per_second(status, now),
            age_ms,
            writer_epoch: status.writer_epoch,
            geometry_epoch: status.geometry_epoch,
            session: status.session_id,
            generation: status.generation.to_string(),
            retired: status.retired,
            readers: reader_pids.len(),
            reader_pids,
            decoder: status.decoder.clone(),
            codec: status.codec.clone(),
            counters: status.counters.iter().copied().collect(),
        }
    }

    /// The state and what follows from it, as every listing prints it: `live`, `reconnecting, offline, stale`.
    #[must_use]
    pub fn state_words(&self) -> String {
        let mut words = self.state.to_string();
        let orderly = self.state == State::Stopped;
        let derived = [
            (self.liveness == Liveness::Gone && !orderly, "dead writer"),
            (self.liveness == Liveness::Hung, "hung writer"),
            (self.offline, "offline"),
            (self.stale && !orderly, "stale"),
        ];
        for (_, word) in derived.into_iter().filter(|(applies, _)| *applies) {
            words.push_str(", ");
            words.push_str(word);
        }
        words
    }

    /// How much a person should care; the colour of every listing and of the page.
    #[must_use]
    pub fn grade(&self) -> Grade {
        let is_calm = matches!(self.state, State::Live | State::Parked);
        let is_stuck = self.state == State::Error || (!is_calm && needs_person(self.reason));
        if self.state == State::Stopped {
            Grade::Off
        } else if self.liveness != Liveness::Alive || is_stuck || self.offline || self.error.is_some() {
            Grade::Broken
        } else if is_calm && (!self.stale || self.state == State::Parked) {
            Grade::Fine
        } else {
            Grade::Waiting
        }
    }

    /// Why it is in its state, what comes next, and what to do about a daemon that is gone: `no_packets, try 3, next in
    /// 2 s`; empty when there is nothing to say.
    #[must_use]
    pub fn note(&self) -> String {
        let mut parts = Vec::new();
        if self.reason != Reason::None {
            parts.push(self.reason.to_string());
        }
        if self.attempt > 0 && self.state != State::Live && self.writer_alive {
            parts.push(format!("try {}", self.attempt));
        }
        if let Some(wait) = self.next_retry_ms.filter(|_| self.writer_alive) {
            parts.push(format!("next in {}", Span(wait)));
        }
        parts.extend(self.error.clone());
        match self.liveness {
            _ if self.state == State::Stopped => {}
            Liveness::Alive => {}
            Liveness::Gone => parts.push(format!("its daemon is not running: {}", start(&self.name))),
            Liveness::Hung => parts.push("its daemon gives no sign of life".to_owned()),
        }
        parts.join(", ")
    }

    /// `1920x1080`, or `-` before the first frame.
    #[must_use]
    pub fn size_text(&self) -> String {
        match (self.width, self.height) {
            (Some(width), Some(height)) => format!("{width}x{height}"),
            _ => "-".into(),
        }
    }

    /// The format's word, or `-` before the first frame.
    #[must_use]
    pub fn format_text(&self) -> String {
        self.format.map_or_else(|| "-".into(), |format| format.to_string())
    }

    /// The newest frame's age for people, or `-` before the first frame.
    #[must_use]
    pub fn age_text(&self) -> String {
        self.age_ms.map_or_else(|| "-".into(), |age| Span(age).to_string())
    }
}

/// How much a person should care.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Grade {
    /// It will not get better by itself, or has not for a minute: red.
    Broken,
    /// Something is missing and the daemon is at it: yellow.
    Waiting,
    /// Frames come, or do not on purpose: green.
    Fine,
    /// The operator has stopped it: grey.
    Off,
}

impl Grade {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Waiting => "waiting",
            Self::Broken => "broken",
            Self::Off => "off",
        }
    }
}

/// Whether trying again does not cure it, which the daemon does all the same. The alert rules name the same reasons.
#[must_use]
pub const fn needs_person(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Auth
            | Reason::NotFound
            | Reason::NotRtsp
            | Reason::NoVideo
            | Reason::UnsupportedCodec
            | Reason::Tls
            | Reason::NoRoom
            | Reason::NameTaken
            | Reason::FrameTooLarge
            | Reason::Config
    )
}

/// What starts the daemon of a ring, which may be one of several outputs of a camera.
#[must_use]
pub fn start(ring: &str) -> String {
    format!("start camring@{}", ring.split('.').next().unwrap_or(ring))
}

/// The age of a frame, milliseconds; see [`age_ns`].
#[must_use]
pub fn age_ms(meta: &FrameMeta) -> f64 {
    milliseconds(age_ns(meta))
}

/// Nanoseconds as milliseconds with three digits.
#[must_use]
pub fn milliseconds(ns: i64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

/// The word for a liveness.
#[must_use]
pub const fn liveness_word(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Hung => "hung",
        Liveness::Gone => "gone",
    }
}

/// Milliseconds as people say them: `18 ms`, `4.2 s`, `12 min`, `3 h`, `5 d`.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000.0;
        let text = match self.0.abs() {
            ..999.5 => format!("{:.0} ms", self.0),
            ..60_000.0 => format!("{seconds:.1} s"),
            ..3_600_000.0 => format!("{:.0} min", (seconds / 60.0).floor()),
            ..172_800_000.0 => format!("{:.0} h", (seconds / 3600.0).floor()),
            _ => format!("{:.0} d", (seconds / 86_400.0).floor()),
        };
        f.pad(&text)
    }
}

/// A handle that has just been attached has not seen the heartbeat stand still, so the clock must tell. A daemon that
/// has just taken a ring over has said its state before its first heartbeat, and is not hung because its predecessor was.
fn judged(liveness: Liveness, status: &Status, now: i64) -> Liveness {
    let is_late = |sign: u64| now.saturating_sub(sign.cast_signed()) > HEARTBEAT_LATE_NS;
    match (liveness, is_late(status.state_since_mono_ns)) {
        (Liveness::Gone, _) => Liveness::Gone,
        (_, false) => Liveness::Alive,
        (Liveness::Alive, true) if is_late(status.heartbeat_mono_ns) => Liveness::Hung,
        (liveness, true) => liveness,
    }
}

fn next_retry(status: &Status, now: i64) -> Option<f64> {
    (status.next_retry_mono_ns > 0)
        .then(|| milliseconds(status.next_retry_mono_ns.cast_signed().saturating_sub(now).max(0)))
}

fn is_stale(age_ms: Option<f64>, limit_ms: Option<u32>) -> bool {
    // A negative age is a clock that cannot be compared: never fresh.
    age_ms.zip(limit_ms).is_some_and(|(age, limit)| age < 0.0 || age > f64::from(limit))
}

/// Each attempt begins its own state, so the camera's absence is measured from its last frame or the daemon's start.
fn is_offline(status: &Status, now: i64) -> bool {
    if !matches!(status.state, State::Connecting | State::Reconnecting) {
        return false;
    }
    let in_state = now - status.state_since_mono_ns.cast_signed();
    let since_start = real_ns().saturating_sub(status.process_start_real_ns.cast_signed());
    let since_frame = match status.last_publish_mono_ns {
        0 => i64::MAX,
        at => now - at.cast_signed(),
    };
    in_state.max(since_start.min(since_frame)) > OFFLINE_AFTER_NS
}

fn frames_per_second(status: &Status, now: i64) -> f64 {
    let interval = i64::from(status.frame_interval_us) * 1000;
    let silent = now - status.last_publish_mono_ns.cast_signed();
    if interval == 0 || silent > STOPPED_AFTER_NS.max(STOPPED_INTERVALS * interval) {
        return 0.0;
    }
    (1e12 / interval as f64).round() / 1000.0
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn format_text<S: Serializer>(format: &Option<PixelFormat>, serializer: S) -> Result<S::Ok, S::Error> {
    match format {
        Some(format) => serializer.collect_str(format),
        None => serializer.serialize_none(),
    }
}

fn liveness_text<S: Serializer>(liveness: &Liveness, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(liveness_word(*liveness))
}

#[cfg(test)]
mod tests {
    use camring_ring::{AttachOptions, Geometry, RingName, ShmDir, Writer, WriterOptions};

    use super::*;

    /// A ring of this process in a folder of its own; `frames` frames are in it.
    fn ring(frames: u32) -> (tempfile::TempDir, Writer, Ring) {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder on the memory mount");
        let mut options = WriterOptions::new(RingName::new("front").expect("a name"));
        options.shm = ShmDir::new(folder.path());
        let (mut writer, _) = Writer::start(options).expect("a new ring");
        let geometry = Geometry::packed(64, 48, PixelFormat::Bgr).expect("a size");
        for _ in 0..frames {
            let slot = writer.claim(geometry.len).expect("a slot");
            let mut meta = FrameMeta::new(geometry);
            meta.arrival_mono_ns = mono_ns();
            writer.publish(slot, meta).expect("published");
        }
        let attach = AttachOptions { shm: ShmDir::new(folder.path()), ..AttachOptions::default() };
        let ring = Ring::attach("front", attach).expect("attached");
        (folder, writer, ring)
    }

    #[test]
    fn the_documented_keys_are_the_keys() {
        let (_folder, _writer, ring) = ring(1);
        let json = serde_json::to_string(&RingReport::observe(&ring, "front")).unwrap();
        let places: Vec<_> = RingReport::KEYS.iter().map(|key| json.find(&format!("\"{key}\":"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value.as_object().unwrap().len(), RingReport::KEYS.len());
    }

    #[test]
    fn a_waiting_room_has_no_size_no_age_and_is_not_stale() {
        let (_folder, writer, ring) = ring(0);
        writer.status().set_state(State::Error, Reason::Auth, 3, Some(mono_ns() + 2_000_000_000));
        let mut report = RingReport::observe(&ring, "front");
        // This writer has no housekeeping and so no heartbeat.
        report.liveness = Liveness::Alive;
        assert_eq!((report.width, report.format, report.age_ms, report.seq), (None, None, None, 0));
        assert_eq!(report.state_words(), "error");
        assert_eq!(report.note(), "auth, try 3, next in 2.0 s");
    }

    #[test]
    fn the_words_beside_the_state_follow_from_writer_age_and_time() {
        let (_folder, writer, ring) = ring(2);
        writer.status().set_state(State::Reconnecting, Reason::NoPackets, 2, None);
        let mut status = ring.status();
        status.last_publish_mono_ns = (mono_ns() - 61_000_000_000).cast_unsigned();
        status.process_start_real_ns = 0;
        let mut report = RingReport::new(&ring, "front", &status);
        report.liveness = Liveness::Gone;
        report.stale = true;
        assert_eq!(report.state_words(), "reconnecting, dead writer, offline, stale");
        report.state = State::Stopped;
        report.offline = false;
        assert_eq!(report.state_words(), "stopped");
        assert_eq!(report.fps, 0.0);
    }

    #[test]
    fn the_grade_asks_for_a_person_when_the_daemon_is_no_more_or_cannot_cure_it() {
        let (_folder, _writer, ring) = ring(1);
        let of = |state, reason, liveness, stale| {
            let mut report = RingReport::observe(&ring, "front");
            (report.state, report.reason, report.liveness, report.stale) = (state, reason, liveness, stale);
            report.writer_alive = liveness != Liveness::Gone;
            (report.grade(), report.note())
        };
        let grade = |state, reason, liveness, stale| of(state, reason, liveness, stale).0;
        use Liveness::{Alive, Gone, Hung};
        assert_eq!(grade(State::Live, Reason::None, Alive, false), Grade::Fine);
        assert_eq!(grade(State::Live, Reason::None, Alive, true), Grade::Waiting);
        assert_eq!(grade(State::Parked, Reason::None, Alive, true), Grade::Fine, "it rests on purpose");
        assert_eq!(grade(State::Reconnecting, Reason::NoPackets, Alive, true), Grade::Waiting);
        assert_eq!(grade(State::Connecting, Reason::Auth, Alive, false), Grade::Broken, "trying again cures nothing");
        assert_eq!(grade(State::Live, Reason::Auth, Alive, false), Grade::Fine, "it was cured");
        assert_eq!(grade(State::Error, Reason::Internal, Alive, false), Grade::Broken);
        assert_eq!(grade(State::Stopped, Reason::Operator, Gone, true), Grade::Off);
        let dead = of(State::Live, Reason::None, Gone, true);
        assert_eq!(dead, (Grade::Broken, "its daemon is not running: start camring@front".into()));
        let hung = of(State::Live, Reason::None, Hung, true);
        assert_eq!(hung, (Grade::Broken, "its daemon gives no sign of life".into()));
        assert_eq!(of(State::Stopped, Reason::Operator, Gone, true).1, "operator");
    }

    #[test]
    fn a_daemon_that_has_just_started_is_not_offline_because_of_old_frames() {
        let (_folder, writer, ring) = ring(1);
        writer.status().set_state(State::Reconnecting, Reason::None, 1, None);
        let mut status = ring.status();
        status.last_publish_mono_ns = 1;
        status.process_start_real_ns = (real_ns() - 1_000_000_000).cast_unsigned();
        assert!(!RingReport::new(&ring, "front", &status).offline);
    }

    #[test]
    fn a_daemon_that_has_said_its_state_within_a_second_is_not_hung_because_of_the_heartbeat_before_it() {
        let (_folder, _writer, ring) = ring(1);
        let mut status = ring.status();
        let now = mono_ns();
        let second = |ago: i64| (now - ago * 1_000_000_000).cast_unsigned();
        (status.heartbeat_mono_ns, status.state_since_mono_ns) = (second(9), second(0));
        assert_eq!(judged(Liveness::Alive, &status, now), Liveness::Alive);
        assert_eq!(judged(Liveness::Hung, &status, now), Liveness::Alive);
        assert_eq!(judged(Liveness::Gone, &status, now), Liveness::Gone);
        status.state_since_mono_ns = second(8);
        assert_eq!(judged(Liveness::Alive, &status, now), Liveness::Hung);
        status.heartbeat_mono_ns = second(0);
        assert_eq!(judged(Liveness::Alive, &status, now), Liveness::Alive);
        assert_eq!(judged(Liveness::Hung, &status, now), Liveness::Hung, "it was seen to stand still");
    }

    #[test]
    fn stale_is_decided_by_the_configured_limit() {
        assert!(!is_stale(Some(1000.0), Some(1000)) && is_stale(Some(1001.0), Some(1000)));
        assert!(is_stale(Some(-1.0), Some(1000)), "a negative age is never fresh");
        assert!(!is_stale(Some(1e9), None) && !is_stale(None, Some(1)));
    }

    #[test]
    fn spans_are_words_for_people() {
        let texts = [
            (0.4, "0 ms"),
            (18.0, "18 ms"),
            (999.6, "1.0 s"),
            (4200.0, "4.2 s"),
            (59_960.0, "60.0 s"),
            (60_000.0, "1 min"),
        ];
        for (ms, text) in texts {
            assert_eq!(Span(ms).to_string(), text);
        }
        assert_eq!(Span(3_599_999.0).to_string(), "59 min");
        assert_eq!(Span(7_200_000.0).to_string(), "2 h");
        assert_eq!(Span(432_000_000.0).to_string(), "5 d");
    }
}
