//! Keeping alive: whether requests keep a camera from ending its sessions, found out by trying.

use std::time::Duration;

/// A session that is so much older than others were when they were cut has outlived them.
const OUTLIVED: (u32, u32) = (5, 4);
/// Requests in the time after which the camera ends a session: one may come late.
const REQUESTS: u32 = 3;

/// What is known of requests to a camera that ends each session at the same age.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Keeping {
    /// They were not tried, or not yet for long enough.
    #[default]
    Unknown,
    /// They keep sessions alive when they are so far apart.
    Works(Duration),
    /// They do not.
    Useless,
}

impl Keeping {
    /// How far apart requests are to be sent to a camera that ends each session at this `age`; `None` = none are.
    pub(super) fn every(self, age: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Unknown => age.map(|age| age / REQUESTS),
            Self::Works(every) => Some(every),
            Self::Useless => None,
        }
    }

    /// Whether a session that has lived for `lived` with answered requests proves that they work.
    pub(super) fn is_outlived(age: Duration, lived: Duration) -> bool {
        lived >= age / OUTLIVED.1 * OUTLIVED.0
    }
}
