//! The evil reader: what a process that may only read does to a ring, its names and its writer. All of it must fail.

mod common;
mod raw;
mod scene;

use std::ffi::CString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, fchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use camring_ring::layout::{ALIVE_LOCK_OFF, CONFIG_BYTES, LEASE_LOCK_BASE, at};
use camring_ring::{AttachError, Liveness, Ring};
use common::{assert_untorn, until};
use libc::{EACCES, EBADF, EEXIST, EFAULT, EINVAL, EIO, ENOENT, ENOTTY, EOPNOTSUPP, EPERM, EROFS, ESRCH, EXDEV};
use raw::{Map, address, call, fcntl, lock};
use scene::{MEMBER, OUTSIDER, Part, READERS, Scene, Witness, open_read_only};

/// Counts attempts; every one must be refused, with one of the named errors.
struct Attacker {
    part: Part,
    /// Errors that this part's surroundings answer before the kernel gets to the one that is named.
    also: &'static [i32],
    attempts: u32,
}

impl Attacker {
    fn refused<T: Debug>(&mut self, what: &str, result: io::Result<T>, errors: &[i32]) {
        self.attempts += 1;
        match result {
            Ok(got) => panic!("{}: {what} was possible and gave {got:?}", self.part.role),
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(0);
                let expected = errors.contains(&code) || self.also.contains(&code);
                assert!(expected, "{}: {what} was refused with {error}, expected one of {errors:?}", self.part.role);
            }
        }
    }

    fn file(&self) -> File {
        open_read_only(&self.part.anchor())
    }

    fn names(&self) -> [PathBuf; 2] {
        let public = self.part.shm.join("camring.cam");
        [self.part.anchor(), if public.exists() { public } else { self.part.anchor() }]
    }

    /// Through the mapping: a read-only mapping of a read-only description never becomes writable.
    fn attack_the_mapping(&mut self) {
        let file = self.file();
        let len = file.metadata().unwrap().len() as usize;
        let map = Map::new(&file, len, libc::PROT_READ).unwrap();
        let before = map.bytes(0, CONFIG_BYTES);
        let write = libc::PROT_READ | libc::PROT_WRITE;
        self.refused("mprotect", map.protect(write), &[EACCES]);
        self.refused("mmap for writing", Map::new(&file, len, write).map(|_| ()), &[EACCES]);
        let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem").unwrap();
        self.refused("/proc/self/mem", memory.write_at(&[0xFF; 8], map.address() as u64), &[EIO]);
        let zero = File::open("/dev/zero").unwrap();
        let read = call(libc::SYS_read, &[zero.as_raw_fd() as usize, map.address(), 4096]);
        self.refused("read(2) into the mapping", read, &[EFAULT]);
        self.refused("MADV_REMOVE", map.advise(libc::MADV_REMOVE), &[EACCES]);
        self.refused("MADV_FREE", map.advise(libc::MADV_FREE), &[EINVAL]);
        self.refused("MADV_POPULATE_WRITE", map.advise(libc::MADV_POPULATE_WRITE), &[EINVAL]);
        self.refused("MADV_HWPOISON", map.advise(libc::MADV_HWPOISON), &[EPERM, EINVAL]);
        for advice in [libc::MADV_DONTNEED, libc::MADV_COLD, libc::MADV_PAGEOUT] {
            // Allowed, and only this process's own page tables change.
            map.advise(advice).unwrap_or_else(|error| panic!("advice {advice}: {error}"));
            assert_eq!(map.bytes(0, CONFIG_BYTES), before, "advice {advice} changed the header");
        }
        let range = format!("{:x}-{:x}", map.address(), map.address() + len.next_multiple_of(4096));
        let through = OpenOptions::new().write(true).open(format!("/proc/self/map_files/{range}"));
        self.refused("/proc/self/map_files", through, &[EPERM, EACCES]);
    }

    /// Through the descriptor.
    fn attack_the_descriptor(&mut self) {
        let file = self.file();
        let fd = file.as_raw_fd() as usize;
        self.refused("write", file.write_at(&[0xFF; 8], 0), &[EBADF]);
        self.refused("ftruncate", file.set_len(0), &[EINVAL, EBADF]);
        let hole = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
        for (what, mode) in
            [("punch a hole", hole), ("fallocate", 0), ("collapse", libc::FALLOC_FL_COLLAPSE_RANGE as usize)]
        {
            self.refused(what, call(libc::SYS_fallocate, &[fd, mode, 0, 65_536]), &[EBADF]);
        }
        let source = File::open("/proc/self/exe").unwrap();
        let from = source.as_raw_fd() as usize;
        self.refused("sendfile", call(libc::SYS_sendfile, &[fd, from, 0, 4096]), &[EBADF]);
        self.refused("copy_file_range", call(libc::SYS_copy_file_range, &[from, 0, fd, 0, 4096, 0]), &[EBADF]);
        let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        self.refused("F_ADD_SEALS", fcntl(&file, libc::F_ADD_SEALS, seals as usize), &[EPERM, EINVAL]);
        for kind in [libc::F_RDLCK, libc::F_WRLCK] {
            self.refused("F_SETLEASE", fcntl(&file, libc::F_SETLEASE, kind as usize), &[EACCES, libc::EAGAIN]);
        }
        for (what, byte) in [("slot 0", LEASE_LOCK_BASE), ("slot 7", LEASE_LOCK_BASE + 7), ("alive", ALIVE_LOCK_OFF)] {
            for command in [libc::F_OFD_SETLK, libc::F_SETLK] {
                let taken = lock(&file, command, libc::F_WRLCK, byte, 1);
                self.refused(&format!("F_WRLCK on the byte of {what}"), taken, &[EBADF]);
            }
        }
        let mut flags: libc::c_long = 0x10; // FS_IMMUTABLE_FL
        let set = call(libc::SYS_ioctl, &[fd, libc::FS_IOC_SETFLAGS as usize, (&raw mut flags) as usize]);
        self.refused("FS_IOC_SETFLAGS", set, &[EACCES, EPERM, ENOTTY, EOPNOTSUPP]);
        self.attack_the_inode_of(&file);
    }

    /// Owner, mode, times and attributes, through a descriptor.
    fn attack_the_inode_of(&mut self, file: &File) {
        let fd = file.as_raw_fd() as usize;
        self.refused("fchmod", file.set_permissions(Permissions::from_mode(0o666)), &[EPERM]);
        self.refused("fchown", fchown(file, Some(MEMBER), None), &[EPERM]);
        self.refused("futimens", file.set_modified(SystemTime::UNIX_EPOCH), &[EPERM]);
        let value = b"evil";
        for (name, error) in [
            (c"user.camring", &[EPERM, EACCES, EOPNOTSUPP] as &[i32]),
            (c"trusted.camring", &[EPERM, EOPNOTSUPP]),
            (c"security.camring", &[EPERM, EOPNOTSUPP]),
            (c"system.posix_acl_access", &[EPERM, EOPNOTSUPP, EINVAL]),
        ] {
            let set = call(libc::SYS_fsetxattr, &[fd, name.as_ptr() as usize, address(value), value.len(), 0]);
            self.refused(&format!("set the attribute {}", name.to_string_lossy()), set, error);
        }
    }

    /// A second, writable description of the same file.
    fn attack_by_opening_again(&mut self) {
        let file = self.file();
        let mut ways = self.names().to_vec();
        ways.push(format!("/proc/self/fd/{}", file.as_raw_fd()).into());
        for way in ways {
            self.open_for_writing(&way);
        }
    }

    fn open_for_writing(&mut self, way: &Path) {
        let path = CString::new(way.to_str().unwrap()).unwrap();
        for (what, flags) in [
            ("O_RDWR", libc::O_RDWR),
            ("O_WRONLY", libc::O_WRONLY),
            ("O_TRUNC", libc::O_RDONLY | libc::O_TRUNC),
            ("O_APPEND", libc::O_WRONLY | libc::O_APPEND),
            ("O_CREAT", libc::O_RDWR | libc::O_CREAT),
        ] {
            let opened = call(libc::SYS_openat, &[libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize]);
            self.refused(&format!("open {} {what}", way.display()), opened, &[EACCES]);
        }
        let cut = call(libc::SYS_truncate, &[path.as_ptr() as usize, 0]);
        self.refused(&format!("truncate {}", way.display()), cut, &[EACCES]);
    }

    /// Names, owners and modes by path. Needs no right to read the ring.
    fn attack_the_names(&mut self) {
        let mine = std::env::temp_dir().join(format!("camring-evil-{}", std::process::id()));
        fs::write(&mine, b"planted").unwrap();
        for name in self.names() {
            let what = |verb: &str| format!("{verb} {}", name.display());
            self.refused(&what("unlink"), fs::remove_file(&name), &[EPERM, EACCES]);
            self.refused(&what("rename"), fs::rename(&name, name.with_extension("gone")), &[EPERM, EACCES]);
            self.refused(&what("chmod"), fs::set_permissions(&name, Permissions::from_mode(0o666)), &[EPERM]);
            self.refused(&what("chown"), chown(&name, Some(MEMBER), None), &[EPERM]);
            self.refused(&what("plant a folder on"), fs::create_dir(&name), &[EEXIST]);
            self.refused(&what("plant a link on"), symlink(&mine, &name), &[EEXIST]);
            let planted = OpenOptions::new().write(true).create_new(true).open(&name);
            self.refused(&what("plant a file on"), planted, &[EEXIST]);
            if hard_links_are_protected() {
                let link = self.part.shm.join(format!("evil-{}", std::process::id()));
                self.refused(&what("link"), fs::hard_link(&name, link), &[EPERM, EACCES]);
            }
        }
        self.rename_over_the_names(&mine);
        fs::remove_file(&mine).unwrap();
        self.attack_the_anchor_folder();
    }

    fn rename_over_the_names(&mut self, mine: &Path) {
        // Renaming needs a file on the same mount: the memory mount itself lets everybody make one.
        let near = self.part.shm.join(format!("evil-{}", std::process::id()));
        match fs::copy(mine, &near) {
            Ok(_) => {
                for name in self.names() {
                    let over = fs::rename(&near, &name);
                    self.refused(&format!("rename over {}", name.display()), over, &[EPERM, EACCES]);
                }
                fs::remove_file(&near).unwrap();
            }
            Err(error) => self.refused("plant a file beside the ring", Err::<(), _>(error), &[EACCES]),
        }
    }

    /// The folder of the anchors takes nothing from a reader: neither files that a writer would find nor a lock.
    fn attack_the_anchor_folder(&mut self) {
        let folder = self.part.shm.join("camring.d");
        for name in [".lock-cam", ".lock-other", "other", ".tmp-cam~0000000000000000", "cam.small"] {
            let path = folder.join(name);
            let planted = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            self.refused(&format!("plant {name}"), planted, &[EACCES]);
        }
        let locked = folder.join(".lock-cam");
        self.refused("open the lock file to write", OpenOptions::new().write(true).open(&locked), &[EACCES]);
        if self.part.role != CONTAINER_ROOT {
            // Root that may override rights can open it through a read-only mount as well; docs/operations.md says
            // what that costs (the next start of the daemon, nothing that runs).
            self.refused("open the lock file to read", File::open(&locked), &[EACCES]);
        }
        self.refused("unlink the lock file", fs::remove_file(&locked), &[EACCES]);
        self.refused("unlink the anchor folder", fs::remove_dir(&folder), &[EPERM, EACCES, libc::EBUSY]);
        let moved = fs::rename(&folder, self.part.shm.join("elsewhere.d"));
        self.refused("rename the anchor folder", moved, &[EPERM, EACCES, libc::EBUSY]);
        self.refused("open the anchor folder", fs::set_permissions(&folder, Permissions::from_mode(0o777)), &[EPERM]);
        if self.part.role != NAMESPACE_ROOT {
            // Root of a user namespace may mount over what it sees; nobody else sees that.
            let [source, target] = [c"/", c"/dev/shm"].map(|path| path.as_ptr() as usize);
            let mounted = call(libc::SYS_mount, &[source, target, 0, libc::MS_BIND as usize, 0]);
            self.refused("mount over the rings", mounted, &[EPERM]);
        }
    }

    /// The process that writes.
    fn attack_the_writer(&mut self) {
        let pid = self.part.writer as usize;
        for signal in [0, libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM, libc::SIGUSR1] {
            self.refused(&format!("signal {signal}"), call(libc::SYS_kill, &[pid, signal as usize]), &[EPERM]);
            let thread = call(libc::SYS_tgkill, &[pid, pid, signal as usize]);
            self.refused(&format!("signal {signal} to its thread"), thread, &[EPERM]);
        }
        const PTRACE_SEIZE: usize = 0x4206;
        for (what, request) in [("attach", libc::PTRACE_ATTACH as usize), ("seize", PTRACE_SEIZE)] {
            self.refused(&format!("ptrace {what}"), call(libc::SYS_ptrace, &[request, pid, 0, 0]), &[EPERM]);
        }
        let mut bytes = [0u8; 8];
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: 0x1000 as *mut libc::c_void, iov_len: bytes.len() };
        let (ours, theirs) = (address(&local), address(&remote));
        for (what, number) in [("read", libc::SYS_process_vm_readv), ("write", libc::SYS_process_vm_writev)] {
            self.refused(&format!("{what} its memory"), call(number, &[pid, ours, 1, theirs, 1, 0]), &[EPERM]);
        }
        for (what, options) in [("mem", OpenOptions::new().write(true)), ("environ", OpenOptions::new().read(true))] {
            let opened = options.open(format!("/proc/{pid}/{what}"));
            self.refused(&format!("open its {what}"), opened, &[EACCES, EPERM]);
        }
        self.refused("list its descriptors", fs::read_dir(format!("/proc/{pid}/fd")).map(|_| ()), &[EACCES]);
        let set = [!0u64; 16];
        let affinity = call(libc::SYS_sched_setaffinity, &[pid, size_of_val(&set), address(&set)]);
        self.refused("bind it to a processor", affinity, &[EPERM]);
        let nice = call(libc::SYS_setpriority, &[libc::PRIO_PROCESS as usize, pid, 19]);
        self.refused("slow it down", nice, &[EPERM, EACCES]);
        let limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        let limited = call(libc::SYS_prlimit64, &[pid, libc::RLIMIT_NOFILE as usize, address(&limit), 0]);
        self.refused("limit it", limited, &[EPERM]);
        self.attack_by_pidfd(pid);
    }

    fn attack_by_pidfd(&mut self, pid: usize) {
        match call(libc::SYS_pidfd_open, &[pid, 0]) {
            Ok(pidfd) => {
                for fd in 0..8 {
                    self.refused("take its descriptor", call(libc::SYS_pidfd_getfd, &[pidfd, fd, 0]), &[EPERM]);
                }
                let signal = call(libc::SYS_pidfd_send_signal, &[pidfd, libc::SIGKILL as usize, 0, 0]);
                self.refused("signal by pidfd", signal, &[EPERM]);
                let range = libc::iovec { iov_base: 0x1000 as *mut libc::c_void, iov_len: 4096 };
                let advice = libc::MADV_PAGEOUT as usize;
                let advised = call(libc::SYS_process_madvise, &[pidfd, address(&range), 1, advice, 0]);
                self.refused("advise its memory", advised, &[EPERM, EACCES]);
            }
            Err(error) => self.refused("pidfd_open", Err::<(), _>(error), &[ESRCH]),
        }
    }

    /// Outside the group: not even read, and told why.
    fn be_refused(&mut self) {
        for name in self.names() {
            self.refused(&format!("open {}", name.display()), File::open(&name), &[EACCES]);
            self.open_for_writing(&name);
        }
        let error = Ring::attach("cam", self.part.attach_options()).unwrap_err();
        assert!(matches!(error, AttachError::Permission { gid: READERS, .. }), "{error}");
        let anchor = self.part.anchor();
        let expected = format!(
            "ring \"cam\": {} may be read by group gid {READERS} only; add this user to that group",
            anchor.display()
        );
        assert_eq!(error.to_string(), expected);
        println!("soak: {}: {} attempts, all refused", self.part.role, self.attempts);
    }

    /// The mount that a container was given read-only stays read-only.
    fn attack_the_mount(&mut self) {
        let folder = CString::new(self.part.shm.join("camring.d").to_str().unwrap()).unwrap();
        let target = folder.as_ptr() as usize;
        for (what, flags) in [("remount it writable", libc::MS_REMOUNT | libc::MS_BIND), ("remount", libc::MS_REMOUNT)]
        {
            self.refused(what, call(libc::SYS_mount, &[0, target, 0, flags as usize, 0]), &[EPERM]);
        }
        self.refused("unmount it", call(libc::SYS_umount2, &[target, libc::MNT_DETACH as usize]), &[EPERM, EINVAL]);
    }

    /// After all that: what a reader may do, it still can.
    fn read_wait_and_lease(&mut self) {
        let ring = Ring::attach("cam", self.part.attach_options()).unwrap();
        let mut pixels = Vec::new();
        let mut last = 0;
        for _ in 0..20 {
            let frame = ring.next(&mut pixels, Some(Duration::from_secs(30))).unwrap();
            assert_untorn(frame.meta.seq.0, &pixels);
            assert!(frame.meta.seq.0 > last, "frame {} after frame {last}", frame.meta.seq);
            last = frame.meta.seq.0;
        }
        let lease = ring.lease_next(Some(Duration::from_secs(30))).unwrap();
        pixels.resize(lease.len(), 0);
        lease.copy_to(&mut pixels).unwrap();
        assert_untorn(lease.frame().meta.seq.0, &pixels);
        lease.release().unwrap();
        self.lease_by_the_document(&ring);
        println!(
            "soak: {}: {} attempts, all refused; 20 frames read and one leased afterwards",
            self.part.role, self.attempts
        );
    }

    /// A lease as docs/segment.md describes it: a read lock on the slot's byte, then the stamp.
    fn lease_by_the_document(&self, ring: &Ring) {
        let (file, layout) = (self.file(), ring.layout());
        let map = Map::new(&file, layout.file_bytes as usize, libc::PROT_READ).unwrap();
        let (head, slot) = loop {
            let head = map.u64_at(at::HEAD as usize).load(Ordering::Acquire);
            let slot = (head & 0xFFFF) as u32;
            let byte = layout.lease_lock_base + u64::from(slot);
            if lock(&file, libc::F_OFD_SETLK, libc::F_RDLCK, byte, 1).is_ok()
                && map.u64_at(layout.slot_header_off(slot) as usize).load(Ordering::SeqCst) == head >> 16 << 1
            {
                break (head, slot);
            }
            lock(&file, libc::F_OFD_SETLK, libc::F_UNLCK, byte, 1).unwrap();
        };
        let mut pixels = Vec::new();
        until("the writer laps the leased slot", || {
            let frame = ring.next(&mut pixels, Some(Duration::from_secs(30))).unwrap();
            frame.meta.seq.0 > (head >> 16) + 3 * u64::from(layout.slot_count)
        });
        let stamp = map.u64_at(layout.slot_header_off(slot) as usize).load(Ordering::SeqCst);
        assert_eq!(stamp, head >> 16 << 1, "the leased slot was overwritten although others were free");
        let payload = map.bytes(layout.payload_off(slot) as usize, 64 * 48 * 3);
        assert_untorn(head >> 16, &payload);
    }
}

fn hard_links_are_protected() -> bool {
    fs::read_to_string("/proc/sys/fs/protected_hardlinks").is_ok_and(|text| text.trim() == "1")
}

/// What the surroundings of a container answer where a plain user is told about rights.
const IN_A_CONTAINER: &[i32] = &[EROFS, EPERM, EACCES, ESRCH, ENOENT, EXDEV];
const NAMESPACE_ROOT: &str = "root of a user namespace";
const CONTAINER_ROOT: &str = "root of a container";
/// What container engines leave to root of a container by default.
const CONTAINER_RIGHTS: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
    +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

/// The parts that this test's processes play.
fn play(part: Part) {
    let contained = [NAMESPACE_ROOT, CONTAINER_ROOT].contains(&part.role.as_str());
    let also = if contained { IN_A_CONTAINER } else { &[] };
    let outside = part.role == "an outsider";
    let mut attacker = Attacker { part, also, attempts: 0 };
    attacker.attack_the_names();
    attacker.attack_the_writer();
    if outside {
        attacker.be_refused();
        return;
    }
    attacker.attack_the_mapping();
    attacker.attack_the_descriptor();
    attacker.attack_by_opening_again();
    if contained {
        attacker.attack_the_mount();
    }
    attacker.read_wait_and_lease();
}

/// Runs one attacker against a writer, with an undisturbed reader beside it.
fn withstand(test: &str, attack: impl FnOnce(&Scene) -> String) {
    if let Some(part) = Part::of_this_process() {
        return play(part);
    }
    let Some(scene) = Scene::new(&["--fps", "200", "--size", "64x48"]) else { return };
    let witness = Witness::start(scene.attach_options());
    witness.more(20);
    let before = scene.immutable_facts();
    let said = attack(&scene);
    assert_eq!(scene.immutable_facts(), before, "{test}: something changed");
    witness.more(20);
    assert_eq!(witness.ring.liveness(), Liveness::Alive);
    assert_eq!(witness.ring.stats().followed, 0, "the ring was not made anew");
    let frames = witness.end();
    let measured = said.lines().find_map(|line| line.split_once("soak: ")).expect("the attacker reports").1;
    println!("soak: {measured}; {frames} frames read untorn beside it");
}

#[test]
fn a_reader_of_another_user_can_change_nothing_and_still_reads_waits_and_leases() {
    let test = "a_reader_of_another_user_can_change_nothing_and_still_reads_waits_and_leases";
    withstand(test, |scene| scene.run_as(test, "a member of the group", MEMBER, READERS));
}

#[test]
fn somebody_outside_the_group_is_refused_and_told_which_group_may_read() {
    let test = "somebody_outside_the_group_is_refused_and_told_which_group_may_read";
    withstand(test, |scene| scene.run_as(test, "an outsider", OUTSIDER, OUTSIDER));
}

/// A shell that mounts the anchor folder read-only where the container sees it, hides everything else of the memory
/// mount, and becomes what `then` says.
fn in_a_container(scene: &Scene, test: &str, role: &str, then: &[&str]) -> String {
    let script = r#"
        set -e
        mount --bind "$1" "$2"
        mount -o remount,bind,ro "$2"
        mount -t tmpfs none /dev/shm
        mount -t proc none /proc
        shift 2
        exec "$@""#;
    let point = scene.mount_point();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]);
    command.arg(scene.shm.path().join("camring.d")).arg(point.join("camring.d"));
    command.args(then).arg(scene.program()).args(Scene::arguments(test));
    scene.play(&mut command, role, &point);
    scene::finish(&mut command)
}

fn can_mount() -> bool {
    let said = Command::new("unshare").args(["-m", "true"]).output().unwrap();
    if !said.status.success() {
        println!("skipped: no mount of one's own here: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    said.status.success()
}

#[test]
fn root_of_a_container_with_a_read_only_mount_can_change_nothing_and_still_reads_waits_and_leases() {
    let test = "root_of_a_container_with_a_read_only_mount_can_change_nothing_and_still_reads_waits_and_leases";
    if Part::of_this_process().is_none() && !can_mount() {
        return;
    }
    withstand(test, |scene| {
        let rights = ["setpriv", "--bounding-set", CONTAINER_RIGHTS, "--inh-caps", CONTAINER_RIGHTS];
        in_a_container(scene, test, CONTAINER_ROOT, &rights)
    });
}

#[test]
fn root_of_a_user_namespace_can_change_nothing_and_still_reads_waits_and_leases() {
    let test = "root_of_a_user_namespace_can_change_nothing_and_still_reads_waits_and_leases";
    if Part::of_this_process().is_none() && !can_mount() {
        return;
    }
    withstand(test, |scene| {
        let (user, group) = (MEMBER.to_string(), READERS.to_string());
        let mut then = vec!["setpriv", "--reuid", &user, "--regid", &group, "--clear-groups"];
        then.extend(["unshare", "--user", "--mount", "--map-root-user"]);
        in_a_container(scene, test, NAMESPACE_ROOT, &then)
    });
}
