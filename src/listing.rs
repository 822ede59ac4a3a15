//! What rings there are on this machine: the objects behind `list --json` and `/api/rings`.
//!
//! The keys of an object are those of [`RingReport`].

use std::time::Duration;

use camring_ring::{AttachError, AttachOptions, OwnerPolicy, Presence, Ring, RingName, ShmDir};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::report::RingReport;

/// How long a listing waits for a ring that is being replaced at this moment.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// One line of a listing.
#[derive(Debug)]
pub enum Line {
    /// A ring that can be read.
    Ring(Box<RingReport>),
    /// The name of one that cannot, and why.
    Unreadable(String, AttachError),
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ring(report) => report.serialize(serializer),
            Self::Unreadable(name, error) => {
                let mut map = serializer.serialize_map(Some(RingReport::KEYS.len()))?;
                for key in RingReport::KEYS {
                    match key {
                        "name" => map.serialize_entry(key, name)?,
                        "error" => map.serialize_entry(key, &error.to_string())?,
                        _ => map.serialize_entry(key, &None::<()>)?,
                    }
                }
                map.end()
            }
        }
    }
}

/// Attaches as an onlooker, who keeps no camera awake, to a ring that must be there.
///
/// # Errors
///
/// [`AttachError`].
pub fn look(shm: &ShmDir, name: &str, owner: OwnerPolicy) -> Result<Ring, AttachError> {
    let options = AttachOptions { shm: shm.clone(), timeout: Some(PATIENCE), owner, presence: Presence::Uncounted };
    Ring::attach(name, options)
}

/// The line of one ring; `None` for one that went away between the listing and the look.
#[must_use]
pub fn line(shm: &ShmDir, name: &RingName, owner: OwnerPolicy) -> Option<Line> {
    match look(shm, name.as_str(), owner) {
        Ok(ring) => Some(Line::Ring(Box::new(RingReport::observe(&ring, name.as_str())))),
        Err(AttachError::NotFound { .. } | AttachError::Removed(_)) => None,
        Err(error) => Some(Line::Unreadable(name.to_string(), error)),
    }
}
