//! The two names of a ring while it is written: whoever removes them, they come back, on the same inode if it has a link left.

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use camring_ring::{
    AttachOptions, Counter, Housekeeping, HousekeepingEvent, Ring, RingName, SegmentName, ShmDir, Writer,
};
use common::{Shm, amount, publish, until};
use rustix::process::{Pid, Signal, kill_process};

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

type Events = Arc<Mutex<Vec<HousekeepingEvent>>>;

/// A writer under housekeeping, with one frame, and what housekeeping tells.
fn watched(shm: &Shm) -> (Writer, Housekeeping, Events) {
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let events = Events::default();
    let heard = Arc::clone(&events);
    let house = Housekeeping::spawn(writer.status(), move |event| heard.lock().unwrap().push(event)).unwrap();
    until("housekeeping has begun", || {
        Ring::attach("cam", shm.attach_options()).unwrap().status().heartbeat_mono_ns > 0
    });
    (writer, house, events)
}

#[test]
fn a_removed_name_is_back_long_before_the_look_of_each_second() {
    let mut times: Vec<Duration> = Vec::new();
    for round in 0..amount(12, 100) {
        let shm = Shm::new();
        let (mut writer, _house, events) = watched(&shm);
        if round % 2 == 1 {
            publish(&mut writer, 1280, 720, 2);
        }
        let name = shm.path().join(if round % 4 < 2 { "camring.cam" } else { "camring.d/cam" });
        let before = inode(&name).expect("the ring has its names");
        let began = Instant::now();
        std::fs::remove_file(&name).unwrap();
        until("the name is back", || inode(&name).is_some());
        times.push(began.elapsed());
        assert_eq!(inode(&name), Some(before), "another inode");
        until("it is counted", || writer.status().counter(Counter::Relinked) == 1);
        until("it is told", || *events.lock().unwrap() == [HousekeepingEvent::Relinked(1)]);
    }
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("soak: {} removed names back: median {median:?}, worst {worst:?}", times.len());
    // Housekeeping looked just before: without being told of the removal it would have been most of a second.
    assert!(median < Duration::from_millis(500), "median {median:?}: nobody told housekeeping");
}

#[test]
fn whoever_removes_a_name_in_a_loop_gets_ever_fewer_repairs_and_one_line() {
    let shm = Shm::new();
    let (writer, _house, events) = watched(&shm);
    let name = shm.path().join("camring.cam");
    let began = Instant::now();
    until("a second and a half of removals", || {
        let _ = std::fs::remove_file(&name);
        began.elapsed() > Duration::from_millis(1500)
    });
    let relinked = writer.status().counter(Counter::Relinked);
    let elapsed_ms = began.elapsed().as_millis() as u64;
    // Repairs at 0, 100, 300, 700, 1500 ms and so on: the n-th pause ends at 100 * (2^n - 1) ms.
    let most = (0..).take_while(|n| 100 * ((1u64 << n) - 1) <= elapsed_ms).count() as u64;
    assert!((2..=most).contains(&relinked), "{relinked} repairs in {elapsed_ms} ms, at most {most} expected");
    until("the name is back for good", || inode(&name).is_some());
    assert_eq!(*events.lock().unwrap(), [HousekeepingEvent::Relinked(1)], "told once per burst");
}

#[test]
fn a_foreign_file_under_the_public_name_is_told_once_and_makes_way_only_by_itself() {
    let shm = Shm::new();
    let (mut writer, _house, events) = watched(&shm);
    let name = shm.path().join("camring.cam");
    let ours = inode(&name);
    let foreign = shm.path().join("foreign");
    std::fs::write(&foreign, b"precious").unwrap();
    std::fs::rename(&foreign, &name).unwrap();
    until("it is told", || !events.lock().unwrap().is_empty());
    publish(&mut writer, 64, 48, 2);
    assert_eq!(std::fs::read(&name).unwrap(), b"precious");
    std::fs::remove_file(&name).unwrap();
    until("the name is back", || inode(&name) == ours);
    until("that is told too", || events.lock().unwrap().len() > 1);
    match &events.lock().unwrap()[..] {
        [HousekeepingEvent::NamesFailed(text), HousekeepingEvent::Relinked(1)] => {
            assert!(text.contains("is taken by a file that is no camring segment"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

/// The example writer, whose events go to a file.
struct LoggedWriter {
    child: Child,
    log: PathBuf,
    _input: std::process::ChildStdin,
}

impl LoggedWriter {
    fn spawn(shm: &Path, log: PathBuf, ring: &str, options: &[&str]) -> Self {
        let exe = std::env::current_exe().unwrap();
        let program = exe.parent().and_then(Path::parent).unwrap().join("examples/synthetic");
        let mut child = Command::new(program)
            .args([ring, "--shm-dir"])
            .arg(shm)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let input = child.stdin.take().unwrap();
        Self { child, log, _input: input }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for LoggedWriter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ring in the host's own /dev/shm, the only place where `SharedMemory(name)` looks; removed at the end.
struct HostRing {
    name: String,
    logs: Shm,
}

impl HostRing {
    fn new(word: &str) -> Self {
        Self { name: format!("{word}-{}", std::process::id()), logs: Shm::new() }
    }

    fn public(&self) -> PathBuf {
        Path::new("/dev/shm").join(format!("camring.{}", self.name))
    }

    fn writer(&self, options: &[&str]) -> (LoggedWriter, Ring) {
        let log = self.logs.path().join("events");
        let writer = LoggedWriter::spawn(Path::new("/dev/shm"), log, &self.name, options);
        let options = AttachOptions { timeout: Some(Duration::from_secs(20)), ..AttachOptions::default() };
        let ring = Ring::attach(&self.name, options).unwrap();
        until("frames come", || ring.peek().is_ok_and(|meta| meta.seq.0 > 10));
        (writer, ring)
    }
}

impl Drop for HostRing {
    fn drop(&mut self) {
        let _ = camring_ring::remove(&ShmDir::default(), &RingName::new(&self.name).unwrap());
    }
}

/// Reads every frame meanwhile: numbers grow, nothing is torn, no other generation is followed.
fn frames_go_on<T>(ring: &Ring, during: impl FnOnce() -> T + Send) -> T
where
    T: Send,
{
    let before = (ring.status().generation, ring.stats().followed);
    let result = std::thread::scope(|scope| {
        let act = scope.spawn(during);
        let mut pixels = Vec::new();
        let mut last = 0;
        while !act.is_finished() {
            let frame = ring.next(&mut pixels, Some(Duration::from_secs(20))).unwrap();
            assert!(frame.meta.seq.0 > last);
            last = frame.meta.seq.0;
            common::assert_untorn(last, &pixels);
        }
        act.join().unwrap()
    });
    assert_eq!((ring.status().generation, ring.stats().followed), before);
    result
}

fn python(script: &str, name: &str) -> std::process::Output {
    Command::new("python3").args(["-c", script, name]).output().expect("python3 is installed")
}

#[test]
fn a_client_of_pythons_shared_memory_removes_the_name_and_it_comes_back_on_the_same_inode() {
    const CLIENT: &str = "import sys\n\
        from multiprocessing.shared_memory import SharedMemory\n\
        memory = SharedMemory(sys.argv[1])\n\
        assert bytes(memory.buf[:8]) == b'CAMRING1'\n\
        memory.close()\n";
    let host = HostRing::new("track");
    let (writer, ring) = host.writer(&["--fps", "200"]);
    let before = inode(&host.public());
    let ended = frames_go_on(&ring, || {
        let ended = python(CLIENT, &format!("camring.{}", host.name));
        until("the name was removed and is back", || ring.status().counter(Counter::Relinked) == 1);
        until("the name leads to the ring", || inode(&host.public()) == before);
        ended
    });
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    until("it is told", || !writer.log().is_empty());
    assert_eq!(writer.log(), "Relinked(1)\n");
    assert_eq!(ring.status().counter(Counter::Relinked), 1);
}

#[test]
fn a_client_of_pythons_shared_memory_without_address_space_does_no_more_harm() {
    const CLIENT: &str = "import resource, sys\n\
        from multiprocessing.shared_memory import SharedMemory\n\
        pages = int(open('/proc/self/statm').read().split()[0])\n\
        limit = pages * resource.getpagesize() + (4 << 20)\n\
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n\
        try:\n\
        \x20   SharedMemory(sys.argv[1])\n\
        except OSError as error:\n\
        \x20   sys.exit(error.errno)\n";
    let host = HostRing::new("ulimit");
    let (writer, ring) = host.writer(&["--fps", "100", "--size", "1280x720", "--slots", "4"]);
    let before = inode(&host.public());
    let ended = frames_go_on(&ring, || {
        let ended = python(CLIENT, &format!("camring.{}", host.name));
        until("the name was removed and is back", || ring.status().counter(Counter::Relinked) == 1);
        until("the name leads to the ring", || inode(&host.public()) == before);
        ended
    });
    let out_of_memory = rustix::io::Errno::NOMEM.raw_os_error();
    assert_eq!(ended.status.code(), Some(out_of_memory), "{}", String::from_utf8_lossy(&ended.stderr));
    until("it is told", || !writer.log().is_empty());
    assert_eq!(writer.log(), "Relinked(1)\n");
}

#[test]
fn when_both_names_are_removed_at_once_the_next_frame_makes_a_new_generation() {
    let shm = Shm::new();
    let log = shm.path().join("events");
    let writer = LoggedWriter::spawn(shm.path(), log.clone(), "cam", &["--fps", "200"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    until("frames come", || ring.peek().is_ok_and(|meta| meta.seq.0 > 10));
    let before = ring.status();
    // Stopped, so that it cannot repair one before the other is gone.
    writer.signal(Signal::STOP);
    for name in ["camring.cam", "camring.d/cam"] {
        std::fs::remove_file(shm.path().join(name)).unwrap();
    }
    let held = ring.peek().unwrap().seq.0;
    writer.signal(Signal::CONT);
    let mut pixels = Vec::new();
    until("the reader follows", || {
        ring.next(&mut pixels, Some(Duration::from_secs(20))).unwrap();
        ring.stats().followed == 1
    });
    let after = ring.status();
    assert_ne!(after.generation, before.generation);
    assert!(ring.last_seq().0 > held, "the numbers go on");
    assert_eq!(
        (after.counter(Counter::Generations), ring.stats().resets),
        (before.counter(Counter::Generations) + 1, 0)
    );
    for name in ["camring.cam", "camring.d/cam"] {
        let back = inode(&shm.path().join(name));
        assert!(back.is_some() && back == inode(&shm.path().join("camring.cam")), "{name}");
    }
    assert_eq!(writer.log(), "Lost\n");
    std::fs::remove_file(log).unwrap();
    assert_eq!(shm.files(), ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"]);
}

#[test]
fn names_of_a_generation_made_anew_are_watched_as_well() {
    let shm = Shm::new();
    let (mut writer, _house, events) = watched(&shm);
    for (count, size) in [(1280, 720), (1920, 1080)].into_iter().enumerate() {
        publish(&mut writer, size.0, size.1, 7);
        let name = shm.path().join("camring.cam");
        let before = inode(&name);
        std::fs::remove_file(&name).unwrap();
        until("the name is back", || inode(&name) == before);
        until("it is counted", || writer.status().counter(Counter::Relinked) == count as u64 + 1);
    }
    until("it is told", || *events.lock().unwrap() == [HousekeepingEvent::Relinked(1)]);
}

#[test]
fn a_segment_name_may_have_255_bytes_and_is_watched_like_any_other() {
    let shm = Shm::new();
    let longest = "x".repeat(255);
    let mut options = shm.options("cam");
    options.segment = SegmentName::new(&*longest).unwrap();
    let (mut writer, _) = Writer::start(options.clone()).unwrap();
    let _house = Housekeeping::spawn(writer.status(), |_| {}).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = Ring::attach(&longest, shm.attach_options()).unwrap();
    assert_eq!(ring.layout().segment_name, longest);
    let name = shm.path().join(&longest);
    let before = inode(&name);
    std::fs::remove_file(&name).unwrap();
    until("the name is back", || inode(&name) == before);
    drop((writer, _house));
    assert!(Writer::start(options).unwrap().1.adopted);
}

#[test]
fn names_that_are_paths_are_refused_by_writer_and_reader_alike() {
    let shm = Shm::new();
    for bad in ["/camring.cam", "a/b", "../camring.cam", ".lock-cam", "", &"x".repeat(256)] {
        let refused = SegmentName::new(bad).unwrap_err().to_string();
        let attach = Ring::attach(bad, shm.attach_options()).unwrap_err().to_string();
        assert_eq!(attach, refused, "at once, with the same words");
    }
}

#[test]
fn two_daemons_of_different_cameras_cannot_share_a_segment_name() {
    let shm = Shm::new();
    let (mut first, _house, events) = watched(&shm);
    let mut options = shm.options("other");
    options.segment = RingName::new("cam").unwrap().default_segment();
    for _ in 0..2 {
        let error = Writer::start(options.clone()).unwrap_err();
        assert!(error.to_string().contains("is taken by the ring of camera \"cam\""), "{error}");
    }
    publish(&mut first, 64, 48, 2);
    assert_eq!(shm.files(), ["camring.cam", "camring.d/.lock-cam", "camring.d/.lock-other", "camring.d/cam"]);
    assert_eq!(*events.lock().unwrap(), []);
}
