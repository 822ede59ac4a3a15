//! Watches the pictures of one visit until enough was seen, and keeps what each one said.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use camring_ring::{Color, FrameFlags};

use crate::camera::Onlooker;
use crate::cli::progress::Progress;
use crate::pipeline::Tap;
use crate::source::FrameRef;

/// Pictures that are remembered.
const KEPT: usize = 8192;
/// Two groups of pictures are waited for, but no longer than so.
const PATIENCE: Duration = Duration::from_secs(15);
/// Two whole groups of pictures have three keyframes.
const KEYFRAMES: usize = 3;

/// What one picture said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub arrival_mono_ns: i64,
    pub arrival_real_ns: i64,
    pub decoded_mono_ns: i64,
    pub source_unix_ns: Option<i64>,
    pub interlaced: bool,
    pub color: Color,
    pub pixel_aspect: (u16, u16),
}

/// The onlooker of one visit.
pub(super) struct Watching {
    least: Duration,
    tap: Arc<Tap>,
    seen: Mutex<Vec<Seen>>,
    told: AtomicBool,
    progress: Progress,
}

impl Watching {
    pub(super) fn new(least: Duration, tap: Arc<Tap>, progress: Progress) -> Self {
        Self { least, tap, seen: Mutex::default(), told: AtomicBool::new(false), progress }
    }

    pub(super) fn tap(&self) -> &Tap {
        &self.tap
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The pictures of the last session.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Onlooker for Watching {
    fn picture(&self, frame: &FrameRef<'_>) {
        let mut seen = self.lock();
        if seen.len() == KEPT {
            return;
        }
        seen.push(Seen {
            arrival_mono_ns: frame.timing.arrival_mono_ns,
            arrival_real_ns: frame.timing.arrival_real_ns,
            decoded_mono_ns: frame.timing.decoded_mono_ns,
            source_unix_ns: frame.timing.source_unix_ns,
            interlaced: frame.flags.contains(FrameFlags::INTERLACED),
            color: frame.color,
            pixel_aspect: frame.pixel_aspect,
        });
    }

    fn connected(&self) {
        // A session that begins anew by plan tells more than the one before.
        self.lock().clear();
        self.progress.say("connected, waiting for a keyframe");
    }

    fn is_satisfied(&self, pictures: u32, since_first: Duration) -> bool {
        if !self.told.swap(true, Relaxed) {
            self.progress.say("watching");
        }
        if since_first < self.least || pictures < 2 {
            return since_first >= self.least.max(PATIENCE);
        }
        let heard = self.tap.heard();
        let keyframes = heard.units.iter().filter(|unit| unit.keyframe).count();
        // Without access units, as with HTTP, every picture is one.
        heard.units.is_empty() || keyframes >= KEYFRAMES || since_first >= PATIENCE
    }
}
