//! Every way in which a writer can end or stop, and what its ring is afterwards.

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use camring_ring::{FrameFlags, Liveness, Ring, State, Writer};
use common::actors::{Actor, PATIENCE, let_pass, until_within};
use common::{Shm, amount, assert_untorn, measured, publish};
use rustix::process::Signal;

const FILES: [&str; 3] = ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"];
/// Frames of 2.6 MiB, so that an end often falls into the writing of one.
const WRITER: [&str; 4] = ["--size", "1280x720", "--fps", "200"];

/// Lets a writer end by `end`; the ring must outlive it and the next writer must take it over.
fn ends_and_is_followed(end: impl FnOnce(&mut Actor), orderly: bool) {
    let shm = Shm::new();
    let mut writer = Actor::ready_writer(&shm, "cam", &WRITER);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut pixels = Vec::new();
    let first = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    let before = ring.status();
    end(&mut writer);
    until_within(PATIENCE, "readers see that it is gone", || ring.liveness() == Liveness::Gone);
    assert_eq!(ring.status().state == State::Stopped, orderly);
    let last = ring.latest(&mut pixels).unwrap();
    assert!(last.meta.seq >= first.meta.seq);
    assert_untorn(last.meta.seq.0, &pixels);
    assert_eq!(shm.files(), FILES);
    let _next = Actor::ready_writer(&shm, "cam", &WRITER);
    let after = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    assert_untorn(after.meta.seq.0, &pixels);
    assert_eq!(after.meta.writer_epoch, before.writer_epoch + 1);
    assert_eq!(after.generation, before.generation, "the next writer adopted the ring");
    assert_eq!(after.skipped, after.meta.seq.0 - last.meta.seq.0 - 1);
    let restart = FrameFlags::AFTER_RESTART.with(FrameFlags::DISCONT);
    assert!(after.skipped > 0 || after.meta.flags.contains(restart), "the first frame says that it is one");
    assert_eq!(shm.files(), FILES);
}

#[test]
fn the_ring_of_a_writer_that_panicked_is_adopted() {
    ends_and_is_followed(
        |writer| {
            writer.order("panic");
            assert_eq!(writer.wait().code(), Some(101));
        },
        false,
    );
}

#[test]
fn the_ring_of_a_writer_that_aborted_is_adopted() {
    use std::os::unix::process::ExitStatusExt;
    ends_and_is_followed(
        |writer| {
            writer.order("abort");
            assert_eq!(writer.wait().signal(), Some(Signal::ABORT.as_raw()));
        },
        false,
    );
}

#[test]
fn the_ring_of_a_writer_that_ended_in_order_is_adopted() {
    ends_and_is_followed(
        |writer| {
            writer.stop();
        },
        true,
    );
}

/// A memory control group below this process's own; removed at the end.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// A group that may hold `limit` bytes and swap nothing, or the reason why there is none here.
    fn new(limit: u64) -> Result<Self, String> {
        let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let mounts = std::fs::read_to_string("/proc/mounts").map_err(|e| e.to_string())?;
        let root = |kind: &str, option: &str| {
            let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            mounts.find(|at| at[2] == kind && at[3].split(',').any(|o| o == option)).map(|at| PathBuf::from(at[1]))
        };
        let path_in = |controller: &str| {
            let mut lines = own.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
            lines.find(|line| line[1] == controller).map(|line| line[2].trim_start_matches('/').to_owned())
        };
        let (folder, limits) = match (root("cgroup", "memory"), path_in("memory")) {
            (Some(root), Some(path)) => (root.join(path), ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
            _ => {
                let root = root("cgroup2", "rw").ok_or("no control groups are mounted")?;
                (
                    root.join(path_in("").ok_or("this process is in no control group")?),
                    ["memory.max", "memory.swap.max"],
                )
            }
        };
        let group = Self(folder.join(format!("camring-test-{}", std::process::id())));
        std::fs::create_dir(&group.0).map_err(|e| format!("make {}: {e}", group.0.display()))?;
        let swap = if limits[1] == "memory.swap.max" { 0 } else { limit };
        group.set(limits[0], limit)?;
        // A kernel that counts no swap has no such file; a host without swap needs none.
        if group.0.join(limits[1]).exists() {
            group.set(limits[1], swap)?;
        }
        Ok(group)
    }

    fn set(&self, file: &str, value: u64) -> Result<(), String> {
        let path = self.0.join(file);
        std::fs::write(&path, value.to_string()).map_err(|e| format!("write {}: {e}", path.display()))
    }

    fn take(&self, process: u32) {
        self.set("cgroup.procs", u64::from(process)).unwrap();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn the_ring_of_a_writer_that_was_killed_for_its_memory_is_adopted() {
    use std::os::unix::process::ExitStatusExt;
    let group = match MemoryGroup::new(96 << 20) {
        Ok(group) => group,
        Err(why) => {
            println!("skipped: no memory control group of one's own here: {why}");
            return;
        }
    };
    ends_and_is_followed(
        |writer| {
            group.take(writer.pid());
            writer.order("eat");
            assert_eq!(writer.wait().signal(), Some(Signal::KILL.as_raw()));
        },
        false,
    );
}

#[test]
fn a_stopped_writer_keeps_its_ring_and_goes_on_where_it_was() {
    let shm = Shm::new();
    let writer = Actor::ready_writer(&shm, "cam", &["--fps", "100"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut pixels = Vec::new();
    for _ in 0..amount(1, 3) {
        let before = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        writer.signal(Signal::STOP);
        let stopped = Instant::now();
        until_within(PATIENCE, "readers call it hung", || ring.liveness() == Liveness::Hung);
        let noticed = stopped.elapsed();
        let newest = ring.status().seq;
        let mut second = Actor::writer(&shm, "cam", &["--lock-wait-ms", "300"]);
        assert!(!second.wait().success(), "a second writer got the ring of one that only stopped");
        let mut refused = shm.options("cam");
        refused.lock_wait = Duration::from_millis(100);
        let said = Writer::start(refused).unwrap_err().to_string();
        assert!(said.contains(&format!("already written by process {}", writer.pid())), "{said}");
        let_pass(Duration::from_millis(amount(300, 30_000)).saturating_sub(stopped.elapsed()));
        // A last heartbeat may have come after the first look on a busy machine: it counts for a second.
        until_within(PATIENCE, "readers still call it hung", || ring.liveness() == Liveness::Hung);
        assert_eq!(ring.status().seq, newest);
        writer.signal(Signal::CONT);
        let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        until_within(PATIENCE, "readers call it alive", || ring.liveness() == Liveness::Alive);
        assert_eq!(frame.meta.writer_epoch, before.meta.writer_epoch);
        assert_eq!(frame.generation, before.generation);
        measured(format!(
            "writer stopped for {:.1} s: called hung after {:.1} s, a second one refused, its next frame read after it went on",
            stopped.elapsed().as_secs_f64(),
            noticed.as_secs_f64()
        ));
    }
    assert_eq!(shm.files(), FILES);
}

#[test]
fn a_flush_that_abandons_every_claimed_slot_loses_no_published_frame() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    for round in 1..=amount(200, 20_000) {
        assert_eq!(publish(&mut writer, 64, 48, (round % 251) as u8), round);
        let mut claimed = Vec::new();
        while let Ok(mut slot) = writer.claim(64 * 48 * 3) {
            slot.as_mut().fill(255);
            claimed.push(slot);
        }
        assert_eq!(claimed.len(), 7, "all slots but that of the newest frame");
        assert_newest(&ring, round);
        // A pipeline gives its buffers back on whatever thread holds them.
        std::thread::spawn(move || drop(claimed)).join().unwrap();
        assert_newest(&ring, round);
        assert_eq!(ring.held().len(), 1, "what was abandoned is no frame");
    }
}

fn assert_newest(ring: &Ring, seq: u64) {
    let mut pixels = Vec::new();
    let frame = ring.latest(&mut pixels).unwrap();
    assert_eq!(frame.meta.seq.0, seq);
    assert!(pixels.iter().all(|byte| *byte == (seq % 251) as u8), "frame {seq} is torn");
}

#[test]
fn a_writer_that_abandons_all_the_time_is_read_without_a_torn_frame() {
    let shm = Shm::new();
    let mut writer = Actor::ready_writer(&shm, "cam", &["--abandon", "3", "--crc"]);
    let frames = amount(2_000, 500_000).to_string();
    let mut readers = ["copy", "lease"].map(|mode| Actor::reader(&shm, mode, "cam", &["--frames", &frames]));
    for reader in &mut readers {
        until_within(Duration::from_secs(500), "the frames are read", || reader.ended().is_some());
        reader.stop();
    }
    let revoked = readers[1].count("revoked");
    writer.stop();
    measured(format!(
        "{frames} copies and as many leases beside a writer that abandons every slot: 0 torn, {revoked} revoked"
    ));
}
