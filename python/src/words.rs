//! The ring's words as Python objects: the enums of `camring/_words.py`.

use camring_ring::{FrameFlags, PixelFormat, Reason, State};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A member of one of the package's enums, or a named tuple.
pub(crate) fn member<'py>(py: Python<'py>, class: &str, word: String) -> PyResult<Bound<'py, PyAny>> {
    py.import("camring._words")?.getattr(class)?.call1((word,))
}

pub(crate) fn state(py: Python<'_>, state: State) -> PyResult<Bound<'_, PyAny>> {
    member(py, "State", state.to_string())
}

pub(crate) fn reason(py: Python<'_>, reason: Reason) -> PyResult<Bound<'_, PyAny>> {
    member(py, "Reason", reason.to_string())
}

/// Every word of the layout, by kind; the package's enums are tested against it.
#[pyfunction]
#[pyo3(name = "_words")]
pub(crate) fn all(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let words = PyDict::new(py);
    words.set_item("state", State::ALL.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    words.set_item("reason", Reason::ALL.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    words.set_item("format", PixelFormat::ALL.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    words.set_item("flags", FrameFlags::WORDS.to_vec())?;
    Ok(words)
}
