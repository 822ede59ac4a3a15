//! Our ring: frames of one row of bytes, read by description or leased.

use std::time::Duration;

use camring_ring::clock::mono_ns;
use camring_ring::{
    AttachOptions, Capacity, FrameMeta, Geometry, HugePages, PixelFormat, ReadError, Ring, RingName, Sequence, ShmDir,
    SlotMut, Writer, WriterOptions,
};

use crate::{PATIENCE, Reads, SLOTS, Taken, Writes};

fn shm() -> ShmDir {
    std::env::var_os("CAMRING_SHM_DIR").map_or_else(ShmDir::default, ShmDir::new)
}

/// The writer.
pub struct Publisher {
    writer: Writer,
    slot: Option<SlotMut>,
    geometry: Geometry,
}

impl Publisher {
    pub fn new(name: &str, bytes: usize) -> Self {
        let mut options = WriterOptions::new(RingName::new(name).expect("a ring's name"));
        options.shm = shm();
        options.slots = SLOTS;
        options.capacity = Capacity::Bytes(bytes as u64);
        options.huge_pages = HugePages::Try;
        let rows = (bytes / 3).div_ceil(1920).max(1) as u32;
        let width = (bytes / 3 / rows as usize) as u32;
        let geometry = Geometry::packed(width, rows, PixelFormat::Bgr).expect("a picture");
        Self { writer: Writer::start(options).expect("a ring").0, slot: None, geometry }
    }
}

impl Writes for Publisher {
    fn fill(&mut self, pixels: &[u8]) {
        let mut slot = self.writer.claim(self.geometry.len).expect("a slot");
        let target = slot.as_mut();
        target.copy_from_slice(&pixels[..target.len()]);
        self.slot = Some(slot);
    }

    fn publish(&mut self, number: u64, t0_ns: i64) {
        let mut meta = FrameMeta::new(self.geometry);
        meta.decoded_mono_ns = t0_ns;
        meta.source_seq = number;
        self.writer.publish(self.slot.take().expect("a filled slot"), meta).expect("published");
    }
}

fn attach(name: &str) -> Ring {
    let options = AttachOptions { shm: shm(), timeout: Some(PATIENCE), ..AttachOptions::default() };
    Ring::attach(name, options).expect("a ring")
}

fn taken(meta: &FrameMeta) -> Taken {
    Taken { number: meta.source_seq, t0_ns: meta.decoded_mono_ns, held_ns: mono_ns() }
}

/// A reader of descriptions: it knows where the frame lies and looks afterwards whether it still did.
pub struct Described {
    ring: Ring,
    last: Sequence,
}

impl Described {
    pub fn new(name: &str) -> Self {
        Self { ring: attach(name), last: Sequence(0) }
    }
}

impl Reads for Described {
    fn take(&mut self, limit: Duration) -> Option<Taken> {
        if !self.ring.wait(self.last, Some(limit)) {
            return None;
        }
        let meta = self.ring.peek().expect("a frame");
        let taken = taken(&meta);
        self.last = meta.seq;
        Some(taken)
    }
}

/// A reader of leased frames, which stay as they are.
pub struct Leased(Ring);

impl Leased {
    pub fn new(name: &str) -> Self {
        Self(attach(name))
    }
}

impl Reads for Leased {
    fn take(&mut self, limit: Duration) -> Option<Taken> {
        match self.0.lease_next(Some(limit)) {
            Ok(lease) => Some(taken(&lease.frame().meta)),
            Err(ReadError::Timeout { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }
}
