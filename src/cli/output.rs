//! What the reading commands share: attaching, exit codes of ring errors, durations, colours, quiet pipes.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use camring_ring::{
    AttachError, AttachOptions, CreateError, LayoutError, OwnerPolicy, Presence, ReadError, RemoveError, Ring, ShmDir,
};
use crossbeam_channel::Receiver;

use super::Global;
use crate::exit::{Exit, Failure};
use crate::listing;
use crate::report::Grade;
use crate::shutdown::{self, Stop};

/// Pause between two looks at a signal while something else is waited for.
pub(super) const SLICE: Duration = Duration::from_millis(200);

/// The colour of a state in a table.
pub(super) const fn grade_colour(grade: Grade) -> comfy_table::Color {
    match grade {
        Grade::Fine => comfy_table::Color::Green,
        Grade::Waiting => comfy_table::Color::Yellow,
        Grade::Broken => comfy_table::Color::Red,
        Grade::Off => comfy_table::Color::DarkGrey,
    }
}

/// Options of every command that reads a ring.
#[derive(Clone, Debug, clap::Args)]
pub struct Reading {
    /// Read rings of any owner (default: root, this user and the user camring; another owner could truncate the file
    /// while it is read).
    #[arg(long)]
    pub any_owner: bool,
}

impl Reading {
    /// Whose rings are read.
    #[must_use]
    pub fn owner(&self) -> OwnerPolicy {
        if self.any_owner { OwnerPolicy::Any } else { OwnerPolicy::Usual }
    }

    /// How to attach; `counted` readers keep a camera awake, onlookers do not.
    #[must_use]
    pub fn options(&self, global: &Global, timeout: Option<Duration>, presence: Presence) -> AttachOptions {
        AttachOptions { shm: ShmDir::new(&global.shm_dir), timeout, owner: self.owner(), presence }
    }

    /// Attaches as an onlooker to a ring that must be there.
    ///
    /// # Errors
    ///
    /// As [`attach_failure`].
    pub fn look(&self, global: &Global, name: &str) -> Result<Ring, AttachError> {
        listing::look(&ShmDir::new(&global.shm_dir), name, self.owner())
    }

    /// Attaches and waits for the name until `deadline` (`None` = for ever); returns `None` when a signal came first.
    ///
    /// # Errors
    ///
    /// As [`attach_failure`].
    pub fn attach(&self, global: &Global, name: &str, wait: &Wait) -> Result<Option<Ring>, Failure> {
        let mut told = false;
        while !wait.is_interrupted() {
            match Ring::attach(name, self.options(global, Some(wait.slice()), wait.presence)) {
                Ok(ring) => return Ok(Some(ring)),
                Err(error) if !may_come(&error) || wait.is_over() => return Err(attach_failure(error)),
                Err(error) if !told => {
                    eprintln!("camring: {error}; waiting");
                    told = true;
                }
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// Whether waiting can cure it.
fn may_come(error: &AttachError) -> bool {
    matches!(
        error,
        AttachError::NotFound { .. }
            | AttachError::Removed(_)
            | AttachError::Superseded(_)
            | AttachError::Layout { error: LayoutError::NotReady, .. }
    )
}

/// A deadline together with the signals that end a command early.
#[derive(Debug)]
pub struct Wait {
    started: Instant,
    timeout: Option<Duration>,
    presence: Presence,
    signals: Option<Receiver<Stop>>,
}

impl Wait {
    /// Waits at most `timeout` (`None` = for ever); signals take their default action.
    #[must_use]
    pub fn new(timeout: Option<Duration>) -> Self {
        Self { started: Instant::now(), timeout, presence: Presence::Uncounted, signals: None }
    }

    /// As a reader that keeps the camera awake.
    #[must_use]
    pub fn counted(self) -> Self {
        Self { presence: Presence::Counted, ..self }
    }

    /// SIGINT and SIGTERM end the command in order with code 0; a second one ends it at once.
    ///
    /// # Errors
    ///
    /// When the system gives no signal handler or thread.
    pub fn interruptible(self) -> Result<Self, Failure> {
        let signals = shutdown::listen(None, || camring_ring::process::exit_now(0))
            .map_err(|e| Failure::new(Exit::Failure, anyhow::Error::new(e).context("cannot listen for signals")))?;
        Ok(Self { signals: Some(signals), ..self })
    }

    /// Begins the timeout anew.
    pub fn restart(&mut self) {
        self.started = Instant::now();
    }

    /// Whether a signal has come.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.signals.as_ref().is_some_and(|signals| !signals.is_empty())
    }

    /// Whether the timeout is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.timeout.is_some_and(|timeout| self.started.elapsed() >= timeout)
    }

    /// How long was waited, milliseconds.
    #[must_use]
    pub fn waited_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long to sleep before looking at deadline and signals again.
    #[must_use]
    pub fn slice(&self) -> Duration {
        self.timeout.map_or(SLICE, |timeout| timeout.saturating_sub(self.started.elapsed()).min(SLICE))
    }
}

/// A command line duration such as `500ms`, `1s` or `2min`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; expected a duration such as 500ms, 10s or 2min"))
}

/// The exit code of a failed attach: 66 no such ring, 75 not ready, 76 layout, 77 permission, 2 no name.
#[must_use]
pub fn attach_failure(error: AttachError) -> Failure {
    let exit = match &error {
        AttachError::Name(_) => Exit::Usage,
        AttachError::NotFound { .. } | AttachError::Removed(_) => Exit::NoRing,
        AttachError::Permission { .. } | AttachError::Untrusted { .. } => Exit::Permission,
        AttachError::Layout { error: LayoutError::NotReady, .. } | AttachError::Superseded(_) => Exit::Temporary,
        AttachError::Layout { .. } => Exit::Layout,
        _ => Exit::Failure,
    };
    Failure::new(exit, error)
}

/// The exit code of a failed read: 75 for everything that time may cure, 76 for a format of a later version.
#[must_use]
pub fn read_failure(error: ReadError) -> Failure {
    let exit = match &error {
        ReadError::NoFrame { .. } | ReadError::Timeout { .. } | ReadError::Stale { .. } | ReadError::Overrun { .. } => {
            Exit::Temporary
        }
        ReadError::UnknownFormat { .. } => Exit::Layout,
        _ => Exit::Failure,
    };
    Failure::new(exit, error)
}

/// The exit code of a failed removal: 66 no such ring, 79 in use, 77 permission.
#[must_use]
pub fn remove_failure(error: RemoveError) -> Failure {
    let exit = match &error {
        RemoveError::NotFound(_) => Exit::NoRing,
        RemoveError::InUse { .. } => Exit::AlreadyServed,
        RemoveError::Refused(_) => Exit::Permission,
        RemoveError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => Exit::Permission,
        _ => Exit::Failure,
    };
    Failure::new(exit, error)
}

/// The exit code of a segment that cannot be made: 73 no room, 77 permission, 78 wrong request, 79 in use.
#[must_use]
pub fn create_failure(error: CreateError) -> Failure {
    let exit = match &error {
        CreateError::Busy { .. } => Exit::AlreadyServed,
        CreateError::NoRoom { .. } => Exit::NoRoom,
        CreateError::ForeignOwner { .. } | CreateError::AnchorFolder { .. } | CreateError::Group { .. } => {
            Exit::Permission
        }
        CreateError::Name(_)
        | CreateError::NotTmpfs(_)
        | CreateError::NameTaken { .. }
        | CreateError::Size { .. }
        | CreateError::CrashPoint { .. } => Exit::Config,
        CreateError::Io { source, .. } => match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Exit::NoRoom,
            ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Failure,
        },
        _ => Exit::Failure,
    };
    Failure::new(exit, error)
}

/// The memory mount cannot be read at all.
pub(super) fn mount_failure(mount: &Path, error: io::Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::PermissionDenied => Exit::Permission,
        _ => Exit::Failure,
    };
    let text = format!("cannot read the memory mount {}; give another --shm-dir", mount.display());
    Failure::new(exit, anyhow::Error::new(error).context(text))
}

/// Whether whoever reads our output still does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Listener {
    /// Go on.
    There,
    /// It has closed the pipe: end quietly.
    Gone,
}

/// Writes bytes to standard output at once; a closed pipe is no error.
///
/// # Errors
///
/// Any other failure to write, for example a full disk.
pub fn emit(bytes: &[u8]) -> Result<Listener, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Listener::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Listener::Gone),
        Err(error) => {
            Err(Failure::new(Exit::Failure, anyhow::Error::new(error).context("cannot write to standard output")))
        }
    }
}

/// Writes a line to standard output; see [`emit`].
///
/// # Errors
///
/// As [`emit`].
pub fn emit_line(text: &str) -> Result<Listener, Failure> {
    emit(format!("{text}\n").as_bytes())
}

/// Writes a value as one line of JSON; see [`emit`].
///
/// # Errors
///
/// As [`emit`].
pub fn emit_json(value: &impl serde::Serialize) -> Result<Listener, Failure> {
    let text = serde_json::to_string(value).expect("reports hold nothing that JSON cannot");
    emit_line(&text)
}

/// Whether standard output is to be coloured: NO_COLOR forbids, CLICOLOR_FORCE demands, else a terminal decides.
pub(super) fn use_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return false;
    }
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let refused = std::env::var_os("CLICOLOR").is_some_and(|value| value == "0");
    set("CLICOLOR_FORCE") || (io::stdout().is_terminal() && !dumb && !refused)
}

#[cfg(test)]
mod tests {
    use camring_ring::frame::{Reason, State};

    use super::*;

    #[test]
    fn each_ring_error_has_the_exit_code_of_the_table() {
        let layout = |error| AttachError::Layout { name: "a".into(), error };
        let version = LayoutError::Version { found: "2".into(), expected: "1".into() };
        let attach = [
            (AttachError::NotFound { name: "a".into(), looked: vec![] }, Exit::NoRing),
            (AttachError::Removed("a".into()), Exit::NoRing),
            (AttachError::Permission { name: "a".into(), path: "/a".into(), gid: 0 }, Exit::Permission),
            (AttachError::Untrusted { name: "a".into(), path: "/a".into(), uid: 9 }, Exit::Permission),
            (layout(version), Exit::Layout),
            (layout(LayoutError::Invalid("x".into())), Exit::Layout),
            (layout(LayoutError::NotReady), Exit::Temporary),
        ];
        for (error, exit) in attach {
            let text = error.to_string();
            assert_eq!(attach_failure(error).exit, exit, "{text}");
        }
        let no_frame = ReadError::NoFrame { ring: "a".into(), state: State::Live, reason: Reason::None };
        assert_eq!(read_failure(no_frame).exit, Exit::Temporary);
        assert_eq!(read_failure(ReadError::UnknownFormat { ring: "a".into(), format: 99 }).exit, Exit::Layout);
        assert_eq!(remove_failure(RemoveError::InUse { ring: "a".into(), pid: 1 }).exit, Exit::AlreadyServed);
        let full = CreateError::Io { action: "x".into(), source: io::Error::from_raw_os_error(28) };
        assert_eq!(create_failure(full).exit, Exit::NoRoom);
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1s 500ms"), Ok(Duration::from_millis(1500)));
        assert!(duration("5").is_err_and(|text| text.contains("expected a duration such as")));
    }

    #[test]
    fn a_wait_without_timeout_is_never_over_and_one_of_zero_is_over_at_once() {
        assert!(!Wait::new(None).is_over() && Wait::new(None).slice() == SLICE);
        let none = Wait::new(Some(Duration::ZERO));
        assert!(none.is_over() && none.slice() == Duration::ZERO && !none.is_interrupted());
    }
}
