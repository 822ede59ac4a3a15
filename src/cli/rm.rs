//! `camring rm`: removes rings for good.
//!
//! The output of `--json` is one array with an object per ring looked at: `name`, `removed` (or, with `--dry-run`,
//! whether it would be), `error` (why not, or `null`).

use camring_ring::{AttachError, Liveness, RemoveError, RingName, ShmDir, remove, rings};
use serde::Serialize;

use super::Global;
use super::output::{Listener, Reading, attach_failure, emit_json, emit_line, mount_failure, remove_failure};
use crate::exit::{Exit, Failure};

/// Remove a ring for good: its readers are told and keep the frames they hold.
///
/// A ring in use is refused with the pid of its daemon: stop the service first. Exit codes: 66 no such ring, 77 not
/// permitted, 79 in use.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Camera, output or segment.
    #[arg(required_unless_present = "stale")]
    ring: Option<String>,
    /// Remove every ring whose daemon is gone.
    #[arg(long, conflicts_with = "ring")]
    stale: bool,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

/// What became of one ring.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    removed: bool,
    error: Option<String>,
    #[serde(skip)]
    exit: Option<Exit>,
}

impl Outcome {
    fn removed(name: &RingName) -> Self {
        Self { name: name.to_string(), removed: true, error: None, exit: None }
    }

    fn failed(name: &RingName, failure: &Failure) -> Self {
        let error = failure.error.as_ref().map(|error| format!("{error:#}"));
        Self { name: name.to_string(), removed: false, error, exit: Some(failure.exit) }
    }
}

/// Removes and says what it removed.
///
/// # Errors
///
/// The first failure's exit code, after every ring has been tried.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let shm = ShmDir::new(&global.shm_dir);
    let outcomes = match &args.ring {
        Some(name) => vec![remove_one(args, global, &ring_behind(args, global, name)?)],
        None => remove_stale(args, global, &rings(&shm).map_err(|e| mount_failure(&global.shm_dir, e))?),
    };
    report(args, &outcomes)
}

/// The ring behind a camera's, an output's or a segment's name.
fn ring_behind(args: &Args, global: &Global, name: &str) -> Result<RingName, Failure> {
    let shm = ShmDir::new(&global.shm_dir);
    let all = rings(&shm).map_err(|e| mount_failure(&global.shm_dir, e))?;
    let exact = all.iter().find(|ring| ring.as_str() == name);
    let by_segment = || {
        all.iter().find(|ring| {
            let attached = args.reading.look(global, ring.as_str());
            attached.is_ok_and(|attached| attached.layout().segment_name == name)
        })
    };
    match exact.or_else(by_segment) {
        Some(ring) => Ok(ring.clone()),
        None => Err(remove_failure(RemoveError::NotFound(name.to_owned()))),
    }
}

fn remove_one(args: &Args, global: &Global, ring: &RingName) -> Outcome {
    let shm = ShmDir::new(&global.shm_dir);
    let result =
        if args.dry_run { would_remove(args, global, ring) } else { remove(&shm, ring).map_err(remove_failure) };
    match result {
        Ok(()) => Outcome::removed(ring),
        Err(failure) => Outcome::failed(ring, &failure),
    }
}

/// What a removal would say, as far as a look from outside tells.
fn would_remove(args: &Args, global: &Global, ring: &RingName) -> Result<(), Failure> {
    match args.reading.look(global, ring.as_str()) {
        Ok(attached) if attached.liveness() != Liveness::Gone => {
            Err(remove_failure(RemoveError::InUse { ring: ring.to_string(), pid: attached.writer_pid() }))
        }
        // A damaged ring is removed all the same, and so is what a removal or a change of generations that was cut short
        // has left.
        Ok(_) | Err(AttachError::Layout { .. } | AttachError::Removed(_) | AttachError::Superseded(_)) => Ok(()),
        Err(error) => Err(attach_failure(error)),
    }
}

/// Rings without a living daemon; those that cannot be judged are named and left alone.
fn remove_stale(args: &Args, global: &Global, names: &[RingName]) -> Vec<Outcome> {
    let judge = |name: &RingName| match args.reading.look(global, name.as_str()) {
        Ok(ring) if ring.liveness() == Liveness::Gone => Some(remove_one(args, global, name)),
        // Retired under its own name: whoever retired it was killed before the end, or is a daemon in the middle of it.
        Err(AttachError::Removed(_) | AttachError::Superseded(_)) => {
            Some(remove_one(args, global, name)).filter(|outcome| outcome.exit != Some(Exit::AlreadyServed))
        }
        Ok(_) | Err(AttachError::NotFound { .. }) => None,
        Err(error) => Some(Outcome::failed(name, &attach_failure(error))),
    };
    names.iter().filter_map(judge).collect()
}

fn report(args: &Args, outcomes: &[Outcome]) -> Result<(), Failure> {
    if args.json {
        let _ = emit_json(&outcomes)?;
    }
    for outcome in outcomes {
        if let Some(error) = &outcome.error {
            eprintln!("camring: {error}");
        } else if !args.json {
            let verb = if args.dry_run { "would remove" } else { "removed" };
            if emit_line(&format!("{verb} {}", outcome.name))? == Listener::Gone {
                break;
            }
        }
    }
    if args.stale && outcomes.is_empty() && !args.json {
        let _ = emit_line("no stale rings")?;
    }
    match outcomes.iter().find_map(|outcome| outcome.exit) {
        Some(exit) => Err(Failure::silent(exit)),
        None => Ok(()),
    }
}
