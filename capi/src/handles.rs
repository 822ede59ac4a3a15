//! The handles that C programs hold: numbers in disguise, so that a wrong or old one is refused and never followed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use camring_ring::{Lease, Ring};

use crate::error::{Code, Failure};

/// A ring that is attached; an opaque handle, never to be dereferenced.
pub struct RingHandle {
    _private: [u8; 0],
}

/// A lease that is held; an opaque handle, never to be dereferenced.
pub struct LeaseHandle {
    _private: [u8; 0],
}

/// An attached ring, and whether its handle has been given back meanwhile.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) ring: Ring,
    detached: AtomicBool,
}

impl Attached {
    /// Fails once the handle is detached: ends the waits of other threads.
    pub(crate) fn still(&self) -> Result<(), Failure> {
        // Nothing else is published by this flag: it only ends a wait.
        if self.detached.load(Ordering::Relaxed) {
            let name = self.ring.name();
            return Err(Failure::new(Code::Handle, format!("ring \"{name}\" was detached by another thread")));
        }
        Ok(())
    }
}

/// What the handles stand for. Numbers are never given out twice: the even ones are rings, the odd ones leases.
#[derive(Default)]
struct Table {
    given: u64,
    rings: BTreeMap<u64, Arc<Attached>>,
    leases: BTreeMap<u64, Lease>,
}

impl Table {
    /// The next number of a kind (0 or 1); never 0, which would be NULL.
    fn next(&mut self, kind: u64) -> u64 {
        self.given += 1;
        self.given << 1 | kind
    }
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

thread_local! {
    /// The table, locked by this thread from before a fork until after it, so that the child finds it unlocked.
    static FORKING: RefCell<Option<MutexGuard<'static, Option<Table>>>> = const { RefCell::new(None) };
}

/// Does something with the table; held for a few instructions, never while anything waits.
fn with_table<T>(act: impl FnOnce(&mut Table) -> T) -> T {
    register_fork();
    act(TABLE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Table::default))
}

/// Has the C library lock the table around every `fork`, once per process.
fn register_fork() {
    static ONCE: Once = Once::new();
    // SAFETY: the three handlers are functions of this library, which is never unloaded (build.rs), take nothing,
    // and touch nothing but the table's lock and a variable of their own thread.
    ONCE.call_once(|| match unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(unlock)) } {
        0 => {}
        error => panic!("pthread_atfork failed with error {error}: out of memory"),
    });
}

extern "C" fn lock() {
    let _ = FORKING.try_with(|held| held.replace(Some(TABLE.lock().unwrap_or_else(PoisonError::into_inner))));
}

extern "C" fn unlock() {
    let _ = FORKING.try_with(|held| held.replace(None).map(drop));
}

fn number<T>(handle: *const T) -> u64 {
    handle.addr() as u64
}

fn disguised<T>(number: u64) -> *mut T {
    ptr::without_provenance_mut(number as usize)
}

fn refused(what: &str, found: u64, other: &str) -> Failure {
    let text = match found {
        0 => format!("the {what} is NULL; expected what camring_{other} has given"),
        _ => format!("the {what} {found:#x} is no handle: never given out by camring_{other}, or given back already"),
    };
    Failure::new(if found == 0 { Code::Argument } else { Code::Handle }, text)
}

/// Keeps a ring under a new handle.
pub(crate) fn keep_ring(ring: Ring) -> *mut RingHandle {
    let attached = Arc::new(Attached { ring, detached: AtomicBool::new(false) });
    with_table(|table| {
        let number = table.next(0);
        table.rings.insert(number, attached);
        disguised(number)
    })
}

/// The ring behind a handle; it stays attached as long as the value lives.
pub(crate) fn ring(handle: *const RingHandle) -> Result<Arc<Attached>, Failure> {
    let number = number(handle);
    with_table(|table| table.rings.get(&number).cloned()).ok_or_else(|| refused("ring", number, "attach"))
}

/// Ends a handle; the ring itself goes when the last call on it has returned.
pub(crate) fn end_ring(handle: *const RingHandle) -> Result<(), Failure> {
    let number = number(handle);
    let ended = with_table(|table| table.rings.remove(&number));
    let attached = ended.ok_or_else(|| refused("ring", number, "attach"))?;
    attached.detached.store(true, Ordering::Relaxed);
    Ok(())
}

/// Keeps a lease under a new handle.
pub(crate) fn keep_lease(lease: Lease) -> *mut LeaseHandle {
    with_table(|table| {
        let number = table.next(1);
        table.leases.insert(number, lease);
        disguised(number)
    })
}

/// Looks at a lease.
pub(crate) fn with_lease<T>(handle: *const LeaseHandle, look: impl FnOnce(&Lease) -> T) -> Result<T, Failure> {
    let number = number(handle);
    with_table(|table| table.leases.get(&number).map(look)).ok_or_else(|| refused("lease", number, "lease"))
}

/// Ends a handle; the lease is the caller's to release.
pub(crate) fn end_lease(handle: *const LeaseHandle) -> Result<Lease, Failure> {
    let number = number(handle);
    with_table(|table| table.leases.remove(&number)).ok_or_else(|| refused("lease", number, "lease"))
}
