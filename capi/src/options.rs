//! How a C program says how to attach.

use std::ffi::c_char;
use std::mem::size_of;
use std::path::PathBuf;
use std::ptr::null;

use camring_ring::{AttachOptions, OwnerPolicy, Presence as RingPresence, ShmDir};

use crate::error::{Code, Failure};
use crate::memory::{self, Sized32};

/// Where rings are when the caller does not say.
const SHM_DIR: &str = "CAMRING_SHM_DIR";

/// How to attach; all zero but struct_size is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Options {
    /// In: sizeof(struct camring_options).
    pub struct_size: u32,
    /// enum camring_owner: whose rings to accept.
    pub owner: u32,
    /// The user, when `owner` is CAMRING_OWNER_UID.
    pub owner_uid: u32,
    /// enum camring_presence.
    pub presence: u32,
    /// The memory mount; NULL = $CAMRING_SHM_DIR, else /dev/shm.
    pub shm_dir: *const c_char,
}

// SAFETY: repr(C), four u32 and a pointer without padding, the first one being struct_size, and raw pointers and
// integers may have any bytes.
unsafe impl Sized32 for Options {
    const WHAT: &'static str = "camring_options";
    const LEAST: usize = size_of::<u32>();
    fn with_size(self, size: u32) -> Self {
        Self { struct_size: size, ..self }
    }
}

const DEFAULT: Options = Options { struct_size: 0, owner: 0, owner_uid: 0, presence: 0, shm_dir: null() };

/// What the caller's options mean; the timeout is not among them.
///
/// # Safety
///
/// `options` is NULL or leads to a `struct camring_options` of the caller's, whose text has a zero at its end.
pub(crate) unsafe fn read(options: *const Options) -> Result<AttachOptions, Failure> {
    let options = match options.is_null() {
        true => DEFAULT,
        // SAFETY: what this function asks of its caller.
        false => unsafe { memory::take(options, DEFAULT) }?,
    };
    let shm = match options.shm_dir.is_null() {
        true => std::env::var_os(SHM_DIR).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        // SAFETY: what this function asks of its caller.
        false => Some(PathBuf::from(unsafe { memory::text(options.shm_dir, "shm_dir") }?)),
    };
    let owner = match options.owner {
        0 => OwnerPolicy::Usual,
        1 => OwnerPolicy::Uid(options.owner_uid),
        2 => OwnerPolicy::Any,
        other => return Err(unknown("owner", other, 2)),
    };
    let presence = match options.presence {
        0 => RingPresence::Counted,
        1 => RingPresence::Uncounted,
        other => return Err(unknown("presence", other, 1)),
    };
    Ok(AttachOptions { shm: shm.map(ShmDir::new).unwrap_or_default(), owner, presence, ..AttachOptions::default() })
}

fn unknown(field: &str, found: u32, most: u32) -> Failure {
    Failure::new(Code::Argument, format!("camring_options.{field} is {found}, expected 0 to {most}"))
}
