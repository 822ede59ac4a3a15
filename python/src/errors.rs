//! The ring's errors as the exceptions of `camring/_errors.py`: the whole text, and the facts as attributes.

use std::time::Duration;

use camring_ring::{
    AttachError, ClaimError, CreateError, LayoutError, PublishError, ReadError, Reason, Sequence, State,
};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;

use pyo3::exceptions::PyValueError;

use crate::words;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

/// An instance of the exception `class`, with attributes set by `facts`.
fn exception<'py>(
    py: Python<'py>,
    class: &str,
    args: impl PyCallArgs<'py>,
    facts: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<()>,
) -> PyErr {
    let build = || {
        let error = py.import("camring._errors")?.getattr(class)?.call1(args)?;
        facts(&error)?;
        Ok(PyErr::from_value(error))
    };
    build().unwrap_or_else(|error: PyErr| error)
}

fn plain(py: Python<'_>, class: &str, text: String) -> PyErr {
    exception(py, class, (text,), |_| Ok(()))
}

/// Errors that waiting can cure: the name is not there yet, or leads to something that is about to be replaced.
pub(crate) fn may_pass(error: &AttachError) -> bool {
    matches!(
        error,
        AttachError::NotFound { .. }
            | AttachError::Superseded(_)
            | AttachError::Removed(_)
            | AttachError::Layout { error: LayoutError::NotReady, .. }
    )
}

pub(crate) fn attach_error(py: Python<'_>, error: &AttachError) -> PyErr {
    let text = error.to_string();
    let system = |class: &str, errno: Option<i32>, path: Option<String>| {
        exception(py, class, (errno, text.clone(), path), |_| Ok(()))
    };
    match error {
        AttachError::Name(_) => plain(py, "InvalidName", text),
        AttachError::NotFound { looked, .. } => {
            system("RingNotFound", Some(ENOENT), looked.first().map(|path| path.display().to_string()))
        }
        AttachError::Removed(_) | AttachError::Superseded(_) => system("RingNotFound", Some(ENOENT), None),
        AttachError::Permission { path, .. } => {
            system("RingPermission", Some(EACCES), Some(path.display().to_string()))
        }
        AttachError::Untrusted { path, .. } => system("RingPermission", Some(EPERM), Some(path.display().to_string())),
        AttachError::Layout { .. } => plain(py, "LayoutMismatch", text),
        AttachError::Io { source, .. } => system("SystemRefused", source.raw_os_error(), None),
        _ => plain(py, "Error", text),
    }
}

pub(crate) fn read_error(py: Python<'_>, error: &ReadError) -> PyErr {
    let text = error.to_string();
    let camera = |error: &Bound<'_, PyAny>, state: State, reason: Reason| {
        error.setattr("state", words::state(py, state)?)?;
        error.setattr("reason", words::reason(py, reason)?)
    };
    match error {
        ReadError::NoFrame { state, reason, .. } => {
            exception(py, "NoFrame", (text,), |error| camera(error, *state, *reason))
        }
        ReadError::Timeout { state, reason, writer_alive, waited_ms, .. } => {
            exception(py, "Timeout", (text,), |error| {
                error.setattr("writer_alive", writer_alive)?;
                error.setattr("waited", *waited_ms as f64 / 1e3)?;
                camera(error, *state, *reason)
            })
        }
        ReadError::Stale { state, reason, age_ms, limit_ms, .. } => exception(py, "StaleFrame", (text,), |error| {
            error.setattr("age", *age_ms as f64 / 1e3)?;
            error.setattr("limit", *limit_ms as f64 / 1e3)?;
            camera(error, *state, *reason)
        }),
        ReadError::Overrun { oldest, .. } => {
            exception(py, "Overrun", (text,), |error| error.setattr("oldest", oldest.0))
        }
        ReadError::Revoked { seq, .. } => exception(py, "Revoked", (text,), |error| error.setattr("seq", seq.0)),
        ReadError::LeaseUnavailable { .. } => plain(py, "LeaseUnavailable", text),
        ReadError::NotYet { seq, newest, .. } => exception(py, "NotYet", (text,), |error| {
            error.setattr("seq", seq.0)?;
            error.setattr("newest", newest.0)
        }),
        ReadError::Apart { ring, wanted_ns, nearest_ns, tolerance_ns } => exception(py, "Apart", (text,), |error| {
            error.setattr("ring", ring)?;
            error.setattr("wanted_ns", wanted_ns)?;
            error.setattr("nearest_ns", nearest_ns)?;
            error.setattr("tolerance", *tolerance_ns as f64 / 1e9)
        }),
        ReadError::Removed { .. } | ReadError::Superseded { .. } => {
            exception(py, "RingNotFound", (ENOENT, text), |_| Ok(()))
        }
        ReadError::BufferSize { .. } => plain(py, "BufferMismatch", text),
        ReadError::UnknownFormat { .. } | ReadError::Corrupt { .. } => plain(py, "LayoutMismatch", text),
        _ => plain(py, "Error", text),
    }
}

/// A timeout over several waits: `error` of the last one, with the time of all.
pub(crate) fn waited(error: ReadError, total: Duration) -> ReadError {
    let total_ms = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
    match error {
        ReadError::Timeout { ring, state, reason, writer_alive, .. } => {
            ReadError::Timeout { ring, state, reason, writer_alive, waited_ms: total_ms }
        }
        other => other,
    }
}

pub(crate) fn buffer_mismatch(py: Python<'_>, text: String) -> PyErr {
    plain(py, "BufferMismatch", text)
}

/// Why a writer cannot have its ring.
pub(crate) fn create_error(py: Python<'_>, error: &CreateError) -> PyErr {
    let text = error.to_string();
    let system = |class: &str, errno: Option<i32>, path: Option<&std::path::Path>| {
        exception(py, class, (errno, text.clone(), path.map(|path| path.display().to_string())), |_| Ok(()))
    };
    match error {
        CreateError::Name(_) => plain(py, "InvalidName", text),
        CreateError::Size { .. } => PyValueError::new_err(text),
        CreateError::Busy { pid, .. } => {
            exception(py, "RingBusy", (EBUSY, text), |error| error.setattr("pid", (*pid != 0).then_some(*pid)))
        }
        CreateError::NoRoom { needed, free, mount, .. } => {
            exception(py, "NoRoom", (ENOSPC, text, mount.display().to_string()), |error| {
                error.setattr("needed", needed)?;
                error.setattr("free", free)
            })
        }
        CreateError::NotTmpfs(path) => system("SystemRefused", Some(EOPNOTSUPP), Some(path)),
        CreateError::AnchorFolder { path, .. } | CreateError::ForeignOwner { path, .. } => {
            system("RingPermission", Some(EPERM), Some(path))
        }
        CreateError::Group { .. } => system("RingPermission", Some(EPERM), None),
        CreateError::NameTaken { path, .. } => system("NameTaken", Some(EEXIST), Some(path)),
        CreateError::Io { source, .. } => system("SystemRefused", source.raw_os_error(), None),
        _ => plain(py, "Error", text),
    }
}

/// Why a picture got no slot.
pub(crate) fn claim_error(py: Python<'_>, ring: &str, error: &ClaimError) -> PyErr {
    let text = format!("ring \"{ring}\": {error}");
    match error {
        ClaimError::NoSlot | ClaimError::Leased => plain(py, "NoSlot", text),
        ClaimError::NoLargerRing(error) => create_error(py, error),
        ClaimError::Waiting => exception(py, "NoRoom", (ENOSPC, text), |error| {
            error.setattr("needed", py.None())?;
            error.setattr("free", py.None())
        }),
        ClaimError::TooLarge { .. } => buffer_mismatch(py, text),
        _ => plain(py, "Error", text),
    }
}

/// Why a filled slot was not published.
pub(crate) fn publish_error(py: Python<'_>, error: &PublishError) -> PyErr {
    match error {
        PublishError::Names(error) => create_error(py, error),
        error => plain(py, "Error", error.to_string()),
    }
}

/// A writer that was inherited by a forked child.
pub(crate) fn forked(py: Python<'_>, ring: &str, pid: u32) -> PyErr {
    let text = format!("ring \"{ring}\" is written by process {pid}, which this one was forked from; publish there");
    exception(py, "Forked", (text,), |error| error.setattr("pid", pid))
}

/// What was read from a leased frame that has been overwritten.
pub(crate) fn revoked(py: Python<'_>, ring: &str, seq: Sequence) -> PyErr {
    read_error(py, &ReadError::Revoked { ring: ring.to_owned(), seq })
}
