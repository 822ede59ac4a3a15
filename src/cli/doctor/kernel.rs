//! Limits of this process, features of the kernel, socket buffers, load, and the wall clock.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use camring_ring::mebibytes;
use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::config::{Camera, Config, HugePages, Switch, Transport};
use crate::diagnosis::Finding;

/// Descriptors that a camera needs; see `limits.rs`.
const FILES_NEEDED: u64 = 64;
/// Socket buffer that holds a keyframe of a large stream, bytes.
const SOCKET_BYTES: u64 = 2 << 20;
/// 2024-01-01: a wall clock before it was never set, seconds since 1970.
const YEAR_2024: u64 = 1_704_067_200;
/// More waiting work per processor than this is an overloaded host.
const LOAD_WARN: f64 = 1.5;

/// What needs no configuration.
pub(super) fn checks() -> Vec<Check> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let huge = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        Check::host("limits", files(getrlimit(Resource::Nofile).maximum)),
        Check::host("kernel", kernel(release.trim(), huge.as_deref())),
        Check::host("clock", clock(now_s(), synchronised())),
        Check::host("load", load(&read("/proc/loadavg").unwrap_or_default(), processors)),
    ]
}

/// What the cameras of a configuration wish for.
pub(super) fn wishes(config: Option<&Config>) -> Vec<Check> {
    let cameras: Vec<&Camera> = config.into_iter().flat_map(|config| config.cameras.values()).collect();
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let mut checks = Vec::new();
    if let Some(bytes) = number("/proc/sys/net/core/rmem_max") {
        let udp = cameras.iter().filter(|camera| is_datagrams(camera.transport)).count();
        checks.push(Check::host("sockets", sockets(bytes, udp)));
    }
    if let Some(instances) = number("/proc/sys/fs/inotify/max_user_instances") {
        checks.push(Check::host("limits", inotify(instances, cameras.len() as u64)));
    }
    if cameras.iter().any(|camera| camera.ring.lock == Switch::On) {
        checks.push(Check::host("limits", locked(getrlimit(Resource::Memlock).maximum)));
    }
    let huge = cameras.iter().filter(|camera| camera.ring.huge_pages == HugePages::Try).count();
    let never = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
        .is_ok_and(|text| text.contains("[never]") || text.contains("[deny]"));
    if never && huge > 0 {
        let found = "huge pages for shared memory are off: rings take small ones, which costs a few percent of copying";
        checks.push(Check::host("kernel", Finding::ok("huge_pages", found)));
    }
    checks
}

fn is_datagrams(transport: Transport) -> bool {
    matches!(transport, Transport::Udp | Transport::Multicast | Transport::Auto)
}

/// `None` = no limit.
fn files(hard: Option<u64>) -> Finding {
    match hard {
        Some(hard) if hard < FILES_NEEDED => Finding::fail(
            "open_files",
            format!("a process may open {hard} files, a camera needs {FILES_NEEDED}"),
            "LimitNOFILE=1024 in the unit, ulimit -n in a shell",
        ),
        Some(hard) => {
            Finding::ok("open_files", format!("a process may open {hard} files, a camera needs {FILES_NEEDED}"))
        }
        None => Finding::ok("open_files", "a process may open any number of files"),
    }
}

fn locked(limit: Option<u64>) -> Finding {
    match limit {
        None => Finding::ok("memlock", "rings may be locked into memory"),
        Some(bytes) => Finding::warn(
            "memlock",
            format!("ring.lock is set and a process may lock {}", mebibytes(bytes)),
            "LimitMEMLOCK=infinity in a drop-in of the unit, ulimit -l in a shell",
        ),
    }
}

fn kernel(release: &str, huge: Option<&str>) -> Finding {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let chosen = huge.and_then(|text| text.split('[').nth(1)?.split(']').next()).unwrap_or("unknown");
    let tail = format!("huge pages for shared memory: {chosen}");
    match version {
        (0, 0) => Finding::warn("kernel", format!("kernel {release:?} has no number"), "mount /proc"),
        old if old < (3, 15) => Finding::fail(
            "kernel",
            format!("Linux {release} has no open file description locks: readers cannot be counted, leases not held"),
            "Linux 5.16 or newer",
        ),
        old if old < (5, 16) => Finding::warn(
            "kernel",
            format!("Linux {release}: readers of several rings poll (futex_waitv came with 5.16); {tail}"),
            "Linux 5.16 or newer",
        ),
        _ => Finding::ok("kernel", format!("Linux {release}: locks, futexes and pre-faulting are there; {tail}")),
    }
}

fn sockets(bytes: u64, cameras: usize) -> Finding {
    let found = format!("a UDP socket may buffer {} (net.core.rmem_max)", mebibytes(bytes));
    if bytes >= SOCKET_BYTES {
        return Finding::ok("socket_buffers", found);
    }
    if cameras == 0 {
        return Finding::ok("socket_buffers", format!("{found}; no camera of the configuration uses UDP"));
    }
    Finding::warn(
        "socket_buffers",
        format!("{found}; {cameras} cameras use UDP, and a keyframe of a large stream overruns it"),
        format!("sysctl -w net.core.rmem_max={SOCKET_BYTES}, and the same in /etc/sysctl.d/camring.conf"),
    )
}

fn inotify(instances: u64, cameras: u64) -> Finding {
    let found = format!("a user may have {instances} inotify instances, each camera takes one");
    if instances >= cameras + 16 {
        return Finding::ok("inotify", found);
    }
    Finding::warn("inotify", format!("{found}: {cameras} cameras"), "sysctl -w fs.inotify.max_user_instances=1024")
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What the host's time service says; `None` where there is none to ask.
fn synchronised() -> Option<bool> {
    let said = answer("timedatectl", &["show", "--property=NTPSynchronized", "--value"])?;
    match said.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn clock(now_s: u64, synchronised: Option<bool>) -> Finding {
    if now_s < YEAR_2024 {
        return Finding::fail(
            "wall_clock",
            "this host's clock stands before 2024: certificates fail, and recordings get wrong times",
            "timedatectl set-ntp true, or date -s",
        );
    }
    match synchronised {
        Some(true) => Finding::ok("wall_clock", "this host's clock is synchronised"),
        Some(false) => Finding::warn(
            "wall_clock",
            "this host's clock is not synchronised with a time server: cameras look wrong where it is",
            "timedatectl set-ntp true (systemd-timesyncd or chrony)",
        ),
        None => Finding::ok("wall_clock", "this host's clock is plausible; no time service here says more"),
    }
}

/// The work that waits, of the last minute.
fn load(loadavg: &str, processors: usize) -> Finding {
    let Some(load) = loadavg.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()) else {
        return Finding::ok("load", "the kernel does not tell how much work waits");
    };
    let found = format!("{load:.1} tasks run or wait on {processors} processors");
    if load <= LOAD_WARN * processors as f64 {
        return Finding::ok("load", found);
    }
    Finding::warn(
        "overload",
        format!("{found}: more than they can do, so frames come late"),
        "sub-streams, max_fps, idle = \"park\", a hardware decoder, fewer cameras on this host; camring top shows who takes how much",
    )
}

/// How long a program that is asked may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a program of the host prints; `None` when it is not there, fails, or takes too long.
pub(super) fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut out = child.stdout.take()?;
    let (done, said) = crossbeam_channel::bounded(1);
    // Reads on a thread of its own: a program that hangs with its pipe open must not hang this one.
    let reader = std::thread::Builder::new().name("answer".into()).spawn(move || {
        let mut text = String::new();
        let read = std::io::Read::read_to_string(&mut out, &mut text);
        // Nobody waits any more after the deadline.
        drop(done.send(read.is_ok().then_some(text)));
    });
    let text = reader.ok().and_then(|_| said.recv_timeout(PATIENCE).ok().flatten());
    if text.is_none() {
        // It may have ended by itself meanwhile, which is as good.
        let _ = child.kill();
    }
    let status = child.wait().ok()?;
    text.filter(|_| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Level;

    #[test]
    fn each_check_of_the_kernel_has_its_threshold() {
        assert_eq!(files(Some(20)).level, Level::Fail);
        assert_eq!(files(Some(64)).level, Level::Ok);
        let kernels =
            ["3.10.0-1160.el7", "5.10.0-26-amd64", "6.1.0-13-amd64", ""].map(|release| kernel(release, None).level);
        assert_eq!(kernels, [Level::Fail, Level::Warn, Level::Ok, Level::Warn]);
        assert!(kernel("6.1.0", Some("always within_size [advise] never")).found.ends_with("shared memory: advise"));
        assert_eq!((sockets(212_992, 0).level, sockets(212_992, 2).level), (Level::Ok, Level::Warn));
        assert_eq!((inotify(128, 20).level, inotify(128, 120).level), (Level::Ok, Level::Warn));
        assert_eq!((load("0.50 0 0 1/2 3", 2).level, load("9.30 0 0 1/2 3", 2).level), (Level::Ok, Level::Warn));
        assert_eq!(clock(1, Some(true)).level, Level::Fail);
        assert_eq!(clock(YEAR_2024 + 1, Some(false)).level, Level::Warn);
        assert_eq!((locked(None).level, locked(Some(65_536)).level), (Level::Ok, Level::Warn));
    }

    #[test]
    fn a_program_that_is_missing_fails_or_hangs_says_nothing() {
        assert_eq!(answer("no-such-program-here", &[]), None);
        assert_eq!(answer("false", &[]), None);
        assert_eq!(answer("echo", &["yes"]).as_deref(), Some("yes\n"));
        let began = std::time::Instant::now();
        assert_eq!(answer("sleep", &["60"]), None);
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
