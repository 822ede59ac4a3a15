//! The bridge and interoperation by name: peers built on the `shared_memory` crate and on Python's standard library.

mod writer;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use camring_ring::{AttachOptions, Liveness, PixelFormat, ReadError, Ring, State};
use rustix::process::Signal;
use writer::{Ended, PATIENCE, Shm, WriterProcess, picture, signal, until};

#[test]
#[ignore = "the writer process that the other tests start"]
fn writer_process() {
    writer::writer_main();
}

/// A name of this test alone in /dev/shm; whatever is left under it is removed at the end.
struct Name(String);

impl Name {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("camring-bridge-{}-{number}", std::process::id()))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.0)
    }

    fn attach(&self) -> Ring {
        Ring::attach(&self.0, AttachOptions { timeout: Some(PATIENCE), ..AttachOptions::default() }).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
        let _ = std::fs::remove_file(self.path().with_file_name(format!("{}~new", self.0)));
    }
}

/// `camring bridge` as a process; killed at the end.
struct BridgeProcess {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl BridgeProcess {
    /// Starts it and waits until the segment is there.
    fn start(shm: &Shm, ring: &str, name: &Name) -> Self {
        let mut command = shm.command(&["bridge", ring, "--segment", &name.0, "--mode", "0640"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut bridge = Self { child, lines };
        let ready = bridge.line();
        assert!(ready.starts_with(&format!("ready {}: ", name.path().display())), "{ready}");
        bridge
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Ends it with SIGTERM; it must end well.
    fn end(mut self) {
        signal(&self.child, Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for BridgeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ring/examples/interop.rs`, a peer built on the `shared_memory` crate, as a process; killed at the end.
struct Peer {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

/// What the peer says of the newest frame.
#[derive(Debug, PartialEq)]
struct Seen {
    seq: u64,
    size: (u32, u32),
    crc: u32,
}

impl Peer {
    fn open(name: &str) -> Self {
        let exe = std::env::current_exe().unwrap();
        let program = exe.parent().and_then(Path::parent).unwrap().join("examples/interop");
        let build = "cargo build --release --package camring-ring --example interop";
        assert!(program.exists(), "{} is missing: run `{build}`", program.display());
        let mut command = Command::new(&program);
        let mut child = command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The newest frame; `None` while there is none.
    fn newest(&mut self) -> Option<Seen> {
        writeln!(self.child.stdin.as_ref().unwrap()).unwrap();
        let answer = self.lines.next().expect("the peer has ended, see its message above").unwrap();
        if answer == "none" {
            return None;
        }
        let words: Vec<&str> = answer.split(' ').collect();
        let [seq, width, height, crc] = words.as_slice() else { panic!("{answer}") };
        let size = (width.parse().unwrap(), height.parse().unwrap());
        Some(Seen { seq: seq.parse().unwrap(), size, crc: crc.parse().unwrap() })
    }

    /// Lets it end in order; it must end well.
    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn peers_built_on_shared_memory_read_the_bridge_by_name() {
    let (shm, name) = (Shm::new(), Name::new());
    let _front = WriterProcess::start(&shm, "front");
    let bridge = BridgeProcess::start(&shm, "front", &name);
    let mut peer = Peer::open(&name.0);
    let first = until("a frame", || peer.newest());
    let crc = crc32fast::hash(&picture(64, 48, PixelFormat::Bgr));
    assert_eq!((first.size, first.crc), ((64, 48), crc));
    until("a later frame", || peer.newest().filter(|seen| seen.seq > first.seq));
    assert_eq!(std::fs::metadata(name.path()).unwrap().mode() & 0o777, 0o640);
    bridge.end();
    assert!(!name.path().exists());
    assert_eq!(peer.newest().unwrap().crc, crc, "what a peer has mapped stays");
    peer.end();
}

#[test]
fn a_ring_of_ones_own_is_read_by_name_with_shared_memory() {
    let ring = format!("interop-{}", std::process::id());
    /// Removes the ring, also when the test fails.
    struct Removed(String);
    impl Drop for Removed {
        fn drop(&mut self) {
            let _ = Command::new(env!("CARGO_BIN_EXE_camring")).args(["rm", &self.0, "--shm-dir", "/dev/shm"]).output();
        }
    }
    let _removed = Removed(ring.clone());
    let _writer = WriterProcess::start_in("/dev/shm", &ring, "1366x405", "bgr");
    let mut peer = Peer::open(&format!("camring.{ring}"));
    let seen = until("a frame", || peer.newest());
    assert_eq!((seen.size, seen.crc), ((1366, 405), crc32fast::hash(&picture(1366, 405, PixelFormat::Bgr))));
    peer.end();
    assert!(PathBuf::from(format!("/dev/shm/camring.{ring}")).exists(), "a peer that only opened it removes nothing");
}

/// Reads one frame through `multiprocessing.shared_memory` and prints its size and checksum.
const PYTHON: &str = r#"
import binascii, struct, sys, time
from multiprocessing import resource_tracker, shared_memory
segment = shared_memory.SharedMemory(sys.argv[1])
resource_tracker.unregister(segment._name, "shared_memory")  # else its exit removes the name: CPython issue 82300
b = segment.buf
assert bytes(b[:8]) == b"CAMRING1", bytes(b[:8])
table, data, stride = struct.unpack_from("<QQQ", b, 0x30)
slot_header, = struct.unpack_from("<I", b, 0x24)
for _ in range(1000):
    head, = struct.unpack_from("<Q", b, 0x200)
    seq, slot = head >> 16, head & 0xFFFF
    at = table + slot * slot_header
    stamp, = struct.unpack_from("<Q", b, at)
    width, height = struct.unpack_from("<II", b, at + 0x10)
    length, = struct.unpack_from("<Q", b, at + 0x20)
    pixels = bytes(b[data + slot * stride : data + slot * stride + length])
    if head and stamp == seq << 1 and struct.unpack_from("<Q", b, at)[0] == stamp:
        print(width, height, binascii.crc32(pixels))
        break
    time.sleep(0.01)
del b
segment.close()
"#;

#[test]
fn python_reads_the_bridge_with_its_standard_library() {
    let (shm, name) = (Shm::new(), Name::new());
    let _front = WriterProcess::start(&shm, "front");
    let _bridge = BridgeProcess::start(&shm, "front", &name);
    let run = |text: &str, argument: &str| {
        let mut python = Command::new("python3");
        python.args(["-c", text, argument]);
        Ended::of(python).with_code(0)
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pixels");
    std::fs::write(&file, picture(64, 48, PixelFormat::Bgr)).unwrap();
    let crc =
        run("import binascii, sys; print(binascii.crc32(open(sys.argv[1], 'rb').read()))", file.to_str().unwrap());
    let read = run(PYTHON, &name.0);
    assert_eq!(read.text(), format!("64 48 {}", crc.text()), "{read:?}");
    assert!(name.path().exists());
}

#[test]
fn library_readers_of_a_bridge_follow_a_larger_picture() {
    let (shm, name) = (Shm::new(), Name::new());
    let mut front = WriterProcess::start(&shm, "front");
    let mut bridge = BridgeProcess::start(&shm, "front", &name);
    let (ring, mut pixels) = (name.attach(), Vec::new());
    let before = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    front.order("size 640x360");
    let replaced = bridge.line();
    assert!(replaced.starts_with("replaced ") && replaced.contains(": 640x360 bgr, "), "{replaced}");
    let after = until("a larger frame on the same handle", || {
        ring.next(&mut pixels, Some(Duration::from_secs(1))).ok().filter(|frame| frame.meta.geometry.width == 640)
    });
    assert_eq!(pixels, picture(640, 360, PixelFormat::Bgr));
    assert!(after.meta.seq > before.meta.seq && after.generation != before.generation);
    assert_eq!(ring.stats().resets, 0);
    front.order("size 64x48");
    until("a smaller frame again", || {
        ring.next(&mut pixels, Some(PATIENCE)).ok().filter(|frame| frame.meta.geometry.width == 64)
    });
    let left: Vec<_> = std::fs::read_dir("/dev/shm").unwrap().flatten().map(|e| e.file_name()).collect();
    let own = left.iter().filter(|file| file.to_string_lossy().starts_with(&name.0)).count();
    assert_eq!(own, 1, "{left:?}");
}

#[test]
fn a_bridge_outlives_the_daemon_of_its_source_and_says_that_it_is_gone() {
    let (shm, name) = (Shm::new(), Name::new());
    let front = WriterProcess::start(&shm, "front");
    let _bridge = BridgeProcess::start(&shm, "front", &name);
    let (ring, mut pixels) = (name.attach(), Vec::new());
    ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    assert_eq!((ring.status().state, ring.status().codec.as_str()), (State::Live, "h264"));
    front.kill();
    until("the dead daemon in the bridge's state", || (ring.status().state == State::Restarting).then_some(()));
    let last = ring.latest(&mut pixels).unwrap().meta.seq;
    let _again = WriterProcess::start(&shm, "front");
    let next = until("frames again", || ring.next(&mut pixels, Some(PATIENCE)).ok());
    assert!(next.meta.seq > last && next.meta.source_seq > 0);
    until("the living daemon in the bridge's state", || (ring.status().state == State::Live).then_some(()));
}

#[test]
fn a_segment_in_use_and_files_of_others_are_never_taken() {
    let (shm, name) = (Shm::new(), Name::new());
    let _front = WriterProcess::start(&shm, "front");
    let refused =
        |segment: &str, code: i32| shm.camring(&["bridge", "front", "--segment", segment]).with_code(code).errors;
    let bridge = BridgeProcess::start(&shm, "front", &name);
    let text = refused(&name.0, 79);
    assert!(text.contains(&format!("taken by a segment that process {} writes", bridge.child.id())), "{text}");
    assert_eq!(name.attach().liveness(), Liveness::Alive);
    let foreign = Name::new();
    std::fs::write(foreign.path(), b"something else").unwrap();
    let text = refused(&foreign.0, 1);
    assert!(text.contains("taken by a file that no bridge has left") && text.contains("another --segment"), "{text}");
    assert_eq!(std::fs::read(foreign.path()).unwrap(), b"something else");
    assert!(refused(".hidden", 2).contains("begins with a dot"));
}

#[test]
fn a_dead_bridge_is_replaced_and_its_readers_follow() {
    let (shm, name) = (Shm::new(), Name::new());
    let _front = WriterProcess::start(&shm, "front");
    let bridge = BridgeProcess::start(&shm, "front", &name);
    let (ring, mut pixels) = (name.attach(), Vec::new());
    let before = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    drop(bridge);
    assert!(name.path().exists(), "a killed bridge leaves its segment");
    let _again = BridgeProcess::start(&shm, "front", &name);
    let after = until("a frame of the new bridge on the old handle", || {
        let frame = ring.next(&mut pixels, Some(Duration::from_secs(1))).ok();
        frame.filter(|frame| frame.generation != before.generation)
    });
    assert!(after.meta.seq > before.meta.seq);
}

#[test]
fn a_bridge_that_ends_in_order_tells_its_readers() {
    let (shm, name) = (Shm::new(), Name::new());
    let _front = WriterProcess::start(&shm, "front");
    let bridge = BridgeProcess::start(&shm, "front", &name);
    let (ring, mut pixels) = (name.attach(), Vec::new());
    ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    bridge.end();
    assert!(ring.is_removed());
    assert_eq!(ring.status().state, State::Stopped);
    assert!(ring.latest(&mut pixels).is_ok(), "the last frame stays readable");
    let left = ring.next(&mut pixels, Some(Duration::from_millis(50)));
    assert!(left.is_ok() || matches!(left, Err(ReadError::Removed { .. })), "{left:?}");
}

#[test]
fn a_peer_that_scribbles_over_the_bridge_hurts_neither_camera_nor_bridge() {
    let (shm, name) = (Shm::new(), Name::new());
    let _front = WriterProcess::start(&shm, "front");
    let bridge = BridgeProcess::start(&shm, "front", &name);
    let file = std::fs::OpenOptions::new().write(true).open(name.path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xFF; 200 * 1024], 0).unwrap();
    let watched = shm.camring(&["watch", "front", "--count", "10", "--verify", "--json"]).with_code(0);
    assert!(!watched.text().contains("torn"), "{watched:?}");
    bridge.end();
    assert!(!name.path().exists());
}
