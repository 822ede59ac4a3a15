//! The memory behind a frame and its buffer protocol; the only file of this package with `unsafe`.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::picture::Picture;
use crate::pool::{Pool, Pooled};

/// The memory of one frame: its own copy, or the caller's buffer.
///
/// Once a frame exists, Rust forms no reference to these bytes any more: Python code may change them at any time
/// through a view.
pub(crate) enum Memory {
    Own(Own),
    Lent(Lent),
}

impl Memory {
    fn start(&self) -> NonNull<u8> {
        match self {
            Self::Own(own) => own.start,
            Self::Lent(lent) => lent.start,
        }
    }
}

/// Memory of this frame alone; goes back to the ring's pool with the frame.
pub(crate) struct Own {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
    pool: Arc<Pool>,
}

// SAFETY: `start` is the only pointer to the allocation that Rust knows (the constructor took the `Vec` apart), and
// nothing here reads or writes through it except `drop`, which has `&mut self`.
unsafe impl Send for Own {}
// SAFETY: as above: a shared `Own` only lends out the pointer's value.
unsafe impl Sync for Own {}

impl Own {
    pub(crate) fn new(bytes: Pooled) -> Self {
        let (bytes, pool) = bytes.into_parts();
        let mut bytes = ManuallyDrop::new(bytes);
        let start = NonNull::new(bytes.as_mut_ptr()).expect("a vector's pointer is never null");
        Self { start, len: bytes.len(), capacity: bytes.capacity(), pool }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: the three values come from one `Vec<u8>` that `new` took apart without freeing it, and are used once.
        // No view is left: each holds a reference to the Python object that owns `self`, which is being deallocated.
        let bytes = unsafe { Vec::from_raw_parts(self.start.as_ptr(), self.len, self.capacity) };
        self.pool.give(bytes);
    }
}

/// A caller's writable, contiguous buffer; its exporter keeps it in place as long as this lives.
pub(crate) struct Lent {
    buffer: PyUntypedBuffer,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: `start` points into `buffer`, which is `Send` and `Sync` itself; only `bytes_mut` goes through it.
unsafe impl Send for Lent {}
// SAFETY: as above: a shared `Lent` only lends out the pointer's value.
unsafe impl Sync for Lent {}

impl Lent {
    /// Takes hold of `out`; the error is what is wrong with it, in words.
    pub(crate) fn new(out: &Bound<'_, PyAny>) -> Result<Self, String> {
        let buffer = PyUntypedBuffer::get(out).map_err(|error| format!("has no buffer to write into ({error})"))?;
        if buffer.readonly() {
            return Err("is read-only".into());
        }
        if !buffer.is_c_contiguous() {
            return Err("is not contiguous".into());
        }
        let start = NonNull::new(buffer.buf_ptr().cast::<u8>()).ok_or("is empty")?;
        let len = buffer.len_bytes();
        Ok(Self { buffer, start, len })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.buffer.shape()
    }

    pub(crate) fn item_size(&self) -> usize {
        self.buffer.item_size()
    }

    pub(crate) fn format(&self) -> String {
        self.buffer.format().to_string_lossy().into_owned()
    }

    /// The bytes to copy a frame into; the caller of `latest(out=...)` promises that nobody else uses them meanwhile.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the exporter granted a writable, contiguous buffer of `len` bytes at `start` and, by the buffer
        // protocol, neither moves nor frees it before `self.buffer` is released. `&mut self` makes this the only Rust
        // reference; `latest` documents that no other thread may touch `out` during the call.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// The pixels of one frame, as the buffer protocol shows them: the base class of `Frame`.
#[pyclass(frozen, subclass, weakref, module = "camring._camring")]
pub(crate) struct Pixels {
    memory: Memory,
    picture: Picture,
}

impl Pixels {
    pub(crate) fn new(memory: Memory, picture: Picture) -> Self {
        Self { memory, picture }
    }
}

#[pymethods]
impl Pixels {
    /// Answers a buffer request of the interpreter.
    ///
    /// # Safety
    ///
    /// `view` is what the `bf_getbuffer` slot gets: not null, aligned, valid for a write.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let mut answer = ffi::Py_buffer::new();
        let refusal = refusal(&slf.get().picture, flags);
        if refusal.is_none() {
            describe(&mut answer, slf.get(), flags);
            // The view's reference keeps the object, and with it memory, shape and strides, until the view is released.
            answer.obj = slf.into_ptr();
        }
        // SAFETY: the caller guarantees a valid place. `obj` in it is null after a refusal, as the slot must leave it.
        unsafe { view.write(answer) };
        refusal.map_or(Ok(()), |why| Err(PyBufferError::new_err(why)))
    }
}

/// Why a request cannot be answered.
fn refusal(picture: &Picture, flags: c_int) -> Option<&'static str> {
    let asks = |bits: c_int| flags & bits == bits;
    if asks(ffi::PyBUF_F_CONTIGUOUS) && picture.ndim > 1 {
        return Some("a frame's rows are contiguous, not its columns; ask for a C-contiguous buffer");
    }
    let needs_tight = asks(ffi::PyBUF_C_CONTIGUOUS) || asks(ffi::PyBUF_ANY_CONTIGUOUS) || !asks(ffi::PyBUF_STRIDES);
    if needs_tight && !picture.is_contiguous() {
        return Some("this frame's rows are padded; ask for a buffer with strides");
    }
    None
}

/// Fills `answer` with pointers into `pixels`, all of them inside the Python object.
fn describe(answer: &mut ffi::Py_buffer, Pixels { memory, picture }: &Pixels, flags: c_int) {
    let asks = |bits: c_int| flags & bits == bits;
    answer.buf = memory.start().as_ptr().wrapping_add(picture.offset).cast();
    answer.len = picture.bytes();
    answer.itemsize = picture.item.bytes();
    answer.readonly = 0;
    if asks(ffi::PyBUF_FORMAT) {
        answer.format = picture.item.code().as_ptr().cast_mut();
    }
    // Without a shape the consumer takes `len` plain bytes.
    answer.ndim = 1;
    if asks(ffi::PyBUF_ND) {
        answer.ndim = picture.ndim as c_int;
        answer.shape = picture.shape.as_ptr().cast_mut();
    }
    if asks(ffi::PyBUF_STRIDES) {
        answer.strides = picture.strides.as_ptr().cast_mut();
    }
    answer.suboffsets = ptr::null_mut();
}
