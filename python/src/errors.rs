//! The ring's errors as the exceptions of `camring/_errors.py`: the whole text, and the facts as attributes.

use std::time::Duration;

use camring_ring::{AttachError, LayoutError, ReadError, Reason, State};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;

use crate::words;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;

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
