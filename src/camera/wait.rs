//! Waiting: the pause before the next try.

use std::time::Duration;

use camring_ring::frame::Reason;
use crossbeam_channel::{Receiver, never, select};

use super::Camera;
use super::phase::Phase;
use super::watch::Ending;
use crate::backoff;
use crate::shutdown::Stop;
use crate::source::RetryReason;

impl Camera {
    /// Waits out the back-off; `Some` when the operator asks to stop meanwhile.
    pub(super) fn wait_before_retry(&mut self, ending: &Ending, stop: &Receiver<Stop>) -> Option<Stop> {
        let RetryReason { class, reason, .. } = ending.why;
        // What happens each time is no sign of trouble that gets worse: the next session is begun at once.
        let failures = if ending.regular { 1 } else { self.tries.failed(class) };
        let wait = backoff::delay(class, failures, &self.policy.retry, (self.random)(), ending.hung);
        let failed_at = self.clock.now();
        let until = failed_at.after(wait);
        self.show(Phase::Backoff, reason, Some(until));
        self.chronicle.failed(failed_at, self.state(), ending, self.tries.count(), wait);
        loop {
            let now = self.clock.now();
            self.health.decided(now);
            self.tend_retiring(now);
            if now >= until {
                return None;
            }
            let alarm = self.alarm(until);
            select! {
                recv(stop) -> asked => return Some(asked.unwrap_or(Stop::Orderly)),
                recv(self.reloads) -> reload => match reload {
                    Ok(reload) => {
                        if let Some(source) = self.adopt(reload, None) {
                            self.renew(source);
                            return None;
                        }
                    }
                    Err(_) => self.reloads = never(),
                },
                recv(alarm) -> _ => {}
            }
        }
    }

    /// Whether the camera ends each session at the same age; says so, and what is done about it. `can_relieve`: a second
    /// session can be begun beside one.
    pub(super) fn follow_rhythm(&mut self, reason: Reason, lived: Duration, can_relieve: bool) -> bool {
        let Some(age) = self.rhythm.ended(reason, lived) else {
            // Whatever went wrong now may be why a second session failed.
            self.alone = false;
            return false;
        };
        let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
        let next = if can_relieve && !self.alone {
            "from now on the next one is begun before that and takes over"
        } else {
            "beginning the next one at once each time"
        };
        self.chronicle.notice(self.clock.now(), format!("the camera ends each session after about {age}; {next}"));
        true
    }
}
