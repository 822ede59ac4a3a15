//! What a daemon wants of its ring.

use std::time::Duration;

use rustix::process::{getegid, geteuid};

use crate::error::CreateError;
use crate::layout::{Layout, LeasePolicy, PAGE_ALIGN};
use crate::name::{RingName, SegmentName, ShmDir};
use crate::process;

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

    pub(crate) fn stale_after_ms(&self) -> u32 {
        u32::try_from(self.stale_after.as_millis()).unwrap_or(u32::MAX)
    }

    /// Bytes of a slot to begin with.
    pub(crate) fn first_slot_bytes(&self) -> u64 {
        match self.capacity {
            Capacity::FromSource => PAGE_ALIGN,
            Capacity::Bytes(bytes) => bytes,
        }
    }

    pub(crate) fn plan(&self, slot_bytes: u64) -> Result<Layout, CreateError> {
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
