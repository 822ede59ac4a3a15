//! The supervisor: one camera's state machine, its deadlines, and what it tells readers, people and the manager.
//!
//! ```text
//! Idle -> Connecting -> Syncing -> Live <-> Degraded, Parked, Refused
//!             |            |         |         |
//!             +------------+---------+---------+--> Stopping -> Backoff -> Connecting
//!                                                      |
//!                                                      +-- the session does not end --> Outcome::TeardownOverran
//! ```
//!
//! One thread runs it all and never blocks without a deadline. A session may block, so it has a thread of its own
//! ([`worker`]); it is judged by its counters ([`watch`]), and its pictures never come here. Each state of the machine has a
//! file: a session is followed in [`attend`], replaced without a gap in [`relief`], ended in [`teardown`], waited for in [`wait`].

mod attempt;
mod attend;
mod audience;
mod board;
mod chronicle;
mod keeping;
mod pace;
mod phase;
mod policy;
mod relief;
mod renewal;
mod rhythm;
mod show;
mod teardown;
mod tries;
mod turn;
mod visit;
mod wait;
mod watch;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camring_ring::frame::Reason;
use crossbeam_channel::{Receiver, never};

pub use board::{Board, Counts};
pub use phase::{Cause, Past, Phase, state_word};
pub use policy::Policy;
pub use renewal::{Reload, Renewal};
pub use visit::{Found, Onlooker, visit, visit_with};

use crate::clock::{Clock, Mono};
use crate::health::Health;
use crate::shutdown::Stop;
use crate::source::{FrameSink, FrameSource, Progress, RetryClass, RetryReason};
use attempt::Attempt;
use attend::Close;
use audience::Audience;
use chronicle::Chronicle;
use keeping::Keeping;
use relief::{Relief, Retiring};
use rhythm::Rhythm;
use show::Shown;
use tries::Tries;
use turn::Turn;
use watch::{Ending, Watch};

/// What a [`Camera`] is made of.
pub struct Parts {
    /// The camera's name, for the log.
    pub name: String,
    /// Where the pictures come from.
    pub source: Box<dyn FrameSource>,
    /// Where they go; lent to each session and awaited before the next.
    pub sink: Box<dyn FrameSink>,
    /// What readers see.
    pub board: Box<dyn Board>,
    /// What tells the time.
    pub clock: Arc<dyn Clock>,
    /// How patient to be.
    pub policy: Policy,
    /// What the service manager hears.
    pub health: Health,
    /// Whether the ring holds frames of an earlier process: a camera that was reached before is "reconnecting".
    pub past: Past,
    /// The ring's session number so far; 0 in a new ring.
    pub session_id: u32,
}

/// How [`Camera::run`] ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The operator asked for it and everything is at rest.
    Stopped,
    /// The operator asked for it and the session is still ending on its own thread: end the process without running
    /// destructors, with success.
    StopOverran,
    /// A session did not end in time. Readers see `restarting`; end the process without running destructors, with
    /// exit code 75, so that the service manager starts it anew on the same ring.
    TeardownOverran,
}

/// How [`Camera::run_once`] ended.
#[derive(Clone, Debug)]
pub enum Once {
    /// The session is over and freed; another one may be tried.
    Failed(RetryReason),
    /// Nothing more is to be tried.
    Over(Outcome),
}

/// One camera under supervision.
pub struct Camera {
    /// Where the pictures come from; with a session while there is one.
    source: Option<Box<dyn FrameSource>>,
    /// Where they go, and which session's.
    turn: Arc<Turn>,
    board: Box<dyn Board>,
    clock: Arc<dyn Clock>,
    policy: Policy,
    health: Health,
    random: Box<dyn FnMut() -> f64 + Send>,
    reloads: Receiver<Reload>,
    chronicle: Chronicle,
    past: Past,
    audience: Audience,
    sessions: u32,
    tries: Tries,
    rhythm: Rhythm,
    /// A session beside the one at work, which is to take its place.
    relief: Option<Relief>,
    /// Sessions that have lost their place and are still ending.
    retiring: Vec<Retiring>,
    /// Whether requests keep its sessions alive.
    keeping: Keeping,
    /// The camera was seen to allow no second session, for as long as it keeps its rhythm.
    alone: bool,
    /// The sink has not made the changes yet that were asked for, and no picture comes that would have it make them.
    unsettled: bool,
    /// Why the newest session failed; nothing once frames flow.
    reason: Reason,
    /// Why the camera was lost, until it is live again.
    lost: Option<Reason>,
    may_force_at: Mono,
    shown: Option<Shown>,
}

impl Camera {
    /// A camera that has not been tried yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            source: Some(parts.source),
            turn: Turn::new(parts.sink),
            board: parts.board,
            clock: parts.clock,
            policy: parts.policy,
            health: parts.health,
            random: Box::new(fastrand::f64),
            reloads: never(),
            chronicle: Chronicle::new(parts.name),
            past: parts.past,
            audience: Audience::default(),
            sessions: parts.session_id,
            tries: Tries::default(),
            rhythm: Rhythm::default(),
            relief: None,
            retiring: Vec::new(),
            keeping: Keeping::default(),
            alone: false,
            unsettled: false,
            reason: Reason::None,
            lost: None,
            may_force_at: Mono(i64::MIN),
            shown: None,
        }
    }

    /// Draws the jitter of the back-off, in 0..1, from `random` instead of the thread's generator.
    #[must_use]
    pub fn with_random(mut self, random: impl FnMut() -> f64 + Send + 'static) -> Self {
        self.random = Box::new(random);
        self
    }

    /// Takes over what comes down `reloads`.
    #[must_use]
    pub fn with_reloads(mut self, reloads: Receiver<Reload>) -> Self {
        self.reloads = reloads;
        self
    }

    /// Keeps the camera connected until the operator stops it or a session does not end.
    ///
    /// A closed `stop` channel counts as [`Stop::Orderly`]: nobody could stop it otherwise.
    pub fn run(&mut self, stop: &Receiver<Stop>) -> Outcome {
        self.health.begin(self.clock.now());
        self.show(Phase::Idle, Reason::None, None);
        loop {
            match self.try_once(stop) {
                Err(outcome) => return outcome,
                Ok(ending) if ending.renewed => {}
                Ok(ending) => {
                    if self.wait_before_retry(&ending, stop).is_some() {
                        return self.leave(true);
                    }
                }
            }
        }
    }

    /// Runs one session from the connect to the end of its teardown, without waiting after it.
    pub fn run_once(&mut self, stop: &Receiver<Stop>) -> Once {
        self.health.begin(self.clock.now());
        match self.try_once(stop) {
            Ok(ending) => Once::Failed(ending.why),
            Err(outcome) => Once::Over(outcome),
        }
    }

    /// One session, or several of which each took the place of the one before.
    fn try_once(&mut self, stop: &Receiver<Stop>) -> Result<Ending, Outcome> {
        self.settle();
        let Some(source) = self.source.take() else {
            // Only after an overrun teardown, when the process should have ended.
            return Err(Outcome::TeardownOverran);
        };
        self.tries.begin();
        let watch = Watch::new(&self.policy, self.clock.now(), self.board.published(), self.may_force_at);
        let number = self.sessions.wrapping_add(1);
        self.board.session(number);
        self.show(Phase::Connecting, self.reason, None);
        self.chronicle.connecting(self.state(), self.tries.count());
        self.turn.give(number);
        let mut attempt = self.launch(number, source, watch);
        let close = self.attend(&mut attempt, stop);
        self.dismiss_relief(&attempt);
        let now = self.clock.now();
        let lived = attempt.watch.live_for(now);
        let (begun, can_relieve) = (attempt.begun, attempt.spare.is_some());
        match close {
            Close::Failed(ending) => {
                let (mut ending, connected) = self.end_failed(attempt, ending, stop)?;
                if !connected {
                    ending.hung = self.clock.now().since(begun);
                }
                ending.regular = self.follow_rhythm(ending.why.reason, lived, can_relieve);
                Ok(ending)
            }
            Close::Asked(asked) => Err(self.end_asked(attempt, asked, stop)),
            Close::Renewed(source, failed) => {
                let (ending, _) = self.end_failed(attempt, Ending::renewed(), stop)?;
                self.renew(source);
                // What a pause would not help against may have been the session beside it.
                let failed =
                    failed.filter(|failed| matches!(failed.why.class, RetryClass::Auth | RetryClass::Permanent));
                let ending = failed.unwrap_or(ending);
                self.reason = ending.why.reason;
                Ok(ending)
            }
        }
    }

    fn launch(&self, number: u32, source: Box<dyn FrameSource>, watch: Watch) -> Attempt {
        let progress = Arc::new(Progress::default());
        progress.compare.store(self.policy.frozen_after.is_some(), Relaxed);
        let every = self.keeping.every(self.rhythm.age()).unwrap_or_default();
        progress.request_every_ms.store(u64::try_from(every.as_millis()).unwrap_or(u64::MAX), Relaxed);
        let lent = (progress, self.chronicle.camera());
        Attempt::launch(number, source, &self.turn, watch, self.clock.now(), lent)
    }
}
