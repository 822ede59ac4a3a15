//! The handle behind a Python `Ring`: attaches by slices, and can be closed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camring_ring::{AttachOptions, OwnerPolicy, Presence, Ring, ShmDir};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::{attach_error, may_pass};
use crate::seconds::Wait;

/// Where rings are when the caller does not say.
const SHM_DIR: &str = "CAMRING_SHM_DIR";

/// The memory mount that `shm_dir`, else the environment, else the system names.
pub(crate) fn shm_dir(shm_dir: Option<PathBuf>) -> ShmDir {
    let from_environment = || std::env::var_os(SHM_DIR).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    shm_dir.or_else(from_environment).map(ShmDir::new).unwrap_or_default()
}

/// `None`, a user's number, or the word `any`.
pub(crate) fn owner(owner: Option<&Bound<'_, PyAny>>) -> PyResult<OwnerPolicy> {
    let Some(owner) = owner else { return Ok(OwnerPolicy::Usual) };
    if let Ok(uid) = owner.extract::<u32>() {
        return Ok(OwnerPolicy::Uid(uid));
    }
    if owner.extract::<&str>().is_ok_and(|word| word == "any") {
        return Ok(OwnerPolicy::Any);
    }
    Err(PyValueError::new_err(format!("owner is {}; expected None, a user's number, or \"any\"", owner.repr()?)))
}

/// How a worker attaches.
pub(crate) fn options(timeout: Option<Duration>, shm: ShmDir, owner: OwnerPolicy) -> AttachOptions {
    AttachOptions { shm, timeout, owner, presence: Presence::Counted }
}

/// Attaches with the interpreter lock released; Ctrl-C ends the wait for the name.
pub(crate) fn attach(py: Python<'_>, name: &str, options: &AttachOptions) -> PyResult<Ring> {
    let wait = Wait::new(options.timeout);
    loop {
        let slice = AttachOptions { timeout: Some(wait.slice()), ..options.clone() };
        match py.detach(|| Ring::attach(name, slice)) {
            Ok(ring) => return Ok(ring),
            Err(error) if may_pass(&error) && !wait.is_over() => py.check_signals()?,
            Err(error) => return Err(attach_error(py, &error)),
        }
    }
}

/// A ring by name, attached in this process.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) name: String,
    pub(crate) options: AttachOptions,
    /// `None` once closed. Locked only with the interpreter lock held and never while it is released: a fork, which
    /// needs that lock too, can therefore not leave it locked in the child.
    ring: Mutex<Option<Arc<Ring>>>,
}

impl Handle {
    pub(crate) fn attach(py: Python<'_>, name: String, options: AttachOptions) -> PyResult<Self> {
        let ring = Arc::new(attach(py, &name, &options)?);
        Ok(Self { name, options, ring: Mutex::new(Some(ring)) })
    }

    /// The attached ring, which attaches again by itself in a forked child.
    pub(crate) fn ring(&self) -> PyResult<Arc<Ring>> {
        self.lock()
            .clone()
            .ok_or_else(|| PyValueError::new_err(format!("ring \"{}\" is closed; attach again", self.name)))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    /// Detaches; waits of other threads end within their slice.
    pub(crate) fn close(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Ring>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
