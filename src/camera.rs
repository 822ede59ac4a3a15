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
//! ([`worker`]); it is judged by its counters ([`watch`]), and its pictures never come here.

mod audience;
mod board;
mod chronicle;
mod pace;
mod phase;
mod policy;
mod renewal;
mod rhythm;
mod tries;
mod visit;
mod watch;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use camring_ring::frame::{Reason, State};
use crossbeam_channel::{Receiver, never, select};

pub use board::{Board, Counts};
pub use phase::{Cause, Past, Phase, state_word};
pub use policy::Policy;
pub use renewal::{Reload, Renewal};
pub use visit::{Found, Onlooker, visit, visit_with};

use crate::backoff;
use crate::clock::{Clock, Mono};
use crate::health::Health;
use crate::shutdown::Stop;
use crate::source::{FrameSink, FrameSource, RetryClass, RetryReason, SourceEvent};
use audience::Audience;
use chronicle::Chronicle;
use rhythm::Rhythm;
use tries::Tries;
use watch::{Ending, Sample, Verdict, Watch, tenths};
use worker::{EVENTS, Home, Report, Worker};

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
    source: Home<Box<dyn FrameSource>>,
    sink: Home<Box<dyn FrameSink>>,
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
    /// Why the newest session failed; nothing once frames flow.
    reason: Reason,
    /// Why the camera was lost, until it is live again.
    lost: Option<Reason>,
    may_force_at: Mono,
    shown: Option<Shown>,
}

/// What the board shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Shown {
    state: State,
    reason: Reason,
    attempt: u8,
    next_retry: Option<Mono>,
}

/// Why attending to a session came to an end.
enum Close {
    Failed(Ending),
    Asked(Stop),
    /// Another source is to be used from now on.
    Renewed(Box<dyn FrameSource>),
}

/// What woke the supervisor.
enum Wake {
    Asked(Stop),
    Reloaded(Reload),
    Event(SourceEvent),
    Report(Report),
    Died,
    Time,
}

/// How a teardown ended.
struct TornDown {
    /// Whether source and sink are home, so that another session may begin.
    complete: bool,
    /// Whether the operator asked to stop meanwhile.
    asked: bool,
}

impl Camera {
    /// A camera that has not been tried yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            source: Home::new(parts.source),
            sink: Home::new(parts.sink),
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
            match self.attempt(stop) {
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
        match self.attempt(stop) {
            Ok(ending) => Once::Failed(ending.why),
            Err(outcome) => Once::Over(outcome),
        }
    }

    fn attempt(&mut self, stop: &Receiver<Stop>) -> Result<Ending, Outcome> {
        self.settle_sink();
        let (Some(source), Some(sink)) = (self.source.lend(), self.sink.lend()) else {
            // Only after an overrun teardown, when the process should have ended.
            return Err(Outcome::TeardownOverran);
        };
        self.tries.begin();
        let begun = self.clock.now();
        let mut watch = Watch::new(&self.policy, begun, self.board.published(), self.may_force_at);
        let session = self.sessions.wrapping_add(1);
        self.board.session(session);
        self.show(Phase::Connecting, self.reason, None);
        self.chronicle.connecting(self.state(), self.tries.count());
        let mut worker = Worker::launch(session, source, sink, self.chronicle.camera());
        worker.progress().compare.store(self.policy.frozen_after.is_some(), Relaxed);
        let close = self.attend(&mut worker, &mut watch, stop);
        let lived = watch.live_for(self.clock.now());
        let mut ended = match close {
            Close::Failed(ending) => self.end_failed(&mut worker, &watch, ending, stop),
            Close::Asked(asked) => Err(self.end_asked(&mut worker, asked, stop)),
            Close::Renewed(source) => {
                let ended = self.end_failed(&mut worker, &watch, Ending::renewed(), stop);
                if ended.is_ok() {
                    self.renew(source);
                }
                ended
            }
        };
        if watch.was_connected() || worker.progress().packets.load(Relaxed) > 0 {
            self.sessions = session;
        } else if let Ok(ending) = &mut ended {
            ending.hung = self.clock.now().since(begun);
        }
        if let Ok(ending) = &mut ended {
            ending.regular = self.follow_rhythm(ending.why.reason, lived);
        }
        ended
    }

    /// Follows a session until it has to be ended.
    fn attend(&mut self, worker: &mut Worker, watch: &mut Watch, stop: &Receiver<Stop>) -> Close {
        loop {
            let now = self.clock.now();
            self.health.decided(now);
            self.board.counted(&worker.take_counts());
            let idle = self.audience.is_idle(now, &self.policy, || self.board.attended());
            let sample = Sample::of(worker.progress(), self.board.published(), self.board.refusal(), idle);
            let verdict = watch.look(now, &sample);
            worker.progress().ask_for(watch.demand());
            let verdict = match verdict {
                Verdict::Stay => {
                    self.forgive(watch.live_for(now));
                    match self.sleep(worker, stop, watch.next_look(now)) {
                        Wake::Asked(asked) => return Close::Asked(asked),
                        Wake::Reloaded(reload) => {
                            if let Some(source) = self.adopt(reload, Some(&mut *watch)) {
                                return Close::Renewed(source);
                            }
                            worker.progress().compare.store(self.policy.frozen_after.is_some(), Relaxed);
                            Verdict::Stay
                        }
                        Wake::Event(event) => self.heed(watch, event),
                        Wake::Report(Report::Failed(why)) => Verdict::End(Ending::failure(why)),
                        Wake::Died => Verdict::End(Ending::failure(died())),
                        Wake::Report(Report::Started) | Wake::Time => Verdict::Stay,
                    }
                }
                verdict => verdict,
            };
            if let Some(ending) = self.obey(verdict) {
                return Close::Failed(ending);
            }
        }
    }

    /// Waits for whatever comes first.
    fn sleep(&mut self, worker: &mut Worker, stop: &Receiver<Stop>, until: Mono) -> Wake {
        let alarm = self.alarm(until);
        select! {
            recv(stop) -> asked => Wake::Asked(asked.unwrap_or(Stop::Orderly)),
            recv(self.reloads) -> reload => match reload {
                Ok(reload) => Wake::Reloaded(reload),
                Err(_) => {
                    self.reloads = never();
                    Wake::Time
                }
            },
            recv(worker.reports) -> report => report.map_or(Wake::Died, Wake::Report),
            recv(worker.events) -> event => match event {
                Ok(event) => Wake::Event(event),
                Err(_) => {
                    worker.events_over();
                    Wake::Time
                }
            },
            recv(alarm) -> _ => Wake::Time,
        }
    }

    /// An alarm for `until`, or earlier when the service manager has to hear something.
    fn alarm(&self, until: Mono) -> Receiver<std::time::Instant> {
        self.clock.alarm(self.health.next_due().map_or(until, |due| due.min(until)))
    }

    fn heed(&mut self, watch: &mut Watch, event: SourceEvent) -> Verdict {
        match event {
            SourceEvent::FirstPacket => return watch.first_packet(self.clock.now()),
            SourceEvent::Decoder { codec, decoder } => {
                self.board.set_text(&codec, &decoder);
                self.chronicle.decoder(codec, decoder);
            }
            SourceEvent::Ended(why) => return Verdict::End(Ending::failure(why)),
            SourceEvent::Notice(text) => self.chronicle.notice(self.clock.now(), text),
        }
        Verdict::Stay
    }

    /// Enters a phase; hands an ending back.
    fn obey(&mut self, verdict: Verdict) -> Option<Ending> {
        match verdict {
            Verdict::Stay => {}
            Verdict::End(ending) => return Some(ending),
            Verdict::Enter(Phase::Live, _) => self.enter_live(),
            Verdict::Enter(Phase::Degraded, reason) => {
                self.show(Phase::Degraded, reason, None);
                self.chronicle.degraded(self.clock.now(), reason);
            }
            Verdict::Enter(Phase::Parked, _) => {
                self.show(Phase::Parked, Reason::None, None);
                self.chronicle.parked(self.clock.now(), self.policy.idle);
            }
            Verdict::Enter(Phase::Refused, reason) => self.show(Phase::Refused, reason, None),
            Verdict::Enter(phase, _) => self.show(phase, self.reason, None),
        }
        None
    }

    fn enter_live(&mut self) {
        self.past = Past::HadFrames;
        self.reason = Reason::None;
        if let Some(reason) = self.lost.take() {
            self.board.reconnected(reason);
        }
        self.show(Phase::Live, Reason::None, None);
        self.health.first_frame();
        self.chronicle.live(self.clock.now(), self.tries.count());
    }

    /// Lets the next failure count as the first one, once the session has been live for long enough.
    fn forgive(&mut self, live_for: Duration) {
        if live_for >= self.policy.live_reset && self.tries.reset() {
            self.chronicle.forget();
        }
    }

    /// Whether the camera ends each session at the same age; says so.
    fn follow_rhythm(&mut self, reason: Reason, lived: Duration) -> bool {
        let Some(age) = self.rhythm.ended(reason, lived) else { return false };
        let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
        let text = format!("the camera ends each session after about {age}; beginning the next one at once each time");
        self.chronicle.notice(self.clock.now(), text);
        true
    }

    fn end_failed(
        &mut self,
        worker: &mut Worker,
        watch: &Watch,
        ending: Ending,
        stop: &Receiver<Stop>,
    ) -> Result<Ending, Outcome> {
        // Deadlines are counted from before their state is shown.
        let now = self.clock.now();
        let reason = ending.why.reason;
        self.reason = reason;
        if watch.was_live() {
            self.lost = Some(reason);
        }
        if ending.forced {
            self.may_force_at = now.after(self.policy.forced_apart);
        }
        self.show(Phase::Stopping(ending.cause), reason, None);
        match self.tear_down(worker, now.after(self.policy.teardown), stop) {
            TornDown { complete, asked: true } => Err(self.leave(complete)),
            TornDown { complete: true, asked: false } => Ok(ending),
            TornDown { complete: false, asked: false } => {
                self.put(Shown { state: State::Restarting, reason, attempt: self.tries.count(), next_retry: None });
                self.chronicle.overran(reason, self.policy.teardown);
                Err(Outcome::TeardownOverran)
            }
        }
    }

    fn end_asked(&mut self, worker: &mut Worker, asked: Stop, stop: &Receiver<Stop>) -> Outcome {
        let deadline = self.clock.now().after(self.patience(asked));
        self.announce_stop();
        let torn_down = self.tear_down(worker, deadline, stop);
        self.leave(torn_down.complete)
    }

    /// Ends the session and waits until source and sink are home; drains its events, so that none of its threads
    /// waits for room.
    fn tear_down(&mut self, worker: &mut Worker, mut deadline: Mono, stop: &Receiver<Stop>) -> TornDown {
        let mut stop = stop.clone();
        let mut asked = false;
        worker.request_stop();
        loop {
            let now = self.clock.now();
            self.health.decided(now);
            let complete = self.source.is_home() && self.sink.is_home();
            if complete || now >= deadline {
                worker.events.clone().try_iter().take(EVENTS).for_each(|event| self.overhear(event, now));
                self.board.counted(&worker.take_counts());
                return TornDown { complete, asked };
            }
            let alarm = self.alarm(deadline);
            select! {
                recv(self.source.road) -> source => source.into_iter().for_each(|source| self.source.keep(source)),
                recv(self.sink.road) -> sink => sink.into_iter().for_each(|sink| self.sink.keep(sink)),
                recv(worker.events) -> event => match event {
                    Ok(event) => self.overhear(event, now),
                    Err(_) => worker.events_over(),
                },
                recv(stop) -> message => {
                    asked = true;
                    self.announce_stop();
                    if message.is_err() {
                        stop = never();
                    }
                    deadline = deadline.min(now.after(self.patience(message.unwrap_or(Stop::Orderly))));
                }
                recv(alarm) -> _ => {}
            }
        }
    }

    /// Takes in what a session says while it ends: its notices count, its states no longer do.
    fn overhear(&mut self, event: SourceEvent, now: Mono) {
        if let SourceEvent::Notice(text) = event {
            self.chronicle.notice(now, text);
        }
    }

    /// Waits out the back-off; `Some` when the operator asks to stop meanwhile.
    fn wait_before_retry(&mut self, ending: &Ending, stop: &Receiver<Stop>) -> Option<Stop> {
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

    /// How long a session may take to end when the operator asks so.
    fn patience(&self, asked: Stop) -> Duration {
        match asked {
            Stop::Orderly => self.policy.stop_teardown,
            Stop::Now => Duration::ZERO,
        }
    }

    /// Says goodbye; `complete` when nothing of a session is left.
    fn leave(&mut self, complete: bool) -> Outcome {
        self.announce_stop();
        self.chronicle.stopped(complete);
        if complete { Outcome::Stopped } else { Outcome::StopOverran }
    }

    fn announce_stop(&mut self) {
        let stopped = Shown { state: State::Stopped, reason: Reason::Operator, attempt: 0, next_retry: None };
        if self.put(stopped) {
            self.health.stopping();
        }
    }

    fn show(&mut self, phase: Phase, reason: Reason, next_retry: Option<Mono>) {
        let attempt = match phase {
            Phase::Idle | Phase::Live | Phase::Degraded | Phase::Parked | Phase::Refused => 0,
            _ => self.tries.count(),
        };
        let shown = Shown { state: state_word(phase, reason, self.past), reason, attempt, next_retry };
        let text = self.status_text(shown);
        if self.put(shown) {
            self.health.status(&text);
        }
    }

    /// Puts it on the board; `false` when the board shows it already.
    fn put(&mut self, shown: Shown) -> bool {
        let changed = self.shown != Some(shown);
        if changed {
            let next_retry = shown.next_retry.map(|moment| moment.0);
            self.board.set_state(shown.state, shown.reason, shown.attempt, next_retry);
            self.shown = Some(shown);
        }
        changed
    }

    fn state(&self) -> State {
        self.shown.map_or(State::Starting, |shown| shown.state)
    }

    fn status_text(&self, shown: Shown) -> String {
        let mut text = shown.state.to_string();
        if shown.reason != Reason::None {
            text += &format!(": {}", shown.reason);
        }
        if shown.attempt > 1 {
            text += &format!(", try {}", shown.attempt);
        }
        if let Some(moment) = shown.next_retry {
            text += &format!(", next in {}", tenths(moment.since(self.clock.now())));
        }
        text
    }
}

fn died() -> RetryReason {
    let message = "the session's thread ended by itself, which is a fault of this program".to_owned();
    RetryReason { reason: Reason::Internal, class: RetryClass::Transient, message }
}
