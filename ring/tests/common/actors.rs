//! The cast of the stress tests: writers and readers in processes of their own, which come, go and are killed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Shm;

/// Longest wait for anything that is bound to happen on a machine with two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this is the full form, which `scripts/soak` runs.
pub fn is_full() -> bool {
    std::env::var("CAMRING_SOAK").as_deref() == Ok("full")
}

/// Lets `time` pass, as a stimulus (an outage lasts so long); never a wait for something to have happened.
pub fn let_pass(time: Duration) {
    let deadline = Instant::now() + time;
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// Polls until `done`; fails the test after `patience`. Sleeps between two looks: the processor is the actors'.
#[track_caller]
pub fn until_within(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", patience.as_secs());
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Different moments in every run; the seed is printed so that a failure can be told apart.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = now.as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    /// A number from `range`.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start + self.0 % (range.end - range.start)
    }
}

/// One of the example programs of this package.
pub fn example(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// `NAME=N` words of a line.
pub fn numbers(line: &str) -> HashMap<String, u64> {
    let pairs = line.split(' ').filter_map(|word| word.split_once('='));
    pairs.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect()
}

/// A process that is given orders and answers in lines.
pub struct Actor {
    child: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
    listener: Option<JoinHandle<()>>,
    tally: Arc<Mutex<HashMap<String, u64>>>,
}

impl Actor {
    /// Starts `command`; lines that begin with `tally` are kept, the others are answers to orders.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (send, lines) = channel();
        let tally = Arc::new(Mutex::new(HashMap::new()));
        let (out, kept) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&tally));
        let listener = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                match line.strip_prefix("tally ") {
                    Some(counts) => *kept.lock().unwrap() = numbers(counts),
                    // Nobody reads the answers of an actor that has been killed.
                    None => drop(send.send(line)),
                }
            }
        });
        Self { orders: child.stdin.take(), child, lines, listener: Some(listener), tally }
    }

    /// A reader in one of the modes of `stress_reader`.
    pub fn reader(shm: &Shm, mode: &str, ring: &str, options: &[&str]) -> Self {
        let mut command = Command::new(example("stress_reader"));
        command.args([mode, ring, "--shm-dir"]).arg(shm.path()).args(options);
        Self::start(command)
    }

    /// A writer; returns at once, before it has its ring.
    pub fn writer(shm: &Shm, ring: &str, options: &[&str]) -> Self {
        let mut command = Command::new(example("stress_writer"));
        command.arg(ring).arg("--shm-dir").arg(shm.path()).args(options);
        Self::start(command)
    }

    /// A writer that has its ring.
    pub fn ready_writer(shm: &Shm, ring: &str, options: &[&str]) -> Self {
        let writer = Self::writer(shm, ring, options);
        assert_eq!(writer.answer(), "ready");
        writer
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// The next line that is no tally.
    #[track_caller]
    pub fn answer(&self) -> String {
        self.answer_within(PATIENCE).unwrap_or_else(|| panic!("no answer from process {}", self.pid()))
    }

    /// The next line, if there is one within `patience` and before the process ends.
    #[track_caller]
    pub fn answer_within(&self, patience: Duration) -> Option<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                assert!(!line.starts_with("violation"), "process {}: {line}", self.pid());
                Some(line)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// The newest value of a count, 0 before the first tally.
    pub fn count(&self, name: &str) -> u64 {
        self.tally.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// `kill -9`; everything that it had said before is there afterwards. Fails the test if it had found a problem.
    #[track_caller]
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.finished();
    }

    /// Lets it end in order; returns its last answer, if any.
    #[track_caller]
    pub fn stop(&mut self) -> Option<String> {
        drop(self.orders.take());
        let status = self.wait();
        let last = self.finished();
        assert!(status.success(), "process {} ended with {status}: {last:?}", self.pid());
        last
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        until_within(PATIENCE, "the process ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }

    /// Reads what is left of an ended process.
    #[track_caller]
    fn finished(&mut self) -> Option<String> {
        self.child.wait().unwrap();
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        let left: Vec<String> = self.lines.try_iter().collect();
        let problem = left.iter().find(|line| line.starts_with("violation"));
        assert_eq!(problem, None, "process {}", self.child.id());
        left.last().cloned()
    }

    /// Open descriptors, as the kernel counts them.
    pub fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Resident private memory, KiB.
    pub fn rss_anon_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many locks anybody holds on a file.
pub fn locks_on(file: &Path) -> usize {
    lock_lines(file).len()
}

/// How many locks readers hold on a file: theirs are shared, the writer's are not.
///
/// The most of three looks, because the kernel leaves lines out while locks come and go.
pub fn reader_locks_on(file: &Path) -> usize {
    let look = |_| lock_lines(file).iter().filter(|line| line.contains(" READ ")).count();
    (0..3).map(look).max().unwrap_or(0)
}

/// The kernel's lines about the locks on a file.
fn lock_lines(file: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(file).unwrap();
    let (dev, ino) = (file.dev(), file.ino());
    let file = format!("{:02x}:{:02x}:{ino}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let table = std::fs::read_to_string("/proc/locks").unwrap();
    table.lines().filter(|line| line.split_ascii_whitespace().any(|field| field == file)).map(str::to_owned).collect()
}
