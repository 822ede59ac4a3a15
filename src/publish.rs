//! The publisher: every decoded picture is offered to each output of its camera. Runs on the streaming thread, per frame.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError};

use camring_ring::RingName;

use crate::output::Output;
use crate::source::{FrameRef, FrameSink};

/// A change of a camera's outputs.
pub enum Change {
    /// One more.
    Add(Box<Output>),
    /// The one with this ring is over.
    Remove(RingName),
}

/// Changes on their way to the publisher.
#[derive(Default)]
pub struct Changes {
    /// Whether there are any: the publisher looks for them only then.
    due: AtomicBool,
    waiting: Mutex<Vec<Change>>,
}

impl Changes {
    /// Has the publisher make a change before its next picture, or when it rests.
    pub fn push(&self, change: Change) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        self.due.store(true, Release);
    }

    fn take(&self) -> Vec<Change> {
        // Once per reload; otherwise this one load.
        if !self.due.load(Relaxed) || !self.due.swap(false, Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes one camera's pictures to all its rings.
pub struct Publisher {
    outputs: Vec<Output>,
    changes: Arc<Changes>,
    source_seq: u64,
}

impl Publisher {
    /// A publisher to `outputs`, the camera's main ring first; the numbers of pictures go on where the furthest ring ends.
    #[must_use]
    pub fn new(outputs: Vec<Output>, changes: Arc<Changes>) -> Self {
        let source_seq = outputs.iter().map(Output::source_seq).max().unwrap_or(0);
        Self { outputs, changes, source_seq }
    }
}

impl FrameSink for Publisher {
    fn frame(&mut self, frame: &FrameRef<'_>) {
        self.settle();
        self.source_seq += 1;
        for output in &mut self.outputs {
            output.offer(frame, self.source_seq);
        }
    }

    fn session(&mut self, number: u32) {
        self.outputs.iter().for_each(|output| output.session(number));
    }

    fn expect(&mut self, size: (u32, u32)) {
        self.settle();
        self.outputs.iter_mut().for_each(|output| output.expect(size));
    }

    fn settle(&mut self) {
        for change in self.changes.take() {
            match change {
                Change::Add(output) => {
                    self.source_seq = self.source_seq.max(output.source_seq());
                    self.outputs.push(*output);
                }
                Change::Remove(ring) => self.outputs.retain(|output| *output.ring() != ring),
            }
        }
    }
}
