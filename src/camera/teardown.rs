//! Teardown: a session is ended, and waited for until nothing of it is left.

use std::time::Duration;

use camring_ring::frame::{Reason, State};
use crossbeam_channel::{Receiver, never, select};

use super::attempt::Attempt;
use super::phase::Phase;
use super::show::Shown;
use super::watch::Ending;
use super::worker::EVENTS;
use super::{Camera, Outcome};
use crate::clock::Mono;
use crate::shutdown::Stop;
use crate::source::SourceEvent;

/// Time between two looks at sessions that end beside the one that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// How a teardown ended.
struct TornDown {
    /// Whether source and sink are home, so that another session may begin.
    complete: bool,
    /// Whether the operator asked to stop meanwhile.
    asked: bool,
}

impl Camera {
    /// Ends a session that has failed and takes its source back; with the ending, whether it had been connected.
    ///
    /// # Errors
    ///
    /// What the process ends with: the session does not end, or the operator asked to stop meanwhile.
    pub(super) fn end_failed(
        &mut self,
        mut attempt: Attempt,
        ending: Ending,
        stop: &Receiver<Stop>,
    ) -> Result<(Ending, bool), Outcome> {
        // Deadlines are counted from before their state is shown.
        let now = self.clock.now();
        let reason = ending.why.reason;
        self.reason = reason;
        if attempt.watch.was_live() {
            self.lost = Some(reason);
        }
        if ending.forced {
            self.may_force_at = now.after(self.policy.forced_apart);
        }
        self.show(Phase::Stopping(ending.cause), reason, None);
        let torn_down = self.tear_down(&mut attempt, now.after(self.policy.teardown), stop);
        let connected = attempt.was_connected();
        if connected {
            self.sessions = attempt.number;
        }
        match torn_down {
            TornDown { complete, asked: true } => Err(self.leave(complete)),
            TornDown { complete: true, asked: false } if !self.is_haunted() => {
                self.source = attempt.into_source();
                Ok((ending, connected))
            }
            TornDown { .. } => {
                self.put(Shown { state: State::Restarting, reason, attempt: self.tries.count(), next_retry: None });
                self.chronicle.overran(reason, self.policy.teardown);
                Err(Outcome::TeardownOverran)
            }
        }
    }

    /// Ends a session because the operator asked so.
    pub(super) fn end_asked(&mut self, mut attempt: Attempt, asked: Stop, stop: &Receiver<Stop>) -> Outcome {
        let deadline = self.clock.now().after(self.patience(asked));
        self.announce_stop();
        let torn_down = self.tear_down(&mut attempt, deadline, stop);
        let rest_is_home = self.outwait_retiring(deadline);
        self.leave(torn_down.complete && rest_is_home)
    }

    /// Ends the session and waits until source and sink are home; drains its events, so that none of its threads
    /// waits for room.
    fn tear_down(&mut self, attempt: &mut Attempt, mut deadline: Mono, stop: &Receiver<Stop>) -> TornDown {
        let mut stop = stop.clone();
        let mut asked = false;
        attempt.worker.request_stop();
        loop {
            let now = self.clock.now();
            self.health.decided(now);
            let complete = attempt.is_home();
            if complete || now >= deadline {
                let worker = &mut attempt.worker;
                worker.events.clone().try_iter().take(EVENTS).for_each(|event| self.overhear(event, now));
                self.board.counted(&worker.take_counts());
                return TornDown { complete, asked };
            }
            let alarm = self.alarm(deadline);
            let Attempt { worker, source, berth, .. } = &mut *attempt;
            select! {
                recv(source.road) -> value => value.into_iter().for_each(|value| source.keep(value)),
                recv(berth.road) -> value => value.into_iter().for_each(|value| berth.keep(value)),
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

    /// Waits for sessions that were replaced before; `false` when they have not ended by `deadline`.
    fn outwait_retiring(&mut self, deadline: Mono) -> bool {
        loop {
            let now = self.clock.now();
            self.health.decided(now);
            self.tend_retiring(now);
            if self.retiring.is_empty() || now >= deadline {
                return self.retiring.is_empty();
            }
            // Nothing else is awaited, and the alarm always comes.
            let _ = self.alarm(deadline.min(now.after(LOOK))).recv();
        }
    }

    /// Takes in what a session says while it ends: its notices count, its states no longer do.
    pub(super) fn overhear(&mut self, event: SourceEvent, now: Mono) {
        if let SourceEvent::Notice(text) = event {
            self.chronicle.notice(now, text);
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
    pub(super) fn leave(&mut self, complete: bool) -> Outcome {
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
}
