//! Facts about this process and the way out of it.

use std::fs;

use rustix::rand::{GetRandomFlags, getrandom};

/// Ends the process at once: no destructor, no exit handler, no other thread is waited for.
///
/// For the case that a thread hangs inside foreign code and cannot be joined. The ring stays as it is and the next
/// daemon adopts it.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` takes any status, never returns and touches no memory of this process.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Has the C library keep the heap of a long life small: two arenas, and large blocks from the kernel and back to it.
///
/// Without a limit every thread may get an arena of its own, and the size from which a block comes from the kernel grows
/// with each one that is freed: sessions that come and go then leave megabytes behind that nobody uses. To be called
/// before there is another thread. What the environment says of either (`MALLOC_ARENA_MAX`, `MALLOC_MMAP_THRESHOLD_`,
/// `GLIBC_TUNABLES`) is left alone, and so is a C library that is not glibc.
pub fn settle_heap() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE_BYTES: i32 = 128 << 10;
        let is_said = |name: &str| std::env::var_os(name).is_some();
        let tuned = std::env::var("GLIBC_TUNABLES").is_ok_and(|tunables| tunables.contains("glibc.malloc."));
        let settings = [
            (libc::M_ARENA_MAX, 2, "MALLOC_ARENA_MAX"),
            (libc::M_MMAP_THRESHOLD, LARGE_BYTES, "MALLOC_MMAP_THRESHOLD_"),
        ];
        for (parameter, value, _) in settings.into_iter().filter(|(_, _, name)| !tuned && !is_said(name)) {
            // SAFETY: `mallopt` takes any two numbers and locks the heap itself; one that it refuses changes nothing.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Gives what the heap holds and nobody uses back to the kernel; some milliseconds, in which other threads may wait for
/// memory. For the end of something large, such as a session. Does nothing where the C library is not glibc.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes any number, locks the heap itself and releases only pages without a block in use.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// A random number from the kernel.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0u8; 8];
    fill_random(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// Random bytes from the kernel; a clock-derived pattern in the early-boot case that it has none yet.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    let wanted = bytes.len();
    if getrandom(&mut *bytes, GetRandomFlags::NONBLOCK) == Ok(wanted) {
        return;
    }
    let seed = crate::clock::mono_ns().cast_unsigned() ^ (u64::from(std::process::id()) << 40);
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(index as u32 * 7) >> 24) as u8;
    }
}

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.bytes().filter_map(|b| (b as char).to_digit(16).map(|d| d as u8)).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    id
}

/// Inode of this process's time namespace; 0 when the kernel has none.
pub(crate) fn time_namespace() -> u64 {
    rustix::fs::stat("/proc/self/ns/time").map_or(0, |stat| stat.st_ino)
}

/// Name and number of a group, for messages: `camring (gid 998)`.
pub(crate) fn group_words(gid: u32) -> String {
    match lookup("/etc/group", gid) {
        Some(name) => format!("{name} (gid {gid})"),
        None => format!("gid {gid}"),
    }
}

/// Name and number of a user, for messages.
pub(crate) fn user_words(uid: u32) -> String {
    match lookup("/etc/passwd", uid) {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}

/// The number of a user of the host's own user table.
pub(crate) fn uid_of(name: &str) -> Option<u32> {
    id_of("/etc/passwd", name)
}

/// The number of a group of the host's own group table.
#[must_use]
pub fn gid_of(name: &str) -> Option<u32> {
    id_of("/etc/group", name)
}

fn lookup(table: &str, id: u32) -> Option<String> {
    let text = fs::read_to_string(table).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

fn id_of(table: &str, name: &str) -> Option<u32> {
    let text = fs::read_to_string(table).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// What the kernel says about this process's size; zero where it says nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProcessStats {
    /// Resident memory, bytes, shared pages included.
    pub rss_bytes: u64,
    /// Resident private memory, bytes.
    pub rss_anon_bytes: u64,
    /// CPU time in user mode, ns.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, ns.
    pub cpu_sys_ns: u64,
    /// Threads.
    pub threads: u32,
    /// Open file descriptors.
    pub open_fds: u32,
}

impl ProcessStats {
    /// Reads `/proc/self`.
    #[must_use]
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
        };
        let usage = |clock: i64| clock.max(0).cast_unsigned();
        let (user, sys) = cpu_ns();
        Self {
            rss_bytes: field("VmRSS:") * 1024,
            rss_anon_bytes: field("RssAnon:") * 1024,
            cpu_user_ns: usage(user),
            cpu_sys_ns: usage(sys),
            threads: field("Threads:") as u32,
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count().saturating_sub(1)) as u32,
        }
    }
}

/// User and system CPU time of this process, ns.
fn cpu_ns() -> (i64, i64) {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat_fields(&text).collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
    let per_tick = 1_000_000_000 / i64::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100).max(1);
    (ticks(11) * per_tick, ticks(12) * per_tick)
}

/// When this process started, in clock ticks since boot: with the pid, its identity.
pub(crate) fn start_ticks() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    stat_fields(&text).nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// The fields of `/proc/PID/stat` after the command's name, which may hold blanks and parentheses.
fn stat_fields(text: &str) -> impl Iterator<Item = &str> {
    text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_size_a_thread_and_a_start() {
        let stats = ProcessStats::read();
        assert!(stats.rss_bytes > 100_000 && stats.threads >= 1 && stats.open_fds >= 3, "{stats:?}");
        assert!(start_ticks() > 0);
        assert_ne!(boot_id(), [0; 16]);
    }

    #[test]
    fn users_and_groups_are_named_when_the_host_knows_them() {
        assert_eq!(user_words(0), "root (uid 0)");
        assert_eq!(group_words(4_000_000_000), "gid 4000000000");
        assert_eq!(uid_of("root"), Some(0));
        assert_eq!(uid_of("no such user"), None);
    }
}
