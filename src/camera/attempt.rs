//! The attempt: one session with the camera, from its launch until everything that was lent to it is home.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::turn::{Glimpse, Turn};
use super::watch::{Sample, Watch};
use super::worker::{Home, Worker};
use crate::clock::Mono;
use crate::source::{FrameSink, FrameSource, Progress};

/// A session as the supervisor sees it.
pub(crate) struct Attempt {
    /// Its number, if it becomes one that counts.
    pub(crate) number: u32,
    pub(crate) worker: Worker,
    pub(crate) watch: Watch,
    /// What its pictures look like, published or not.
    pub(crate) glimpse: Arc<Glimpse>,
    pub(crate) begun: Mono,
    /// For a session beside this one.
    pub(crate) spare: Option<Box<dyn FrameSource>>,
    /// Where the source comes home; [`Attempt::is_home`] looks down the road by itself.
    pub(crate) source: Home<Box<dyn FrameSource>>,
    /// The same of the sink.
    pub(crate) berth: Home<Box<dyn FrameSink>>,
}

impl Attempt {
    /// Begins a session of `camera` on a thread of its own, with what is asked of it in `progress`; its pictures are published when it gets its turn.
    pub(crate) fn launch(
        number: u32,
        source: Box<dyn FrameSource>,
        turn: &Arc<Turn>,
        watch: Watch,
        begun: Mono,
        (progress, camera): (Arc<Progress>, &str),
    ) -> Self {
        let spare = source.twin();
        let (berth, glimpse) = turn.berth(number);
        let (mut source, mut berth) = (Home::new(source), Home::new(berth));
        let lend = "nothing was lent of it before";
        let worker = Worker::launch(number, source.lend().expect(lend), berth.lend().expect(lend), progress, camera);
        Self { number, worker, watch, glimpse, begun, spare, source, berth }
    }

    /// Whether nothing of the session runs any more.
    pub(crate) fn is_home(&mut self) -> bool {
        let source_is_home = self.source.is_home();
        self.berth.is_home() && source_is_home
    }

    /// The source, for the next session; `None` while this one has it.
    pub(crate) fn into_source(self) -> Option<Box<dyn FrameSource>> {
        self.source.into_value()
    }

    /// Whether packets of it arrived.
    pub(crate) fn was_connected(&self) -> bool {
        self.watch.was_connected() || self.worker.progress().packets.load(Relaxed) > 0
    }

    /// Its counters; a session without a turn is judged by its own pictures, because nothing of it is published.
    pub(crate) fn unpublished(&self) -> Sample {
        Sample::of(self.worker.progress(), self.glimpse.good(), None, false)
    }
}
