//! The memory behind a frame, its buffer protocol, and the one copy of bytes that Python code may change meanwhile.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camring_ring::{EndedLease, Lease, ReadError};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::picture::Picture;
use crate::pool::{Pool, Pooled};

/// The memory of one frame: its own copy, the caller's buffer, or the ring itself.
///
/// Once a frame exists, Rust forms no reference to these bytes any more: Python code may change them at any time
/// through a view, or the writer of the ring may.
pub(crate) enum Memory {
    Own(Own),
    Lent(Lent),
    Leased(Box<Leased>),
}

impl Memory {
    fn start(&self) -> NonNull<u8> {
        match self {
            Self::Own(own) => own.start,
            Self::Lent(lent) => lent.start,
            Self::Leased(leased) => leased.start,
        }
    }

    /// Copies the payload; what another thread, or the writer of the ring, changes meanwhile may be in it.
    fn copy(&self) -> Vec<u8> {
        let len = match self {
            Self::Own(own) => own.len,
            Self::Lent(lent) => lent.len,
            Self::Leased(leased) => leased.len,
        };
        let mut out = vec![0; len];
        // SAFETY: all kinds are `len` bytes at `start` that live as long as `self`, and no Rust code of this process
        // writes them once the frame exists: a `Writer` here has a mapping, and so addresses, of its own.
        unsafe { copy_racing(self.start(), &mut out) };
        out
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

/// The ring's own memory, read-only; held against the writer until the lease ends, readable as long as this lives.
pub(crate) struct Leased {
    start: NonNull<u8>,
    len: usize,
    /// Locked only with the interpreter lock held and never while it is released: a fork, which needs that lock too,
    /// can therefore not leave it locked in the child.
    hold: Mutex<Hold>,
}

enum Hold {
    Leased(Lease),
    Ended(EndedLease),
    /// Between the two, inside `end`.
    Ending,
}

// SAFETY: `start` points into the mapping that `hold` keeps, whoever has it; nothing here goes through it but
// `copy_racing`, whose loads may race.
unsafe impl Send for Leased {}
// SAFETY: as above: a shared `Leased` only lends out the pointer's value.
unsafe impl Sync for Leased {}

impl Leased {
    pub(crate) fn new(lease: Lease) -> Self {
        let start = NonNull::new(lease.as_ptr().cast_mut()).expect("a mapping does not begin at address zero");
        Self { start, len: lease.len(), hold: Mutex::new(Hold::Leased(lease)) }
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the lease, the first time only, and says whether the frame was constant up to now.
    fn end(&self) -> Result<(), ReadError> {
        let mut hold = self.hold();
        let (ended, outcome) = match std::mem::replace(&mut *hold, Hold::Ending) {
            Hold::Leased(lease) => lease.end(),
            Hold::Ended(ended) => (ended, Ok(())),
            Hold::Ending => unreachable!("the lock is held from one kind to the next"),
        };
        *hold = Hold::Ended(ended);
        outcome
    }

    fn is_valid(&self) -> bool {
        match &*self.hold() {
            Hold::Leased(lease) => lease.is_valid(),
            Hold::Ended(ended) => ended.is_valid(),
            Hold::Ending => false,
        }
    }

    fn is_held(&self) -> bool {
        matches!(&*self.hold(), Hold::Leased(_))
    }

    fn is_guarded(&self) -> bool {
        matches!(&*self.hold(), Hold::Leased(lease) if lease.is_guarded())
    }
}

/// A caller's contiguous buffer to read from; its exporter keeps it in place as long as this lives.
pub(crate) struct Given {
    buffer: PyUntypedBuffer,
    start: NonNull<u8>,
}

// SAFETY: `start` points into `buffer`, which is `Send` and `Sync` itself; only `copy_to` goes through it.
unsafe impl Send for Given {}
// SAFETY: as above: a shared `Given` only reads, by loads that may race.
unsafe impl Sync for Given {}

impl Given {
    /// Takes hold of `array`; the error is what is wrong with it, in words.
    pub(crate) fn new(array: &Bound<'_, PyAny>) -> Result<Self, String> {
        let buffer = PyUntypedBuffer::get(array).map_err(|error| format!("has no buffer to read from ({error})"))?;
        if !buffer.is_c_contiguous() {
            return Err("is not contiguous".into());
        }
        let start = NonNull::new(buffer.buf_ptr().cast::<u8>()).ok_or("is empty")?;
        Ok(Self { buffer, start })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.buffer.shape()
    }

    /// The item's code in Python's `struct` module, without the mark for the machine's own byte order.
    pub(crate) fn format(&self) -> String {
        self.buffer.format().to_string_lossy().trim_start_matches(['@', '=', '<', '|']).to_owned()
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len_bytes()
    }

    /// Copies all bytes; the interpreter lock need not be held. What another thread writes meanwhile may be in it.
    ///
    /// # Panics
    ///
    /// If `out` has another size.
    pub(crate) fn copy_to(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.len(), "the shape was checked before the slot was claimed");
        // SAFETY: the exporter granted a contiguous buffer of `len` bytes at `start` and, by the buffer protocol,
        // neither moves nor frees it before `self.buffer` is released.
        unsafe { copy_racing(self.start, out) }
    }
}

/// Copies `out.len()` bytes that other threads may change meanwhile; which of their values are seen is not defined.
///
/// Made of Relaxed atomic loads, because an ordinary read that races is undefined whatever becomes of its result; the
/// writers are Python's C code, never Rust. Costs what `memcpy` costs on frames.
///
/// # Safety
///
/// `from` is valid for reads of `out.len()` bytes during the call, and no Rust code of this process writes them.
unsafe fn copy_racing(from: NonNull<u8>, out: &mut [u8]) {
    let lead = from.align_offset(align_of::<u64>()).min(out.len());
    let (head, rest) = out.split_at_mut(lead);
    let byte = |index: usize| {
        // SAFETY: `index < out.len()` at each of the two places that call this.
        let place = unsafe { from.add(index) }.cast::<AtomicU8>();
        // SAFETY: the caller guarantees that the byte is readable; one byte is always aligned.
        unsafe { place.as_ref() }.load(Ordering::Relaxed)
    };
    let word = |index: usize| {
        // SAFETY: `lead + index * 8 + 8 <= out.len()`: there are as many words as whole chunks of eight in `rest`.
        let place = unsafe { from.add(lead + index * 8) }.cast::<AtomicU64>();
        // SAFETY: readable as above, and aligned: `lead` bytes after `from` an aligned word begins.
        unsafe { place.as_ref() }.load(Ordering::Relaxed).to_ne_bytes()
    };
    head.iter_mut().enumerate().for_each(|(index, out)| *out = byte(index));
    let mut index = 0;
    let mut quads = rest.chunks_exact_mut(32);
    for quad in &mut quads {
        let (a, b, c, d) = (word(index), word(index + 1), word(index + 2), word(index + 3));
        quad[0..8].copy_from_slice(&a);
        quad[8..16].copy_from_slice(&b);
        quad[16..24].copy_from_slice(&c);
        quad[24..32].copy_from_slice(&d);
        index += 4;
    }
    let tail = lead + index * 8;
    quads.into_remainder().iter_mut().enumerate().for_each(|(index, out)| *out = byte(tail + index));
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

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.memory.start()
    }

    pub(crate) fn picture(&self) -> &Picture {
        &self.picture
    }

    /// A copy of the payload; the interpreter lock need not be held.
    pub(crate) fn copy(&self) -> Vec<u8> {
        self.memory.copy()
    }

    /// The same pixels in memory of their own.
    pub(crate) fn duplicate<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Self>> {
        let bytes = py.detach(|| self.copy());
        Bound::new(py, Self::new(Memory::Own(Own::new(Pooled::from(bytes))), self.picture))
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.memory, Memory::Leased(_))
    }

    /// Whether the pixels are those of the frame, from when it was read up to now.
    pub(crate) fn is_valid(&self) -> bool {
        self.leased().is_none_or(Leased::is_valid)
    }

    /// Whether a lease keeps the writer away from them.
    pub(crate) fn is_leased(&self) -> bool {
        self.leased().is_some_and(Leased::is_held)
    }

    pub(crate) fn is_guarded(&self) -> bool {
        self.leased().is_some_and(Leased::is_guarded)
    }

    /// Ends the lease, if this is one; see `Leased::end`.
    pub(crate) fn end_lease(&self) -> Result<(), ReadError> {
        self.leased().map_or(Ok(()), Leased::end)
    }

    fn leased(&self) -> Option<&Leased> {
        match &self.memory {
            Memory::Leased(leased) => Some(leased),
            Memory::Own(_) | Memory::Lent(_) => None,
        }
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
        let refusal = refusal(slf.get(), flags);
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
fn refusal(pixels: &Pixels, flags: c_int) -> Option<&'static str> {
    let picture = &pixels.picture;
    let asks = |bits: c_int| flags & bits == bits;
    if asks(ffi::PyBUF_WRITABLE) && pixels.is_read_only() {
        return Some("this frame is leased and read-only; copy it to change it");
    }
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
fn describe(answer: &mut ffi::Py_buffer, pixels: &Pixels, flags: c_int) {
    let Pixels { memory, picture } = pixels;
    let asks = |bits: c_int| flags & bits == bits;
    answer.buf = memory.start().as_ptr().wrapping_add(picture.offset).cast();
    answer.len = picture.bytes();
    answer.itemsize = picture.item.bytes();
    answer.readonly = c_int::from(pixels.is_read_only());
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
