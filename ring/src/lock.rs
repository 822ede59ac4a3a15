//! Byte-range locks on the segment's file: claims and leases of slots, the daemon's alive byte, reader presence.
//!
//! Only locks of the open file description (OFD) are used: the kernel drops them when the last descriptor of the
//! description is closed, also after `kill -9`, and they do not vanish when the process closes another descriptor of
//! the same file. A mapping keeps the description it was made through as a descriptor does, hence a segment is mapped
//! through another one than its locks belong to.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// A lock that readers may share, or one that excludes everybody else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LockKind {
    Shared,
    Exclusive,
}

impl LockKind {
    fn code(self) -> libc::c_short {
        (match self {
            Self::Shared => libc::F_RDLCK,
            Self::Exclusive => libc::F_WRLCK,
        }) as libc::c_short
    }
}

/// Whether a lock was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Locked {
    Yes,
    /// Another description holds a lock that conflicts.
    Conflict,
}

/// Takes or converts a lock on `len` bytes at `start`; never waits.
///
/// # Errors
///
/// Anything but a conflict: `EBADF` for an exclusive lock through a read-only descriptor, `ENOLCK`, a sandbox's refusal.
pub(crate) fn try_lock(fd: BorrowedFd<'_>, kind: LockKind, start: u64, len: u64) -> Result<Locked, Errno> {
    match call(fd, libc::F_OFD_SETLK, kind.code(), start, len) {
        Ok(_) => Ok(Locked::Yes),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(Locked::Conflict),
        Err(error) => Err(error),
    }
}

/// Drops the locks of this description on `len` bytes at `start`.
pub(crate) fn unlock(fd: BorrowedFd<'_>, start: u64, len: u64) -> Result<(), Errno> {
    call(fd, libc::F_OFD_SETLK, libc::F_UNLCK as libc::c_short, start, len).map(drop)
}

/// The first lock of another description that would conflict with `kind` on the range.
pub(crate) fn conflicting(fd: BorrowedFd<'_>, kind: LockKind, start: u64, len: u64) -> Result<Option<LockKind>, Errno> {
    let found = call(fd, libc::F_OFD_GETLK, kind.code(), start, len)?;
    Ok(match i32::from(found.l_type) {
        libc::F_UNLCK => None,
        libc::F_WRLCK => Some(LockKind::Exclusive),
        _ => Some(LockKind::Shared),
    })
}

/// One `fcntl` lock call; repeated when a signal interrupts it.
fn call(
    fd: BorrowedFd<'_>,
    command: libc::c_int,
    kind: libc::c_short,
    start: u64,
    len: u64,
) -> Result<libc::flock, Errno> {
    let mut range = libc::flock {
        l_type: kind,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(start).map_err(|_| Errno::OVERFLOW)?,
        l_len: i64::try_from(len).map_err(|_| Errno::OVERFLOW)?,
        l_pid: 0,
    };
    loop {
        // SAFETY: `fd` is open for the length of the call because it is borrowed, `command` is one of the two OFD lock
        // commands, which take a pointer to `struct flock`, and `range` is one that nobody else has a reference to.
        let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut range) };
        if result != -1 {
            return Ok(range);
        }
        let error = std::io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            code => return Err(Errno::from_raw_os_error(code.unwrap_or(libc::EIO))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn two_descriptions() -> (std::fs::File, std::fs::File) {
        let path = std::env::temp_dir().join(format!("camring-lock-{:016x}", crate::process::random_u64()));
        std::fs::write(&path, b"x").unwrap();
        let writer = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let reader = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (writer, reader)
    }

    #[test]
    fn a_reader_lock_past_the_end_of_the_file_refuses_the_writer() {
        let (writer, reader) = two_descriptions();
        let byte = crate::layout::LEASE_LOCK_BASE + 3;
        assert_eq!(try_lock(reader.as_fd(), LockKind::Shared, byte, 1), Ok(Locked::Yes));
        assert_eq!(try_lock(writer.as_fd(), LockKind::Exclusive, byte, 1), Ok(Locked::Conflict));
        assert_eq!(try_lock(writer.as_fd(), LockKind::Exclusive, byte + 1, 1), Ok(Locked::Yes));
        drop(reader);
        assert_eq!(try_lock(writer.as_fd(), LockKind::Exclusive, byte, 1), Ok(Locked::Yes));
    }

    #[test]
    fn a_read_only_description_cannot_take_an_exclusive_lock() {
        let (_writer, reader) = two_descriptions();
        assert_eq!(try_lock(reader.as_fd(), LockKind::Exclusive, 0, 1), Err(Errno::BADF));
    }

    #[test]
    fn a_query_tells_who_is_in_the_way() {
        let (writer, reader) = two_descriptions();
        assert_eq!(conflicting(reader.as_fd(), LockKind::Shared, 0, 1), Ok(None));
        assert_eq!(try_lock(writer.as_fd(), LockKind::Exclusive, 0, 1), Ok(Locked::Yes));
        assert_eq!(conflicting(reader.as_fd(), LockKind::Shared, 0, 1), Ok(Some(LockKind::Exclusive)));
        assert_eq!(unlock(writer.as_fd(), 0, 1), Ok(()));
        assert_eq!(conflicting(reader.as_fd(), LockKind::Shared, 0, 1), Ok(None));
    }
}
