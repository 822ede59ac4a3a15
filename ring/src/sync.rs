//! The atomics of the protocol and the region of memory they live in.
//!
//! Everything that obeys the protocol is written against [`Region`], so that a model of the memory (a vector of
//! atomics under a model checker, say) can take the place of the mapping.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Memory that other processes or threads may change at any time, reached only through atomics of one width per place.
pub(crate) trait Region {
    /// The aligned 64-bit word at `offset` bytes.
    fn u64_at(&self, offset: u64) -> &AtomicU64;

    /// `N` aligned 64-bit words side by side, from `offset` bytes on; checked once.
    fn u64s_at<const N: usize>(&self, offset: u64) -> &[AtomicU64; N];

    /// The aligned 32-bit word at `offset` bytes; only in the hot and liveness lines.
    fn u32_at(&self, offset: u64) -> &AtomicU32;
}
