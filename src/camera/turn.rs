//! The turn: which session's pictures are published, and how one session takes over from another that still runs, so that
//! no picture is missing, shown twice, or older than the one before.
//!
//! ```text
//!  session 4 == berth ==\
//!                        turn == the sink (all rings of the camera)
//!  session 5 == berth ==/
//! ```
//!
//! Between two pictures the sink lies here; whose turn it is takes it out for one. The streaming threads agree on the moment
//! by themselves, because the supervisor would always be some pictures late: the one at work offers the turn behind a
//! picture whose successor the other has not seen yet. Nobody waits, and nothing is locked.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, fence};

use camring_ring::frame::FrameFlags;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::source::{FrameRef, FrameSink, FrameTiming};

/// Half a frame interval, within which two pictures are the same one, is believed between these.
const HALF_NS: (i64, i64) = (1_000_000, 500_000_000);
/// A picture that came so much later than another is newer, whatever the clocks say.
const SURELY_NEWER_NS: i64 = 2_000_000_000;
/// Camera times of two sessions that lie so far apart, seen from the same clock here, are no base to compare pictures on.
const CLOCKS_AGREE_NS: u64 = 1_000_000_000;
/// The heir has had no picture yet.
const NOTHING: i64 = i64::MAX;
/// Of a session whose pictures carry no camera time.
const NO_OFFSET: i64 = i64::MIN;

/// The sink, and what was last given to it.
struct Place {
    sink: Box<dyn FrameSink>,
    session: u32,
    last: Option<FrameTiming>,
}

/// One sink for all sessions of a camera.
pub(crate) struct Turn {
    put: Sender<Box<Place>>,
    take: Receiver<Box<Place>>,
    /// Whose turn it is: see [`held`] and [`offered`].
    whose: AtomicU64,
    /// The session that is to be next; 0 = none.
    heir: AtomicU32,
    by_camera_time: AtomicBool,
    /// Moment of the heir's newest picture, on the clock that pictures are compared by.
    heard_ns: AtomicI64,
}

/// The turn is this session's.
fn held(session: u32) -> u64 {
    u64::from(session) << 1
}

/// The turn is this session's from its next picture on.
fn offered(session: u32) -> u64 {
    held(session) | 1
}

/// What a session's pictures look like, for the supervisor.
#[derive(Debug)]
pub(crate) struct Glimpse {
    good: AtomicU64,
    /// From our time of arrival to the camera's own time.
    offset_ns: AtomicI64,
}

impl Glimpse {
    /// Pictures so far that show no damage.
    pub(crate) fn good(&self) -> u64 {
        self.good.load(Relaxed)
    }

    /// Whether pictures of both sessions can be told apart by the camera's own time.
    pub(crate) fn shares_clock(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.offset_ns.load(Relaxed), other.offset_ns.load(Relaxed));
        ours != NO_OFFSET && theirs != NO_OFFSET && ours.abs_diff(theirs) < CLOCKS_AGREE_NS
    }
}

impl Turn {
    pub(crate) fn new(sink: Box<dyn FrameSink>) -> Arc<Self> {
        let (put, take) = bounded(1);
        // There is room for the only one there is.
        drop(put.try_send(Box::new(Place { sink, session: 0, last: None })));
        Arc::new(Self {
            put,
            take,
            whose: AtomicU64::new(0),
            heir: AtomicU32::new(0),
            by_camera_time: AtomicBool::new(false),
            heard_ns: AtomicI64::new(NOTHING),
        })
    }

    /// The sink of one session, and what can be seen of its pictures.
    pub(crate) fn berth(self: &Arc<Self>, session: u32) -> (Box<dyn FrameSink>, Arc<Glimpse>) {
        let glimpse = Arc::new(Glimpse { good: AtomicU64::new(0), offset_ns: AtomicI64::new(NO_OFFSET) });
        let berth = Berth {
            turn: Arc::clone(self),
            session,
            glimpse: Arc::clone(&glimpse),
            pts_ns: None,
            joining: false,
            missed: 0,
        };
        (Box::new(berth), glimpse)
    }

    /// Gives the turn to a session that begins when no other runs.
    pub(crate) fn give(&self, session: u32) {
        self.heir.store(0, SeqCst);
        self.whose.store(held(session), SeqCst);
    }

    /// Gives the turn back to a session beside which another was begun, wherever it is: it goes on behind the last picture.
    pub(crate) fn give_back(&self, session: u32) {
        self.heir.store(0, SeqCst);
        self.offer(session);
    }

    /// Has the session at work offer its turn to `session`; pictures are compared by the camera's time, or by arrival.
    pub(crate) fn name_heir(&self, session: u32, by_camera_time: bool) {
        self.by_camera_time.store(by_camera_time, Relaxed);
        self.heard_ns.store(NOTHING, Relaxed);
        // Pairs with the Acquire loads: whoever sees the heir sees how to compare.
        self.heir.store(session, Release);
    }

    /// Offers the turn to `session` on behalf of one that delivers nothing any more.
    pub(crate) fn offer(&self, session: u32) {
        if !self.is_held_by(session) {
            self.whose.store(offered(session), SeqCst);
        }
    }

    /// Whether `session` has taken its turn.
    pub(crate) fn is_held_by(&self, session: u32) -> bool {
        self.whose.load(Acquire) == held(session)
    }

    /// Has the sink make the changes that were asked for; `false` when a picture is being published, which may or may not
    /// see them.
    pub(crate) fn settle(&self) -> bool {
        let place = self.take();
        let taken = place.is_some();
        place.into_iter().for_each(|mut taken| taken.place().sink.settle());
        taken
    }

    fn take(&self) -> Option<Taken<'_>> {
        self.take.try_recv().ok().map(|place| Taken { place: Some(place), turn: self })
    }

    fn moment(&self, timing: &FrameTiming) -> i64 {
        let camera = timing.source_unix_ns.filter(|_| self.by_camera_time.load(Relaxed));
        camera.unwrap_or(timing.arrival_mono_ns)
    }

    fn is_newer(&self, picture: &FrameTiming, last: &FrameTiming, half_ns: i64) -> bool {
        let later = picture.arrival_mono_ns.saturating_sub(last.arrival_mono_ns);
        later >= SURELY_NEWER_NS || self.moment(picture) > self.moment(last).saturating_add(half_ns)
    }

    /// The heir has a picture.
    fn hear(&self, session: u32, timing: &FrameTiming) {
        if self.heir.load(Acquire) == session {
            self.heard_ns.store(self.moment(timing), Relaxed);
            // Pairs with the fence in `pass`: of the two, one sees what the other has stored.
            fence(SeqCst);
        }
    }

    /// Behind a picture: offers the turn of `session` to the heir, unless that has already left out a picture after `until_ns`.
    fn pass(&self, session: u32, until_ns: i64) {
        let heir = self.heir.load(Acquire);
        if heir == 0 || heir == session || self.heard_ns.load(Relaxed) > until_ns {
            return;
        }
        if self.whose.compare_exchange(held(session), offered(heir), SeqCst, Relaxed).is_ok() {
            // Pairs with the fence in `hear`.
            fence(SeqCst);
            if self.heard_ns.load(Relaxed) > until_ns {
                // It came in between: the turn goes back, unless the heir has just taken it.
                let _ = self.whose.compare_exchange(offered(heir), held(session), SeqCst, Relaxed);
            }
        }
    }
}

/// The sink in somebody's hands; goes back when that is over, also by a panic.
struct Taken<'a> {
    place: Option<Box<Place>>,
    turn: &'a Turn,
}

impl Taken<'_> {
    fn place(&mut self) -> &mut Place {
        self.place.as_mut().expect("only a drop takes it")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            // There is room: it is the only one, and was taken from there.
            drop(self.turn.put.try_send(place));
        }
    }
}

/// The sink of one session: lets pictures through while it is that session's turn.
struct Berth {
    turn: Arc<Turn>,
    session: u32,
    glimpse: Arc<Glimpse>,
    pts_ns: Option<i64>,
    /// Taking over: pictures are compared with the last one of the session before.
    joining: bool,
    /// Pictures that found the sink in other hands.
    missed: u32,
}

impl FrameSink for Berth {
    fn frame(&mut self, frame: &FrameRef<'_>) {
        let half_ns = self.look_at(frame);
        self.turn.hear(self.session, &frame.timing);
        match self.turn.whose.load(SeqCst) {
            whose if whose == held(self.session) => self.publish(frame, half_ns),
            whose if whose == offered(self.session) => {
                let taken = self.turn.whose.compare_exchange(whose, held(self.session), SeqCst, SeqCst);
                if taken.is_ok() {
                    self.joining = true;
                    self.publish(frame, half_ns);
                }
            }
            _ => {}
        }
    }

    fn expect(&mut self, size: (u32, u32)) {
        // A relief has nothing to prepare: the rings are there.
        if self.turn.is_held_by(self.session)
            && let Some(mut taken) = self.turn.take()
        {
            taken.place().sink.expect(size);
        }
    }
}

impl Berth {
    /// Notes what the supervisor wants to know; half a frame interval.
    fn look_at(&mut self, frame: &FrameRef<'_>) -> i64 {
        let timing = &frame.timing;
        if !frame.flags.contains(FrameFlags::CORRUPT) && !frame.flags.contains(FrameFlags::TAINTED) {
            self.glimpse.good.fetch_add(1, Relaxed);
        }
        let offset = timing.source_unix_ns.map_or(NO_OFFSET, |source| source.saturating_sub(timing.arrival_real_ns));
        self.glimpse.offset_ns.store(offset, Relaxed);
        let before = self.pts_ns.replace(timing.pts_ns);
        before.map_or(HALF_NS.0, |before| timing.pts_ns.saturating_sub(before) / 2).clamp(HALF_NS.0, HALF_NS.1)
    }

    fn publish(&mut self, frame: &FrameRef<'_>, half_ns: i64) {
        let Some(mut taken) = self.turn.take() else {
            // The session before is in the middle of a picture, or a reload makes its changes.
            self.missed = self.missed.saturating_add(1);
            return;
        };
        let place = taken.place();
        if self.joining && place.last.is_some_and(|last| !self.turn.is_newer(&frame.timing, &last, half_ns)) {
            return;
        }
        self.joining = false;
        if place.session != self.session {
            place.session = self.session;
            place.sink.session(self.session);
        }
        let lost_before = frame.lost_before.saturating_add(std::mem::take(&mut self.missed));
        place.sink.frame(&FrameRef { lost_before, ..*frame });
        place.last = Some(frame.timing);
        drop(taken);
        self.turn.pass(self.session, self.turn.moment(&frame.timing).saturating_add(half_ns));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use camring_ring::frame::{Color, PixelFormat};

    use super::*;
    use crate::source::{Fallback, PlaneMut, Rect, SourceLayout};

    const INTERVAL_NS: i64 = 40_000_000;

    struct NoFallback;

    impl Fallback for NoFallback {
        fn convert_into(
            &self,
            format: PixelFormat,
            _: Rect,
            _: (u32, u32),
            _: &mut [PlaneMut<'_>],
        ) -> Result<(), String> {
            Err(format!("no {format}"))
        }
    }

    /// Keeps the numbers of the pictures and their sessions.
    #[derive(Clone, Default)]
    struct Book(Arc<Mutex<Vec<(u32, i64)>>>, u32);

    impl FrameSink for Book {
        fn frame(&mut self, frame: &FrameRef<'_>) {
            self.0.lock().unwrap().push((self.1, frame.timing.pts_ns / INTERVAL_NS));
        }
        fn session(&mut self, number: u32) {
            self.1 = number;
        }
    }

    /// Shows picture `number`, which arrives `late_ns` after the moment it is of.
    fn show(berth: &mut dyn FrameSink, number: i64, late_ns: i64, camera_time: bool) {
        let at = number * INTERVAL_NS;
        let timing = FrameTiming {
            pts_ns: at,
            arrival_mono_ns: at + late_ns,
            arrival_real_ns: at + late_ns,
            source_unix_ns: camera_time.then_some(at),
            ..FrameTiming::default()
        };
        berth.frame(&FrameRef {
            width: 2,
            height: 2,
            layout: SourceLayout::Other,
            planes: &[],
            color: Color::default(),
            pixel_aspect: (1, 1),
            timing,
            flags: FrameFlags::default(),
            lost_before: 0,
            fallback: &NoFallback,
        });
    }

    fn turn() -> (Arc<Turn>, Book) {
        let book = Book::default();
        (Turn::new(Box::new(book.clone())), book)
    }

    #[test]
    fn two_threads_hand_the_turn_over_without_losing_or_repeating_a_picture() {
        const PICTURES: i64 = 12;
        for round in 0..3000 {
            let (turn, book) = turn();
            turn.give(1);
            // Both are at the same picture, in whichever order and as close to each other as threads can be.
            let barrier = Barrier::new(2);
            let play = |session: u32| {
                let (mut berth, _) = turn.berth(session);
                for number in 0..PICTURES {
                    barrier.wait();
                    show(&mut *berth, number, round % 7, round % 2 == 0);
                    if session == 1 && number == 1 + round % 8 {
                        turn.name_heir(2, round % 2 == 0);
                    }
                }
            };
            std::thread::scope(|scope| [1, 2].map(|session| scope.spawn(move || play(session))).map(drop));
            let book = book.0.lock().unwrap();
            let numbers: Vec<i64> = book.iter().map(|(_, number)| *number).collect();
            assert_eq!(numbers, (0..PICTURES).collect::<Vec<_>>(), "{book:?}");
            assert!(turn.is_held_by(2) && book.last().is_some_and(|(session, _)| *session == 2), "{book:?}");
        }
    }

    #[test]
    fn pictures_that_are_burst_at_the_start_are_told_by_the_camera_s_time_not_by_their_arrival() {
        let (turn, book) = turn();
        turn.give(1);
        let ((mut first, seen_first), (mut second, seen_second)) = (turn.berth(1), turn.berth(2));
        (0..20).for_each(|number| show(&mut *first, number, 0, true));
        // The second session begins with what the camera kept: old pictures that arrive now.
        let old = |berth: &mut dyn FrameSink| {
            (10..20).for_each(|number| show(berth, number, (20 - number) * INTERVAL_NS, true));
        };
        old(&mut *second);
        assert!(seen_first.shares_clock(&seen_second) && seen_second.good() == 10);
        turn.name_heir(2, true);
        show(&mut *second, 19, INTERVAL_NS, true);
        show(&mut *first, 20, 0, true);
        old(&mut *second);
        (20..24).for_each(|number| show(&mut *second, number, 0, true));
        let numbers: Vec<i64> = book.0.lock().unwrap().iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..24).collect::<Vec<_>>());
    }

    #[test]
    fn a_session_whose_place_was_taken_shows_nothing_any_more() {
        let (turn, book) = turn();
        let ((mut first, _), (mut second, _)) = (turn.berth(1), turn.berth(2));
        turn.give(1);
        show(&mut *first, 0, 0, false);
        turn.offer(2);
        show(&mut *first, 1, 0, false);
        show(&mut *second, 0, 0, false);
        show(&mut *second, 2, 0, false);
        show(&mut *first, 3, 0, false);
        assert_eq!(*book.0.lock().unwrap(), [(1, 0), (2, 2)]);
    }

    #[test]
    fn a_session_that_gets_its_turn_back_goes_on_behind_what_the_other_has_shown() {
        let (turn, book) = turn();
        let ((mut first, _), (mut second, _)) = (turn.berth(1), turn.berth(2));
        turn.give(1);
        (0..3).for_each(|number| show(&mut *first, number, 0, false));
        turn.name_heir(2, false);
        turn.offer(2);
        (3..6).for_each(|number| show(&mut *second, number, 0, false));
        turn.give_back(1);
        // It is two pictures behind, because its connection is the slower one.
        (4..8).for_each(|number| show(&mut *first, number, 0, false));
        assert_eq!(*book.0.lock().unwrap(), [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5), (1, 6), (1, 7)]);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_keep_a_camera_dark() {
        let (turn, book) = turn();
        let ((mut first, _), (mut second, _)) = (turn.berth(1), turn.berth(2));
        turn.give(1);
        turn.by_camera_time.store(true, Relaxed);
        show(&mut *first, 100, 0, true);
        turn.offer(2);
        (0..50).for_each(|number| show(&mut *second, number, (100 + 10) * INTERVAL_NS, true));
        let book = book.0.lock().unwrap();
        assert!((1..=50).contains(&(book.len() - 1)), "{book:?}");
    }

    #[test]
    fn clocks_that_disagree_are_no_base() {
        let (turn, _) = turn();
        let ((mut first, seen_first), (mut second, seen_second)) = (turn.berth(1), turn.berth(2));
        assert!(!seen_first.shares_clock(&seen_second), "nothing is known");
        show(&mut *first, 1, 0, true);
        assert!(!seen_first.shares_clock(&seen_second));
        show(&mut *second, 1, 2_000_000_000, true);
        assert!(!seen_first.shares_clock(&seen_second), "two seconds apart");
        show(&mut *second, 1, 200_000_000, true);
        assert!(seen_first.shares_clock(&seen_second));
    }
}
