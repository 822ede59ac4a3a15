//! Looks at every ring for some seconds, at all of them at once, and asks for the diagnosis.

use std::thread;
use std::time::{Duration, Instant};

use camring_ring::clock::real_ns;
use camring_ring::{AttachError, FrameMeta, Liveness, Ring, RingName, State};

use crate::diagnosis::{Finding, Looks, Sight, diagnose};
use crate::report::{RingReport, milliseconds};

/// How long the rings are looked at: long enough for a pace to show, and for a still picture to be seen as one.
const WATCHED: Duration = Duration::from_millis(2800);
/// Between two pictures of one ring.
const STEP: Duration = Duration::from_millis(400);
/// Most frames whose metadata are kept of one ring.
const FRAMES: usize = 512;

/// One ring while it is looked at.
struct Subject {
    name: String,
    ring: Ring,
    before: RingReport,
    frames: Vec<FrameMeta>,
    sight: Sight,
}

/// What ails each of the rings; those that went away meanwhile are left out.
pub(super) fn at_all(
    names: &[RingName],
    attach: impl Fn(&str) -> Result<Ring, AttachError>,
) -> Vec<(String, Vec<Finding>)> {
    let mut found = Vec::new();
    let mut subjects = Vec::new();
    for name in names {
        match attach(name.as_str()) {
            Ok(ring) => subjects.push(Subject::new(name.to_string(), ring)),
            Err(AttachError::NotFound { .. } | AttachError::Removed(_)) => {}
            Err(error) => found.push((name.to_string(), vec![unreadable(name, &error)])),
        }
    }
    watch(&mut subjects);
    found.extend(subjects.into_iter().map(Subject::conclude));
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn unreadable(name: &RingName, error: &AttachError) -> Finding {
    match error {
        AttachError::Permission { .. } => {
            let cure = "join the group that it names (usermod -aG camring USER, then log in again), or ask as root";
            Finding::warn("permission", error.to_string(), cure)
        }
        AttachError::Untrusted { .. } => {
            Finding::warn("owner", error.to_string(), "--any-owner, if that user may be trusted not to truncate it")
        }
        _ => Finding::fail(
            "unreadable",
            error.to_string(),
            format!("restart its daemon; camring rm {name} if none runs"),
        ),
    }
}

fn watch(subjects: &mut [Subject]) {
    if subjects.iter().all(|subject| !subject.moves()) {
        return;
    }
    let (began, mut pixels) = (Instant::now(), Vec::new());
    loop {
        subjects.iter_mut().filter(|subject| subject.moves()).for_each(|subject| subject.look(&mut pixels));
        let left = WATCHED.saturating_sub(began.elapsed());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(STEP));
    }
}

impl Subject {
    fn new(name: String, ring: Ring) -> Self {
        let before = RingReport::observe(&ring, &name);
        Self { name, ring, before, frames: Vec::new(), sight: Sight::default() }
    }

    /// Whether a second look can tell more than the first one.
    fn moves(&self) -> bool {
        self.before.liveness != Liveness::Gone && self.before.state != State::Stopped
    }

    fn look(&mut self, pixels: &mut Vec<u8>) {
        let newest = self.frames.last().map_or(0, |frame| frame.seq.0);
        let mut held = self.ring.held();
        held.retain(|frame| frame.seq.0 > newest);
        held.sort_by_key(|frame| frame.seq);
        let room = FRAMES.saturating_sub(self.frames.len());
        self.frames.extend(held.into_iter().take(room));
        // Without a frame, or overtaken in the middle of the copy: the next look has another.
        if let Ok(frame) = self.ring.latest(pixels) {
            self.sight.look(&frame.meta, pixels);
        }
    }

    fn conclude(self) -> (String, Vec<Finding>) {
        let status = self.ring.status();
        let now = RingReport::new(&self.ring, &self.name, &status);
        let since = |real: i64| if real > 0 { milliseconds(real_ns().saturating_sub(real)) } else { 0.0 };
        let exists_ms =
            since(self.ring.layout().created_real_ns).max(since(status.process_start_real_ns.cast_signed()));
        let Self { before, frames, sight, name, .. } = self;
        (name, diagnose(&Looks { before, now, reconnects: status.reconnects, exists_ms, frames, sight }))
    }
}
