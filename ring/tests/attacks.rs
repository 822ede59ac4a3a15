//! Attacks on the writer's time and on other readers' wake-ups, with nothing but a read-only descriptor and mapping.
//!
//! What is asserted are counts and bounds; times are printed, because a busy machine would make them lie.

mod common;
mod raw;
mod scene;

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use camring_ring::layout::{ALIVE_LOCK_OFF, LEASE_LOCK_BASE, LeasePolicy, at};
use camring_ring::{ClaimError, Counter, Housekeeping, Liveness, ReadError, Ring, Sequence, Writer};
use common::{Shm, WriterProcess, amount, assert_untorn, measured, publish, until};
use raw::{Map, futex_kidnap, futex_wait, futex_wait_requeue_pi, futex_wake, lock};
use scene::{Accomplice, Part};

/// The ring as an attacker has it: read-only.
struct Loot {
    file: File,
    map: Map,
}

impl Loot {
    fn of(shm: &Path) -> Self {
        let file = scene::open_read_only(&shm.join("camring.d/cam"));
        let len = file.metadata().unwrap().len() as usize;
        let map = Map::new(&file, len, libc::PROT_READ).unwrap();
        Self { file, map }
    }

    fn notify(&self) -> &AtomicU32 {
        self.map.u32_at(at::NOTIFY as usize)
    }

    fn read_lock(&self, start: u64, len: u64) {
        lock(&self.file, libc::F_OFD_SETLK, libc::F_RDLCK, start, len).unwrap();
    }

    /// Every byte that a reader can have while the daemon lives, which holds one itself.
    fn read_lock_everything(&self) {
        self.read_lock(0, ALIVE_LOCK_OFF);
        self.read_lock(ALIVE_LOCK_OFF + 1, 0);
    }

    /// Moves every sleeper to a word of the attacker's own, once there is one; returns how many.
    fn kidnap(&self, prison: &AtomicU32) -> usize {
        let mut moved = 0;
        until("somebody sleeps who can be kidnapped", || {
            let seen = self.notify().load(Ordering::Relaxed);
            moved = futex_kidnap(self.notify(), seen, prison).unwrap_or(0);
            moved > 0
        });
        moved
    }
}

/// Middle and 99th percentile of some times, as text.
fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("{:?} (p50), {:?} (p99), {:?} (worst)", at(50), at(99), at(100))
}

/// Publishes `count` frames; how long claim and publish took together.
fn publish_timed(writer: &mut Writer, count: u64) -> Vec<Duration> {
    let one = |number: u64| {
        let began = Instant::now();
        publish(writer, 64, 48, (number % 251) as u8);
        began.elapsed()
    };
    (0..count).map(one).collect()
}

fn counter(ring: &Ring, counter: Counter) -> u64 {
    ring.status().counter(counter)
}

#[test]
fn a_read_lock_on_everything_costs_leases_and_never_a_frame_under_fresh() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 0);
    let before = percentiles(publish_timed(&mut writer, 500));
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let loot = Loot::of(shm.path());
    loot.read_lock_everything();
    let (mut pixels, mut times) = (Vec::new(), Vec::new());
    for value in 1..=500u64 {
        times.extend(publish_timed(&mut writer, 1));
        let frame = ring.latest(&mut pixels).unwrap();
        assert_eq!(frame.meta.seq.0, 501 + value, "every frame is published and read");
    }
    assert_eq!(counter(&ring, Counter::LeasesRevoked), 500, "every claim took a locked slot");
    assert_eq!(ring.stats().skipped, 0);
    measured(format!("claim and publish: {before}; with the whole file read-locked: {}", percentiles(times)));
    drop(loot);
    publish(&mut writer, 64, 48, 1);
    assert_eq!(counter(&ring, Counter::LeasesRevoked), 500, "the lock ended with its holder");
}

#[test]
fn copy_readers_go_on_at_full_rate_beside_a_read_lock_on_everything() {
    let shm = Shm::new();
    let _writer = WriterProcess::spawn(&shm, "cam", &["--fps", "0", "--size", "320x240"]);
    let witness = scene::Witness::start(shm.attach_options());
    witness.more(200);
    let frames = amount(2_000, 200_000);
    let rate = |witness: &scene::Witness| {
        let began = Instant::now();
        witness.more(frames);
        frames as f64 / began.elapsed().as_secs_f64()
    };
    let free = rate(&witness);
    let loot = Loot::of(shm.path());
    loot.read_lock_everything();
    let revoked = counter(&witness.ring, Counter::LeasesRevoked);
    let locked = rate(&witness);
    until("the writer takes locked slots", || counter(&witness.ring, Counter::LeasesRevoked) > revoked + 100);
    measured(format!("copy reads: {free:.0}/s; beside a read lock on the whole file: {locked:.0}/s; 0 torn"));
    witness.end();
}

#[test]
fn a_read_lock_on_everything_freezes_a_ring_under_protect_until_it_ends() {
    let shm = Shm::new();
    let mut options = shm.options("cam");
    options.lease_policy = LeasePolicy::Protect;
    let (mut writer, _) = Writer::start(options).unwrap();
    publish(&mut writer, 64, 48, 7);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let loot = Loot::of(shm.path());
    loot.read_lock_everything();
    for _ in 0..100 {
        let refused = writer.claim(64 * 48 * 3).unwrap_err();
        assert!(matches!(refused, ClaimError::Leased), "{refused}");
    }
    assert_eq!(counter(&ring, Counter::LeaseConflicts), 100);
    assert_eq!(counter(&ring, Counter::LeasesRevoked), 0, "nothing is revoked under protect");
    let mut pixels = Vec::new();
    assert_eq!(ring.latest(&mut pixels).unwrap().meta.seq.0, 1, "the last frame stays readable");
    assert!(pixels.iter().all(|byte| *byte == 7));
    drop(loot);
    assert_eq!(publish(&mut writer, 64, 48, 8), 2, "the ring goes on when the lock ends");
}

#[test]
fn a_daemon_starts_and_is_seen_alive_although_a_reader_squats_on_every_byte() {
    let shm = Shm::new();
    let writer = WriterProcess::spawn(&shm, "cam", &["--fps", "100"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut pixels = Vec::new();
    ring.next(&mut pixels, Some(Duration::from_secs(20))).unwrap();
    let epoch = ring.status().writer_epoch;
    writer.kill();
    let loot = Loot::of(shm.path());
    loot.read_lock(0, 0);
    let _writer = WriterProcess::spawn(&shm, "cam", &["--fps", "100"]);
    let frame = ring.next(&mut pixels, Some(Duration::from_secs(20))).unwrap();
    assert_untorn(frame.meta.seq.0, &pixels);
    assert_eq!((ring.status().writer_epoch, ring.stats().followed), (epoch + 1, 0), "the ring was adopted");
    until("the heartbeat is seen to move", || ring.liveness() == Liveness::Alive);
    drop(loot);
    let look = scene::open_read_only(&shm.path().join("camring.d/cam"));
    until("the daemon has its byte back", || {
        raw::conflicting(&look, libc::F_RDLCK, ALIVE_LOCK_OFF, 1).unwrap() == Some(libc::F_WRLCK)
    });
    assert_eq!(ring.liveness(), Liveness::Alive);
}

#[test]
fn ten_thousand_locks_cost_no_frame() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let _house = Housekeeping::spawn(writer.status(), |_| {}).unwrap();
    publish(&mut writer, 64, 48, 0);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let before = percentiles(publish_timed(&mut writer, 500));
    let loot = Loot::of(shm.path());
    // Before the bytes of the slots, so that the kernel's search passes all of them; apart, so that they do not merge.
    for index in 0..10_000 {
        loot.read_lock(LEASE_LOCK_BASE - 2 * (index + 1), 1);
    }
    let last = ring.latest(&mut Vec::new()).unwrap().meta.seq.0;
    let frames = amount(500, 20_000);
    let times = publish_timed(&mut writer, frames);
    let frame = ring.latest(&mut Vec::new()).unwrap();
    assert_eq!((frame.meta.seq.0, counter(&ring, Counter::DroppedNoSlot)), (last + frames, 0), "every frame went on");
    let slow = counter(&ring, Counter::LeaseLockSlow);
    measured(format!(
        "claim and publish: {before}; beside 10,000 locks: {}; called slow {slow} times",
        percentiles(times)
    ));
}

#[test]
fn locks_on_every_one_of_256_slots_among_thousands_more_cost_no_frame() {
    let shm = Shm::new();
    let mut options = shm.options("cam");
    options.slots = 256;
    let (mut writer, _) = Writer::start(options).unwrap();
    publish(&mut writer, 64, 48, 0);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let before = percentiles(publish_timed(&mut writer, 300));
    let loot = Loot::of(shm.path());
    // Few enough that one call stays cheap, before the bytes of the slots, every one of which is taken too.
    for index in 0..3_000 {
        loot.read_lock(LEASE_LOCK_BASE - 2 * (index + 1), 1);
    }
    loot.read_lock(LEASE_LOCK_BASE, 256);
    let last = ring.latest(&mut Vec::new()).unwrap().meta.seq.0;
    let frames = amount(300, 5_000);
    let times = publish_timed(&mut writer, frames);
    let newest = ring.latest(&mut Vec::new()).unwrap().meta.seq.0;
    assert_eq!((newest, counter(&ring, Counter::DroppedNoSlot)), (last + frames, 0), "every frame went on");
    let slow = counter(&ring, Counter::LeaseLockSlow);
    measured(format!(
        "claim and publish in 256 slots: {before}; all of them and 3,000 bytes more locked: {}; called slow {slow} times",
        percentiles(times)
    ));
}

#[test]
fn kidnapped_sleepers_get_every_frame_a_slice_late_and_then_look_more_often() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 0);
    let rings: Vec<Ring> = (0..2).map(|_| Ring::attach("cam", shm.attach_options()).unwrap()).collect();
    let (loot, prison) = (Loot::of(shm.path()), AtomicU32::new(0));
    let (rounds, got) = (amount(20, 2_000), AtomicU64::new(0));
    let mut delays = Vec::new();
    std::thread::scope(|scope| {
        for ring in &rings {
            scope.spawn(|| {
                for seq in 2..rounds + 2 {
                    assert!(ring.wait(Sequence(seq - 1), Some(Duration::from_secs(30))), "frame {seq} never came");
                    got.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 1..=rounds {
            let mut held = 0;
            // Until nobody is left to be woken: both readers sleep on the attacker's word.
            until("both readers are kidnapped", || {
                held += loot.kidnap(&prison);
                held >= 2
            });
            let published = Instant::now();
            publish(&mut writer, 64, 48, round as u8);
            until("both readers have the frame", || got.load(Ordering::SeqCst) == 2 * round);
            delays.push(published.elapsed());
        }
    });
    for ring in &rings {
        let missed = ring.stats().missed_wakes;
        assert!(missed >= 1, "no wake-up was missed, so nobody was kidnapped");
    }
    let first = delays.remove(0);
    measured(format!("frames of kidnapped readers came after {first:?}, the next ones after {}", percentiles(delays)));
}

#[test]
fn a_poisoned_wait_queue_makes_readers_poll_and_costs_no_frame() {
    let test = "a_poisoned_wait_queue_makes_readers_poll_and_costs_no_frame";
    if let Some(part) = Part::of_this_process() {
        let (loot, target) = (Loot::of(&part.shm), AtomicU32::new(0));
        println!("poisoning");
        loop {
            let seen = loot.notify().load(Ordering::Relaxed);
            // Ends early whenever the word has moved in between.
            let _ = futex_wait_requeue_pi(loot.notify(), seen, Duration::from_secs(600), &target);
        }
    }
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let _house = Housekeeping::spawn(writer.status(), |_| {}).unwrap();
    publish(&mut writer, 64, 48, 0);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut accomplice = Accomplice::start(test, "poisoner", &shm);
    accomplice.says("poisoning");
    until("a wake-up is refused", || {
        publish(&mut writer, 64, 48, 1);
        std::thread::yield_now();
        counter(&ring, Counter::WakeErrors) > 0
    });
    let wake_mode = || scene_word(&shm, at::WAKE_MODE);
    assert_eq!(wake_mode(), 1, "readers are told to poll");
    let delays = pass_frames_on(&mut writer, &ring, amount(100, 20_000));
    measured(format!("frames of polling readers came after {}", percentiles(delays)));
    drop(accomplice);
    if amount(0, 1) == 0 {
        return;
    }
    until("the writer wakes again, 10 s after the last refusal", || {
        publish(&mut writer, 64, 48, 2);
        std::thread::yield_now();
        wake_mode() == 0
    });
}

fn scene_word(shm: &Shm, offset: u64) -> u32 {
    Loot::of(shm.path()).map.u32_at(offset as usize).load(Ordering::Relaxed)
}

/// Publishes `count` frames, each when the one before has arrived at a waiting reader; how long each took.
fn pass_frames_on(writer: &mut Writer, ring: &Ring, count: u64) -> Vec<Duration> {
    let mut seen = ring.latest(&mut Vec::new()).unwrap().meta.seq.0;
    let start = ring.stats().frames;
    let arrived = AtomicU64::new(seen);
    let mut delays = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut pixels = Vec::new();
            for _ in 0..count {
                let frame = ring.next(&mut pixels, Some(Duration::from_secs(30))).unwrap();
                assert_eq!(frame.skipped, 0, "frame {} came after a gap", frame.meta.seq);
                arrived.store(frame.meta.seq.0, Ordering::SeqCst);
            }
        });
        for _ in 0..count {
            let published = Instant::now();
            seen = publish(writer, 64, 48, 3);
            until("the frame arrives", || arrived.load(Ordering::SeqCst) == seen);
            delays.push(published.elapsed());
        }
    });
    assert_eq!(ring.stats().frames, start + count);
    delays
}

#[test]
fn thousands_of_sleepers_cost_one_publish_no_more_than_its_share_of_the_wakes() {
    let test = "thousands_of_sleepers_cost_one_publish_no_more_than_its_share_of_the_wakes";
    let sleepers = 4_000;
    if let Some(part) = Part::of_this_process() {
        return sleep_in_crowds(&part, sleepers);
    }
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let _house = Housekeeping::spawn(writer.status(), |_| {}).unwrap();
    publish(&mut writer, 64, 48, 0);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let before = percentiles(publish_timed(&mut writer, 200));
    let mut crowd = Accomplice::start(test, "crowd", &shm);
    crowd.says("asleep");
    let calls = (counter(&ring, Counter::WakeCalls), counter(&ring, Counter::WakeOverflow));
    let times = publish_timed(&mut writer, 1);
    crowd.says("all awake");
    let after = (counter(&ring, Counter::WakeCalls), counter(&ring, Counter::WakeOverflow));
    assert_eq!(after, (calls.0 + 1, calls.1 + 1), "one call of the publisher, which left the rest to housekeeping");
    assert_eq!(counter(&ring, Counter::WakeErrors), 0);
    measured(format!("claim and publish: {before}; with {sleepers} sleepers of one reader: {:?}", times[0]));
    let delays = pass_frames_on(&mut writer, &ring, amount(50, 2_000));
    measured(format!("frames of a reader in the queue with {sleepers} others came after {}", percentiles(delays)));
}

/// Sleeps on the ring's word in many threads, says when all sleep and when all have been woken once, and sleeps on.
fn sleep_in_crowds(part: &Part, count: usize) {
    let loot = Loot::of(&part.shm);
    let (awake, first) = (AtomicU64::new(0), loot.notify().load(Ordering::Relaxed));
    std::thread::scope(|scope| {
        for _ in 0..count {
            let sleeper = std::thread::Builder::new().stack_size(32 << 10);
            let spawned = sleeper.spawn_scoped(scope, || {
                let woken = || futex_wait(loot.notify(), first, Duration::from_secs(60)).is_err();
                while loot.notify().load(Ordering::Relaxed) == first && woken() {}
                awake.fetch_add(1, Ordering::SeqCst);
                loop {
                    let seen = loot.notify().load(Ordering::Relaxed);
                    let _ = futex_wait(loot.notify(), seen, Duration::from_secs(60));
                }
            });
            spawned.unwrap();
        }
        until("everybody sleeps", || asleep() >= count);
        println!("asleep");
        until("everybody was woken", || awake.load(Ordering::SeqCst) == count as u64);
        println!("all awake");
    });
}

/// Threads of this process that sleep in a futex call.
fn asleep() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| std::fs::read_to_string(task.path().join("wchan")).is_ok_and(|at| at.contains("futex"))).count()
}

#[test]
fn a_flood_of_wake_ups_neither_loses_a_frame_nor_ends_a_wait_early() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 0);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let loot = Loot::of(shm.path());
    let (stop, wakes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                wakes.fetch_add(futex_wake(loot.notify(), u32::MAX >> 1).unwrap() as u64, Ordering::Relaxed);
            }
        });
        let delays = pass_frames_on(&mut writer, &ring, amount(200, 50_000));
        let limit = Duration::from_millis(300);
        until("sleepers are woken for nothing while they wait", || {
            let (began, before) = (Instant::now(), wakes.load(Ordering::Relaxed));
            let error = ring.next(&mut Vec::new(), Some(limit)).unwrap_err();
            assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
            assert!(began.elapsed() >= limit, "the flood ended the wait early");
            wakes.load(Ordering::Relaxed) > before
        });
        stop.store(true, Ordering::Relaxed);
        let wakes = wakes.load(Ordering::Relaxed);
        measured(format!("under {wakes} wake-ups for nothing, frames came after {}", percentiles(delays)));
    });
}

#[test]
fn a_reader_that_dumps_core_with_a_lease_leaves_out_the_ring_and_gives_its_slot_back() {
    let test = "a_reader_that_dumps_core_with_a_lease_leaves_out_the_ring_and_gives_its_slot_back";
    if let Some(part) = Part::of_this_process() {
        dump_core(&part);
    }
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    for value in 0..4 {
        publish(&mut writer, 1280, 720, value);
    }
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut accomplice = Accomplice::start(test, "dumper", &shm);
    let flags = accomplice.says("flags of its mapping:");
    assert!(flags.split(' ').any(|flag| flag == "dd"), "the ring is not left out of core dumps: {flags}");
    let slot: u64 = accomplice.says("leases slot").parse().unwrap();
    let look = std::fs::OpenOptions::new().read(true).write(true).open(shm.path().join("camring.d/cam")).unwrap();
    let pid = accomplice.pid();
    let status = accomplice.end();
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    let held = raw::conflicting(&look, libc::F_WRLCK, LEASE_LOCK_BASE + slot, 1).unwrap();
    assert_eq!(held, None, "the slot of a dead reader is still leased");
    for name in ["core".to_owned(), format!("core.{pid}")] {
        if let Ok(core) = std::fs::metadata(shm.path().join(name)) {
            let (size, ring) = (core.len(), ring.layout().file_bytes);
            // AddressSanitizer's own memory is in the core as well.
            let instrumented = std::env::var_os("ASAN_OPTIONS").is_some();
            assert!(instrumented || size < ring, "a core of {size} bytes beside a ring of {ring}");
            measured(format!("core of a leasing reader: {size} bytes; its ring has {ring}"));
        }
    }
}

/// Attaches, leases the newest slot by its lock, touches every page of it, and dumps core in the ring's folder.
fn dump_core(part: &Part) -> ! {
    let ring = Ring::attach("cam", part.own_options()).unwrap();
    let mut pixels = Vec::new();
    let frame = ring.latest(&mut pixels).unwrap();
    assert_eq!(frame.meta.geometry.len, pixels.len() as u64);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mapping = smaps.split_once("camring.d/cam").expect("the ring is mapped").1;
    let flags = mapping.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
    println!("flags of its mapping:{flags}");
    let Loot { file, map } = Loot::of(&part.shm);
    let slot = map.u64_at(at::HEAD as usize).load(Ordering::Relaxed) & 0xFFFF;
    // The attacker's own mapping asks for nothing, and is not what the core is measured by.
    drop(map);
    lock(&file, libc::F_OFD_SETLK, libc::F_RDLCK, LEASE_LOCK_BASE + slot, 1).unwrap();
    println!("leases slot {slot}");
    std::env::set_current_dir(&part.shm).unwrap();
    let limit = rustix::process::Rlimit { current: Some(64 << 20), maximum: Some(64 << 20) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, limit);
    std::process::abort();
}
