//! How a slot is chosen and taken: the oldest one that nobody needs, after asking the kernel whether a reader leases it.

use std::os::fd::AsFd;

use crate::clock::mono_ns;
use crate::crash::{self, CrashPoint};
use crate::error::ClaimError;
use crate::guard::{LockGuard, Verdict};
use crate::head::{self, Head};
use crate::layout::{LeasePolicy, at};
use crate::live::Live;
use crate::lock::{LockKind, Locked, conflicting, try_lock, unlock};
use crate::segment::Segment;
use crate::slot;
use crate::status::{Counter, Shared};

/// So many refused slots in one claim are more than honest readers lease.
const REFUSED_MANY: u32 = 16;
/// How long a claim looks for a slot that nobody leases, once many are: 255 quick refusals take less.
const SEARCH_LIMIT_NS: i64 = 200_000;

/// One claim: the generation, its newest frame, and who is told about slow locks.
pub(crate) struct Claim<'a> {
    pub(crate) live: &'a Live,
    /// The newest frame, whose slot is never taken; `None` in a generation without one.
    pub(crate) head: Option<Head>,
    pub(crate) shared: &'a Shared,
}

impl Claim<'_> {
    /// Takes a slot; never waits for a reader, allocates nothing, logs nothing.
    ///
    /// # Errors
    ///
    /// [`ClaimError::NoSlot`] when all are being written, [`ClaimError::Leased`] when policy `protect` keeps the rest.
    pub(crate) fn take(&self, guard: &mut LockGuard) -> Result<u32, ClaimError> {
        let Segment { map, layout, .. } = &self.live.segment;
        let oldest = self.oldest_after(None).ok_or(ClaimError::NoSlot)?;
        let policy = LeasePolicy::from_code(layout.lease_policy).unwrap_or_default();
        if policy == LeasePolicy::Off {
            return Ok(self.begin(oldest.1));
        }
        let began = mono_ns();
        let paused = guard.is_paused(began);
        if paused && policy == LeasePolicy::Fresh {
            return Ok(self.begin(oldest.1));
        }
        if head::load_u32(map, at::LEASE_NOW) != 0 {
            // Readers may rely on locks from here on: this claim is the first one that asks again.
            head::store_u32(map, at::LEASE_NOW, 0);
        }
        let unleased = self.first_unleased(policy, began);
        if !paused {
            self.judge(guard, policy, began, oldest.1);
        }
        match unleased {
            Some(index) => Ok(index),
            None => self.all_leased(policy, oldest.1),
        }
    }

    /// Takes the oldest slot whose lease byte the kernel gives; `None` when readers hold all of them.
    ///
    /// Where the kernel cannot tell, a slot counts as free; under `protect`, whose readers rely on the answer, as leased.
    /// Under `fresh` the search ends when many slots were refused and that took long: a reader may have locked all.
    fn first_unleased(&self, policy: LeasePolicy, began: i64) -> Option<u32> {
        let Segment { layout, fd, .. } = &self.live.segment;
        let mut tried = None;
        let mut refused = 0;
        while let Some(candidate) = self.oldest_after(tried) {
            if policy == LeasePolicy::Fresh && refused >= REFUSED_MANY && mono_ns() - began > SEARCH_LIMIT_NS {
                return None;
            }
            refused += 1;
            let lock = layout.lease_lock_base + u64::from(candidate.1);
            match try_lock(fd.as_fd(), LockKind::Exclusive, lock, 1) {
                Ok(Locked::Conflict) => tried = Some(candidate),
                Err(_) if policy == LeasePolicy::Protect => tried = Some(candidate),
                locked => {
                    crash::at(CrashPoint::ClaimLocked);
                    let index = self.begin(candidate.1);
                    crash::at(CrashPoint::ClaimStamped);
                    if locked.is_ok() {
                        // Only an unlock of our own byte: it cannot conflict, and the next claim repeats it anyway.
                        let _ = unlock(fd.as_fd(), lock, 1);
                    }
                    crash::at(CrashPoint::ClaimUnlocked);
                    return Some(index);
                }
            }
        }
        None
    }

    /// Every slot that could be taken is leased.
    fn all_leased(&self, policy: LeasePolicy, oldest: u32) -> Result<u32, ClaimError> {
        let map = &self.live.segment.map;
        head::add_u64(map, Counter::LeaseConflicts.offset(), 1);
        if policy == LeasePolicy::Protect {
            return Err(ClaimError::Leased);
        }
        head::add_u64(map, Counter::LeasesRevoked.offset(), 1);
        crash::at(CrashPoint::ClaimRevoking);
        Ok(self.begin(oldest))
    }

    /// Marks a slot as being written, for readers and for this process.
    fn begin(&self, index: u32) -> u32 {
        let Segment { map, layout, .. } = &self.live.segment;
        let stamp = self.live.stamp(index);
        slot::begin_write(map, layout, index, stamp);
        self.live.set_stamp(index, stamp | 1);
        index
    }

    /// Hands the time that lock calls took to the guard and does what it says.
    fn judge(&self, guard: &mut LockGuard, policy: LeasePolicy, began: i64, index: u32) {
        let Segment { map, layout, fd, .. } = &self.live.segment;
        let ended = mono_ns();
        let query = || {
            let before = mono_ns();
            // Readers' locks never conflict with a shared one, so the kernel walks the whole list. The answer does not
            // matter, only how long it took.
            let _ = conflicting(fd.as_fd(), LockKind::Shared, layout.lease_lock_base + u64::from(index), 1);
            mono_ns() - before
        };
        let verdict = guard.judge(ended, ended - began, query);
        if matches!(verdict, Verdict::Slow | Verdict::Tripped(_)) {
            head::add_u64(map, Counter::LeaseLockSlow.offset(), 1);
        }
        if let Verdict::Tripped(_) = verdict
            && policy == LeasePolicy::Fresh
        {
            head::store_u32(map, at::LEASE_NOW, 1);
        }
        if matches!(verdict, Verdict::Tripped(_) | Verdict::FineAgain) {
            self.shared.tell_of_locks(verdict);
        }
    }

    /// The slot with the smallest stamp after `tried` that is neither the newest frame's nor being written; without
    /// allocation, because it runs per frame.
    fn oldest_after(&self, tried: Option<(u64, u32)>) -> Option<(u64, u32)> {
        let live = self.live;
        let reusable = |index: &u32| self.head.is_none_or(|head| head.slot != *index) && live.stamp(*index) & 1 == 0;
        let keys = (0..live.segment.layout.slot_count).filter(reusable).map(|index| (live.stamp(index), index));
        keys.filter(|key| tried.is_none_or(|tried| *key > tried)).min()
    }
}
