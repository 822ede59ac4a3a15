//! The system calls that attackers make and no safe wrapper offers; the one place of unsafe code of these tests.
#![allow(dead_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Makes a system call; callers pass addresses of memory that is theirs, or where the kernel must refuse to write.
pub fn call(number: libc::c_long, args: &[usize]) -> io::Result<usize> {
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    // SAFETY: every caller in these tests names memory of its own for what it reads or writes, or a read-only mapping
    // that the kernel is expected to protect: finding out is what the tests are for.
    let result = unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result.cast_unsigned() as usize) }
}

/// The address of a value, for [`call`].
pub fn address<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>() as usize
}

/// A shared mapping of a file from its beginning.
pub struct Map {
    base: usize,
    len: usize,
}

impl Map {
    /// Maps the file with these rights.
    pub fn new(file: &File, len: usize, rights: libc::c_int) -> io::Result<Self> {
        let (flags, fd) = (libc::MAP_SHARED as usize, file.as_raw_fd() as usize);
        let base = call(libc::SYS_mmap, &[0, len, rights as usize, flags, fd, 0])?;
        Ok(Self { base, len })
    }

    pub fn address(&self) -> usize {
        self.base
    }

    /// A word that another process may change at any time.
    pub fn u32_at(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.len && offset.is_multiple_of(4));
        // SAFETY: inside the mapping and aligned (checked above); the mapping lives as long as `self`.
        unsafe { &*((self.base + offset) as *const AtomicU32) }
    }

    /// A word that another process may change at any time.
    pub fn u64_at(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= self.len && offset.is_multiple_of(8));
        // SAFETY: inside the mapping and aligned (checked above); the mapping lives as long as `self`.
        unsafe { &*((self.base + offset) as *const AtomicU64) }
    }

    /// The bytes of some words.
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let words = (offset..offset + len).step_by(8);
        words.flat_map(|at| self.u64_at(at).load(Ordering::Relaxed).to_le_bytes()).collect()
    }

    pub fn protect(&self, rights: libc::c_int) -> io::Result<usize> {
        call(libc::SYS_mprotect, &[self.base, self.len, rights as usize])
    }

    pub fn advise(&self, advice: libc::c_int) -> io::Result<usize> {
        call(libc::SYS_madvise, &[self.base, self.len, advice as usize])
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let _ = call(libc::SYS_munmap, &[self.base, self.len]);
    }
}

/// A lock of the open file description (`F_OFD_SETLK`, `F_OFD_SETLKW`) or of the process (`F_SETLK`).
pub fn lock(file: &File, command: libc::c_int, kind: libc::c_int, start: u64, len: u64) -> io::Result<usize> {
    let mut range = range(kind, start, len);
    call(libc::SYS_fcntl, &[file.as_raw_fd() as usize, command as usize, (&raw mut range) as usize])
}

/// Whether somebody's lock would conflict with this one: the kind of that lock.
pub fn conflicting(file: &File, kind: libc::c_int, start: u64, len: u64) -> io::Result<Option<libc::c_int>> {
    let mut range = range(kind, start, len);
    call(libc::SYS_fcntl, &[file.as_raw_fd() as usize, libc::F_OFD_GETLK as usize, (&raw mut range) as usize])?;
    Ok((libc::c_int::from(range.l_type) != libc::F_UNLCK).then(|| range.l_type.into()))
}

fn range(kind: libc::c_int, start: u64, len: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start.cast_signed(),
        l_len: len.cast_signed(),
        l_pid: 0,
    }
}

/// `fcntl` with a plain number.
pub fn fcntl(file: &File, command: libc::c_int, value: usize) -> io::Result<usize> {
    call(libc::SYS_fcntl, &[file.as_raw_fd() as usize, command as usize, value])
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}

/// `FUTEX_WAIT`, at most for `limit`.
pub fn futex_wait(word: &AtomicU32, seen: u32, limit: Duration) -> io::Result<usize> {
    let limit = timespec(limit);
    call(libc::SYS_futex, &[address(word), libc::FUTEX_WAIT as usize, seen as usize, address(&limit)])
}

/// `FUTEX_WAKE`: how many were woken.
pub fn futex_wake(word: &AtomicU32, count: u32) -> io::Result<usize> {
    call(libc::SYS_futex, &[address(word), libc::FUTEX_WAKE as usize, count as usize])
}

/// `FUTEX_CMP_REQUEUE` that wakes nobody and moves everybody to `elsewhere`: how many were moved.
pub fn futex_kidnap(word: &AtomicU32, seen: u32, elsewhere: &AtomicU32) -> io::Result<usize> {
    let everybody = i32::MAX as usize;
    let operation = libc::FUTEX_CMP_REQUEUE as usize;
    call(libc::SYS_futex, &[address(word), operation, 0, everybody, address(elsewhere), seen as usize])
}

/// `FUTEX_WAIT_REQUEUE_PI`, until `deadline` of the monotonic clock.
pub fn futex_wait_requeue_pi(word: &AtomicU32, seen: u32, limit: Duration, target: &AtomicU32) -> io::Result<usize> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let deadline = timespec(Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32) + limit);
    let operation = libc::FUTEX_WAIT_REQUEUE_PI as usize;
    call(libc::SYS_futex, &[address(word), operation, seen as usize, address(&deadline), address(target)])
}

/// One instruction of a seccomp program.
pub type Step = libc::sock_filter;

/// Never again more rights than now, and the program judges every system call of this thread from here on.
pub fn install_seccomp(program: &[Step]) -> io::Result<()> {
    no_new_privileges()?;
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // All threads: a filter of the test's own thread alone would leave the harness's thread free.
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC as usize;
    call(libc::SYS_seccomp, &[libc::SECCOMP_SET_MODE_FILTER as usize, flags, address(&filter)]).map(drop)
}

pub fn no_new_privileges() -> io::Result<()> {
    call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as usize, 1]).map(drop)
}
