//! Readers in sandboxes: what seccomp and landlock take away costs speed or leases, never frames.

mod common;
mod raw;
mod scene;

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use camring_ring::{AttachError, AttachOptions, Liveness, ReadError, Ring, wait_any};
use common::{Shm, WriterProcess, assert_untorn, measured, until};
use raw::{Step, address, call};
use scene::{Part, die_when_panicking, leave, run_beside};

const fn step(code: u32, k: u32, jt: u8, jf: u8) -> Step {
    Step { code: code as u16, jt, jf, k }
}

/// Loads a word of the description of the system call: 0 its number, 16 and on its arguments' low halves.
const fn load(offset: u32) -> Step {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

const fn equal(value: u32, jt: u8, jf: u8) -> Step {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, jt, jf)
}

const fn answer(value: u32) -> Step {
    step(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

const ALLOW: Step = answer(libc::SECCOMP_RET_ALLOW);
const REFUSE: Step = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);

/// `FUTEX_WAIT2`-family call of Linux 6.7 that libraries may try.
const SYS_FUTEX_WAIT: u32 = 455;

/// Refuses every call of these numbers.
fn refuse_calls(program: &mut Vec<Step>, numbers: &[u32]) {
    for number in numbers {
        program.extend([load(0), equal(*number, 0, 1), REFUSE]);
    }
}

/// Refuses `fcntl` with any lock command; the rest of `fcntl` goes on.
fn refuse_locks(program: &mut Vec<Step>) {
    let commands =
        [libc::F_OFD_SETLK, libc::F_OFD_SETLKW, libc::F_OFD_GETLK, libc::F_SETLK, libc::F_SETLKW, libc::F_GETLK];
    for command in commands {
        program.extend([load(0), equal(libc::SYS_fcntl as u32, 0, 3)]);
        program.extend([load(16 + 8), equal(command as u32, 0, 1), REFUSE]);
    }
}

fn without_futexes_and_locks() -> Vec<Step> {
    let mut program = Vec::new();
    refuse_calls(&mut program, &[libc::SYS_futex as u32, libc::SYS_futex_waitv as u32, SYS_FUTEX_WAIT]);
    refuse_locks(&mut program);
    program.push(ALLOW);
    program
}

/// Reads `count` new frames, each of them whole and newer than the one before.
fn read_on(ring: &Ring, count: u32) {
    let (mut pixels, mut last) = (Vec::new(), ring.last_seq().0);
    for _ in 0..count {
        let frame = ring.next(&mut pixels, Some(Duration::from_secs(30))).unwrap();
        assert_untorn(frame.meta.seq.0, &pixels);
        assert!(frame.meta.seq.0 > last, "frame {} after frame {last}", frame.meta.seq);
        last = frame.meta.seq.0;
    }
}

fn read_without_futexes_and_locks(part: &Part) -> ! {
    let early = Ring::attach("cam", part.own_options()).unwrap();
    die_when_panicking();
    raw::install_seccomp(&without_futexes_and_locks()).unwrap();
    let late = Ring::attach("cam", part.own_options()).unwrap();
    for ring in [&early, &late] {
        read_on(ring, 20);
        let error = ring.lease().unwrap_err();
        assert!(matches!(error, ReadError::LeaseUnavailable { .. }), "{error}");
        assert!(error.to_string().contains("the kernel refuses the lock"), "{error}");
        until("the heartbeat is seen to move", || ring.liveness() == Liveness::Alive);
    }
    let mut ready = Vec::new();
    until("both handles have news", || {
        ready = wait_any(&[&early, &late], Some(Duration::from_secs(1)));
        ready == [0, 1]
    });
    let quiet = Ring::attach("quiet", part.own_options()).unwrap();
    let cpu = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
    };
    for wait in [
        |ring: &Ring, limit| ring.next(&mut Vec::new(), Some(limit)).is_ok(),
        |ring: &Ring, limit| !wait_any(&[ring, ring], Some(limit)).is_empty(),
    ] {
        let (began, used, limit) = (Instant::now(), cpu(), Duration::from_secs(1));
        assert!(!wait(&quiet, limit), "a frame came from nowhere");
        let (took, used) = (began.elapsed(), cpu() - used);
        assert!(took >= limit, "the wait ended after {took:?}");
        assert!(used < limit / 2, "{used:?} of processor time for waiting {took:?} means that it spins");
        println!("soak: waiting {took:?} without futexes took {used:?} of processor time");
    }
    leave()
}

#[test]
fn a_reader_whose_sandbox_refuses_futexes_and_locks_reads_by_copy_and_waits_in_slices() {
    if let Some(part) = Part::of_this_process() {
        read_without_futexes_and_locks(&part);
    }
    let shm = Shm::new();
    let _writer = WriterProcess::spawn(&shm, "cam", &["--fps", "100", "--size", "64x48"]);
    let _quiet = WriterProcess::spawn(&shm, "quiet", &["--frames", "0"]);
    let test = "a_reader_whose_sandbox_refuses_futexes_and_locks_reads_by_copy_and_waits_in_slices";
    let said = run_beside(test, "reader", &shm);
    said.lines().filter_map(|line| line.split_once("soak: ")).for_each(|(_, number)| measured(number));
}

/// What docs/operations.md says that a reader needs, besides writing its results and ending.
const NEEDED: &[libc::c_long] = &[
    // Attaching and following.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_read,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    libc::SYS_geteuid,
    // Leases, presence, liveness.
    libc::SYS_fcntl,
    libc::SYS_getpid,
    libc::SYS_prctl,
    // Waiting.
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
];

/// What the allocator, the threads and the output of the test's own program need.
const OF_THE_PROGRAM: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_write,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
];

fn nothing_but_what_is_needed() -> Vec<Step> {
    let mut program = vec![load(0)];
    let old: &[libc::c_long] = &[
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_lstat,
    ];
    for number in NEEDED.iter().chain(OF_THE_PROGRAM).chain(old) {
        program.extend([equal(*number as u32, 0, 1), ALLOW]);
    }
    program.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    program
}

fn read_with_the_needed_calls_only(part: &Part) -> ! {
    die_when_panicking();
    raw::install_seccomp(&nothing_but_what_is_needed()).unwrap();
    let ring = Ring::attach("cam", part.own_options()).unwrap();
    read_on(&ring, 20);
    let lease = ring.lease_next(Some(Duration::from_secs(30))).unwrap();
    let mut pixels = vec![0; lease.len()];
    lease.copy_to(&mut pixels).unwrap();
    assert_untorn(lease.frame().meta.seq.0, &pixels);
    lease.release().unwrap();
    until("there is news", || wait_any(&[&ring, &ring], Some(Duration::from_secs(1))) == [0, 1]);
    assert_eq!(ring.liveness(), Liveness::Alive);
    assert!(ring.history(3).unwrap().len() <= 3 && !ring.held().is_empty());
    // Once a second a waiting reader looks at the name: long enough for that.
    let quiet = Ring::attach("quiet", part.own_options()).unwrap();
    assert!(quiet.next(&mut pixels, Some(Duration::from_millis(1_500))).is_err());
    let absent = AttachOptions { timeout: Some(Duration::from_millis(50)), ..part.own_options() };
    assert!(matches!(Ring::attach("absent", absent), Err(AttachError::NotFound { .. })));
    leave()
}

#[test]
fn a_reader_needs_no_other_system_calls_than_the_documented_ones() {
    let test = "a_reader_needs_no_other_system_calls_than_the_documented_ones";
    if let Some(part) = Part::of_this_process() {
        read_with_the_needed_calls_only(&part);
    }
    let shm = Shm::new();
    let _writer = WriterProcess::spawn(&shm, "cam", &["--fps", "100", "--size", "64x48"]);
    let _quiet = WriterProcess::spawn(&shm, "quiet", &["--frames", "0"]);
    run_beside(test, "reader", &shm);
}

const SYS_LANDLOCK_CREATE_RULESET: libc::c_long = 444;
const SYS_LANDLOCK_ADD_RULE: libc::c_long = 445;
const SYS_LANDLOCK_RESTRICT_SELF: libc::c_long = 446;
/// Rights of landlock's first version: every one is handled, these two are given below one folder.
const EVERY_RIGHT: u64 = (1 << 13) - 1;
const READ_FILE: u64 = 1 << 2;
const READ_FOLDER: u64 = 1 << 3;

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct Beneath {
    rights: u64,
    folder: i32,
}

/// From here on this thread may read below `folder` and do nothing else with files; `None` where the kernel has no
/// landlock.
fn allow_reading_below(folder: &Path) -> Option<()> {
    let version = call(SYS_LANDLOCK_CREATE_RULESET, &[0, 0, 1]).ok()?;
    assert!(version >= 1);
    let ruleset = call(SYS_LANDLOCK_CREATE_RULESET, &[address(&EVERY_RIGHT), 8, 0]).unwrap();
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(folder).unwrap();
    let beneath = Beneath { rights: READ_FILE | READ_FOLDER, folder: folder.as_raw_fd() };
    call(SYS_LANDLOCK_ADD_RULE, &[ruleset, 1, address(&beneath), 0]).unwrap();
    raw::no_new_privileges().unwrap();
    call(SYS_LANDLOCK_RESTRICT_SELF, &[ruleset, 0]).unwrap();
    Some(())
}

fn read_under_landlock(part: &Part) {
    let options = part.own_options();
    if allow_reading_below(&part.shm.join("camring.d")).is_none() {
        println!("skipped: this kernel has no landlock");
        return;
    }
    let denied = |path: &str| File::open(path).unwrap_err().raw_os_error();
    assert_eq!(denied("/etc/passwd"), Some(libc::EACCES), "the sandbox is not there");
    let written = OpenOptions::new().write(true).open(part.anchor()).unwrap_err();
    assert_eq!(written.raw_os_error(), Some(libc::EACCES));
    let ring = Ring::attach("cam", options).unwrap();
    read_on(&ring, 20);
    let lease = ring.lease_next(Some(Duration::from_secs(30))).unwrap();
    let mut pixels = vec![0; lease.len()];
    lease.copy_to(&mut pixels).unwrap();
    assert_untorn(lease.frame().meta.seq.0, &pixels);
    lease.release().unwrap();
    assert_eq!(ring.liveness(), Liveness::Alive);
}

#[test]
fn a_reader_that_landlock_lets_read_the_anchor_folder_alone_reads_waits_and_leases() {
    let test = "a_reader_that_landlock_lets_read_the_anchor_folder_alone_reads_waits_and_leases";
    if let Some(part) = Part::of_this_process() {
        return read_under_landlock(&part);
    }
    let shm = Shm::new();
    let _writer = WriterProcess::spawn(&shm, "cam", &["--fps", "100", "--size", "64x48"]);
    let said = run_beside(test, "reader", &shm);
    said.lines().filter(|line| line.starts_with("skipped")).for_each(|line| println!("{line}"));
}
