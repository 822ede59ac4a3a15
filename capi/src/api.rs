//! The functions of libcamring: arguments in, one call of camring-ring, results out.

#![expect(clippy::missing_safety_doc, reason = "the documentation goes to C, where every call is of that kind")]

use std::ffi::{c_char, c_int};
use std::slice;

use camring_ring::{AttachOptions, Frame as Read, ReadError, Ring};

use crate::error::{self, Code, Failure, call};
use crate::frame::{self, Frame};
use crate::handles;
pub use crate::handles::{LeaseHandle, RingHandle};
use crate::info::{self, Info};
use crate::memory::{self, Out};
use crate::options::{self, Options};
use crate::wait::{self, Patience, ReadFailure};

/// Version of this header: major << 16 | minor. A program works with every library of the same major version and the
/// same or a later minor one.
pub const CAMRING_ABI_VERSION: u32 = 1;

/// Most rings of one camring_wait_any().
pub const CAMRING_WAIT_MAX: usize = 1024;

/// Frames that a copy into the caller's buffer may miss because their size changes all the time.
const ATTEMPTS: u32 = 8;

/// The library's CAMRING_ABI_VERSION, to compare with the header's.
#[unsafe(no_mangle)]
pub extern "C" fn camring_abi_version() -> u32 {
    CAMRING_ABI_VERSION
}

/// Attaches to a camera ("front"), an output ("front.small") or a segment ("camring.front") and stores the handle in
/// *ring.
///
/// Waits up to timeout_ns for the name to appear; 0 = not at all, CAMRING_FOREVER. A ring without a frame attaches at
/// once. options may be NULL. Give the handle back with camring_detach(). It follows restarts of the daemon and new
/// generations by itself: a program attaches once.
///
/// Errors: NAME, NOT_FOUND, PERMISSION, UNTRUSTED, LAYOUT, SUPERSEDED, REMOVED, SYSTEM, ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_attach(
    name: *const c_char,
    timeout_ns: i64,
    options: *const Options,
    ring: *mut *mut RingHandle,
) -> c_int {
    call(|| {
        memory::check(ring.cast_const(), "ring")?;
        // SAFETY: the header asks for a text with a zero at its end.
        let name = unsafe { memory::text(name, "name") }?;
        // SAFETY: the header asks for NULL or a camring_options that says its size.
        let options = unsafe { options::read(options) }?;
        let timeout = Patience::new(timeout_ns)?.left();
        let attached = Ring::attach(&name, AttachOptions { timeout, ..options })?;
        // SAFETY: the header asks for a place where a handle may be stored.
        unsafe { memory::store(ring, handles::keep_ring(attached), "ring") }
    })
}

/// Gives a handle back. Waits of other threads on it end within a quarter of a second, with CAMRING_ERROR_HANDLE; their
/// other calls end as they would have. Leases of the ring stay valid until they are released.
///
/// Errors: HANDLE when it was given back before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_detach(ring: *mut RingHandle) -> c_int {
    call(|| handles::end_ring(ring))
}

/// Says what the ring's camera, its daemon and this handle are doing. Copies no pixels; takes a few microseconds.
///
/// Errors: HANDLE, ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_info(ring: *const RingHandle, info: *mut Info) -> c_int {
    call(|| {
        // SAFETY: the header asks for a camring_ring_info that says its size.
        let out = unsafe { Out::new(info) }?;
        out.fill(info::of(&handles::ring(ring)?.ring));
        Ok(())
    })
}

/// Copies the newest frame into buffer and describes it in *frame; the same frame again when there is no newer one.
///
/// Never waits. The buffer may be larger than the frame: camring_ring_info.slot_capacity is enough for every frame of a
/// generation. With a buffer of NULL and 0 bytes the frame is described only, and does not count as returned.
///
/// Errors: NO_FRAME, OVERRUN, UNKNOWN_FORMAT, CORRUPT, HANDLE, ARGUMENT; BUFFER_SIZE, which fills *frame all the same:
/// payload_bytes says what is needed, and the frame does not count as returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_latest(
    ring: *const RingHandle,
    buffer: *mut u8,
    buffer_bytes: usize,
    frame: *mut Frame,
) -> c_int {
    call(|| {
        // SAFETY: the header asks for a camring_frame that says its size.
        let out = unsafe { Out::new(frame) }?;
        let attached = handles::ring(ring)?;
        if buffer.is_null() && buffer_bytes == 0 {
            return describe_newest(&attached.ring, &out);
        }
        // SAFETY: the header asks for a buffer of so many bytes, the caller's alone.
        let bytes = unsafe { memory::buffer(buffer, buffer_bytes) }?;
        let read = latest_into(&attached.ring, bytes);
        hand_over(&attached.ring, &out, buffer, read.map_err(ReadFailure::Read))
    })
}

/// As camring_latest(), but waits up to timeout_ns for a frame newer than the last one this handle has returned; 0 = not
/// at all, CAMRING_FOREVER. frame->skipped says how many were published in between. No frame is returned twice.
///
/// Errors: TIMEOUT, whose sentence says what the camera is doing; REMOVED, a second after the operator has removed the
/// ring; SUPERSEDED, when the time is over and the name still leads to a replaced generation; those of camring_latest().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_next(
    ring: *const RingHandle,
    buffer: *mut u8,
    buffer_bytes: usize,
    timeout_ns: i64,
    frame: *mut Frame,
) -> c_int {
    call(|| {
        // SAFETY: the header asks for a camring_frame that says its size.
        let out = unsafe { Out::new(frame) }?;
        let attached = handles::ring(ring)?;
        let patience = Patience::new(timeout_ns)?;
        // SAFETY: the header asks for a buffer of so many bytes, the caller's alone.
        let bytes = unsafe { memory::buffer(buffer, buffer_bytes) }?;
        let read = wait::frame(&attached, &patience, |ring, slice| ring.next_into(bytes, Some(slice)));
        hand_over(&attached.ring, &out, buffer, read)
    })
}

/// Leases the newest frame: frame->payload points into the ring's own memory, nothing is copied.
///
/// The memory is read-only: a write through a cast ends the program that tries it (SIGSEGV) and harms nobody else.
/// The writer leaves the slot alone as long as it has others; lease few frames at a time and not for long. What was
/// read is good if camring_release() says so afterwards. A lease outlives camring_detach().
///
/// Counts as returned, as camring_latest() does. To get each frame once: camring_wait(), then camring_lease().
///
/// Errors: LEASE_UNAVAILABLE when leases cannot be had here (then copy), and those of camring_latest().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_lease(
    ring: *const RingHandle,
    frame: *mut Frame,
    lease: *mut *mut LeaseHandle,
) -> c_int {
    call(|| {
        memory::check(lease.cast_const(), "lease")?;
        // SAFETY: the header asks for a camring_frame that says its size.
        let out = unsafe { Out::new(frame) }?;
        let attached = handles::ring(ring)?;
        let held = attached.ring.lease()?;
        let described = Frame {
            payload: held.as_ptr(),
            guarded: u32::from(held.is_guarded()),
            ..described(&attached.ring, held.frame())
        };
        // SAFETY: the header asks for a place where a handle may be stored.
        unsafe { memory::store(lease, handles::keep_lease(held), "lease") }?;
        out.fill(described);
        Ok(())
    })
}

/// Whether a leased frame has been constant so far: CAMRING_OK, or CAMRING_ERROR_REVOKED. The lease stays held.
///
/// Errors: REVOKED, HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_valid(lease: *const LeaseHandle) -> c_int {
    call(|| match handles::with_lease(lease, |held| held.is_valid().then_some(()).ok_or(held.frame().meta.seq))? {
        Ok(()) => Ok(()),
        Err(seq) => Err(Failure::new(
            Code::Revoked,
            format!("the leased frame {seq} is being overwritten; release it and discard what was made of it"),
        )),
    })
}

/// Ends a lease: CAMRING_OK if the frame was constant from lease to release, CAMRING_ERROR_REVOKED if the writer has
/// overwritten it meanwhile: discard what was made of it. In both cases the lease is over, and its memory must not be
/// used any more.
///
/// Errors: REVOKED; HANDLE when it was released before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_release(lease: *mut LeaseHandle) -> c_int {
    call(|| Ok(handles::end_lease(lease)?.release()?))
}

/// Sleeps until the ring has a frame newer than the last one this handle has returned, at most timeout_ns; 0 = only
/// look, CAMRING_FOREVER. Uses no processor time while it sleeps.
///
/// Errors: TIMEOUT, REMOVED, HANDLE, ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_wait(ring: *const RingHandle, timeout_ns: i64) -> c_int {
    call(|| {
        let attached = handles::ring(ring)?;
        wait::newer(&attached, &Patience::new(timeout_ns)?)
    })
}

/// Sleeps until at least one of count rings has a frame newer than the last one its handle has returned, at most
/// timeout_ns; 0 = only look, CAMRING_FOREVER. Stores the places of those rings, ascending, in ready[0..*ready_count]:
/// ready has room for count numbers.
///
/// count is 1 to CAMRING_WAIT_MAX. One ring that is given twice is reported twice.
///
/// Errors: TIMEOUT, REMOVED when all of them are (*ready_count is then 0), HANDLE, ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camring_wait_any(
    rings: *const *mut RingHandle,
    count: usize,
    timeout_ns: i64,
    ready: *mut usize,
    ready_count: *mut usize,
) -> c_int {
    call(|| {
        memory::check(rings, "rings")?;
        memory::check(ready.cast_const(), "ready")?;
        // SAFETY: the header asks for a place where a number may be stored.
        unsafe { memory::store(ready_count, 0, "ready_count") }?;
        if !(1..=CAMRING_WAIT_MAX).contains(&count) {
            return Err(Failure::new(Code::Argument, format!("count is {count}; expected 1 to {CAMRING_WAIT_MAX}")));
        }
        // SAFETY: aligned and not NULL (checked); the header asks for `count` handles there.
        let handles = unsafe { slice::from_raw_parts(rings, count) };
        let found = wait::any(handles, &Patience::new(timeout_ns)?)?;
        // SAFETY: aligned and not NULL (checked); the header asks for room for `count` numbers, and every ring is found
        // at most once.
        unsafe { ready.copy_from_nonoverlapping(found.as_ptr(), found.len()) };
        // SAFETY: as above.
        unsafe { memory::store(ready_count, found.len(), "ready_count") }
    })
}

/// The sentence of an error: what the last failed call of this thread had to say if its error was this one (which ring,
/// what was found, what was expected, what to do), else what the number means in general.
///
/// Never NULL. Valid until the next failed call of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn camring_strerror(code: c_int) -> *const c_char {
    error::sentence(code)
}

/// A frame that was read, as C sees it; `payload` is not set.
fn described(ring: &Ring, read: &Read) -> Frame {
    frame::describe(&read.meta, read.skipped, read.generation.0, ring.age(&read.meta))
}

/// Fills the caller's struct with the newest frame's metadata; it does not count as returned.
fn describe_newest(ring: &Ring, out: &Out<Frame>) -> Result<(), Failure> {
    let meta = ring.peek()?;
    out.fill(frame::describe(&meta, 0, ring.layout().ring_uuid.0, ring.age(&meta)));
    Ok(())
}

/// Ends a copying read: fills the caller's struct, also when the buffer was too small.
fn hand_over(ring: &Ring, out: &Out<Frame>, buffer: *const u8, read: Result<Read, ReadFailure>) -> Result<(), Failure> {
    match read {
        Ok(read) => {
            out.fill(Frame { payload: buffer, ..described(ring, &read) });
            Ok(())
        }
        Err(ReadFailure::Read(error @ ReadError::BufferSize { .. })) => {
            describe_newest(ring, out)?;
            Err(error.into())
        }
        Err(failure) => Err(failure.into()),
    }
}

/// The newest frame into the front of a buffer that may be larger.
fn latest_into(ring: &Ring, buffer: &mut [u8]) -> Result<Read, ReadError> {
    let mut last = Err(ReadError::BufferSize { found: buffer.len() as u64, expected: 0 });
    for _ in 0..ATTEMPTS {
        let expected = ring.peek()?.geometry.len;
        let found = buffer.len() as u64;
        let Some(front) = usize::try_from(expected).ok().and_then(|len| buffer.get_mut(..len)) else {
            return Err(ReadError::BufferSize { found, expected });
        };
        last = ring.latest_into(front);
        // The size changed between the two looks: look again.
        if !matches!(last, Err(ReadError::BufferSize { .. })) {
            break;
        }
    }
    last
}
