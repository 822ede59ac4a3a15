//! The anchor folder and the lock that makes a process the only writer of a ring.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use std::time::{Duration, Instant};

use rustix::fs::{Access, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::clock::pause;
use crate::error::CreateError;
use crate::fork::Descriptor;
use crate::lock::{LockKind, Locked, try_lock};
use crate::name::{RingPaths, ShmDir};
use crate::process::gid_of;

/// Mode of the anchor folder: the service group may add rings, only owners may remove theirs.
const FOLDER_MODE: u32 = 0o1775;
/// What it is made with, before it gets its group and mode.
const FRESH_MODE: u32 = 0o700;
/// Group of the service, which may write into the system's anchor folder.
const SERVICE_GROUP: &str = "camring-svc";
/// How often a busy lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The anchor folder this user writes rings into; made if it is missing.
pub(crate) fn folder(shm: &ShmDir) -> Result<PathBuf, CreateError> {
    if !crate::segment::is_tmpfs(shm.root())
        .map_err(|e| CreateError::io(format!("look at the memory mount {}", shm.root().display()), e))?
    {
        return Err(CreateError::NotTmpfs(shm.root().to_owned()));
    }
    let system = shm.system_anchors();
    if rustix::fs::lstat(&system).is_ok() && !usable(&system) {
        // Not passed over silently: readers of other users look nowhere else.
        check(&system)?;
    }
    if geteuid().is_root() {
        make(&system)?;
    }
    if usable(&system) && rustix::fs::access(&system, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        check(&system)?;
        return Ok(system);
    }
    let user = shm.user_anchors();
    make(&user)?;
    check(&user)?;
    Ok(user)
}

fn usable(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Makes the folder if it is missing, and finishes one that a crash has left half-made.
pub(crate) fn make(path: &Path) -> Result<(), CreateError> {
    let half_made = |stat: rustix::fs::Stat| {
        stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o7777 == FRESH_MODE && usable(path)
    };
    match rustix::fs::mkdir(path, Mode::from_raw_mode(FRESH_MODE)) {
        Err(Errno::EXIST) if !rustix::fs::lstat(path).is_ok_and(half_made) => Ok(()),
        Ok(()) | Err(Errno::EXIST) => {
            let act = |what: &str, e| CreateError::io(format!("{what} the anchor folder {}", path.display()), e);
            if let (true, Some(gid)) = (geteuid().is_root(), gid_of(SERVICE_GROUP)) {
                rustix::fs::chown(path, None, Some(Gid::from_raw(gid))).map_err(|e| act("set the group of", e))?;
            }
            rustix::fs::chmod(path, Mode::from_raw_mode(FOLDER_MODE)).map_err(|e| act("set the mode of", e))
        }
        Err(error) => Err(CreateError::io(format!("create the anchor folder {}", path.display()), error)),
    }
}

/// A folder that somebody else controls could be swapped under us.
pub(crate) fn check(path: &Path) -> Result<(), CreateError> {
    let refuse = |problem: String| Err(CreateError::AnchorFolder { path: path.to_owned(), problem });
    let stat = rustix::fs::lstat(path)
        .map_err(|e| CreateError::io(format!("look at the anchor folder {}", path.display()), e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return refuse("is not a folder".into());
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        return refuse(format!(
            "belongs to user {}, expected root or this user",
            crate::process::user_words(stat.st_uid)
        ));
    }
    if stat.st_mode & 0o002 != 0 {
        return refuse(format!("is writable by everybody (mode {:04o}), expected 1775", stat.st_mode & 0o7777));
    }
    Ok(())
}

/// The right to write one ring; given back when dropped, also by `kill -9`.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: Descriptor,
}

impl WriterLock {
    /// Takes the lock, trying again until `wait` is over.
    pub(crate) fn take(paths: &RingPaths, ring: &str, wait: Duration) -> Result<Self, CreateError> {
        let deadline = Instant::now().checked_add(wait);
        loop {
            match Self::try_take(&paths.lock) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Err(CreateError::Busy { ring: ring.to_owned(), pid: read_pid(&paths.lock) });
                }
                Ok(None) => {
                    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                    pause(left.map_or(LOCK_PAUSE, |left| left.min(LOCK_PAUSE)));
                }
                Err(Errno::ACCESS | Errno::PERM) => {
                    let uid = rustix::fs::lstat(&paths.lock).map_or(0, |stat| stat.st_uid);
                    return Err(CreateError::ForeignOwner { ring: ring.to_owned(), path: paths.lock.clone(), uid });
                }
                Err(error) => return Err(CreateError::io(format!("lock {}", paths.lock.display()), error)),
            }
        }
    }

    /// `None` when another process has it.
    fn try_take(path: &Path) -> Result<Option<Self>, Errno> {
        let mut file = File::from(open_lock(path)?);
        if try_lock(file.as_fd(), LockKind::Exclusive, 0, 1)? == Locked::Conflict {
            return Ok(None);
        }
        let ours = rustix::fs::fstat(&file)?;
        if ours.st_uid == geteuid().as_raw() && ours.st_mode & 0o077 != 0 {
            // Whoever can open it can hold a lock on it and keep every daemon from starting.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600))?;
        }
        // The file may have been replaced between open and lock: then this lock guards nothing.
        if crate::segment::identity_of(path)? != Some((ours.st_dev, ours.st_ino)) {
            return Ok(None);
        }
        write_pid(&mut file).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        Ok(Some(Self { _file: Descriptor::new(file.into(), (ours.st_dev, ours.st_ino)) }))
    }
}

/// Opens without creating first: a sticky folder may forbid O_CREAT on files of others, also for root.
fn open_lock(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    for _ in 0..8 {
        let fd = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                match rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o600)) {
                    // Somebody was faster, or a removal came in between: look again.
                    Err(Errno::EXIST) => continue,
                    result => result?,
                }
            }
            result => result?,
        };
        let stat = rustix::fs::fstat(&fd)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let trusted = geteuid().is_root() || stat.st_uid == geteuid().as_raw();
        return if regular && trusted { Ok(fd) } else { Err(Errno::ACCESS) };
    }
    Err(Errno::AGAIN)
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The pid in a lock file; 0 when it cannot be read.
pub(crate) fn read_pid(path: &Path) -> u32 {
    let mut text = String::new();
    let opened = crate::segment::open_file(path, crate::segment::Access::ReadOnly);
    let read = opened.map(|(fd, _)| File::from(fd).take(32).read_to_string(&mut text));
    if matches!(read, Ok(Ok(_))) { text.trim().parse().unwrap_or(0) } else { 0 }
}
