//! The bare ring: the smallest program that hands frames over through shared memory, the limit that camring is held
//! against. A stamp per slot, a head, a futex word; no names, no recovery, one fixed size, and a lock on a
//! slot only where a reader asks for one.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::thread::futex::{self, Flags, Timespec};

const HEAD: usize = 0;
const NOTIFY: usize = 64;
const SLOTS_AT: usize = 128;
const SLOT_BYTES: usize = 64;
const DATA_AT: usize = 1 << 16;

/// The mapped file; the benchmark's process keeps it to its end.
pub struct BareRing {
    base: NonNull<u8>,
    slots: usize,
    bytes: usize,
    seq: u64,
    file: File,
}

impl BareRing {
    /// Makes the file with `slots` slots of `bytes`.
    pub fn create(path: &Path, slots: usize, bytes: usize) -> Self {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).expect("a new file");
        let len = DATA_AT + slots * bytes;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len as u64).expect("room");
        Self::map(file, slots, bytes, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps it for reading.
    pub fn open(path: &Path, slots: usize, bytes: usize) -> Self {
        Self::map(File::open(path).expect("the file"), slots, bytes, ProtFlags::READ)
    }

    fn map(file: File, slots: usize, bytes: usize, protection: ProtFlags) -> Self {
        let len = DATA_AT + slots * bytes;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice; the file has at least `len` bytes and never shrinks.
        let base = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, &file, 0) }.expect("a mapping");
        Self { base: NonNull::new(base.cast()).expect("not null"), slots, bytes, seq: 0, file }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < DATA_AT, "inside the header");
        // SAFETY: inside the mapping (checked above), which is never unmapped.
        let place = unsafe { self.base.add(offset) };
        // SAFETY: aligned (checked above), initialised by the kernel, only ever used as an atomic.
        unsafe { place.cast::<AtomicU64>().as_ref() }
    }

    fn notify(&self) -> &AtomicU32 {
        // SAFETY: inside the mapping, which is never unmapped.
        let place = unsafe { self.base.add(NOTIFY) };
        // SAFETY: aligned, initialised by the kernel, only ever used as an atomic.
        unsafe { place.cast::<AtomicU32>().as_ref() }
    }

    /// Takes the next slot; returns where its payload begins.
    fn claim(&mut self) -> NonNull<u8> {
        let slot = (self.seq + 1) as usize % self.slots;
        self.word(SLOTS_AT + slot * SLOT_BYTES).store(self.seq << 1 | 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // SAFETY: slot `slot` of `slots`, inside the mapping.
        unsafe { self.base.add(DATA_AT + slot * self.bytes) }
    }

    /// Fills the next slot's payload.
    pub fn fill(&mut self, value: u8) {
        let payload = self.claim();
        // SAFETY: `bytes` bytes of the slot, which readers of this benchmark never look into.
        unsafe { payload.write_bytes(value, self.bytes) };
    }

    /// Copies `pixels` into the next slot; for the comparison with peers, which uses this file.
    #[allow(dead_code)]
    pub fn copy(&mut self, pixels: &[u8]) {
        assert!(pixels.len() <= self.bytes, "a frame that fits");
        let payload = self.claim();
        let from = NonNull::from(pixels).cast();
        // SAFETY: as many bytes as both have (checked above), of a slice and of a slot that nobody else writes or looks into.
        unsafe { payload.copy_from_nonoverlapping(from, pixels.len()) };
    }

    /// Publishes the next slot with the time `t0_ns`.
    pub fn publish(&mut self, t0_ns: i64) {
        self.seq += 1;
        let slot = self.seq as usize % self.slots;
        let at = SLOTS_AT + slot * SLOT_BYTES;
        self.word(at + 8).store(t0_ns.cast_unsigned(), Ordering::Relaxed);
        self.word(at).store(self.seq << 1, Ordering::Release);
        self.word(HEAD).store(self.seq, Ordering::Release);
        self.notify().fetch_add(1, Ordering::Release);
        futex::wake(self.notify(), Flags::empty(), 32).expect("a wake-up");
    }

    /// As [`BareRing::next`], with a shared lock on the frame's slot, which the next call drops.
    pub fn next_locked(&self, last: u64) -> (u64, i64) {
        let slot = |seq: u64| seq % self.slots as u64;
        if last > 0 {
            self.lock(slot(last), libc::F_UNLCK);
        }
        loop {
            let (seq, _) = self.next(last);
            self.lock(slot(seq), libc::F_RDLCK);
            // Still there, now that it is locked.
            if let Some(found) = self.find(seq) {
                return found;
            }
            self.lock(slot(seq), libc::F_UNLCK);
        }
    }

    fn lock(&self, slot: u64, kind: libc::c_int) {
        let mut range = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 1 << 40 | slot.cast_signed(),
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: an open file, and a range that nobody else refers to.
        let result = unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut range) };
        assert_eq!(result, 0, "a shared lock that nobody contests");
    }

    /// The frame `seq` and the time in it; `None` when its slot holds another one.
    fn find(&self, seq: u64) -> Option<(u64, i64)> {
        let at = SLOTS_AT + seq as usize % self.slots * SLOT_BYTES;
        let found = self.word(at).load(Ordering::Acquire) == seq << 1;
        found.then(|| (seq, self.word(at + 8).load(Ordering::Relaxed).cast_signed()))
    }

    /// Waits for a frame newer than `last`; returns its number and the time in it.
    pub fn next(&self, last: u64) -> (u64, i64) {
        loop {
            if let Some(found) = self.next_within_a_second(last) {
                return found;
            }
        }
    }

    /// The same; `None` after a second without one.
    pub fn next_within_a_second(&self, last: u64) -> Option<(u64, i64)> {
        let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
        loop {
            let seen = self.notify().load(Ordering::Acquire);
            let seq = self.word(HEAD).load(Ordering::Acquire);
            if seq > last {
                match self.find(seq) {
                    Some(found) => return Some(found),
                    None => continue,
                }
            }
            // Woken or interrupted: look again.
            if futex::wait(self.notify(), Flags::empty(), seen, Some(&limit)) == Err(rustix::io::Errno::TIMEDOUT) {
                return None;
            }
        }
    }
}
