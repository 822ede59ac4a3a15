//! The daemon ends, in every way it can: readers keep their handle, frames stay whole, nothing is left behind.
#![cfg(feature = "sim")]

mod system;

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camring::exit::Exit;
use camring_ring::{Counter, Frame, FrameFlags, Liveness, Ring, Sequence, State};
use rustix::process::Signal;
use system::reader::{Reader, Seen, Way};
use system::{Daemon, Process, Shm, Sim, amount, free_port, is_full, let_pass, measured, until, until_within};

/// Everything that a camera's ring consists of.
const FILES: [&str; 3] = ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"];
/// An orderly stop takes no longer, whatever the camera does.
const STOPPED: Duration = Duration::from_secs(5);
/// Large enough for a kill to fall into the writing of a slot now and then.
const PICTURES: [&str; 4] = ["--size", "1280x720", "--gop", "200ms"];

/// A random time below `limit_ms`.
fn moment(limit_ms: u64) -> Duration {
    Duration::from_micros(fastrand::u64(0..limit_ms * 1000))
}

/// How the daemons of a test begin and end.
#[derive(Clone, Copy)]
struct Lives<'a> {
    begin: &'a dyn Fn() -> Daemon,
    end: fn(&mut Process),
}

/// Starts a daemon and ends it at a random moment of its life; whether it had the ring before, and how long its first
/// frame took.
///
/// One in four ends while it starts, one while it connects, the others while frames are published.
fn live_and_end(number: u64, lives: Lives<'_>, ring: &Ring) -> (bool, Option<Duration>) {
    let (begun, mut first) = (Instant::now(), None);
    let mut daemon = (lives.begin)();
    let owns = || ring.status().writer_pid == daemon.process.pid();
    if number.is_multiple_of(4) {
        let_pass(moment(40));
    } else {
        until("the daemon has the ring", owns);
        let epoch = ring.status().writer_epoch;
        if number % 4 != 1 {
            until("it publishes", || ring.peek().is_ok_and(|meta| meta.writer_epoch == epoch));
            first = Some(begun.elapsed());
        }
        let_pass(moment(400));
    }
    (lives.end)(&mut daemon.process);
    // Of the dead nothing changes any more.
    (ring.status().writer_pid == daemon.process.pid(), first)
}

/// Ends daemons of one ring over and over: readers see no torn frame and no number twice, the epoch counts each, and no
/// file is left over.
fn ends_leave_nothing_torn(ends: u64, shm: &Shm, lives: Lives<'_>) {
    let mut first = (lives.begin)();
    let readers = [Way::Next, Way::Latest].map(|way| Reader::attach(shm, "cam", way));
    for reader in &readers {
        reader.first("a frame", |_| true);
    }
    let ring = shm.attach("cam");
    let before = ring.status();
    (lives.end)(&mut first.process);
    let (mut owners, mut firsts_ms) = (0, Vec::new());
    for number in 0..ends {
        let (had_ring, first) = live_and_end(number, lives, &ring);
        owners += u32::from(had_ring);
        firsts_ms.extend(first.map(|first| first.as_millis()));
        let status = ring.status();
        assert_eq!(status.writer_epoch, before.writer_epoch + owners, "after end {number}");
        assert_eq!(status.generation, before.generation, "after end {number}");
        assert_eq!(shm.files(), FILES, "after end {number}");
    }
    let last = (lives.begin)();
    let epoch = before.writer_epoch + owners + 1;
    for reader in &readers {
        reader.first("frames of the last daemon", |seen| seen.frame.meta.writer_epoch == epoch);
    }
    let (status, pid) = (ring.status(), last.process.pid());
    assert_eq!((status.writer_epoch, status.writer_pid, status.generation), (epoch, pid, before.generation));
    assert_eq!(shm.files(), FILES);
    let seen = readers.map(Reader::finish);
    seen.iter().for_each(|seen| starts_are_marked(seen));
    let (frames, repaired) = (seen.each_ref().map(Vec::len), status.counter(Counter::TornRepaired));
    firsts_ms.sort_unstable();
    let median_ms = firsts_ms.get(firsts_ms.len() / 2).copied().unwrap_or(0);
    measured(format!(
        "{ends} ends, {owners} of them after the start: readers got {} and {} frames, 0 torn; {repaired} half-written \
         slots repaired; from a start to its first frame {} ms (median of {}), {} ms at worst",
        frames[0],
        frames[1],
        median_ms,
        firsts_ms.len(),
        firsts_ms.last().unwrap_or(&0),
    ));
    assert!(!is_full() || median_ms <= 2000, "{median_ms} ms from a start to its first frame");
}

#[test]
fn a_killed_daemon_leaves_nothing_torn() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&PICTURES));
    let begin = || Daemon::spawn(&shm, "cam", &sim.url);
    ends_leave_nothing_torn(amount(5, 1000), &shm, Lives { begin: &begin, end: Process::kill });
}

/// A daemon whose core would be written to `folder`, if it may be written at all (`unlimited`, or 0).
fn daemon_with_core(core: &str, folder: &Path, shm: &Shm, url: &str) -> Daemon {
    let mut command = Command::new("sh");
    // By its own, the kernel leaves out what is shared and has a file; asked for that, it leaves out what forbids it.
    let shell = "ulimit -c \"$0\" && echo 0x3b >/proc/self/coredump_filter && exec \"$@\"";
    command.args(["-c", shell, core, env!("CARGO_BIN_EXE_camring")]);
    command.args(["run", "cam", "--url", url, "--shm-dir"]).arg(shm.path()).current_dir(folder);
    Daemon::spawn_command(command, None)
}

/// Ends a process as a wild pointer does.
///
/// Rust's own handler takes the first signal, finds that no stack has overflowed, and gives the next one back to the
/// kernel: for a wild pointer that is the same instruction again, here it is another signal.
fn crash(process: &mut Process) {
    let mut ended = None;
    until("it has crashed", || {
        process.signal(Signal::SEGV);
        ended = process.0.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().signal(), Some(Signal::SEGV.as_raw()), "{ended:?}");
}

#[test]
fn a_daemon_that_crashes_leaves_nothing_torn() {
    let (shm, sim, folder) = (Shm::new(), Sim::spawn(&PICTURES), tempfile::tempdir().unwrap());
    let begin = || daemon_with_core("0", folder.path(), &shm, &sim.url);
    ends_leave_nothing_torn(amount(5, 1000), &shm, Lives { begin: &begin, end: crash });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a core is left over");
}

/// The middle row of a picture.
fn middle_row<'a>(frame: &Frame, pixels: &'a [u8]) -> &'a [u8] {
    let geometry = &frame.meta.geometry;
    let stride = geometry.plane_strides[0] as usize;
    &pixels[geometry.height as usize / 2 * stride..][..geometry.width as usize * 3]
}

#[test]
fn the_core_of_a_crashed_daemon_holds_no_picture_of_its_ring() {
    let (shm, sim, folder) = (Shm::new(), Sim::spawn(&PICTURES), tempfile::tempdir().unwrap());
    let mut daemon = daemon_with_core("unlimited", folder.path(), &shm, &sim.url);
    let reader = Reader::attach(&shm, "cam", Way::Next);
    reader.first("more frames than the ring has slots", |seen| seen.frame.meta.seq.0 > 20);
    let pid = daemon.process.pid();
    crash(&mut daemon.process);
    let core =
        ["core".to_owned(), format!("core.{pid}")].iter().find_map(|name| std::fs::read(folder.path().join(name)).ok());
    let Some(core) = core else {
        println!("skipped: cores do not go to the folder of the process here");
        return;
    };
    let ring = shm.attach("cam");
    let (mut pixels, mut searched) = (Vec::new(), 0);
    let newest = ring.latest(&mut pixels).unwrap();
    let segment = std::fs::read(shm.path().join("camring.d/cam")).unwrap();
    let has = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    assert!(
        has(&core, shm.path().to_str().unwrap().as_bytes()),
        "the core does not hold what the daemon was called with"
    );
    for number in (0..=newest.meta.seq.0).rev() {
        let Ok(frame) = ring.at(Sequence(number), &mut pixels) else { break };
        let row = middle_row(&frame, &pixels);
        assert!(has(&segment, row), "frame {number} is not in the ring's own file");
        assert!(!has(&core, row), "frame {number} is in the core");
        searched += 1;
    }
    assert!(searched > 0);
    measured(format!(
        "core of a daemon: {} bytes beside a ring of {}; none of its {searched} frames is in it",
        core.len(),
        segment.len()
    ));
    assert_eq!(FILES.to_vec(), shm.files());
    let _next = Daemon::spawn(&shm, "cam", &sim.url);
    let epoch = newest.meta.writer_epoch + 1;
    reader.first("a frame of the next daemon", |seen| seen.frame.meta.writer_epoch == epoch);
    reader.finish();
}

/// The first frame of each daemon says that it is one, where the reader saw that very frame.
fn starts_are_marked(seen: &[Seen]) {
    for pair in seen.windows(2) {
        let (old, new) = (&pair[0].frame.meta, &pair[1].frame.meta);
        assert!(new.writer_epoch >= old.writer_epoch, "frame {} of an earlier daemon", new.seq);
        if new.writer_epoch > old.writer_epoch && pair[1].frame.skipped == 0 {
            assert!(new.flags.contains(FrameFlags::AFTER_RESTART.with(FrameFlags::DISCONT)), "frame {}", new.seq);
        }
    }
}

#[test]
fn a_daemon_killed_while_it_makes_its_ring_leaves_nothing_behind() {
    let url = format!("rtsp://127.0.0.1:{}/stream", free_port());
    let kills = amount(6, 100);
    for _ in 0..kills {
        let shm = Shm::new();
        let mut killed = Daemon::spawn(&shm, "cam", &url);
        let_pass(moment(60));
        killed.process.kill();
        let daemon = Daemon::spawn(&shm, "cam", &url);
        let ring = shm.attach("cam");
        until("the next daemon has a ring", || ring.status().writer_pid == daemon.process.pid());
        until("its names are settled", || shm.files() == FILES);
        // In a ring that it adopts its number may be seen a moment before its first heartbeat.
        until("the next daemon is alive", || ring.liveness() == Liveness::Alive);
    }
    measured(format!("{kills} kills during the first start: the next daemon had its ring, and no file was left over"));
}

#[test]
fn a_stopped_daemon_says_so_and_the_next_one_continues_its_ring() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&PICTURES));
    let mut daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let (reader, ring) = (Reader::attach(&shm, "cam", Way::Next), shm.attach("cam"));
    reader.first("a frame", |_| true);
    stop(&mut daemon, &ring);
    let before = ring.status();
    assert_eq!((before.writer_pid, ring.liveness()), (0, Liveness::Gone));
    let (mut first, mut again) = (Vec::new(), Vec::new());
    let frame = ring.latest(&mut first).unwrap();
    assert_eq!(ring.latest(&mut again).unwrap().meta, frame.meta);
    assert!(first == again, "the last frame has changed");
    system::stamp_of(&frame, &first);
    let _next = Daemon::spawn(&shm, "cam", &sim.url);
    let seen = reader.first("a frame of the next daemon", |seen| seen.frame.meta.seq > frame.meta.seq);
    assert_eq!(seen.frame.generation, before.generation);
    assert_eq!(seen.frame.meta.writer_epoch, before.writer_epoch + 1);
    starts_are_marked(&reader.finish());
    assert_eq!(shm.files(), FILES);
}

/// Asks a daemon to stop; readers must see it and the process must end with success, each within its time.
fn stop(daemon: &mut Daemon, ring: &Ring) {
    let asked = Instant::now();
    daemon.process.signal(Signal::TERM);
    until_within(STOPPED, "the state is stopped", || ring.status().state == State::Stopped);
    let mut status = None;
    until_within(STOPPED, "the daemon ends", || {
        status = daemon.process.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    measured(format!("a stop took {} ms", asked.elapsed().as_millis()));
}

#[test]
fn a_daemon_whose_camera_never_answers_stops_when_asked() {
    let (shm, camera) = (Shm::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("rtsp://{}/stream", camera.local_addr().unwrap());
    let mut daemon = Daemon::spawn(&shm, "cam", &url);
    let ring = shm.attach("cam");
    // Accepted and never answered.
    let _connection = camera.accept().unwrap();
    assert_eq!(ring.status().state, State::Connecting);
    stop(&mut daemon, &ring);
}

#[test]
fn a_second_daemon_is_refused_and_the_first_is_undisturbed() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--size", "640x360"]));
    let first = Daemon::spawn(&shm, "cam", &sim.url);
    let reader = Reader::attach(&shm, "cam", Way::Next);
    let before = reader.first("a frame", |_| true).frame;
    let mut second = Daemon::spawn(&shm, "cam", &sim.url);
    assert_eq!(second.process.wait().code(), Some(i32::from(Exit::AlreadyServed as u8)));
    let log = second.log();
    assert!(log.contains(&first.process.pid().to_string()), "the owner is not named: {log}");
    let newest = reader.newest().unwrap().frame.meta.seq;
    let after = reader.first("frames keep coming", |seen| seen.frame.meta.seq > newest).frame;
    assert_eq!((after.generation, after.meta.writer_epoch), (before.generation, before.meta.writer_epoch));
    assert_eq!(after.meta.session_id, before.meta.session_id);
    assert_eq!(reader.ring.status().writer_pid, first.process.pid());
    reader.finish();
}

#[test]
fn a_suspended_daemon_is_seen_and_goes_on_where_it_was() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&PICTURES));
    let daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let readers = [Way::Next, Way::Latest].map(|way| Reader::attach(&shm, "cam", way));
    let ring = &readers[0].ring;
    for reader in &readers {
        reader.first("a frame", |_| true);
    }
    daemon.process.signal(Signal::STOP);
    until("readers see that it does not move", || ring.liveness() == Liveness::Hung);
    let last = ring.peek().unwrap();
    let_pass(Duration::from_secs(2));
    assert_eq!(ring.peek().unwrap(), last);
    daemon.process.signal(Signal::CONT);
    until("readers see that it moves", || ring.liveness() == Liveness::Alive);
    for reader in &readers {
        // Two seconds of them: what was late comes first, and not all of it is whole.
        let seen = reader.first("frames come again", |seen| seen.frame.meta.seq.0 > last.seq.0 + 50);
        assert_eq!(seen.frame.meta.writer_epoch, last.writer_epoch);
    }
    until("the camera is live", || ring.status().state == State::Live);
    readers.into_iter().for_each(|reader| drop(reader.finish()));
}

/// Takes a lease on a file: whoever opens it waits until the lease is given back.
const LEASE: &str = "\
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
signal.pause()
";

/// Holds a lease on `file` for as long as it lives.
fn lease(file: &Path) -> Process {
    let mut child =
        Command::new("python3").args(["-c", LEASE]).arg(file).stdout(Stdio::piped()).spawn().expect("python3");
    let mut line = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).expect("the lease is held");
    Process(child)
}

#[test]
fn a_session_that_does_not_end_is_left_to_the_service_manager() {
    let rounds = amount(1, 20);
    let slowest = (0..rounds).map(|_| gives_its_process_up()).max().unwrap();
    measured(format!(
        "{rounds} sessions that did not end: the process gave up {} ms after its start, at most",
        slowest.as_millis()
    ));
}

/// One such session and the daemon after it; says how long the process lived.
fn gives_its_process_up() -> Duration {
    let (shm, sim, folder) = (Shm::new(), Sim::spawn(&["--size", "640x360"]), tempfile::tempdir().unwrap());
    let (video, config) = (folder.path().join("video.mp4"), folder.path().join("camring.toml"));
    std::fs::write(&video, "whoever reads this has waited").unwrap();
    std::fs::write(
        &config,
        "[camera.cam]\nfile = \"video.mp4\"\nreconnect.request_timeout = \"500ms\"\n\
         reconnect.connect_timeout = \"1s\"\n",
    )
    .unwrap();
    let reader = {
        let mut daemon = Daemon::spawn(&shm, "cam", &sim.url);
        let reader = Reader::attach(&shm, "cam", Way::Next);
        reader.first("a frame", |_| true);
        stop(&mut daemon, &reader.ring);
        reader
    };
    let (last, generation) = (reader.ring.peek().unwrap(), reader.ring.status().generation);
    // Its thread hangs in the kernel, as with a camera's driver or a file server that is gone.
    let lease = lease(&video);
    let began = Instant::now();
    let mut stuck = Daemon::spawn_config(&shm, "cam", &config);
    assert_eq!(stuck.process.wait().code(), Some(i32::from(Exit::Temporary as u8)));
    let lived = began.elapsed();
    let status = reader.ring.status();
    assert_eq!((status.state, status.generation), (State::Restarting, generation));
    assert_eq!(reader.ring.peek().unwrap(), last);
    drop(lease);
    let _next = Daemon::spawn(&shm, "cam", &sim.url);
    let seen = reader.first("a frame of the next daemon", |seen| seen.frame.meta.seq > last.seq);
    assert_eq!(seen.frame.meta.writer_epoch, last.writer_epoch + 2);
    assert_eq!(seen.frame.generation, generation);
    reader.finish();
    lived
}
