//! Leases: a reader's hold on a slot, for reading a frame in place.
//!
//! A lease is a shared lock on the slot's byte of the file. The writer asks for the exclusive lock before it reuses a
//! slot, and takes another one when it is refused. The kernel drops the lock when the reader dies.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use std::os::fd::AsFd;

use crate::attach::Attachment;
use crate::error::ReadError;
use crate::head;
use crate::layout::{LeasePolicy, at};
use crate::lock::{LockKind, Locked, try_lock, unlock};
use crate::reader::{ATTEMPTS, Account, Frame, Ring};
use crate::slot;
use crate::sync::{Ordering, fence};

/// What this description holds of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    leases: u64,
    locked: bool,
}

/// The leases of one attached generation, by slot.
///
/// All of them share one file description, where locks of one byte merge and one unlock drops them all: so the first
/// lease of a slot locks it and the last one unlocks it, both under this mutex.
#[derive(Debug)]
pub(crate) struct Holds {
    slots: Mutex<Box<[Held]>>,
}

impl Holds {
    pub(crate) fn new(slots: u32) -> Self {
        Self { slots: Mutex::new(vec![Held::default(); slots as usize].into()) }
    }

    fn lock(&self) -> MutexGuard<'_, Box<[Held]>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted hold on a slot; given back when dropped, if not before.
#[derive(Debug)]
struct Hold {
    attachment: Arc<Attachment>,
    slot: u32,
    ended: bool,
}

impl Hold {
    /// Announces that this reader uses `slot`; `None` while the writer is just taking it.
    ///
    /// Everything read after this call was either left alone by the writer, or shows in the stamp.
    fn take(attachment: &Arc<Attachment>, slot: u32) -> Result<Option<Self>, Errno> {
        let byte = attachment.segment.layout.lease_lock_base + u64::from(slot);
        let mut slots = attachment.holds.lock();
        let held = &mut slots[slot as usize];
        if held.leases == 0 {
            if try_lock(attachment.segment.fd.as_fd(), LockKind::Shared, byte, 1)? == Locked::Conflict {
                return Ok(None);
            }
            held.locked = true;
        }
        held.leases += 1;
        drop(slots);
        // Pairs with the fence in `slot::begin_write`, which runs under the writer's lock: a writer that had the slot
        // before us has made its stamp odd, and the check that follows sees it.
        fence(Ordering::SeqCst);
        Ok(Some(Self { attachment: Arc::clone(attachment), slot, ended: false }))
    }

    /// Gives the slot back to the writer; the memory stays.
    fn end(&mut self) {
        // In a forked child neither the lock nor the mutex, which a thread of the parent may have locked, are its own.
        if std::mem::replace(&mut self.ended, true) || !self.attachment.origin.is_here() {
            return;
        }
        let segment = &self.attachment.segment;
        let mut slots = self.attachment.holds.lock();
        slots[self.slot as usize].leases -= 1;
        for (held, byte) in slots.iter_mut().zip(segment.layout.lease_lock_base..) {
            // Usually the one slot; also one whose unlock was refused before (splitting a range needs memory).
            if held.locked && held.leases == 0 && unlock(segment.fd.as_fd(), byte, 1).is_ok() {
                held.locked = false;
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
    }
}

/// A hold on one frame of a ring, for reading it in place; dropped or [released](Lease::release), it ends.
///
/// While it is held the writer does not reuse its slot, as long as it finds another one: under the policy `fresh` a
/// writer that finds every other slot leased takes the oldest one back, and the lease ends *revoked*; under `protect`
/// it drops the new frame instead. [`Lease::is_valid`] tells at any time, and [`Lease::release`] at the end.
///
/// It keeps its memory: the handle it came from, the daemon and even the generation may go before it. The kernel ends
/// it when the process dies. In a forked child it is revoked from the start, and the parent's lease goes on.
#[derive(Debug)]
pub struct Lease {
    hold: Hold,
    frame: Frame,
    offset: u64,
    len: usize,
}

impl Lease {
    /// What was leased.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the payload has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the payload begins: [`Lease::len`] bytes that can be read as long as this value lives.
    ///
    /// The mapping is read-only. Once the lease is revoked the writer may change the bytes at any time, from another
    /// process: whoever reads through this pointer must be able to stand that, and must discard what it has read
    /// when [`Lease::release`] says so.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.hold.attachment.segment.map.ptr(self.offset, self.len as u64).as_ptr()
    }

    /// Whether the frame has been constant from the start of the lease up to now.
    ///
    /// `false` for ever once the writer has taken the slot back, and in a forked child. Makes no system call.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let Hold { attachment, slot, .. } = &self.hold;
        let segment = &attachment.segment;
        attachment.origin.is_here()
            && slot::is_unchanged(&segment.map, &segment.layout, *slot, self.frame.meta.seq.0 << 1)
    }

    /// Whether the writer takes leases into account at the moment.
    ///
    /// `false` when it has stopped asking because some reader's locks made that slow (policy `fresh` only), and in a
    /// forked child: the frame may then be overwritten any time, and only [`Lease::is_valid`] counts.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        let attachment = &self.hold.attachment;
        attachment.origin.is_here() && head::load_u32(&attachment.segment.map, at::LEASE_NOW) == 0
    }

    /// Copies the payload into `out`, and makes sure that the copy is whole.
    ///
    /// # Errors
    ///
    /// [`ReadError::BufferSize`] when `out` has not exactly [`Lease::len`] bytes; [`ReadError::Revoked`].
    pub fn copy_to(&self, out: &mut [u8]) -> Result<(), ReadError> {
        if out.len() != self.len {
            return Err(ReadError::BufferSize { found: out.len() as u64, expected: self.len as u64 });
        }
        slot::copy_payload(&self.hold.attachment.segment.map, self.offset, out);
        if self.is_valid() { Ok(()) } else { Err(self.revoked()) }
    }

    /// The payload as a plain slice, under the policy `protect` only: there the writer never takes a slot back.
    ///
    /// `None` under another policy, for a file that others than its owner may write, and in a forked child. A slice
    /// that was taken before a fork must not be used in the child: the parent may end the lease there.
    #[must_use]
    pub fn protected(&self) -> Option<&[u8]> {
        let attachment = &self.hold.attachment;
        let policy = attachment.segment.layout.lease_policy;
        if policy != LeasePolicy::Protect as u32 || attachment.shared_writing || !self.is_guarded() || !self.is_valid()
        {
            return None;
        }
        // SAFETY: `as_ptr` points to `len` initialised bytes inside a mapping that `hold` keeps. Nobody writes them
        // while the slice lives, which borrows `self` and thereby the lock:
        // - the policy is part of the generation (a writer that wants another one makes a new file), and under
        //   `protect` a writer that is refused the exclusive lock never takes the slot (`Writer::claim`);
        // - the lock was there before the stamp was found to name this frame, so a writer that had claimed the slot
        //   earlier would show (`Hold::take`); it belongs to a description that only `attachment` has, and only the
        //   last `Hold` of the slot drops it, in this process;
        // - a daemon that adopts the ring touches no slot whose stamp is even; a retired generation is never written;
        // - a writer in this very process asks for the same lock, through a description of its own;
        // - others than the owner, whom `attach` trusts, had no right to write the file when it was attached;
        // - a child that uses it is the doing of whoever called `fork`, which is unsafe for such reasons.
        Some(unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) })
    }

    /// The payload as a plain slice, under any policy.
    ///
    /// # Safety
    ///
    /// The writer may overwrite the bytes at any time once the lease is revoked, in another process and without a
    /// word. The caller must use them in ways that bear any change (arithmetic on the bytes does, trusting a length
    /// found in them does not), and must discard every result when [`Lease::release`] reports [`ReadError::Revoked`].
    #[must_use]
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: `as_ptr` points to `len` initialised bytes inside a mapping that `self` keeps; the caller answers for
        // bytes that change.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    /// Ends the lease and says whether the frame was constant throughout.
    ///
    /// # Errors
    ///
    /// [`ReadError::Revoked`]: everything that was read from the frame is to be discarded.
    pub fn release(self) -> Result<(), ReadError> {
        if self.is_valid() { Ok(()) } else { Err(self.revoked()) }
    }

    /// Ends the lease as [`Lease::release`] does, and keeps its memory readable at the same address.
    ///
    /// For languages whose views may outlive the lease: a pointer from [`Lease::as_ptr`] can be read as long as the
    /// returned value lives, and the value tells whether the bytes still are the frame's.
    pub fn end(mut self) -> (EndedLease, Result<(), ReadError>) {
        let outcome = if self.is_valid() { Ok(()) } else { Err(self.revoked()) };
        self.hold.end();
        (EndedLease(self), outcome)
    }

    fn revoked(&self) -> ReadError {
        ReadError::Revoked { ring: self.hold.attachment.name.clone(), seq: self.frame.meta.seq }
    }
}

/// The memory of a lease that has ended: readable, but the writer may use the slot for another frame at any time.
#[derive(Debug)]
pub struct EndedLease(Lease);

impl EndedLease {
    /// Whether the bytes still are those of the frame, since the lease began up to now; once `false`, so for ever.
    ///
    /// A generation that was replaced is never written again: what is valid there stays so.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.is_valid()
    }
}

impl Ring {
    /// Leases the newest frame: reads it in place, without a copy.
    ///
    /// The frame counts as returned, as with [`Ring::latest`]. Waits for nothing; costs one system call, and one more
    /// when the lease ends. Several leases on one handle are independent of each other. Each lease takes a slot out of
    /// the writer's hands: hold few, and none for long.
    ///
    /// # Errors
    ///
    /// [`ReadError::LeaseUnavailable`] when the ring's policy is `off` or the kernel refuses locks: copies work all
    /// the same. [`ReadError::Overrun`] when the writer was faster eight times in a row; else as [`Ring::latest`].
    pub fn lease(&self) -> Result<Lease, ReadError> {
        self.lease_newest().map(|(lease, _)| lease)
    }

    /// Waits for a frame newer than the last one this handle returned, then leases the newest.
    ///
    /// # Errors
    ///
    /// As [`Ring::next`] and [`Ring::lease`].
    pub fn lease_next(&self, timeout: Option<Duration>) -> Result<Lease, ReadError> {
        self.next_by(timeout, || self.lease_newest())
    }

    fn lease_newest(&self) -> Result<(Lease, Account), ReadError> {
        for attempt in 0..ATTEMPTS {
            let attachment = self.current();
            let segment = &attachment.segment;
            let head = self.newest(segment)?;
            let Some(hold) = self.hold(&attachment, head.slot)? else { continue };
            let Some(meta) = self.describe(segment, head)? else { continue };
            if let Some((frame, account)) = self.account(&attachment, meta, attempt) {
                let offset = segment.layout.payload_off(head.slot);
                // Not more than the slot's capacity, as `describe` has checked.
                let len = usize::try_from(meta.geometry.len).expect("a mapped payload fits the address space");
                return Ok((Lease { hold, frame, offset, len }, account));
            }
        }
        Err(self.overrun(&self.current().segment))
    }

    fn hold(&self, attachment: &Arc<Attachment>, slot: u32) -> Result<Option<Hold>, ReadError> {
        let refuse = |why: String| Err(ReadError::LeaseUnavailable { ring: self.name().to_owned(), why });
        match LeasePolicy::from_code(attachment.segment.layout.lease_policy) {
            Some(LeasePolicy::Fresh | LeasePolicy::Protect) => {}
            Some(LeasePolicy::Off) => return refuse("its lease policy is off".to_owned()),
            None => return refuse("this build does not know its lease policy".to_owned()),
        }
        if !attachment.origin.is_here() {
            return refuse("this process was forked, and the ring could not be opened again so far".to_owned());
        }
        Hold::take(attachment, slot).or_else(|error| refuse(format!("the kernel refuses the lock ({error})")))
    }
}
