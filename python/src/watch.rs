//! Waiting for the frames of a ring until its camera has ended: what every kind of iteration is made of.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::{Liveness, ReadError, State};
use pyo3::prelude::*;

use crate::errors::read_error;
use crate::frame::Frame;
use crate::ring::Ring;
use crate::seconds::Wait;

/// How long a camera must have been stopped before iteration ends: restarting its service takes less.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Whether the operator has stopped the camera, and not only restarts its service; `first_seen` is when it looked so
/// first.
pub(crate) fn is_stopped(ring: &camring_ring::Ring, first_seen: &mut Option<Instant>) -> bool {
    if ring.is_removed() {
        return true;
    }
    let status = ring.status();
    if status.state != State::Stopped || ring.liveness() != Liveness::Gone {
        *first_seen = None;
        return false;
    }
    let seen = first_seen.get_or_insert_with(Instant::now).elapsed();
    let silent_ns = u64::try_from(mono_ns()).unwrap_or(0).saturating_sub(status.heartbeat_mono_ns);
    seen >= STOP_GRACE || Duration::from_nanos(silent_ns) >= STOP_GRACE
}

/// Looks for frames of a ring on behalf of one iterator, without taking them.
#[pyclass(frozen, module = "camring._camring")]
pub(crate) struct Watch {
    ring: Py<Ring>,
    /// Locked only with the interpreter lock held.
    first_seen: Mutex<Option<Instant>>,
}

#[pymethods]
impl Watch {
    #[new]
    fn new(ring: Py<Ring>) -> Self {
        Self { ring, first_seen: Mutex::new(None) }
    }

    /// Waits a slice: True = there is a frame that the handle has not returned, False = not yet, None = the camera has
    /// ended.
    fn look(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        let ring = self.ring.get().attached()?;
        let slice = Wait::new(None).slice();
        if py.detach(|| ring.wait(ring.last_seq(), Some(slice))) {
            return Ok(Some(true));
        }
        let mut first_seen = self.first_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_stopped(&ring, &mut first_seen) {
            return Ok(Some(false));
        }
        // A last frame may have come between the wait and the look at the state.
        Ok(ring.wait(ring.last_seq(), Some(Duration::ZERO)).then_some(true))
    }

    /// The newest frame if the handle has not returned it, else None; `lost` is added to its `skipped`.
    fn take(&self, py: Python<'_>, lost: u64) -> PyResult<Option<Py<Frame>>> {
        let ring = self.ring.get().attached()?;
        let mut pixels = self.ring.get().spare();
        match py.detach(|| ring.next(&mut pixels, Some(Duration::ZERO))) {
            Ok(mut frame) => {
                frame.skipped += lost;
                self.ring.get().own(py, &ring, frame, pixels).map(Some)
            }
            Err(ReadError::Timeout { .. } | ReadError::Superseded { .. } | ReadError::Removed { .. }) => Ok(None),
            Err(error) => Err(read_error(py, &error)),
        }
    }
}
