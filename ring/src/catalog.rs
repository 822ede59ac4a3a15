//! Which rings there are on this machine, and how to remove one for good.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::anchor::{self, WriterLock};
use crate::attach::stated_pid;
use crate::clock::pause;
use crate::crash::{self, CrashPoint};
use crate::error::CreateError;
use crate::frame::Generation;
use crate::head::Retired;
use crate::lock::{LockKind, conflicting};
use crate::name::{RingName, RingPaths, SegmentName, ShmDir};
use crate::names::retire;
use crate::segment::{Access, MapError, Segment, identity_of, open_file};

/// How long the descriptors of a writer may outlive its lock.
const ENDING: Duration = Duration::from_millis(200);

/// The names of all rings, sorted; anchor folders that cannot be read or trusted are left out.
///
/// # Errors
///
/// When the memory mount itself cannot be read.
pub fn rings(shm: &ShmDir) -> std::io::Result<Vec<RingName>> {
    std::fs::read_dir(shm.root())?;
    let mut names = BTreeSet::new();
    for folder in [shm.system_anchors(), shm.user_anchors()] {
        if anchor::check(&folder).is_err() {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            if let Some(Ok(name)) = entry.file_name().to_str().map(RingName::new) {
                names.insert(name);
            }
        }
    }
    Ok(names.into_iter().collect())
}

/// Removes a ring: tells its readers, then takes both names away; attached readers keep their frames.
///
/// # Errors
///
/// [`RemoveError::InUse`] with the pid when a daemon writes it.
pub fn remove(shm: &ShmDir, ring: &RingName) -> Result<(), RemoveError> {
    crash::arm().map_err(RemoveError::Refused)?;
    for anchors in [shm.system_anchors(), shm.user_anchors()] {
        let anchor = anchors.join(ring.as_str());
        match identity_of(&anchor) {
            Ok(Some(_)) => return remove_anchor(shm, anchors, ring, &anchor),
            Ok(None) | Err(rustix::io::Errno::NOTDIR) => {}
            Err(error) => return Err(RemoveError::io(format!("look at {}", anchor.display()), error)),
        }
    }
    Err(RemoveError::NotFound(ring.to_string()))
}

fn remove_anchor(shm: &ShmDir, anchors: PathBuf, ring: &RingName, anchor: &Path) -> Result<(), RemoveError> {
    anchor::check(&anchors).map_err(RemoveError::Refused)?;
    let mut paths = RingPaths::new(shm, anchors, ring, &ring.default_segment());
    let lock = WriterLock::take(&paths, ring.as_str(), Duration::ZERO).map_err(|error| match error {
        CreateError::Busy { pid, .. } => RemoveError::InUse { ring: ring.to_string(), pid },
        CreateError::Io { action, source } => RemoveError::Io { action, source },
        error => RemoveError::Refused(error),
    })?;
    let (fd, stat) = open_file(anchor, Access::ReadWrite)
        .map_err(|e| RemoveError::io(format!("open {} for removal", anchor.display()), e))?;
    let identity = (stat.st_dev, stat.st_ino);
    match Segment::map(fd, stat.st_size.cast_unsigned(), identity, Access::ReadWrite) {
        Ok(segment) => {
            if is_written(&segment) {
                return Err(RemoveError::InUse { ring: ring.to_string(), pid: stated_pid(&segment) });
            }
            if let Ok(name) = SegmentName::new(segment.layout.segment_name.clone()) {
                paths.public = shm.public(&name);
            }
            retire(&segment, Generation::default(), Retired::Removed);
        }
        // A damaged file is removed all the same; nobody can read it.
        Err(MapError::Layout(_)) => {}
        Err(MapError::Io(error)) => return Err(RemoveError::io(format!("map {}", anchor.display()), error)),
    }
    crash::at(CrashPoint::RemoveRetired);
    unlink_if(&paths.public, identity)?;
    crash::at(CrashPoint::RemovePublic);
    unlink_if(anchor, identity)?;
    crash::at(CrashPoint::RemoveAnchor);
    paths.sweep();
    // The lock file goes last, while the lock is held: whoever opened it before finds another file there and tries again.
    let lock_file = identity_of(&paths.lock).ok().flatten();
    if let Some(identity) = lock_file {
        unlink_if(&paths.lock, identity)?;
    }
    drop(lock);
    Ok(())
}

/// Whether a writer holds the alive byte; one that is just ending is waited for.
fn is_written(segment: &Segment) -> bool {
    let deadline = Instant::now() + ENDING;
    loop {
        let alive = conflicting(segment.fd.as_fd(), LockKind::Shared, segment.layout.alive_lock_off, 1);
        if alive != Ok(Some(LockKind::Exclusive)) {
            return false;
        }
        if Instant::now() >= deadline {
            return true;
        }
        pause(Duration::from_millis(10));
    }
}

fn unlink_if(path: &Path, identity: (u64, u64)) -> Result<(), RemoveError> {
    match identity_of(path) {
        Ok(Some(found)) if found == identity => {
            rustix::fs::unlink(path).map_err(|e| RemoveError::io(format!("remove {}", path.display()), e))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(RemoveError::io(format!("look at {}", path.display()), error)),
    }
}

/// Why a ring could not be removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RemoveError {
    /// No such ring.
    NotFound(String),
    /// A daemon writes it.
    InUse {
        /// The ring.
        ring: String,
        /// Its writer; 0 = not known.
        pid: u32,
    },
    /// It belongs to another user.
    Refused(CreateError),
    /// The system refused something.
    Io {
        /// What was tried, with the path.
        action: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl RemoveError {
    fn io(action: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { action: action.into(), source: source.into() }
    }
}

impl std::fmt::Display for RemoveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound(ring) => write!(f, "no ring \"{ring}\"; `camring list` shows what there is"),
            Self::InUse { ring, pid: 0 } => write!(f, "ring \"{ring}\" is in use; stop camring@{ring} first"),
            Self::InUse { ring, pid } => {
                write!(f, "ring \"{ring}\" is in use by process {pid}; stop camring@{ring} first")
            }
            Self::Refused(error) => error.fmt(f),
            Self::Io { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl std::error::Error for RemoveError {}
