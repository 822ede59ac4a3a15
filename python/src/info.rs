//! `RingInfo` and `Stats`: what a ring says about itself, and what a handle has been through.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use camring_ring::clock::mono_ns;
use camring_ring::{AttachError, AttachOptions, Liveness, Presence, ReaderStats, RingName, ShmDir, Status};
use pyo3::prelude::*;

use crate::handle;
use crate::words;

/// A frame rate is shown for so long, or three frame intervals, after the newest frame.
const RATE_HOLDS: Duration = Duration::from_secs(1);

/// What one ring says about itself, at one moment.
#[pyclass(frozen, module = "camring")]
pub(crate) struct RingInfo {
    name: String,
    /// What keeps this process from reading it; everything else is then at its default.
    error: Option<String>,
    state: Option<camring_ring::State>,
    reason: Option<camring_ring::Reason>,
    segment: String,
    writer_alive: bool,
    writer_epoch: u32,
    generation: String,
    slots: u32,
    file_bytes: u64,
    seq: u64,
    fps: f64,
    /// Width, height and format of the newest frame.
    picture: Option<(u32, u32, String)>,
    age: Option<f64>,
    stale: bool,
    readers: Vec<u32>,
    decoder: String,
    codec: String,
    counters: BTreeMap<&'static str, u64>,
}

impl RingInfo {
    /// What `ring` says now.
    pub(crate) fn of(name: &str, ring: &camring_ring::Ring) -> Self {
        let (status, layout) = (ring.status(), ring.layout());
        let newest = ring.peek().ok();
        let age_ns = newest.as_ref().map(|meta| ring.age(meta).ns);
        let stale_after_ns = i64::from(layout.stale_after_ms) * 1_000_000;
        Self {
            name: name.to_owned(),
            error: None,
            state: Some(status.state),
            reason: Some(status.reason),
            segment: layout.segment_name,
            writer_alive: ring.liveness() != Liveness::Gone,
            writer_epoch: status.writer_epoch,
            generation: status.generation.to_string(),
            slots: layout.slot_count,
            file_bytes: layout.file_bytes,
            seq: status.seq.0,
            fps: fps(&status),
            picture: newest.map(|m| (m.geometry.width, m.geometry.height, m.geometry.format.to_string())),
            age: age_ns.map(|age| age as f64 / 1e9),
            // An age below zero is of another clock, never fresh.
            stale: stale_after_ns > 0 && age_ns.is_some_and(|age| !(0..=stale_after_ns).contains(&age)),
            readers: ring.readers(),
            decoder: status.decoder,
            codec: status.codec,
            counters: status.counters.into_iter().collect(),
        }
    }

    fn unreadable(name: &str, error: &AttachError) -> Self {
        Self {
            name: name.to_owned(),
            error: Some(error.to_string()),
            state: None,
            reason: None,
            segment: String::new(),
            writer_alive: false,
            writer_epoch: 0,
            generation: String::new(),
            slots: 0,
            file_bytes: 0,
            seq: 0,
            fps: 0.0,
            picture: None,
            age: None,
            stale: false,
            readers: Vec::new(),
            decoder: String::new(),
            codec: String::new(),
            counters: BTreeMap::new(),
        }
    }

    /// Looks at one ring without counting as a reader; `None` when it went away meanwhile.
    fn look(shm: &ShmDir, name: &RingName) -> Option<Self> {
        let options = AttachOptions {
            shm: shm.clone(),
            timeout: Some(Duration::ZERO),
            presence: Presence::Uncounted,
            ..AttachOptions::default()
        };
        match camring_ring::Ring::attach(name.as_str(), options) {
            Ok(ring) => Some(Self::of(name.as_str(), &ring)),
            Err(AttachError::NotFound { .. } | AttachError::Removed(_)) => None,
            Err(error) => Some(Self::unreadable(name.as_str(), &error)),
        }
    }
}

/// Frames per second while they come, else 0.
fn fps(status: &Status) -> f64 {
    let interval = Duration::from_micros(status.frame_interval_us.into());
    let now = u64::try_from(mono_ns()).unwrap_or(0);
    let silent = Duration::from_nanos(now.saturating_sub(status.last_publish_mono_ns));
    if interval.is_zero() || silent > RATE_HOLDS.max(interval * 3) { 0.0 } else { 1.0 / interval.as_secs_f64() }
}

#[pymethods]
impl RingInfo {
    /// The ring's name, as `attach` takes it.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// What keeps this process from reading it, else None; every other field but the name is then empty.
    #[getter]
    fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Its public name in the memory mount.
    #[getter]
    fn segment(&self) -> &str {
        &self.segment
    }

    /// What its daemon is doing.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.state.map(|state| words::state(py, state)).transpose()
    }

    /// Why.
    #[getter]
    fn reason<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.reason.map(|reason| words::reason(py, reason)).transpose()
    }

    /// Whether a daemon holds it.
    #[getter]
    fn writer_alive(&self) -> bool {
        self.writer_alive
    }

    /// Daemons that have owned this generation.
    #[getter]
    fn writer_epoch(&self) -> u32 {
        self.writer_epoch
    }

    /// Identity of its file, 32 hexadecimal digits.
    #[getter]
    fn generation(&self) -> &str {
        &self.generation
    }

    /// Frames it keeps.
    #[getter]
    fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of memory it takes.
    #[getter]
    fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Number of the newest frame; 0 = none yet.
    #[getter]
    fn seq(&self) -> u64 {
        self.seq
    }

    /// Frames per second; 0 while none come.
    #[getter]
    fn fps(&self) -> f64 {
        self.fps
    }

    /// Width of the newest frame, pixels; None while there is none.
    #[getter]
    fn width(&self) -> Option<u32> {
        self.picture.as_ref().map(|picture| picture.0)
    }

    /// Height of the newest frame, pixels; None while there is none.
    #[getter]
    fn height(&self) -> Option<u32> {
        self.picture.as_ref().map(|picture| picture.1)
    }

    /// Format of the newest frame; None while there is none.
    #[getter]
    fn format(&self) -> Option<&str> {
        self.picture.as_ref().map(|picture| picture.2.as_str())
    }

    /// Age of the newest frame, seconds; None while there is none.
    #[getter]
    fn age(&self) -> Option<f64> {
        self.age
    }

    /// Whether the newest frame is older than the ring's `stale_after`.
    #[getter]
    fn stale(&self) -> bool {
        self.stale
    }

    /// Pids of the readers that count themselves.
    #[getter]
    fn readers(&self) -> Vec<u32> {
        self.readers.clone()
    }

    /// The decoder; empty before the first session.
    #[getter]
    fn decoder(&self) -> &str {
        &self.decoder
    }

    /// The stream's codec; empty before the first session.
    #[getter]
    fn codec(&self) -> &str {
        &self.codec
    }

    /// The daemon's counters by name.
    #[getter]
    fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.counters.clone()
    }

    fn __repr__(&self) -> String {
        match (&self.error, &self.state) {
            (None, Some(state)) => format!("<camring.RingInfo \"{}\" {state}, newest frame {}>", self.name, self.seq),
            (error, _) => format!("<camring.RingInfo \"{}\": {}>", self.name, error.as_deref().unwrap_or_default()),
        }
    }
}

/// The rings on this machine, by name; those that this process may not read carry an `error`.
#[pyfunction]
#[pyo3(signature = (*, shm_dir=None))]
pub(crate) fn rings(py: Python<'_>, shm_dir: Option<PathBuf>) -> PyResult<Vec<RingInfo>> {
    let shm = handle::shm_dir(shm_dir);
    let infos = py.detach(|| {
        let names = camring_ring::rings(&shm)?;
        Ok::<_, std::io::Error>(names.iter().filter_map(|name| RingInfo::look(&shm, name)).collect())
    });
    Ok(infos?)
}

/// What a handle has been through.
#[pyclass(frozen, module = "camring")]
pub(crate) struct Stats(pub(crate) ReaderStats);

#[pymethods]
impl Stats {
    /// Different frames returned.
    #[getter]
    fn frames(&self) -> u64 {
        self.0.frames
    }

    /// Frames published but not returned.
    #[getter]
    fn skipped(&self) -> u64 {
        self.0.skipped
    }

    /// Copies that the writer overtook and that were repeated.
    #[getter]
    fn retries(&self) -> u64 {
        self.0.retries
    }

    /// Generations followed.
    #[getter]
    fn followed(&self) -> u64 {
        self.0.followed
    }

    /// Generations that did not continue the numbers of the one before.
    #[getter]
    fn resets(&self) -> u64 {
        self.0.resets
    }

    /// Sleeps that ended by themselves although something had changed.
    #[getter]
    fn missed_wakes(&self) -> u64 {
        self.0.missed_wakes
    }

    fn __repr__(&self) -> String {
        let ReaderStats { frames, skipped, retries, followed, resets, missed_wakes } = self.0;
        format!(
            "<camring.Stats frames={frames} skipped={skipped} retries={retries} followed={followed} resets={resets} \
             missed_wakes={missed_wakes}>"
        )
    }
}
