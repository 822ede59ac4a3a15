//! The simulated camera: an RTSP server whose every picture carries a machine-readable stamp.
//!
//! ```no_run
//! use camring::sim::{SimConfig, SimServer, Size, StreamConfig};
//!
//! let stream = StreamConfig { size: Size::new(640, 360), ..StreamConfig::default() };
//! let camera = SimServer::start(SimConfig::with_stream(stream))?;
//! println!("watch {}", camera.url());
//! # Ok::<(), camring::sim::SimError>(())
//! ```

mod config;
mod encoder;
mod events;
mod feed;
mod interposer;
mod jpeg;
mod marker;
pub mod picture;
pub mod script;
mod server;
pub mod stamp;
pub mod tally;
mod times;

use std::net::SocketAddr;
use std::time::Duration;

pub use config::{AuthScheme, FrameRate, Freeze, Login, SimConfig, Size, StreamConfig, Switch, SwitchTo};
pub use encoder::{Chroma, Codec, Depth, Encoding, Markers, Profile, Scan};
pub use interposer::Faults;
pub use picture::Pattern;
pub use server::SimServer;

/// Why an address cannot be listened on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListenRefusal {
    /// Another process has it.
    InUse,
    /// This user may not have it.
    NotPermitted,
    /// Anything else, such as an address of another host.
    Other,
}

/// Why a simulated camera cannot start or stop.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The configuration asks for something impossible; says what and what would be possible.
    #[error("{0}")]
    Config(String),
    /// A part of GStreamer is not installed.
    #[error("GStreamer has no element {element}; install the package {package} (Debian's name for it)")]
    MissingElement {
        /// The element that was looked for.
        element: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; {}", match .refusal {
        ListenRefusal::InUse => "stop the process that has the port, or use port 0 for any free one",
        ListenRefusal::NotPermitted | ListenRefusal::Other => "choose an address of this host and a port of 1024 or above",
    })]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why it cannot be had.
        refusal: ListenRefusal,
        /// What the system said.
        error: String,
    },
    /// GStreamer refused something that it should not.
    #[error("GStreamer refused: {0}")]
    Refused(#[from] gst::glib::BoolError),
    /// GStreamer cannot be used at all.
    #[error("GStreamer cannot start: {0}")]
    Gstreamer(#[from] gst::glib::Error),
    /// No thread could be had.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The camera did not stop in time.
    #[error("the simulated camera did not stop within {0:?}")]
    Stop(Duration),
    /// A bug.
    #[error("the simulated camera's thread panicked; please report this")]
    Panicked,
}

impl SimError {
    /// A refusal of the system to listen.
    fn listen(address: SocketAddr, error: &std::io::Error) -> Self {
        let refusal = match error.kind() {
            std::io::ErrorKind::AddrInUse => ListenRefusal::InUse,
            std::io::ErrorKind::PermissionDenied => ListenRefusal::NotPermitted,
            _ => ListenRefusal::Other,
        };
        Self::Listen { address, refusal, error: error.to_string() }
    }
}
