//! camring: one camera, one process, one shared-memory ring of decoded frames.
//!
//! ```text
//!  camera                                                            AI worker (Rust, C, Python)
//!    | RTSP/RTP                                                         ^ own copy
//!    v                                                                  |
//!  pipeline/graph.rs    rtspsrc -> depay -> parse -> decode -> appsink  |   camring_ring::Ring
//!    | gst::Sample (the decoder's own I420/NV12 memory, not copied)     |
//!    v                                                                  |
//!  pipeline/sample.rs   caps, stride, times -> FrameRef<'_> (borrowed)  |
//!    v                                                                  |
//!  publish.rs           every output: output.rs                         |
//!    | rate.rs: is it due? placement.rs: what, where? claim a slot      |
//!    | paint.rs: lane.rs: resample.rs, convert.rs into it; publish      |
//!    v                                                                  |
//!  camring_ring::Writer ===== one segment for each of its outputs ======+
//!
//!  pipeline/bus.rs --SourceEvent--> camera.rs --> backoff.rs, health.rs   (events only, never pixels)
//! ```
#![forbid(unsafe_code)]

pub mod assemble;
pub mod backoff;
pub mod board;
pub mod bridge;
pub mod camera;
pub mod cli;
pub mod clock;
pub mod config;
pub mod convert;
pub mod details;
pub mod diagnosis;
pub mod exit;
pub mod health;
mod heap;
pub mod journal;
mod lane;
pub mod limits;
pub mod listing;
pub mod log;
mod matrix;
pub mod output;
pub mod padding;
pub mod paint;
mod pair;
mod picture;
pub mod pipeline;
pub mod placement;
pub mod publish;
pub mod rate;
pub mod reload;
pub mod report;
mod resample;
pub mod rings;
pub mod serve;
pub mod shutdown;
#[cfg(feature = "sim")]
pub mod sim;
pub mod slots;
pub mod snapshot;
pub mod source;
pub mod up;
