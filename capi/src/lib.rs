//! libcamring: the ring's reader for C and C++. What programs see is include/camring.h; how to use it, README.md.
//!
//! ```text
//!  C program -> api.rs: twelve functions -> memory.rs: pointers checked -> handles.rs -> camring-ring
//!               error.rs: every failure, panics included, becomes a number and a sentence of this thread
//! ```

mod api;
mod error;
mod frame;
mod handles;
mod info;
mod memory;
mod options;
mod wait;
mod words;

pub use api::*;
pub use error::{CAMRING_OK, Code};
pub use frame::CAMRING_NO_TIME;
pub use frame::Frame;
pub use info::Info;
pub use options::Options;
pub use wait::CAMRING_FOREVER;
pub use words::*;
