//! Waiting as C asks for it: nanoseconds or for ever, ended by a detach in another thread.

use std::time::{Duration, Instant};

use camring_ring::{Frame, Liveness, ReadError, Ring, wait_any};

use crate::error::{Code, Failure};
use crate::handles::{self, Attached, RingHandle};

/// The timeout of a call that waits as long as it takes, or until another thread detaches the ring.
pub const CAMRING_FOREVER: i64 = -1;

/// After so long at most a wait notices that its ring was detached.
const SLICE: Duration = Duration::from_millis(250);

/// How long a caller is willing to wait.
pub(crate) struct Patience {
    started: Instant,
    /// `None` = for ever.
    deadline: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(timeout_ns: i64) -> Result<Self, Failure> {
        let started = Instant::now();
        let deadline = match timeout_ns {
            CAMRING_FOREVER => None,
            0.. => started.checked_add(Duration::from_nanos(timeout_ns.cast_unsigned())),
            _ => {
                let text = format!("timeout_ns is {timeout_ns}; expected 0 or more, or CAMRING_FOREVER");
                return Err(Failure::new(Code::Argument, text));
            }
        };
        Ok(Self { started, deadline })
    }

    /// What is left; `None` = for ever.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The next stretch of the wait, and whether it is the last one.
    pub(crate) fn slice(&self) -> (Duration, bool) {
        match self.left() {
            Some(left) if left <= SLICE => (left, true),
            _ => (SLICE, false),
        }
    }

    fn waited_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What there is to say when a wait for this ring alone has ended without a frame.
    fn timed_out(&self, ring: &Ring) -> Failure {
        let status = ring.status();
        let error = ReadError::Timeout {
            ring: ring.name().to_owned(),
            state: status.state,
            reason: status.reason,
            writer_alive: ring.liveness() != Liveness::Gone,
            waited_ms: self.waited_ms(),
        };
        error.into()
    }
}

/// Waits until the ring has a frame newer than the last one its handle has returned.
pub(crate) fn newer(attached: &Attached, patience: &Patience) -> Result<(), Failure> {
    loop {
        let (slice, is_last) = patience.slice();
        let began = Instant::now();
        if attached.ring.wait(attached.ring.last_seq(), Some(slice)) {
            return Ok(());
        }
        attached.still()?;
        if began.elapsed() < slice && attached.ring.is_removed() {
            return Err(removed(&attached.ring));
        }
        if is_last {
            return Err(patience.timed_out(&attached.ring));
        }
    }
}

/// What there is to say when a wait ended early because its ring is gone for good.
fn removed(ring: &Ring) -> Failure {
    ReadError::Removed { ring: ring.name().to_owned() }.into()
}

/// Waits until one of the rings has a frame newer than the last one its handle has returned; the places of those.
pub(crate) fn any(handles: &[*mut RingHandle], patience: &Patience) -> Result<Vec<usize>, Failure> {
    let attached = handles.iter().map(|handle| handles::ring(*handle)).collect::<Result<Vec<_>, _>>()?;
    let rings: Vec<&Ring> = attached.iter().map(|attached| &attached.ring).collect();
    loop {
        let (slice, is_last) = patience.slice();
        let began = Instant::now();
        let ready = wait_any(&rings, Some(slice));
        if !ready.is_empty() {
            return Ok(ready);
        }
        attached.iter().try_for_each(|attached| attached.still())?;
        if began.elapsed() < slice && rings.iter().all(|ring| ring.is_removed()) {
            return Err(removed(rings[0]));
        }
        if is_last {
            let (count, waited_ms) = (rings.len(), patience.waited_ms());
            return Err(Failure::new(
                Code::Timeout,
                format!("no new frame in any of {count} rings for {waited_ms} ms"),
            ));
        }
    }
}

/// Repeats `read`, which waits as long as it is told, until it does not time out or the caller's patience ends.
pub(crate) fn frame(
    attached: &Attached,
    patience: &Patience,
    mut read: impl FnMut(&Ring, Duration) -> Result<Frame, ReadError>,
) -> Result<Frame, ReadFailure> {
    loop {
        let (slice, is_last) = patience.slice();
        match read(&attached.ring, slice) {
            Err(ReadError::Timeout { ring, state, reason, writer_alive, .. }) if is_last => {
                let waited_ms = patience.waited_ms();
                return Err(ReadError::Timeout { ring, state, reason, writer_alive, waited_ms }.into());
            }
            // The name may lead to a new generation before the caller's patience ends.
            Err(ReadError::Timeout { .. } | ReadError::Superseded { .. }) if !is_last => attached.still()?,
            other => return Ok(other?),
        }
    }
}

/// Why a wait for a frame ended without one.
pub(crate) enum ReadFailure {
    /// As the ring says.
    Read(ReadError),
    /// The handle was given back.
    Ended(Failure),
}

impl From<ReadError> for ReadFailure {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<Failure> for ReadFailure {
    fn from(failure: Failure) -> Self {
        Self::Ended(failure)
    }
}

impl From<ReadFailure> for Failure {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Read(error) => error.into(),
            ReadFailure::Ended(failure) => failure,
        }
    }
}
