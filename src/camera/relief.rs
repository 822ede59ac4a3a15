//! The relief: a second session, begun before the camera ends the first and brought up beside it, so that readers see no gap.
//!
//! ```text
//!  session 4  ----------------- at work -----------------+-- ending --
//!  session 5          begun -- proven -- heir -- [turn] -+-- at work ------
//!                     80 % of the age at which the camera ends each
//! ```
//!
//! The first session stays at work until the second has taken a picture over ([`super::turn`]). If it ends before that, the
//! second takes its place as far as it has come. If the second does not come up, the camera is taken to allow one session only.
//!
//! Requests may keep the first one alive ([`super::keeping`]). As long as that is not known the second one only stands by.
//!
//! A reload that brings another source goes the same way.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use camring_ring::frame::Reason;
use crossbeam_channel::Receiver;

use super::Camera;
use super::attempt::Attempt;
use super::attend::Close;
use super::keeping::Keeping;
use super::phase::Phase;
use super::watch::{Ending, Verdict, Watch};
use super::worker::{EVENTS, Report, died};
use crate::clock::Mono;
use crate::source::{Demand, FrameSource, SourceEvent};

/// Time between two looks while the sessions agree on the picture that is taken over.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for the camera's time in the second session: without, pictures are compared by their arrival.
const CLOCK: Duration = Duration::from_secs(3);
/// How long the sessions may take to agree; beyond it the second one takes over whatever that costs.
const AGREE: Duration = Duration::from_secs(2);
/// A session that ended at under nine tenths of the usual age was not cut for its age.
const EARLY: (u32, u32) = (9, 10);

/// What the second session says.
pub(super) enum News {
    Event(SourceEvent),
    Report(Report),
    /// No more events will come.
    Silent,
    Died,
}

/// What a second session is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    /// To take over before the camera ends the first.
    Relieve,
    /// To take over only if the camera ends the first although requests are sent.
    StandBy,
    /// To take over with another source, because a reload wants it.
    Renew,
}

/// A session that is to take the place of the one at work.
pub(super) struct Relief {
    attempt: Attempt,
    /// How long the camera's time is waited for.
    patience: Duration,
    proven_at: Option<Mono>,
    named_at: Option<Mono>,
    /// What it is for.
    purpose: Purpose,
    /// Codec and decoder.
    text: Option<(String, String)>,
    ending: Option<Ending>,
}

impl Relief {
    /// The channels of its news.
    pub(super) fn roads(&self) -> (Receiver<SourceEvent>, Receiver<Report>) {
        (self.attempt.worker.events.clone(), self.attempt.worker.reports.clone())
    }

    /// Judges it as it is `now`; why it has failed, if it has.
    fn judge(&mut self, now: Mono) -> Option<Ending> {
        if let Some(ending) = self.ending.take() {
            return Some(ending);
        }
        loop {
            match self.attempt.watch.look(now, &self.attempt.unpublished()) {
                Verdict::Stay => return None,
                Verdict::End(ending) => return Some(ending),
                Verdict::Enter(Phase::Live, _) => drop(self.proven_at.get_or_insert(now)),
                Verdict::Enter(..) => {}
            }
        }
    }

    /// Goes on towards the moment at which it takes over from `current`; whether it has come.
    fn advance(&mut self, camera: &Camera, current: &Attempt, now: Mono) -> bool {
        let Some(proven_at) = self.proven_at else { return false };
        if self.purpose == Purpose::StandBy {
            return false;
        }
        let number = self.attempt.number;
        if current.watch.demand() != Demand::All {
            // Nobody reads, and no picture comes with which the turn could be passed.
            camera.turn.offer(number);
            return true;
        }
        let Some(named_at) = self.named_at else {
            let share_clock = self.attempt.glimpse.shares_clock(&current.glimpse);
            if share_clock || now.since(proven_at) >= self.patience {
                camera.turn.name_heir(number, share_clock);
                self.named_at = Some(now);
            }
            return false;
        };
        if now.since(named_at) >= AGREE {
            camera.turn.offer(number);
            return true;
        }
        camera.turn.is_held_by(number)
    }
}

/// A session that has lost its place and is still ending.
pub(super) struct Retiring {
    attempt: Attempt,
    deadline: Mono,
    /// It has missed its deadline, and this was told.
    overran: bool,
}

impl Camera {
    /// When to look after the relief again, or for whether to begin one.
    pub(super) fn next_relief_look(&self, attempt: &Attempt, now: Mono) -> Mono {
        match &self.relief {
            Some(relief) if relief.named_at.is_some() => now.after(LOOK),
            Some(relief) => relief.attempt.watch.next_look(now),
            None => self.relief_due(attempt, now).filter(|due| *due > now).unwrap_or(Mono(i64::MAX)),
        }
    }

    /// When a relief is to be begun; `None` = never for this session, or not yet known.
    fn relief_due(&self, attempt: &Attempt, now: Mono) -> Option<Mono> {
        let needed = !self.alone && !matches!(self.keeping, Keeping::Works(_));
        let possible = needed && self.retiring.is_empty() && attempt.spare.is_some() && attempt.watch.was_live();
        let left = self.rhythm.relief_at().filter(|_| possible)?.saturating_sub(attempt.watch.live_for(now));
        Some(now.after(left))
    }

    /// Begins a relief when it is due, follows it, has it take over, gives it up when it fails; why the session at work is to be
    /// closed, if a reload's has failed.
    pub(super) fn tend_relief(&mut self, attempt: &mut Attempt, now: Mono) -> Option<Close> {
        self.judge_requests(attempt, now);
        let Some(mut relief) = self.relief.take() else {
            // The one at work may have passed it on just when the other was given up.
            self.turn.offer(attempt.number);
            if self.relief_due(attempt, now).is_some_and(|due| due <= now)
                && let (Some(source), Some(age)) = (attempt.spare.take(), self.rhythm.age())
            {
                let purpose = if self.tries_requests(attempt) { Purpose::StandBy } else { Purpose::Relieve };
                self.begin_relief(attempt.number, source, CLOCK.min(age / 20), purpose);
            }
            return None;
        };
        self.board.counted(&relief.attempt.worker.take_counts());
        if let Some(ending) = relief.judge(now) {
            return self.give_up(relief, ending, attempt.number);
        }
        let takes_over = relief.advance(self, attempt, now);
        self.relief = Some(relief);
        if takes_over {
            self.change_over(attempt, now);
        }
        None
    }

    /// Whether this session shows what requests are good for.
    fn tries_requests(&self, attempt: &Attempt) -> bool {
        self.keeping == Keeping::Unknown && attempt.worker.progress().answers.load(Relaxed) > 0
    }

    /// Notices that requests have kept the session alive; then nothing needs to stand by.
    fn judge_requests(&mut self, attempt: &Attempt, now: Mono) {
        let Some(age) = self.rhythm.age().filter(|_| self.tries_requests(attempt)) else { return };
        if !Keeping::is_outlived(age, attempt.watch.live_for(now)) {
            return;
        }
        let every = self.keeping.every(Some(age)).unwrap_or(age);
        self.keeping = Keeping::Works(every);
        self.chronicle.keeps(every);
        if self.relief.as_ref().is_some_and(|relief| relief.purpose == Purpose::StandBy) {
            self.dismiss_relief(attempt);
        }
    }

    /// Begins a session with another source beside the one at work; hands the source back where that cannot be.
    pub(super) fn begin_renewal(
        &mut self,
        attempt: &mut Attempt,
        source: Box<dyn FrameSource>,
    ) -> Option<Box<dyn FrameSource>> {
        if self.relief.as_ref().is_some_and(|relief| self.turn.is_held_by(relief.attempt.number)) {
            // Its pictures are in the ring already: the session before must not go on behind them.
            self.change_over(attempt, self.clock.now());
        }
        self.dismiss_relief(attempt);
        // A twin of it is what remains when it does not come up.
        let can_be_two = attempt.spare.is_some() && source.twin().is_some() && !self.alone;
        if !can_be_two || !attempt.watch.was_live() {
            return Some(source);
        }
        self.begin_relief(attempt.number, source, Duration::ZERO, Purpose::Renew);
        None
    }

    fn begin_relief(&mut self, current: u32, source: Box<dyn FrameSource>, patience: Duration, purpose: Purpose) {
        let watch = Watch::new(&self.policy, self.clock.now(), 0, Mono(i64::MAX));
        // No number of one that was dismissed and is still ending.
        let newest = self.retiring.iter().map(|retiring| retiring.attempt.number).fold(current, u32::max);
        let attempt = self.launch(newest.wrapping_add(1), source, watch);
        let (proven_at, named_at, text, ending) = (None, None, None, None);
        self.relief = Some(Relief { attempt, patience, proven_at, named_at, purpose, text, ending });
    }

    /// A relief has failed: the session at work goes on, unless a reload wants it replaced.
    fn give_up(&mut self, mut relief: Relief, ending: Ending, current: u32) -> Option<Close> {
        self.turn.give_back(current);
        let source = relief.attempt.spare.take().filter(|_| relief.purpose == Purpose::Renew);
        self.retire(relief.attempt, self.clock.now());
        match source {
            Some(source) => Some(Close::Renewed(source, Some(ending))),
            None => {
                self.alone = true;
                self.chronicle.alone(&ending.why.message);
                None
            }
        }
    }

    pub(super) fn hear_relief(&mut self, news: News) {
        let now = self.clock.now();
        let Some(relief) = &mut self.relief else { return };
        let failed = match news {
            News::Event(SourceEvent::Ended(why)) | News::Report(Report::Failed(why)) => Some(why),
            News::Died => Some(died()),
            News::Event(SourceEvent::FirstPacket) => {
                relief.attempt.watch.first_packet(now);
                None
            }
            News::Event(SourceEvent::Decoder { codec, decoder }) => {
                relief.text = Some((codec, decoder));
                None
            }
            News::Event(SourceEvent::Notice(text)) => {
                self.chronicle.notice(now, text);
                None
            }
            News::Silent => {
                relief.attempt.worker.events_over();
                None
            }
            News::Report(Report::Started) => None,
        };
        if let Some(why) = failed {
            relief.ending.get_or_insert_with(|| Ending::failure(why));
        }
    }

    /// Gives the relief up without judging the camera by it, because the session at work ends for another reason.
    pub(super) fn dismiss_relief(&mut self, attempt: &Attempt) {
        if let Some(relief) = self.relief.take() {
            self.turn.give_back(attempt.number);
            self.retire(relief.attempt, self.clock.now());
        }
    }

    /// The relief has taken over: it is the session at work from now on.
    fn change_over(&mut self, attempt: &mut Attempt, now: Mono) {
        let was_resting = attempt.watch.demand() != Demand::All;
        let Some(old) = self.succeed(attempt) else { return };
        self.retire(old, now);
        self.board.reconnected(Reason::Planned);
        self.chronicle.relieved(now, attempt.number);
        // The camera was well for as long as it ever lets a session live.
        self.tries.reset();
        match attempt.watch.phase() {
            _ if was_resting => {}
            // Told as what it is, and no news beside that.
            (Phase::Live, _) => self.show(Phase::Live, Reason::None, None),
            (phase, reason) => self.enter(phase, reason),
        }
    }

    /// Has the relief take the place of a session that has come to its `ending`; hands the ending back without one.
    pub(super) fn promote(&mut self, attempt: &mut Attempt, ending: Ending) -> Option<Ending> {
        let Some(relief) = &self.relief else { return Some(ending) };
        let purpose = relief.purpose;
        let (now, reason) = (self.clock.now(), ending.why.reason);
        let (proven, lived) = (relief.proven_at.is_some(), attempt.watch.live_for(now));
        let early = self.rhythm.age().is_some_and(|age| lived < age / EARLY.1 * EARLY.0);
        self.turn.offer(relief.attempt.number);
        let old = self.succeed(attempt)?;
        if purpose == Purpose::StandBy && reason == Reason::ServerClosed && !early {
            self.keeping = Keeping::Useless;
        }
        if early && reason == Reason::ServerClosed {
            // Our doing, and no part of the camera's rhythm.
            self.alone = true;
            self.chronicle.alone("the camera ended the first one when the second began");
        } else if purpose != Purpose::Renew {
            self.follow_rhythm(reason, lived, true);
        }
        if ending.forced {
            self.may_force_at = now.after(self.policy.forced_apart);
        }
        self.reason = reason;
        self.lost = Some(reason);
        if !proven {
            self.show(Phase::Stopping(ending.cause), reason, None);
            self.chronicle.failed(now, self.state(), &ending, self.tries.count(), Duration::ZERO);
            self.tries.begin();
        }
        self.retire(old, now);
        let (phase, reason) = attempt.watch.phase();
        self.enter(phase, reason);
        None
    }

    /// Puts the relief into the place of `attempt`; the session that was there.
    fn succeed(&mut self, attempt: &mut Attempt) -> Option<Attempt> {
        let relief = self.relief.take()?;
        let old = std::mem::replace(attempt, relief.attempt);
        self.sessions = old.number;
        attempt.watch.take_over(&self.policy, self.board.published(), self.may_force_at);
        self.board.session(attempt.number);
        if let Some((codec, decoder)) = relief.text {
            self.board.set_text(&codec, &decoder);
            self.chronicle.decoder(codec, decoder);
        }
        if relief.purpose == Purpose::Renew {
            self.renewed();
        }
        Some(old)
    }

    /// Ends a session beside the one at work.
    fn retire(&mut self, mut attempt: Attempt, now: Mono) {
        attempt.worker.request_stop();
        self.retiring.push(Retiring { attempt, deadline: now.after(self.policy.teardown), overran: false });
    }

    /// Looks after sessions that are ending beside the one at work: takes in what they say, so that none of their threads
    /// waits for room, and forgets those that are over.
    pub(super) fn tend_retiring(&mut self, now: Mono) {
        let mut left = std::mem::take(&mut self.retiring);
        left.retain_mut(|old| {
            let is_home = old.attempt.is_home();
            self.board.counted(&old.attempt.worker.take_counts());
            let events = old.attempt.worker.events.clone();
            events.try_iter().take(EVENTS).for_each(|event| self.overhear(event, now));
            if !is_home && now >= old.deadline && !old.overran {
                old.overran = true;
                self.chronicle.lingers(self.policy.teardown);
            }
            !is_home
        });
        self.retiring = left;
    }

    /// Whether a session that was replaced did not end in time: at the next outage the process is replaced as well.
    pub(super) fn is_haunted(&self) -> bool {
        self.retiring.iter().any(|old| old.overran)
    }
}
