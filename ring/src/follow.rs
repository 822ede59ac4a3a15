//! Which generation a handle reads: looks at the name, follows to the next one, and begins anew in a forked child.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::attach::Attachment;
use crate::error::AttachError;
use crate::fork::Bequest;
use crate::head::{self, Retired};
use crate::liveness::Pulse;
use crate::reader::{ReaderStats, Ring};
use crate::wait::Slice;

/// How often the name is compared with the file while no frame comes.
const IDENTITY_PAUSE: Duration = Duration::from_secs(1);
/// Looks at one and the same newest frame before the clock is asked whether the name is due: a reader that was woken for
/// a frame looks twice, to wait and to take.
const LOOKS_WITHOUT_CLOCK: u32 = 2;
/// First and longest pause between attempts to follow a new generation.
pub(crate) const FOLLOW_FIRST: Duration = Duration::from_millis(10);
const FOLLOW_MAX: Duration = Duration::from_secs(1);
/// How long a removed ring may be without a successor before a wait for its frames ends.
const REMOVED_GRACE: Duration = Duration::from_secs(1);

/// What one process knows of its handle.
#[derive(Debug)]
pub(crate) struct Handle {
    inner: Mutex<Inner>,
    /// The attached generation, for a forked child that cannot open the ring itself.
    bequest: Bequest<Attachment>,
    /// This process's time namespace; 0 = not known.
    pub(crate) time_namespace: u64,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) current: Arc<Attachment>,
    /// The newest frame that this handle has returned.
    pub(crate) last: u64,
    pub(crate) stats: ReaderStats,
    pub(crate) slice: Slice,
    next_identity_check: Instant,
    /// The newest frame's number at the last such check: while it moves, the name needs none.
    head_seen: u64,
    /// The newest frame's number at the last look, and looks since that found the same one.
    head_looked: u64,
    same_looks: u32,
    /// The generation was inherited by a fork and could not be opened again so far.
    inherited: bool,
    follow_pause: Duration,
    pub(crate) next_follow: Instant,
    /// The name led to a retired generation when it was last tried.
    pub(crate) superseded: bool,
    /// Since when the ring is known to be removed by its operator.
    removed: Option<Instant>,
    pub(crate) pulse: Pulse,
    /// The newest number of the numbering before the last reset.
    former: u64,
}

impl Handle {
    pub(crate) fn new(current: Arc<Attachment>) -> Self {
        let now = Instant::now();
        let inner = Inner {
            pulse: Pulse::new(&current.segment.map, now),
            current: Arc::clone(&current),
            last: 0,
            stats: ReaderStats::default(),
            slice: Slice::default(),
            next_identity_check: now + IDENTITY_PAUSE,
            head_seen: u64::MAX,
            head_looked: u64::MAX,
            same_looks: 0,
            inherited: !current.origin.is_here(),
            follow_pause: FOLLOW_FIRST,
            next_follow: now,
            superseded: false,
            removed: None,
            former: 0,
        };
        let time_namespace = crate::process::time_namespace();
        Self { inner: Mutex::new(inner), bequest: Bequest::new(current), time_namespace }
    }

    /// A forked child's own handle: reads the inherited mapping until it has opened the ring itself.
    pub(crate) fn forked(parent: &Self) -> Self {
        Self::new(parent.bequest.inherit())
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether there is nothing to find out about the generation: it goes on, it is this process's own, and it has a
    /// frame that was not there two looks ago. Asks no clock, because a reader that was just woken passes here.
    #[inline]
    fn is_moving(&mut self) -> bool {
        let map = &self.current.segment.map;
        let head = head::load_head(map).map_or(0, |head| head.seq);
        self.same_looks = if head == self.head_looked { self.same_looks.saturating_add(1) } else { 0 };
        self.head_looked = head;
        self.same_looks < LOOKS_WITHOUT_CLOCK && !self.inherited && head::load_retired(map) == Retired::No
    }

    /// Whether the operator has removed the ring and no new one has come.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.is_some()
    }

    /// Whether it has been so for long enough to give up waiting.
    pub(crate) fn is_gone(&self) -> bool {
        self.removed.is_some_and(|since| since.elapsed() >= REMOVED_GRACE)
    }

    /// Whether `seq` is a number of before the last reset, which says nothing about the numbers of now.
    pub(crate) fn is_former(&self, seq: u64) -> bool {
        let newest = head::load_head(&self.current.segment.map).map_or(0, |head| head.seq);
        seq > newest.max(self.current.segment.layout.base_seq) && seq <= self.former
    }
}

impl Ring {
    /// The generation attached now, as it is.
    pub(crate) fn attached(&self) -> Arc<Attachment> {
        Arc::clone(&self.handle().lock().current)
    }

    /// The generation to read now: follows a retired one, and looks at the name once a second while no frame comes.
    #[inline]
    pub(crate) fn current(&self) -> Arc<Attachment> {
        let handle = self.handle();
        let mut inner = handle.lock();
        self.settle(handle, &mut inner);
        Arc::clone(&inner.current)
    }

    /// As [`Ring::current`], under a lock that is held already.
    #[inline]
    pub(crate) fn settle(&self, handle: &Handle, inner: &mut Inner) {
        if !inner.is_moving() {
            self.look_for_next(handle, inner);
        }
    }

    #[cold]
    fn look_for_next(&self, handle: &Handle, inner: &mut Inner) {
        match head::load_retired(&inner.current.segment.map) {
            // An inherited one cannot lease, count as a reader or ask whether the daemon lives.
            Retired::No if inner.inherited => self.follow(handle, inner),
            Retired::No => self.look_around(handle, inner),
            Retired::Superseded => self.follow(handle, inner),
            Retired::Removed => {
                inner.removed.get_or_insert_with(Instant::now);
                self.follow(handle, inner);
            }
        }
    }

    /// Once a second, while no frame comes: compares the name with the file, and follows when they differ.
    pub(crate) fn look_around(&self, handle: &Handle, inner: &mut Inner) {
        let now = Instant::now();
        if now < inner.next_identity_check {
            return;
        }
        inner.next_identity_check = now + IDENTITY_PAUSE;
        let head = head::load_head(&inner.current.segment.map).map_or(0, |head| head.seq);
        if std::mem::replace(&mut inner.head_seen, head) != head {
            return;
        }
        if !inner.current.is_current().unwrap_or(true) {
            self.follow(handle, inner);
        }
    }

    /// Attaches to whatever the name leads to now; keeps the old generation when that fails.
    fn follow(&self, handle: &Handle, inner: &mut Inner) {
        let now = Instant::now();
        if now < inner.next_follow {
            return;
        }
        let found = Attachment::find(self.segment_name(), self.options());
        inner.superseded = matches!(found, Err(AttachError::Superseded(_)));
        // The same name may lead somewhere else meanwhile: to another camera's segment of that name.
        let same_camera = |next: &Attachment| next.segment.layout.camera_id == inner.current.segment.layout.camera_id;
        let Some(next) = found.ok().filter(same_camera) else {
            inner.next_follow = now + inner.follow_pause;
            inner.follow_pause = (inner.follow_pause * 2).min(FOLLOW_MAX);
            return;
        };
        inner.follow_pause = FOLLOW_FIRST;
        inner.removed = None;
        if next.segment.identity != inner.current.segment.identity {
            inner.enter(&next, now);
        }
        inner.inherited = false;
        // Also the same file under its other name, which is where to look from now on.
        let next = Arc::new(next);
        handle.bequest.replace(Arc::clone(&next));
        inner.current = next;
    }
}

impl Inner {
    /// Notes that another generation begins.
    fn enter(&mut self, next: &Attachment, now: Instant) {
        let old = head::load_head(&self.current.segment.map).map_or(0, |head| head.seq).max(self.last);
        // A generation that does not continue the numbers begins anew: nothing of it has been seen.
        if next.segment.layout.base_seq < self.last {
            self.last = 0;
            self.stats.resets += 1;
            self.former = self.former.max(old);
        }
        self.stats.followed += 1;
        self.pulse = Pulse::new(&next.segment.map, now);
        (self.head_seen, self.head_looked, self.same_looks) = (u64::MAX, u64::MAX, 0);
    }
}
