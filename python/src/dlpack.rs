//! Frames as DLPack tensors: the exchange structures of DLPack 1.0, their capsules and their ends.

use std::ffi::{CStr, c_void};
use std::mem;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::picture::{Item, Picture};
use crate::view::Pixels;

/// `kDLCPU`, the only device that a frame can be on, and its number.
pub(crate) const CPU: (i32, i32) = (1, 0);
/// What `DLManagedTensorVersioned` says about itself.
const VERSION: (u32, u32) = (1, 0);
const FLAG_READ_ONLY: u64 = 1;
const FLAG_IS_COPIED: u64 = 2;
/// `kDLUInt` and `kDLFloat`.
const CODE_UINT: u8 = 1;
const CODE_FLOAT: u8 = 2;

#[repr(C)]
struct Device {
    kind: i32,
    number: i32,
}

#[repr(C)]
struct ElementType {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
struct Tensor {
    start: *mut c_void,
    device: Device,
    ndim: i32,
    element: ElementType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`: what consumers knew before DLPack 1.0; cannot say that it is read-only.
#[repr(C)]
struct Legacy {
    tensor: Tensor,
    context: *mut c_void,
    deleter: unsafe extern "C" fn(*mut Legacy),
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: unsafe extern "C" fn(*mut Versioned),
    flags: u64,
    tensor: Tensor,
}

/// The two forms of a managed tensor.
trait Managed: Sized {
    /// The capsule's name until a consumer takes the tensor and renames it.
    const NAME: &'static CStr;
    fn around(tensor: Tensor, flags: u64) -> Self;
    fn tensor(&mut self) -> &mut Tensor;
}

impl Managed for Legacy {
    const NAME: &'static CStr = c"dltensor";

    fn around(tensor: Tensor, _: u64) -> Self {
        Self { tensor, context: std::ptr::null_mut(), deleter: delete::<Self> }
    }

    fn tensor(&mut self) -> &mut Tensor {
        &mut self.tensor
    }
}

impl Managed for Versioned {
    const NAME: &'static CStr = c"dltensor_versioned";

    fn around(tensor: Tensor, flags: u64) -> Self {
        let (major, minor) = VERSION;
        Self { major, minor, context: std::ptr::null_mut(), deleter: delete::<Self>, flags, tensor }
    }

    fn tensor(&mut self) -> &mut Tensor {
        &mut self.tensor
    }
}

/// A managed tensor with what it points to; the consumer sees its first field.
#[repr(C)]
struct Held<M> {
    managed: M,
    shape: [i64; 3],
    strides: [i64; 3],
    /// Keeps the pixels, and of a leased frame the mapping and the lease.
    pixels: Py<Pixels>,
}

/// Ends a tensor that nobody uses any more.
///
/// # Safety
///
/// `managed` is what `capsule` made, and this is the only call for it: the contract of DLPack's deleter. Any thread may
/// call it, with or without the interpreter lock.
unsafe extern "C" fn delete<M: Managed>(managed: *mut M) {
    // SAFETY: `capsule` got the pointer from `Box::into_raw` of a `Held<M>`, whose first field is at its own address
    // (repr(C)), and the caller calls once.
    let held = unsafe { Box::from_raw(managed.cast::<Held<M>>()) };
    let pixels = held.pixels;
    // Nothing to do when the interpreter has ended: its objects ended with it.
    let _ = Python::try_attach(|py| pixels.drop_ref(py));
}

/// Frees a tensor whose capsule nobody has consumed.
///
/// # Safety
///
/// The interpreter calls it with a capsule that `capsule` made, and with its lock held.
unsafe extern "C" fn abandon<M: Managed>(object: *mut ffi::PyObject) {
    // SAFETY: a capsule, as the caller guarantees; a consumed one has another name, and its tensor another owner.
    let unused = unsafe { ffi::PyCapsule_IsValid(object, M::NAME.as_ptr()) };
    if unused == 1 {
        // SAFETY: the capsule is valid under this name, so its pointer is the one that `capsule` put in.
        let managed = unsafe { ffi::PyCapsule_GetPointer(object, M::NAME.as_ptr()) };
        // SAFETY: made by `capsule`; no consumer took it, so nobody else calls the deleter, and this is done once.
        unsafe { delete(managed.cast::<M>()) };
    }
}

/// What a consumer has asked for.
pub(crate) struct Wish {
    /// Whether it knows DLPack 1.0.
    pub(crate) versioned: bool,
    /// Whether these pixels are a copy made for it.
    pub(crate) copied: bool,
}

/// A capsule that shares the memory of `pixels` and keeps it as long as the consumer wants.
///
/// # Errors
///
/// `BufferError`: read-only pixels for a consumer that cannot be told so, or strides that are no whole elements.
pub(crate) fn capsule<'py>(pixels: &Bound<'py, Pixels>, wish: &Wish) -> PyResult<Bound<'py, PyAny>> {
    let read_only = pixels.get().is_read_only();
    if !wish.versioned && read_only {
        return Err(PyBufferError::new_err(
            "this frame is leased and read-only, which DLPack can say from version 1.0 on; \
             ask with max_version=(1, 0), or for a copy",
        ));
    }
    if wish.versioned {
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        let flags = flag(read_only, FLAG_READ_ONLY) | flag(wish.copied, FLAG_IS_COPIED);
        wrap::<Versioned>(pixels, flags)
    } else {
        wrap::<Legacy>(pixels, 0)
    }
}

fn wrap<'py, M: Managed>(pixels: &Bound<'py, Pixels>, flags: u64) -> PyResult<Bound<'py, PyAny>> {
    let py = pixels.py();
    let (start, picture) = (pixels.get().start(), pixels.get().picture());
    let tensor = tensor(start.as_ptr().cast(), picture);
    let mut held = Box::new(Held {
        managed: M::around(tensor, flags),
        shape: picture.shape.map(|side| side as i64),
        strides: strides(picture)?,
        pixels: pixels.clone().unbind(),
    });
    let (shape, strides) = (&raw mut held.shape, &raw mut held.strides);
    let tensor = held.managed.tensor();
    (tensor.shape, tensor.strides) = (shape.cast(), strides.cast());
    let managed = Box::into_raw(held).cast::<M>();
    // SAFETY: the name is static, the pointer is not null, and `abandon::<M>` fits both.
    let object = unsafe { ffi::PyCapsule_New(managed.cast(), M::NAME.as_ptr(), Some(abandon::<M>)) };
    // SAFETY: a new reference, or null with the interpreter's error set.
    let capsule = unsafe { Bound::from_owned_ptr_or_err(py, object) };
    if capsule.is_err() {
        // SAFETY: no capsule came to be, so nobody else has the pointer.
        unsafe { delete(managed) };
    }
    capsule
}

fn tensor(start: *mut c_void, picture: &Picture) -> Tensor {
    let code = match picture.item {
        Item::U8 => CODE_UINT,
        Item::F32 => CODE_FLOAT,
    };
    Tensor {
        start,
        device: Device { kind: CPU.0, number: CPU.1 },
        ndim: picture.ndim as i32,
        element: ElementType { code, bits: picture.item.bytes() as u8 * 8, lanes: 1 },
        shape: std::ptr::null_mut(),
        strides: std::ptr::null_mut(),
        byte_offset: picture.offset as u64,
    }
}

/// DLPack counts strides in elements.
fn strides(picture: &Picture) -> PyResult<[i64; 3]> {
    let item = picture.item.bytes();
    if picture.strides.iter().any(|stride| stride % item != 0) || !picture.offset.is_multiple_of(item as usize) {
        return Err(PyBufferError::new_err(
            "this frame's rows are padded to no whole element; DLPack cannot express it",
        ));
    }
    Ok(picture.strides.map(|stride| (stride / item) as i64))
}

const _: () = assert!(mem::size_of::<Tensor>() == 48 && mem::size_of::<Legacy>() == 64);
const _: () = assert!(mem::offset_of!(Versioned, tensor) == 32 && mem::size_of::<Versioned>() == 80);
