//! The two names of a generation: the anchor in our folder and the public one; made, checked, put back, passed on.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::geteuid;

use crate::anchor::WriterLock;
use crate::crash::{self, CrashPoint};
use crate::error::CreateError;
use crate::frame::Generation;
use crate::head::{self, Retired};
use crate::layout::at;
use crate::live::Live;
use crate::lock::{LockKind, conflicting, try_lock};
use crate::name::RingPaths;
use crate::segment::{Access, MapError, Segment, identity_of, link_unnamed, open_file};
use crate::wait::wake_all;

/// The current generation and what keeps it findable.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) live: Arc<Live>,
    pub(crate) ring: String,
    pub(crate) camera: String,
    /// `None` for a segment that was formatted in place: it has one name and we did not make it.
    pub(crate) paths: Option<RingPaths>,
    /// Held as long as this daemon writes the ring.
    pub(crate) _lock: Option<WriterLock>,
}

/// What a look at the names has found or done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Settled {
    /// Names that were missing and are there again.
    pub relinked: u32,
    /// Both names are gone: the inode cannot be linked any more.
    pub lost: bool,
    /// There is no public name because the anchor folder is another mount.
    pub no_public_name: bool,
}

impl Names {
    /// Makes anchor and public name lead to the current generation.
    pub(crate) fn settle(&self) -> Result<Settled, CreateError> {
        let Some(paths) = &self.paths else { return Ok(Settled::default()) };
        let segment = &self.live.segment;
        let mut done = Settled::default();
        if look(&paths.anchor)? != Some(segment.identity) {
            if link_count(segment)? == 0 {
                return Ok(Settled { lost: true, ..done });
            }
            self.put(&paths.anchor, paths)?;
            done.relinked += 1;
        }
        let public = look(&paths.public)?;
        if public == Some(segment.identity) {
            return Ok(done);
        }
        if public.is_some() {
            self.take_over(&paths.public)?;
        }
        match self.put(&paths.public, paths) {
            Ok(()) => done.relinked += 1,
            Err(CreateError::Io { source, .. }) if source.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {
                done.no_public_name = true;
            }
            Err(error) => return Err(error),
        }
        Ok(done)
    }

    /// Gives a new, unnamed generation both names. `formerly` is the file it replaces under the anchor, if any.
    pub(crate) fn install(&self, formerly: Option<(u64, u64)>) -> Result<Settled, CreateError> {
        let Some(paths) = &self.paths else { return Ok(Settled::default()) };
        let public = look(&paths.public)?;
        let ours = public.is_none() || public == formerly;
        if !ours {
            self.take_over(&paths.public)?;
        }
        self.put(&paths.anchor, paths)?;
        crash::at(CrashPoint::AnchorNamed);
        match self.put(&paths.public, paths) {
            Ok(()) => {
                crash::at(CrashPoint::PublicNamed);
                Ok(Settled::default())
            }
            Err(CreateError::Io { source, .. }) if source.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {
                Ok(Settled { no_public_name: true, ..Settled::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the current generation back under the anchor after an installation that failed half-way.
    ///
    /// Not possible when it has no name left; housekeeping then finds it lost and a new one is made.
    pub(crate) fn restore(&self) {
        if let Some(paths) = &self.paths {
            let _ = self.put(&paths.anchor, paths);
        }
    }

    /// Takes the anchor away again from a generation that could not be installed.
    pub(crate) fn uninstall(&self) {
        if let Some(paths) = &self.paths
            && identity_of(&paths.anchor) == Ok(Some(self.live.segment.identity))
        {
            let _ = rustix::fs::unlink(&paths.anchor);
        }
    }

    /// Links the generation under a temporary name and renames that over `name`.
    fn put(&self, name: &Path, paths: &RingPaths) -> Result<(), CreateError> {
        let temp = paths.temp();
        link_unnamed(self.live.segment.fd.as_fd(), &temp)
            .map_err(|e| CreateError::io(format!("link the ring as {}", temp.display()), e))?;
        crash::at(CrashPoint::NameLinked);
        replace(&temp, name)
    }

    /// Ends a generation of ours that still has the public name; refuses anything else.
    fn take_over(&self, public: &Path) -> Result<(), CreateError> {
        let old = self.open_own(public)?;
        let alive = old.layout.alive_lock_off;
        let act = |e| CreateError::io(format!("lock the old ring {}", public.display()), e);
        let writer = conflicting(old.fd.as_fd(), LockKind::Shared, alive, 1).map_err(act)?;
        if writer == Some(LockKind::Exclusive) {
            return Err(self.taken(public, "another camera's ring, which is being written".into()));
        }
        // A conflict now is a reader that squats on the byte, which is no reason to give way.
        try_lock(old.fd.as_fd(), LockKind::Exclusive, alive, 1).map_err(act)?;
        retire(&old, self.live.segment.layout.ring_uuid, Retired::Superseded);
        Ok(())
    }

    /// Opens the file behind a public name if it is a ring of this camera and this user.
    fn open_own(&self, public: &Path) -> Result<Segment, CreateError> {
        let (fd, stat) = match open_file(public, Access::ReadWrite) {
            Ok(opened) => opened,
            Err(Errno::LOOP) => return Err(self.taken(public, "a symbolic link".into())),
            Err(Errno::INVAL | Errno::ISDIR | Errno::NXIO) => {
                return Err(self.taken(public, "something that is no regular file".into()));
            }
            Err(Errno::ACCESS | Errno::PERM) => return Err(self.taken(public, "a file of another user".into())),
            Err(error) => return Err(CreateError::io(format!("open {}", public.display()), error)),
        };
        if stat.st_uid != geteuid().as_raw() {
            return Err(self.taken(public, format!("a file of user {}", crate::process::user_words(stat.st_uid))));
        }
        let size = stat.st_size.cast_unsigned();
        match Segment::map(fd, size, (stat.st_dev, stat.st_ino), Access::ReadWrite) {
            Ok(old) if old.layout.camera_id == self.camera => Ok(old),
            Ok(old) => Err(self.taken(public, format!("the ring of camera \"{}\"", old.layout.camera_id))),
            Err(MapError::Layout(error)) => Err(self.taken(public, format!("a file that {error}"))),
            Err(MapError::Io(error)) => Err(CreateError::io(format!("map {}", public.display()), error)),
        }
    }

    fn taken(&self, path: &Path, found: String) -> CreateError {
        CreateError::NameTaken { ring: self.ring.clone(), path: path.to_owned(), found }
    }
}

/// Ends a generation for good: names its successor, raises the flag, wakes everybody.
pub(crate) fn retire(old: &Segment, successor: Generation, how: Retired) {
    let (low, high) = successor.0.split_at(8);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half of sixteen bytes"));
    head::store_u64(&old.map, at::SUCCESSOR_UUID, word(low));
    head::store_u64(&old.map, at::SUCCESSOR_UUID + 8, word(high));
    crash::at(CrashPoint::RetireSuccessor);
    if head::load_retired(&old.map) == Retired::No {
        head::store_retired(&old.map, how);
    }
    crash::at(CrashPoint::RetireFlagged);
    head::bump_notify(&old.map);
    wake_all(&old.map);
    crash::at(CrashPoint::RetireWoken);
}

/// Renames `temp` over `name`. Renaming one of two links of an inode over the other does nothing and reports
/// success, so the temporary name is removed in any case.
fn replace(temp: &Path, name: &Path) -> Result<(), CreateError> {
    let result = rustix::fs::rename(temp, name);
    if result.is_err() || identity_of(temp).is_ok_and(|found| found.is_some()) {
        let _ = rustix::fs::unlink(temp);
    }
    result.map_err(|e| CreateError::io(format!("rename the ring to {}", name.display()), e))
}

fn look(path: &Path) -> Result<Option<(u64, u64)>, CreateError> {
    identity_of(path).map_err(|e| CreateError::io(format!("look at {}", path.display()), e))
}

fn link_count(segment: &Segment) -> Result<u64, CreateError> {
    let stat = rustix::fs::fstat(&segment.fd).map_err(|e| CreateError::io("look at the ring's file", e))?;
    Ok(stat.st_nlink)
}
