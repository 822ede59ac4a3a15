//! What the tests of the reading commands share: a memory folder, a writer in a process of its own, the command.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::{
    FrameFlags, FrameMeta, Geometry, Housekeeping, PixelFormat, Reason, RingName, ShmDir, State, Writer, WriterOptions,
};

/// Long enough for a machine that does a lot besides.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The variable that makes the test program a writer: `RING DIR WxH FORMAT`.
const ROLE: &str = "CAMRING_TEST_WRITER";

/// The colours of a picture's quadrants: red, green, blue, white.
pub const QUADRANTS: [[u8; 3]; 4] = [[230, 20, 10], [15, 220, 30], [20, 40, 210], [250, 250, 250]];

/// A folder of its own on the host's memory mount; removed at the end.
pub struct Shm(PathBuf);

impl Shm {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/camring-cli-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn anchor(&self, ring: &str) -> PathBuf {
        let own = format!("camring-{}.d", rustix::process::geteuid().as_raw());
        [self.0.join("camring.d"), self.0.join(own)].map(|dir| dir.join(ring)).into_iter().find(|p| p.exists()).unwrap()
    }

    /// Runs the command and waits for its end.
    pub fn camring(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments))
    }

    /// The command with its arguments, for tests that talk to it while it runs.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_camring"));
        command.args(arguments).env("CAMRING_SHM_DIR", &self.0).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        command
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub errors: String,
}

impl Ended {
    pub fn of(command: Command) -> Self {
        let output = assert_cmd::Command::from_std(command).timeout(PATIENCE).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), out: output.stdout, errors }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The output of a command that must have ended with `code`.
    #[track_caller]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", String::from_utf8_lossy(&self.out), self.errors);
        self
    }
}

/// A writer in a process of its own; killed at the end.
pub struct WriterProcess {
    child: Child,
    orders: ChildStdin,
    /// Kept so that what it prints at its end has somewhere to go.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl WriterProcess {
    /// Starts one that publishes bgr pictures of 64x48, 50 a second.
    pub fn start(shm: &Shm, ring: &str) -> Self {
        Self::start_with(shm, ring, "64x48", "bgr")
    }

    /// Starts one of another size and format; of size 0x0 it publishes nothing until it gets another one.
    pub fn start_with(shm: &Shm, ring: &str, size: &str, format: &str) -> Self {
        Self::start_in(shm.path().to_str().unwrap(), ring, size, format)
    }

    /// Starts one on another memory mount.
    pub fn start_in(dir: &str, ring: &str, size: &str, format: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "writer_process"])
            .env(ROLE, format!("{ring} {dir} {size} {format}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.any(|line| line.unwrap().ends_with("ready"));
        assert!(ready, "the writer did not get its ring");
        Self { child, orders, _lines: lines }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order: `pause`, `go`, `size WxH`, `state STATE REASON ATTEMPT RETRY_MS`, `stop`.
    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, which: rustix::process::Signal) {
        signal(&self.child, which);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end in order, and waits until it is gone.
    pub fn stop(mut self) {
        self.order("stop");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The writer's side; returns at once in a process that is no writer.
pub fn writer_main() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let [ring, dir, size, format] = words.as_slice() else { panic!("{role}") };
    let mut options = WriterOptions::new(RingName::new(*ring).unwrap());
    options.shm = ShmDir::new(dir);
    let (mut writer, _) = Writer::start(options).unwrap();
    let status = writer.status();
    let _house = Housekeeping::spawn(status.clone(), |_| {}).unwrap();
    status.set_state(State::Live, Reason::None, 0, None);
    status.set_text("avdec_h264", "h264");
    let (send, orders) = channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).for_each(|line| send.send(line).unwrap());
    });
    println!("ready");
    serve(&mut writer, &orders, parse_size(size), PixelFormat::from_word(format).unwrap());
    status.stopped(Reason::Operator);
}

fn serve(writer: &mut Writer, orders: &Receiver<String>, mut size: (u32, u32), format: PixelFormat) {
    let mut paused = false;
    loop {
        match orders.recv_timeout(Duration::from_millis(20)) {
            Err(RecvTimeoutError::Timeout) if paused || size.0 == 0 => {}
            Err(RecvTimeoutError::Timeout) => publish(writer, size, format),
            // Whoever gives the orders is gone.
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(order) => match order.split(' ').collect::<Vec<_>>().as_slice() {
                ["pause"] => paused = true,
                ["go"] => paused = false,
                ["size", new] => size = parse_size(new),
                ["state", state, reason, attempt, retry] => {
                    let retry: i64 = retry.parse().unwrap();
                    let due = (retry > 0).then(|| mono_ns() + retry * 1_000_000);
                    let (state, reason) = (State::from_word(state).unwrap(), Reason::from_word(reason).unwrap());
                    writer.status().set_state(state, reason, attempt.parse().unwrap(), due);
                }
                ["stop"] => return,
                other => panic!("{other:?}"),
            },
        }
    }
}

fn parse_size(text: &str) -> (u32, u32) {
    let (width, height) = text.split_once('x').unwrap();
    (width.parse().unwrap(), height.parse().unwrap())
}

fn publish(writer: &mut Writer, (width, height): (u32, u32), format: PixelFormat) {
    let picture = picture(width, height, format);
    let geometry = Geometry::packed(width, height, format).unwrap();
    let (arrival_mono, arrival_real) = (mono_ns(), real_ns());
    let mut slot = writer.claim(geometry.len).unwrap();
    slot.as_mut().copy_from_slice(&picture);
    let mut meta = FrameMeta::new(geometry);
    meta.flags = FrameFlags::SYNTHETIC.with(FrameFlags::KEYFRAME);
    meta.source_seq = writer.source_seq() + 1;
    (meta.arrival_mono_ns, meta.arrival_real_ns) = (arrival_mono, arrival_real);
    meta.decoded_mono_ns = arrival_mono;
    meta.payload_crc32c = camring_ring::layout::crc32c(&picture);
    writer.publish(slot, meta).unwrap();
}

/// Four quadrants of [`QUADRANTS`] in one of the packed formats.
pub fn picture(width: u32, height: u32, format: PixelFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let [red, green, blue] = QUADRANTS[(y >= height / 2) as usize * 2 + (x >= width / 2) as usize];
            match format {
                PixelFormat::Bgr => bytes.extend([blue, green, red]),
                PixelFormat::Rgb => bytes.extend([red, green, blue]),
                PixelFormat::Gray => bytes.push(green),
                other => panic!("no picture in {other}"),
            }
        }
    }
    bytes
}

/// Polls until `done` gives something or the deadline fails the test.
#[track_caller]
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process that this test has started.
pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}
