//! The shared-memory ring of camring: one writer, many read-only readers, always the newest frame.
//!
//! ```text
//!  segment = one file on a tmpfs, mapped read-write by the writer and read-only by readers
//!
//!  | header 4 KiB                        | slot headers | slot 0 | slot 1 | ... | slot N-1 |
//!  | configuration | head notify state   | stamp, meta  | payload, 64 KiB aligned          |
//!
//!  writer  claim:   take the oldest slot nobody leases, stamp = odd, fence
//!          fill:    pixels and metadata
//!          publish: fence, stamp = seq*2, head = seq|slot, notify += 1, futex wake
//!  reader  head -> stamp (even, = head's seq) -> copy -> stamp unchanged ? frame : again
//! ```
//!
//! The newest frame's slot is never written, so a complete newest frame is there at every instant, also after the
//! writer was killed in the middle of a frame. The normative text is `docs/segment.md`.
//!
//! # Example
//!
//! ```
//! use camring_ring::{AttachOptions, FrameMeta, Geometry, PixelFormat, Ring, RingName, Writer, WriterOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let name = format!("doc{}", std::process::id());
//! let (mut writer, _) = Writer::start(WriterOptions::new(RingName::new(&name)?))?;
//! let ring = Ring::attach(&name, AttachOptions::default())?;
//!
//! let geometry = Geometry::packed(4, 2, PixelFormat::Bgr).expect("a picture has a size");
//! let mut slot = writer.claim(geometry.len)?;
//! slot.as_mut().fill(7);
//! writer.publish(slot, FrameMeta::new(geometry))?;
//!
//! let mut pixels = Vec::new();
//! let frame = ring.latest(&mut pixels)?;
//! assert_eq!((frame.meta.seq.0, pixels), (1, vec![7; 24]));
//! # drop(writer);
//! # camring_ring::remove(&Default::default(), &RingName::new(&name)?)?;
//! # Ok(())
//! # }
//! ```
mod anchor;
mod any;
mod attach;
mod catalog;
mod claim;
pub mod clock;
mod crash;
mod crc;
mod create;
mod error;
mod follow;
mod fork;
pub mod frame;
mod guard;
mod head;
mod history;
mod housekeeping;
pub mod layout;
mod lease;
mod live;
mod liveness;
mod lock;
mod meta;
mod name;
mod names;
mod options;
pub mod process;
mod reader;
mod segment;
mod slot;
mod start;
mod status;
mod sync;
mod wait;
mod watch;
mod writer;

pub use any::wait_any;
pub use attach::{AttachOptions, OwnerPolicy, Presence};
pub use catalog::{RemoveError, remove, rings};
pub use crash::CrashPoint;
pub use error::{AttachError, ClaimError, CreateError, PublishError, ReadError, mebibytes};
pub use frame::{
    Color, Fit, FrameFlags, FrameMeta, Generation, Geometry, PixelFormat, Reason, Sequence, State, TimeSource,
};
pub use history::nearest;
pub use housekeeping::{Housekeeping, HousekeepingEvent};
pub use layout::{LayoutError, LeasePolicy};
pub use lease::{EndedLease, Lease};
pub use liveness::{Age, Liveness, age_ns};
pub use name::{NameError, RingName, SegmentName, ShmDir};
pub use names::Settled;
pub use options::{Capacity, HugePages, ReaderGroup, WriterOptions};
pub use reader::{Frame, ReaderStats, Ring};
pub use segment::{free_bytes, total_bytes};
pub use start::Started;
pub use status::{Counter, Histogram, Status, StatusHandle};
pub use writer::{SlotMut, Writer};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
