//! What the system tests share: a memory folder of their own, a simulated camera, a daemon, all real processes.
#![allow(dead_code)]

pub mod colours;
pub mod damage;
pub mod detour;
pub mod http;
pub mod join;
pub mod net;
pub mod proxy;
pub mod reader;
pub mod turns;
pub mod web;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use camring::sim::stamp::{self, Stamp, StampError};
use camring_ring::{AttachOptions, Frame, Ring, ShmDir};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything that is bound to happen on a machine with two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub fn camring() -> Command {
    Command::new(env!("CARGO_BIN_EXE_camring"))
}

/// Whether the full amounts are asked for, by `scripts/soak`.
pub fn is_full() -> bool {
    std::env::var("CAMRING_SOAK").as_deref() == Ok("full")
}

/// The amount of a long promise: `short` in the ordinary suite, this part's share of `full` under `scripts/soak`.
pub fn amount(short: u64, full: u64) -> u64 {
    if !is_full() {
        return short;
    }
    let parts = std::env::var("CAMRING_SOAK_PARTS").ok().and_then(|parts| parts.parse().ok()).unwrap_or(1);
    full.div_ceil(parts)
}

/// A measured number, for docs/promises.md.
pub fn measured(text: impl std::fmt::Display) {
    println!("soak: {text}");
}

/// Polls until `done`; fails the test after [`PATIENCE`].
pub fn until(what: &str, done: impl FnMut() -> bool) {
    until_within(PATIENCE, what, done);
}

/// Polls until `done`; fails the test after `patience`.
pub fn until_within(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", patience.as_secs());
        pause();
    }
}

/// Lets `time` pass, as a stimulus (an outage lasts so long); never a wait for something to have happened.
pub fn let_pass(time: Duration) {
    let deadline = Instant::now() + time;
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// The step of a poll; never a wait for something to have happened.
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// A folder of its own on the host's memory mount; removed at the end.
pub struct Shm(PathBuf, Keep);

/// Whether a folder stays when the test is over.
#[derive(PartialEq)]
enum Keep {
    Yes,
    No,
}

impl Shm {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/camring-system-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path, Keep::No)
    }

    /// A folder that belongs to somebody else.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned(), Keep::Yes)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn dir(&self) -> ShmDir {
        ShmDir::new(&self.0)
    }

    /// Attaches as a worker does; waits for the name.
    pub fn attach(&self, ring: &str) -> Ring {
        let options = AttachOptions { shm: self.dir(), timeout: Some(PATIENCE), ..AttachOptions::default() };
        Ring::attach(ring, options).unwrap()
    }

    /// Every file below, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.push(entry.path().strip_prefix(&self.0).unwrap().display().to_string());
                }
            }
        }
        files.sort();
        files
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        if self.1 == Keep::No {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A child process that is killed when the test is over.
pub struct Process(pub Child);

impl Process {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits for the end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Threads and open descriptors, as the kernel counts them.
    pub fn threads_and_fds(&self) -> (usize, usize) {
        let count =
            |folder: &str| std::fs::read_dir(format!("/proc/{}/{folder}", self.pid())).map_or(0, Iterator::count);
        (count("task"), count("fd"))
    }

    /// Names of its threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten();
        // One that has ended meanwhile has no name any more.
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.map(|name| name.trim_end().to_owned()).collect()
    }

    /// Processor time used so far, user and system, milliseconds (the kernel counts in steps of 10).
    pub fn cpu_ms(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The name, in parentheses, may hold anything; the times are fields 14 and 15.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10
    }

    /// Resident private memory, bytes.
    pub fn rss_anon(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A simulated camera in a process of its own, always on the same port.
pub struct Sim {
    pub process: Process,
    pub url: String,
    port: u16,
    options: Vec<String>,
    password: Option<String>,
}

/// What every command that listens needs: the program, perhaps in front of it what puts it somewhere else.
type Program<'a> = &'a dyn Fn() -> Command;

impl Sim {
    /// `camring sim` with these options, on a free port.
    pub fn spawn(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        // Somebody else may be given the same free port before the camera takes it.
        let start = |port| Some((port, start_sim(&camring, ("127.0.0.1", port), &options, None).ok()?));
        let (port, (process, url)) = (0..5).find_map(|_| start(free_port())).expect("one of five free ports");
        Self { process, url, port, options, password: None }
    }

    /// The same, asking for user `viewer` and this password by digest.
    pub fn spawn_with_password(options: &[&str], password: &str) -> Self {
        let options = [options, &["--auth", "digest", "--user", "viewer", "--password-stdin"]].concat();
        Self::spawn_on(free_port(), &options, Some(password))
    }

    /// On a port that was chosen before.
    pub fn spawn_on(port: u16, options: &[&str], password: Option<&str>) -> Self {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        Self::started(&camring, ("127.0.0.1", port), options, password)
    }

    /// The same in a network of its own.
    pub fn spawn_in(net: &net::Net, options: &[&str]) -> Self {
        Self::spawn_at(net, "127.0.0.1", options)
    }

    /// The same at an address of that network.
    pub fn spawn_at(net: &net::Net, host: &str, options: &[&str]) -> Self {
        let program = || net.command(env!("CARGO_BIN_EXE_camring"));
        Self::started(&program, (host, 8554), options.iter().map(ToString::to_string).collect(), None)
    }

    fn started(program: Program<'_>, at: (&str, u16), options: Vec<String>, password: Option<&str>) -> Self {
        let (process, url) = start_sim(program, at, &options, password).unwrap();
        Self { process, url, port: at.1, options, password: password.map(str::to_owned) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it anew on its old port, after it was killed.
    pub fn respawn(&mut self) {
        (self.process, self.url) =
            start_sim(&camring, ("127.0.0.1", self.port), &self.options, self.password.as_deref()).unwrap();
    }
}

/// The process and its URL, or what it printed instead.
fn start_sim(
    program: Program<'_>,
    (host, port): (&str, u16),
    options: &[String],
    password: Option<&str>,
) -> Result<(Process, String), String> {
    let mut child = program()
        .args(["sim", "--listen", &format!("{host}:{port}")])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(password) = password {
        // The pipe stays open inside the child's handle: only the first line is the password.
        writeln!(child.stdin.as_mut().unwrap(), "{password}").unwrap();
    }
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // A line for each of its paths; the first one is what most tests have.
    let paths = options.iter().filter(|option| *option == "--mount").count().max(1);
    let urls: Vec<String> = lines.by_ref().take(paths).map(Result::unwrap).collect();
    let process = Process(child);
    if urls.len() < paths || !urls[0].starts_with("rtsp") {
        return Err(format!("the simulated camera printed {urls:?}"));
    }
    Ok((process, urls[0].clone()))
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `camring run` in a process of its own, its log in a file.
pub struct Daemon {
    pub process: Process,
    pub log: PathBuf,
}

impl Daemon {
    /// Captures `url` into ring `name`.
    pub fn spawn(shm: &Shm, name: &str, url: &str) -> Self {
        Self::spawn_with(shm, &["run", name, "--url", url], None)
    }

    /// Captures camera `name` of a configuration.
    pub fn spawn_config(shm: &Shm, name: &str, config: &Path) -> Self {
        Self::spawn_with(shm, &["run", name, "--config", config.to_str().unwrap()], None)
    }

    /// With a user, and the password on standard input.
    pub fn spawn_login(shm: &Shm, name: &str, url: &str, password: &str) -> Self {
        Self::spawn_with(shm, &["run", name, "--url", url, "--user", "viewer", "--password-stdin"], Some(password))
    }

    pub fn spawn_with(shm: &Shm, arguments: &[&str], input: Option<&str>) -> Self {
        let mut command = camring();
        command.args(arguments).arg("--shm-dir").arg(shm.path());
        Self::spawn_command(command, input)
    }

    /// Any command that becomes `camring run`; it logs at level info unless it, or whoever runs the tests, says otherwise.
    pub fn spawn_command(mut command: Command, input: Option<&str>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("camring-daemon-{}-{number}.log", std::process::id()));
        let is_said = std::env::var_os("CAMRING_LOG").is_some();
        if !is_said && command.get_envs().all(|(name, _)| name != "CAMRING_LOG") {
            command.env("CAMRING_LOG", "info");
        }
        let mut child = command
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        if let Some(input) = input {
            writeln!(child.stdin.take().unwrap(), "{input}").unwrap();
        }
        Self { process: Process(child), log }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of process {}:\n{}", self.process.pid(), self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command that is bound to end; one that does not is killed and fails the test.
pub fn ended(command: Command) -> Ended {
    let output = assert_cmd::Command::from_std(command).timeout(PATIENCE).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// The stamps of a frame read from a ring; a picture without a whole stamp fails the test.
pub fn stamp_of(frame: &Frame, pixels: &[u8]) -> Stamp {
    let geometry = &frame.meta.geometry;
    match stamp_in(frame, pixels) {
        Ok(stamp) => stamp,
        Err(error) => {
            let kept = keep(frame, pixels);
            panic!(
                "frame {} of {}x{}: {error}; kept as {kept}: {frame:?}",
                frame.meta.seq, geometry.width, geometry.height
            )
        }
    }
}

/// Writes a bgr picture that a test did not understand to a file, so that somebody can look at it.
fn keep(frame: &Frame, pixels: &[u8]) -> String {
    let geometry = &frame.meta.geometry;
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("frame-{}.ppm", std::process::id()));
    let mut file = format!("P6 {} {} 255\n", geometry.width, geometry.height).into_bytes();
    for row in pixels.chunks(geometry.plane_strides[0] as usize) {
        file.extend(row[..geometry.width as usize * 3].chunks_exact(3).flat_map(|bgr| [bgr[2], bgr[1], bgr[0]]));
    }
    match std::fs::write(&path, file) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("nothing ({error})"),
    }
}

pub fn stamp_in(frame: &Frame, pixels: &[u8]) -> Result<Stamp, StampError> {
    let geometry = &frame.meta.geometry;
    stamp::read_bgr(pixels, geometry.plane_strides[0] as usize, geometry.width, geometry.height)
}
