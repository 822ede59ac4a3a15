//! Attending: a session is followed until it has to be ended, or another one takes its place.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use camring_ring::frame::Reason;
use crossbeam_channel::{Receiver, never, select};

use super::Camera;
use super::attempt::Attempt;
use super::phase::{Past, Phase};
use super::relief::{News, Relief};
use super::renewal::Reload;
use super::watch::{Ending, Sample, Verdict, Watch};
use super::worker::{Report, died};
use crate::clock::Mono;
use crate::shutdown::Stop;
use crate::source::{FrameSource, SourceEvent};

/// Why attending to a session came to an end.
pub(super) enum Close {
    Failed(Ending),
    Asked(Stop),
    /// Another source is to be used from now on; with it, how a session with that has failed beside the one at work.
    Renewed(Box<dyn FrameSource>, Option<Ending>),
}

/// What woke the supervisor.
enum Wake {
    Asked(Stop),
    Reloaded(Reload),
    Event(SourceEvent),
    Report(Report),
    Died,
    /// The session that is to take over has something to say.
    Relief(News),
    Time,
}

impl Camera {
    /// Follows a session until it has to be ended; `attempt` is then the one that has to be.
    pub(super) fn attend(&mut self, attempt: &mut Attempt, stop: &Receiver<Stop>) -> Close {
        loop {
            let now = self.clock.now();
            self.health.decided(now);
            self.board.counted(&attempt.worker.take_counts());
            self.tend_retiring(now);
            if self.unsettled {
                self.settle();
            }
            if let Some(close) = self.tend_relief(attempt, now) {
                return close;
            }
            let idle = self.audience.is_idle(now, &self.policy, || self.board.attended());
            let sample = Sample::of(attempt.worker.progress(), self.board.published(), self.board.refusal(), idle);
            let verdict = attempt.watch.look(now, &sample);
            attempt.worker.progress().ask_for(attempt.watch.demand());
            let verdict = match verdict {
                Verdict::Stay => match self.rest(attempt, now, stop) {
                    Ok(verdict) => verdict,
                    Err(close) => return close,
                },
                verdict => verdict,
            };
            if let Some(ending) = self.obey(verdict)
                && let Some(ending) = self.promote(attempt, ending)
            {
                return Close::Failed(ending);
            }
        }
    }

    /// Sleeps until something happens or is to be looked at; what follows from it.
    fn rest(&mut self, attempt: &mut Attempt, now: Mono, stop: &Receiver<Stop>) -> Result<Verdict, Close> {
        self.forgive(attempt.watch.live_for(now));
        let until = attempt.watch.next_look(now).min(self.next_relief_look(attempt, now));
        let verdict = match self.sleep(attempt, stop, until) {
            Wake::Asked(asked) => return Err(Close::Asked(asked)),
            Wake::Reloaded(reload) => {
                if let Some(source) = self.adopt(reload, Some(&mut attempt.watch))
                    && let Some(source) = self.begin_renewal(attempt, source)
                {
                    return Err(Close::Renewed(source, None));
                }
                attempt.worker.progress().compare.store(self.policy.frozen_after.is_some(), Relaxed);
                Verdict::Stay
            }
            Wake::Event(event) => self.heed(&mut attempt.watch, event),
            Wake::Report(Report::Failed(why)) => Verdict::End(Ending::failure(why)),
            Wake::Died => Verdict::End(Ending::failure(died())),
            Wake::Relief(news) => {
                self.hear_relief(news);
                Verdict::Stay
            }
            Wake::Report(Report::Started) | Wake::Time => Verdict::Stay,
        };
        Ok(verdict)
    }

    /// Waits for whatever comes first.
    fn sleep(&mut self, attempt: &mut Attempt, stop: &Receiver<Stop>, until: Mono) -> Wake {
        let alarm = self.alarm(until);
        let worker = &mut attempt.worker;
        let (events, reports) = self.relief.as_ref().map_or_else(|| (never(), never()), Relief::roads);
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
            recv(events) -> event => Wake::Relief(event.map_or(News::Silent, News::Event)),
            recv(reports) -> report => Wake::Relief(report.map_or(News::Died, News::Report)),
            recv(alarm) -> _ => Wake::Time,
        }
    }

    /// An alarm for `until`, or earlier when the service manager has to hear something.
    pub(super) fn alarm(&self, until: Mono) -> Receiver<std::time::Instant> {
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
            Verdict::Enter(phase, reason) => self.enter(phase, reason),
        }
        None
    }

    /// Shows and tells a phase of the session at work.
    pub(super) fn enter(&mut self, phase: Phase, reason: Reason) {
        match phase {
            Phase::Live => self.enter_live(),
            Phase::Degraded => {
                self.show(Phase::Degraded, reason, None);
                self.chronicle.degraded(self.clock.now(), reason);
            }
            Phase::Parked => {
                self.show(Phase::Parked, Reason::None, None);
                self.chronicle.parked(self.clock.now(), self.policy.idle);
            }
            Phase::Refused => self.show(Phase::Refused, reason, None),
            phase => self.show(phase, self.reason, None),
        }
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
}
