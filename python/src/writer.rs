//! `Writer`: publishes arrays from Python into a ring of their own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::{
    Capacity, ClaimError, Counter, CreateError, FrameFlags, FrameMeta, Housekeeping, HousekeepingEvent, LeasePolicy,
    PixelFormat, PublishError, ReaderGroup, Reason, RingName, SegmentName, State, WriterOptions,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::array::Form;
use crate::errors::{buffer_mismatch, claim_error, create_error, forked, publish_error};
use crate::frame::Frame;
use crate::handle;
use crate::seconds::{Wait, duration};
use crate::view::Given;

/// Flags of a frame that hold for a picture made from it.
const INHERITED: [FrameFlags; 5] =
    [FrameFlags::CORRUPT, FrameFlags::TAINTED, FrameFlags::INTERLACED, FrameFlags::UNTRUSTED_TIME, FrameFlags::SCALED];

/// Writers to be ended in an orderly way when the interpreter ends. Locked only with the interpreter lock held.
static OPEN: Mutex<Vec<Weak<Desk>>> = Mutex::new(Vec::new());

/// The ring while it is being written.
struct Open {
    writer: camring_ring::Writer,
    /// Before `writer`'s own end, the thread that keeps names and heartbeat.
    house: Housekeeping,
    live: bool,
}

/// What one Python `Writer` owns.
struct Desk {
    /// The process that made it: its locks, its thread and its mapping belong to that one.
    pid: u32,
    /// `None` once closed. Never waited for with the interpreter lock held, except to close.
    open: Mutex<Option<Open>>,
    slow_locks: Arc<SlowLocks>,
}

/// Why leases are not honoured at the moment, as housekeeping saw it last.
#[derive(Default)]
struct SlowLocks(Mutex<Option<String>>);

impl SlowLocks {
    fn note(&self, event: &HousekeepingEvent) {
        let found = match event {
            HousekeepingEvent::LocksSlow { pause: Some(pause), .. } => Some(format!(
                "readers hold so many locks that leases are not honoured for {} s; find who holds them in /proc/locks",
                pause.as_secs()
            )),
            HousekeepingEvent::LocksFine => None,
            _ => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    fn text(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a picture was not published.
enum Refusal {
    Closed,
    Claim(ClaimError),
    Publish(PublishError),
    /// The leased frame that it was to be copied from was overwritten during the copy.
    Revoked,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    fn end(&self, reason: Reason) {
        if !self.is_ours() {
            // The thread does not exist here, and the mutex may be locked by one that does not exist either.
            return;
        }
        if let Some(open) = self.lock().take() {
            open.writer.status().stopped(reason);
            drop(open.house);
        }
    }

    fn put(&self, given: &Given, mut meta: FrameMeta, is_valid: impl Fn() -> bool) -> Result<u64, Refusal> {
        let mut guard = self.lock();
        let open = guard.as_mut().ok_or(Refusal::Closed)?;
        let mut slot = open.writer.claim(meta.geometry.len).map_err(|error| {
            let no_slot = matches!(error, ClaimError::NoSlot | ClaimError::Leased);
            open.writer.count_drop(if no_slot { Counter::DroppedNoSlot } else { Counter::DroppedOverload });
            Refusal::Claim(error)
        })?;
        given.copy_to(slot.as_mut());
        if !is_valid() {
            return Err(Refusal::Revoked);
        }
        if meta.source_seq == 0 {
            meta.source_seq = open.writer.source_seq() + 1;
        }
        let seq = open.writer.publish(slot, meta).map_err(Refusal::Publish)?;
        if !open.live {
            open.writer.status().set_state(State::Live, Reason::None, 0, None);
            open.live = true;
        }
        Ok(seq.0)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.end(Reason::Operator);
        if let Some(open) = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // A forked child: to join the parent's thread would wait for ever.
            std::mem::forget(open);
        }
    }
}

/// Publishes arrays into a ring: pictures that were drawn on, or a camera that is a program.
///
/// Every reader of the layout reads such a ring. Its state is `live` from the first picture on and `stopped` after
/// `close`; the ring stays, and the next writer of the name takes it over and continues the numbers. Several threads
/// may share a writer. A forked child may not publish: it makes a writer of its own, for another ring.
#[pyclass(frozen, weakref, module = "camring")]
pub(crate) struct Writer {
    ring: RingName,
    form: Form,
    /// Scale and offset of float formats.
    values: (f32, f32),
    adopted: bool,
    desk: Arc<Desk>,
}

/// Takes the ring, with the interpreter lock released; Ctrl-C ends the wait for another writer's end.
fn start(
    py: Python<'_>,
    options: &WriterOptions,
    timeout: Option<Duration>,
) -> PyResult<(camring_ring::Writer, camring_ring::Started)> {
    let wait = Wait::new(timeout);
    loop {
        let attempt = WriterOptions { lock_wait: wait.slice(), ..options.clone() };
        match py.detach(|| camring_ring::Writer::start(attempt)) {
            Ok(started) => return Ok(started),
            Err(CreateError::Busy { .. }) if !wait.is_over() => py.check_signals()?,
            Err(error) => return Err(create_error(py, &error)),
        }
    }
}

fn lease_policy(word: &str) -> PyResult<LeasePolicy> {
    match word {
        "fresh" => Ok(LeasePolicy::Fresh),
        "protect" => Ok(LeasePolicy::Protect),
        "off" => Ok(LeasePolicy::Off),
        _ => {
            Err(PyValueError::new_err(format!("lease_policy is {word:?}; expected \"fresh\", \"protect\" or \"off\"")))
        }
    }
}

/// What `publish` writes beside the pixels.
fn metadata(geometry: camring_ring::Geometry, like: Option<&Frame>) -> PyResult<FrameMeta> {
    let mut meta = FrameMeta::new(geometry);
    if let Some(like) = like.map(Frame::meta) {
        let (here, there) = ((geometry.width, geometry.height), (like.geometry.width, like.geometry.height));
        if here != there {
            return Err(PyValueError::new_err(format!(
                "like is a frame of {}x{} but the array is {}x{}, so that its place in the source is another; \
                 pass arrival_ns and source_seq instead",
                there.0, there.1, here.0, here.1
            )));
        }
        meta = FrameMeta { geometry, payload_crc32c: 0, gap: 0, lag_ns: 0, ..*like };
        meta.flags = INHERITED
            .into_iter()
            .fold(FrameFlags::default(), |flags, flag| flags.with_if(like.flags.contains(flag), flag));
    }
    meta.flags = meta.flags.with(FrameFlags::SYNTHETIC).with(FrameFlags::KEYFRAME);
    meta.decoded_mono_ns = mono_ns();
    Ok(meta)
}

#[pymethods]
impl Writer {
    /// Takes the ring `name` (`front`, or `front.small`), or makes it.
    ///
    /// shape: the arrays' shape, (height, width, channels) or what `format` has instead; the ring is then made at its
    /// full size at once, and arrays of another shape are refused. None: the first array decides, and a larger one
    /// makes a larger generation that readers follow. format: `bgr`, `rgb`, `gray`, `bgra`, `rgba`, `i420`, `nv12`,
    /// `rgb-planar-f32` or `opaque`. value_scale, value_offset: what the floats of a float format mean,
    /// value = byte * value_scale + value_offset. timeout: seconds to wait for another writer of the ring to end (None = for ever).
    #[new]
    #[pyo3(
        signature = (name, *, shape=None, format="bgr", slots=8, shm_dir=None, segment=None, lease_policy="fresh",
                     mode=0o640, group=None, stale_after=1.0, value_scale=1.0, value_offset=0.0, timeout=Some(5.0)),
        text_signature = "(name, *, shape=None, format='bgr', slots=8, shm_dir=None, segment=None, \
                          lease_policy='fresh', mode=416, group=None, stale_after=1.0, value_scale=1.0, \
                          value_offset=0.0, timeout=5.0)"
    )]
    #[allow(clippy::too_many_arguments)] // Keywords of Python, each with a default.
    fn new(
        py: Python<'_>,
        name: &str,
        shape: Option<Vec<usize>>,
        format: &str,
        slots: u32,
        shm_dir: Option<std::path::PathBuf>,
        segment: Option<&str>,
        lease_policy: &str,
        mode: u32,
        group: Option<String>,
        stale_after: f64,
        value_scale: f32,
        value_offset: f32,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let ring = RingName::new(name).map_err(|error| create_error(py, &error.into()))?;
        let format = PixelFormat::from_word(format)
            .ok_or_else(|| PyValueError::new_err(format!("format is {format:?}; expected bgr, rgb, gray, ...")))?;
        let form = Form::new(format, shape).map_err(PyValueError::new_err)?;
        let mut options = WriterOptions::new(ring.clone());
        if let Some(segment) = segment {
            options.segment = SegmentName::new(segment).map_err(|error| create_error(py, &error.into()))?;
        }
        options.shm = handle::shm_dir(shm_dir);
        options.slots = slots;
        options.lease_policy = self::lease_policy(lease_policy)?;
        options.capacity = form.fixed().map_or(Capacity::FromSource, |geometry| Capacity::Bytes(geometry.len));
        options.mode = mode;
        options.group = group.map_or(ReaderGroup::Auto, ReaderGroup::Named);
        options.stale_after = duration("stale_after", Some(stale_after))?.unwrap_or_default();
        let (writer, started) = start(py, &options, duration("timeout", timeout)?)?;
        writer.status().set_text("camring.Writer", "");
        let desk = open_desk(writer)?;
        Ok(Self { ring, form, values: (value_scale, value_offset), adopted: started.adopted, desk })
    }

    /// Copies `array` into the ring as its newest frame and wakes the readers; returns the frame's number.
    ///
    /// array: a contiguous buffer of the ring's shape and items (a NumPy array, a `Frame`), or as many plain bytes where
    /// the ring's shape is fixed. arrival_ns: when the picture arrived, ns of CLOCK_MONOTONIC; None = now. source_seq:
    /// number of the source's picture; None = one more than the last. source_unix_ns: the source's own clock. like:
    /// the frame that the picture was made from: its times, source number and place in the source are taken over.
    #[pyo3(signature = (array, *, arrival_ns=None, source_seq=None, source_unix_ns=None, pts_ns=None, like=None))]
    #[allow(clippy::too_many_arguments)] // Keywords of Python, each with a default.
    fn publish(
        &self,
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        arrival_ns: Option<i64>,
        source_seq: Option<u64>,
        source_unix_ns: Option<i64>,
        pts_ns: Option<i64>,
        like: Option<&Bound<'_, Frame>>,
    ) -> PyResult<u64> {
        self.check_process(py)?;
        let given = Given::new(array).map_err(|why| {
            buffer_mismatch(py, format!("array {why}; pass a contiguous array, as numpy.ascontiguousarray makes it"))
        })?;
        let named = |why: String| buffer_mismatch(py, format!("ring \"{}\" {why}", self.ring));
        let geometry = self.form.geometry(&given).map_err(named)?;
        let mut meta = metadata(geometry, like.map(Bound::get))?;
        (meta.value_scale, meta.value_offset) = self.values;
        if let Some(arrival) = arrival_ns {
            meta.arrival_mono_ns = arrival;
            meta.arrival_real_ns = real_ns().saturating_sub(mono_ns().saturating_sub(arrival));
        }
        meta.source_seq = source_seq.unwrap_or(meta.source_seq);
        meta.source_unix_ns = source_unix_ns.or(meta.source_unix_ns);
        meta.pts_ns = pts_ns.unwrap_or(meta.pts_ns);
        let frame = array.cast::<Frame>().ok();
        let source = frame.map(|frame| frame.as_super().get());
        let put = py.detach(|| self.desk.put(&given, meta, || source.is_none_or(|pixels| pixels.is_valid())));
        put.map_err(|refusal| match refusal {
            Refusal::Closed => self.closed_error(),
            Refusal::Claim(ClaimError::Forked) | Refusal::Publish(PublishError::Forked) => {
                forked(py, self.ring.as_str(), self.desk.pid)
            }
            Refusal::Claim(error) => claim_error(py, self.ring.as_str(), &error),
            Refusal::Publish(error) => publish_error(py, &error),
            Refusal::Revoked => frame.map_or_else(|| self.closed_error(), |frame| frame.get().revoked(py)),
        })
    }

    /// Ends the ring's life with this writer: state `stopped`. The ring and its frames stay.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.desk.end(Reason::Operator));
    }

    /// Whether it was closed, or belongs to the process that this one was forked from.
    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        !self.desk.is_ours() || py.detach(|| self.desk.lock().is_none())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Closes; after an exception the ring's reason says `internal`.
    #[pyo3(signature = (exception_type=None, _exception=None, _traceback=None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exception_type: Option<&Bound<'_, PyAny>>,
        _exception: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) {
        let reason = if exception_type.is_some() { Reason::Internal } else { Reason::Operator };
        py.detach(|| self.desk.end(reason));
    }

    /// The ring's name.
    #[getter]
    fn name(&self) -> &str {
        self.ring.as_str()
    }

    /// The shape that every array must have; None = the array decides.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.form.shape().map(|shape| PyTuple::new(py, shape)).transpose()
    }

    /// How the bytes are to be read: `bgr`, `rgb`, `gray`, ...
    #[getter]
    fn format(&self) -> String {
        self.form.format().to_string()
    }

    /// Number of the newest frame, an earlier writer's included; 0 while there is none.
    #[getter]
    fn seq(&self, py: Python<'_>) -> PyResult<u64> {
        self.check_process(py)?;
        let newest = py.detach(|| self.desk.lock().as_ref().map(|open| open.writer.status().newest().0));
        newest.ok_or_else(|| self.closed_error())
    }

    /// Whether a ring was there and was taken over.
    #[getter]
    fn adopted(&self) -> bool {
        self.adopted
    }

    /// What is wrong with the ring's names or leases now, in words; None = nothing. Looks, and mends what it can.
    #[getter]
    fn problem(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.check_process(py)?;
        let settled = py.detach(|| self.desk.lock().as_ref().map(|open| open.writer.status().settle_names()));
        Ok(match settled.ok_or_else(|| self.closed_error())? {
            Err(error) => Some(error.to_string()),
            Ok(settled) if settled.lost => {
                Some(format!("ring \"{}\" has lost both its names; the next frame makes new ones", self.ring))
            }
            Ok(_) => self.desk.slow_locks.text(),
        })
    }

    fn __repr__(&self) -> String {
        format!("<camring.Writer \"{}\" {}>", self.ring, self.form.format())
    }
}

impl Writer {
    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        if self.desk.is_ours() { Ok(()) } else { Err(forked(py, self.ring.as_str(), self.desk.pid)) }
    }

    fn closed_error(&self) -> PyErr {
        PyValueError::new_err(format!("the writer of ring \"{}\" is closed; make another one", self.ring))
    }
}

/// Starts housekeeping, and has the writer ended with the interpreter.
fn open_desk(writer: camring_ring::Writer) -> PyResult<Arc<Desk>> {
    let slow_locks = Arc::<SlowLocks>::default();
    let seen = Arc::clone(&slow_locks);
    let house = Housekeeping::spawn(writer.status(), move |event| seen.note(&event))?;
    let open = Mutex::new(Some(Open { writer, house, live: false }));
    let desk = Arc::new(Desk { pid: std::process::id(), open, slow_locks });
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|desk| desk.strong_count() > 0);
    open.push(Arc::downgrade(&desk));
    Ok(desk)
}

/// Ends what nobody has closed; the package has `atexit` call it.
#[pyfunction]
pub(crate) fn _close_writers(py: Python<'_>) {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    py.detach(|| open.iter().filter_map(Weak::upgrade).for_each(|desk| desk.end(Reason::Operator)));
}
