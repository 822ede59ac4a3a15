//! How a generation is made: every page allocated, the header written with its magic last, no name yet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::getegid;

use crate::crash::{self, CrashPoint};
use crate::error::CreateError;
use crate::fork::Descriptor;
use crate::frame::{Generation, Reason, State};
use crate::head::{self, StateWord};
use crate::layout::{HEADER_BYTES, HUGE_ALIGN, Layout, SLOTS_MAX, at};
use crate::lock::{LockKind, try_lock};
use crate::options::{HugePages, ReaderGroup, WriterOptions};
use crate::process;
use crate::segment::{Access, Mapping, Segment, allocate, for_locks, free_bytes, unnamed_file};
use crate::status::Counter;
use crate::sync::Region;
use crate::wait::wake_all;

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
    crash::at(CrashPoint::CreateAllocated);
    let segment = format_segment(fd, map, layout).map_err(|e| CreateError::io("write the header of a new ring", e))?;
    crash::at(CrashPoint::CreateFormatted);
    Ok(segment)
}

/// Makes huge pages of the payload while it is still empty.
///
/// The kernel makes one of every 2 MiB that have at least one page, and clears the rest instead of copying it: 25 ms
/// for eight 1080p slots where collapsing the allocated file took 84 ms (6.2 MB each, Linux 6.18), and 150 ms where the
/// machine had not used that memory for long. A refusal costs speed only.
fn huge_pages(fd: BorrowedFd<'_>, map: &Mapping, layout: &Layout) {
    let extents = (layout.data_off..layout.file_bytes).step_by(HUGE_ALIGN as usize);
    // Small segments have no 2 MiB to offer; their data does not begin on such a boundary either.
    if !layout.data_off.is_multiple_of(HUGE_ALIGN) {
        return;
    }
    let seeded = extents
        .take_while(|extent| extent + HUGE_ALIGN <= layout.file_bytes)
        .all(|extent| rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::empty(), extent, 4096).is_ok());
    if seeded {
        collapse(map, layout.data_off, layout.file_bytes - layout.data_off);
    }
}

/// Most threads that make huge pages at once: a camera's first frame waits for them.
const COLLAPSERS: u64 = 4;

/// Makes huge pages of a range, each processor of its part.
fn collapse(map: &Mapping, from: u64, len: u64) {
    let processors = thread::available_parallelism().map_or(1, |processors| processors.get() as u64);
    let part = len.div_ceil(processors.min(COLLAPSERS)).next_multiple_of(HUGE_ALIGN);
    thread::scope(|scope| {
        let named = || thread::Builder::new().name("ring-pages".into());
        for begin in (part..len).step_by(part as usize) {
            let work = move || map.collapse(from + begin, part.min(len - begin));
            if named().spawn_scoped(scope, work).is_err() {
                work();
            }
        }
        map.collapse(from, part.min(len));
    });
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
    let stat = rustix::fs::fstat(&fd)?;
    let identity = (stat.st_dev, stat.st_ino);
    let fd = Descriptor::new(for_locks(fd.as_fd(), identity, Access::ReadWrite)?, identity);
    try_lock(fd.as_fd(), LockKind::Exclusive, layout.alive_lock_off, 1)?;
    Ok(Segment { map, layout, fd, identity })
}

/// Maps and pins pages as configured.
pub(crate) fn prepare(options: &WriterOptions, map: &Mapping) -> Result<(), CreateError> {
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
pub(crate) fn give_to_readers(
    options: &WriterOptions,
    fd: BorrowedFd<'_>,
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

pub(crate) fn no_room(options: &WriterOptions, needed: u64, error: Errno) -> CreateError {
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

/// Writes who owns the ring now, and that it is starting. The heartbeat is the first, so that nobody calls the owner hung by
/// the one that its predecessor left.
pub(crate) fn enter(map: &Mapping, epoch: u32) {
    beat(map);
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
    wake_all(map);
}

/// Notes that the writer lives, and when: the wall clock first, as only a change of the other counts. The moment, ns.
pub(crate) fn beat(map: &Mapping) -> i64 {
    head::store_u64(map, at::HEARTBEAT_REAL_NS, crate::clock::real_ns().cast_unsigned());
    let now = crate::clock::mono_ns();
    head::store_u64(map, at::HEARTBEAT_MONO_NS, now.cast_unsigned());
    now
}

/// Identity of a generation for a segment that is formatted in place.
pub(crate) fn new_generation() -> Generation {
    let mut id = [0; 16];
    process::fill_random(&mut id);
    Generation(id)
}

/// Copies state, counters and texts into a new generation; sequence, identity and names are its own.
pub(crate) fn carry_over(old: &Segment, new: &Segment) {
    for offset in (at::COUNTERS..u64::from(HEADER_BYTES)).step_by(8) {
        head::store_u64(&new.map, offset, head::load_u64(&old.map, offset));
    }
    for offset in [at::HEARTBEAT_MONO_NS, at::HEARTBEAT_REAL_NS, at::LAST_PUBLISH_MONO_NS] {
        head::store_u64(&new.map, offset, head::load_u64(&old.map, offset));
    }
    for offset in [at::WRITER_EPOCH, at::GEOMETRY_EPOCH, at::SESSION_ID, at::WAKE_MODE, at::FRAME_INTERVAL_US] {
        head::store_u32(&new.map, offset, head::load_u32(&old.map, offset));
    }
    let state = head::load_state(&old.map);
    let since = head::load_u64(&old.map, at::STATE_SINCE_MONO_NS);
    head::store_state(&new.map, state, since, head::load_u64(&old.map, at::NEXT_RETRY_MONO_NS));
}
