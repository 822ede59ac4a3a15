//! A generation as its writer sees it: the segment, and what only this process knows of it.

use std::sync::atomic::AtomicBool;

use crate::fork::Origin;
use crate::segment::Segment;
use crate::slot;
use crate::sync::{AtomicU64, Ordering};

/// A generation as its writer sees it: the segment, and private copies of the stamps that nobody else can change.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) segment: Segment,
    /// Who writes it; a forked child has the same mapping and must leave it alone.
    pub(crate) origin: Origin,
    /// 0 empty, odd being written, even published; never read back from the segment.
    stamps: Box<[AtomicU64]>,
    /// Another generation has taken over: nothing is written here any more.
    pub(crate) retired: AtomicBool,
}

impl Live {
    pub(crate) fn new(segment: Segment) -> Self {
        let (map, layout) = (&segment.map, &segment.layout);
        let stamps = (0..layout.slot_count).map(|i| AtomicU64::new(slot::load_stamp(map, layout, i))).collect();
        Self { segment, origin: Origin::here(), stamps, retired: AtomicBool::new(false) }
    }

    pub(crate) fn stamp(&self, index: u32) -> u64 {
        self.stamps[index as usize].load(Ordering::Acquire)
    }

    pub(crate) fn set_stamp(&self, index: u32, stamp: u64) {
        self.stamps[index as usize].store(stamp, Ordering::Release);
    }
}
