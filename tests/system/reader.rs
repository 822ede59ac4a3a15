//! A reader that stays attached throughout a test, on a thread of its own, and judges every frame it gets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camring::sim::stamp::Stamp;
use camring_ring::{Frame, ReadError, Ring};

use super::{PATIENCE, Shm, pause, stamp_of};

/// How long one `next` may wait; afterwards the reader looks whether the test is over.
const SLICE: Duration = Duration::from_millis(100);

/// How a reader gets its frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Sleeps until there is a newer frame.
    Next,
    /// Copies the newest frame over and over.
    Latest,
}

/// One frame as a reader found it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub frame: Frame,
    pub stamp: Stamp,
}

/// Reads until it is finished; fails the test when a picture is torn or older than the one before.
pub struct Reader {
    /// The reader's own handle; `peek` and `status` of it disturb nothing, any other read would.
    pub ring: Arc<Ring>,
    seen: Arc<Mutex<Vec<Seen>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Attaches once and begins to read; never attaches again.
    pub fn attach(shm: &Shm, ring: &str, way: Way) -> Self {
        Self::attach_with(shm, ring, way, |_, _, _| {})
    }

    /// The same, with a judge of its own, who sees every frame once, with its stamp.
    pub fn attach_with(
        shm: &Shm,
        ring: &str,
        way: Way,
        judge: impl FnMut(&Frame, &[u8], &Stamp) + Send + 'static,
    ) -> Self {
        let ring = Arc::new(shm.attach(ring));
        let (seen, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let theirs = (Arc::clone(&ring), Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::spawn(move || read(&theirs.0, way, &theirs.1, &theirs.2, judge));
        Self { ring, seen, over, thread: Some(thread) }
    }

    /// The newest frame so far.
    pub fn newest(&self) -> Option<Seen> {
        self.seen.lock().unwrap().last().copied()
    }

    /// Whether it has found no fault so far.
    pub fn is_reading(&self) -> bool {
        !self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for the first frame that `wanted` accepts, those read before included.
    pub fn first(&self, what: &str, wanted: impl FnMut(&Seen) -> bool) -> Seen {
        self.first_within(PATIENCE, what, wanted)
    }

    /// The same, for at most `patience`.
    pub fn first_within(&self, patience: Duration, what: &str, mut wanted: impl FnMut(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + patience;
        let mut looked_at = 0;
        loop {
            let fresh = self.seen.lock().unwrap()[looked_at..].to_vec();
            looked_at += fresh.len();
            if let Some(seen) = fresh.into_iter().find(&mut wanted) {
                return seen;
            }
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the reader gave up before: {what}");
            assert!(Instant::now() < deadline, "not within {} s: {what}", patience.as_secs());
            pause();
        }
    }

    /// Ends the reader; fails the test if the reader has failed.
    pub fn finish(mut self) -> Vec<Seen> {
        self.over.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.take().unwrap().join() {
            std::panic::resume_unwind(panic);
        }
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let failed = thread.join().is_err();
            assert!(!failed || std::thread::panicking(), "the reader failed; its message is above");
        }
    }
}

fn read(
    ring: &Ring,
    way: Way,
    seen: &Mutex<Vec<Seen>>,
    over: &AtomicBool,
    mut judge: impl FnMut(&Frame, &[u8], &Stamp),
) {
    let mut pixels = Vec::new();
    let mut before: Option<Seen> = None;
    while !over.load(Ordering::Relaxed) {
        let read = match way {
            Way::Next => ring.next(&mut pixels, Some(SLICE)),
            Way::Latest => ring.latest(&mut pixels),
        };
        let frame = match read {
            Ok(frame) => frame,
            Err(ReadError::Timeout { .. }) => continue,
            // A reader that got no time to copy; it says so instead of showing a mixture.
            Err(ReadError::NoFrame { .. } | ReadError::Overrun { .. }) => {
                pause();
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let now = Seen { frame, stamp: stamp_of(&frame, &pixels) };
        if is_new(way, before, now) {
            judge(&frame, &pixels, &now.stamp);
            seen.lock().unwrap().push(now);
        }
        before = Some(now);
        if way == Way::Latest {
            // Thirty copies a second are a reader; a loop without a pause is a load test.
            std::thread::park_timeout(Duration::from_millis(3));
        }
    }
}

/// Whether `now` is another frame than `before`; fails when it is an older one, or the same with another picture.
fn is_new(way: Way, before: Option<Seen>, now: Seen) -> bool {
    let Some(before) = before else { return true };
    let (old, new) = (before.frame.meta.seq, now.frame.meta.seq);
    if way == Way::Latest && old == new {
        assert_eq!(before.stamp, now.stamp, "frame {new} has changed");
        return false;
    }
    assert!(new > old, "frame {new} after {old}");
    let (painted, earlier) = (now.stamp, before.stamp);
    assert!(painted.mono_us > earlier.mono_us, "frame {new} shows {painted:?}, after {earlier:?}");
    true
}
