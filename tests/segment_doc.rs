//! The Python program printed in docs/segment.md, run as it stands there against a writer.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::{FrameMeta, Geometry, PixelFormat, RingName, ShmDir, Writer, WriterOptions};
use tempfile::TempDir;

/// What the test adds to the printed program: one answer per line of input.
///
/// Byte `k` of frame `seq` must be `(seq * 31 + k) mod 251`, so that any mixture of two frames shows.
const DRIVER: &str = r#"
import sys
ring = Ring(sys.argv[1], sys.argv[2])
PATTERN = bytes(i % 251 for i in range(502))
def check(frame):
    begin = frame.seq * 31 % 251
    size = len(frame.pixels)
    wanted = (PATTERN[begin : begin + 251] * (size // 251 + 1))[:size]
    assert frame.pixels == wanted, f"frame {frame.seq} is torn or wrong"
for line in sys.stdin:
    frame = ring.latest()
    if line.strip() == "many":
        last, different = 0, 0
        for _ in range(2000):
            try:
                frame = ring.latest()
            except BlockingIOError:
                continue
            check(frame)
            assert frame.seq >= last, f"frame {frame.seq} after {last}"
            different += frame.seq > last
            last = frame.seq
        print("many", different, flush=True)
    elif frame is None:
        print("none", flush=True)
    else:
        check(frame)
        assert 0 <= frame.age_s < 3600, frame.age_s
        print(frame.seq, frame.width, frame.height, frame.stride, len(frame.pixels), flush=True)
"#;

fn printed_program() -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/segment.md")).unwrap();
    let (_, chapter) = text.split_once("\n## 13. A complete reader in Python\n").expect("the chapter");
    let (_, program) = chapter.split_once("```python\n").expect("the program");
    program.split_once("```").expect("the program's end").0.to_owned()
}

/// A memory mount of this test's own.
fn mount() -> TempDir {
    tempfile::Builder::new().prefix("camring-test-").tempdir_in("/dev/shm").expect("a folder on a tmpfs")
}

struct Reader {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reader {
    fn start(folder: &Path, ring: &str, shm: &Path) -> Self {
        let program: PathBuf = folder.join("reader.py");
        std::fs::write(&program, printed_program() + DRIVER).unwrap();
        let mut command = Command::new("python3");
        command.arg(&program).arg(ring).arg(shm).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is installed");
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, ask, answers }
    }

    fn send(&mut self, question: &str) {
        writeln!(self.ask, "{question}").expect("the reader lives");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    fn latest(&mut self) -> String {
        self.send("latest");
        self.answer()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn publish(writer: &mut Writer, seq: u64, width: u32, height: u32) {
    let geometry = Geometry::packed(width, height, PixelFormat::Bgr).expect("a size");
    let mut meta = FrameMeta::new(geometry);
    meta.arrival_mono_ns = mono_ns();
    let mut slot = writer.claim(geometry.len).expect("a slot");
    for (k, byte) in slot.as_mut().iter_mut().enumerate() {
        *byte = ((seq * 31 + k as u64) % 251) as u8;
    }
    assert_eq!(writer.publish(slot, meta).expect("published").0, seq);
}

fn writer(shm: &Path, slots: u32) -> Writer {
    let mut options = WriterOptions::new(RingName::new("yard").unwrap());
    options.shm = ShmDir::new(shm);
    options.slots = slots;
    Writer::start(options).expect("a ring").0
}

#[test]
fn the_printed_reader_reads_what_is_published_and_follows_a_new_generation() {
    let shm = mount();
    let mut writer = writer(shm.path(), 4);
    let mut reader = Reader::start(shm.path(), "yard", shm.path());
    assert_eq!(reader.latest(), "none", "before the first frame");
    publish(&mut writer, 1, 641, 3);
    assert_eq!(reader.latest(), "1 641 3 1923 5769", "an odd width, from the waiting room's successor");
    publish(&mut writer, 2, 640, 480);
    assert_eq!(reader.latest(), "2 640 480 1920 921600", "a larger generation");
    publish(&mut writer, 3, 64, 48);
    assert_eq!(reader.latest(), "3 64 48 192 9216", "a smaller picture in the same slots");
    assert_eq!(reader.latest(), "3 64 48 192 9216", "the same frame again");
    drop(writer);
    let mut writer = self::writer(shm.path(), 5);
    publish(&mut writer, 4, 64, 48);
    assert_eq!(reader.latest(), "4 64 48 192 9216", "another number of slots: made anew, numbers go on");
}

#[test]
fn the_printed_reader_attaches_by_the_public_name_too() {
    let shm = mount();
    let mut writer = writer(shm.path(), 3);
    publish(&mut writer, 1, 8, 8);
    let mut reader = Reader::start(shm.path(), "camring.yard", shm.path());
    assert_eq!(reader.latest(), "1 8 8 24 192");
}

#[test]
fn the_printed_reader_never_returns_a_torn_frame() {
    let shm = mount();
    // The fewest slots and no pause: the writer laps the reader as often as it can.
    let mut writer = writer(shm.path(), 3);
    publish(&mut writer, 1, 320, 240);
    let mut reader = Reader::start(shm.path(), "yard", shm.path());
    reader.send("many");
    let (answered, answer) = std::sync::mpsc::channel();
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        let reader = &mut reader;
        let mut seq = 1;
        scope.spawn(move || answered.send(reader.answer()));
        let answer = loop {
            if let Ok(answer) = answer.try_recv() {
                break answer;
            }
            assert!(Instant::now() < deadline, "no answer within a minute");
            seq += 1;
            publish(&mut writer, seq, 320, 240);
        };
        let different: u32 = answer.strip_prefix("many ").and_then(|count| count.parse().ok()).unwrap_or(0);
        assert!(different > 100, "the reader saw {answer:?}; expected more than 100 different frames, none torn");
    });
}

#[test]
fn the_printed_reader_refuses_what_is_no_ring() {
    let shm = mount();
    std::fs::write(shm.path().join("junk"), vec![0x55; 8192]).unwrap();
    let mut reader = Reader::start(shm.path(), "junk", shm.path());
    assert_eq!(reader.answer(), "", "the program ends with an error instead of an answer");
    assert!(!reader.child.wait().unwrap().success());
}
