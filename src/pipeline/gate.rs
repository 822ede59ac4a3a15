//! The keyframe gate in front of the decoder: after a loss, nothing that may show damage passes unmarked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use atomic_refcell::AtomicRefCell;
use camring_ring::frame::FrameFlags;
use gst::prelude::*;

use super::arrival::{Arrivals, PtsTable, Wholeness, mono_ns};
use crate::source::{Demand, Progress};

/// What happens to pictures between a loss and the next keyframe.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnCorrupt {
    /// They are dropped; readers keep the last good picture.
    #[default]
    Drop,
    /// They are delivered with CORRUPT and TAINTED set.
    Flag,
}

/// One access unit on its way to the decoder.
#[derive(Clone, Copy, Debug)]
struct Unit {
    pts: Option<u64>,
    /// Number given in front of the leaky queue; a gap is what the queue dropped.
    number: Option<u64>,
    keyframe: bool,
    discont: bool,
    /// Damaged itself: a keyframe like this does not end the damage.
    corrupted: bool,
    /// Gaps in the sequence numbers up to its last packet, as far as that is known: what becomes of the flag for a gap is
    /// left to each element between the packets and here.
    gaps: Option<u64>,
    /// When the newest packet of a keyframe came, as far as that is known; 0 = none.
    keyframe_ns: i64,
    now_ns: i64,
}

/// Whether a unit goes on, and what its picture is to be marked with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Pass(FrameFlags),
    Drop,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// At the start: nothing was decoded yet.
    Waiting {
        since_ns: i64,
    },
    /// After a loss.
    Damaged {
        since_ns: i64,
    },
    /// No keyframe was sent for `keyframe_wait`, or none came whole for [`WAITS`] times as long; opened all the same.
    Tainted {
        until_ns: i64,
    },
    Open,
    /// Nobody reads: units are held back on purpose.
    Resting,
}

/// A stream whose keyframes are sent and never come whole is waited for so many times as long as one that has none.
const WAITS: i64 = 10;

/// The rules, without GStreamer.
#[derive(Debug)]
struct Gate {
    on_corrupt: OnCorrupt,
    keyframe_wait_ns: i64,
    state: Option<State>,
    /// PTS of the keyframe that ended the damage; pictures shown before it but decoded after it are still damaged.
    clean_from: Option<u64>,
    next_number: Option<u64>,
    /// Gaps up to the newest unit.
    gaps: u64,
    /// When the newest sign came that the stream has keyframes.
    keyframe_ns: i64,
    /// A gap in time that no passed unit was marked with yet.
    discont: bool,
    leaked: u64,
    dropped: u64,
    /// Units held back because nobody reads, and from then on until the next keyframe.
    rested: u64,
    /// All pictures are wanted again, and none was let through since.
    waking: bool,
}

impl Gate {
    fn new(on_corrupt: OnCorrupt, keyframe_wait: Duration) -> Self {
        Self {
            on_corrupt,
            keyframe_wait_ns: i64::try_from(keyframe_wait.as_nanos()).unwrap_or(i64::MAX),
            state: None,
            clean_from: None,
            next_number: None,
            gaps: 0,
            keyframe_ns: 0,
            discont: false,
            leaked: 0,
            dropped: 0,
            rested: 0,
            waking: false,
        }
    }

    /// Judges the next unit; `decoder_failed` when the decoder reported an error since the last one, `demand` is what
    /// pictures are wanted.
    fn judge(&mut self, unit: Unit, decoder_failed: bool, demand: Demand) -> Verdict {
        let missing = self.count_leaked(unit.number) | self.has_gap(unit.gaps);
        self.discont |= unit.discont || missing;
        self.note_damage(unit.discont || unit.corrupted || missing || decoder_failed, unit.now_ns);
        let whole_keyframe = unit.keyframe && !unit.corrupted;
        let torn_ns = if unit.keyframe { unit.now_ns } else { 0 };
        self.keyframe_ns = self.keyframe_ns.max(unit.keyframe_ns).max(torn_ns);
        if demand != Demand::All {
            return self.rest(unit.pts, whole_keyframe && demand == Demand::Keyframes);
        }
        if self.state == Some(State::Resting) {
            // What the decoder was not given cannot be referred to: the next keyframe is the first picture.
            (self.state, self.waking) = (Some(State::Waiting { since_ns: unit.now_ns }), true);
        }
        let verdict = if whole_keyframe { self.open(unit.pts) } else { self.judge_delta(unit) };
        match verdict {
            Verdict::Pass(flags) => {
                Verdict::Pass(flags.with_if(std::mem::take(&mut self.discont), FrameFlags::DISCONT))
            }
            Verdict::Drop => {
                *(if self.waking { &mut self.rested } else { &mut self.dropped }) += 1;
                self.discont = true;
                Verdict::Drop
            }
        }
    }

    fn rest(&mut self, pts: Option<u64>, wanted: bool) -> Verdict {
        self.state = Some(State::Resting);
        if !wanted {
            self.rested += 1;
            self.discont = true;
            return Verdict::Drop;
        }
        self.clean_from = pts;
        Verdict::Pass(FrameFlags::KEYFRAME.with_if(std::mem::take(&mut self.discont), FrameFlags::DISCONT))
    }

    fn count_leaked(&mut self, number: Option<u64>) -> bool {
        let leaked = number.zip(self.next_number).map_or(0, |(number, next)| number.saturating_sub(next));
        self.next_number = number.map(|number| number + 1);
        self.leaked += leaked;
        leaked > 0
    }

    /// Whether packets are missing between the unit before and the end of this one.
    fn has_gap(&mut self, gaps: Option<u64>) -> bool {
        let before = self.gaps;
        self.gaps = gaps.map_or(before, |gaps| gaps.max(before));
        self.gaps > before
    }

    fn note_damage(&mut self, damage: bool, now_ns: i64) {
        self.state = Some(match self.state {
            None => State::Waiting { since_ns: now_ns },
            Some(State::Open) if damage => State::Damaged { since_ns: now_ns },
            // A stream that has shown no keyframe for so long has none: waiting again would only cost pictures.
            Some(State::Tainted { .. }) if damage => {
                State::Tainted { until_ns: now_ns.saturating_add(self.keyframe_wait_ns) }
            }
            Some(State::Tainted { until_ns }) if now_ns >= until_ns => State::Open,
            Some(state) => state,
        });
    }

    fn open(&mut self, pts: Option<u64>) -> Verdict {
        if self.state != Some(State::Open) {
            self.clean_from = pts;
        }
        self.state = Some(State::Open);
        Verdict::Pass(FrameFlags::KEYFRAME)
    }

    fn judge_delta(&mut self, unit: Unit) -> Verdict {
        match self.state {
            Some(State::Waiting { since_ns } | State::Damaged { since_ns })
                if self.has_waited(since_ns, unit.now_ns) =>
            {
                self.state = Some(State::Tainted { until_ns: unit.now_ns.saturating_add(self.keyframe_wait_ns) });
                Verdict::Pass(FrameFlags::TAINTED)
            }
            None | Some(State::Waiting { .. } | State::Resting) => Verdict::Drop,
            Some(State::Damaged { .. }) => self.judge_damaged(),
            Some(State::Tainted { .. }) => Verdict::Pass(FrameFlags::TAINTED),
            Some(State::Open) if unit.pts.zip(self.clean_from).is_some_and(|(pts, clean)| pts < clean) => {
                self.judge_damaged()
            }
            Some(State::Open) => {
                self.clean_from = None;
                Verdict::Pass(FrameFlags::default())
            }
        }
    }

    /// Whether it is no use to wait for a keyframe any more. One that was sent and lost shows that others will come.
    fn has_waited(&self, since_ns: i64, now_ns: i64) -> bool {
        let longest_ns = self.keyframe_wait_ns.saturating_mul(WAITS);
        now_ns - since_ns.max(self.keyframe_ns) >= self.keyframe_wait_ns || now_ns - since_ns >= longest_ns
    }

    fn judge_damaged(&self) -> Verdict {
        match self.on_corrupt {
            OnCorrupt::Drop => Verdict::Drop,
            OnCorrupt::Flag => Verdict::Pass(FrameFlags::TAINTED.with(FrameFlags::CORRUPT)),
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, Some(State::Waiting { .. } | State::Damaged { .. } | State::Resting))
    }
}

/// What the gate found out about a unit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Findings {
    /// Flags of the picture.
    pub flags: FrameFlags,
    /// Units dropped since the session began (queue and gate, and those held back because nobody read).
    pub lost: u64,
}

/// The gate's findings by PTS, for the end of the pipeline.
pub(super) struct FindingsTable {
    table: PtsTable<2>,
    /// PTS of the first unit after a rest; 0 = none that matters any more.
    fresh_from: AtomicU64,
}

impl FindingsTable {
    pub(super) fn new() -> Self {
        Self { table: PtsTable::new(), fresh_from: AtomicU64::new(0) }
    }

    /// Whether a picture went into the decoder before a rest and comes out only now: it would look fresh and is old.
    /// Answers about each picture in turn, and no longer asks once a fresh one has come.
    pub(super) fn is_left_over(&self, pts: u64) -> bool {
        let fresh_from = self.fresh_from.load(Ordering::Relaxed);
        if fresh_from != 0 && pts >= fresh_from {
            self.fresh_from.store(0, Ordering::Relaxed);
        }
        pts < fresh_from
    }

    fn put(&self, pts: u64, findings: Findings) {
        self.table.put(pts, [u64::from(findings.flags.0), findings.lost]);
    }

    pub(super) fn get(&self, pts: u64) -> Option<Findings> {
        let [flags, lost] = self.table.get(pts)?;
        Some(Findings { flags: FrameFlags(flags as u32), lost })
    }
}

/// Numbers the units in front of the leaky queue, so that the gate behind it sees what the queue dropped.
///
/// The number travels in the buffer's `offset`, which no element between here and the decoder uses; `numbered` hears
/// each one. A unit of the same time as the one before has lost it in GStreamer's parsers, and gets it back: without it
/// nobody would know whether its packets came.
pub(super) fn number_units(queue_sink: &gst::Pad, numbered: impl Fn(u64) + Send + Sync + 'static) {
    let (next, newest_pts) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    queue_sink.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let buffer = buffer.make_mut();
            buffer.set_offset(number);
            match buffer.pts() {
                Some(pts) => newest_pts.store(pts.nseconds(), Ordering::Relaxed),
                None => {
                    let before = newest_pts.load(Ordering::Relaxed);
                    buffer.set_pts((before != u64::MAX).then(|| gst::ClockTime::from_nseconds(before)));
                }
            }
            numbered(number);
        }
        gst::PadProbeReturn::Ok
    });
}

/// What the gate shares with the rest of the session.
pub(super) struct GateLink {
    pub arrivals: Arc<Arrivals>,
    pub findings: Arc<FindingsTable>,
    pub progress: Arc<Progress>,
    /// Set by whoever hears an error of the decoder; taken by the gate.
    pub decoder_failed: Arc<AtomicBool>,
}

/// Puts the gate on the decoder's sink pad.
pub(super) fn guard(decoder_sink: &gst::Pad, on_corrupt: OnCorrupt, keyframe_wait: Duration, link: GateLink) {
    // One streaming thread runs the probe, so the cell is never contended; it makes the closure `Sync` without a lock.
    let gate = AtomicRefCell::new(Gate::new(on_corrupt, keyframe_wait));
    link.progress.gate_closed.store(true, Ordering::Relaxed);
    decoder_sink.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        let Ok(mut gate) = gate.try_borrow_mut() else { return gst::PadProbeReturn::Ok };
        let pass = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => link.admit(&mut gate, buffer),
            // Every unit is judged; one that must not pass holds back its list.
            Some(gst::PadProbeData::BufferList(list)) => {
                list.iter().filter(|buffer| !link.admit(&mut gate, buffer)).count() == 0
            }
            _ => true,
        };
        if pass {
            return gst::PadProbeReturn::Ok;
        }
        // Not `Drop`: the bindings free the buffer before GStreamer 1.22 frees it again, which it calls critical.
        info.data = None;
        gst::PadProbeReturn::Handled
    });
}

impl GateLink {
    fn admit(&self, gate: &mut Gate, buffer: &gst::BufferRef) -> bool {
        let flags = buffer.flags();
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        let Wholeness { torn, gaps, .. } = pts.map(|pts| self.arrivals.wholeness(pts)).unwrap_or_default();
        let unit = Unit {
            pts,
            number: Some(buffer.offset()).filter(|number| *number != u64::MAX),
            keyframe: !flags.contains(gst::BufferFlags::DELTA_UNIT),
            discont: flags.contains(gst::BufferFlags::DISCONT),
            corrupted: torn || flags.contains(gst::BufferFlags::CORRUPTED),
            gaps,
            keyframe_ns: self.arrivals.keyframe_ns(),
            now_ns: mono_ns(),
        };
        let (dropped, leaked) = (gate.dropped, gate.leaked);
        let failed = self.decoder_failed.swap(false, Ordering::Relaxed);
        let verdict = gate.judge(unit, failed, self.progress.demand());
        self.progress.gate_closed.store(gate.is_closed(), Ordering::Relaxed);
        self.progress.dropped_gate.fetch_add(gate.dropped - dropped, Ordering::Relaxed);
        self.progress.dropped_leaky.fetch_add(gate.leaked - leaked, Ordering::Relaxed);
        let Verdict::Pass(flags) = verdict else { return false };
        if let Some(pts) = unit.pts {
            self.findings.put(pts, Findings { flags, lost: gate.dropped + gate.leaked + gate.rested });
            if std::mem::take(&mut gate.waking) {
                self.findings.fresh_from.store(pts, Ordering::Relaxed);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::arrival::watch_packets;
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn gate(on_corrupt: OnCorrupt) -> Gate {
        Gate::new(on_corrupt, Duration::from_secs(10))
    }

    impl Gate {
        fn see(&mut self, unit: Unit, decoder_failed: bool) -> Verdict {
            self.judge(unit, decoder_failed, Demand::All)
        }
    }

    /// Unit number `number`, 40 ms after the one before.
    fn delta(number: u64) -> Unit {
        Unit {
            pts: Some(number * 40),
            number: Some(number),
            keyframe: false,
            discont: false,
            corrupted: false,
            gaps: None,
            keyframe_ns: 0,
            now_ns: number as i64 * 40_000_000,
        }
    }

    fn key(number: u64) -> Unit {
        Unit { keyframe: true, ..delta(number) }
    }

    const CLEAN: Verdict = Verdict::Pass(FrameFlags(0));
    const KEY: Verdict = Verdict::Pass(FrameFlags::KEYFRAME);

    fn marked(flags: &[FrameFlags]) -> Verdict {
        Verdict::Pass(flags.iter().fold(FrameFlags::default(), |all, flag| all.with(*flag)))
    }

    #[test]
    fn nothing_passes_before_the_first_keyframe() {
        for on_corrupt in [OnCorrupt::Drop, OnCorrupt::Flag] {
            let mut gate = gate(on_corrupt);
            assert_eq!((gate.see(delta(0), false), gate.see(delta(1), false)), (Verdict::Drop, Verdict::Drop));
            assert!(gate.is_closed());
            assert_eq!(gate.see(key(2), false), marked(&[FrameFlags::KEYFRAME, FrameFlags::DISCONT]));
            assert_eq!(gate.see(delta(3), false), CLEAN);
            assert_eq!((gate.dropped, gate.leaked, gate.is_closed()), (2, 0, false));
        }
    }

    #[test]
    fn every_kind_of_damage_closes_it_until_the_next_keyframe() {
        let damages = [
            (Unit { discont: true, ..delta(1) }, false),
            (Unit { corrupted: true, ..delta(1) }, false),
            (Unit { number: Some(2), ..delta(1) }, false),
            (Unit { gaps: Some(1), ..delta(1) }, false),
            (delta(1), true),
        ];
        for (unit, decoder_failed) in damages {
            let mut gate = gate(OnCorrupt::Drop);
            assert_eq!(gate.see(key(0), false), KEY);
            assert_eq!(gate.see(unit, decoder_failed), Verdict::Drop, "{unit:?}");
            assert!(gate.is_closed());
            assert_eq!(gate.see(delta(3), false), Verdict::Drop);
            assert_eq!(gate.see(key(4), false), marked(&[FrameFlags::KEYFRAME, FrameFlags::DISCONT]));
            assert_eq!(gate.see(delta(5), false), CLEAN);
        }
    }

    #[test]
    fn a_gap_counts_although_the_unit_before_it_took_its_flag() {
        let mut gate = gate(OnCorrupt::Drop);
        let key = Unit { discont: true, gaps: Some(1), ..key(0) };
        assert_eq!(gate.see(key, false), marked(&[FrameFlags::KEYFRAME, FrameFlags::DISCONT]));
        assert_eq!(gate.see(Unit { gaps: Some(1), ..delta(1) }, false), CLEAN);
        assert_eq!(gate.see(Unit { gaps: Some(2), ..delta(2) }, false), Verdict::Drop);
        assert_eq!(gate.see(Unit { gaps: None, ..delta(3) }, false), Verdict::Drop);
        assert_eq!(
            gate.see(Unit { gaps: Some(3), ..self::key(4) }, false),
            marked(&[FrameFlags::KEYFRAME, FrameFlags::DISCONT])
        );
        assert_eq!(gate.see(Unit { gaps: Some(3), ..delta(5) }, false), CLEAN);
    }

    #[test]
    fn a_damaged_keyframe_does_not_open_it() {
        let mut gate = gate(OnCorrupt::Drop);
        let torn = Unit { corrupted: true, discont: true, ..key(1) };
        assert_eq!((gate.see(key(0), false), gate.see(torn, false)), (KEY, Verdict::Drop));
        assert_eq!(gate.see(delta(2), false), Verdict::Drop);
        assert_eq!(gate.see(key(3), false), marked(&[FrameFlags::KEYFRAME, FrameFlags::DISCONT]));
    }

    #[test]
    fn a_stream_of_keyframes_passes_even_after_a_loss() {
        let mut gate = gate(OnCorrupt::Drop);
        assert_eq!(gate.see(key(0), false), KEY);
        let lost = Unit { discont: true, ..key(5) };
        assert_eq!(gate.see(lost, false), marked(&[FrameFlags::KEYFRAME, FrameFlags::DISCONT]));
        assert_eq!((gate.leaked, gate.dropped), (4, 0));
    }

    #[test]
    fn flag_mode_marks_exactly_the_damaged_pictures() {
        let mut gate = gate(OnCorrupt::Flag);
        gate.see(key(0), false);
        let damage = [FrameFlags::TAINTED, FrameFlags::CORRUPT];
        let first = gate.see(Unit { discont: true, ..delta(1) }, false);
        assert_eq!(first, marked(&[damage[0], damage[1], FrameFlags::DISCONT]));
        assert_eq!(gate.see(delta(2), false), marked(&damage));
        assert_eq!(gate.see(key(3), false), KEY);
        assert_eq!(gate.see(delta(4), false), CLEAN);
    }

    #[test]
    fn pictures_shown_before_the_keyframe_that_ends_the_damage_are_damaged_too() {
        let mut gate = gate(OnCorrupt::Drop);
        gate.see(key(0), false);
        gate.see(Unit { discont: true, ..delta(1) }, false);
        gate.see(Unit { pts: Some(6 * 40), ..key(2) }, false);
        assert_eq!(gate.see(Unit { pts: Some(5 * 40), ..delta(3) }, false), Verdict::Drop);
        assert_eq!(gate.see(Unit { pts: Some(9 * 40), ..delta(4) }, false), marked(&[FrameFlags::DISCONT]));
        assert_eq!(gate.see(Unit { pts: Some(8 * 40), ..delta(5) }, false), CLEAN);
    }

    #[test]
    fn a_keyframe_that_was_sent_and_lost_is_waited_for_anew_and_not_for_ever() {
        for seen_whole_at_the_gate in [true, false] {
            let mut gate = gate(OnCorrupt::Drop);
            gate.see(key(0), false);
            gate.see(Unit { discont: true, now_ns: SECOND, ..delta(1) }, false);
            for second in 2..=100 {
                // One keyframe every 9 s, never whole; the others between.
                let sent = second % 9 == 0;
                let unit = Unit { now_ns: second * SECOND, ..delta(second as u64) };
                let unit = match seen_whole_at_the_gate {
                    true => Unit { keyframe: sent, corrupted: sent, ..unit },
                    false => Unit { keyframe_ns: second / 9 * 9 * SECOND, ..unit },
                };
                assert_eq!(gate.see(unit, false), Verdict::Drop, "second {second}");
            }
            let last = Unit { keyframe_ns: 99 * SECOND, now_ns: 101 * SECOND, ..delta(101) };
            assert_eq!(gate.see(last, false), marked(&[FrameFlags::TAINTED, FrameFlags::DISCONT]));
        }
    }

    #[test]
    fn a_stream_without_keyframes_is_shown_tainted_after_the_wait() {
        let mut gate = gate(OnCorrupt::Drop);
        gate.see(delta(0), false);
        assert_eq!(gate.see(Unit { now_ns: 10 * SECOND - 1, ..delta(1) }, false), Verdict::Drop);
        let opened = gate.see(Unit { now_ns: 10 * SECOND, ..delta(2) }, false);
        assert_eq!(opened, marked(&[FrameFlags::TAINTED, FrameFlags::DISCONT]));
        assert_eq!(gate.see(Unit { now_ns: 19 * SECOND, ..delta(3) }, false), marked(&[FrameFlags::TAINTED]));
        let lost = Unit { now_ns: 19 * SECOND, discont: true, ..delta(4) };
        assert_eq!(gate.see(lost, false), marked(&[FrameFlags::TAINTED, FrameFlags::DISCONT]));
        assert_eq!(gate.see(Unit { now_ns: 28 * SECOND, ..delta(5) }, false), marked(&[FrameFlags::TAINTED]));
        assert_eq!(gate.see(Unit { now_ns: 29 * SECOND, ..delta(6) }, false), CLEAN);
        assert!(!gate.is_closed());
    }

    #[test]
    fn a_parked_gate_lets_nothing_through_and_wakes_at_the_next_keyframe() {
        for on_corrupt in [OnCorrupt::Drop, OnCorrupt::Flag] {
            let mut gate = gate(on_corrupt);
            assert_eq!((gate.see(key(0), false), gate.see(delta(1), false)), (KEY, CLEAN));
            for unit in [delta(2), key(3), Unit { discont: true, ..delta(4) }] {
                assert_eq!(gate.judge(unit, true, Demand::Nothing), Verdict::Drop);
                assert!(gate.is_closed());
            }
            assert_eq!(gate.see(delta(5), false), Verdict::Drop, "what it refers to was not decoded");
            assert_eq!(gate.see(key(6), false), marked(&[FrameFlags::KEYFRAME, FrameFlags::DISCONT]));
            assert_eq!(gate.see(delta(7), false), CLEAN);
            assert_eq!((gate.rested, gate.dropped), (4, 0), "no loss is counted");
        }
    }

    #[test]
    fn keyframes_alone_pass_while_nobody_reads() {
        let mut gate = gate(OnCorrupt::Drop);
        gate.see(key(0), false);
        let mut passed = |unit| gate.judge(unit, false, Demand::Keyframes);
        let key_after_gap = marked(&[FrameFlags::KEYFRAME, FrameFlags::DISCONT]);
        assert_eq!([passed(delta(1)), passed(key(2)), passed(delta(3))], [Verdict::Drop, key_after_gap, Verdict::Drop]);
        assert_eq!(passed(Unit { corrupted: true, ..key(4) }), Verdict::Drop, "a torn one does not");
        assert_eq!(gate.see(delta(5), false), Verdict::Drop);
        assert_eq!([gate.see(key(6), false), gate.see(delta(7), false)], [key_after_gap, CLEAN]);
    }

    #[test]
    fn a_stream_without_keyframes_wakes_after_the_wait_for_one() {
        let mut gate = gate(OnCorrupt::Drop);
        gate.see(key(0), false);
        gate.judge(delta(1), false, Demand::Nothing);
        assert_eq!(gate.see(Unit { now_ns: SECOND, ..delta(2) }, false), Verdict::Drop);
        let woken = gate.see(Unit { now_ns: 11 * SECOND, ..delta(3) }, false);
        assert_eq!(woken, marked(&[FrameFlags::TAINTED, FrameFlags::DISCONT]));
    }

    /// RTP packets of `units` pictures of two slices, a keyframe every ten, each with the number of its picture.
    fn packets(units: usize) -> (gst::Caps, Vec<(usize, gst::Buffer)>) {
        let line = format!(
            "videotestsrc pattern=ball num-buffers={units} ! video/x-raw,width=320,height=240,framerate=25/1 \
             ! x264enc tune=zerolatency threads=1 sliced-threads=false option-string=slices=2 key-int-max=10 pass=quant \
             quantizer=30 ! rtph264pay mtu=100 ! appsink name=sink sync=false"
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        let samples: Vec<_> = std::iter::from_fn(|| sink.pull_sample().ok()).collect();
        pipeline.set_state(gst::State::Null).unwrap();
        let mut unit = 0;
        let packets = samples.iter().map(|sample| {
            let buffer = sample.buffer_owned().unwrap();
            let of = unit;
            let mut start = [0; 2];
            buffer.copy_to_slice(0, &mut start).unwrap();
            unit += usize::from(start[1] & 0x80 != 0);
            (of, buffer)
        });
        let packets = packets.collect();
        assert_eq!(unit, units);
        (samples[0].caps_owned().unwrap(), packets)
    }

    /// How many units the gate lets through of such packets, of which `keep` says whether they come, and when, ms.
    fn passed(units: usize, keep: impl Fn(usize, usize) -> Option<u64>) -> usize {
        gst::init().expect("GStreamer");
        let (caps, packets) = packets(units);
        let line = "appsrc name=source format=time ! rtph264depay name=depay ! h264parse ! queue name=queue \
                    ! identity name=decoder ! appsink name=sink sync=false";
        let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let pad = |element: &str| pipeline.by_name(element).unwrap().static_pad("sink").unwrap();
        let (arrivals, progress) = (Arc::new(Arrivals::new()), Arc::<Progress>::default());
        watch_packets(&pad("depay"), arrivals.clone());
        number_units(&pad("queue"), |_| {});
        let findings = Arc::new(FindingsTable::new());
        let link = GateLink { arrivals, findings, progress, decoder_failed: Arc::default() };
        guard(&pad("decoder"), OnCorrupt::Drop, Duration::from_secs(10), link);
        pipeline.set_state(gst::State::Playing).unwrap();
        let source = pipeline.by_name("source").unwrap().downcast::<gst_app::AppSrc>().unwrap();
        source.set_caps(Some(&caps));
        let mut at = (0, 0);
        for (unit, mut buffer) in packets {
            at = if unit == at.0 { (unit, at.1 + 1) } else { (unit, 0) };
            if let Some(ms) = keep(unit, at.1) {
                let buffer_at = buffer.make_mut();
                buffer_at.set_pts(gst::ClockTime::from_mseconds(ms));
                buffer_at.set_dts(gst::ClockTime::NONE);
                source.push_buffer(buffer).unwrap();
            }
        }
        source.end_of_stream().unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        let passed = std::iter::from_fn(|| sink.pull_sample().ok()).count();
        pipeline.set_state(gst::State::Null).unwrap();
        passed
    }

    #[test]
    fn a_torn_keyframe_that_is_late_together_with_the_picture_before_does_not_open_the_gate() {
        let time = |unit: usize| unit as u64 * 40;
        assert_eq!(passed(20, |unit, _| Some(time(unit))), 20, "whole, all of them pass");
        // The jitter buffer gives one time to pictures that come at once after a pause.
        assert_eq!(passed(20, |unit, _| Some(time(if unit == 10 { 9 } else { unit }))), 20, "late and whole");
        let torn = |unit: usize, packet: usize| unit == 10 && packet == 6;
        assert_eq!(passed(20, |unit, packet| (!torn(unit, packet)).then(|| time(unit))), 10, "torn");
        let late = |unit: usize, packet: usize| (!torn(unit, packet)).then(|| time(if unit == 10 { 9 } else { unit }));
        assert_eq!(passed(20, late), 10, "late and torn");
    }

    #[test]
    fn what_the_decoder_kept_over_a_rest_is_told_from_what_came_after() {
        let table = FindingsTable::new();
        assert!(!table.is_left_over(7));
        table.fresh_from.store(100, Ordering::Relaxed);
        assert_eq!([60, 99, 100, 99].map(|pts| table.is_left_over(pts)), [true, true, false, false]);
    }
}
