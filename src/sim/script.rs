//! The fault script of a simulated camera: what goes wrong, when and for how long; read from TOML and checked.

mod action;
mod plan;
mod read;

use std::path::Path;
use std::sync::Arc;

pub use action::{Action, Connections, Ending, PictureFault, Reports, SdpFault, known_actions};
pub(super) use plan::{Chance, Edge, Plan, Planned};

use crate::config::duration::DurationRange;
use crate::config::{ConfigErrors, SourceFile};

/// What the times of a script count from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The answer to the first client's PLAY.
    Play,
    /// The start of the camera.
    Start,
}

impl Origin {
    /// The word for it in the script and in the event log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Start => "start",
        }
    }
}

/// How RTP gets to the clients of a camera with a script.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Interleaved in the RTSP connection.
    Tcp,
    /// As datagrams.
    Udp,
}

/// One fault of a script; a range of times means that the seed chooses within it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// When it begins for the first time.
    pub at: DurationRange,
    /// How long it lasts; `None` = at once over, or until the camera stops.
    pub lasts: Option<DurationRange>,
    /// From one beginning to the next; `None` = it happens once.
    pub repeat: Option<DurationRange>,
    /// How often it happens; `None` = again and again when it repeats.
    pub times: Option<u64>,
    /// What it does.
    pub action: Action,
}

/// A whole script; at least one fault.
#[derive(Clone, Debug)]
pub struct Script {
    /// What times count from.
    pub origin: Origin,
    /// How RTP gets to the clients; SETUP for another way is refused.
    pub transport: Transport,
    /// The faults in the order of the file; messages and the event log count them from 1.
    pub faults: Vec<Fault>,
}

impl Script {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in it, each with line, column and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = crate::config::read_text(path)?;
        Self::parse(&SourceFile::without_secrets(path.to_owned(), text))
    }

    /// Checks a text that was read already.
    ///
    /// # Errors
    ///
    /// As [`Script::load`].
    pub fn parse(file: &Arc<SourceFile>) -> Result<Self, ConfigErrors> {
        read::read(file)
    }
}
