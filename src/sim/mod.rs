//! The simulated camera: an RTSP server whose every picture carries a machine-readable stamp.

pub mod stamp;
