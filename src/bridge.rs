//! The bridge: a reader that copies the newest frames into a sacrificial read-write segment.
//!
//! For peers that can only open a segment read-write by name (Python's `SharedMemory`, the `shared_memory` crate,
//! servers that insist on it). The segment is made with the `shared_memory` crate and has the ring's own byte layout,
//! so every reader of the layout reads it. A peer that scribbles on it or truncates it hurts this process alone: the
//! camera's ring is only ever read here.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use camring_ring::{
    AttachError, AttachOptions, ClaimError, CreateError, FrameFlags, Geometry, Housekeeping, HousekeepingEvent,
    LeasePolicy, Liveness, NameError, OwnerPolicy, Presence, PublishError, ReadError, Reason, Ring, RingName,
    SegmentName, Sequence, ShmDir, State, StatusHandle, Writer, WriterOptions, free_bytes,
};
use shared_memory::{Shmem, ShmemConf, ShmemError};

/// Where `shm_open` puts its names; the `shared_memory` crate offers no other place.
const SHM_ROOT: &str = "/dev/shm";
/// What the name of a replacement ends in until it is complete.
const NEW: &str = "~new";
/// Pause after a larger segment could not be made.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// What the segment is to be like.
#[derive(Clone, Debug)]
pub struct BridgeOptions {
    /// Its name in `/dev/shm`.
    pub segment: SegmentName,
    /// Its file mode.
    pub mode: u32,
    /// Frames kept, 3 to 256.
    pub slots: u32,
}

/// What the operator may want to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BridgeEvent {
    /// A segment is there, with its first frame.
    Ready {
        /// Its path.
        path: PathBuf,
        /// Size and format of the first frame.
        geometry: Geometry,
        /// Bytes of the segment.
        file_bytes: u64,
        /// Whether it has replaced a smaller one: peers that opened that one by hand must open it again.
        replaced: bool,
    },
    /// A larger frame came and no larger segment could be made; the old one stays, tried again in 5 s.
    NotReplaced(String),
}

/// Why the bridge cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A living process writes the segment of this name.
    #[error("the name {} is taken by a segment that process {pid} writes; stop it, or choose another --segment", path.display())]
    InUse {
        /// The name.
        path: PathBuf,
        /// The writer, in its own namespace.
        pid: u32,
    },
    /// Something else has the name.
    #[error("the name {} is taken by {found}; choose another --segment, or remove it by hand", path.display())]
    NameTaken {
        /// The name.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The segment cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Copies one ring into one segment; dropped, it removes the segment.
#[derive(Debug)]
pub struct Bridge {
    source: Ring,
    options: BridgeOptions,
    target: Option<Target>,
    source_seq: u64,
    shown: Option<Shown>,
    retry_at: Option<Instant>,
}

/// What the segment says about the camera; written when it changes.
type Shown = (State, Reason, u8, u64, String, String);

impl Bridge {
    /// Checks that the segment's name is free, and removes what a dead bridge of this user has left there.
    ///
    /// # Errors
    ///
    /// [`BridgeError::InUse`] and [`BridgeError::NameTaken`].
    pub fn new(source: Ring, options: BridgeOptions) -> Result<Self, BridgeError> {
        clear_leftover(&options.segment)?;
        Ok(Self { source, options, target: None, source_seq: 0, shown: None, retry_at: None })
    }

    /// Waits at most `timeout` for a new frame and copies the newest one; makes the segment when it is the first one,
    /// or larger than all before.
    ///
    /// # Errors
    ///
    /// [`BridgeError`]; afterwards the bridge is of no further use.
    pub fn step(&mut self, timeout: Duration) -> Result<Option<BridgeEvent>, BridgeError> {
        self.pass_state_on();
        if !self.source.wait(self.source.last_seq(), Some(timeout)) {
            return Ok(None);
        }
        let geometry = match self.source.peek() {
            Ok(meta) => meta.geometry,
            Err(error) => return nothing_yet(error),
        };
        if let Some(target) = &mut self.target
            && target.writer.slot_capacity() >= geometry.len
        {
            self.retry_at = None;
            return copy(&self.source, target, geometry.len, &mut self.source_seq).map(|_| None);
        }
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            // This frame stays the newest one not copied, so waiting for a frame would not wait.
            std::thread::sleep(timeout);
            return Ok(None);
        }
        self.replace(geometry)
    }

    /// Makes a segment that the frame fits into and puts it in the place of the old one, if there is one.
    fn replace(&mut self, geometry: Geometry) -> Result<Option<BridgeEvent>, BridgeError> {
        let last = match &self.target {
            Some(old) => old.status.newest(),
            // As far as the source has got, so that numbers grow over restarts of the bridge.
            None => Sequence(self.source.status().seq.0.saturating_sub(1)),
        };
        let mut new = match Target::make(&self.options, &self.source, geometry.len, last) {
            Ok(new) => new,
            Err(error) if self.target.is_none() => return Err(error),
            Err(error) => {
                self.retry_at = Some(Instant::now() + RETRY_PAUSE);
                return Ok(Some(BridgeEvent::NotReplaced(error.to_string())));
            }
        };
        self.retry_at = None;
        if !copy(&self.source, &mut new, geometry.len, &mut self.source_seq)? {
            return Ok(None);
        }
        let replaced = self.target.is_some();
        new.take_name(&self.options.segment, replaced)?;
        let (path, file_bytes) = (new.file.path.clone(), new.file_bytes);
        if let Some(old) = self.target.replace(new) {
            old.end(self.target.as_ref());
        }
        self.shown = None;
        self.pass_state_on();
        Ok(Some(BridgeEvent::Ready { path, geometry, file_bytes, replaced }))
    }

    /// Ends in order: readers are told that the camera is no longer to be had here, and the segment is removed.
    pub fn finish(mut self) {
        if let Some(target) = self.target.take() {
            target.status.stopped(Reason::Operator);
            target.end(None);
        }
    }

    /// Says in the segment what the source's daemon says; a dead daemon is one that is being restarted.
    fn pass_state_on(&mut self) {
        let Some(target) = &self.target else { return };
        let source = self.source.status();
        let dead = source.state != State::Stopped && self.source.liveness() == Liveness::Gone;
        let shown = if self.retry_at.is_some() {
            (State::Error, Reason::NoRoom, 0, 0, source.decoder, source.codec)
        } else if dead {
            (State::Restarting, Reason::None, 0, 0, source.decoder, source.codec)
        } else {
            let (state, reason, attempt) = (source.state, source.reason, source.attempt);
            (state, reason, attempt, source.next_retry_mono_ns, source.decoder, source.codec)
        };
        if self.shown.as_ref() != Some(&shown) {
            let (state, reason, attempt, next_retry, decoder, codec) = &shown;
            let next_retry = Some(next_retry.cast_signed()).filter(|at| *at > 0);
            target.status.set_state(*state, *reason, *attempt, next_retry);
            target.status.set_text(decoder, codec);
            self.shown = Some(shown);
        }
    }
}

/// A source that has nothing to read at this moment is no error.
fn nothing_yet<T>(error: ReadError) -> Result<Option<T>, BridgeError> {
    match error {
        ReadError::NoFrame { .. } | ReadError::Overrun { .. } | ReadError::BufferSize { .. } => Ok(None),
        error => Err(error.into()),
    }
}

/// Copies the newest frame straight from slot to slot; `false` when there is none of `len` bytes any more.
fn copy(source: &Ring, target: &mut Target, len: u64, source_seq: &mut u64) -> Result<bool, BridgeError> {
    let mut slot = match target.writer.claim(len) {
        Ok(slot) => slot,
        // Leases are off and one thread writes: a slot is always free. A peer may have damaged nothing of this: the
        // writer works from private copies.
        Err(ClaimError::NoLargerRing(error)) => return Err(error.into()),
        Err(_) => return Ok(false),
    };
    let frame = match source.latest_into(slot.as_mut()) {
        Ok(frame) => frame,
        Err(error) => return nothing_yet::<()>(error).map(|_| false),
    };
    let mut meta = frame.meta;
    if *source_seq > 0 && meta.source_seq > *source_seq {
        meta.gap = u32::try_from(meta.source_seq - *source_seq - 1).unwrap_or(u32::MAX);
        meta.flags = meta.flags.with_if(meta.gap > 0, FrameFlags::GAP);
    }
    *source_seq = meta.source_seq;
    target.status.set_session(meta.session_id);
    match target.writer.publish(slot, meta) {
        Ok(_) => Ok(true),
        Err(PublishError::Names(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// The read-write segment and everything that keeps it.
struct Target {
    writer: Writer,
    status: StatusHandle,
    file_bytes: u64,
    file: NamedFile,
    house: Housekeeping,
    /// The creation through the crate of peers; kept because dropping it unmaps, and never its owner: [`NamedFile`] is.
    _shmem: Shmem,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("file", &self.file).field("file_bytes", &self.file_bytes).finish_non_exhaustive()
    }
}

impl Target {
    /// Creates, sizes and formats a segment under a name of its own; the public one comes with the first frame.
    fn make(options: &BridgeOptions, source: &Ring, slot_bytes: u64, last: Sequence) -> Result<Self, BridgeError> {
        let name = SegmentName::new(format!("{}{NEW}", options.segment))?;
        clear_leftover(&name)?;
        let path = SHM_PATHS.public(&name);
        let size = CreateError::Size { slots: options.slots, slot_bytes };
        let file_bytes = Writer::format_bytes(options.slots, slot_bytes).ok_or(size)?;
        let mut shmem = create(&name, &path, file_bytes)?;
        // From here on NamedFile removes the file; the crate would remove whatever has its name by then.
        shmem.set_owner(false);
        let file = NamedFile::new(path.clone()).map_err(|e| cannot("look at", &path, e))?;
        let writer_options = writer_options(options, source)?;
        let ring = writer_options.ring.to_string();
        let writer = Writer::format_after(&path, writer_options, slot_bytes, last)
            .map_err(|error| no_room(error, &ring, file_bytes))?;
        let mode = Permissions::from_mode(options.mode);
        fs::set_permissions(&path, mode).map_err(|e| cannot("set the mode of", &path, e))?;
        let status = writer.status();
        let house = Housekeeping::spawn(status.clone(), |_: HousekeepingEvent| {})
            .map_err(|e| cannot("start a thread for", &path, e))?;
        Ok(Self { writer, status, file_bytes, file, house, _shmem: shmem })
    }

    /// Takes the public name: in the place of this bridge's own smaller segment, or as a name that must be free.
    fn take_name(&mut self, segment: &SegmentName, replaced: bool) -> Result<(), BridgeError> {
        let public = SHM_PATHS.public(segment);
        let act = |e: io::Error| match e.kind() {
            io::ErrorKind::AlreadyExists => {
                BridgeError::NameTaken { path: public.clone(), found: "a file that has just been made".into() }
            }
            _ => cannot("give the new segment the name", &public, e),
        };
        if replaced {
            fs::rename(&self.file.path, &public).map_err(act)?;
        } else {
            clear_leftover(segment)?;
            fs::hard_link(&self.file.path, &public).map_err(act)?;
            fs::remove_file(&self.file.path).map_err(|e| cannot("remove", &self.file.path, e))?;
        }
        self.file.path = public;
        Ok(())
    }

    /// Tells the readers, then removes the file unless its name belongs to the successor already.
    fn end(self, successor: Option<&Self>) {
        let Self { writer, file, house, .. } = self;
        drop(house);
        writer.retire_formatted(successor.map(|next| &next.writer));
        drop(file);
    }
}

/// A file that is removed when dropped, if its name still leads to it.
#[derive(Debug)]
struct NamedFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl NamedFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&fs::symlink_metadata(&path)?);
        Ok(Self { path, identity })
    }
}

impl Drop for NamedFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // Nobody is left to tell; the next bridge recognises a leftover.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The names of `shm_open`.
static SHM_PATHS: std::sync::LazyLock<ShmDir> = std::sync::LazyLock::new(|| ShmDir::new(SHM_ROOT));

/// Creates the named segment with the crate that peers use.
fn create(name: &SegmentName, path: &Path, bytes: u64) -> Result<Shmem, BridgeError> {
    let size = usize::try_from(bytes).map_err(|_| cannot("map", path, io::ErrorKind::OutOfMemory.into()))?;
    ShmemConf::new().os_id(name.as_str()).size(size).create().map_err(|error| match error {
        ShmemError::MappingIdExists => {
            BridgeError::NameTaken { path: path.to_owned(), found: "a segment that has just been made".into() }
        }
        ShmemError::MapCreateFailed(code) | ShmemError::UnknownOsError(code) => {
            cannot("create", path, io::Error::from_raw_os_error(code.cast_signed()))
        }
        error => cannot("create", path, io::Error::other(error.to_string())),
    })
}

fn writer_options(options: &BridgeOptions, source: &Ring) -> Result<WriterOptions, BridgeError> {
    let layout = source.layout();
    let ring = RingName::new(source.name()).or_else(|_| RingName::new(layout.camera_id))?;
    let mut writer = WriterOptions::new(ring);
    writer.segment = options.segment.clone();
    writer.shm = SHM_PATHS.clone();
    writer.slots = options.slots;
    writer.mode = options.mode;
    writer.stale_after = Duration::from_millis(layout.stale_after_ms.into());
    Ok(writer)
}

fn cannot(action: &str, path: &Path, source: io::Error) -> BridgeError {
    CreateError::Io { action: format!("{action} {}", path.display()), source }.into()
}

/// A full mount is told with what was needed and what is free.
fn no_room(error: CreateError, ring: &str, needed: u64) -> CreateError {
    match &error {
        CreateError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            let mount = PathBuf::from(SHM_ROOT);
            CreateError::NoRoom { ring: ring.to_owned(), needed, free: free_bytes(&mount).unwrap_or(0), mount }
        }
        _ => error,
    }
}

/// Removes what a dead bridge of this user has left under the name.
fn clear_leftover(name: &SegmentName) -> Result<(), BridgeError> {
    let Some(leftover) = leftover(name)? else { return Ok(()) };
    drop(leftover);
    Ok(())
}

/// Finds out whether the name may be used: `None` = it is free, else what a dead bridge has left there.
fn leftover(name: &SegmentName) -> Result<Option<NamedFile>, BridgeError> {
    let path = SHM_PATHS.public(name);
    let taken = |found: String| Err(BridgeError::NameTaken { path: path.clone(), found });
    if [SHM_PATHS.system_anchors(), SHM_PATHS.user_anchors()].iter().any(|dir| dir.join(name.as_str()).exists()) {
        return taken("a ring: library readers would find that one under this name".into());
    }
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("look at", &path, error)),
    };
    let uid = rustix::process::geteuid().as_raw();
    if !metadata.is_file() {
        return taken("something that is no regular file".into());
    }
    if metadata.uid() != uid {
        return taken(format!("a file of user {}", metadata.uid()));
    }
    let options = AttachOptions {
        shm: SHM_PATHS.clone(),
        timeout: Some(Duration::ZERO),
        owner: OwnerPolicy::Uid(uid),
        presence: Presence::Uncounted,
    };
    let ring = match Ring::attach(name.as_str(), options) {
        Ok(ring) => ring,
        Err(AttachError::Removed(_) | AttachError::Superseded(_)) => return taken("a segment that is ending".into()),
        Err(error) => return taken(format!("a file that no bridge has left: {error}")),
    };
    if ring.liveness() != Liveness::Gone {
        return Err(BridgeError::InUse { path: path.clone(), pid: ring.writer_pid() });
    }
    let layout = ring.layout();
    let formatted = layout.builder.ends_with(Writer::FORMATTED) && layout.lease_policy == LeasePolicy::Off as u32;
    if !formatted || metadata.nlink() != 1 {
        return taken(format!("the ring of camera \"{}\"", layout.camera_id));
    }
    Ok(Some(NamedFile { path: path.clone(), identity: identity(&metadata) }))
}
