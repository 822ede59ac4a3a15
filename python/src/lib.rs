//! The native half of the Python package `camring`: thin classes over the readers of `camring-ring`.
//!
//! ```text
//!  ring.rs    Ring: latest, next, iteration        handle.rs  attach by slices, again after a fork
//!  frame.rs   Frame: metadata                      view.rs    its memory and the buffer protocol (the only unsafe)
//!  info.rs    rings(), RingInfo, Stats             picture.rs shape and strides of a payload
//!  errors.rs  exceptions of camring/_errors.py     words.rs   enums of camring/_words.py
//!  pool.rs    spare buffers                        seconds.rs timeouts in slices, so that Ctrl-C works
//! ```
#![deny(unsafe_code)]

mod errors;
mod frame;
mod handle;
mod info;
mod picture;
mod pool;
mod ring;
mod seconds;
#[allow(unsafe_code)]
mod view;
mod words;

use pyo3::prelude::*;

#[pymodule]
mod _camring {
    #[pymodule_export]
    use crate::frame::Frame;
    #[pymodule_export]
    use crate::info::{RingInfo, Stats, rings};
    #[pymodule_export]
    use crate::ring::{_attach_again, Ring, attach};
    #[pymodule_export]
    use crate::view::Pixels;
    #[pymodule_export]
    use crate::words::all;

    #[allow(non_upper_case_globals)]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
