//! System calls that some tests need and that have no safe words in Rust: forks, signals, sandboxes.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How long a child may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a child is made.
#[derive(Clone, Copy, Debug)]
pub enum Fork {
    /// `fork`, with the handlers that libraries have registered.
    Handled,
    /// The bare system call, without them.
    Bare,
}

/// One end of a conversation in lines.
pub struct Line {
    from: BufReader<std::fs::File>,
    to: std::fs::File,
}

impl Line {
    pub fn say(&mut self, text: &str) {
        writeln!(self.to, "{text}").unwrap();
    }

    /// The next line of the other side; empty when it has gone.
    pub fn hear(&mut self) -> String {
        let mut text = String::new();
        self.from.read_line(&mut text).unwrap();
        text.trim_end().to_owned()
    }
}

/// A forked child of this test; killed when dropped.
pub struct Child {
    pub pid: i32,
    line: Line,
    ended: bool,
}

impl Child {
    /// Runs `act` in a child; what it panics with becomes the panic of the test.
    pub fn fork(act: impl FnOnce(&mut Line)) -> Self {
        Self::made_by(Fork::Handled, act)
    }

    pub fn made_by(how: Fork, act: impl FnOnce(&mut Line)) -> Self {
        let (to_parent, from_child) = (pipe(), pipe());
        let line = |from: &OwnedFd, to: &OwnedFd| Line {
            from: BufReader::new(from.try_clone().unwrap().into()),
            to: to.try_clone().unwrap().into(),
        };
        let parent = Line { ..line(&to_parent.0, &from_child.1) };
        let pid = match how {
            // SAFETY: the child runs `act` and leaves by `_exit`; it uses the allocator, which glibc makes usable in
            // children, and no lock of the test harness.
            Fork::Handled => unsafe { libc::fork() },
            Fork::Bare => {
                // SAFETY: as above, with the allocator unlocked because the tests that use it run it in a process
                // without other threads.
                let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
                i32::try_from(pid).unwrap()
            }
        };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let mut own = line(&from_child.0, &to_parent.1);
            let result = catch_unwind(AssertUnwindSafe(|| act(&mut own)));
            let code = match result {
                Ok(()) => 0,
                Err(cause) => {
                    let text = cause.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("?");
                    own.say(&format!("panic: {}", text.replace('\n', " | ")));
                    1
                }
            };
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(code) };
        }
        Self { pid, line: parent, ended: false }
    }

    /// A child that is not spoken with and runs `act` for ever; returns its process id.
    pub fn fork_silent(act: fn() -> !) -> i32 {
        // SAFETY: as in `made_by`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            act();
        }
        pid
    }

    pub fn say(&mut self, text: &str) {
        self.line.say(text);
    }

    /// The child's next line; a panic of the child is one of the test.
    pub fn hear(&mut self) -> String {
        if self.line.from.buffer().is_empty() {
            let fd = self.line.from.get_ref().as_raw_fd();
            assert!(readable_within(fd, PATIENCE), "child {} says nothing for {PATIENCE:?}", self.pid);
        }
        let text = self.line.hear();
        assert!(!text.starts_with("panic: "), "in child {}: {text}", self.pid);
        text
    }

    /// Waits until the child has ended without an error.
    pub fn end(mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match wait_for(self.pid, libc::WNOHANG) {
                None => assert!(Instant::now() < deadline, "child {} does not end", self.pid),
                Some(status) => {
                    self.ended = true;
                    let said = if status == 0 { String::new() } else { self.line.hear() };
                    assert_eq!(status, 0, "child {}: {said}", self.pid);
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            kill(self.pid, libc::SIGKILL);
            wait_for(self.pid, 0);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.finish();
    }
}

fn wait_for(pid: i32, flags: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is a number of ours.
    let found = unsafe { libc::waitpid(pid, &raw mut status, flags) };
    (found == pid).then_some(status)
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: two numbers; the process is one that a test has made.
    unsafe { libc::kill(pid, signal) };
}

/// The child of a child, by its process id; killed when dropped.
pub struct Grandchild(pub i32);

impl Grandchild {
    /// Whether it is there and no zombie.
    pub fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }
}

impl Drop for Grandchild {
    fn drop(&mut self) {
        kill(self.0, libc::SIGKILL);
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends: [RawFd; 2] = [0; 2];
    // SAFETY: room for two numbers.
    let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(result, 0);
    // SAFETY: just opened, and nobody else's.
    let read = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let write = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    (read, write)
}

fn readable_within(fd: RawFd, limit: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, of ours.
    unsafe { libc::poll(&raw mut poll, 1, i32::try_from(limit.as_millis()).unwrap()) > 0 }
}

/// Another number for the description behind `fd`.
pub fn duplicate(fd: RawFd) -> std::fs::File {
    // SAFETY: makes a new number and leaves `fd` alone.
    let copy = unsafe { libc::dup(fd) };
    assert!(copy >= 0, "dup: {}", std::io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    unsafe { std::fs::File::from_raw_fd(copy) }
}

/// Takes the place of `number` with another file, behind the back of whoever owns it.
pub fn replace_number(file: &std::fs::File, number: RawFd) {
    // SAFETY: the test that does so owns the process, and nothing in it relies on `number` afterwards.
    let result = unsafe { libc::dup2(file.as_raw_fd(), number) };
    assert_eq!(result, number);
}

/// A classic shared record lock on the bytes of all leases, as `lockf` in a script takes it.
pub fn classic_lock(file: &std::fs::File) {
    // SAFETY: all bytes zero are a valid `flock`.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = libc::F_RDLCK as libc::c_short;
    (range.l_start, range.l_len) = (camring_ring::layout::LEASE_LOCK_BASE as i64, 256);
    // SAFETY: an open descriptor and a range of ours.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const range) };
    assert_eq!(result, 0, "F_SETLK: {}", std::io::Error::last_os_error());
}

/// The lowest number that the next descriptor may have.
pub fn free_number() -> u64 {
    std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64
}

/// From now on no descriptor of this process gets `number` or more; those that have keep it.
pub fn no_descriptors_from(number: u64) {
    let limit = libc::rlimit { rlim_cur: number, rlim_max: 4096 };
    // SAFETY: a limit of ours, for this process.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    assert!(std::fs::File::open("/dev/null").is_err(), "the limit leaves numbers");
}

static SIGNALS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Interrupts this process by SIGALRM, with a handler that does not restart calls; returns a count of the signals.
pub fn signal_every(pause: Duration) -> &'static std::sync::atomic::AtomicU64 {
    // SAFETY: all bytes zero are a valid `sigaction`: no flags, so that interrupted calls return EINTR.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count_signal as *const () as usize;
    // SAFETY: the handler only adds to a number.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) }, 0);
    let every = libc::timeval { tv_sec: 0, tv_usec: i64::from(pause.subsec_micros()) };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: a timer of ours.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
    &SIGNALS
}

/// From now on this thread's calls of `number`, with `second` as second argument if given, fail with `error`.
pub fn refuse_call(number: i64, second: Option<i32>, error: i32) {
    let load = |offset: u32| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let skip_unless = |value: u32, skip: u8| libc::sock_filter { code: 0x15, jt: 0, jf: skip, k: value };
    let result = |value: u32| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: value };
    let refuse = result(libc::SECCOMP_RET_ERRNO | error as u32);
    let allow = result(libc::SECCOMP_RET_ALLOW);
    let number = number as u32;
    let mut filter = match second {
        None => vec![load(0), skip_unless(number, 1), refuse, allow],
        Some(second) => vec![load(0), skip_unless(number, 3), load(24), skip_unless(second as u32, 1), refuse, allow],
    };
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: a program that `filter` keeps during the call; the kernel checks and copies it.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "seccomp: {}", std::io::Error::last_os_error());
}
