//! The buffers that frames are copied into: a few are kept, because a fresh one costs a page fault per 4 KiB.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers kept at most; a worker that holds more frames at once allocates for the rest.
const KEPT: usize = 4;

/// The spare buffers of one ring handle.
///
/// Locked only by threads that hold the interpreter lock, and never while they release it: a fork, which needs that
/// lock too, can therefore not leave it locked in the child.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    /// A spare buffer, or an empty one; it comes back when it is dropped.
    pub(crate) fn take(self: &Arc<Self>) -> Pooled {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Pooled { bytes: spare.unwrap_or_default(), pool: Arc::clone(self) }
    }

    /// A buffer that was allocated elsewhere and is to come here in the end.
    pub(crate) fn adopt(self: &Arc<Self>, bytes: Vec<u8>) -> Pooled {
        Pooled { bytes, pool: Arc::clone(self) }
    }

    /// Keeps `bytes` for a later frame unless there are enough.
    pub(crate) fn give(&self, bytes: Vec<u8>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < KEPT && bytes.capacity() > 0 {
            spare.push(bytes);
        }
    }
}

/// A buffer on loan from a pool.
#[derive(Debug)]
pub(crate) struct Pooled {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Pooled {
    /// The buffer itself, and where it is to be given back.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, Arc<Pool>) {
        (std::mem::take(&mut self.bytes), Arc::clone(&self.pool))
    }
}

impl From<Vec<u8>> for Pooled {
    /// A buffer of no ring's pool.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, pool: Arc::default() }
    }
}

impl Deref for Pooled {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.bytes));
    }
}
