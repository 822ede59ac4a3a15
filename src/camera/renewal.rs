//! The renewal: what a reload of the configuration means for a supervisor at work.

use std::fmt;
use std::time::Duration;

use super::Camera;
use super::policy::Policy;
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
    /// Where the pictures come from, if that has changed: the session is ended in order and another one begun at once.
    pub source: Option<Box<dyn FrameSource>>,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").field("policy", &self.policy).field("source", &self.source.is_some()).finish()
    }
}

impl Camera {
    /// Takes over what a reload changes in place; hands on the source that a new session is to be begun with.
    pub(super) fn adopt(&mut self, reload: Reload, watch: Option<&mut Watch>) -> Option<Box<dyn FrameSource>> {
        self.health.reloading();
        let mut source = None;
        if let Reload::Renewed(renewal) = reload {
            self.policy = renewal.policy;
            self.health.set_ready_timeout(renewal.ready_timeout);
            if let Some(watch) = watch {
                watch.adopt(&self.policy);
            }
            source = renewal.source;
        }
        self.settle_sink();
        if source.is_none() {
            self.health.reloaded();
        }
        source
    }

    /// Has the sink make the changes that were asked for, while it is home; otherwise the next picture does.
    pub(super) fn settle_sink(&mut self) {
        if let Some(sink) = self.sink.at_home() {
            sink.settle();
        }
    }

    /// Uses another source from the next session on; the one before must be home. What failed with it does not count.
    pub(super) fn renew(&mut self, source: Box<dyn FrameSource>) {
        self.source.keep(source);
        self.tries.reset();
        self.chronicle.forget();
        self.health.reloaded();
    }
}
