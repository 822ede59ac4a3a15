//! The renewal: what a reload of the configuration means for a supervisor at work.

use std::fmt;
use std::time::Duration;

use super::Camera;
use super::keeping::Keeping;
use super::policy::Policy;
use super::rhythm::Rhythm;
use super::watch::Watch;
use crate::source::FrameSource;

/// How a reload ended, one for each request.
#[derive(Debug)]
pub enum Reload {
    /// Nothing changes for the supervisor: the file says the same, or is not taken over.
    Kept,
    /// The file says something else.
    Renewed(Box<Renewal>),
}

/// What changes for the supervisor.
pub struct Renewal {
    /// How patient to be from now on; in place.
    pub policy: Policy,
    /// When the service manager hears READY without a frame; in place, before READY.
    pub ready_timeout: Duration,
    /// Where the pictures come from, if that has changed: another session is begun at once, beside the one at work and to
    /// replace it without a gap, or after that has been ended in order.
    pub source: Option<Box<dyn FrameSource>>,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").field("policy", &self.policy).field("source", &self.source.is_some()).finish()
    }
}

impl Camera {
    /// Takes over what a reload changes in place; hands on the source that a new session is to be begun with.
    pub(super) fn adopt(&mut self, reload: Reload, mut watch: Option<&mut Watch>) -> Option<Box<dyn FrameSource>> {
        self.health.reloading();
        let mut source = None;
        if let Reload::Renewed(renewal) = reload {
            self.policy = renewal.policy;
            self.health.set_ready_timeout(renewal.ready_timeout);
            if let Some(watch) = &mut watch {
                watch.adopt(&self.policy);
            }
            source = renewal.source;
        }
        if watch.is_none_or(|watch| !watch.has_frames()) {
            self.settle();
        }
        if source.is_none() {
            self.health.reloaded();
        }
        source
    }

    /// Has the sink make the changes that were asked for, where no picture comes that would have it make them.
    pub(super) fn settle(&mut self) {
        self.unsettled = !self.turn.settle();
    }

    /// Uses another source from the next session on; the one before must be home. What failed with it does not count.
    pub(super) fn renew(&mut self, source: Box<dyn FrameSource>) {
        self.source = Some(source);
        self.renewed();
    }

    /// What was learned of the source before does not count any more.
    pub(super) fn renewed(&mut self) {
        self.alone = false;
        self.keeping = Keeping::default();
        self.rhythm = Rhythm::default();
        self.tries.reset();
        self.chronicle.forget();
        self.health.reloaded();
    }
}
