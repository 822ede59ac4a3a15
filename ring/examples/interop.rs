//! A peer built on the `shared_memory` crate: reads a segment by its published layout, without the camring library.
//!
//! ```text
//! interop NAME
//! ```
//!
//! Opens `/dev/shm/NAME`, which is the segment of `camring bridge`, or a ring that this user may write to
//! (`shared_memory` maps everything read-write). Answers each line of standard input with one line,
//! `SEQ WIDTH HEIGHT CRC32`, or `none` while there is no frame; ends when standard input closes. The CRC-32 is the
//! one of zlib, as decimal text, over the whole payload.
//!
//! It shows what such a program needs of `docs/segment.md`: the configuration (3.1), the newest frame by copy (6.2),
//! following a segment that got a successor (8.1). It opens read-write and stores nothing, and removes nothing at its
//! end. Every offset is checked against the mapping, so a damaged segment is an error here, never a stray access. One
//! harm no check averts: a peer that truncates the file kills every process that touches the missing pages (`SIGBUS`).
//! This is why workers read the ring itself, read-only, wherever they can.

use std::error::Error;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use shared_memory::{Shmem, ShmemConf};

/// Offsets of the hot line, section 3.2.
const HEAD: usize = 0x200;
const RETIRED: usize = 0x224;
/// Words of a slot header, section 3.8: the stamp, width and height, the length of the payload.
const SIZE: usize = 0x10;
const PAYLOAD_LEN: usize = 0x20;
/// How often a reader begins again before it says that the writer laps it, section 6.2.
const ATTEMPTS: u32 = 8;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The bytes that everybody with the segment open may write at any time: only ever loaded as atomics.
struct Mapping(Shmem);

impl Mapping {
    fn open(name: &str) -> Outcome<Self> {
        let open = ShmemConf::new().os_id(name).open();
        open.map(Self).map_err(|error| {
            format!("/dev/shm/{name}: {error}; start `camring bridge RING --segment {name}`, or check the name").into()
        })
    }

    /// Where `T` lies at `offset`, inside the mapping and aligned.
    fn place<T>(&self, offset: usize) -> Outcome<*mut T> {
        let inside = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.0.len());
        let place = self.0.as_ptr().wrapping_add(offset).cast::<T>();
        if inside && place.is_aligned() {
            return Ok(place);
        }
        Err(format!("offset {offset:#x} is outside the {} bytes or not aligned: damaged segment", self.0.len()).into())
    }

    fn word(&self, offset: usize) -> Outcome<u64> {
        let place = self.place::<u64>(offset)?;
        // SAFETY: `place` is aligned and inside the mapping, which is readable and writable and lives as long as
        // `self`; this process makes no other reference into it, and others reach these 8 bytes as a u64 only.
        let word = unsafe { AtomicU64::from_ptr(place) };
        Ok(word.load(Ordering::Relaxed))
    }

    fn half(&self, offset: usize) -> Outcome<u32> {
        let place = self.place::<u32>(offset)?;
        // SAFETY: as in `word`, for the 4 bytes of a field that the layout declares as u32.
        let half = unsafe { AtomicU32::from_ptr(place) };
        Ok(half.load(Ordering::Relaxed))
    }
}

/// What the configuration says about places, section 3.1; copied once, because it never changes.
struct Layout {
    slot_header_bytes: usize,
    slot_count: usize,
    slot_table: usize,
    data: usize,
    stride: usize,
    capacity: usize,
}

impl Layout {
    fn copy(bytes: &Mapping) -> Outcome<Self> {
        let magic = bytes.word(0)?.to_le_bytes();
        if magic != *b"CAMRING1" {
            return Err(format!("begins with {magic:02x?}, expected CAMRING1: no segment, or just being made").into());
        }
        let (endian, major, incompat) = (bytes.half(0x008)?, bytes.half(0x00C)? & 0xFFFF, bytes.word(0x010)?);
        if (endian, major, incompat) != (0x0A0B_0C0D, 1, 0) {
            return Err(format!("layout version {major}, needs {incompat:#x}: this program knows version 1").into());
        }
        let layout = Self {
            slot_header_bytes: bytes.half(0x024)? as usize,
            slot_count: bytes.half(0x028)? as usize,
            slot_table: usize::try_from(bytes.word(0x030)?)?,
            data: usize::try_from(bytes.word(0x038)?)?,
            stride: usize::try_from(bytes.word(0x040)?)?,
            capacity: usize::try_from(bytes.word(0x048)?)?,
        };
        let end = offset(layout.data, layout.slot_count, layout.stride)?;
        if end > bytes.0.len() || layout.capacity > layout.stride {
            return Err(format!("its slots end at {end} of {} bytes: damaged segment", bytes.0.len()).into());
        }
        Ok(layout)
    }
}

/// `base + slot * step`.
fn offset(base: usize, slot: usize, step: usize) -> Outcome<usize> {
    let sum = slot.checked_mul(step).and_then(|bytes| bytes.checked_add(base));
    sum.ok_or_else(|| format!("slot {slot} lies nowhere: damaged segment").into())
}

struct Frame {
    seq: u64,
    width: u32,
    height: u32,
    payload: Vec<u8>,
}

struct Peer {
    name: String,
    bytes: Mapping,
    layout: Layout,
}

impl Peer {
    fn open(name: &str) -> Outcome<Self> {
        let bytes = Mapping::open(name)?;
        let layout = Layout::copy(&bytes)?;
        Ok(Self { name: name.to_owned(), bytes, layout })
    }

    /// Goes to the successor of a segment that has one. Without one, what is mapped stays readable, and the next
    /// question looks again: a retired segment is never written, so its last frame stays what it is.
    fn follow(&mut self) -> Outcome<()> {
        if self.bytes.half(RETIRED)? != 0
            && let Ok(successor) = Self::open(&self.name)
        {
            *self = successor;
        }
        Ok(())
    }

    /// A copy of the newest frame; `None` before the first.
    fn newest(&self) -> Outcome<Option<Frame>> {
        for _ in 0..ATTEMPTS {
            let head = self.bytes.word(HEAD)?;
            fence(Ordering::Acquire);
            if head == 0 {
                return Ok(None);
            }
            if let Some(frame) = self.copy(head >> 16, (head & 0xFFFF) as usize)? {
                return Ok(Some(frame));
            }
        }
        Err(format!("/dev/shm/{}: the writer laps this reader; give the segment more slots", self.name).into())
    }

    /// A copy of frame `seq` from `slot`; `None` when the writer was faster.
    fn copy(&self, seq: u64, slot: usize) -> Outcome<Option<Frame>> {
        if slot >= self.layout.slot_count {
            return Err(
                format!("the newest frame is in slot {slot} of {}: damaged segment", self.layout.slot_count).into()
            );
        }
        let header = offset(self.layout.slot_table, slot, self.layout.slot_header_bytes)?;
        let stamp = self.bytes.word(header)?;
        fence(Ordering::Acquire);
        let (size, len) = (self.bytes.word(header + SIZE)?, self.bytes.word(header + PAYLOAD_LEN)?);
        fence(Ordering::Acquire);
        if stamp != seq << 1 || self.bytes.word(header)? != stamp {
            return Ok(None);
        }
        let len = usize::try_from(len)?;
        if len > self.layout.capacity {
            return Err(format!("{len} bytes in a slot of {}: damaged segment", self.layout.capacity).into());
        }
        let payload = self.payload(offset(self.layout.data, slot, self.layout.stride)?, len)?;
        fence(Ordering::Acquire);
        let unchanged = self.bytes.word(header)? == stamp;
        Ok(unchanged.then_some(Frame { seq, width: size as u32, height: (size >> 32) as u32, payload }))
    }

    /// `len` bytes from `begin` on, loaded as whole words: a plain read of bytes that race is undefined behaviour.
    fn payload(&self, begin: usize, len: usize) -> Outcome<Vec<u8>> {
        let mut payload = Vec::with_capacity(len.next_multiple_of(8));
        for at in (begin..begin + len).step_by(8) {
            payload.extend(self.bytes.word(at)?.to_le_bytes());
        }
        payload.truncate(len);
        Ok(payload)
    }
}

fn run() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name] = words.as_slice() else { return Err("usage: interop NAME".into()) };
    let mut peer = Peer::open(name)?;
    let mut out = std::io::stdout().lock();
    for question in std::io::stdin().lock().lines() {
        question?;
        peer.follow()?;
        match peer.newest()? {
            None => writeln!(out, "none")?,
            Some(Frame { seq, width, height, payload }) => {
                writeln!(out, "{seq} {width} {height} {}", crc32fast::hash(&payload))?;
            }
        }
        out.flush()?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interop: {error}");
            ExitCode::FAILURE
        }
    }
}
