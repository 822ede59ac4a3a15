//! Random schedules of a writer and two readers, against a model of the ring that is a list of stamps.
//!
//! Everything here is one thread, so that every answer is determined: what the promises are under threads, processes
//! and kill -9 is proved in `ring/model` and tried in `stress.rs`.

mod common;

use std::time::Duration;

use camring_ring::layout::Layout;
use camring_ring::{
    ClaimError, Counter, FrameMeta, Geometry, Lease, LeasePolicy, PixelFormat, PublishError, ReadError, Ring, Sequence,
    SlotMut, Writer, WriterOptions,
};
use common::{Shm, amount, measured, until};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};

/// A slot as the model sees it: what a stamp says, and how many leases lie on its byte.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    seq: u64,
    writing: bool,
    leases: usize,
}

/// A generation: its slots, and which of them is the newest frame's.
#[derive(Clone, Debug)]
struct Segment {
    slots: Vec<Slot>,
    head: Option<usize>,
    capacity: u64,
}

impl Segment {
    fn new(slots: u32, bytes: u64) -> Self {
        let capacity = Layout::plan(slots, bytes).unwrap().slot_capacity;
        Self { slots: vec![Slot::default(); slots as usize], head: None, capacity }
    }

    /// The rule of claims: never the newest frame, nothing that is being written; the oldest that nobody leases, else
    /// under `fresh` the oldest.
    fn claim(&mut self, policy: LeasePolicy) -> Option<usize> {
        let mut places: Vec<usize> =
            (0..self.slots.len()).filter(|i| Some(*i) != self.head && !self.slots[*i].writing).collect();
        places.sort_by_key(|i| self.slots[*i].seq);
        let unleased = places.iter().find(|i| self.slots[**i].leases == 0 || policy == LeasePolicy::Off);
        let place = *unleased.or(places.first().filter(|_| policy == LeasePolicy::Fresh))?;
        self.slots[place].writing = true;
        Some(place)
    }

    /// Numbers of the frames that are held, the oldest first.
    fn held(&self) -> Vec<u64> {
        let mut held: Vec<u64> =
            self.slots.iter().filter(|slot| !slot.writing && slot.seq > 0).map(|s| s.seq).collect();
        held.sort_unstable();
        held
    }

    fn newest(&self) -> Option<u64> {
        self.head.map(|place| self.slots[place].seq)
    }
}

/// Where a claimed slot or a lease is: generation and slot.
type Place = (usize, usize);

/// The ring: every generation there ever was, which one is current, and every frame ever published.
#[derive(Debug)]
struct Model {
    segments: Vec<Segment>,
    current: usize,
    pending: Option<usize>,
    /// Both names are gone, and the writer knows; they have been gone at some time.
    lost: bool,
    was_lost: bool,
    policy: LeasePolicy,
    dropped: u64,
    /// Length, fill and `dropped_before` of frame `index + 1`.
    frames: Vec<(u64, u8, u64)>,
}

/// A reader: the generation it is at, how often it went to another one, and the newest frame it has returned.
#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    at: usize,
    followed: u64,
    last: u64,
}

impl Model {
    fn slots(&self) -> u32 {
        self.segments[self.current].slots.len() as u32
    }

    fn claim(&mut self, len: u64) -> Option<Place> {
        let capacity = self.segments[self.current].capacity;
        let segment = if len <= capacity && !self.lost { self.current } else { self.larger(len.max(capacity)) };
        Some((segment, self.segments[segment].claim(self.policy)?))
    }

    fn larger(&mut self, len: u64) -> usize {
        if let Some(pending) = self.pending.filter(|pending| self.segments[*pending].capacity >= len) {
            return pending;
        }
        self.segments.push(Segment::new(self.slots(), len));
        *self.pending.insert(self.segments.len() - 1)
    }

    /// Whether the slot can be published; `claimed` are the other slots that are being written.
    fn publish(&mut self, (segment, place): Place, claimed: &[Place], len: u64, fill: u8) -> bool {
        if segment != self.current && Some(segment) != self.pending {
            return false;
        }
        let is_pending_idle = claimed.iter().all(|(segment, _)| Some(*segment) != self.pending);
        if segment != self.current {
            (self.current, self.pending, self.lost) = (segment, None, false);
        } else if is_pending_idle {
            self.pending = None;
        }
        self.frames.push((len, fill, self.dropped));
        let slot = &mut self.segments[segment].slots[place];
        (slot.seq, slot.writing) = (self.frames.len() as u64, false);
        self.segments[segment].head = Some(place);
        true
    }

    fn abandon(&mut self, (segment, place): Place) {
        let slot = &mut self.segments[segment].slots[place];
        (slot.seq, slot.writing) = (0, false);
    }

    /// Counts frame `seq` for a reader; the skipped ones.
    fn account(reader: &mut Reader, seq: u64) -> u64 {
        let new = seq.saturating_sub(reader.last);
        let skipped = if reader.last == 0 { 0 } else { new.saturating_sub(1) };
        reader.last = reader.last.max(seq);
        skipped
    }
}

/// What one step of a schedule does; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Claim { len: u64 },
    Publish { which: usize, fill: u8 },
    Abandon { which: usize },
    CountDrop,
    Latest { reader: usize },
    Next { reader: usize },
    Peek { reader: usize },
    Lease { reader: usize },
    Check { which: usize },
    Release { which: usize },
    At { reader: usize, back: u64 },
    After { reader: usize, back: u64 },
    History { reader: usize, count: usize },
    LoseName { which: Name },
    Restart { how: Restart },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Name {
    Anchor,
    Public,
    Both,
}

#[derive(Clone, Copy, Debug)]
enum Restart {
    Adopt,
    WithoutAnchor,
    WithSlots(u32),
}

/// Lengths below the waiting room's slots, above, and far above.
fn lengths() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1..=65_536u64, 2 => 65_537..=131_072u64, 1 => 131_073..=400_000u64]
}

fn steps() -> impl Strategy<Value = Step> {
    let reader = || 0..2usize;
    let name = prop_oneof![Just(Name::Anchor), Just(Name::Public), Just(Name::Both)];
    let restart = prop_oneof![
        3 => Just(Restart::Adopt),
        1 => Just(Restart::WithoutAnchor),
        1 => (3..6u32).prop_map(Restart::WithSlots),
    ];
    prop_oneof![
        8 => lengths().prop_map(|len| Step::Claim { len }),
        8 => (0..4usize, any::<u8>()).prop_map(|(which, fill)| Step::Publish { which, fill }),
        1 => (0..4usize).prop_map(|which| Step::Abandon { which }),
        1 => Just(Step::CountDrop),
        4 => reader().prop_map(|reader| Step::Latest { reader }),
        2 => reader().prop_map(|reader| Step::Next { reader }),
        1 => reader().prop_map(|reader| Step::Peek { reader }),
        4 => reader().prop_map(|reader| Step::Lease { reader }),
        2 => (0..8usize).prop_map(|which| Step::Check { which }),
        3 => (0..8usize).prop_map(|which| Step::Release { which }),
        2 => (reader(), 0..8u64).prop_map(|(reader, back)| Step::At { reader, back }),
        2 => (reader(), 0..8u64).prop_map(|(reader, back)| Step::After { reader, back }),
        1 => (reader(), 0..7usize).prop_map(|(reader, count)| Step::History { reader, count }),
        1 => name.prop_map(|which| Step::LoseName { which }),
        1 => restart.prop_map(|how| Step::Restart { how }),
    ]
}

/// The real ring beside its model.
struct World {
    // Fields are dropped in this order: the folder last.
    claimed: Vec<(SlotMut, Place, u64)>,
    leases: Vec<(Lease, Place, u64)>,
    rings: [Ring; 2],
    writer: Option<Writer>,
    model: Model,
    readers: [Reader; 2],
    options: WriterOptions,
    shm: Shm,
}

impl World {
    fn new(slots: u32, policy: LeasePolicy) -> Self {
        let shm = Shm::new();
        let mut options = shm.options("cam");
        (options.slots, options.lease_policy) = (slots, policy);
        let (writer, _) = Writer::start(options.clone()).unwrap();
        // One by the anchor, one by the public name.
        let rings = ["cam", "camring.cam"].map(|name| Ring::attach(name, shm.attach_options()).unwrap());
        let model = Model {
            segments: vec![Segment::new(slots, 1)],
            current: 0,
            pending: None,
            lost: false,
            was_lost: false,
            policy,
            dropped: 0,
            frames: Vec::new(),
        };
        let (claimed, leases, writer) = (Vec::new(), Vec::new(), Some(writer));
        Self { claimed, leases, rings, writer, model, readers: [Reader::default(); 2], options, shm }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("there is a writer between two steps")
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Claim { len } => self.claim(len),
            Step::Publish { which, fill } => self.publish(which, fill),
            Step::Abandon { which } if !self.claimed.is_empty() => {
                let (slot, place, _) = self.claimed.remove(which % self.claimed.len());
                drop(slot);
                self.model.abandon(place);
            }
            Step::CountDrop => {
                self.writer().count_drop(Counter::DroppedOverload);
                self.model.dropped += 1;
            }
            Step::Latest { reader } => self.latest(reader),
            Step::Next { reader } => self.next(reader),
            Step::Peek { reader } => self.peek(reader),
            Step::Lease { reader } => self.lease(reader),
            Step::Check { which } if !self.leases.is_empty() => self.check(which % self.leases.len()),
            Step::Release { which } if !self.leases.is_empty() => self.release(which % self.leases.len()),
            Step::At { reader, back } => self.at(reader, back),
            Step::After { reader, back } => self.after(reader, back),
            Step::History { reader, count } => self.history(reader, count),
            Step::LoseName { which } => self.lose_name(which),
            Step::Restart { how } => self.restart(how),
            Step::Abandon { .. } | Step::Check { .. } | Step::Release { .. } => {}
        }
    }

    fn claim(&mut self, len: u64) {
        let wanted = self.model.claim(len);
        match (self.writer().claim(len), wanted) {
            (Ok(slot), Some(place)) => self.claimed.push((slot, place, len)),
            (Err(ClaimError::NoSlot | ClaimError::Leased), None) => {}
            (got, wanted) => panic!("claim of {len} bytes: {got:?}, the model says {wanted:?}"),
        }
    }

    fn publish(&mut self, which: usize, fill: u8) {
        if self.claimed.is_empty() {
            return;
        }
        let (mut slot, place, len) = self.claimed.remove(which % self.claimed.len());
        slot.as_mut().fill(fill);
        let others: Vec<Place> = self.claimed.iter().map(|(_, place, _)| *place).collect();
        let published = self.model.publish(place, &others, len, fill);
        match self.writer().publish(slot, FrameMeta::new(bytes(len))) {
            Ok(seq) => assert!(published && seq.0 == self.model.frames.len() as u64, "published as {seq:?}"),
            Err(PublishError::Outdated) => assert!(!published, "the slot is of the current generation"),
            Err(error) => panic!("publish: {error}"),
        }
    }

    /// The reader goes on to the current generation, as each of its calls does.
    ///
    /// At once, unless it has looked while there was no name: then after a pause, which is waited for here.
    fn follow(&mut self, reader: usize) -> &Segment {
        let Reader { at, followed, .. } = &mut self.readers[reader];
        *followed += u64::from(*at != self.model.current);
        *at = self.model.current;
        let (ring, followed) = (&self.rings[reader], *followed);
        until("the reader is at the current generation", || !ring.is_removed() && ring.stats().followed == followed);
        &self.model.segments[self.model.current]
    }

    fn latest(&mut self, reader: usize) {
        let newest = self.follow(reader).newest();
        let mut pixels = Vec::new();
        match (self.rings[reader].latest(&mut pixels), newest) {
            (Ok(frame), Some(seq)) => {
                let skipped = Model::account(&mut self.readers[reader], seq);
                assert_eq!((frame.meta.seq.0, frame.skipped), (seq, skipped), "latest");
                self.assert_whole(&frame.meta, &pixels);
            }
            (Err(ReadError::NoFrame { .. }), None) => {}
            (got, newest) => panic!("latest: {got:?}, the model says {newest:?}"),
        }
        self.assert_stats(reader);
    }

    fn next(&mut self, reader: usize) {
        let newer = self.follow(reader).newest().filter(|seq| *seq > self.readers[reader].last);
        let mut pixels = Vec::new();
        match (self.rings[reader].next(&mut pixels, Some(Duration::ZERO)), newer) {
            (Ok(frame), Some(seq)) => {
                let skipped = Model::account(&mut self.readers[reader], seq);
                assert_eq!((frame.meta.seq.0, frame.skipped), (seq, skipped), "next");
                self.assert_whole(&frame.meta, &pixels);
            }
            (Err(ReadError::Timeout { .. }), None) => {}
            (got, newer) => panic!("next: {got:?}, the model says {newer:?}"),
        }
    }

    fn peek(&mut self, reader: usize) {
        let newest = self.follow(reader).newest();
        match (self.rings[reader].peek(), newest) {
            (Ok(meta), Some(seq)) => assert_eq!(meta.seq.0, seq, "peek"),
            (Err(ReadError::NoFrame { .. }), None) => {}
            (got, newest) => panic!("peek: {got:?}, the model says {newest:?}"),
        }
        let held: Vec<u64> = self.rings[reader].held().iter().map(|meta| meta.seq.0).collect();
        assert_eq!(held, self.follow(reader).held(), "held");
    }

    fn lease(&mut self, reader: usize) {
        let head = self.follow(reader).head;
        match (self.rings[reader].lease(), head) {
            (Err(ReadError::NoFrame { .. }), None) => {}
            (Err(ReadError::LeaseUnavailable { .. }), Some(_)) if self.model.policy == LeasePolicy::Off => {}
            (Ok(lease), Some(place)) if self.model.policy != LeasePolicy::Off => {
                let at = self.model.current;
                let slot = &mut self.model.segments[at].slots[place];
                slot.leases += 1;
                let (seq, skipped) = (slot.seq, Model::account(&mut self.readers[reader], slot.seq));
                assert_eq!((lease.frame().meta.seq.0, lease.frame().skipped), (seq, skipped), "lease");
                self.leases.push((lease, (at, place), seq));
                self.check(self.leases.len() - 1);
            }
            (got, head) => panic!("lease: {got:?}, the model says {head:?}"),
        }
    }

    /// A lease is valid exactly as long as its slot holds its frame; then its bytes are those of the frame.
    fn check(&self, which: usize) {
        let (lease, (segment, place), seq) = &self.leases[which];
        let slot = self.model.segments[*segment].slots[*place];
        let valid = slot.seq == *seq && !slot.writing;
        assert_eq!(lease.is_valid(), valid, "lease of frame {seq}");
        assert!(valid || self.model.policy == LeasePolicy::Fresh, "frame {seq} was taken from a protected lease");
        let mut pixels = vec![0; lease.len()];
        match lease.copy_to(&mut pixels) {
            Ok(()) => self.assert_whole(&lease.frame().meta, &pixels),
            Err(ReadError::Revoked { .. }) => assert!(!valid, "a copy of frame {seq} was refused"),
            Err(error) => panic!("copy of a lease: {error}"),
        }
        let slice = lease.protected();
        assert_eq!(slice.is_some(), self.model.policy == LeasePolicy::Protect, "a slice of frame {seq}");
        assert!(slice.is_none_or(|slice| slice == pixels), "a protected slice of frame {seq} differs from its copy");
    }

    fn release(&mut self, which: usize) {
        self.check(which);
        let (lease, (segment, place), seq) = self.leases.remove(which);
        let slot = &mut self.model.segments[segment].slots[place];
        slot.leases -= 1;
        let valid = slot.seq == seq && !slot.writing;
        assert_eq!(lease.release().is_ok(), valid, "release of frame {seq}");
    }

    fn at(&mut self, reader: usize, back: u64) {
        let seq = (self.model.frames.len() as u64 + 1).saturating_sub(back);
        self.follow_after_a_loss(reader);
        let places = [self.readers[reader].at, self.model.current];
        let is_held = places.iter().any(|at| self.model.segments[*at].held().contains(&seq));
        let mut pixels = Vec::new();
        let got = self.rings[reader].at(Sequence(seq), &mut pixels);
        let newest = self.follow(reader).newest();
        match got {
            Ok(frame) => {
                assert!(is_held && frame.meta.seq.0 == seq && frame.skipped == 0, "frame {seq} is not held");
                self.assert_whole(&frame.meta, &pixels);
            }
            Err(ReadError::NoFrame { .. }) => assert!(!is_held && newest.is_none(), "at {seq}"),
            Err(ReadError::NotYet { newest: said, .. }) => assert_eq!((Some(said.0), true), (newest, said.0 < seq)),
            Err(ReadError::Overrun { oldest, .. }) => {
                let held = self.follow(reader).held();
                assert!(!is_held && newest >= Some(seq), "frame {seq} is held, but was refused");
                assert_eq!(Some(&oldest.0), held.first(), "the oldest frame held");
            }
            Err(error) => panic!("at {seq}: {error}"),
        }
    }

    fn after(&mut self, reader: usize, back: u64) {
        let seq = (self.model.frames.len() as u64).saturating_sub(back);
        self.follow_after_a_loss(reader);
        let oldest = |at: usize| self.model.segments[at].held().into_iter().find(|held| *held > seq);
        let (here, there) = (oldest(self.readers[reader].at), oldest(self.model.current));
        let mut pixels = Vec::new();
        match (self.rings[reader].after(Sequence(seq), &mut pixels, Some(Duration::ZERO)), here.or(there)) {
            (Ok(frame), Some(found)) => {
                assert_eq!((frame.meta.seq.0, frame.skipped), (found, found - seq - 1), "after {seq}");
                self.assert_whole(&frame.meta, &pixels);
            }
            (Err(ReadError::Timeout { .. }), None) => {}
            (got, found) => panic!("after {seq}: {got:?}, the model says {found:?}"),
        }
        if here.is_none() {
            self.follow(reader);
        }
    }

    /// Where a reader was in between is not determined after both names were gone.
    fn follow_after_a_loss(&mut self, reader: usize) {
        if self.model.was_lost {
            self.follow(reader);
        }
    }

    fn history(&mut self, reader: usize, count: usize) {
        let segment = self.follow(reader);
        let (newest, held) = (segment.newest(), segment.held());
        match self.rings[reader].history(count) {
            Ok(frames) => {
                let numbers: Vec<u64> = frames.iter().map(|(frame, _)| frame.meta.seq.0).collect();
                assert_eq!(numbers, held[held.len().saturating_sub(count)..], "the newest {count} frames");
                for (frame, pixels) in &frames {
                    self.assert_whole(&frame.meta, pixels);
                }
            }
            Err(ReadError::NoFrame { .. }) => assert_eq!(newest, None, "history"),
            Err(error) => panic!("history: {error}"),
        }
    }

    /// Somebody removes names, and housekeeping looks.
    fn lose_name(&mut self, which: Name) {
        // A reader that has not followed so far could not any more.
        for reader in 0..2 {
            self.follow(reader);
        }
        let (anchor, public) = self.names();
        for (path, names) in [(anchor, [Name::Anchor, Name::Both]), (public, [Name::Public, Name::Both])] {
            if names.contains(&which) && !self.model.lost {
                std::fs::remove_file(path).unwrap();
            }
        }
        let settled = self.writer().status().settle_names().unwrap();
        self.model.lost |= which == Name::Both;
        self.model.was_lost |= self.model.lost;
        let relinked = u32::from(!self.model.lost);
        assert_eq!((settled.lost, settled.relinked), (self.model.lost, relinked), "after losing {which:?}");
    }

    fn names(&self) -> (std::path::PathBuf, std::path::PathBuf) {
        (self.shm.path().join("camring.d/cam"), self.shm.path().join("camring.cam"))
    }

    fn restart(&mut self, how: Restart) {
        if self.model.lost {
            // The next daemon finds nothing, and readers notice by the clock: not determined.
            return;
        }
        for (slot, place, _) in self.claimed.drain(..) {
            drop(slot);
            self.model.abandon(place);
        }
        self.writer = None;
        let slots_before = self.model.slots();
        match how {
            Restart::Adopt => {}
            Restart::WithoutAnchor => std::fs::remove_file(self.names().0).unwrap(),
            Restart::WithSlots(slots) => self.options.slots = slots,
        }
        let adopts = !matches!(how, Restart::WithoutAnchor) && self.options.slots == slots_before;
        let (writer, started) = Writer::start(self.options.clone()).unwrap();
        assert_eq!(started.adopted, adopts, "{:?}", started.not_adopted);
        self.writer = Some(writer);
        self.model.pending = None;
        if !adopts {
            self.model.segments.push(Segment::new(self.options.slots, 1));
            self.model.current = self.model.segments.len() - 1;
        }
    }

    /// The frame is the one that was published under its number, in all its bytes.
    fn assert_whole(&self, meta: &FrameMeta, pixels: &[u8]) {
        let seq = meta.seq.0;
        let (len, fill, dropped) = self.model.frames[seq as usize - 1];
        assert_eq!((meta.geometry.len, pixels.len() as u64, meta.dropped_before), (len, len, dropped), "frame {seq}");
        assert!(pixels.iter().all(|byte| *byte == fill), "frame {seq} is torn");
    }

    /// The numbers went on whatever happened: no reader was told that they had begun anew.
    fn assert_stats(&self, reader: usize) {
        let stats = self.rings[reader].stats();
        assert_eq!(stats.resets, 0, "the numbers have begun anew");
        assert_eq!(self.rings[reader].last_seq().0, self.readers[reader].last, "the newest frame returned");
    }
}

fn bytes(len: u64) -> Geometry {
    let mut geometry = Geometry::packed(1, 1, PixelFormat::Gray).unwrap();
    (geometry.format, geometry.plane_count, geometry.len) = (PixelFormat::Opaque, 1, len);
    geometry
}

#[test]
fn random_schedules_of_a_writer_and_two_readers_equal_a_list_of_stamps() {
    let cases = u32::try_from(amount(64, 4000)).unwrap();
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(0x0043_414d_5249_4e47),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model.regressions"))),
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let policy = prop_oneof![Just(LeasePolicy::Fresh), Just(LeasePolicy::Protect), Just(LeasePolicy::Off)];
    let schedule = (3..6u32, policy, prop::collection::vec(steps(), 1..120));
    let taken = std::cell::Cell::new(0usize);
    let outcome = TestRunner::new(config).run(&schedule, |(slots, policy, steps)| {
        let mut world = World::new(slots, policy);
        for step in &steps {
            world.take(step);
        }
        taken.set(taken.get() + steps.len());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    measured(format_args!("{cases} schedules, {} steps equal to the model", taken.get()));
}

#[test]
fn a_larger_generation_that_was_made_some_frames_ago_continues_the_numbers() {
    let mut world = World::new(3, LeasePolicy::Fresh);
    let steps = [
        Step::Claim { len: 10 },
        Step::Claim { len: 100_000 },
        Step::Publish { which: 0, fill: 1 },
        Step::Latest { reader: 0 },
        Step::Publish { which: 0, fill: 2 },
        Step::Latest { reader: 0 },
        Step::Latest { reader: 1 },
    ];
    for step in &steps {
        world.take(step);
    }
}
