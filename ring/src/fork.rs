//! Forked children: which process a handle belongs to, and the descriptors that a child must not share with its parent.
//!
//! A lock belongs to an open file description, and `fork` makes parent and child share it: a child could release its
//! parent's leases, and a killed parent's leases would live as long as the child. So the child gives up every ring
//! descriptor before `fork` returns in it (the numbers stay taken, by `/dev/null`), and whatever it inherited knows
//! that it belongs to another process. A child made without the handlers (a plain `clone` call) is told apart by a page
//! that the kernel clears in children: it keeps its hands off, but its parent's locks live as long as it does.

use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::sync::Arc;

use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, AtomicU64, Ordering};

/// Forks between the first process that loaded this code and this one.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Forks of this process that have begun, and those that are over.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// How often this process's line of ancestors has forked since this code was loaded; another number in a child.
pub(crate) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// A process, as far as its own forked children are concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    forks: u64,
    mark: u64,
}

impl Origin {
    /// This process.
    pub(crate) fn here() -> Self {
        Self { forks: count(), mark: mark() }
    }

    /// Whether this is the process that the value was made in. Makes no system call: asking for the process id each
    /// time was most of what a look at the newest frame cost.
    pub(crate) fn is_here(self) -> bool {
        self == Self::here()
    }
}

/// Where this process's mark lies: a page that the kernel hands to children as zeros, however they are made.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());
/// Stands in for the page where the kernel has none of the kind (before Linux 4.14).
static NO_PAGE: AtomicU64 = AtomicU64::new(0);
/// The highest mark among this process and its ancestors.
static LAST_MARK: AtomicU64 = AtomicU64::new(0);

/// A number that this process shares with none of its ancestors.
fn mark() -> u64 {
    let page = page();
    if std::ptr::eq(page, &NO_PAGE) {
        return u64::from(std::process::id());
    }
    match page.load(Ordering::Relaxed) {
        0 => {
            let fresh = LAST_MARK.fetch_add(1, Ordering::Relaxed) + 1;
            page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|other| other, |_| fresh)
        }
        mark => mark,
    }
}

fn page() -> &'static AtomicU64 {
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let fresh = wiped_page().unwrap_or((&raw const NO_PAGE).cast_mut());
        page = match PAGE.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            // Another thread was faster; 4 KiB stay behind, once.
            Err(other) => other,
        };
    }
    // SAFETY: `NO_PAGE`, or a page of zeros that is mapped for ever.
    unsafe { &*page }
}

fn wiped_page() -> Option<*mut AtomicU64> {
    let (length, access) = (4096, ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new anonymous page at an address the kernel chooses affects no existing memory.
    let page = unsafe { rustix::mm::mmap_anonymous(null_mut(), length, access, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: exactly the page from above, which nobody has seen.
    match unsafe { rustix::mm::madvise(page, length, Advice::LinuxWipeOnFork) } {
        Ok(()) => Some(page.cast()),
        Err(_) => {
            // SAFETY: as above.
            let _ = unsafe { rustix::mm::munmap(page, length) };
            None
        }
    }
}

/// A moment without a fork in progress, so that one in between can be noticed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calm {
    begun: u64,
}

impl Calm {
    /// Waits, for a short time at most, until no fork of this process is in progress.
    pub(crate) fn wait() -> Self {
        let mut begun = 0;
        for _ in 0..PATIENCE {
            let ended = ENDED.load(Ordering::SeqCst);
            begun = BEGUN.load(Ordering::SeqCst);
            if begun == ended {
                break;
            }
            std::thread::yield_now();
        }
        Self { begun }
    }

    /// Whether no fork has begun since.
    pub(crate) fn lasts(self) -> bool {
        BEGUN.load(Ordering::SeqCst) == self.begun
    }
}

/// Rounds of giving way before going on without.
const PATIENCE: u32 = 1000;
/// Entries that are registered without an allocation, and per allocation.
const CHUNK: usize = 64;
const FREE: RawFd = -1;
/// Being filled in.
const TAKEN: RawFd = -2;

/// One registered descriptor; what the child handler reads.
#[derive(Debug)]
struct Entry {
    fd: AtomicI32,
    dev: AtomicU64,
    ino: AtomicU64,
}

impl Entry {
    const fn new() -> Self {
        Self { fd: AtomicI32::new(FREE), dev: AtomicU64::new(0), ino: AtomicU64::new(0) }
    }

    fn try_fill(&self, fd: RawFd, identity: (u64, u64)) -> bool {
        if self.fd.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        self.dev.store(identity.0, Ordering::Relaxed);
        self.ino.store(identity.1, Ordering::Relaxed);
        // SeqCst: a fork that `Calm` has not seen begin by now sees this entry.
        self.fd.store(fd, Ordering::SeqCst);
        true
    }
}

/// Entries of descriptors; only ever grows, so that the child handler can walk it at any time.
#[derive(Debug)]
struct Registry {
    entries: [Entry; CHUNK],
    next: AtomicPtr<Registry>,
}

impl Registry {
    const fn new() -> Self {
        Self { entries: [const { Entry::new() }; CHUNK], next: AtomicPtr::new(null_mut()) }
    }

    fn next(&self) -> Option<&'static Self> {
        let next = self.next.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw` in `grow`, fully made before it was stored here, and never freed.
        unsafe { next.as_ref() }
    }

    fn grow(&self) -> &'static Self {
        let fresh = Box::into_raw(Box::new(Self::new()));
        if self.next.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // SAFETY: made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
        }
        self.next().expect("it was null and was replaced, or was not null")
    }
}

static REGISTRY: Registry = Registry::new();

/// Registers a descriptor for as long as the guard lives; every forked child gives it up before it runs.
///
/// `identity` (device and inode) keeps the child's hands off a number that somebody has closed behind our back and
/// that leads to another file now.
pub(crate) fn register(fd: BorrowedFd<'_>, identity: (u64, u64)) -> Registered {
    install();
    let mut registry = &REGISTRY;
    loop {
        for entry in &registry.entries {
            if entry.try_fill(fd.as_raw_fd(), identity) {
                return Registered { entry };
            }
        }
        registry = registry.next().unwrap_or_else(|| registry.grow());
    }
}

/// Keeps a descriptor registered.
#[derive(Debug)]
pub(crate) struct Registered {
    entry: &'static Entry,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.entry.fd.store(FREE, Ordering::SeqCst);
    }
}

/// A descriptor with locks: registered, so that no forked child shares it, and without locks before it is closed.
#[derive(Debug)]
pub(crate) struct Descriptor {
    origin: Origin,
    /// `None` only inside `drop`.
    owned: Option<(Registered, OwnedFd)>,
}

impl Descriptor {
    /// Takes a descriptor of the file `identity` (device and inode).
    pub(crate) fn new(fd: OwnedFd, identity: (u64, u64)) -> Self {
        let registered = register(fd.as_fd(), identity);
        Self { origin: Origin::here(), owned: Some((registered, fd)) }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owned.as_ref().expect("there until it is dropped").1.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let Some((registered, fd)) = self.owned.take() else { return };
        if self.origin.is_here() {
            // A fork between the next two steps leaves the child a description, but none with locks. A refusal (no
            // memory to split a range) leaves what closing does.
            let _ = crate::lock::unlock(fd.as_fd(), 0, 0);
            drop(registered);
            drop(fd);
        } else {
            // The number may have been closed and reused by somebody else in this child: never close it from here.
            std::mem::forget(registered);
            let _: RawFd = fd.into_raw_fd();
        }
    }
}

/// Whether the handlers are there: not, being installed, yes.
static INSTALLED: AtomicU8 = AtomicU8::new(NOT);
const NOT: u8 = 0;
const BUSY: u8 = 1;
const YES: u8 = 2;

/// Registers the handlers once.
///
/// A child that was forked while another thread was here finds it busy for ever, and registers again after a while;
/// handlers that run twice do no harm.
fn install() {
    for _ in 0..PATIENCE {
        match INSTALLED.compare_exchange(NOT, BUSY, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(YES) => return,
            Err(_) => std::thread::yield_now(),
        }
    }
    // SAFETY: the three handlers are functions of this library, take and return nothing, and do only what is allowed in
    // them: atomics in all three, async-signal-safe system calls in the child.
    let refused = unsafe { libc::pthread_atfork(Some(before_fork), Some(after_in_parent), Some(after_in_child)) };
    // No memory for it now: tried again with the next descriptor; until then process ids tell children apart.
    INSTALLED.store(if refused == 0 { YES } else { NOT }, Ordering::Release);
}

extern "C" fn before_fork() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn after_in_parent() {
    ENDED.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn after_in_child() {
    COUNT.fetch_add(1, Ordering::Relaxed);
    // Forks of other threads do not exist here.
    ENDED.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
    give_up_descriptors();
}

/// Child: puts `/dev/null` in the place of every registered descriptor. Allocates nothing and takes no lock.
fn give_up_descriptors() {
    let mut nothing = None;
    let mut registry = Some(&REGISTRY);
    while let Some(chunk) = registry {
        for entry in &chunk.entries {
            let fd = entry.fd.load(Ordering::SeqCst);
            let identity = (entry.dev.load(Ordering::Relaxed), entry.ino.load(Ordering::Relaxed));
            if fd < 0 || identity_of(fd) != Some(identity) {
                continue;
            }
            // Without anything to put in its place it stays; whoever owns it keeps its hands off all the same.
            let Some(source) = nothing.or_else(open_nothing).or_else(|| open_in_place_of(fd)) else { continue };
            nothing = Some(source);
            if source != fd {
                replace(fd, source);
            }
        }
        registry = chunk.next();
    }
    if let Some(source) = nothing
        && !is_registered(source)
    {
        // SAFETY: opened in this function, and no longer needed.
        unsafe { libc::close(source) };
    }
}

fn replace(fd: RawFd, source: RawFd) {
    // SAFETY: both are open numbers: `source` was just opened, `fd` is a registered descriptor whose owner is memory of
    // this child, where no other thread runs.
    if unsafe { libc::dup3(source, fd, libc::O_CLOEXEC) } < 0 {
        // The number lies above a limit that was lowered meanwhile: nobody gets it again.
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

fn is_registered(fd: RawFd) -> bool {
    let mut registry = Some(&REGISTRY);
    while let Some(chunk) = registry {
        if chunk.entries.iter().any(|entry| entry.fd.load(Ordering::SeqCst) == fd) {
            return true;
        }
        registry = chunk.next();
    }
    false
}

fn identity_of(fd: RawFd) -> Option<(u64, u64)> {
    // SAFETY: only looked at during this call; a number that is not open gives an error.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::fs::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Opens something without locks: `/dev/null`, or an event counter where the file system has none.
fn open_nothing() -> Option<RawFd> {
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: a path that ends in zero; `open` is async-signal-safe.
    let fd = unsafe { libc::open(c"/dev/null".as_ptr(), flags) };
    if fd >= 0 {
        return Some(fd);
    }
    // SAFETY: takes two numbers; one system call.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    (fd >= 0).then_some(fd)
}

/// When the child has no number left for another descriptor: gives `fd` up, and opens under its number.
fn open_in_place_of(fd: RawFd) -> Option<RawFd> {
    if std::io::Error::last_os_error().raw_os_error() != Some(libc::EMFILE) {
        return None;
    }
    // SAFETY: a registered descriptor of this child; its number is taken again by the next line, since it is the only
    // free one and no other thread runs. If it lies above a limit that was lowered meanwhile, nobody gets it again.
    unsafe { libc::close(fd) };
    open_nothing()
}

/// A value that every process makes for itself; a forked child makes its own from what it inherited.
///
/// What was inherited may hold a mutex that some thread of the parent had locked, so it is never dropped or locked in
/// the child; it stays in memory until the child ends.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    node: AtomicPtr<Node<T>>,
    /// Owns `T`: `Send` and `Sync` as it is.
    owns: PhantomData<Box<T>>,
}

#[derive(Debug)]
struct Node<T> {
    origin: Origin,
    value: T,
}

impl<T> PerProcess<T> {
    /// The value of this process.
    pub(crate) fn new(value: T) -> Self {
        let node = Box::into_raw(Box::new(Node { origin: Origin::here(), value }));
        Self { node: AtomicPtr::new(node), owns: PhantomData }
    }

    /// The value of this process; in a forked child's first call what `make` makes of the inherited one.
    ///
    /// `make` may touch no lock of the inherited value. Two threads may both make one; the first one stays.
    pub(crate) fn get(&self, make: impl FnOnce(&T) -> T) -> &T {
        let current = self.node.load(Ordering::Acquire);
        // SAFETY: from `Box::into_raw`, and freed only by `drop`, which has the value to itself, or below when nobody
        // has seen it.
        let node = unsafe { &*current };
        if node.origin.is_here() {
            return &node.value;
        }
        let fresh = Box::into_raw(Box::new(Node { origin: Origin::here(), value: make(&node.value) }));
        let node = match self.node.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(winner) => {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                winner
            }
        };
        // SAFETY: as for `current`.
        let node = unsafe { &*node };
        &node.value
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let current = *self.node.get_mut();
        // SAFETY: from `Box::into_raw`, and not freed before.
        let origin = unsafe { (*current).origin };
        if origin.is_here() {
            // SAFETY: as above; `&mut self` says that nobody refers to it.
            drop(unsafe { Box::from_raw(current) });
        }
    }
}

/// An `Arc` that a forked child can reach without its parent's locks.
#[derive(Debug)]
pub(crate) struct Bequest<T> {
    origin: Origin,
    pointer: AtomicPtr<T>,
    /// Owns an `Arc<T>`: `Send` and `Sync` as that is.
    owns: PhantomData<Arc<T>>,
}

impl<T> Bequest<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        let pointer = AtomicPtr::new(Arc::into_raw(value).cast_mut());
        Self { origin: Origin::here(), pointer, owns: PhantomData }
    }

    /// The process that made it: what children inherit from now on.
    pub(crate) fn replace(&self, value: Arc<T>) {
        assert!(self.origin.is_here(), "only its own process changes what is inherited");
        let old = self.pointer.swap(Arc::into_raw(value).cast_mut(), Ordering::AcqRel);
        // SAFETY: from `Arc::into_raw`, and the swap gave this call the one reference that the pointer stood for. Other
        // processes have memory of their own; in this one only `replace` and `drop` take the pointer.
        drop(unsafe { Arc::from_raw(old) });
    }

    /// A child of the process that made it: what that process had when it forked.
    pub(crate) fn inherit(&self) -> Arc<T> {
        assert!(!self.origin.is_here(), "its own process has the value itself");
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: from `Arc::into_raw`. In this process nobody takes it out any more: `replace` refuses, and `drop` is
        // never run on an inherited value (`PerProcess` keeps it). So the reference it stands for is there for ever.
        unsafe { Arc::increment_strong_count(pointer) };
        // SAFETY: the reference that was just added.
        unsafe { Arc::from_raw(pointer) }
    }
}

impl<T> Drop for Bequest<T> {
    fn drop(&mut self) {
        let pointer = *self.pointer.get_mut();
        // SAFETY: from `Arc::into_raw`; the one reference that the pointer stands for.
        drop(unsafe { Arc::from_raw(pointer) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (OwnedFd, (u64, u64)) {
        let path = std::env::temp_dir().join(format!("camring-fork-{:016x}", crate::process::random_u64()));
        let file = std::fs::File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        (file.into(), (stat.st_dev, stat.st_ino))
    }

    #[test]
    fn a_registered_descriptor_is_known_until_it_is_dropped_whatever_their_number() {
        let held: Vec<Descriptor> = (0..CHUNK * 3).map(|_| file()).map(|(fd, id)| Descriptor::new(fd, id)).collect();
        let numbers: Vec<RawFd> = held.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
        assert!(numbers.iter().all(|fd| is_registered(*fd)));
        drop(held);
        // Other tests open files meanwhile, but few.
        assert!(numbers.iter().filter(|fd| is_registered(**fd)).count() < CHUNK);
    }

    #[test]
    fn a_value_is_made_once_per_process_and_its_arc_can_be_exchanged() {
        let value = PerProcess::new(Bequest::new(Arc::new(1)));
        let second = Arc::new(2);
        value.get(|_| unreachable!("this process has one")).replace(Arc::clone(&second));
        assert_eq!(Arc::strong_count(&second), 2);
        drop(value);
        assert_eq!(Arc::strong_count(&second), 1);
    }
}
