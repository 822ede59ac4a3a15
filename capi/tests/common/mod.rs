//! What the tests share: the installed library, C programs compiled against it, rings to read, and deadlines.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::{FrameMeta, Geometry, LeasePolicy, PixelFormat, RingName, ShmDir, Writer, WriterOptions};
use tempfile::TempDir;

/// Longest wait for anything that is bound to happen on a machine with two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What every C program of this project must bear.
pub const C: [&str; 6] = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"];
/// The same for C++.
pub const CXX: [&str; 6] = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The amount of a long promise: `short` in the ordinary suite, this part's share of `full` under `scripts/soak`.
pub fn amount(short: u64, full: u64) -> u64 {
    if std::env::var("CAMRING_SOAK").as_deref() != Ok("full") {
        return short;
    }
    let parts = std::env::var("CAMRING_SOAK_PARTS").ok().and_then(|parts| parts.parse().ok()).unwrap_or(1);
    full.div_ceil(parts)
}

/// A measured number, for docs/promises.md.
pub fn measured(text: impl std::fmt::Display) {
    println!("soak: {text}");
}

/// Runs a command that must succeed and ends by itself; its standard output.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = finish(command, PATIENCE);
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}\n{out}\n{err}");
    out.into_owned()
}

/// Runs a command to its end, with nothing on its standard input; fails the test when that takes too long.
pub fn finish(command: &mut Command, patience: Duration) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait(&mut child, patience, &format!("{command:?}"));
    Output { status, stdout: stdout.join().expect("read to its end"), stderr: stderr.join().expect("read to its end") }
}

fn drain(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.expect("a pipe").read_to_end(&mut bytes).expect("the pipe can be read");
        bytes
    })
}

fn wait(child: &mut Child, patience: Duration, what: &str) -> ExitStatus {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().expect("our child");
            panic!("{what} did not end within {} s", patience.as_secs());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The library as a user has it: installed by scripts/install-capi, once per test program.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let program = std::env::current_exe().expect("a path");
        // One folder per test program, so that none disturbs another; what an earlier run left there is replaced.
        let name = program.file_stem().expect("a name").to_str().expect("UTF-8");
        let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("capi-{name}"));
        let _ = std::fs::remove_dir_all(&to);
        // cargo has just built the library for this test program, beside it.
        run(Command::new("bash")
            .arg(root().join("../scripts/install-capi"))
            .arg("--prefix")
            .arg(&to)
            .arg("--from")
            .arg(program.parent().expect("a folder"))
            .env_remove("DESTDIR"));
        to
    })
}

/// What pkg-config says of the installed library.
pub fn pkg_config(options: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(options).arg("camring").env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"));
    run(&mut command).split_whitespace().map(str::to_owned).collect()
}

/// A program of tests/programs or examples, compiled against the installed library.
pub fn program(source: &str) -> PathBuf {
    let (compiler, flags) = if source.ends_with(".cpp") { ("g++", CXX) } else { ("gcc", C) };
    let options: Vec<&str> = flags.iter().copied().chain(["-pthread"]).collect();
    compile(compiler, &options, source, &pkg_config(&["--cflags", "--libs"]))
}

/// Compiles one source once per test program and options.
pub fn compile(compiler: &str, flags: &[&str], source: &str, libraries: &[String]) -> PathBuf {
    static DONE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{compiler} {flags:?} {source} {libraries:?}");
    let place = done.iter().position(|known| *known == key);
    let to = prefix().join(format!("program-{}", place.unwrap_or(done.len())));
    if place.is_none() {
        run(Command::new(compiler)
            .args(flags)
            .arg(root().join(source))
            .arg("-I")
            .arg(root().join("tests/programs"))
            .args(libraries)
            .arg("-o")
            .arg(&to));
        done.push(key);
    }
    to
}

/// A command that finds the installed library and the rings of `shm`.
pub fn command(program: &Path, shm: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", prefix().join("lib")).env("CAMRING_SHM_DIR", shm);
    command
}

/// A memory mount of this test's own.
pub fn mount() -> TempDir {
    tempfile::Builder::new().prefix("camring-capi-").tempdir_in("/dev/shm").expect("a folder on a tmpfs")
}

/// A writer in this process, whose frames follow the pattern of the synthetic one.
pub struct Source {
    writer: Writer,
    pub shm: PathBuf,
}

impl Source {
    pub fn new(shm: &Path, ring: &str, slots: u32) -> Self {
        Self::with_policy(shm, ring, slots, LeasePolicy::Fresh)
    }

    pub fn with_policy(shm: &Path, ring: &str, slots: u32, policy: LeasePolicy) -> Self {
        let mut options = WriterOptions::new(RingName::new(ring).unwrap());
        options.shm = ShmDir::new(shm);
        options.slots = slots;
        options.lease_policy = policy;
        Self { writer: Writer::start(options).expect("a ring").0, shm: shm.to_owned() }
    }

    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Publishes one frame; its number.
    pub fn publish(&mut self, width: u32, height: u32) -> u64 {
        let geometry = Geometry::packed(width, height, PixelFormat::Bgr).expect("a size");
        let mut meta = FrameMeta::new(geometry);
        (meta.arrival_mono_ns, meta.arrival_real_ns) = (mono_ns(), real_ns());
        let seq = self.writer.status().newest().0 + 1;
        let mut slot = self.writer.claim(geometry.len).expect("a slot");
        for (k, byte) in slot.as_mut().iter_mut().enumerate() {
            *byte = ((seq * 31 + k as u64) % 251) as u8;
        }
        assert_eq!(self.writer.publish(slot, meta).expect("published").0, seq);
        seq
    }

    /// Publishes `count` frames of 8 x 4 pixels; the number of the last one.
    pub fn lap(&mut self, count: u64) -> u64 {
        (0..count).map(|_| self.publish(8, 4)).last().expect("at least one")
    }
}

/// camring-ring's example `synthetic`, writing in a process of its own; ends with this value.
pub struct Synthetic {
    child: Child,
}

impl Synthetic {
    pub fn start(shm: &Path, ring: &str, options: &[&str]) -> Self {
        let mut command = Command::new(synthetic());
        command.arg(ring).arg("--shm-dir").arg(shm).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the example can run");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("an answer");
        assert_eq!(line, "ready\n");
        Self { child }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }
}

impl Drop for Synthetic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example as `cargo test --workspace` has built it; built here when only this package is tested.
fn synthetic() -> PathBuf {
    let deps = std::env::current_exe().expect("a path");
    let release = deps.parent().and_then(Path::parent).expect("target/release");
    let program = release.join("examples/synthetic");
    if !program.exists() {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--release", "--locked", "-p", "camring-ring", "--example", "synthetic"]);
        let Output { status, stderr, .. } = finish(command.current_dir(root()), PATIENCE * 5);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    }
    program
}

/// A C program that does line by line what it is told.
pub struct Asked {
    child: Child,
    to: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Asked {
    pub fn start(program: &Path, shm: &Path, arguments: &[&str]) -> Self {
        let mut command = command(program, shm);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program can run");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { to: child.stdin.take(), child, answers }
    }

    /// tests/programs/ask.c, attached to a ring.
    pub fn attached(shm: &Path, ring: &str) -> Self {
        let mut asked = Self::start(&program("tests/programs/ask.c"), shm, &[]);
        assert_eq!(asked.ask(&format!("attach {ring}")).code(), 0);
        asked.ask("buffer 65536");
        asked
    }

    pub fn send(&mut self, line: &str) {
        let to = self.to.as_mut().expect("still open");
        writeln!(to, "{line}").expect("the program lives");
    }

    /// The next line of the program; fails the test when none comes.
    pub fn line(&mut self) -> String {
        self.answers.recv_timeout(PATIENCE).expect("the program answers in time")
    }

    /// The next line, if it is there.
    pub fn try_line(&mut self) -> Option<String> {
        match self.answers.try_recv() {
            Ok(line) => Some(line),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("the program has ended: {:?}", self.child.try_wait()),
        }
    }

    pub fn ask(&mut self, line: &str) -> Answer {
        self.send(line);
        Answer::parse(&self.line())
    }

    /// Ends the program's input and waits for its end.
    pub fn end(mut self) -> ExitStatus {
        self.to = None;
        wait(&mut self.child, PATIENCE, "the program")
    }

    /// Waits for the program's end.
    pub fn ends(&mut self) -> ExitStatus {
        wait(&mut self.child, PATIENCE, "the program")
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One answer of ask.c.
#[derive(Debug)]
pub struct Answer {
    fields: HashMap<String, String>,
    pub text: String,
}

impl Answer {
    fn parse(line: &str) -> Self {
        let (fields, text) = line.split_once(" text=").unwrap_or_else(|| panic!("{line:?} is no answer"));
        let pairs = fields.split(' ').filter_map(|pair| pair.split_once('='));
        let fields = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { fields, text: text.to_owned() }
    }

    pub fn get(&self, key: &str) -> &str {
        self.fields.get(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    pub fn number(&self, key: &str) -> i64 {
        self.get(key).parse().unwrap_or_else(|_| panic!("{key} is no number in {self:?}"))
    }

    pub fn code(&self) -> i64 {
        self.number("code")
    }

    /// The fields of one answer at once, to compare them with what is expected.
    pub fn all(&self, keys: &str) -> String {
        keys.split(' ').map(|key| self.get(key)).collect::<Vec<_>>().join(" ")
    }
}
