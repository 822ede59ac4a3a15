//! How a daemon gets its ring: adopt the one that is there, or make a new one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::anchor::{self, WriterLock};
use crate::error::CreateError;
use crate::frame::{Generation, Reason, State};
use crate::head::{self, Head, Retired, StateWord};
use crate::layout::{ABI_MINOR, HUGE_ALIGN, Layout, LeasePolicy, PAGE_ALIGN, SLOTS_MAX, at};
use crate::lease::{LockKind, conflicting, try_lock};
use crate::name::{RingName, RingPaths, SegmentName, ShmDir};
use crate::names::{Names, retire};
use crate::process;
use crate::segment::{Access, MapError, Mapping, Segment, allocate, free_bytes, open_file, unnamed_file};
use crate::slot;
use crate::status::{Counter, Shared, StatusHandle};
use crate::sync::Region;
use crate::writer::{Live, Writer, carry_over};

/// Numbers from here on are damage: at 240 frames a second they are 18,000 years away.
const SEQ_LIMIT: u64 = 1 << 47;
/// Pause between two looks for a writer that is just ending.
const ALIVE_PAUSE: Duration = Duration::from_millis(20);

/// How large the slots are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capacity {
    /// As large as the source turns out to need; a waiting room without frames until then.
    FromSource,
    /// Exactly this many bytes per frame, made at start; larger frames are refused.
    Bytes(u64),
}

/// Which group may read the ring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReaderGroup {
    /// `camring` if it exists and we may give files to it, else our own group.
    Auto,
    /// This one, or the start fails.
    Named(String),
}

/// Whether to ask the kernel for huge pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HugePages {
    /// Never.
    Never,
    /// When a new generation is made; a refusal is no error.
    Try,
}

/// What a daemon wants of its ring.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Camera, or camera and output.
    pub ring: RingName,
    /// The public name.
    pub segment: SegmentName,
    /// The memory mount.
    pub shm: ShmDir,
    /// Frames kept, 3 to 256.
    pub slots: u32,
    /// What happens when every reusable slot is leased.
    pub lease_policy: LeasePolicy,
    /// How large the slots are.
    pub capacity: Capacity,
    /// File mode; 0640 lets the group read.
    pub mode: u32,
    /// Which group.
    pub group: ReaderGroup,
    /// Map every page at start, so that no frame pays for it.
    pub prefault: bool,
    /// Huge pages.
    pub huge_pages: HugePages,
    /// Pin the ring in memory.
    pub lock_in_memory: bool,
    /// Readers' default for "stale"; zero = never.
    pub stale_after: Duration,
    /// How long to wait for another writer of the same ring to end.
    pub lock_wait: Duration,
}

impl WriterOptions {
    /// The defaults of the configuration file for a ring of this name.
    #[must_use]
    pub fn new(ring: RingName) -> Self {
        Self {
            segment: ring.default_segment(),
            ring,
            shm: ShmDir::default(),
            slots: 8,
            lease_policy: LeasePolicy::Fresh,
            capacity: Capacity::FromSource,
            mode: 0o640,
            group: ReaderGroup::Auto,
            prefault: true,
            huge_pages: HugePages::Try,
            lock_in_memory: false,
            stale_after: Duration::from_secs(1),
            lock_wait: Duration::from_secs(5),
        }
    }

    fn stale_after_ms(&self) -> u32 {
        u32::try_from(self.stale_after.as_millis()).unwrap_or(u32::MAX)
    }

    /// Bytes of a slot to begin with.
    fn first_slot_bytes(&self) -> u64 {
        match self.capacity {
            Capacity::FromSource => PAGE_ALIGN,
            Capacity::Bytes(bytes) => bytes,
        }
    }

    fn plan(&self, slot_bytes: u64) -> Result<Layout, CreateError> {
        let refuse = CreateError::Size { slots: self.slots, slot_bytes };
        let mut layout = Layout::plan(self.slots, slot_bytes).ok_or(refuse)?;
        layout.lease_policy = self.lease_policy as u32;
        layout.stale_after_ms = self.stale_after_ms();
        layout.camera_id = self.ring.camera().to_owned();
        layout.segment_name = self.segment.as_str().to_owned();
        layout.builder = env!("CARGO_PKG_VERSION").to_owned();
        layout.owner_uid = geteuid().as_raw();
        layout.owner_gid = getegid().as_raw();
        layout.boot_id = process::boot_id();
        layout.created_real_ns = crate::clock::real_ns();
        process::fill_random(&mut layout.ring_uuid.0);
        Ok(layout)
    }
}

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
        let anchors = anchor::folder(&options.shm)?;
        let paths = RingPaths::new(&options.shm, anchors, &options.ring, &options.segment);
        let deadline = Instant::now().checked_add(options.lock_wait);
        let lock = WriterLock::take(&paths, options.ring.as_str(), options.lock_wait)?;
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
        }
        let restarted = started.adopted || taken.old.is_some();
        Ok((Self::new(options, Arc::new(Shared::new(names)), restarted, taken.source_seq), started))
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
                std::thread::sleep(ALIVE_PAUSE);
            }
            result => return result,
        }
    }
}

impl StatusHandle {
    /// Looks whether both names still lead to the ring and puts back what is missing.
    ///
    /// # Errors
    ///
    /// [`CreateError::NameTaken`] when something else has taken the public name.
    pub fn settle_names(&self) -> Result<crate::names::Settled, CreateError> {
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
    let segment = match Segment::map(fd, stat.st_size.cast_unsigned(), identity, Access::ReadWrite) {
        Ok(segment) => segment,
        Err(MapError::Layout(error)) => {
            let why = format!("the ring that was there {error}");
            return Ok(Found::Unfit { why, old: None, identity, base_seq: 0, source_seq: 0 });
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
        return differs("the lease policy", &layout.lease_policy, &(options.lease_policy as u32));
    }
    if layout.stale_after_ms != options.stale_after_ms() {
        return differs("stale_after in ms", &layout.stale_after_ms, &options.stale_after_ms());
    }
    if let Capacity::Bytes(bytes) = options.capacity {
        let planned = Layout::plan(options.slots, bytes).map_or(bytes, |layout| layout.slot_capacity);
        if layout.slot_capacity != planned {
            return differs("the bytes of a slot", &layout.slot_capacity, &planned);
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
    let mut torn = 0;
    let mut newest = head::load_head(map);
    for index in 0..layout.slot_count {
        let stamp = slot::load_stamp(map, layout, index);
        if stamp & 1 == 1 {
            slot::abort(map, layout, index);
            torn += 1;
        } else if stamp >> 1 > newest.map_or(layout.base_seq, |head| head.seq) {
            // The crash fell between the stamp and the head: that frame is complete.
            newest = Some(Head { seq: stamp >> 1, slot: index });
        }
    }
    if let Some(head) = newest {
        head::store_head(map, head);
    }
    head::add_u64(map, Counter::TornRepaired.offset(), torn);
    let epoch = head::load_u32(map, at::WRITER_EPOCH).wrapping_add(1);
    enter(map, epoch);
    Ok(torn)
}

/// Writes who owns the ring now, and that it is starting.
fn enter(map: &Mapping, epoch: u32) {
    head::store_u64(map, at::WRITER_START_TICKS, process::start_ticks());
    head::store_u64(map, at::TIME_NS_INO, process::time_namespace());
    head::store_u64(map, at::PROCESS_START_REAL_NS, crate::clock::real_ns().cast_unsigned());
    head::store_u32(map, at::WRITER_PID, std::process::id());
    head::store_u32(map, at::WRITER_EPOCH, epoch);
    head::store_u32(map, at::WAKE_MODE, 0);
    head::store_u32(map, at::LEASE_NOW, 0);
    let state = StateWord { state: State::Starting, reason: Reason::None, attempt: 0 };
    head::store_state(map, state, crate::clock::mono_ns().cast_unsigned(), 0);
    head::bump_notify(map);
    crate::status::wake_all(map);
}

/// Makes a generation without a name: every page allocated, header written.
pub(crate) fn create(
    options: &WriterOptions,
    slot_bytes: u64,
    base_seq: u64,
    anchors: &Path,
    notes: &mut Vec<String>,
) -> Result<Segment, CreateError> {
    let mut layout = options.plan(slot_bytes)?;
    layout.base_seq = base_seq;
    let act = |what: &str, e: Errno| CreateError::io(format!("{what} a new ring in {}", anchors.display()), e);
    let fd = unnamed_file(anchors, Mode::from_raw_mode(0o600)).map_err(|e| act("create", e))?;
    layout.owner_gid = give_to_readers(options, fd.as_fd(), notes)?;
    rustix::fs::ftruncate(&fd, layout.file_bytes).map_err(|e| act("size", e))?;
    let map = Mapping::new(fd.as_fd(), layout.file_bytes, Access::ReadWrite)
        .map_err(|e| CreateError::io("map a new ring", e))?;
    if options.huge_pages == HugePages::Try {
        huge_pages(fd.as_fd(), &map, &layout);
    }
    // Before the first byte is written: a page that cannot be had is an error here and a SIGBUS later.
    if let Err(error) = allocate(fd.as_fd(), layout.file_bytes) {
        // The pages it has got already are free again before anybody counts.
        drop((map, fd));
        return Err(no_room(options, layout.file_bytes, error));
    }
    prepare(options, &map)?;
    format_segment(fd, map, layout).map_err(|e| CreateError::io("write the header of a new ring", e))
}

/// Makes huge pages of the payload while it is still empty.
///
/// The kernel makes one of every 2 MiB that have at least one page, and clears the rest instead of copying it: 25 ms
/// for eight 1080p slots where collapsing the allocated file took 84 ms (6.2 MB each, Linux 6.18). A refusal costs
/// speed only.
fn huge_pages(fd: std::os::fd::BorrowedFd<'_>, map: &Mapping, layout: &Layout) {
    let extents = (layout.data_off..layout.file_bytes).step_by(HUGE_ALIGN as usize);
    // Small segments have no 2 MiB to offer; their data does not begin on such a boundary either.
    if !layout.data_off.is_multiple_of(HUGE_ALIGN) {
        return;
    }
    let seeded = extents
        .take_while(|extent| extent + HUGE_ALIGN <= layout.file_bytes)
        .all(|extent| rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::empty(), extent, 4096).is_ok());
    if seeded {
        map.collapse(layout.data_off);
    }
}

/// Takes a mapped, sized and allocated file, writes the header with its magic last, and takes the alive byte.
pub(crate) fn format_segment(fd: OwnedFd, map: Mapping, layout: Layout) -> io::Result<Segment> {
    map.exclude_from_dumps();
    for offset in (0..layout.data_off.min(layout.slot_header_off(SLOTS_MAX))).step_by(8) {
        map.u64_at(offset).store(0, crate::sync::Ordering::Relaxed);
    }
    head::store_u64(&map, Counter::Generations.offset(), 1);
    enter(&map, 1);
    map.write_config(&layout.encode());
    try_lock(fd.as_fd(), LockKind::Exclusive, layout.alive_lock_off, 1)?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok(Segment { map, layout, fd, identity: (stat.st_dev, stat.st_ino) })
}

/// Maps and pins pages as configured.
fn prepare(options: &WriterOptions, map: &Mapping) -> Result<(), CreateError> {
    if options.prefault {
        map.populate_write();
    }
    if options.lock_in_memory {
        map.lock_in_memory().map_err(|e| {
            CreateError::io("pin the ring in memory (ring.lock); raise LimitMEMLOCK of the service or", e)
        })?;
    }
    Ok(())
}

/// Sets group and mode; returns the group.
fn give_to_readers(
    options: &WriterOptions,
    fd: std::os::fd::BorrowedFd<'_>,
    notes: &mut Vec<String>,
) -> Result<u32, CreateError> {
    let own = getegid().as_raw();
    let give = |gid: u32| rustix::fs::fchown(fd, None::<Uid>, Some(Gid::from_raw(gid)));
    let gid = match &options.group {
        ReaderGroup::Named(group) => {
            let refuse = |problem: String| CreateError::Group { group: group.clone(), problem };
            let gid = process::gid_of(group)
                .or_else(|| group.parse().ok())
                .ok_or_else(|| refuse("there is no such group on this host".into()))?;
            give(gid).map_err(|e| refuse(format!("this process may not ({e})")))?;
            gid
        }
        ReaderGroup::Auto => match process::gid_of("camring") {
            Some(gid) if give(gid).is_ok() => gid,
            Some(_) => {
                notes.push("this user is not in the group camring; the ring is readable by its own group only".into());
                own
            }
            None => own,
        },
    };
    rustix::fs::fchmod(fd, Mode::from_raw_mode(options.mode))
        .map_err(|e| CreateError::io(format!("set the ring's mode to {:04o}", options.mode), e))?;
    Ok(gid)
}

fn no_room(options: &WriterOptions, needed: u64, error: Errno) -> CreateError {
    match error {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => CreateError::NoRoom {
            ring: options.ring.as_str().to_owned(),
            needed,
            free: free_bytes(options.shm.root()).unwrap_or(0),
            mount: options.shm.root().to_owned(),
        },
        error => CreateError::io("allocate the ring's memory", error),
    }
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

/// Identity of a generation for a segment that is formatted in place.
pub(crate) fn new_generation() -> Generation {
    let mut id = [0; 16];
    process::fill_random(&mut id);
    Generation(id)
}
