//! The ring across processes: writers die in the middle of frames, readers go on with the same handle.

mod common;

use std::time::{Duration, Instant};

use camring_ring::{Liveness, ReadError, Ring, State};
use common::{Shm, WriterProcess, assert_untorn, until};

/// Reads until `enough`, checking every byte; returns the last sequence.
fn read_checked(ring: &Ring, mut last: u64, mut enough: impl FnMut(u64) -> bool) -> u64 {
    let mut pixels = Vec::new();
    loop {
        match ring.next(&mut pixels, Some(Duration::from_secs(20))) {
            Ok(frame) => {
                let seq = frame.meta.seq.0;
                assert!(seq > last, "frame {seq} after frame {last}");
                assert_untorn(seq, &pixels);
                last = seq;
            }
            Err(ReadError::Overrun { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if enough(last) {
            return last;
        }
    }
}

#[test]
fn a_writer_at_full_speed_never_shows_a_torn_frame() {
    let shm = Shm::new();
    let _writer = WriterProcess::spawn(&shm, "cam", &["--fps", "0", "--slots", "3", "--size", "320x240"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut reads = 0;
    read_checked(&ring, 0, |_| {
        reads += 1;
        reads >= 20_000
    });
    assert!(ring.stats().skipped > 0, "the writer was meant to be faster than the reader");
}

#[test]
fn sizes_that_change_all_the_time_are_followed_without_a_torn_frame() {
    let shm = Shm::new();
    let sizes = ["--size", "64x48,641x359,1280x720,320x240", "--per-size", "40", "--fps", "0"];
    let _writer = WriterProcess::spawn(&shm, "cam", &sizes);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    read_checked(&ring, 0, |seq| seq > 3_000);
    assert!(ring.status().geometry_epoch >= 10, "the size was meant to change");
}

#[test]
fn readers_keep_their_handle_over_killed_writers() {
    let shm = Shm::new();
    let first = WriterProcess::spawn(&shm, "cam", &["--fps", "0"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut last = read_checked(&ring, 0, |seq| seq > 100);
    let epoch = ring.status().writer_epoch;
    let generation = ring.status().generation;
    first.kill();
    let restarts = 30;
    for _ in 0..restarts {
        let writer = WriterProcess::spawn(&shm, "cam", &["--fps", "0"]);
        last = read_checked(&ring, last, |seq| seq > last + 50);
        writer.kill();
    }
    let status = ring.status();
    assert_eq!(status.writer_epoch, epoch + restarts);
    assert_eq!(status.generation, generation, "every restart adopted the same inode");
    assert_eq!(shm.files(), ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"]);
}

#[test]
fn the_last_frame_stays_readable_and_the_death_is_visible() {
    let shm = Shm::new();
    let writer = WriterProcess::spawn(&shm, "cam", &["--fps", "200"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    read_checked(&ring, 0, |seq| seq > 10);
    assert_eq!(ring.liveness(), Liveness::Alive);
    writer.kill();
    until("the lock of the dead writer is gone", || ring.liveness() == Liveness::Gone);
    let mut pixels = Vec::new();
    let frame = ring.latest(&mut pixels).unwrap();
    assert_untorn(frame.meta.seq.0, &pixels);
    let again = ring.latest(&mut pixels).unwrap();
    assert_eq!(again.meta.seq, frame.meta.seq, "nothing is invented");
    until("the frame is stale", || ring.latest_within(&mut pixels, Duration::from_millis(1)).is_err());
    let waited = ring.next(&mut pixels, Some(Duration::from_millis(50))).unwrap_err();
    assert!(waited.to_string().ends_with("and its daemon is not running; start camring@cam"), "{waited}");
}

#[test]
fn an_orderly_stop_is_a_state() {
    let shm = Shm::new();
    let mut writer = WriterProcess::spawn(&shm, "cam", &["--fps", "0", "--frames", "50"]);
    // Not `wait`: that would close its input, which also asks it to stop.
    until("the writer has published its frames", || writer.0.try_wait().unwrap().is_some());
    assert!(writer.0.wait().unwrap().success());
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!((ring.status().state, ring.writer_pid()), (State::Stopped, 0));
    assert_eq!(ring.peek().unwrap().seq.0, 50);
}

#[test]
fn a_stopped_writer_is_hung_not_gone() {
    let shm = Shm::new();
    let writer = WriterProcess::spawn(&shm, "cam", &["--fps", "100"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let pid = rustix::process::Pid::from_child(&writer.0);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    until("the stopped writer is called hung", || ring.liveness() == Liveness::Hung);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    until("the writer is alive again", || ring.liveness() == Liveness::Alive);
}

#[test]
fn a_reader_that_starts_first_waits_for_the_name() {
    let shm = Shm::new();
    let options = shm.attach_options();
    let reader = std::thread::spawn(move || Ring::attach("cam", options).map(|ring| ring.status().state));
    let _writer = WriterProcess::spawn(&shm, "cam", &["--frames", "0"]);
    assert_eq!(reader.join().unwrap().unwrap(), State::Connecting);
}

#[test]
fn a_waiting_reader_uses_no_cpu() {
    let shm = Shm::new();
    let _writer = WriterProcess::spawn(&shm, "cam", &["--frames", "0"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let sleeps = std::thread::spawn(move || {
        let before = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let began = Instant::now();
        let error = ring.next(&mut Vec::new(), Some(Duration::from_millis(1500))).unwrap_err();
        assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
        assert!(began.elapsed() >= Duration::from_millis(1500), "it returned early");
        let after = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(after.tv_sec as u64, after.tv_nsec as u32)
            - Duration::new(before.tv_sec as u64, before.tv_nsec as u32)
    });
    let cpu = sleeps.join().unwrap();
    assert!(cpu < Duration::from_millis(150), "{cpu:?} of CPU for waiting 1.5 s means that it polls");
}
