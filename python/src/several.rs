//! Several rings at once: waiting for the first frame of any, and frames of one moment.

use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;

use crate::errors::read_error;
use crate::frame::Frame;
use crate::ring::Ring;
use crate::seconds::{Wait, duration};

type Attached = Vec<Arc<camring_ring::Ring>>;

fn attached(rings: &[Py<Ring>]) -> PyResult<Attached> {
    rings.iter().map(|ring| ring.get().attached()).collect()
}

/// Waits until at least one ring has a frame newer than the last one that its handle returned; all such rings.
///
/// Empty after `timeout` seconds, or when every ring was removed. Takes no frame: call `next()` of those returned.
#[pyfunction]
#[pyo3(signature = (rings, timeout=None))]
pub(crate) fn wait_any(py: Python<'_>, rings: Vec<Py<Ring>>, timeout: Option<f64>) -> PyResult<Vec<Py<Ring>>> {
    let wait = Wait::new(duration("timeout", timeout)?);
    loop {
        let attached = attached(&rings)?;
        let refs: Vec<&camring_ring::Ring> = attached.iter().map(Arc::as_ref).collect();
        let (slice, began) = (wait.slice(), Instant::now());
        let ready = py.detach(|| camring_ring::wait_any(&refs, Some(slice)));
        py.check_signals()?;
        // Nothing before its time: there is no ring left to wait for.
        if !ready.is_empty() || wait.is_over() || began.elapsed() < slice {
            return Ok(ready.into_iter().map(|index| rings[index].clone_ref(py)).collect());
        }
    }
}

/// For each ring the held frame that arrived nearest to `t_ns`, ns of CLOCK_MONOTONIC, in the order of the rings.
///
/// `Apart` names the ring whose nearest frame is more than `tolerance` seconds away.
#[pyfunction]
pub(crate) fn nearest(py: Python<'_>, rings: Vec<Py<Ring>>, t_ns: i64, tolerance: f64) -> PyResult<Vec<Py<Frame>>> {
    let tolerance = duration("tolerance", Some(tolerance))?.unwrap_or(std::time::Duration::MAX);
    let attached = attached(&rings)?;
    let refs: Vec<&camring_ring::Ring> = attached.iter().map(Arc::as_ref).collect();
    let found = py.detach(|| camring_ring::nearest(&refs, t_ns, tolerance)).map_err(|error| read_error(py, &error))?;
    let parts = rings.iter().zip(&attached).zip(found);
    parts.map(|((ring, attached), (frame, pixels))| ring.get().adopt(py, attached, frame, pixels)).collect()
}
