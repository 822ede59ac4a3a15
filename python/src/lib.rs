//! The native half of the Python package `camring`: thin classes over the readers and writers of `camring-ring`.
//!
//! ```text
//!  ring.rs    Ring: every way to read              handle.rs  attach by slices, close
//!  watch.rs   iteration, until the camera ends     several.rs wait_any, nearest
//!  frame.rs   Frame: metadata, lease, exports      view.rs    its memory and the buffer protocol (unsafe)
//!  dlpack.rs  frames as tensors (unsafe)           jpeg.rs    frames as files
//!  writer.rs  Writer: publishes arrays             array.rs   which arrays make a frame
//!  info.rs    rings(), RingInfo, Stats             picture.rs shape and strides of a payload
//!  errors.rs  exceptions of camring/_errors.py     words.rs   enums of camring/_words.py
//!  pool.rs    spare buffers                        seconds.rs timeouts in slices, so that Ctrl-C works
//! ```
#![deny(unsafe_code)]

mod array;
#[allow(unsafe_code)]
mod dlpack;
mod errors;
mod frame;
mod handle;
mod info;
mod jpeg;
mod picture;
mod pool;
mod ring;
mod seconds;
mod several;
#[allow(unsafe_code)]
mod view;
mod watch;
mod words;
mod writer;

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
    use crate::several::{nearest, wait_any};
    #[pymodule_export]
    use crate::view::Pixels;
    #[pymodule_export]
    use crate::watch::Watch;
    #[pymodule_export]
    use crate::words::all;
    #[pymodule_export]
    use crate::writer::{_close_writers, Writer};

    #[allow(non_upper_case_globals)]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
