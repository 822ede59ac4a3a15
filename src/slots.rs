//! What lies in a ring's slots and who holds them, as an onlooker can see it: slot stamps in the file, locks in `/proc`.
//!
//! Whose lock it is, only the kernel's notes on other processes tell (`/proc/PID/fdinfo`): those of other users are
//! hidden from everybody but root, and their holders are then not named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use camring_ring::layout::{Layout, PRESENCE_LOCK_SPAN, SLOT_HEADER_BYTES, at, slot_at};
use camring_ring::{SegmentName, ShmDir};
use rustix::fs::{major, minor};

/// What a slot holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlotState {
    /// Nothing yet.
    Empty,
    /// The writer is at it.
    Writing,
    /// This frame.
    Published(u64),
}

/// One slot at one moment.
#[derive(Clone, Copy, Debug)]
pub struct SlotLine {
    /// What it holds.
    pub state: SlotState,
    /// When the last packet of its picture came, ns of CLOCK_MONOTONIC.
    pub arrival_mono_ns: i64,
}

/// A process that holds something of a ring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// Its pid, here.
    pub pid: u32,
    /// Its program, as the kernel knows it.
    pub program: String,
    /// How often it announces itself as a reader.
    pub presences: u32,
    /// The slots it leases, in order.
    pub leases: Vec<u32>,
}

/// The file behind a name, if it is still the generation of `layout`.
#[must_use]
pub fn open_same(name: &str, shm: &ShmDir, layout: &Layout) -> Option<(PathBuf, File)> {
    let name = SegmentName::new(name).ok()?;
    shm.candidates(&name).into_iter().find_map(|path| {
        let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
        let file = File::open(&path).ok()?;
        let mut uuid = [0; 16];
        file.read_exact_at(&mut uuid, at::RING_UUID).ok()?;
        (uuid == layout.ring_uuid.0 && metadata.len() == layout.file_bytes).then_some((path, file))
    })
}

/// Reads every slot's stamp and time; each is whole, together they are a blur when the writer is fast.
#[must_use]
pub fn read(file: &File, layout: &Layout) -> Option<Vec<SlotLine>> {
    let mut bytes = [0; SLOT_HEADER_BYTES as usize];
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let mut slots = Vec::new();
    for index in 0..layout.slot_count {
        file.read_exact_at(&mut bytes, layout.slot_header_off(index)).ok()?;
        let state = match word(&bytes, slot_at::STAMP) {
            0 => SlotState::Empty,
            stamp if stamp & 1 == 1 => SlotState::Writing,
            stamp => SlotState::Published(stamp >> 1),
        };
        slots.push(SlotLine { state, arrival_mono_ns: word(&bytes, slot_at::ARRIVAL_MONO_NS).cast_signed() });
    }
    Some(slots)
}

/// Slots that readers hold, as the kernel's lock table shows them; `None` where it is hidden.
#[must_use]
pub fn leased(file: &File, layout: &Layout) -> Option<BTreeSet<u32>> {
    let table = fs::read_to_string("/proc/locks").ok()?;
    let place = in_lock_table(file)?;
    Some(table.lines().flat_map(|line| Lock::read(line, &place)).flat_map(|lock| lock.slots(layout)).collect())
}

/// Everybody who holds a lock of the ring and may be looked at, by pid.
#[must_use]
pub fn holders(file: &File, layout: &Layout) -> Vec<Holder> {
    let Some(place) = in_lock_table(file) else { return Vec::new() };
    let names = [layout.segment_name.as_str(), layout.camera_id.as_str()];
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<Holder> = pids.filter_map(|pid| holder(pid, &names, &place, layout)).collect();
    found.sort_by_key(|holder| holder.pid);
    found
}

fn holder(pid: u32, names: &[&str], place: &str, layout: &Layout) -> Option<Holder> {
    let mut locks = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        // Most descriptors are none of the ring: the link tells without opening anything.
        let link = fs::read_link(entry.path()).unwrap_or_default();
        let link = link.to_string_lossy();
        if !names.iter().any(|name| !name.is_empty() && link.contains(name)) {
            continue;
        }
        let descriptor = entry.file_name();
        let note = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", descriptor.display())).unwrap_or_default();
        let lines = note.lines().filter_map(|line| line.strip_prefix("lock:"));
        locks.extend(lines.filter_map(|line| Lock::read(line, place)));
    }
    // A descriptor that was passed on or duplicated shows the same locks once more.
    locks.sort_by_key(|lock: &Lock| (lock.first, lock.last, lock.shared));
    locks.dedup();
    if locks.is_empty() {
        return None;
    }
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let program: String = program.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let leases: BTreeSet<u32> = locks.iter().flat_map(|lock| lock.slots(layout)).collect();
    Some(Holder {
        pid,
        program,
        presences: locks.iter().map(|lock| u32::from(lock.is_presence(layout))).sum(),
        leases: leases.into_iter().collect(),
    })
}

/// Who leases which slot.
#[must_use]
pub fn by_slot(holders: &[Holder]) -> BTreeMap<u32, Vec<&Holder>> {
    let mut by_slot: BTreeMap<u32, Vec<&Holder>> = BTreeMap::new();
    for holder in holders {
        holder.leases.iter().for_each(|slot| by_slot.entry(*slot).or_default().push(holder));
    }
    by_slot
}

/// One line of the kernel about a lock: `1: OFDLCK  ADVISORY  READ -1 00:19:5 1099511627776 1099511627776`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Lock {
    shared: bool,
    first: u64,
    last: u64,
}

impl Lock {
    fn read(line: &str, place: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "OFDLCK", _, kind, _, found, first, last, ..] = fields.as_slice() else { return None };
        let last = if *last == "EOF" { Some(u64::MAX) } else { last.parse().ok() };
        let (first, last) = (first.parse().ok()?, last?);
        (*found == place).then_some(Self { shared: *kind == "READ", first, last })
    }

    fn slots(self, layout: &Layout) -> impl Iterator<Item = u32> + use<> {
        let (base, count) = (layout.lease_lock_base, layout.slot_count);
        (0..count).filter(move |slot| self.shared && (self.first..=self.last).contains(&(base + u64::from(*slot))))
    }

    fn is_presence(self, layout: &Layout) -> bool {
        let place = self.first.checked_sub(layout.presence_lock_base);
        self.shared && place.is_some_and(|place| place < PRESENCE_LOCK_SPAN)
    }
}

/// How the kernel's lock table names a file.
fn in_lock_table(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    Some(format!("{:02x}:{:02x}:{}", major(metadata.dev()), minor(metadata.dev()), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use camring_ring::{
        AttachOptions, FrameMeta, Geometry, PixelFormat, Presence, Ring, RingName, Writer, WriterOptions,
    };

    #[test]
    fn slots_leases_and_readers_are_seen_with_their_holder() {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder on the memory mount");
        let shm = ShmDir::new(folder.path());
        let mut options = WriterOptions::new(RingName::new("front").expect("a name"));
        options.shm = shm.clone();
        let (mut writer, _) = Writer::start(options).expect("a new ring");
        let geometry = Geometry::packed(64, 48, PixelFormat::Bgr).expect("a size");
        for _ in 0..3 {
            let slot = writer.claim(geometry.len).expect("a slot");
            writer.publish(slot, FrameMeta::new(geometry)).expect("published");
        }
        let options = AttachOptions { shm: shm.clone(), presence: Presence::Counted, ..AttachOptions::default() };
        let ring = Ring::attach("front", options).expect("attached");
        let layout = ring.layout();
        let (_, file) = open_same("front", &shm, &layout).expect("the file");
        let slots = read(&file, &layout).expect("slots");
        let published: Vec<u64> = slots
            .iter()
            .filter_map(|slot| if let SlotState::Published(seq) = slot.state { Some(seq) } else { None })
            .collect();
        assert_eq!(published, [1, 2, 3]);
        assert_eq!(leased(&file, &layout), Some(BTreeSet::new()));
        let lease = ring.lease().expect("a lease");
        assert_eq!(leased(&file, &layout).expect("the lock table").len(), 1);
        let all = holders(&file, &layout);
        let ours = all.iter().find(|holder| holder.pid == std::process::id()).expect("this process");
        assert!(ours.presences == 1 && ours.leases.len() == 1, "{ours:?}");
        assert_eq!(by_slot(&all).values().map(Vec::len).sum::<usize>(), 1);
        drop(lease);
        assert!(holders(&file, &layout).iter().all(|holder| holder.leases.is_empty()));
    }
}
