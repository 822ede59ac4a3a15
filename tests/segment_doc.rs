//! The Python and the C program printed in docs/segment.md, run as they stand there against a writer and the vectors.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::layout::LeasePolicy;
use camring_ring::{
    AttachOptions, ClaimError, Counter, FrameMeta, Geometry, PixelFormat, Ring, RingName, ShmDir, SlotMut, Writer,
    WriterOptions,
};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Language {
    Python,
    C,
}

const LANGUAGES: [Language; 2] = [Language::Python, Language::C];

impl Language {
    /// What the test adds to the printed program: one answer per line of input.
    fn driver(self) -> &'static str {
        match self {
            Self::Python => include_str!("segment_doc/driver.py"),
            Self::C => include_str!("segment_doc/driver.c"),
        }
    }

    fn printed_program(self) -> String {
        let (heading, fence) = match self {
            Self::Python => ("\n## 13. A complete reader in Python\n", "```python\n"),
            Self::C => ("\n## 14. A complete reader in C\n", "```c\n"),
        };
        let text = std::fs::read_to_string(root().join("docs/segment.md")).unwrap();
        let (_, chapter) = text.split_once(heading).expect("the chapter");
        let (_, program) = chapter.split_once(fence).expect("the program");
        program.split_once("```").expect("the program's end").0.to_owned()
    }

    /// The command that runs program and driver; both are built once.
    fn command(self) -> Command {
        static FOLDER: OnceLock<TempDir> = OnceLock::new();
        static C: OnceLock<PathBuf> = OnceLock::new();
        static PYTHON: OnceLock<PathBuf> = OnceLock::new();
        let folder = FOLDER.get_or_init(|| TempDir::new().unwrap()).path();
        let write = |name: &str| {
            let path = folder.join(name);
            std::fs::write(&path, self.printed_program() + self.driver()).unwrap();
            path
        };
        match self {
            Self::Python => {
                let mut command = Command::new("python3");
                // Isolated and without site packages: the standard library alone.
                command.args(["-I", "-S"]);
                command.arg(PYTHON.get_or_init(|| write("reader.py")));
                command
            }
            Self::C => Command::new(C.get_or_init(|| compile(&write("reader.c")))),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compile(source: &Path) -> PathBuf {
    let program = source.with_extension("");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source);
    assert!(cc.status().expect("cc is installed").success(), "the printed C program compiles without a warning");
    program
}

/// A memory mount of this test's own.
fn mount() -> TempDir {
    tempfile::Builder::new().prefix("camring-test-").tempdir_in("/dev/shm").expect("a folder on a tmpfs")
}

/// A printed program in a process of its own.
struct Reader {
    child: Child,
    ask: ChildStdin,
    answers: Receiver<String>,
}

impl Reader {
    /// Starts the program; its first answer is `attached`, or nothing when it refuses the ring.
    fn launch(language: Language, ring: &str, shm: &Path) -> (Self, String) {
        let mut command = language.command();
        command.arg(ring).arg(shm).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("python3 and cc are installed");
        let (ask, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (said, answers) = mpsc::channel();
        // Ends with the program's output; whoever no longer listens is of no concern to it.
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        let reader = Self { child, ask, answers };
        let first = reader.answer();
        (reader, first)
    }

    fn start(language: Language, ring: &str, shm: &Path) -> Self {
        let (reader, first) = Self::launch(language, ring, shm);
        assert_eq!(first, "attached", "{language:?}");
        reader
    }

    fn send(&mut self, question: &str) {
        writeln!(self.ask, "{question}").expect("the reader lives");
    }

    /// The next line; empty when the program has ended.
    fn answer(&self) -> String {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => String::new(),
            Err(RecvTimeoutError::Timeout) => panic!("no answer within {PATIENCE:?}"),
        }
    }

    fn ask(&mut self, question: &str) -> String {
        self.send(question);
        self.answer()
    }

    /// Polls until the program's one thread sleeps in the kernel's futex call.
    fn until_it_sleeps(&self) {
        let number = if cfg!(target_arch = "aarch64") { "98 " } else { "202 " };
        let deadline = Instant::now() + PATIENCE;
        let path = format!("/proc/{}/syscall", self.child.id());
        while !std::fs::read_to_string(&path).expect("the reader lives").starts_with(number) {
            assert!(Instant::now() < deadline, "the reader does not sleep on a futex");
            std::thread::yield_now();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fills a slot with the pattern: byte `k` of frame `seq` is `(seq * 31 + k) mod 251`, so that any mixture shows.
fn fill(slot: &mut SlotMut, seq: u64) {
    for (k, byte) in slot.as_mut().iter_mut().enumerate() {
        *byte = ((seq * 31 + k as u64) % 251) as u8;
    }
}

fn publish(writer: &mut Writer, seq: u64, width: u32, height: u32) {
    let geometry = Geometry::packed(width, height, PixelFormat::Bgr).expect("a size");
    let mut meta = FrameMeta::new(geometry);
    meta.arrival_mono_ns = mono_ns();
    let mut slot = writer.claim(geometry.len).expect("a slot");
    fill(&mut slot, seq);
    assert_eq!(writer.publish(slot, meta).expect("published").0, seq);
}

fn options(shm: &Path, slots: u32) -> WriterOptions {
    let mut options = WriterOptions::new(RingName::new("yard").unwrap());
    options.shm = ShmDir::new(shm);
    options.slots = slots;
    options
}

fn writer(shm: &Path, slots: u32) -> Writer {
    Writer::start(options(shm, slots)).expect("a ring").0
}

#[test]
fn the_printed_reader_reads_what_is_published_and_follows_a_new_generation() {
    for language in LANGUAGES {
        let shm = mount();
        let mut writer = writer(shm.path(), 4);
        let mut reader = Reader::start(language, "yard", shm.path());
        assert_eq!(reader.ask("latest"), "none", "before the first frame");
        publish(&mut writer, 1, 641, 3);
        assert_eq!(reader.ask("latest"), "1 641 3 1923 5769", "an odd width, from the waiting room's successor");
        publish(&mut writer, 2, 640, 480);
        assert_eq!(reader.ask("latest"), "2 640 480 1920 921600", "a larger generation");
        publish(&mut writer, 3, 64, 48);
        assert_eq!(reader.ask("latest"), "3 64 48 192 9216", "a smaller picture in the same slots");
        assert_eq!(reader.ask("latest"), "3 64 48 192 9216", "the same frame again");
        drop(writer);
        let mut writer = self::writer(shm.path(), 5);
        publish(&mut writer, 4, 64, 48);
        assert_eq!(reader.ask("latest"), "4 64 48 192 9216", "another number of slots: made anew, numbers go on");
        drop(writer);
        let mut writer = self::writer(shm.path(), 5);
        publish(&mut writer, 5, 64, 48);
        assert_eq!(reader.ask("latest"), "5 64 48 192 9216", "a restart that adopts");
    }
}

#[test]
fn the_printed_reader_attaches_by_the_public_name_too_and_is_counted() {
    for language in LANGUAGES {
        let shm = mount();
        let mut writer = writer(shm.path(), 3);
        publish(&mut writer, 1, 8, 8);
        let mut reader = Reader::start(language, "camring.yard", shm.path());
        assert_eq!(reader.ask("latest"), "1 8 8 24 192");
        let options = AttachOptions { shm: ShmDir::new(shm.path()), ..AttachOptions::default() };
        let readers = Ring::attach("yard", options).expect("the ring").readers();
        assert!(readers.contains(&reader.child.id()), "{language:?}: {readers:?}");
    }
}

/// Publishes as fast as possible until the reader has answered.
fn publish_until_answered(writer: &mut Writer, reader: &Reader, mut seq: u64) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(answer) = reader.answers.try_recv() {
            return answer;
        }
        assert!(Instant::now() < deadline, "no answer within {PATIENCE:?}");
        seq += 1;
        publish(writer, seq, 320, 240);
    }
}

#[test]
fn the_printed_reader_never_returns_a_torn_frame() {
    for language in LANGUAGES {
        let shm = mount();
        // The fewest slots and no pause: the writer laps the reader as often as it can.
        let mut writer = writer(shm.path(), 3);
        publish(&mut writer, 1, 320, 240);
        let mut reader = Reader::start(language, "yard", shm.path());
        reader.send("many");
        let answer = publish_until_answered(&mut writer, &reader, 1);
        assert_eq!(answer, "many 100", "{language:?}: expected 100 different frames, none torn");
    }
}

#[test]
fn the_printed_reader_sleeps_until_a_frame_comes() {
    for language in LANGUAGES {
        let shm = mount();
        let mut writer = writer(shm.path(), 3);
        publish(&mut writer, 1, 8, 8);
        let mut reader = Reader::start(language, "yard", shm.path());
        assert_eq!(reader.ask("wait 30"), "newer", "a frame that this handle has not returned");
        assert_eq!(reader.ask("latest"), "1 8 8 24 192");
        assert_eq!(reader.ask("wait 0.01"), "timeout");
        for (seq, width) in [(2, 8), (3, 640), (4, 8)] {
            reader.send("wait 30");
            reader.until_it_sleeps();
            publish(&mut writer, seq, width, 480);
            assert_eq!(
                reader.answer(),
                "newer",
                "{language:?}: frame {seq}, of a new generation if it is the wide one"
            );
            assert!(reader.ask("latest").starts_with(&format!("{seq} ")));
        }
    }
}

#[test]
fn the_printed_readers_lease_keeps_its_frame_while_others_are_published() {
    for language in LANGUAGES {
        let shm = mount();
        let mut writer = writer(shm.path(), 3);
        publish(&mut writer, 1, 64, 48);
        let mut reader = Reader::start(language, "yard", shm.path());
        assert_eq!(reader.ask("lease"), "1 64 48 192 9216");
        (2..40).for_each(|seq| publish(&mut writer, seq, 64, 48));
        assert_eq!(reader.ask("look"), "constant");
        assert_eq!(reader.ask("release"), "valid");
        assert_eq!(writer.status().counter(Counter::LeaseConflicts), 0, "another slot was free each time");
        assert_eq!(reader.ask("lease"), "39 64 48 192 9216", "a lease of the newest frame");
        publish(&mut writer, 40, 640, 480);
        assert_eq!(reader.ask("look"), "constant", "a retired generation is never written again");
        assert_eq!(reader.ask("release"), "valid");
        assert_eq!(reader.ask("lease"), "40 640 480 1920 921600", "in the new generation");
        drop(writer);
        let mut writer = self::writer(shm.path(), 3);
        (41..60).for_each(|seq| publish(&mut writer, seq, 640, 480));
        assert_eq!(reader.ask("look"), "constant", "the writer after a restart sees the lease too");
        assert_eq!(reader.ask("release"), "valid");
    }
}

/// Leaves the writer no slot but the leased one: one is the newest frame, one is being written.
fn claim_all_but_the_leased(writer: &mut Writer, len: u64) -> (SlotMut, Result<SlotMut, ClaimError>) {
    let being_written = writer.claim(len).expect("a slot that nobody leases");
    (being_written, writer.claim(len))
}

#[test]
fn the_printed_reader_notices_that_its_lease_was_revoked() {
    for language in LANGUAGES {
        let shm = mount();
        let mut writer = writer(shm.path(), 3);
        publish(&mut writer, 1, 64, 48);
        let mut reader = Reader::start(language, "yard", shm.path());
        assert_eq!(reader.ask("lease"), "1 64 48 192 9216");
        publish(&mut writer, 2, 64, 48);
        let (_being_written, taken) = claim_all_but_the_leased(&mut writer, 64 * 48 * 3);
        fill(&mut taken.expect("policy fresh never goes without a slot"), 7);
        assert_eq!(reader.ask("look"), "changed", "{language:?}");
        assert_eq!(reader.ask("release"), "revoked", "{language:?}");
        assert_eq!(writer.status().counter(Counter::LeasesRevoked), 1);
    }
}

#[test]
fn the_printed_reader_is_never_revoked_under_protect_and_copies_under_off() {
    for language in LANGUAGES {
        for policy in [LeasePolicy::Protect, LeasePolicy::Off] {
            let shm = mount();
            let mut options = options(shm.path(), 3);
            options.lease_policy = policy;
            let mut writer = Writer::start(options).expect("a ring").0;
            publish(&mut writer, 1, 64, 48);
            let mut reader = Reader::start(language, "yard", shm.path());
            if policy == LeasePolicy::Off {
                assert_eq!(reader.ask("lease"), "no leases");
                assert_eq!(reader.ask("latest"), "1 64 48 192 9216");
                continue;
            }
            assert_eq!(reader.ask("lease"), "1 64 48 192 9216");
            publish(&mut writer, 2, 64, 48);
            let (being_written, refused) = claim_all_but_the_leased(&mut writer, 64 * 48 * 3);
            assert!(matches!(refused, Err(ClaimError::Leased)), "{refused:?}");
            drop(being_written);
            assert_eq!(reader.ask("release"), "valid");
        }
    }
}

/// Puts the file that a vector describes on the mount, as its README says.
fn put(shm: &Path, vector: &Value) {
    let mut bytes = vec![0; vector["file_bytes"].as_u64().unwrap() as usize];
    for chunk in vector["chunks"].as_array().unwrap() {
        let (offset, hex) = (chunk[0].as_u64().unwrap() as usize, chunk[1].as_str().unwrap());
        for index in 0..hex.len() / 2 {
            bytes[offset + index] = u8::from_str_radix(&hex[index * 2..index * 2 + 2], 16).unwrap();
        }
    }
    std::fs::write(shm.join("camring.yard"), bytes).unwrap();
}

/// What a printed program, which knows formats of one plane only, says of what a vector expects.
fn expected_answer(expected: &Value) -> String {
    let number = |field: &str| expected[field].as_u64().unwrap();
    match (expected["error"].as_str(), expected["pixfmt"].as_str()) {
        (Some("no_frame"), _) => "none".into(),
        (Some("overrun"), _) => "overtaken".into(),
        (Some("lease_unavailable"), _) => "no leases".into(),
        (None, Some("bgr" | "rgb" | "gray" | "bgra" | "rgba")) => {
            let (width, height, stride) =
                (number("width"), number("height"), expected["plane_stride"][0].as_u64().unwrap());
            format!("{} {width} {height} {stride} {}", number("seq"), number("payload_len"))
        }
        _ => "unusable".into(),
    }
}

#[test]
fn the_printed_reader_says_of_every_vector_what_it_must() {
    let vectors = std::fs::read_dir(root().join("docs/vectors")).unwrap().map(|entry| entry.unwrap().path());
    let vectors: Vec<PathBuf> = vectors.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    assert!(vectors.len() > 50, "only {} vectors were found", vectors.len());
    for (language, path) in LANGUAGES.into_iter().flat_map(|language| vectors.iter().map(move |path| (language, path)))
    {
        let vector: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (what, expect) = (format!("{language:?}: {}", vector["name"]), &vector["expect"]);
        let shm = mount();
        put(shm.path(), &vector);
        let (mut reader, first) = Reader::launch(language, "camring.yard", shm.path());
        if expect["attach"] != "ok" {
            assert_eq!(first, "", "{what}");
            continue;
        }
        assert_eq!(first, "attached", "{what}");
        assert_eq!(reader.ask("latest"), expected_answer(&expect["latest"]), "{what}");
        if expect["lease"]["error"].is_string() {
            assert_eq!(reader.ask("lease"), expected_answer(&expect["lease"]), "{what}");
        } else if expect["lease"].is_object() {
            assert_eq!(reader.ask("lease"), expected_answer(&expect["latest"]), "{what}");
            assert_eq!((reader.ask("look"), reader.ask("release")), ("constant".into(), "valid".into()), "{what}");
        }
    }
}
