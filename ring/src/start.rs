//! How a daemon gets its ring: adopt the one that is there, or make a new one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::Stat;
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::anchor::{self, WriterLock};
use crate::clock::pause;
use crate::crash::{self, CrashPoint};
use crate::create::{carry_over, create, enter, give_to_readers, no_room, prepare};
use crate::error::CreateError;
use crate::head::{self, Head, Retired};
use crate::layout::{ABI_MINOR, CONFIG_BYTES, Layout, LeasePolicy, at, newest_of_unknown};
use crate::live::Live;
use crate::lock::{LockKind, conflicting, try_lock};
use crate::name::{RingPaths, SegmentName};
use crate::names::{Names, retire};
use crate::options::{Capacity, WriterOptions};
use crate::segment::{Access, MapError, Segment, allocate, identity_of, open_file};
use crate::slot;
use crate::status::{Counter, Shared, StatusHandle};
use crate::writer::Writer;

/// Numbers from here on are damage: at 240 frames a second they are 18,000 years away.
const SEQ_LIMIT: u64 = 1 << 47;
/// Pause between two looks for a writer that is just ending.
const ALIVE_PAUSE: Duration = Duration::from_millis(20);

/// What the start of a writer has found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Started {
    /// Whether an existing ring was taken over.
    pub adopted: bool,
    /// Why an existing ring was not taken over, if there was one.
    pub not_adopted: Option<String>,
    /// Half-written slots that were found and emptied.
    pub torn_repaired: u64,
    /// Things an operator may want to know once.
    pub notes: Vec<String>,
}

/// What is left of an earlier generation under the anchor.
enum Found {
    Nothing,
    Adoptable(Segment),
    /// Cannot be taken over; numbering continues from it where it could be read.
    Unfit {
        why: String,
        old: Option<Segment>,
        identity: (u64, u64),
        base_seq: u64,
        source_seq: u64,
    },
}

impl Writer {
    /// Takes the ring: adopts what an earlier daemon left, or makes a new one.
    ///
    /// Waits at most `options.lock_wait` for another writer to end. Readers that are attached keep their handle.
    ///
    /// # Errors
    ///
    /// [`CreateError`]; nothing half-made is left behind.
    pub fn start(options: WriterOptions) -> Result<(Self, Started), CreateError> {
        crash::arm()?;
        let anchors = anchor::folder(&options.shm)?;
        let paths = RingPaths::new(&options.shm, anchors, &options.ring, &options.segment);
        let deadline = Instant::now().checked_add(options.lock_wait);
        let lock = WriterLock::take(&paths, options.ring.as_str(), options.lock_wait)?;
        crash::at(CrashPoint::LockTaken);
        paths.sweep();
        let mut started = Started::default();
        let taken = take(&options, &paths, find_unwritten(&options, &paths, deadline)?, &mut started)?;
        let names = Names {
            live: Arc::new(Live::new(taken.segment)),
            ring: options.ring.as_str().to_owned(),
            camera: options.ring.camera().to_owned(),
            paths: Some(paths),
            _lock: Some(lock),
        };
        if started.adopted {
            names.settle()?;
        } else if let Err(error) = names.install(taken.formerly) {
            names.uninstall();
            return Err(error);
        }
        if let Some(old) = &taken.old {
            retire(old, names.live.segment.layout.ring_uuid, Retired::Superseded);
            unlink_former_public(&options, old);
        }
        let restarted = started.adopted || taken.old.is_some();
        Ok((Self::new(options, Arc::new(Shared::new(names)), restarted, taken.source_seq), started))
    }
}

/// Removes the public name of a generation that had another one than its successor; it would hold the memory for ever.
fn unlink_former_public(options: &WriterOptions, old: &Segment) {
    let Ok(name) = SegmentName::new(old.layout.segment_name.clone()) else { return };
    let former = options.shm.public(&name);
    if name != options.segment && identity_of(&former) == Ok(Some(old.identity)) {
        // It is retired: a refusal costs memory until the operator removes it, and no reader is misled.
        let _ = rustix::fs::unlink(&former);
    }
}

/// The generation to write, and what it replaces.
struct Taken {
    segment: Segment,
    formerly: Option<(u64, u64)>,
    old: Option<Segment>,
    source_seq: u64,
}

fn take(options: &WriterOptions, paths: &RingPaths, found: Found, started: &mut Started) -> Result<Taken, CreateError> {
    let notes = &mut started.notes;
    match found {
        Found::Adoptable(segment) => {
            give_to_readers(options, segment.fd.as_fd(), notes)?;
            started.torn_repaired = adopt(options, &segment)?;
            started.adopted = true;
            let source_seq = newest_source_seq(&segment);
            Ok(Taken { segment, formerly: None, old: None, source_seq })
        }
        Found::Nothing => {
            let segment = create(options, options.first_slot_bytes(), 0, &paths.anchors, notes)?;
            Ok(Taken { segment, formerly: None, old: None, source_seq: 0 })
        }
        Found::Unfit { why, old, identity, base_seq, source_seq } => {
            started.not_adopted = Some(why);
            let segment = create(options, options.first_slot_bytes(), base_seq, &paths.anchors, notes)?;
            if let Some(old) = &old {
                let epoch = head::load_u32(&old.map, at::WRITER_EPOCH).wrapping_add(1);
                carry_over(old, &segment);
                head::add_u64(&segment.map, Counter::Generations.offset(), 1);
                enter(&segment.map, epoch);
            }
            Ok(Taken { segment, formerly: Some(identity), old, source_seq })
        }
    }
}

/// As [`find`], but waits until `deadline` for the descriptors of a writer that is just ending.
fn find_unwritten(options: &WriterOptions, paths: &RingPaths, deadline: Option<Instant>) -> Result<Found, CreateError> {
    loop {
        match find(options, paths) {
            Err(CreateError::Busy { .. }) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                pause(ALIVE_PAUSE);
            }
            result => return result,
        }
    }
}

impl StatusHandle {
    /// Looks whether both names still lead to the ring and puts back what is missing; not in a forked child.
    ///
    /// # Errors
    ///
    /// [`CreateError::NameTaken`] when something else has taken the public name.
    pub fn settle_names(&self) -> Result<crate::names::Settled, CreateError> {
        if !self.shared.origin.is_here() {
            return Ok(crate::names::Settled::default());
        }
        let names = self.shared.names();
        let settled = names.settle()?;
        // Under the guard: the publisher clears it when it has made another generation.
        self.shared.lost.store(settled.lost, crate::sync::Ordering::Relaxed);
        drop(names);
        if settled.relinked > 0 {
            self.add(Counter::Relinked, u64::from(settled.relinked));
        }
        Ok(settled)
    }
}

/// Looks at the anchor and judges what is there.
fn find(options: &WriterOptions, paths: &RingPaths) -> Result<Found, CreateError> {
    match open_file(&paths.anchor, Access::ReadWrite) {
        Ok((fd, stat)) => judge(options, &paths.anchor, fd, &stat),
        Err(Errno::NOENT) => Ok(find_public(options, paths)),
        Err(error) => judge_unopened(options, &paths.anchor, error),
    }
}

/// Without an anchor a ring is not adopted, but the numbers go on where its public name still leads to it.
fn find_public(options: &WriterOptions, paths: &RingPaths) -> Found {
    let Ok((fd, stat)) = open_file(&paths.public, Access::ReadWrite) else { return Found::Nothing };
    match judge(options, &paths.public, fd, &stat) {
        Ok(Found::Adoptable(old)) => unfit_by("its anchor is missing".into(), old),
        // Whose it is and whether it may be replaced is judged when the name is taken.
        _ => Found::Nothing,
    }
}

fn unfit_by(why: String, old: Segment) -> Found {
    let (base_seq, source_seq) = (newest_seq(&old), newest_source_seq(&old));
    Found::Unfit { why, identity: old.identity, base_seq, source_seq, old: Some(old) }
}

fn judge(options: &WriterOptions, path: &Path, fd: OwnedFd, stat: &Stat) -> Result<Found, CreateError> {
    if stat.st_uid != geteuid().as_raw() {
        return Err(foreign(options, path, stat.st_uid));
    }
    let identity = (stat.st_dev, stat.st_ino);
    let unknown_seq = newest_seq_of_unknown(fd.as_fd());
    let segment = match Segment::map(fd, stat.st_size.cast_unsigned(), identity, Access::ReadWrite) {
        Ok(segment) => segment,
        Err(MapError::Layout(error)) => {
            let why = format!("the ring that was there {error}");
            return Ok(Found::Unfit { why, old: None, identity, base_seq: unknown_seq, source_seq: 0 });
        }
        Err(MapError::Io(error)) => return Err(CreateError::io(format!("map {}", path.display()), error)),
    };
    let alive = conflicting(segment.fd.as_fd(), LockKind::Shared, segment.layout.alive_lock_off, 1)
        .map_err(|e| CreateError::io(format!("look for a writer of {}", path.display()), e))?;
    if alive == Some(LockKind::Exclusive) {
        let pid = head::load_u32(&segment.map, at::WRITER_PID);
        return Err(CreateError::Busy { ring: options.ring.as_str().to_owned(), pid });
    }
    Ok(match unfit(options, &segment) {
        None => Found::Adoptable(segment),
        Some(why) => unfit_by(why, segment),
    })
}

fn judge_unopened(options: &WriterOptions, path: &Path, error: Errno) -> Result<Found, CreateError> {
    let uid = rustix::fs::lstat(path).map_or(0, |stat: Stat| stat.st_uid);
    match error {
        Errno::ACCESS | Errno::PERM => Err(foreign(options, path, uid)),
        Errno::LOOP | Errno::INVAL | Errno::ISDIR | Errno::NXIO => Err(CreateError::NameTaken {
            ring: options.ring.as_str().to_owned(),
            path: path.to_owned(),
            found: "something that is no regular file".into(),
        }),
        error => Err(CreateError::io(format!("open {}", path.display()), error)),
    }
}

fn foreign(options: &WriterOptions, path: &Path, uid: u32) -> CreateError {
    CreateError::ForeignOwner { ring: options.ring.as_str().to_owned(), path: path.to_owned(), uid }
}

/// Why a generation cannot be taken over; `None` when it can.
fn unfit(options: &WriterOptions, segment: &Segment) -> Option<String> {
    let layout = &segment.layout;
    let differs = |what: &str, old: &dyn std::fmt::Display, new: &dyn std::fmt::Display| {
        Some(format!("{what} was {old} and is now {new}"))
    };
    if head::load_retired(&segment.map) != Retired::No {
        return Some("it is retired".into());
    }
    if layout.abi_minor != ABI_MINOR {
        return differs("the layout's minor version", &layout.abi_minor, &ABI_MINOR);
    }
    if layout.camera_id != options.ring.camera() {
        return differs("the camera", &layout.camera_id, &options.ring.camera());
    }
    if layout.segment_name != options.segment.as_str() {
        return differs("the segment's name", &layout.segment_name, &options.segment);
    }
    if layout.slot_count != options.slots {
        return differs("the number of slots", &layout.slot_count, &options.slots);
    }
    if layout.lease_policy != options.lease_policy as u32 {
        let number = layout.lease_policy.to_string();
        let old = LeasePolicy::from_code(layout.lease_policy).map_or(number.as_str(), |policy| policy.word());
        return differs("the lease policy", &old, &options.lease_policy.word());
    }
    if layout.stale_after_ms != options.stale_after_ms() {
        return differs("stale_after in ms", &layout.stale_after_ms, &options.stale_after_ms());
    }
    if let Capacity::Bytes(bytes) = options.capacity {
        let planned = Layout::plan(options.slots, bytes).map_or(bytes, |layout| layout.slot_capacity);
        if layout.slot_capacity != planned {
            return differs("the size of a slot in bytes", &layout.slot_capacity, &planned);
        }
    }
    contradiction(segment)
}

/// What in the slots contradicts the head, if anything: then the ring was damaged by somebody.
fn contradiction(segment: &Segment) -> Option<String> {
    let (map, layout) = (&segment.map, &segment.layout);
    let head = head::load_head(map).unwrap_or(Head { seq: layout.base_seq, slot: 0 });
    if head.seq >= SEQ_LIMIT || head.slot >= layout.slot_count {
        return Some("its head points nowhere".into());
    }
    if head::load_head(map).is_some() && slot::load_stamp(map, layout, head.slot) != head.seq << 1 {
        return Some("its newest slot does not hold its newest frame".into());
    }
    let newer = (0..layout.slot_count).filter(|slot| {
        let stamp = slot::load_stamp(map, layout, *slot);
        stamp & 1 == 0 && stamp >> 1 > head.seq
    });
    let stamps: Vec<u64> = (0..layout.slot_count).map(|slot| slot::load_stamp(map, layout, slot)).collect();
    let published = |stamp: &u64| *stamp != 0 && stamp & 1 == 0;
    if stamps.iter().enumerate().any(|(slot, stamp)| published(stamp) && stamps[..slot].contains(stamp)) {
        return Some("two of its slots hold the same frame".into());
    }
    let too_new = newer.clone().any(|slot| slot::load_stamp(map, layout, slot) >> 1 != head.seq + 1);
    (too_new || newer.count() > 1).then(|| "a slot is newer than its newest frame".into())
}

/// Takes an existing generation over: repairs what the crash left, counts the epoch, tells readers.
fn adopt(options: &WriterOptions, segment: &Segment) -> Result<u64, CreateError> {
    let (map, layout) = (&segment.map, &segment.layout);
    let act = |what: &str, e: Errno| CreateError::io(format!("{what} ring \"{}\"", options.ring), e);
    allocate(segment.fd.as_fd(), layout.file_bytes).map_err(|e| no_room(options, layout.file_bytes, e))?;
    prepare(options, map)?;
    // A reader may squat on the alive byte; housekeeping tries again and the heartbeat decides meanwhile.
    try_lock(segment.fd.as_fd(), LockKind::Exclusive, layout.alive_lock_off, 1).map_err(|e| act("lock", e))?;
    crash::at(CrashPoint::AdoptLocked);
    let mut torn = 0;
    let mut newest = head::load_head(map);
    for index in 0..layout.slot_count {
        let stamp = slot::load_stamp(map, layout, index);
        if stamp & 1 == 1 {
            slot::abort(map, layout, index);
            crash::at(CrashPoint::AdoptEmptied);
            torn += 1;
        } else if stamp >> 1 > newest.map_or(layout.base_seq, |head| head.seq) {
            // The crash fell between the stamp and the head: that frame is complete.
            newest = Some(Head { seq: stamp >> 1, slot: index });
        }
    }
    if let Some(head) = newest {
        head::store_head(map, head);
    }
    crash::at(CrashPoint::AdoptHead);
    head::add_u64(map, Counter::TornRepaired.offset(), torn);
    crash::at(CrashPoint::AdoptCounted);
    let epoch = head::load_u32(map, at::WRITER_EPOCH).wrapping_add(1);
    enter(map, epoch);
    crash::at(CrashPoint::AdoptEntered);
    Ok(torn)
}

/// What can be known of the numbers in a file whose layout is not accepted; 0 when nothing can.
fn newest_seq_of_unknown(fd: BorrowedFd<'_>) -> u64 {
    let mut config = [0; CONFIG_BYTES];
    let mut head = [0; 8];
    let read =
        |bytes: &mut [u8], offset: u64| matches!(rustix::io::pread(fd, &mut *bytes, offset), Ok(n) if n == bytes.len());
    if !read(&mut config, 0) || !read(&mut head, at::HEAD) {
        return 0;
    }
    newest_of_unknown(&config, u64::from_le_bytes(head)).filter(|seq| *seq < SEQ_LIMIT).unwrap_or(0)
}

fn newest_seq(segment: &Segment) -> u64 {
    let (map, layout) = (&segment.map, &segment.layout);
    let stamps = (0..layout.slot_count).map(|index| slot::load_stamp(map, layout, index));
    let published = stamps.filter(|stamp| stamp & 1 == 0).map(|stamp| stamp >> 1);
    let head = head::load_head(map).map(|head| head.seq);
    published.chain(head).chain([layout.base_seq]).filter(|seq| *seq < SEQ_LIMIT).max().unwrap_or(0)
}

/// `source_seq` of the newest frame held; 0 when there is none.
fn newest_source_seq(segment: &Segment) -> u64 {
    let (map, layout) = (&segment.map, &segment.layout);
    let published = (0..layout.slot_count).filter(|index| {
        let stamp = slot::load_stamp(map, layout, *index);
        stamp & 1 == 0 && stamp != 0
    });
    let numbers = published.map(|index| crate::meta::decode(&slot::load_words(map, layout, index)).source_seq);
    numbers.filter(|number| *number < SEQ_LIMIT).max().unwrap_or(0)
}
