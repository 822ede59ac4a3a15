//! How a reader gets hold of a generation: find, open, trust, map, check.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use std::time::{Duration, Instant};

use rustix::fs::Stat;
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::clock::pause;
use crate::error::AttachError;
use crate::fork::{Calm, Origin};
use crate::head::{self, Retired};
use crate::layout::{LayoutError, PRESENCE_LOCK_SPAN, SLOTS_MAX, at};
use crate::lease::Holds;
use crate::lock::{LockKind, conflicting, try_lock};
use crate::name::{SegmentName, ShmDir};
use crate::process::{random_u64, uid_of};
use crate::segment::{Access, MapError, Segment, for_locks, open_file};

/// Pause between two looks for a ring that is not there yet.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Attempts to open a ring without a fork of another thread in between.
const FORK_TRIES: u32 = 8;
/// Most bytes of header and slot table that are mapped at once when a reader attaches; the largest table of this layout
/// version takes 68 KiB.
const POPULATE_MAX: u64 = 1 << 20;
/// The service's user, trusted as an owner when the host has it.
const SERVICE_USER: &str = "camring";

/// Whose rings a reader accepts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OwnerPolicy {
    /// Root, this process's user, or the user `camring`.
    #[default]
    Usual,
    /// Only this user.
    Uid(u32),
    /// Anybody: the owner could truncate the file under the reader.
    Any,
}

/// How to attach.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// The memory mount.
    pub shm: ShmDir,
    /// How long to wait for the name; `None` = for ever, zero = not at all.
    pub timeout: Option<Duration>,
    /// Whose rings to accept.
    pub owner: OwnerPolicy,
    /// Whether the daemon may count this handle as a reader.
    pub presence: Presence,
}

/// Whether a handle is counted as a reader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// As a worker that uses the frames.
    Counted,
    /// As an onlooker (a listing), which does not keep a camera awake.
    Uncounted,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self {
            shm: ShmDir::default(),
            timeout: Some(Duration::from_secs(10)),
            owner: OwnerPolicy::Usual,
            presence: Presence::Counted,
        }
    }
}

/// What a reader learns from the lock on the alive byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AliveByte {
    /// A daemon holds it.
    Held,
    /// Nobody does: there is no daemon.
    Free,
    /// Only the heartbeat can tell.
    Unclear,
}

/// One attached generation.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// The name asked for.
    pub(crate) name: String,
    pub(crate) segment: Segment,
    /// The name it was found under.
    pub(crate) path: PathBuf,
    /// Whose descriptor and locks these are.
    pub(crate) origin: Origin,
    pub(crate) holds: Holds,
    /// Others than its owner may write the file.
    pub(crate) shared_writing: bool,
}

impl Attachment {
    /// Attaches to the ring behind `name`, waiting for it as the options say.
    pub(crate) fn wait_for(name: &SegmentName, options: &AttachOptions) -> Result<Self, AttachError> {
        let deadline = options.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let error = match Self::find(name, options) {
                Ok(attachment) => return Ok(attachment),
                Err(error) if may_pass(&error) => error,
                Err(error) => return Err(error),
            };
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(error);
            }
            pause(left.map_or(LOOK_PAUSE, |left| left.min(LOOK_PAUSE)));
        }
    }

    /// Attaches to what is there now.
    ///
    /// A descriptor that a fork in between has given to a child before it was registered is closed and opened again.
    pub(crate) fn find(name: &SegmentName, options: &AttachOptions) -> Result<Self, AttachError> {
        for _ in 1..FORK_TRIES {
            let calm = Calm::wait();
            let found = Self::look(name, options);
            if calm.lasts() {
                return found;
            }
        }
        Self::look(name, options)
    }

    fn look(name: &SegmentName, options: &AttachOptions) -> Result<Self, AttachError> {
        let candidates = options.shm.candidates(name);
        for path in &candidates {
            match open_file(path, Access::ReadOnly) {
                Ok((fd, stat)) => return Self::check(name, path, fd, &stat, options),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(refused(name, path, error)),
            }
        }
        Err(AttachError::NotFound { name: name.to_string(), looked: candidates.to_vec() })
    }

    fn check(
        name: &SegmentName,
        path: &Path,
        fd: OwnedFd,
        stat: &Stat,
        options: &AttachOptions,
    ) -> Result<Self, AttachError> {
        if !is_trusted(stat.st_uid, options.owner) {
            return Err(AttachError::Untrusted { name: name.to_string(), path: path.to_owned(), uid: stat.st_uid });
        }
        let identity = (stat.st_dev, stat.st_ino);
        let size = stat.st_size.cast_unsigned();
        let segment = second_description(path, &fd, identity)
            .map_err(MapError::from)
            .and_then(|locks| Segment::map_beside(fd.as_fd(), locks, size, identity, Access::ReadOnly))
            .map_err(|e| match e {
                MapError::Layout(error) => AttachError::Layout { name: name.to_string(), error },
                MapError::Io(error) => AttachError::io(format!("map {}", path.display()), error),
            })?;
        match head::load_retired(&segment.map) {
            Retired::No => {}
            Retired::Superseded => return Err(AttachError::Superseded(name.to_string())),
            Retired::Removed => return Err(AttachError::Removed(name.to_string())),
        }
        let table_end = segment.layout.slot_header_off(segment.layout.slot_count.min(SLOTS_MAX));
        // A header may claim a table of terabytes: what is not mapped now is mapped when it is read.
        let populated = table_end.next_multiple_of(4096).min(segment.layout.data_off).min(POPULATE_MAX);
        segment.map.populate_read(0, populated);
        if options.presence == Presence::Counted {
            take_presence(&segment);
        }
        Ok(Self {
            name: name.to_string(),
            path: path.to_owned(),
            origin: Origin::here(),
            holds: Holds::new(segment.layout.slot_count),
            shared_writing: stat.st_mode & 0o022 != 0,
            segment,
        })
    }

    /// What the lock on the alive byte says.
    pub(crate) fn alive_byte(&self) -> AliveByte {
        let segment = &self.segment;
        if !self.origin.is_here() {
            // The parent's descriptor, which leads to nothing here.
            return AliveByte::Unclear;
        }
        let look = |kind| conflicting(segment.fd.as_fd(), kind, segment.layout.alive_lock_off, 1);
        match (look(LockKind::Shared), look(LockKind::Exclusive)) {
            (Ok(Some(LockKind::Exclusive)), _) => AliveByte::Held,
            (Ok(_), Ok(None)) => AliveByte::Free,
            // A reader squats on it, so that the daemon cannot have it; or a sandbox refuses to tell.
            _ => AliveByte::Unclear,
        }
    }

    /// Whether the name still leads to this file.
    pub(crate) fn is_current(&self) -> Result<bool, Errno> {
        Ok(crate::segment::identity_of(&self.path)? == Some(self.segment.identity))
    }
}

/// A description for the locks, which a mapping inherited by a child does not keep: by the name where it still leads to
/// the same file, which needs no /proc.
fn second_description(path: &Path, fd: &OwnedFd, identity: (u64, u64)) -> Result<OwnedFd, Errno> {
    match open_file(path, Access::ReadOnly) {
        Ok((again, stat)) if (stat.st_dev, stat.st_ino) == identity => Ok(again),
        _ => for_locks(fd.as_fd(), identity, Access::ReadOnly),
    }
}

/// Errors that waiting can cure: the name is not there yet, or leads to something that is about to be replaced.
fn may_pass(error: &AttachError) -> bool {
    matches!(
        error,
        AttachError::NotFound { .. }
            | AttachError::Superseded(_)
            | AttachError::Removed(_)
            | AttachError::Layout { error: LayoutError::NotReady, .. }
    )
}

fn refused(name: &SegmentName, path: &Path, error: Errno) -> AttachError {
    let name = name.to_string();
    match error {
        Errno::ACCESS | Errno::PERM => {
            let gid = rustix::fs::lstat(path).map_or(0, |stat| stat.st_gid);
            AttachError::Permission { name, path: path.to_owned(), gid }
        }
        Errno::INVAL | Errno::LOOP | Errno::NXIO | Errno::ISDIR => {
            AttachError::Layout { name, error: LayoutError::NotARing }
        }
        error => AttachError::io(format!("open {}", path.display()), error),
    }
}

fn is_trusted(owner: u32, policy: OwnerPolicy) -> bool {
    match policy {
        OwnerPolicy::Usual => owner == 0 || owner == geteuid().as_raw() || uid_of(SERVICE_USER) == Some(owner),
        OwnerPolicy::Uid(uid) => owner == uid,
        OwnerPolicy::Any => true,
    }
}

/// Announces this handle: a shared lock on a byte that says the pid and is this handle's own.
fn take_presence(segment: &Segment) {
    let pid = u64::from(std::process::id()) & 0x3F_FFFF;
    let byte = segment.layout.presence_lock_base + (pid << 20 | random_u64() & 0xF_FFFF);
    // A sandbox may refuse locks: the reader is then invisible in listings, and reads all the same.
    let _ = try_lock(segment.fd.as_fd(), LockKind::Shared, byte, 1);
}

/// The pids (in their own namespaces) of the readers counted on a segment, as the kernel's lock table shows them.
pub(crate) fn present_readers(segment: &Segment) -> Vec<u32> {
    let file = in_lock_table(segment);
    let base = segment.layout.presence_lock_base;
    let tables = lock_tables();
    let readers: BTreeSet<u64> =
        tables.iter().flat_map(|table| table.lines().filter_map(|line| presence(line, &file, base))).collect();
    let mut pids: Vec<u32> = readers.iter().filter_map(|place| u32::try_from(place >> 20).ok()).collect();
    pids.sort_unstable();
    pids
}

/// How many locks of any kind the kernel's lock table shows for a segment; `None` where it cannot be read.
pub(crate) fn count_locks(segment: &Segment) -> Option<usize> {
    let file = in_lock_table(segment);
    let is_ours = |line: &&str| line.split_ascii_whitespace().any(|field| field == file);
    lock_tables().iter().map(|table| table.lines().filter(is_ours).count()).max()
}

/// The kernel gives its lock table out by the page, and goes on at a place in a list that may have become shorter: locks
/// released by anybody in between make it skip others.
const LOCK_TABLE_PAGE: usize = 4096;
/// So often a table of several pages is read; what one misses another has.
const LOCK_TABLE_READS: usize = 4;

/// The kernel's lock table, several times if it cannot be read in one go; none where it is hidden.
fn lock_tables() -> Vec<String> {
    let read = || std::fs::read_to_string("/proc/locks").ok();
    let Some(first) = read() else { return Vec::new() };
    let more = if first.len() < LOCK_TABLE_PAGE / 2 { 0 } else { LOCK_TABLE_READS - 1 };
    std::iter::once(first).chain((0..more).filter_map(|_| read())).collect()
}

/// How the kernel's lock table names a segment's file.
fn in_lock_table(segment: &Segment) -> String {
    let (dev, ino) = segment.identity;
    format!("{:02x}:{:02x}:{ino}", rustix::fs::major(dev), rustix::fs::minor(dev))
}

/// Whose presence a line tells, as the place in the range of presence bytes: pid and a random number.
///
/// `1: OFDLCK  ADVISORY  READ -1 00:19:5 17592186044416 17592186044416`
fn presence(line: &str, file: &str, base: u64) -> Option<u64> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "OFDLCK", _, "READ", _, found, start, ..] = fields.as_slice() else { return None };
    let start: u64 = start.parse().ok()?;
    start.checked_sub(base).filter(|place| *place < PRESENCE_LOCK_SPAN && *found == file)
}

/// Whether the header's own pid field still says that somebody writes; diagnostic only.
pub(crate) fn stated_pid(segment: &Segment) -> u32 {
    head::load_u32(&segment.map, at::WRITER_PID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presence_lock_names_its_pid() {
        let base = crate::layout::PRESENCE_LOCK_BASE;
        let place = 4711u64 << 20 | 99;
        let start = base + place;
        let line = format!("7: OFDLCK ADVISORY  READ  -1 00:1b:42 {start} {start}");
        assert_eq!(presence(&line, "00:1b:42", base), Some(place));
        assert_eq!(presence(&line, "00:1b:43", base), None);
        assert_eq!(presence("7: POSIX ADVISORY READ 1 00:1b:42 0 EOF", "00:1b:42", base), None);
        assert_eq!(presence("", "00:1b:42", base), None);
    }
}
