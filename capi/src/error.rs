//! What can go wrong, as C sees it: a number, and this thread's last sentence.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use camring_ring::{AttachError, ReadError};

/// The call did what it promises.
pub const CAMRING_OK: c_int = 0;

/// Why a call failed. camring_strerror() has the sentence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// An argument that cannot be: a NULL pointer, a negative time, a struct_size that is not set.
    Argument = -1,
    /// The handle was never given out, or is detached or released already.
    Handle = -2,
    /// The name is no ring's name.
    Name = -3,
    /// There is no such ring.
    NotFound = -4,
    /// The ring may not be read by this user.
    Permission = -5,
    /// The ring belongs to a user whom this one has no reason to trust.
    Untrusted = -6,
    /// Not a ring, a damaged one, or one of another layout version.
    Layout = -7,
    /// The name leads to a generation that another one has replaced.
    Superseded = -8,
    /// The ring was removed by its operator.
    Removed = -9,
    /// The system refused something.
    System = -10,
    /// Nothing has been published yet.
    NoFrame = -11,
    /// Nothing new came in time.
    Timeout = -12,
    /// The writer overtook every attempt to read.
    Overrun = -13,
    /// The buffer is smaller than the frame; payload_bytes says what it needs.
    BufferSize = -14,
    /// The frame's format is newer than this library.
    UnknownFormat = -15,
    /// The segment contradicts itself.
    Corrupt = -16,
    /// The writer has overwritten the leased frame: discard what was made of it.
    Revoked = -17,
    /// Leases cannot be had here; copies can.
    LeaseUnavailable = -18,
    /// A fault of this library; please report it.
    Internal = -19,
}

impl Code {
    const ALL: [Self; 19] = [
        Self::Argument,
        Self::Handle,
        Self::Name,
        Self::NotFound,
        Self::Permission,
        Self::Untrusted,
        Self::Layout,
        Self::Superseded,
        Self::Removed,
        Self::System,
        Self::NoFrame,
        Self::Timeout,
        Self::Overrun,
        Self::BufferSize,
        Self::UnknownFormat,
        Self::Corrupt,
        Self::Revoked,
        Self::LeaseUnavailable,
        Self::Internal,
    ];

    /// What is said of a code that is not this thread's last error.
    const fn text(self) -> &'static CStr {
        match self {
            Self::Argument => c"an argument cannot be: a NULL pointer, a negative time or a wrong struct_size",
            Self::Handle => c"the handle is not one: never given out, or detached or released already",
            Self::Name => c"the name is no ring's name",
            Self::NotFound => c"there is no such ring",
            Self::Permission => c"the ring may not be read by this user",
            Self::Untrusted => c"the ring belongs to a user whom this one has no reason to trust",
            Self::Layout => c"not a ring, a damaged one, or one of another layout version",
            Self::Superseded => c"the name leads to a generation that another one has replaced",
            Self::Removed => c"the ring was removed by its operator",
            Self::System => c"the system refused something",
            Self::NoFrame => c"nothing has been published yet",
            Self::Timeout => c"nothing new came in time",
            Self::Overrun => c"the writer overtook every attempt to read",
            Self::BufferSize => c"the buffer is smaller than the frame",
            Self::UnknownFormat => c"the frame's format is newer than this library",
            Self::Corrupt => c"the segment contradicts itself",
            Self::Revoked => c"the writer has overwritten the leased frame",
            Self::LeaseUnavailable => c"leases cannot be had here; copies can",
            Self::Internal => c"a fault of libcamring; please report it",
        }
    }
}

/// Why a call failed: number and sentence.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        let code = match &error {
            AttachError::Name(_) => Code::Name,
            AttachError::NotFound { .. } => Code::NotFound,
            AttachError::Removed(_) => Code::Removed,
            AttachError::Permission { .. } => Code::Permission,
            AttachError::Untrusted { .. } => Code::Untrusted,
            AttachError::Layout { .. } => Code::Layout,
            AttachError::Superseded(_) => Code::Superseded,
            _ => Code::System,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::NoFrame { .. } => Code::NoFrame,
            ReadError::Timeout { .. } => Code::Timeout,
            ReadError::Overrun { .. } => Code::Overrun,
            ReadError::BufferSize { .. } => Code::BufferSize,
            ReadError::UnknownFormat { .. } => Code::UnknownFormat,
            ReadError::Corrupt { .. } => Code::Corrupt,
            ReadError::Revoked { .. } => Code::Revoked,
            ReadError::LeaseUnavailable { .. } => Code::LeaseUnavailable,
            ReadError::Removed { .. } => Code::Removed,
            ReadError::Superseded { .. } => Code::Superseded,
            // Errors of calls that this library does not make.
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

thread_local! {
    static LAST: RefCell<Option<(c_int, CString)>> = const { RefCell::new(None) };
}

/// Runs one call of the library; a failure, or a panic, becomes its number, and its sentence is kept for this thread.
pub(crate) fn call(act: impl FnOnce() -> Result<(), Failure>) -> c_int {
    // What `act` leaves behind after a panic is this library's own state, whose locks ignore poisoning.
    let result = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| Err(fault(panic.as_ref())));
    match result {
        Ok(()) => CAMRING_OK,
        Err(failure) => remember(failure),
    }
}

fn fault(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no description");
    Failure::new(Code::Internal, format!("a fault of libcamring, please report it: {text}"))
}

fn remember(failure: Failure) -> c_int {
    let code = failure.code as c_int;
    let mut bytes = failure.text.into_bytes();
    bytes.retain(|byte| *byte != 0);
    let text = CString::new(bytes).unwrap_or_default();
    // A thread that is ending has no place for sentences any more; it still gets the number.
    let _ = LAST.try_with(|last| last.replace(Some((code, text))));
    code
}

/// The sentence of `code`: this thread's last one if it had this code, else a general one. Never NULL.
pub(crate) fn sentence(code: c_int) -> *const c_char {
    let own = LAST.try_with(|last| {
        let last = last.borrow();
        last.as_ref().filter(|(last, _)| *last == code).map(|(_, text)| text.as_ptr())
    });
    own.ok().flatten().unwrap_or_else(|| general(code).as_ptr())
}

fn general(code: c_int) -> &'static CStr {
    if code == CAMRING_OK {
        return c"no error";
    }
    let known = Code::ALL.into_iter().find(|known| *known as c_int == code);
    known.map_or(c"an error that this version of libcamring does not know", Code::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(code: c_int) -> String {
        // SAFETY: `sentence` returns a string with a zero at its end, kept by this thread until its next failure.
        unsafe { CStr::from_ptr(sentence(code)) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        let code = call(|| panic!("slot {} is gone", 7));
        assert_eq!(code, Code::Internal as c_int);
        assert_eq!(text_of(code), "a fault of libcamring, please report it: slot 7 is gone");
    }

    #[test]
    fn the_last_sentence_belongs_to_its_thread_and_its_code() {
        let code = call(|| Err(Failure::new(Code::Name, "this \0thread's")));
        assert_eq!(text_of(code), "this thread's");
        assert_eq!(text_of(Code::Timeout as c_int), "nothing new came in time");
        let elsewhere = std::thread::spawn(move || text_of(code)).join().unwrap();
        assert_eq!(elsewhere, "the name is no ring's name");
        assert_eq!(call(|| Ok(())), CAMRING_OK);
        assert_eq!(text_of(code), "this thread's", "a success keeps it");
    }

    #[test]
    fn every_code_has_a_sentence_and_a_number_of_its_own() {
        let mut numbers: Vec<c_int> = Code::ALL.iter().map(|code| *code as c_int).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (-19..=-1).collect::<Vec<_>>());
        assert_eq!(text_of(0), "no error");
        for unknown in [1, -20, c_int::MIN, c_int::MAX] {
            assert_eq!(text_of(unknown), "an error that this version of libcamring does not know");
        }
    }
}
