//! Names of rings and segments, and the folders they live in; the only way to a path.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest camera or output name.
const PART_MAX: usize = 48;
/// Longest file name on Linux.
const FILE_NAME_MAX: usize = 255;

/// Why a name is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NameError {
    name: String,
    problem: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name {:?} {}", self.name, self.problem)
    }
}

impl std::error::Error for NameError {}

/// Name of a ring: a camera (`front`), or one of its outputs (`front.small`).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RingName(String);

impl RingName {
    /// Checks `CAMERA` or `CAMERA.OUTPUT`, each `[a-z0-9][a-z0-9_-]{0,47}`.
    ///
    /// # Errors
    ///
    /// [`NameError`] says which rule is broken.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let refuse = |problem| NameError { name: name.clone(), problem };
        let mut parts = name.split('.');
        let camera = parts.next().unwrap_or_default();
        let output = parts.next();
        if parts.next().is_some() {
            return Err(refuse("has more than one dot; expected CAMERA or CAMERA.OUTPUT"));
        }
        if !is_part(camera) || output.is_some_and(|output| !is_part(output)) {
            return Err(refuse(
                "is no ring name; expected 1 to 48 of a-z, 0-9, _ and -, beginning with a letter or digit",
            ));
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the dot.
    #[must_use]
    pub fn camera(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }

    /// The public name that a ring has unless another one is configured.
    #[must_use]
    pub fn default_segment(&self) -> SegmentName {
        SegmentName(format!("camring.{}", self.0))
    }
}

impl fmt::Display for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn is_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first
        && bytes.len() <= PART_MAX
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// A file name in the memory mount: what `shm_open` and Python's `SharedMemory` call the segment.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SegmentName(String);

impl SegmentName {
    /// Checks that `name` is one plain file name that does not begin with a dot.
    ///
    /// # Errors
    ///
    /// [`NameError`] says which rule is broken.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let problem = if name.is_empty() {
            "is empty; expected a file name"
        } else if name.len() > FILE_NAME_MAX {
            "is longer than 255 bytes"
        } else if name.starts_with('.') {
            "begins with a dot; such names are internal"
        } else if name.contains(['/', '\0']) {
            "contains a slash or a zero byte; expected one file name, not a path"
        } else {
            return Ok(Self(name));
        };
        Err(NameError { name, problem })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The memory mount and the folders in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShmDir {
    root: PathBuf,
}

impl Default for ShmDir {
    fn default() -> Self {
        Self::new("/dev/shm")
    }
}

impl ShmDir {
    /// A mount other than `/dev/shm`; it must be a tmpfs.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The mount itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The public name of a segment.
    #[must_use]
    pub fn public(&self, segment: &SegmentName) -> PathBuf {
        self.root.join(segment.as_str())
    }

    /// The anchor folder of the system service.
    #[must_use]
    pub fn system_anchors(&self) -> PathBuf {
        self.root.join("camring.d")
    }

    /// The anchor folder of a user without rights on the system's.
    #[must_use]
    pub fn user_anchors(&self) -> PathBuf {
        self.root.join(format!("camring-{}.d", rustix::process::geteuid().as_raw()))
    }

    /// Where `attach` looks for `name`, in this order.
    #[must_use]
    pub fn candidates(&self, name: &SegmentName) -> [PathBuf; 3] {
        [self.system_anchors().join(name.as_str()), self.user_anchors().join(name.as_str()), self.public(name)]
    }
}

/// The paths of one ring inside an anchor folder.
#[derive(Clone, Debug)]
pub(crate) struct RingPaths {
    pub(crate) anchors: PathBuf,
    pub(crate) anchor: PathBuf,
    pub(crate) public: PathBuf,
    pub(crate) lock: PathBuf,
    temp_prefix: String,
}

impl RingPaths {
    pub(crate) fn new(shm: &ShmDir, anchors: PathBuf, ring: &RingName, segment: &SegmentName) -> Self {
        Self {
            anchor: anchors.join(ring.as_str()),
            public: shm.public(segment),
            lock: anchors.join(format!(".lock-{ring}")),
            temp_prefix: format!(".tmp-{ring}~"),
            anchors,
        }
    }

    /// A name for building under; removed by the next start if a crash leaves it behind.
    pub(crate) fn temp(&self) -> PathBuf {
        self.anchors.join(format!("{}{:016x}", self.temp_prefix, crate::process::random_u64()))
    }

    fn is_temp(&self, file_name: &OsString) -> bool {
        file_name.to_str().is_some_and(|name| name.starts_with(&self.temp_prefix))
    }

    /// Removes what a crash while building left behind; only under the writer's lock.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.anchors) else { return };
        for entry in entries.flatten() {
            if self.is_temp(&entry.file_name()) {
                // Another user's leftovers cannot be removed and do no harm: the names are random.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_names_are_a_camera_or_a_camera_and_an_output() {
        for good in ["front", "front.small", "0", "a-b_c", &"x".repeat(48)] {
            assert_eq!(RingName::new(good).map(|name| name.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", ".", "a.", ".a", "a.b.c", "A", "a b", "-a", "a/b", "ä", &"x".repeat(49)] {
            assert!(RingName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn segment_names_are_one_visible_file_name() {
        assert!(SegmentName::new("camring.front").is_ok());
        for bad in ["", ".lock-front", "a/b", "/a", "a\0b", &"x".repeat(256)] {
            assert!(SegmentName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
