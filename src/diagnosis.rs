//! What ails a ring, in an operator's words: from its state, its counters and its newest frames to causes and cures.
//!
//! Nothing here asks anybody but the ring; `camring doctor` and every other page that names a cause says what is said here.

mod frames;
mod picture;
mod reasons;

use std::fmt;

use camring_ring::{FrameMeta, Liveness, Reason, State};
use serde::{Serialize, Serializer};

use crate::report::{RingReport, Span};

pub use picture::Sight;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warn,
    /// It does not work.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that was found, and the sentence that cures it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The word for it, stable: `password`, `packet_loss`.
    pub cause: &'static str,
    /// What was found, one sentence.
    pub found: String,
    /// What to do; empty when there is nothing to do.
    pub cure: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(cause: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, cause, found: found.into(), cure: String::new() }
    }

    /// Something that works and deserves a look.
    pub fn warn(cause: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { level: Level::Warn, cause, found: found.into(), cure: cure.into() }
    }

    /// Something that does not work.
    pub fn fail(cause: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { level: Level::Fail, cause, found: found.into(), cure: cure.into() }
    }
}

/// A ring looked at twice, some seconds apart, and the frames in between.
#[derive(Clone, Debug)]
pub struct Looks {
    /// The first look.
    pub before: RingReport,
    /// The second one.
    pub now: RingReport,
    /// Ended sessions by reason.
    pub reconnects: Vec<(Reason, u64)>,
    /// For how long the ring has existed, milliseconds.
    pub exists_ms: f64,
    /// Metadata of frames seen, by number.
    pub frames: Vec<FrameMeta>,
    /// What their pictures look like.
    pub sight: Sight,
}

impl Looks {
    /// By how much a counter has grown between the looks.
    fn grown(&self, counter: &str) -> u64 {
        let of = |report: &RingReport| report.counters.get(counter).copied().unwrap_or(0);
        of(&self.now).saturating_sub(of(&self.before))
    }

    /// The value of a counter.
    fn count(&self, counter: &str) -> u64 {
        self.now.counters.get(counter).copied().unwrap_or(0)
    }

    /// Sessions that ended for a reason.
    fn ended(&self, reason: Reason) -> u64 {
        self.reconnects.iter().find(|(found, _)| *found == reason).map_or(0, |(_, count)| *count)
    }

    /// Whether frames are to be expected.
    fn is_live(&self) -> bool {
        matches!(self.now.state, State::Live | State::Degraded)
    }
}

/// Everything that ails a ring, the worst first; one finding of level ok when nothing does.
#[must_use]
pub fn diagnose(looks: &Looks) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(of_writer(&looks.now));
    if looks.now.state != State::Stopped {
        if looks.now.writer_alive {
            findings.extend(reasons::of_state(looks));
        }
        findings.extend(of_sessions(looks));
        findings.extend(frames::of_counters(looks));
        findings.extend(frames::of_frames(looks));
        if looks.is_live() && looks.now.writer_alive {
            findings.extend(looks.sight.finding());
        }
    }
    findings.extend(of_names(looks));
    if findings.is_empty() {
        findings.push(fine(&looks.now));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

fn fine(report: &RingReport) -> Finding {
    let RingReport { codec, decoder, fps, .. } = report;
    let text = match report.state {
        State::Live => {
            let (size, age) = (report.size_text(), report.age_text());
            format!("live: {size} at {fps:.1} fps, {age} old, {codec} decoded by {decoder}")
        }
        _ => report.state_words(),
    };
    Finding::ok("fine", text)
}

/// The daemon itself.
fn of_writer(report: &RingReport) -> Option<Finding> {
    let name = camera(report);
    if report.retired {
        let found = "this ring has been replaced and nobody has followed to the new one";
        return Some(Finding::warn(
            "writer_retired",
            found,
            format!("camring show {name}; restart what still reads it"),
        ));
    }
    if report.state == State::Stopped {
        return None;
    }
    let age = report.age_text();
    match report.liveness {
        Liveness::Alive => None,
        Liveness::Gone => Some(Finding::fail(
            "writer_dead",
            format!("the capture process is gone without a goodbye (killed or crashed); the newest frame is {age} old"),
            format!(
                "systemctl start camring@{name}, or camring run {name}; journalctl -u camring@{name} says why it ended; camring rm {name} when the camera is gone for good"
            ),
        )),
        Liveness::Hung => Some(Finding::fail(
            "writer_hung",
            format!(
                "the capture process {} shows no sign of life: stopped, swapped out, or starved; the newest frame is {age} old",
                pid(report)
            ),
            format!("systemctl restart camring@{name}; kill -CONT {} if somebody has stopped it", pid(report)),
        )),
    }
}

fn pid(report: &RingReport) -> String {
    report.writer_pid.map_or_else(|| "(pid unknown)".to_owned(), |pid| pid.to_string())
}

/// The camera of a ring, which may be one of several outputs.
fn camera(report: &RingReport) -> &str {
    report.name.split('.').next().unwrap_or(&report.name)
}

/// Sessions that end again and again.
fn of_sessions(looks: &Looks) -> Vec<Finding> {
    let mut findings = Vec::new();
    let cuts = looks.ended(Reason::ServerClosed);
    if cuts >= 2 && looks.now.state != State::Stopped {
        let every = Span(looks.exists_ms / cuts as f64);
        findings.push(Finding::warn(
            "session_cuts",
            format!("the camera has ended {cuts} sessions, one in {every} on average"),
            "cameras that count RTSP requests only as signs of life cut each session at one age: use a GStreamer of 1.26.7 or newer, a longer session timeout in the camera, or transport = \"udp\"; at other ages: too many viewers, or a camera that restarts",
        ));
    }
    findings
}

/// Names that somebody removes.
fn of_names(looks: &Looks) -> Option<Finding> {
    (looks.grown("relinked") > 0).then(|| {
        Finding::warn(
            "names_removed",
            format!("somebody has removed the ring's name {} times", looks.count("relinked")),
            "a reader uses Python's SharedMemory(name): give it the package camring; or a cleaner of /dev/shm: leave camring.* out of it",
        )
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use camring_ring::{Geometry, PixelFormat};

    pub(crate) fn frame(seq: u64) -> FrameMeta {
        let mut meta = FrameMeta::new(Geometry::packed(640, 360, PixelFormat::Bgr).expect("a size"));
        meta.seq = camring_ring::Sequence(seq);
        let at = seq.cast_signed() * 100_000_000;
        (meta.arrival_mono_ns, meta.decoded_mono_ns, meta.lag_ns) = (at, at + 4_000_000, 4_000_000);
        meta.rtp_timestamp = (seq * 9000) as u32;
        meta.source_unix_ns = Some(1_700_000_000_000_000_000 + at);
        meta.arrival_real_ns = 1_700_000_000_000_000_000 + at + 20_000_000;
        meta.session_id = 1;
        meta
    }

    /// A healthy ring of ten frames a second.
    pub(crate) fn healthy() -> Looks {
        let report = RingReport {
            name: "front".into(),
            segment: "camring.front".into(),
            error: None,
            state: State::Live,
            reason: Reason::None,
            attempt: 0,
            state_age_ms: 60_000.0,
            next_retry_ms: None,
            liveness: Liveness::Alive,
            writer_alive: true,
            writer_pid: Some(812),
            offline: false,
            stale: false,
            stale_after_ms: Some(1000),
            width: Some(640),
            height: Some(360),
            format: Some(PixelFormat::Bgr),
            slots: 8,
            slot_bytes: 691_200,
            file_bytes: 6_000_000,
            seq: 20,
            fps: 10.0,
            age_ms: Some(18.0),
            writer_epoch: 1,
            geometry_epoch: 1,
            session: 1,
            generation: "00".into(),
            retired: false,
            readers: 0,
            reader_pids: vec![],
            decoder: "avdec_h264".into(),
            codec: "h264".into(),
            counters: [("packets", 1000)].into(),
        };
        Looks {
            before: report.clone(),
            now: report,
            reconnects: vec![],
            exists_ms: 60_000.0,
            frames: (1..=20).map(frame).collect(),
            sight: Sight::default(),
        }
    }

    pub(crate) fn causes(looks: &Looks) -> Vec<&'static str> {
        diagnose(looks).iter().map(|finding| finding.cause).collect()
    }

    #[test]
    fn nothing_ails_a_healthy_ring_and_the_line_says_what_it_delivers() {
        let findings = diagnose(&healthy());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].found, "live: 640x360 at 10.0 fps, 18 ms old, h264 decoded by avdec_h264");
    }

    #[test]
    fn a_dead_writer_and_a_hung_one_are_told_apart_and_an_orderly_stop_is_neither() {
        let with = |liveness, state| {
            let mut looks = healthy();
            (looks.now.liveness, looks.now.writer_alive) = (liveness, liveness != Liveness::Gone);
            looks.now.state = state;
            causes(&looks)
        };
        assert_eq!(with(Liveness::Gone, State::Live), ["writer_dead"]);
        assert_eq!(with(Liveness::Hung, State::Live), ["writer_hung"]);
        assert_eq!(with(Liveness::Gone, State::Stopped), ["fine"]);
    }

    #[test]
    fn sessions_that_the_camera_ends_are_counted_with_their_pace() {
        let mut looks = healthy();
        looks.reconnects = vec![(Reason::ServerClosed, 1)];
        assert_eq!(causes(&looks), ["fine"], "one is no pattern");
        looks.reconnects = vec![(Reason::ServerClosed, 6)];
        let findings = diagnose(&looks);
        assert_eq!(findings[0].cause, "session_cuts");
        assert!(findings[0].found.contains("6 sessions, one in 10.0 s"), "{findings:?}");
    }
}
