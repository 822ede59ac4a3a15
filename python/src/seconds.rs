//! Python's seconds as durations, and waits that Ctrl-C can end.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Longest time without looking for a signal.
const SLICE: Duration = Duration::from_millis(200);

/// `None` and infinity mean for ever.
pub(crate) fn duration(what: &str, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds == f64::INFINITY => Ok(None),
        Some(seconds) => Duration::try_from_secs_f64(seconds).map(Some).map_err(|error| {
            PyValueError::new_err(format!("{what} is {seconds}; expected None or seconds from 0 on ({error})"))
        }),
    }
}

/// One wait, taken in slices.
pub(crate) struct Wait {
    started: Instant,
    deadline: Option<Instant>,
}

impl Wait {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        let started = Instant::now();
        // A time beyond what the clock can express is for ever.
        Self { started, deadline: timeout.and_then(|timeout| started.checked_add(timeout)) }
    }

    /// How long to sleep next; zero once the time is up.
    pub(crate) fn slice(&self) -> Duration {
        self.deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()).min(SLICE))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    pub(crate) fn waited(&self) -> Duration {
        self.started.elapsed()
    }
}
