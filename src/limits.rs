//! Limits of the process: on open files, raised before anything is opened, because GLib ends the process where it meets it; on memory.

pub mod memory;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit::{Exit, Failure};

/// Descriptors that a camera needs: some 36 on UDP, a few more while a connection is made anew.
const NEEDED: u64 = 64;
/// What is asked for where less is set and so much is allowed.
const WANTED: u64 = 256;

/// Makes sure that this process may open enough files.
///
/// # Errors
///
/// 78 when it may not, and may not raise its limit that far either.
pub fn raise_open_files() -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit at all.
    let Some(current) = current.filter(|current| *current < WANTED) else { return Ok(()) };
    let raised = maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    // Refused by a sandbox, it stays what it is, which may be enough.
    let now = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current,
    };
    if now >= NEEDED {
        return Ok(());
    }
    Err(Failure::message(
        Exit::Config,
        format!(
            "this process may open {now} files, a camera needs {NEEDED}; raise the limit \
             (LimitNOFILE= in the unit, ulimit -n in a shell)"
        ),
    ))
}
