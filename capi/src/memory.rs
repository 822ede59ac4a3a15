//! The caller's pointers: checked as far as anybody can, read and written within the bounds that the caller states.

use std::ffi::{CStr, c_char};
use std::mem::size_of;

use crate::error::{Code, Failure};

/// Longest text that a caller may pass, bytes.
const TEXT_MAX: usize = 4096;
/// Largest struct that a caller may pass: anything above is a struct_size that nobody set.
const STRUCT_MAX: usize = 4096;

/// A struct that callers pass with its size in its first four bytes.
///
/// # Safety
///
/// The struct is `repr(C)`, has no padding, begins with `struct_size: u32`, and any bytes are a value of it.
pub(crate) unsafe trait Sized32: Copy {
    /// What the sentence calls it.
    const WHAT: &'static str;
    /// The smallest part of it that is of use.
    const LEAST: usize;
    /// The same value with another `struct_size`.
    fn with_size(self, size: u32) -> Self;
}

pub(crate) fn null(what: &str) -> Failure {
    Failure::new(Code::Argument, format!("{what} is NULL; expected a pointer"))
}

/// Checks a pointer that may be neither NULL nor unaligned.
pub(crate) fn check<T>(pointer: *const T, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    if !pointer.is_aligned() {
        let align = align_of::<T>();
        return Err(Failure::new(
            Code::Argument,
            format!("{what} is not aligned; expected an address that is a multiple of {align}"),
        ));
    }
    Ok(())
}

/// A struct of the caller's, to be filled.
#[derive(Clone, Copy)]
pub(crate) struct Out<T> {
    pointer: *mut T,
    size: usize,
}

impl<T: Sized32> Out<T> {
    /// Checks the pointer and the size in its first field.
    ///
    /// # Safety
    ///
    /// `pointer` is NULL, or leads to a struct of the caller's: four bytes with its size, and as many bytes as they say;
    /// nobody else uses them until this value is gone.
    pub(crate) unsafe fn new(pointer: *mut T) -> Result<Self, Failure> {
        // SAFETY: what this function asks of its caller.
        let size = unsafe { stated_size(pointer.cast_const()) }?;
        Ok(Self { pointer, size })
    }

    /// Writes as much of `value` as the caller's struct holds; what it holds beyond becomes zero.
    pub(crate) fn fill(&self, value: T) {
        let value = value.with_size(self.size as u32);
        let known = self.size.min(size_of::<T>());
        let to = self.pointer.cast::<u8>();
        // SAFETY: `new` was promised `size` writable bytes at `pointer`, `known <= size`, and `value` is a whole T.
        unsafe { to.copy_from_nonoverlapping((&raw const value).cast(), known) };
        let rest = to.wrapping_add(known);
        // SAFETY: the `size - known` bytes behind those, inside the same promise; none when the sizes are equal.
        unsafe { rest.write_bytes(0, self.size - known) };
    }
}

/// Reads a struct of the caller's: what it does not have is `default`'s, what it has beyond must be zero.
///
/// # Safety
///
/// As [`Out::new`]; the bytes may be read only.
pub(crate) unsafe fn take<T: Sized32>(pointer: *const T, default: T) -> Result<T, Failure> {
    // SAFETY: what this function asks of its caller.
    let size = unsafe { stated_size(pointer) }?;
    let known = size.min(size_of::<T>());
    let mut value = default;
    // SAFETY: the caller promised `size` bytes; `known` of them fit `value`, of which any bytes are a value (Sized32).
    unsafe { (&raw mut value).cast::<u8>().copy_from_nonoverlapping(pointer.cast(), known) };
    // SAFETY: the bytes behind those, up to the size that the caller promised.
    let rest = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().wrapping_add(known), size - known) };
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Failure::new(
            Code::Argument,
            format!("the {} has a setting that this libcamring does not know; upgrade libcamring", T::WHAT),
        ));
    }
    Ok(value)
}

/// # Safety
///
/// As [`Out::new`].
unsafe fn stated_size<T: Sized32>(pointer: *const T) -> Result<usize, Failure> {
    check(pointer, T::WHAT)?;
    // SAFETY: not NULL and aligned (checked), and the caller promised that the first four bytes are its size.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if (T::LEAST..=STRUCT_MAX).contains(&size) {
        return Ok(size);
    }
    Err(Failure::new(
        Code::Argument,
        format!(
            "the {} says struct_size {size}, expected {} to {STRUCT_MAX}; set it to sizeof the struct before the call",
            T::WHAT,
            T::LEAST
        ),
    ))
}

/// A text of the caller's.
///
/// # Safety
///
/// `pointer` is NULL, or leads to a text with a zero at its end that nobody changes during the call.
pub(crate) unsafe fn text(pointer: *const c_char, what: &str) -> Result<String, Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and the caller promised a zero at the text's end: at most that far is read.
    let len = unsafe { libc::strnlen(pointer, TEXT_MAX) };
    if len == TEXT_MAX {
        return Err(Failure::new(Code::Argument, format!("{what} has no end within {TEXT_MAX} bytes")));
    }
    // SAFETY: `strnlen` found the zero at `len`.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(str::to_owned).map_err(|_| {
        Failure::new(Code::Argument, format!("{what} {} is no UTF-8; expected UTF-8", text.to_string_lossy()))
    })
}

/// A buffer of the caller's, to be filled.
///
/// # Safety
///
/// `pointer` is NULL, or leads to `len` writable bytes that nobody else uses as long as the slice lives.
pub(crate) unsafe fn buffer<'a>(pointer: *mut u8, len: usize) -> Result<&'a mut [u8], Failure> {
    if len > isize::MAX.unsigned_abs() {
        return Err(Failure::new(Code::Argument, format!("no buffer has {len} bytes; expected its size in bytes")));
    }
    if pointer.is_null() {
        return if len == 0 { Ok(&mut []) } else { Err(null("the buffer")) };
    }
    // SAFETY: not NULL, at most isize::MAX bytes (checked), and the caller's alone (promised).
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

/// Stores a result where the caller asked for it.
///
/// # Safety
///
/// `pointer` is NULL, or leads to a T of the caller's that may be overwritten.
pub(crate) unsafe fn store<T>(pointer: *mut T, value: T, what: &str) -> Result<(), Failure> {
    check(pointer.cast_const(), what)?;
    // SAFETY: not NULL, aligned (checked), and the caller's to be overwritten (promised).
    unsafe { pointer.write(value) };
    Ok(())
}

/// Copies a text into a field of fixed size; cut at a character, always with a zero at its end.
pub(crate) fn padded<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    let mut len = text.len().min(N - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    for (to, from) in out.iter_mut().zip(text.as_bytes().iter().take(len)) {
        *to = from.cast_signed() as c_char;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character_and_always_end_in_zero() {
        let cut: [c_char; 8] = padded("ääääää");
        // SAFETY: the eighth byte is zero.
        let text = unsafe { CStr::from_ptr(cut.as_ptr()) };
        assert_eq!(text.to_str(), Ok("äää"));
    }

    #[test]
    fn a_text_without_an_end_is_refused_without_reading_on() {
        let endless = vec![b'a'; TEXT_MAX];
        // SAFETY: `strnlen` reads at most TEXT_MAX bytes, and so many are there.
        let refused = unsafe { text(endless.as_ptr().cast(), "the name") };
        assert_eq!(refused.unwrap_err().text, "the name has no end within 4096 bytes");
    }
}
