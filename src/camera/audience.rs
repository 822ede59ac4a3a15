//! The audience: since when nobody has read, across sessions.

use std::time::Duration;

use super::policy::Policy;
use crate::clock::Mono;
use crate::source::Demand;

/// Remembers when somebody was last seen reading.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    seen: Option<Mono>,
}

impl Audience {
    /// Whether nobody has read for `idle_after`; asks only where the answer matters. The time counts from the first
    /// look, so that workers that start together with the daemon find it at work.
    pub(crate) fn is_idle(&mut self, now: Mono, policy: &Policy, attended: impl FnOnce() -> bool) -> bool {
        if policy.idle == Demand::All || attended() {
            self.seen = Some(now);
        }
        let away: Duration = now.since(*self.seen.get_or_insert(now));
        policy.idle != Demand::All && away >= policy.idle_after
    }
}
