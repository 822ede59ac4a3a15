//! The two services of the kernel that the protocol uses, as far as it relies on them: sleeping on a word, byte locks.

use loom::sync::{Condvar, Mutex};

use crate::layout::at;
use crate::sync::{Ordering, Region};

/// `FUTEX_WAIT` and `FUTEX_WAKE` on the notify word, without time limits.
///
/// The kernel compares the word and joins the queue under the lock of a bucket; a waker takes the same lock.
#[derive(Debug)]
pub(crate) struct Futex {
    bucket: Mutex<()>,
    sleepers: Condvar,
}

impl Futex {
    pub(crate) fn new() -> Self {
        Self { bucket: Mutex::new(()), sleepers: Condvar::new() }
    }

    /// Sleeps until a wake-up, unless the word is no longer `seen`.
    pub(crate) fn wait(&self, region: &impl Region, seen: u32) {
        let bucket = self.bucket.lock().expect("no case panics with a bucket locked");
        if region.u32_at(at::NOTIFY).load(Ordering::Relaxed) == seen {
            drop(self.sleepers.wait(bucket).expect("no case panics with a bucket locked"));
        }
    }

    pub(crate) fn wake(&self) {
        let bucket = self.bucket.lock().expect("no case panics with a bucket locked");
        self.sleepers.notify_all();
        drop(bucket);
    }
}

/// Who holds the lease byte of one slot.
#[derive(Debug, Default)]
struct Holders {
    shared: u32,
    exclusive: bool,
}

/// The lease bytes of a segment under `F_OFD_SETLK`: never waits, and a spinlock of the inode orders all calls.
#[derive(Debug)]
pub(crate) struct ByteLocks {
    bytes: Mutex<Vec<Holders>>,
}

impl ByteLocks {
    pub(crate) fn new(slots: u32) -> Self {
        Self { bytes: Mutex::new((0..slots).map(|_| Holders::default()).collect()) }
    }

    fn with<T>(&self, slot: u32, act: impl FnOnce(&mut Holders) -> T) -> T {
        act(&mut self.bytes.lock().expect("no case panics with the list locked")[slot as usize])
    }

    /// `F_RDLCK`; whether it was given.
    pub(crate) fn try_shared(&self, slot: u32) -> bool {
        self.with(slot, |holders| {
            holders.shared += u32::from(!holders.exclusive);
            !holders.exclusive
        })
    }

    /// `F_WRLCK`; whether it was given.
    pub(crate) fn try_exclusive(&self, slot: u32) -> bool {
        self.with(slot, |holders| {
            let free = !holders.exclusive && holders.shared == 0;
            holders.exclusive |= free;
            free
        })
    }

    /// `F_UNLCK` by a reader.
    pub(crate) fn unlock_shared(&self, slot: u32) {
        self.with(slot, |holders| holders.shared -= 1);
    }

    /// `F_UNLCK` by the writer.
    pub(crate) fn unlock_exclusive(&self, slot: u32) {
        self.with(slot, |holders| holders.exclusive = false);
    }
}
