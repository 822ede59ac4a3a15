//! The memory of a segment: made, found, mapped, freed. The only system calls for memory are here.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::{NonNull, null_mut};

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::fork::Descriptor;
use crate::layout::{CONFIG_BYTES, HUGE_ALIGN, Layout, LayoutError};
use crate::sync::{AtomicU32, AtomicU64, Ordering, Region};

/// Linux 6.1: make huge pages of the range now, whatever the mount's policy says.
const MADV_COLLAPSE: libc::c_int = 25;
/// Bytes that one round of [`Mapping::copy_blocks`] copies.
#[cfg(target_arch = "x86_64")]
const COPY_BLOCK: usize = 128;
/// `statfs` magic of a tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

impl Access {
    fn flags(self) -> OFlags {
        match self {
            Self::ReadOnly => OFlags::RDONLY,
            Self::ReadWrite => OFlags::RDWR,
        }
    }
}

/// A mapped file; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    access: Access,
    /// The reservation around the mapping, which begins at a huge-page boundary.
    reserved: NonNull<c_void>,
    reserved_len: usize,
}

// SAFETY: the mapping is plain memory at a fixed address that lives until `drop`; every access goes through atomics or
// through a raw pointer whose exclusiveness the caller proves (slot.rs).
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` only offers atomics and raw pointers.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `fd` at an address where huge pages fit.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: u64, access: Access) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
        let align = HUGE_ALIGN as usize;
        let reserved_len = len.checked_add(align).ok_or(Errno::NOMEM)?;
        // SAFETY: a new anonymous reservation at an address the kernel chooses affects no existing memory.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(
                null_mut(),
                reserved_len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let padding = reserved.align_offset(align);
        let target = reserved.wrapping_byte_add(padding);
        let prot = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: `target..target+len` lies inside the reservation made above (padding < align), so MAP_FIXED replaces
        // only our own untouched pages.
        let mapped = unsafe { rustix::mm::mmap(target, len, prot, MapFlags::SHARED | MapFlags::FIXED, fd, 0) };
        let (Ok(mapped), Some(reserved)) = (mapped, NonNull::new(reserved)) else {
            // SAFETY: the reservation is ours and nothing refers to it.
            let _ = unsafe { rustix::mm::munmap(reserved, reserved_len) };
            return Err(mapped.err().unwrap_or(Errno::NOMEM).into());
        };
        let base = NonNull::new(mapped.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, len, access, reserved, reserved_len })
    }

    /// Raw pointer to `len` bytes at `offset`.
    ///
    /// # Panics
    ///
    /// If the range leaves the mapping: `Layout::validate` makes that impossible for ranges taken from a layout.
    pub(crate) fn ptr(&self, offset: u64, len: u64) -> NonNull<u8> {
        let end = offset.checked_add(len).expect("a validated range does not overflow");
        assert!(end <= self.len as u64, "bytes {offset}..{end} lie outside a mapping of {} bytes", self.len);
        // SAFETY: `offset <= end <= self.len`, so the result stays inside the mapping or one past its end.
        unsafe { self.base.add(offset as usize) }
    }

    /// Copies the front of `out` from `offset` on, in blocks of 128 bytes with AVX loads, and returns how much that was:
    /// nothing on a processor without.
    ///
    /// The bytes may change meanwhile, so that this cannot be a `memcpy` and no intrinsic, whose loads the language
    /// takes for loads of memory that nobody writes. An instruction has no such meaning: each load gives what the memory
    /// holds at some moment, and this processor keeps the order of its loads. A tenth faster than loads of single words,
    /// and no slower than `memcpy`; `rep movsb` is as fast here, and many times slower on Zen 3 and 4 where source and
    /// destination lie a few bytes apart modulo 4096, as they do here.
    pub(crate) fn copy_blocks(&self, offset: u64, out: &mut [u8]) -> usize {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx") && out.len() >= COPY_BLOCK {
            let blocks = out.len() / COPY_BLOCK * COPY_BLOCK;
            let from = self.ptr(offset, blocks as u64);
            // SAFETY: reads `blocks` bytes at `from`, which `ptr` has checked to be inside the mapping, and writes as many
            // into `out`, which is that long and borrowed mutably; both counts fall by a block a round, from a multiple
            // of it above zero. The mapping's bytes may change, which no instruction minds. `prefetcht0` faults nowhere.
            // AVX is there (asked above), and what the loop clobbers is named.
            unsafe {
                std::arch::asm!(
                    "2:",
                    "vmovdqu ymm0, [rsi]",
                    "vmovdqu ymm1, [rsi + 32]",
                    "vmovdqu ymm2, [rsi + 64]",
                    "vmovdqu ymm3, [rsi + 96]",
                    "prefetcht0 [rsi + 1024]",
                    "prefetcht0 [rsi + 1088]",
                    "vmovdqu [rdi], ymm0",
                    "vmovdqu [rdi + 32], ymm1",
                    "vmovdqu [rdi + 64], ymm2",
                    "vmovdqu [rdi + 96], ymm3",
                    "add rsi, 128",
                    "add rdi, 128",
                    "sub rcx, 128",
                    "jnz 2b",
                    "vzeroupper",
                    inout("rcx") blocks => _,
                    inout("rsi") from.as_ptr() => _,
                    inout("rdi") out.as_mut_ptr() => _,
                    clobber_abi("sysv64"),
                    options(nostack),
                );
            }
            return blocks;
        }
        let _ = (offset, out);
        0
    }

    /// Whether this mapping may be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// Copies the configuration block out, word by word.
    pub(crate) fn config_bytes(&self) -> [u8; CONFIG_BYTES] {
        let mut bytes = [0; CONFIG_BYTES];
        for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&self.u64_at(index as u64 * 8).load(Ordering::Relaxed).to_le_bytes());
        }
        bytes
    }

    /// Writes the configuration block, its first word (the magic) last.
    pub(crate) fn write_config(&self, bytes: &[u8; CONFIG_BYTES]) {
        for (index, chunk) in bytes.chunks_exact(8).enumerate().rev() {
            let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes"));
            let order = if index == 0 { Ordering::Release } else { Ordering::Relaxed };
            self.u64_at(index as u64 * 8).store(word, order);
        }
    }

    /// Tells the kernel what will happen to a range; a refusal is reported, not acted on.
    fn advise(&self, offset: u64, len: u64, advice: Advice) -> Result<(), Errno> {
        let pointer = self.ptr(offset, len);
        // SAFETY: the range lies inside our mapping, and none of the advice used here discards or moves its bytes.
        unsafe { rustix::mm::madvise(pointer.as_ptr().cast(), len as usize, advice) }
    }

    /// Maps the pages of a range now, for reading.
    pub(crate) fn populate_read(&self, offset: u64, len: u64) {
        // Kernels before 5.14 refuse; the pages are then mapped at their first use, which costs time, not correctness.
        let _ = self.advise(offset, len, Advice::LinuxPopulateRead);
    }

    /// Maps every page now, for writing.
    pub(crate) fn populate_write(&self) {
        if self.advise(0, self.len as u64, Advice::LinuxPopulateWrite).is_err() {
            for offset in (0..self.len as u64).step_by(4096) {
                let word = self.u64_at(offset);
                word.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// Makes huge pages of a range; only before readers have it mapped. Returns whether the kernel did.
    pub(crate) fn collapse(&self, offset: u64, len: u64) -> bool {
        let pointer = self.ptr(offset, len);
        // SAFETY: the range lies inside our mapping; MADV_COLLAPSE keeps its contents.
        unsafe { libc::madvise(pointer.as_ptr().cast(), len as usize, MADV_COLLAPSE) == 0 }
    }

    /// Keeps the frames out of core dumps.
    pub(crate) fn exclude_from_dumps(&self) {
        let _ = self.advise(0, self.len as u64, Advice::LinuxDontDump);
    }

    /// Pins every page in memory.
    pub(crate) fn lock_in_memory(&self) -> io::Result<()> {
        let pointer = self.base.as_ptr().cast::<c_void>();
        // SAFETY: the range is exactly our mapping; pinning does not change its contents.
        Ok(unsafe { rustix::mm::mlock(pointer, self.len) }?)
    }
}

impl Region for Mapping {
    fn u64_at(&self, offset: u64) -> &AtomicU64 {
        let pointer = self.ptr(offset, 8).cast::<AtomicU64>();
        assert!(pointer.is_aligned(), "a 64-bit word at the unaligned offset {offset}");
        // SAFETY: inside the mapping and aligned (checked above), alive as long as `self`, initialised by the kernel
        // with zeros or by another process with any bytes, all of which are valid. Read-only pages: readers only ever
        // load Relaxed, which std allows there.
        unsafe { pointer.as_ref() }
    }

    fn u64s_at<const N: usize>(&self, offset: u64) -> &[AtomicU64; N] {
        let pointer = self.ptr(offset, 8 * N as u64).cast::<[AtomicU64; N]>();
        assert!(pointer.is_aligned(), "64-bit words at the unaligned offset {offset}");
        // SAFETY: as in `u64_at`, for every one of the words.
        unsafe { pointer.as_ref() }
    }

    fn u32_at(&self, offset: u64) -> &AtomicU32 {
        let pointer = self.ptr(offset, 4).cast::<AtomicU32>();
        assert!(pointer.is_aligned(), "a 32-bit word at the unaligned offset {offset}");
        // SAFETY: as in `u64_at`.
        unsafe { pointer.as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the reservation, with the mapping inside it, belongs to this value alone, and every reference into
        // it borrows `self`.
        let _ = unsafe { rustix::mm::munmap(self.reserved.as_ptr(), self.reserved_len) };
    }
}

/// A mapped segment with its checked layout and the descriptor that its locks belong to, which is not the one that it
/// was mapped through.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) map: Mapping,
    pub(crate) layout: Layout,
    pub(crate) fd: Descriptor,
    /// Device and inode: the identity of this generation's file.
    pub(crate) identity: (u64, u64),
}

impl Segment {
    /// Maps an open file and checks its header; locks get a description of their own.
    pub(crate) fn map(fd: OwnedFd, size: u64, identity: (u64, u64), access: Access) -> Result<Self, MapError> {
        let locks = for_locks(fd.as_fd(), identity, access)?;
        Self::map_beside(fd.as_fd(), locks, size, identity, access)
    }

    /// As [`Segment::map`], with a second descriptor of the same file, of its own description, for the locks.
    pub(crate) fn map_beside(
        fd: BorrowedFd<'_>,
        locks: OwnedFd,
        size: u64,
        identity: (u64, u64),
        access: Access,
    ) -> Result<Self, MapError> {
        let locks = Descriptor::new(locks, identity);
        if size < CONFIG_BYTES as u64 {
            return Err(MapError::Layout(if size == 0 { LayoutError::NotReady } else { LayoutError::NotARing }));
        }
        let header = Mapping::new(fd, CONFIG_BYTES as u64, Access::ReadOnly)?;
        let layout = Layout::decode(&header.config_bytes(), size).map_err(MapError::Layout)?;
        let map = Mapping::new(fd, size, access)?;
        map.exclude_from_dumps();
        Ok(Self { map, layout, fd: locks, identity })
    }
}

/// Another description of an open file, for its locks.
///
/// A mapping keeps the description it was made through, and a forked child keeps the mapping: locks of that description
/// would outlive their process as long as the child lives. Where the file cannot be opened again (no /proc, or a
/// mode that shuts its owner out) the same description serves, and only that is lost.
pub(crate) fn for_locks(fd: BorrowedFd<'_>, identity: (u64, u64), access: Access) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = access.flags() | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if let Ok(again) = rustix::fs::open(path, flags, Mode::empty())
        && rustix::fs::fstat(&again).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == identity)
    {
        return Ok(again);
    }
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

/// Why an open file could not be mapped as a segment.
#[derive(Debug)]
pub(crate) enum MapError {
    Layout(LayoutError),
    Io(io::Error),
}

impl From<Errno> for MapError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<io::Error> for MapError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens a file that may be a trap: no symlink is followed, no FIFO or device is waited for.
pub(crate) fn open_file(path: &Path, access: Access) -> Result<(OwnedFd, Stat), Errno> {
    let flags = access.flags() | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok((fd, stat))
}

/// The identity of the file behind a path, if it is there.
pub(crate) fn identity_of(path: &Path) -> Result<Option<(u64, u64)>, Errno> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Allocates every page of `bytes` now, so that no later access can fail; repeated when a signal interrupts it.
pub(crate) fn allocate(fd: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Whether `dir` is on a tmpfs.
pub(crate) fn is_tmpfs(dir: &Path) -> Result<bool, Errno> {
    Ok(rustix::fs::statfs(dir)?.f_type == TMPFS_MAGIC)
}

/// Free bytes of the file system that `path` is on.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|stat| stat.f_bavail * stat.f_frsize)
}

/// Total bytes of the file system that `path` is on.
#[must_use]
pub fn total_bytes(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|stat| stat.f_blocks * stat.f_frsize)
}

/// An unnamed file of `bytes` in `dir`: it vanishes unless it is linked, so a crash leaves nothing behind.
pub(crate) fn unnamed_file(dir: &Path, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, mode)
}

/// Gives an unnamed file its first name.
pub(crate) fn link_unnamed(fd: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::linkat(rustix::fs::CWD, source, rustix::fs::CWD, path, rustix::fs::AtFlags::SYMLINK_FOLLOW)
}
