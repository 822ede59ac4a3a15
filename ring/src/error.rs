//! What can go wrong: every text names the object, what was found, what was expected and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::frame::{Reason, Sequence, State};
use crate::layout::LayoutError;
use crate::name::NameError;
use crate::process::{group_words, user_words};

/// Bytes as people write them: `47.5 MiB`.
#[must_use]
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// Why a daemon cannot have its ring.
#[derive(Debug)]
#[non_exhaustive]
pub enum CreateError {
    /// The name is not one.
    Name(NameError),
    /// Another process writes this ring.
    Busy {
        /// The ring.
        ring: String,
        /// Its writer as the lock file says; 0 = not readable.
        pid: u32,
    },
    /// The memory mount is full.
    NoRoom {
        /// The ring.
        ring: String,
        /// Bytes it needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The mount.
        mount: PathBuf,
    },
    /// The mount is no tmpfs.
    NotTmpfs(PathBuf),
    /// The anchor folder cannot be trusted.
    AnchorFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A ring or name of another user is in the way.
    ForeignOwner {
        /// The ring.
        ring: String,
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The public name belongs to something else.
    NameTaken {
        /// The ring.
        ring: String,
        /// The name.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The group does not exist or the ring may not be given to it.
    Group {
        /// The group.
        group: String,
        /// Why.
        problem: String,
    },
    /// The sizes make no ring.
    Size {
        /// Slots asked for.
        slots: u32,
        /// Bytes of a slot asked for.
        slot_bytes: u64,
    },
    /// `CAMRING_CRASH_AT` names no point.
    CrashPoint {
        /// What it says.
        found: String,
    },
    /// The system refused something.
    Io {
        /// What was tried, with the path.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl CreateError {
    pub(crate) fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { action: action.into(), source: source.into() }
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Busy { ring, pid: 0 } => {
                write!(f, "ring \"{ring}\" is already written by another process; stop it first")
            }
            Self::Busy { ring, pid } => write!(f, "ring \"{ring}\" is already written by process {pid}; stop it first"),
            Self::NoRoom { ring, needed, free, mount } => write!(
                f,
                "ring \"{ring}\" needs {} but {} has {} free; enlarge the mount, set fewer slots or a smaller max_size",
                mebibytes(*needed),
                mount.display(),
                mebibytes(*free)
            ),
            Self::NotTmpfs(path) => write!(
                f,
                "{} is not on a tmpfs, where rings must live; mount one there or choose another --shm-dir",
                path.display()
            ),
            Self::AnchorFolder { path, problem } => write!(
                f,
                "the anchor folder {} {problem}; remove it or have the system's tmpfiles configuration create it",
                path.display()
            ),
            Self::ForeignOwner { ring, path, uid } => write!(
                f,
                "ring \"{ring}\": {} belongs to user {}; run as that user, or remove it with `camring rm {ring}`",
                path.display(),
                user_words(*uid)
            ),
            Self::NameTaken { ring, path, found } => write!(
                f,
                "ring \"{ring}\": the name {} is taken by {found}; remove it, or set another `segment` for this camera",
                path.display()
            ),
            Self::Group { group, problem } => {
                write!(f, "the ring cannot be given to group \"{group}\": {problem}; set another ring.group")
            }
            Self::Size { slots, slot_bytes } => write!(
                f,
                "{slots} slots of {slot_bytes} bytes make no ring; expected 3 to 256 slots and less than 1 TiB in all"
            ),
            Self::CrashPoint { found } => {
                let words: Vec<&str> = crate::CrashPoint::ALL.iter().map(|point| point.word()).collect();
                write!(
                    f,
                    "CAMRING_CRASH_AT=\"{found}\" names no crash point; expected WORD or WORD:N (N from 1) with one of {}; \
                     unset it unless this is a test",
                    words.join(", ")
                )
            }
            Self::Io { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl std::error::Error for CreateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Name(error) => Some(error),
            _ => None,
        }
    }
}

impl From<NameError> for CreateError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

/// Why a slot cannot be had right now.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClaimError {
    /// Every slot but the newest frame's is being written.
    NoSlot,
    /// Every slot that is not being written is leased, and the policy `protect` keeps leases.
    Leased,
    /// The frame needs a larger ring, which cannot be made now; tried again after a pause.
    NoLargerRing(CreateError),
    /// The frame needs a larger ring, and the last try was too short ago.
    Waiting,
    /// The frame exceeds the configured `max_size`.
    TooLarge {
        /// Bytes of the frame.
        needed: u64,
        /// Bytes of a slot.
        capacity: u64,
    },
    /// This process was forked from the writer's: the ring belongs to the parent.
    Forked,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot => {
                write!(
                    f,
                    "no slot is free: all but the newest frame's are being written; publish or drop one, or set more slots"
                )
            }
            Self::Leased => write!(
                f,
                "no slot is free: readers lease all of them and the lease policy is protect; release leases sooner, set \
                 more slots or the policy fresh"
            ),
            Self::NoLargerRing(error) => error.fmt(f),
            Self::Waiting => {
                write!(f, "the ring is too small for this frame; the next try to make a larger one is due soon")
            }
            Self::TooLarge { needed, capacity } => write!(
                f,
                "a frame of {needed} bytes exceeds the {capacity} bytes that max_size allows; raise max_size or \
                 choose a smaller stream on the camera"
            ),
            Self::Forked => FORKED.fmt(f),
        }
    }
}

impl std::error::Error for ClaimError {}

/// What a writer says in a forked child.
const FORKED: &str =
    "this process was forked from the one that writes the ring; publish there, or start a writer of another ring here";

/// Why a filled slot was not published.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The new generation could not be given its names.
    Names(CreateError),
    /// The slot belongs to a generation that has been replaced since it was claimed.
    Outdated,
    /// The metadata describe more bytes than were claimed, or planes outside of them.
    Geometry {
        /// Bytes that were claimed.
        claimed: u64,
        /// Bytes that the metadata describe.
        described: u64,
    },
    /// This process was forked from the writer's: the ring belongs to the parent.
    Forked,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(error) => error.fmt(f),
            Self::Outdated => write!(f, "the slot belongs to a replaced generation; claim again"),
            Self::Geometry { claimed, described } => write!(
                f,
                "the metadata describe {described} bytes but {claimed} were claimed; claim what the geometry needs"
            ),
            Self::Forked => FORKED.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}

/// Why a reader cannot attach.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttachError {
    /// The name is not one.
    Name(NameError),
    /// No such ring.
    NotFound {
        /// The name.
        name: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The ring was removed by its operator.
    Removed(String),
    /// The file may not be read.
    Permission {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// The group that may read it.
        gid: u32,
    },
    /// The file belongs to a user whom this reader has no reason to trust.
    Untrusted {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Not a ring, a damaged one, or one of another version.
    Layout {
        /// The name.
        name: String,
        /// What is wrong.
        error: LayoutError,
    },
    /// The name leads to a generation that another one has replaced.
    Superseded(String),
    /// The system refused something.
    Io {
        /// What was tried, with the path.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl AttachError {
    pub(crate) fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { action: action.into(), source: source.into() }
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::NotFound { name, looked } => {
                write!(f, "no ring \"{name}\": looked for")?;
                for (index, path) in looked.iter().enumerate() {
                    write!(f, "{} {}", if index == 0 { "" } else { "," }, path.display())?;
                }
                write!(f, "; is its daemon running? `camring list` shows what there is")
            }
            Self::Removed(name) => {
                write!(f, "ring \"{name}\" was removed by its operator; start its daemon to make a new one")
            }
            Self::Permission { name, path, gid } => write!(
                f,
                "ring \"{name}\": {} may be read by group {} only; add this user to that group",
                path.display(),
                group_words(*gid)
            ),
            Self::Untrusted { name, path, uid } => write!(
                f,
                "ring \"{name}\": {} belongs to user {}, expected root, this user or camring; name the owner if you trust it",
                path.display(),
                user_words(*uid)
            ),
            Self::Layout { name, error } => write!(f, "segment \"{name}\" {error}"),
            Self::Superseded(name) => superseded(f, name),
            Self::Io { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl std::error::Error for AttachError {}

fn superseded(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    write!(
        f,
        "ring \"{name}\" has been replaced but the name still leads to the old one; in a container, mount the whole \
         folder instead of the single file"
    )
}

impl From<NameError> for AttachError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

/// Why a read gave no frame.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing has been published yet.
    NoFrame {
        /// The ring.
        ring: String,
        /// What its daemon is doing.
        state: State,
        /// Why.
        reason: Reason,
    },
    /// No newer frame came in time.
    Timeout {
        /// The ring.
        ring: String,
        /// What its daemon is doing.
        state: State,
        /// Why.
        reason: Reason,
        /// Whether a daemon is there at all.
        writer_alive: bool,
        /// How long was waited, milliseconds.
        waited_ms: u64,
    },
    /// The newest frame is older than asked for.
    Stale {
        /// The ring.
        ring: String,
        /// Its age, milliseconds.
        age_ms: i64,
        /// The limit, milliseconds.
        limit_ms: u64,
        /// What its daemon is doing.
        state: State,
        /// Why.
        reason: Reason,
    },
    /// The frame was overwritten before it could be read, or every attempt was overtaken by the writer.
    Overrun {
        /// The ring.
        ring: String,
        /// The oldest frame still held.
        oldest: Sequence,
    },
    /// The buffer given has another size than the frame.
    BufferSize {
        /// Bytes of the buffer.
        found: u64,
        /// Bytes of the frame.
        expected: u64,
    },
    /// A frame's format is newer than this reader.
    UnknownFormat {
        /// The ring.
        ring: String,
        /// Its number.
        format: u32,
    },
    /// The segment contradicts itself.
    Corrupt {
        /// The ring.
        ring: String,
        /// What contradicts.
        what: String,
    },
    /// The frame was overwritten while it was leased: what was read from it may mix two frames.
    Revoked {
        /// The ring.
        ring: String,
        /// The frame that was leased.
        seq: Sequence,
    },
    /// Frames of this ring cannot be leased; copies can be read all the same.
    LeaseUnavailable {
        /// The ring.
        ring: String,
        /// Why.
        why: String,
    },
    /// The frame asked for has not been published yet.
    NotYet {
        /// The ring.
        ring: String,
        /// The frame asked for.
        seq: Sequence,
        /// The newest frame.
        newest: Sequence,
    },
    /// No frame is near enough to the time asked for.
    Apart {
        /// The ring.
        ring: String,
        /// The time asked for, ns of CLOCK_MONOTONIC.
        wanted_ns: i64,
        /// When the nearest frame held arrived, ns of CLOCK_MONOTONIC.
        nearest_ns: i64,
        /// How far apart they may be, ns.
        tolerance_ns: u64,
    },
    /// The ring was removed by its operator, and no new one has come.
    Removed {
        /// The ring.
        ring: String,
    },
    /// The name leads to a generation that another one has replaced, and keeps doing so.
    Superseded {
        /// The ring.
        ring: String,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = |reason: &Reason| if *reason == Reason::None { String::new() } else { format!(" ({reason})") };
        match self {
            Self::NoFrame { ring, state, reason } => {
                write!(f, "ring \"{ring}\" has no frame yet; its camera is {state}{}", why(reason))
            }
            Self::Timeout { ring, state, reason, writer_alive, waited_ms } => {
                write!(f, "no new frame in ring \"{ring}\" for {waited_ms} ms; its camera is {state}{}", why(reason))?;
                if !writer_alive {
                    write!(f, " and its daemon is not running; start camring@{ring}")?;
                }
                Ok(())
            }
            Self::Stale { ring, age_ms, limit_ms, state, reason } => write!(
                f,
                "the newest frame of ring \"{ring}\" is {age_ms} ms old, expected at most {limit_ms} ms; \
                 its camera is {state}{}",
                why(reason)
            ),
            Self::Overrun { ring, oldest } => write!(
                f,
                "ring \"{ring}\" was overwritten before it was read; the oldest frame still held is {oldest}; \
                 set more slots or read faster"
            ),
            Self::BufferSize { found, expected } => {
                write!(f, "the buffer has {found} bytes but the frame needs {expected}; make it that size")
            }
            Self::UnknownFormat { ring, format } => {
                write!(f, "ring \"{ring}\" holds frames of the unknown format {format}; upgrade this reader")
            }
            Self::Corrupt { ring, what } => {
                write!(f, "ring \"{ring}\" contradicts itself: {what}; restart camring@{ring}")
            }
            Self::Revoked { ring, seq } => write!(
                f,
                "frame {seq} of ring \"{ring}\" was overwritten while it was leased; discard what was read from it, and \
                 set more slots or hold leases for less time"
            ),
            Self::LeaseUnavailable { ring, why } => {
                write!(f, "ring \"{ring}\" cannot be leased: {why}; read copies instead")
            }
            Self::NotYet { ring, seq, newest } => {
                write!(f, "frame {seq} of ring \"{ring}\" is not published yet, the newest is {newest}; wait for it")
            }
            Self::Apart { ring, wanted_ns, nearest_ns, tolerance_ns } => write!(
                f,
                "the frame of ring \"{ring}\" nearest to {wanted_ns} ns arrived at {nearest_ns} ns, expected at most \
                 {tolerance_ns} ns between them; allow more, or set more slots"
            ),
            Self::Removed { ring } => {
                write!(f, "ring \"{ring}\" was removed by its operator; start its daemon to make a new one")
            }
            Self::Superseded { ring } => superseded(f, ring),
        }
    }
}

impl std::error::Error for ReadError {}
