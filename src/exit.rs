//! Exit codes: the one table that documentation, scripts and units rely on.

use std::fmt;
use std::process::ExitCode;

/// Why a command ended; the numbers follow sysexits(3) where one fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Something failed that has no code of its own.
    Failure = 1,
    /// The command line was not understood (clap's own code).
    Usage = 2,
    /// No ring of that name.
    NoRing = 66,
    /// The camera or its daemon cannot be reached.
    Unavailable = 69,
    /// The memory mount has no room for the ring.
    NoRoom = 73,
    /// Temporary: timed out, stale, or a teardown overran and the service must be restarted.
    Temporary = 75,
    /// The ring has a layout that this build does not speak.
    Layout = 76,
    /// Not permitted.
    Permission = 77,
    /// The configuration is wrong.
    Config = 78,
    /// Another process already serves this camera.
    AlreadyServed = 79,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error together with the exit code it ends the process with.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// What is printed on stderr, outermost context first; `None` when the command has already said everything.
    pub error: Option<anyhow::Error>,
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: Some(error.into()) }
    }

    /// A failure whose text is `message`.
    pub fn message(exit: Exit, message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { exit, error: Some(anyhow::Error::msg(message)) }
    }

    /// A failure that has already been explained on stderr.
    pub fn silent(exit: Exit) -> Self {
        Self { exit, error: None }
    }

    /// Prints the error on stderr, causes joined by colons.
    pub fn report(&self) {
        if let Some(error) = &self.error {
            eprintln!("camring: {error:#}");
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failure, error: Some(error) }
    }
}
