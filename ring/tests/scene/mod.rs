//! Several users on one stage: a service that writes a ring, readers in its group, people outside; as processes.
//!
//! A test plays both sides: it starts its own program again as another user, with [`ROLE`] set, and that process runs
//! the same test function, which sees [`Part::of_this_process`] and plays the part.
#![allow(dead_code)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use camring_ring::{AttachOptions, OwnerPolicy, Ring, ShmDir};

use crate::common::{Shm, WriterProcess, assert_untorn};

/// The service's user, the group that may read its rings, and the group that may make rings.
pub const SERVICE: u32 = 61_001;
pub const READERS: u32 = 61_003;
pub const MAKERS: u32 = 61_004;
/// A reader, and somebody who is none.
pub const MEMBER: u32 = 61_002;
pub const OUTSIDER: u32 = 61_005;

const ROLE: &str = "CAMRING_TEST_ROLE";

/// What a started process knows: its role, the memory mount it sees, and the writer's pid.
pub struct Part {
    pub role: String,
    pub shm: PathBuf,
    pub writer: i32,
}

impl Part {
    /// The part of this process; `None` in the test itself.
    pub fn of_this_process() -> Option<Self> {
        let role = std::env::var(ROLE).ok()?;
        let shm = std::env::var("CAMRING_TEST_SHM").unwrap().into();
        let writer = std::env::var("CAMRING_TEST_WRITER").unwrap().parse().unwrap();
        Some(Self { role, shm, writer })
    }

    pub fn attach_options(&self) -> AttachOptions {
        // A user namespace shows a user that it does not know under the number of nobody.
        let namespaced = !fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295");
        AttachOptions {
            shm: ShmDir::new(&self.shm),
            timeout: Some(Duration::from_secs(20)),
            owner: OwnerPolicy::Uid(if namespaced { 65_534 } else { SERVICE }),
            ..AttachOptions::default()
        }
    }

    /// As `attach_options`, for a ring of this process's own user.
    pub fn own_options(&self) -> AttachOptions {
        AttachOptions { owner: OwnerPolicy::Usual, ..self.attach_options() }
    }

    pub fn anchor(&self) -> PathBuf {
        self.shm.join("camring.d/cam")
    }
}

/// A memory mount as on a host with the service installed, a writer on it, and copies of the programs to run.
pub struct Scene {
    pub shm: Shm,
    pub writer: WriterProcess,
    tools: Tools,
}

/// Copies of the programs, where every user may run them; removed at the end.
struct Tools(PathBuf);

impl Tools {
    fn new(shm: &Shm) -> Self {
        let tools = Self(std::env::temp_dir().join(shm.path().file_name().unwrap()));
        fs::create_dir(&tools.0).unwrap();
        fs::set_permissions(&tools.0, fs::Permissions::from_mode(0o755)).unwrap();
        copy_the_programs(&tools.0);
        tools
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Scene {
    /// `None`, with the reason printed, where this process may not become other users.
    pub fn new(writer_options: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: playing several users needs root");
            return None;
        }
        let shm = Shm::new();
        // As /dev/shm itself and as the service's tmpfiles configuration makes the anchor folder.
        fs::set_permissions(shm.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let anchors = shm.path().join("camring.d");
        fs::create_dir(&anchors).unwrap();
        chown(&anchors, Some(0), Some(MAKERS)).unwrap();
        fs::set_permissions(&anchors, fs::Permissions::from_mode(0o1775)).unwrap();
        let tools = Tools::new(&shm);
        let writer = start_writer(&tools.0, &shm, writer_options);
        Some(Self { shm, writer, tools })
    }

    pub fn anchor(&self) -> PathBuf {
        self.shm.path().join("camring.d/cam")
    }

    /// Where containers of this scene mount what they are given.
    pub fn mount_point(&self) -> PathBuf {
        let point = self.tools.0.join("mount");
        fs::create_dir_all(point.join("camring.d")).unwrap();
        point
    }

    /// This test's own program, which a caller gives a user and starts.
    pub fn part(&self, test: &str, role: &str) -> Command {
        let mut command = Command::new(self.tools.0.join("test"));
        self.play(&mut command, role, self.shm.path());
        command.args(Self::arguments(test));
        command
    }

    pub fn arguments(test: &str) -> [&str; 4] {
        ["--exact", test, "--nocapture", "--test-threads=1"]
    }

    /// Gives a command its part.
    pub fn play(&self, command: &mut Command, role: &str, shm: &Path) {
        give_part(command, role, shm, self.writer.0.id());
        command.current_dir(&self.tools.0);
    }

    pub fn program(&self) -> PathBuf {
        self.tools.0.join("test")
    }

    /// As `part`, as a user of exactly one group, run to its end, which must be a good one.
    pub fn run_as(&self, test: &str, role: &str, uid: u32, gid: u32) -> String {
        // Of std: a process that gives root up also gives up every supplementary group.
        finish(self.part(test, role).uid(uid).gid(gid))
    }

    pub fn attach_options(&self) -> AttachOptions {
        AttachOptions { owner: OwnerPolicy::Uid(SERVICE), ..self.shm.attach_options() }
    }

    /// Everything about the ring that nobody but its writer may change.
    pub fn immutable_facts(&self) -> String {
        let mut facts = self.shm.files();
        for path in [self.anchor(), self.shm.path().join("camring.cam"), self.shm.path().join("camring.d")] {
            let stat = fs::symlink_metadata(&path).unwrap();
            let (links, size) = if stat.is_dir() { (0, 0) } else { (stat.nlink(), stat.size()) };
            let (ino, mode, uid, gid) = (stat.ino(), stat.mode(), stat.uid(), stat.gid());
            facts.push(format!("{path:?}: inode {ino} links {links} size {size} mode {mode:o} of {uid}:{gid}"));
        }
        let blocks = fs::metadata(self.anchor()).unwrap().blocks();
        let config = fs::read(self.anchor()).unwrap()[..camring_ring::layout::CONFIG_BYTES].to_vec();
        facts.push(format!("{blocks} blocks, {config:?}"));
        facts.join("\n")
    }
}

fn give_part(command: &mut Command, role: &str, shm: &Path, writer: u32) {
    command.env(ROLE, role).env("CAMRING_TEST_SHM", shm).env("CAMRING_TEST_WRITER", writer.to_string());
    command.stdin(Stdio::null());
}

/// Runs this test's program again, as this user, with this role, to its end, which must be a good one.
pub fn run_beside(test: &str, role: &str, shm: &Shm) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(Scene::arguments(test));
    give_part(&mut command, role, shm.path(), std::process::id());
    finish(&mut command)
}

/// An attacker of this user in a process of its own, running until dropped.
pub struct Accomplice {
    child: Child,
    words: BufReader<std::process::ChildStdout>,
}

impl Accomplice {
    /// Starts `test` again with this role.
    pub fn start(test: &str, role: &str, shm: &Shm) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(Scene::arguments(test)).stdout(Stdio::piped());
        give_part(&mut command, role, shm.path(), std::process::id());
        let mut child = command.spawn().unwrap();
        let words = BufReader::new(child.stdout.take().unwrap());
        Self { child, words }
    }

    /// What it says next after `key`; libtest's own words, and lines of others, are passed over.
    pub fn says(&mut self, key: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.words.read_line(&mut line).unwrap(), 0, "the accomplice ended without saying {key}");
            if let Some((_, rest)) = line.split_once(key) {
                return rest.trim().to_owned();
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn end(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Accomplice {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A build folder may lie where others cannot go.
fn copy_the_programs(tools: &Path) {
    let test = std::env::current_exe().unwrap();
    let synthetic = test.parent().and_then(Path::parent).unwrap().join("examples/synthetic");
    for (from, name) in [(&test, "test"), (&synthetic, "synthetic")] {
        // By another process: a child that this one starts meanwhile would hold a copy open for writing.
        let copied = Command::new("install").args(["-m", "755"]).arg(from).arg(tools.join(name)).status().unwrap();
        assert!(copied.success(), "{} was not copied", from.display());
    }
}

fn start_writer(tools: &Path, shm: &Shm, options: &[&str]) -> WriterProcess {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &SERVICE.to_string(), "--regid", &READERS.to_string()]);
    command.args(["--groups", &MAKERS.to_string()]).arg(tools.join("synthetic")).args(["cam", "--shm-dir"]);
    let mut child: Child =
        command.arg(shm.path()).args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    WriterProcess(child)
}

/// Longest time that a part takes.
const PART_LIMIT: Duration = Duration::from_secs(120);
/// What a part says last.
const PLAYED: &str = "the part was played to its end";

/// Ends the process of a part from inside, where a sandbox keeps libtest from doing it.
pub fn leave() -> ! {
    println!("{PLAYED}");
    camring_ring::process::exit_now(0);
}

/// Lets a panic end the process at once: in a sandbox libtest's threads may not be able to tell each other.
pub fn die_when_panicking() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        camring_ring::process::exit_now(101);
    }));
}

/// Runs a part to its end, which must be a good one; returns what it printed.
pub fn finish(command: &mut Command) -> String {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if ended.recv_timeout(PART_LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}:\n{said}");
    assert!(said.contains("test result: ok. 1 passed") || said.contains(PLAYED), "it played no part:\n{said}");
    said
}

/// A reader that nobody may disturb: checks every byte of every frame it gets, on a thread of its own.
pub struct Witness {
    frames: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub ring: Arc<Ring>,
    problem: Arc<Mutex<Option<String>>>,
}

impl Witness {
    pub fn start(options: AttachOptions) -> Self {
        let ring = Arc::new(Ring::attach("cam", options).unwrap());
        let (frames, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended, read) = (Arc::clone(&frames), Arc::clone(&stop), Arc::clone(&ring));
        let problem = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&problem);
        let thread = std::thread::spawn(move || {
            let mut pixels = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                match read.next(&mut pixels, Some(Duration::from_secs(30))) {
                    Ok(frame) => assert_untorn(frame.meta.seq.0, &pixels),
                    Err(error) => {
                        *seen.lock().unwrap() = Some(error.to_string());
                        return;
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { frames, stop, thread: Some(thread), ring, problem }
    }

    pub fn frames(&self) -> u64 {
        if let Some(problem) = &*self.problem.lock().unwrap() {
            panic!("the undisturbed reader was disturbed: {problem}");
        }
        assert!(!self.thread.as_ref().unwrap().is_finished(), "the undisturbed reader saw a torn frame");
        self.frames.load(Ordering::Relaxed)
    }

    /// Waits until so many more frames were read.
    pub fn more(&self, count: u64) {
        let from = self.frames();
        // In steps: the deadline is one for going on, not for any number of frames on a busy machine.
        for step in (0..=count).step_by(1000).chain([count]) {
            crate::common::until("the witness reads on", || self.frames() >= from + step);
        }
    }

    /// Ends it; nothing may have been torn.
    pub fn end(mut self) -> u64 {
        let frames = self.frames();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("the undisturbed reader saw no torn frame");
        frames
    }
}

/// The ring's file as a reader opens it.
pub fn open_read_only(path: &Path) -> File {
    File::open(path).unwrap()
}
