//! `Ring`: a worker's handle on one camera's frames.

use std::sync::Arc;
use std::time::Duration;

use camring_ring::{AttachOptions, FrameMeta, Liveness, OwnerPolicy, ReadError, Sequence};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::{buffer_mismatch, read_error, waited};
use crate::frame::Frame;
use crate::handle::{self, Handle};
use crate::info::{RingInfo, Stats};
use crate::picture::Picture;
use crate::pool::{Pool, Pooled};
use crate::seconds::{Wait, duration};
use crate::view::{Lent, Memory, Own};
use crate::watch::is_stopped;
use crate::words;

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

    /// The attached ring; see `Handle::ring`.
    pub(crate) fn attached(&self) -> PyResult<Arc<camring_ring::Ring>> {
        self.handle.ring()
    }

    /// A buffer to read into.
    pub(crate) fn spare(&self) -> Pooled {
        self.pool.take()
    }

    /// The newest frame's metadata; `None` in the waiting room.
    fn newest(&self, py: Python<'_>) -> PyResult<Option<FrameMeta>> {
        match self.handle.ring()?.peek() {
            Ok(meta) => Ok(Some(meta)),
            Err(ReadError::NoFrame { .. }) => Ok(None),
            Err(error) => Err(read_error(py, &error)),
        }
    }

    /// The frame of a copy that was read into a buffer of the pool.
    pub(crate) fn own(
        &self,
        py: Python<'_>,
        ring: &camring_ring::Ring,
        frame: camring_ring::Frame,
        pixels: Pooled,
    ) -> PyResult<Py<Frame>> {
        Frame::new(py, ring, frame, Memory::Own(Own::new(pixels)))
    }

    /// The frame of a copy in a buffer of its own, which the pool gets in the end.
    pub(crate) fn adopt(
        &self,
        py: Python<'_>,
        ring: &camring_ring::Ring,
        frame: camring_ring::Frame,
        pixels: Vec<u8>,
    ) -> PyResult<Py<Frame>> {
        self.own(py, ring, frame, self.pool.adopt(pixels))
    }

    /// One read that waits for nothing, into a buffer of the pool.
    fn read(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&camring_ring::Ring, &mut Vec<u8>) -> Result<camring_ring::Frame, ReadError> + Send,
    ) -> PyResult<Py<Frame>> {
        let ring = self.handle.ring()?;
        let mut pixels = self.pool.take();
        let frame = py.detach(|| read(&ring, &mut pixels)).map_err(|error| read_error(py, &error))?;
        self.own(py, &ring, frame, pixels)
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
        Frame::new(py, ring, frame, Memory::Lent(lent))
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

    /// Waits for what `step` waits for, a slice at a time; `is_over` is asked between the slices.
    fn wait_by<T: Send>(
        &self,
        py: Python<'_>,
        wait: &Wait,
        mut is_over: impl FnMut(&camring_ring::Ring) -> bool,
        mut step: impl FnMut(&camring_ring::Ring, Option<Duration>) -> Result<T, ReadError> + Send,
    ) -> PyResult<Result<(Arc<camring_ring::Ring>, T), ReadError>> {
        loop {
            let ring = self.handle.ring()?;
            let slice = wait.slice();
            let error = match py.detach(|| step(&ring, Some(slice))) {
                Ok(found) => return Ok(Ok((ring, found))),
                // The second one instead of the first, when the name leads to a replaced generation; this may pass.
                Err(error @ (ReadError::Timeout { .. } | ReadError::Superseded { .. })) => error,
                Err(error) => return Ok(Err(error)),
            };
            py.check_signals()?;
            if is_over(&ring) {
                return Ok(Err(waited(error, wait.waited())));
            }
        }
    }

    /// As `wait_by`, for a copy.
    fn wait_copy(
        &self,
        py: Python<'_>,
        wait: &Wait,
        is_over: impl FnMut(&camring_ring::Ring) -> bool,
        mut read: impl FnMut(&camring_ring::Ring, &mut Vec<u8>, Option<Duration>) -> Result<camring_ring::Frame, ReadError>
        + Send,
    ) -> PyResult<Result<Py<Frame>, ReadError>> {
        let mut pixels = self.pool.take();
        match self.wait_by(py, wait, is_over, |ring, slice| read(ring, &mut pixels, slice))? {
            Ok((ring, frame)) => self.own(py, &ring, frame, pixels).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The next frame of an iteration; `None` when the camera has ended.
    fn next_before_end(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        let next = |ring: &camring_ring::Ring, pixels: &mut Vec<u8>, slice| ring.next(pixels, slice);
        let mut first_seen = None;
        let forever = Wait::new(None);
        let mut found = self.wait_copy(py, &forever, |ring| is_stopped(ring, &mut first_seen), next)?;
        if found.is_err() {
            // A last frame may have come between the wait and the look at the state.
            found = self.wait_copy(py, &Wait::new(Some(Duration::ZERO)), |_| true, next)?;
        }
        match found {
            Ok(frame) => Ok(Some(frame)),
            Err(ReadError::Timeout { .. } | ReadError::Superseded { .. } | ReadError::Removed { .. }) => Ok(None),
            Err(error) => Err(read_error(py, &error)),
        }
    }
}

/// Refuses a newest frame older than `limit`, before anything is copied.
fn check_age(ring: &camring_ring::Ring, limit: Duration) -> Result<(), ReadError> {
    let age = ring.age(&ring.peek()?).ns;
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

#[pymethods]
impl Ring {
    /// The newest frame, again when there is no newer one; waits for nothing.
    ///
    /// copy: False leases the frame instead, as `lease()` does. max_age: refuse a frame older than so many seconds
    /// (`StaleFrame`). out: a writable, contiguous buffer of the frame's size to copy into; the frame then shows that
    /// buffer. No other thread may touch it during the call, and a bytearray cannot be resized while the frame lives.
    #[pyo3(signature = (*, copy=true, max_age=None, out=None))]
    fn latest(
        &self,
        py: Python<'_>,
        copy: bool,
        max_age: Option<f64>,
        out: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Frame>> {
        let ring = self.handle.ring()?;
        if let Some(limit) = duration("max_age", max_age)? {
            check_age(&ring, limit).map_err(|error| read_error(py, &error))?;
        }
        match (copy, out) {
            (true, None) => self.read(py, |ring, pixels| ring.latest(pixels)),
            (true, Some(out)) => self.latest_out(py, &ring, out),
            (false, None) => self.lease(py),
            (false, Some(_)) => {
                Err(PyValueError::new_err("out is a place for a copy; pass copy=False or out, not both"))
            }
        }
    }

    /// Waits for a frame newer than the last one returned, then returns the newest; `TimeoutError` after `timeout`
    /// seconds.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        let wait = Wait::new(duration("timeout", timeout)?);
        let found = self.wait_copy(py, &wait, |_| wait.is_over(), |ring, pixels, slice| ring.next(pixels, slice))?;
        found.map_err(|error| read_error(py, &error))
    }

    /// The newest frame in place: read-only, without a copy, held against the writer until the lease ends.
    ///
    /// `with ring.lease() as frame:` ends it and raises `Revoked` when the frame was overwritten meanwhile, which a
    /// writer does only when it finds no other slot. So do `frame.release()` and, in silence, the end of the frame and
    /// of all its views.
    fn lease(&self, py: Python<'_>) -> PyResult<Py<Frame>> {
        let ring = self.handle.ring()?;
        let lease = py.detach(|| ring.lease()).map_err(|error| read_error(py, &error))?;
        Frame::leased(py, &ring, lease)
    }

    /// Waits for a frame newer than the last one returned, then leases the newest; `TimeoutError` after `timeout`
    /// seconds.
    #[pyo3(signature = (timeout=None))]
    fn lease_next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        let wait = Wait::new(duration("timeout", timeout)?);
        let found = self.wait_by(py, &wait, |_| wait.is_over(), |ring, slice| ring.lease_next(slice))?;
        let (ring, lease) = found.map_err(|error| read_error(py, &error))?;
        Frame::leased(py, &ring, lease)
    }

    /// The frame with exactly this number; `Overrun` when it was overwritten, `NotYet` when it is still to come.
    ///
    /// Does not count as returned, and nor do the other frames that are chosen by number or time.
    fn at(&self, py: Python<'_>, seq: u64) -> PyResult<Py<Frame>> {
        self.read(py, |ring, pixels| ring.at(Sequence(seq), pixels))
    }

    /// The oldest frame still held that is newer than `seq`; waits for one, `TimeoutError` after `timeout` seconds.
    ///
    /// `skipped` counts the numbers between `seq` and it, overwritten before they were read.
    #[pyo3(signature = (seq, timeout=None))]
    fn after(&self, py: Python<'_>, seq: u64, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        let wait = Wait::new(duration("timeout", timeout)?);
        let after = |ring: &camring_ring::Ring, pixels: &mut Vec<u8>, slice| ring.after(Sequence(seq), pixels, slice);
        let found = self.wait_copy(py, &wait, |_| wait.is_over(), after)?;
        found.map_err(|error| read_error(py, &error))
    }

    /// The newest `n` frames still held, oldest first; fewer when fewer are held.
    fn history(&self, py: Python<'_>, n: usize) -> PyResult<Vec<Py<Frame>>> {
        let ring = self.handle.ring()?;
        let frames = py.detach(|| ring.history(n)).map_err(|error| read_error(py, &error))?;
        frames.into_iter().map(|(frame, pixels)| self.adopt(py, &ring, frame, pixels)).collect()
    }

    /// Numbers of all frames that are held now, oldest first; copies nothing.
    fn held(&self) -> PyResult<Vec<u64>> {
        Ok(self.handle.ring()?.held().into_iter().map(|meta| meta.seq.0).collect())
    }

    /// The held frame that arrived nearest to `t_ns`, ns of CLOCK_MONOTONIC (another frame's `arrival_ns`).
    fn nearest(&self, py: Python<'_>, t_ns: i64) -> PyResult<Py<Frame>> {
        self.read(py, |ring, pixels| ring.nearest(t_ns, pixels))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        self.next_before_end(py)
    }

    fn __aiter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        // A closed one has nothing to wait for.
        slf.get().handle.ring()?;
        slf.py().import("camring._aio")?.getattr("Frames")?.call1((slf,))
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
    fn seq(&self) -> PyResult<u64> {
        Ok(self.handle.ring()?.status().seq.0)
    }

    /// Frames that the ring keeps.
    #[getter]
    fn slots(&self) -> PyResult<u32> {
        Ok(self.handle.ring()?.layout().slot_count)
    }

    /// What the camera's daemon is doing, or was when it ended.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        words::state(py, self.handle.ring()?.status().state)
    }

    /// Why.
    #[getter]
    fn reason<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        words::reason(py, self.handle.ring()?.status().reason)
    }

    /// Whether a daemon holds the ring.
    #[getter]
    fn writer_alive(&self) -> PyResult<bool> {
        Ok(self.handle.ring()?.liveness() != Liveness::Gone)
    }

    /// Identity of the ring's file, 32 hexadecimal digits.
    #[getter]
    fn generation(&self) -> PyResult<String> {
        Ok(self.handle.ring()?.status().generation.to_string())
    }

    /// Daemons that have owned this generation.
    #[getter]
    fn writer_epoch(&self) -> PyResult<u32> {
        Ok(self.handle.ring()?.status().writer_epoch)
    }

    /// Whether the operator has removed the ring and no new one has come.
    #[getter]
    fn removed(&self) -> PyResult<bool> {
        Ok(self.handle.ring()?.is_removed())
    }

    /// What this handle has been through.
    fn stats(&self) -> PyResult<Stats> {
        Ok(Stats(self.handle.ring()?.stats()))
    }

    /// Everything the ring's header says, at one moment.
    fn info(&self, py: Python<'_>) -> PyResult<RingInfo> {
        let ring = self.handle.ring()?;
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

    fn __repr__(&self) -> PyResult<String> {
        let name = &self.handle.name;
        if self.handle.is_closed() {
            return Ok(format!("<camring.Ring \"{name}\" closed>"));
        }
        let status = self.handle.ring()?.status();
        Ok(format!("<camring.Ring \"{name}\" {}, newest frame {}>", status.state, status.seq))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        // A closed one has nothing to attach to.
        self.handle.ring()?;
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
