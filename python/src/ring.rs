//! `Ring`: a worker's handle on one camera's frames.

use std::sync::Arc;
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::{AttachOptions, FrameMeta, Liveness, OwnerPolicy, ReadError, State, age_ns};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::{buffer_mismatch, read_error, waited};
use crate::frame::Frame;
use crate::handle::{self, Handle};
use crate::info::{RingInfo, Stats};
use crate::picture::Picture;
use crate::pool::Pool;
use crate::seconds::{Wait, duration};
use crate::view::{Lent, Memory, Own};
use crate::words;

/// How long a camera must have been stopped before iteration ends: restarting its service takes less.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// A handle on one camera's ring of frames, made by `camring.attach`.
///
/// It survives everything that happens to the camera and its daemon; several threads may share it; a pickled or forked
/// one attaches again by name.
#[pyclass(frozen, weakref, module = "camring")]
pub(crate) struct Ring {
    handle: Handle,
    pool: Arc<Pool>,
}

impl Ring {
    pub(crate) fn attach(py: Python<'_>, name: String, options: AttachOptions) -> PyResult<Self> {
        Ok(Self { handle: Handle::attach(py, name, options)?, pool: Arc::default() })
    }

    /// The newest frame's metadata; `None` in the waiting room.
    fn newest(&self, py: Python<'_>) -> PyResult<Option<FrameMeta>> {
        match self.handle.ring(py)?.peek() {
            Ok(meta) => Ok(Some(meta)),
            Err(ReadError::NoFrame { .. }) => Ok(None),
            Err(error) => Err(read_error(py, &error)),
        }
    }

    fn latest_own(&self, py: Python<'_>, ring: &camring_ring::Ring) -> PyResult<Py<Frame>> {
        let mut pixels = self.pool.take();
        let frame = py.detach(|| ring.latest(&mut pixels)).map_err(|error| read_error(py, &error))?;
        Frame::new(py, frame, Memory::Own(Own::new(pixels)))
    }

    fn latest_out(&self, py: Python<'_>, ring: &camring_ring::Ring, out: &Bound<'_, PyAny>) -> PyResult<Py<Frame>> {
        let meta = ring.peek().map_err(|error| read_error(py, &error))?;
        let mut lent = Lent::new(out).map_err(|why| {
            buffer_mismatch(py, format!("out {why}; pass a bytearray or a writable, contiguous array"))
        })?;
        self.check_shape(py, &lent, &meta)?;
        let frame = py.detach(|| ring.latest_into(lent.bytes_mut())).map_err(|error| read_error(py, &error))?;
        // The size may have changed since the look above, with as many bytes as before.
        self.check_shape(py, &lent, &frame.meta)?;
        Frame::new(py, frame, Memory::Lent(lent))
    }

    /// A buffer of plain bytes is only measured; an array must have the frame's shape and items.
    fn check_shape(&self, py: Python<'_>, out: &Lent, meta: &FrameMeta) -> PyResult<()> {
        if out.shape().len() <= 1 && out.item_size() == 1 {
            return Ok(());
        }
        let picture = Picture::of(&meta.geometry);
        let same_shape = out.shape().iter().map(|side| *side as isize).eq(picture.shape().iter().copied());
        if same_shape && out.format().as_bytes() == picture.item.code().to_bytes() {
            return Ok(());
        }
        Err(buffer_mismatch(
            py,
            format!(
                "out has the shape {:?} of \"{}\" but the frames of ring \"{}\" are {:?} of {}; \
                 make an array like that",
                out.shape(),
                out.format(),
                self.handle.name,
                picture.shape(),
                picture.item.word()
            ),
        ))
    }

    /// Waits for a frame not yet seen; `is_over` is asked between the slices of the wait.
    fn wait_next(
        &self,
        py: Python<'_>,
        wait: &Wait,
        mut is_over: impl FnMut(&camring_ring::Ring, &ReadError) -> bool,
    ) -> PyResult<Result<Py<Frame>, ReadError>> {
        let mut pixels = self.pool.take();
        loop {
            let ring = self.handle.ring(py)?;
            let slice = wait.slice();
            let error = match py.detach(|| ring.next(&mut pixels, Some(slice))) {
                Ok(frame) => return Frame::new(py, frame, Memory::Own(Own::new(pixels))).map(Ok),
                Err(error @ ReadError::Timeout { .. }) => error,
                Err(error) => return Err(read_error(py, &error)),
            };
            py.check_signals()?;
            if is_over(&ring, &error) {
                return Ok(Err(waited(error, wait.waited())));
            }
        }
    }
}

/// Refuses a newest frame older than `limit`, before anything is copied.
fn check_age(ring: &camring_ring::Ring, limit: Duration) -> Result<(), ReadError> {
    let age = age_ns(&ring.peek()?);
    if u128::try_from(age).is_ok_and(|age| age <= limit.as_nanos()) {
        return Ok(());
    }
    let status = ring.status();
    Err(ReadError::Stale {
        ring: ring.name().to_owned(),
        age_ms: age / 1_000_000,
        limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        state: status.state,
        reason: status.reason,
    })
}

/// Whether the operator has stopped the camera, and not only restarts its service; `first_seen` is when it looked so
/// first.
fn is_stopped(ring: &camring_ring::Ring, error: &ReadError, first_seen: &mut Option<Instant>) -> bool {
    if ring.is_removed() {
        return true;
    }
    if !matches!(error, ReadError::Timeout { state: State::Stopped, writer_alive: false, .. }) {
        *first_seen = None;
        return false;
    }
    let seen = first_seen.get_or_insert_with(Instant::now).elapsed();
    let silent_ns = u64::try_from(mono_ns()).unwrap_or(0).saturating_sub(ring.status().heartbeat_mono_ns);
    seen >= STOP_GRACE || Duration::from_nanos(silent_ns) >= STOP_GRACE
}

#[pymethods]
impl Ring {
    /// The newest frame, again when there is no newer one; waits for nothing.
    ///
    /// max_age: refuse a frame older than so many seconds (`StaleFrame`). out: a writable, contiguous buffer of the
    /// frame's size to copy into; the frame then shows that buffer. No other thread may touch it during the call, and
    /// a bytearray cannot be resized while the frame lives.
    #[pyo3(signature = (*, max_age=None, out=None))]
    fn latest(&self, py: Python<'_>, max_age: Option<f64>, out: Option<&Bound<'_, PyAny>>) -> PyResult<Py<Frame>> {
        let ring = self.handle.ring(py)?;
        if let Some(limit) = duration("max_age", max_age)? {
            check_age(&ring, limit).map_err(|error| read_error(py, &error))?;
        }
        match out {
            None => self.latest_own(py, &ring),
            Some(out) => self.latest_out(py, &ring, out),
        }
    }

    /// Waits for a frame newer than the last one returned, then returns the newest; `TimeoutError` after `timeout`
    /// seconds.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        let wait = Wait::new(duration("timeout", timeout)?);
        self.wait_next(py, &wait, |_, _| wait.is_over())?.map_err(|error| read_error(py, &error))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        let mut first_seen = None;
        let ended = self.wait_next(py, &Wait::new(None), |ring, error| is_stopped(ring, error, &mut first_seen))?;
        if let Ok(frame) = ended {
            return Ok(Some(frame));
        }
        // A last frame may have come between the wait and the look at the state.
        Ok(self.wait_next(py, &Wait::new(Some(Duration::ZERO)), |_, _| true)?.ok())
    }

    /// The name it was attached by.
    #[getter]
    fn name(&self) -> &str {
        &self.handle.name
    }

    /// Shape of the newest frame; None while there is none.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.newest(py)?.map(|meta| PyTuple::new(py, Picture::of(&meta.geometry).shape())).transpose()
    }

    /// Width of the newest frame, pixels; None while there is none.
    #[getter]
    fn width(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        Ok(self.newest(py)?.map(|meta| meta.geometry.width))
    }

    /// Height of the newest frame, pixels; None while there is none.
    #[getter]
    fn height(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        Ok(self.newest(py)?.map(|meta| meta.geometry.height))
    }

    /// Format of the newest frame; None while there is none.
    #[getter]
    fn format(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.newest(py)?.map(|meta| meta.geometry.format.to_string()))
    }

    /// Number of the newest frame; 0 while there is none.
    #[getter]
    fn seq(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.handle.ring(py)?.status().seq.0)
    }

    /// Frames that the ring keeps.
    #[getter]
    fn slots(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.handle.ring(py)?.layout().slot_count)
    }

    /// What the camera's daemon is doing, or was when it ended.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        words::state(py, self.handle.ring(py)?.status().state)
    }

    /// Why.
    #[getter]
    fn reason<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        words::reason(py, self.handle.ring(py)?.status().reason)
    }

    /// Whether a daemon holds the ring.
    #[getter]
    fn writer_alive(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.handle.ring(py)?.liveness() != Liveness::Gone)
    }

    /// Identity of the ring's file, 32 hexadecimal digits.
    #[getter]
    fn generation(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.handle.ring(py)?.status().generation.to_string())
    }

    /// Daemons that have owned this generation.
    #[getter]
    fn writer_epoch(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.handle.ring(py)?.status().writer_epoch)
    }

    /// Whether the operator has removed the ring and no new one has come.
    #[getter]
    fn removed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.handle.ring(py)?.is_removed())
    }

    /// What this handle has been through.
    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        Ok(Stats(self.handle.ring(py)?.stats()))
    }

    /// Everything the ring's header says, at one moment.
    fn info(&self, py: Python<'_>) -> PyResult<RingInfo> {
        let ring = self.handle.ring(py)?;
        Ok(py.detach(|| RingInfo::of(&self.handle.name, &ring)))
    }

    /// Detaches; frames already read stay valid.
    fn close(&self) {
        self.handle.close();
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.handle.is_closed()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {
        self.handle.close();
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let name = &self.handle.name;
        if self.handle.is_closed() {
            return Ok(format!("<camring.Ring \"{name}\" closed>"));
        }
        let status = self.handle.ring(py)?.status();
        Ok(format!("<camring.Ring \"{name}\" {}, newest frame {}>", status.state, status.seq))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        // A closed one has nothing to attach to.
        self.handle.ring(py)?;
        let options = &self.handle.options;
        let owner = match options.owner {
            OwnerPolicy::Usual => None,
            OwnerPolicy::Uid(uid) => Some(uid.into_pyobject(py)?.into_any()),
            OwnerPolicy::Any => Some("any".into_pyobject(py)?.into_any()),
        };
        let timeout = options.timeout.map(|timeout| timeout.as_secs_f64());
        let args = (self.name(), timeout, options.shm.root(), owner).into_pyobject(py)?;
        Ok((py.import("camring._camring")?.getattr("_attach_again")?, args))
    }
}

/// Attaches to a camera (`front`), an output (`front.small`) or a segment (`camring.front`).
///
/// Waits `timeout` seconds for the name (None = for ever); a ring without a frame attaches at once. shm_dir: another
/// memory mount than `$CAMRING_SHM_DIR` or /dev/shm. owner: whose ring to accept when it belongs neither to root, nor
/// to this user, nor to camring: a user's number, or "any".
#[pyfunction]
#[pyo3(
    signature = (name, *, timeout=Some(10.0), shm_dir=None, owner=None),
    text_signature = "(name, *, timeout=10.0, shm_dir=None, owner=None)"
)]
pub(crate) fn attach(
    py: Python<'_>,
    name: String,
    timeout: Option<f64>,
    shm_dir: Option<std::path::PathBuf>,
    owner: Option<&Bound<'_, PyAny>>,
) -> PyResult<Ring> {
    let options = handle::options(duration("timeout", timeout)?, handle::shm_dir(shm_dir), handle::owner(owner)?);
    Ring::attach(py, name, options)
}

/// What a pickled ring becomes.
#[pyfunction]
pub(crate) fn _attach_again(
    py: Python<'_>,
    name: String,
    timeout: Option<f64>,
    shm_dir: std::path::PathBuf,
    owner: Option<&Bound<'_, PyAny>>,
) -> PyResult<Ring> {
    attach(py, name, timeout, Some(shm_dir), owner)
}
