//! What the tests of the ring share: a private memory folder, a writer process, a check of every byte.
#![allow(dead_code, unused_imports)]

pub mod actors;
pub mod system;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use camring_ring::{AttachOptions, FrameMeta, Geometry, PixelFormat, RingName, ShmDir, Writer, WriterOptions};

/// A folder of its own on the host's memory mount; removed at the end.
pub struct Shm(PathBuf);

impl Shm {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/camring-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn dir(&self) -> ShmDir {
        ShmDir::new(&self.0)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn options(&self, ring: &str) -> WriterOptions {
        let mut options = WriterOptions::new(RingName::new(ring).unwrap());
        options.shm = self.dir();
        options.lock_wait = Duration::ZERO;
        options
    }

    pub fn attach_options(&self) -> AttachOptions {
        AttachOptions { shm: self.dir(), timeout: Some(Duration::from_secs(20)), ..AttachOptions::default() }
    }

    /// Every file below, with its size.
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
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The example writer in a process of its own.
pub struct WriterProcess(pub Child);

impl WriterProcess {
    pub fn spawn(shm: &Shm, ring: &str, options: &[&str]) -> Self {
        let exe = std::env::current_exe().unwrap();
        let program = exe.parent().and_then(Path::parent).unwrap().join("examples/synthetic");
        let mut child = Command::new(&program)
            .arg(ring)
            .arg("--shm-dir")
            .arg(shm.path())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The byte that the example writer puts at `k` in frame `seq`.
pub fn expected(seq: u64, k: usize) -> u8 {
    ((seq * 31 + k as u64) % 251) as u8
}

/// Checks every byte of a frame of the example writer.
pub fn assert_untorn(seq: u64, pixels: &[u8]) {
    let start = (seq * 31 % 251) as usize;
    let row: Vec<u8> = (0..251).map(|k| ((start + k) % 251) as u8).collect();
    for (index, chunk) in pixels.chunks(251).enumerate() {
        assert!(chunk == &row[..chunk.len()], "frame {seq} is torn near byte {}", index * 251);
    }
}

/// Publishes one frame whose bytes are all `value`.
pub fn publish(writer: &mut Writer, width: u32, height: u32, value: u8) -> u64 {
    let geometry = Geometry::packed(width, height, PixelFormat::Bgr).unwrap();
    let mut slot = writer.claim(geometry.len).unwrap();
    slot.as_mut().fill(value);
    writer.publish(slot, FrameMeta::new(geometry)).unwrap().0
}

/// The short amount, or this part's share of the full one (`scripts/soak` sets the variables).
pub fn amount(short: u64, full: u64) -> u64 {
    if std::env::var("CAMRING_SOAK").as_deref() != Ok("full") {
        return short;
    }
    let parts = std::env::var("CAMRING_SOAK_PARTS").ok().and_then(|parts| parts.parse().ok()).unwrap_or(1u64);
    full.div_ceil(parts.max(1))
}

/// A measured number, for docs/promises.md.
pub fn measured(text: impl std::fmt::Display) {
    println!("soak: {text}");
}

/// Polls until `done` or the deadline, which fails the test.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::yield_now();
    }
}

/// Fills a payload with the bytes that [`assert_untorn`] expects of frame `seq`.
pub fn fill(payload: &mut [u8], seq: u64) {
    let start = (seq * 31 % 251) as usize;
    let row: Vec<u8> = (0..251).map(|k| ((start + k) % 251) as u8).collect();
    for chunk in payload.chunks_mut(251) {
        chunk.copy_from_slice(&row[..chunk.len()]);
    }
}

/// Publishes one frame with the bytes that [`assert_untorn`] expects; `false` when no slot is free.
pub fn publish_pattern(writer: &mut Writer, width: u32, height: u32) -> bool {
    let geometry = Geometry::packed(width, height, PixelFormat::Bgr).unwrap();
    let next = writer.status().newest().0 + 1;
    let Ok(mut slot) = writer.claim(geometry.len) else { return false };
    fill(slot.as_mut(), next);
    assert_eq!(writer.publish(slot, FrameMeta::new(geometry)).unwrap().0, next);
    true
}
