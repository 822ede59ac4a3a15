//! The watch over one session: from what the streaming threads counted to "stay", "enter" or "end". Pure.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use camring_ring::frame::Reason;
use humantime::format_duration;

use super::pace::Pace;
use super::phase::{Cause, Phase};
use super::policy::Policy;
use crate::clock::Mono;
use crate::source::{Demand, Progress, RetryClass, RetryReason};

/// Time between two looks at a session's counters.
const LOOK: Duration = Duration::from_millis(250);
/// The same while the first frame is awaited: it decides when users see `live`.
const SYNC_LOOK: Duration = Duration::from_millis(20);
/// The same while the decoder rests: it decides how soon a first reader's frame is decoded.
const PARKED_LOOK: Duration = Duration::from_millis(100);
/// Least and greatest patience of the automatic stall limit.
const STALL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// One reading of a session's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) packets: u64,
    pub(crate) last_packet: Option<Mono>,
    pub(crate) decoded: u64,
    pub(crate) last_decoded: Option<Mono>,
    pub(crate) published: u64,
    pub(crate) gate_closed: bool,
    pub(crate) lag: Duration,
    /// How long the picture had not changed when the newest frame was decoded.
    pub(crate) unchanged: Duration,
    /// Whether nobody has read for long enough.
    pub(crate) idle: bool,
    /// Why the ring takes no frames, if it does not.
    pub(crate) refusal: Option<Reason>,
}

impl Sample {
    pub(crate) fn of(progress: &Progress, published: u64, refusal: Option<Reason>, idle: bool) -> Self {
        let moment = |ns: i64| (ns != 0).then_some(Mono(ns));
        Self {
            packets: progress.packets.load(Relaxed),
            last_packet: moment(progress.last_packet_mono_ns.load(Relaxed)),
            decoded: progress.decoded.load(Relaxed),
            last_decoded: moment(progress.last_decoded_mono_ns.load(Relaxed)),
            published,
            gate_closed: progress.gate_closed.load(Relaxed),
            lag: Duration::from_nanos(progress.lag_ns.load(Relaxed)),
            unchanged: Duration::from_nanos(progress.unchanged_ns.load(Relaxed)),
            idle,
            refusal,
        }
    }
}

/// What a look at a session leads to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing changed.
    Stay,
    /// The session is in another phase, or in the same one for another reason; look again.
    Enter(Phase, Reason),
    /// The session has to be ended.
    End(Ending),
}

/// Why a session is ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) why: RetryReason,
    pub(crate) cause: Cause,
    /// Time without a frame, for the log; `None` when frames are not the point.
    pub(crate) silent: Option<Duration>,
    /// Set when trouble that frames survived is given a new session.
    pub(crate) forced: bool,
    /// Set when the session made room for one with other settings: the next one begins at once.
    pub(crate) renewed: bool,
    /// How long the session got no packet, if it never got one.
    pub(crate) hung: Duration,
    /// Set when the camera ends each session at the same age.
    pub(crate) regular: bool,
}

impl Ending {
    pub(crate) fn failure(why: RetryReason) -> Self {
        Self {
            why,
            cause: Cause::Failure,
            silent: None,
            forced: false,
            renewed: false,
            hung: Duration::ZERO,
            regular: false,
        }
    }

    /// The operator has changed what a session is made of.
    pub(crate) fn renewed() -> Self {
        let message = "the configuration has changed; beginning a new session with it".to_owned();
        Self { renewed: true, ..Self::transient(Reason::Planned, message) }
    }

    fn transient(reason: Reason, message: String) -> Self {
        Self::failure(RetryReason { reason, class: RetryClass::Transient, message })
    }

    fn silence(reason: Reason, silent: Duration, message: String) -> Self {
        Self { cause: Cause::Silence, silent: Some(silent), ..Self::transient(reason, message) }
    }
}

/// Judges one session.
#[derive(Debug)]
pub(crate) struct Watch {
    policy: Policy,
    phase: Phase,
    reason: Reason,
    /// Since when the phase lasts; a degraded session that finds another trouble is degraded since the first one.
    since: Mono,
    published_before: u64,
    live_at: Option<Mono>,
    pace: Pace,
    gate_closed_since: Option<Mono>,
    gate_open_since: Mono,
    untroubled_since: Option<Mono>,
    may_force_at: Mono,
    stall_due: Option<Mono>,
    woken: Option<Woken>,
}

/// A parked session whose frames are wanted again.
#[derive(Clone, Copy, Debug)]
struct Woken {
    at: Mono,
    /// Frames published until then.
    published: u64,
}

impl Watch {
    /// Begins at `now`, when `published` frames were published before; trouble may force a reconnect from
    /// `may_force_at` on.
    pub(crate) fn new(policy: &Policy, now: Mono, published: u64, may_force_at: Mono) -> Self {
        Self {
            policy: policy.clone(),
            phase: Phase::Connecting,
            reason: Reason::None,
            since: now,
            published_before: published,
            live_at: None,
            pace: Pace::default(),
            gate_closed_since: None,
            gate_open_since: now,
            untroubled_since: None,
            may_force_at,
            stall_due: None,
            woken: None,
        }
    }

    /// Judges by these limits from now on.
    pub(crate) fn adopt(&mut self, policy: &Policy) {
        self.policy = policy.clone();
    }

    /// How long the session has been live, trouble included; zero before.
    pub(crate) fn live_for(&self, now: Mono) -> Duration {
        self.live_at.map_or(Duration::ZERO, |at| now.since(at))
    }

    /// Which phase the session is in, and why.
    pub(crate) fn phase(&self) -> (Phase, Reason) {
        (self.phase, self.reason)
    }

    /// Whether a next frame is to be expected.
    pub(crate) fn has_frames(&self) -> bool {
        matches!(self.phase, Phase::Live | Phase::Degraded)
    }

    /// Judges by the camera's rings from now on, which hold `published` frames: until now the session's pictures went nowhere.
    pub(crate) fn take_over(&mut self, policy: &Policy, published: u64, may_force_at: Mono) {
        self.adopt(policy);
        (self.published_before, self.may_force_at) = (published, may_force_at);
    }

    /// Whether a frame of this session was published.
    pub(crate) fn was_live(&self) -> bool {
        self.live_at.is_some()
    }

    /// Whether the session got as far as a first packet.
    pub(crate) fn was_connected(&self) -> bool {
        self.phase != Phase::Connecting
    }

    /// Which pictures the session is to deliver.
    pub(crate) fn demand(&self) -> Demand {
        if self.phase == Phase::Parked && self.woken.is_none() { self.policy.idle } else { Demand::All }
    }

    /// When to look again, if nothing happens before.
    pub(crate) fn next_look(&self, now: Mono) -> Mono {
        let due = match self.phase {
            Phase::Connecting => now.after(LOOK).min(self.since.after(self.policy.connect_timeout)),
            Phase::Parked if self.woken.is_none() => now.after(PARKED_LOOK),
            Phase::Parked => now.after(SYNC_LOOK),
            Phase::Syncing => now.after(SYNC_LOOK).min(self.since.after(self.policy.sync_timeout)),
            _ => now.after(LOOK).min(self.stall_due.unwrap_or(Mono(i64::MAX))),
        };
        // A moment that is over has been judged already.
        if due > now { due } else { now.after(SYNC_LOOK) }
    }

    /// The source says that the first packet is here.
    pub(crate) fn first_packet(&mut self, now: Mono) -> Verdict {
        match self.phase {
            Phase::Connecting => self.enter(Phase::Syncing, Reason::None, now),
            _ => Verdict::Stay,
        }
    }

    /// Judges the session as it is `now`.
    pub(crate) fn look(&mut self, now: Mono, sample: &Sample) -> Verdict {
        self.follow_gate(now, sample);
        let published = sample.published != self.published_before;
        match self.phase {
            Phase::Connecting if sample.packets > 0 || published => self.enter(Phase::Syncing, Reason::None, now),
            Phase::Connecting if now.since(self.since) >= self.policy.connect_timeout => {
                Verdict::End(self.not_connected())
            }
            Phase::Syncing | Phase::Live | Phase::Degraded | Phase::Refused if sample.refusal.is_some() => {
                self.refused(now, sample)
            }
            Phase::Syncing | Phase::Refused if published => {
                self.live_at.get_or_insert(now);
                self.enter(Phase::Live, Reason::None, now)
            }
            Phase::Syncing if now.since(self.since) >= self.policy.sync_timeout => {
                Verdict::End(self.not_synced(sample))
            }
            Phase::Live | Phase::Degraded if sample.idle => self.enter(Phase::Parked, Reason::None, now),
            Phase::Parked => self.look_parked(now, sample),
            Phase::Live | Phase::Degraded | Phase::Refused => self.look_at_frames(now, sample),
            _ => Verdict::Stay,
        }
    }

    /// Nobody reads: only that packets come is to be expected. Wakes the session when somebody reads again.
    fn look_parked(&mut self, now: Mono, sample: &Sample) -> Verdict {
        self.pace.pause();
        let packets_silent = now.since(sample.last_packet.unwrap_or(self.since).max(self.since));
        if packets_silent >= self.stall_limit() {
            let message = format!("no packet for {}", tenths(packets_silent));
            return Verdict::End(Ending::silence(Reason::NoPackets, packets_silent, message));
        }
        if sample.idle {
            self.woken = None;
            return Verdict::Stay;
        }
        let woken = *self.woken.get_or_insert(Woken { at: now, published: sample.published });
        if let Some(reason) = sample.refusal {
            return self.enter(Phase::Refused, reason, now);
        }
        if sample.published != woken.published && !sample.gate_closed {
            return self.enter(Phase::Live, Reason::None, now);
        }
        if now.since(woken.at) >= self.policy.sync_timeout {
            return Verdict::End(self.not_woken(sample));
        }
        Verdict::Stay
    }

    fn not_woken(&self, sample: &Sample) -> Ending {
        let limit = format_duration(self.policy.sync_timeout);
        if sample.gate_closed {
            let message =
                format!("no keyframe within {limit} of the first reader; shorten the camera's keyframe interval");
            return Ending::transient(Reason::NoKeyframe, message);
        }
        Ending::transient(Reason::DecoderStuck, format!("no frame within {limit} of the first reader"))
    }

    /// Frames come and the ring cannot take them: another session would not help, so this one stays.
    fn refused(&mut self, now: Mono, sample: &Sample) -> Verdict {
        let reason = sample.refusal.unwrap_or(Reason::Internal);
        if let Some(ending) = self.silence(now, sample) {
            return Verdict::End(ending);
        }
        match (self.phase, self.reason) {
            (Phase::Refused, shown) if shown == reason => Verdict::Stay,
            _ => self.enter(Phase::Refused, reason, now),
        }
    }

    fn enter(&mut self, phase: Phase, reason: Reason, now: Mono) -> Verdict {
        if self.phase != phase {
            self.since = now;
            self.woken = None;
        }
        (self.phase, self.reason, self.untroubled_since) = (phase, reason, None);
        Verdict::Enter(phase, reason)
    }

    fn follow_gate(&mut self, now: Mono, sample: &Sample) {
        if sample.gate_closed {
            self.gate_closed_since.get_or_insert(now);
        } else if self.gate_closed_since.take().is_some() {
            self.gate_open_since = now;
        }
    }

    fn look_at_frames(&mut self, now: Mono, sample: &Sample) -> Verdict {
        match sample.last_decoded {
            Some(at) if !sample.gate_closed => self.pace.observe(now, sample.decoded, at),
            _ => self.pace.pause(),
        }
        if let Some(ending) = self.silence(now, sample) {
            return Verdict::End(ending);
        }
        match (self.phase, self.trouble(now, sample)) {
            (Phase::Degraded, Some(reason)) => self.still_degraded(now, reason),
            (_, Some(reason)) => self.enter(Phase::Degraded, reason, now),
            (Phase::Degraded, None) => self.perhaps_recovered(now),
            (_, None) => Verdict::Stay,
        }
    }

    /// Ends a session whose frames have stopped; remembers when that would be the case.
    fn silence(&mut self, now: Mono, sample: &Sample) -> Option<Ending> {
        let limit = self.stall_limit();
        let decoded_at = sample.last_decoded.or(self.live_at)?;
        let packet_at = sample.last_packet.unwrap_or(decoded_at);
        self.stall_due = Some(decoded_at.max(packet_at).after(limit));
        let silent = now.since(decoded_at);
        if silent < limit {
            return None;
        }
        let packets_silent = now.since(packet_at);
        if packets_silent >= limit {
            let message = format!("no packet for {}", tenths(packets_silent));
            return Some(Ending::silence(Reason::NoPackets, silent, message));
        }
        let patience = self.policy.stuck_after.max(limit);
        let fed = !sample.gate_closed && now.since(self.gate_open_since) >= self.policy.stuck_after;
        (fed && silent >= patience).then(|| {
            let message = format!("packets arrive but the decoder gave no frame for {}", tenths(silent));
            Ending::silence(Reason::DecoderStuck, silent, message)
        })
    }

    fn stall_limit(&self) -> Duration {
        match (self.policy.stall_after, self.pace.interval()) {
            (Some(configured), _) => configured,
            (None, Some(interval)) => {
                interval.saturating_mul(10).clamp(STALL.0, STALL.1).max(interval.saturating_mul(3))
            }
            (None, None) => self.policy.sync_timeout,
        }
    }

    fn trouble(&self, now: Mono, sample: &Sample) -> Option<Reason> {
        let gated = self.gate_closed_since.is_some_and(|since| now.since(since) > self.policy.settle);
        let troubles = [
            (gated, Reason::LossGate),
            (sample.lag > self.policy.max_lag, Reason::Lag),
            (self.pace.is_slow(), Reason::LowFps),
            (self.policy.frozen_after.is_some_and(|limit| sample.unchanged >= limit), Reason::Frozen),
        ];
        troubles.into_iter().find_map(|(there, reason)| there.then_some(reason))
    }

    fn still_degraded(&mut self, now: Mono, reason: Reason) -> Verdict {
        self.untroubled_since = None;
        if (self.reason == Reason::Frozen) != (reason == Reason::Frozen) {
            // A still picture is no trouble of the stream: its time does not count towards a forced reconnect.
            self.since = now;
            return self.enter(Phase::Degraded, reason, now);
        }
        let degraded = now.since(self.since);
        // A new session would bring the same picture, and cost the frames that still come.
        let curable = reason != Reason::Frozen;
        if curable && degraded >= self.policy.degraded_deadline && now >= self.may_force_at {
            let message = format!("degraded ({reason}) for {}; trying a new session", tenths(degraded));
            return Verdict::End(Ending { forced: true, ..Ending::transient(reason, message) });
        }
        if reason == self.reason { Verdict::Stay } else { self.enter(Phase::Degraded, reason, now) }
    }

    fn perhaps_recovered(&mut self, now: Mono) -> Verdict {
        let since = *self.untroubled_since.get_or_insert(now);
        // One other picture is proof enough that the camera's picture is not frozen.
        if self.reason != Reason::Frozen && now.since(since) < self.policy.settle {
            return Verdict::Stay;
        }
        self.enter(Phase::Live, Reason::None, now)
    }

    fn not_connected(&self) -> Ending {
        let limit = format_duration(self.policy.connect_timeout);
        let message = format!("no packet within {limit}; is the camera on, and its address and port right?");
        Ending::transient(Reason::ConnectTimeout, message)
    }

    fn not_synced(&self, sample: &Sample) -> Ending {
        let limit = format_duration(self.policy.sync_timeout);
        if sample.decoded > 0 {
            let message = format!("{} frames decoded within {limit} but none published", sample.decoded);
            return Ending::transient(Reason::Internal, message);
        }
        if sample.packets > 0 && !sample.gate_closed {
            let message = format!("packets arrive but the decoder gave no frame within {limit}");
            return Ending::transient(Reason::DecoderStuck, message);
        }
        let message = format!("no keyframe within {limit} of the first packet; shorten the camera's keyframe interval");
        Ending::transient(Reason::NoKeyframe, message)
    }
}

/// A duration for people: rounded to tenths of a second.
pub(crate) fn tenths(duration: Duration) -> humantime::FormattedDuration {
    let tenths = u64::try_from(duration.as_millis() / 100).unwrap_or(u64::MAX);
    format_duration(Duration::from_millis(tenths.saturating_mul(100)))
}
