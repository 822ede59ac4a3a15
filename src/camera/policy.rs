//! The supervisor's limits, with the defaults of the configuration.

use std::time::Duration;

use crate::backoff::RetryPolicy;
use crate::source::Demand;

/// How patient the supervisor is; every duration is counted from the event its text names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// When to try again (`reconnect.*`).
    pub retry: RetryPolicy,
    /// From the start of a try to the first packet (`reconnect.connect_timeout`); must exceed the request timeout.
    pub connect_timeout: Duration,
    /// From the first packet to the first published frame; must exceed the camera's keyframe interval. Also the
    /// patience for a session's second frame, before which the frame interval is not known.
    pub sync_timeout: Duration,
    /// From the newest decoded frame to a stall (`stall_after`); `None` = 10 frame intervals, between 2 s and 5 s,
    /// never under 3 intervals.
    pub stall_after: Option<Duration>,
    /// From the newest decoded frame to "the decoder is stuck", while packets arrive and the gate is open.
    pub stuck_after: Duration,
    /// How long the keyframe gate may be closed, and how long trouble must be gone, before the state changes.
    pub settle: Duration,
    /// Frames that reach the ring later than this are late.
    pub max_lag: Duration,
    /// From degraded to a forced reconnect.
    pub degraded_deadline: Duration,
    /// Least time between two forced reconnects.
    pub forced_apart: Duration,
    /// How long the picture may not change by a bit (`frozen_after`); `None` = for ever.
    pub frozen_after: Option<Duration>,
    /// What is asked of the session while nobody reads (`idle`).
    pub idle: Demand,
    /// For so long nobody has read before that begins.
    pub idle_after: Duration,
    /// For ending a session; beyond it the process has to be replaced.
    pub teardown: Duration,
    /// The same when the operator has asked to stop.
    pub stop_teardown: Duration,
    /// After so long live, a new failure counts as the first one.
    pub live_reset: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            connect_timeout: Duration::from_secs(10),
            sync_timeout: Duration::from_secs(15),
            stall_after: None,
            stuck_after: Duration::from_secs(5),
            settle: Duration::from_secs(1),
            max_lag: Duration::from_secs(1),
            degraded_deadline: Duration::from_secs(20),
            forced_apart: Duration::from_secs(300),
            frozen_after: None,
            idle: Demand::All,
            idle_after: Duration::from_secs(10),
            teardown: Duration::from_secs(3),
            stop_teardown: Duration::from_millis(1500),
            live_reset: Duration::from_secs(30),
        }
    }
}
