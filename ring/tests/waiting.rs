//! Waiting: for one ring and for many, through signals, wrapped words, removed and replaced rings.

mod common;

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use camring_ring::layout::at;
use camring_ring::{
    AttachOptions, Capacity, LeasePolicy, ReadError, Ring, RingName, Sequence, ShmDir, Writer, remove, wait_any,
};
use common::system::{Child, refuse_call, signal_every};
use common::{Shm, WriterProcess, amount, assert_untorn, publish, publish_pattern, until};

const LONG: Option<Duration> = Some(Duration::from_secs(60));

fn start(shm: &Shm, ring: &str) -> Writer {
    let mut options = shm.options(ring);
    (options.slots, options.capacity) = (3, Capacity::Bytes(64 * 1024));
    // Many rings: their pages are made when they are used.
    options.prefault = false;
    Writer::start(options).unwrap().0
}

fn attach(shm: &Shm, ring: &str) -> Ring {
    Ring::attach(ring, shm.attach_options()).unwrap()
}

/// Several rings with one frame each, which their readers have read.
struct Many {
    writers: Vec<Writer>,
    rings: Vec<Ring>,
}

impl Many {
    fn new(shm: &Shm, count: usize) -> Self {
        let names = (0..count).map(|number| format!("cam{number}"));
        let mut writers: Vec<Writer> = names.clone().map(|name| start(shm, &name)).collect();
        for writer in &mut writers {
            publish(writer, 8, 8, 1);
        }
        let rings: Vec<Ring> = names.map(|name| attach(shm, &name)).collect();
        for ring in &rings {
            ring.next(&mut Vec::new(), LONG).unwrap();
        }
        Self { writers, rings }
    }

    fn all(&self) -> Vec<&Ring> {
        self.rings.iter().collect()
    }
}

/// Publishes into `which` while `rings` are waited for, and expects exactly these to be reported, in one answer or more.
fn expect_wake(many: &mut Many, which: &[usize]) {
    let Many { writers, rings } = many;
    let all: Vec<&Ring> = rings.iter().collect();
    let mut missing: Vec<usize> = which.to_vec();
    std::thread::scope(|scope| {
        let (says, hears) = std::sync::mpsc::channel();
        let waiting = scope.spawn(move || {
            says.send(rustix::thread::gettid()).unwrap();
            while !missing.is_empty() {
                let ready = wait_any(&all, LONG);
                assert!(!ready.is_empty(), "{missing:?} were published");
                for index in ready {
                    let place = missing.iter().position(|wanted| *wanted == index);
                    missing.remove(place.unwrap_or_else(|| panic!("ring {index} has nothing new")));
                    all[index].next(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
                }
            }
        });
        let waiter = hears.recv().unwrap();
        until("the waiter sleeps", || is_asleep(waiter));
        for index in which {
            publish(&mut writers[*index], 8, 8, 2);
        }
        waiting.join().unwrap();
    });
}

/// Whether a thread of this process sleeps.
fn is_asleep(thread: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Wake-ups that came too late to end the sleep they were for.
fn missed(rings: &[Ring]) -> u64 {
    rings.iter().map(|ring| ring.stats().missed_wakes).sum()
}

#[test]
fn waiting_for_two_rings_ends_with_the_one_that_has_a_frame() {
    let shm = Shm::new();
    let mut many = Many::new(&shm, 2);
    assert_eq!(wait_any(&many.all(), Some(Duration::ZERO)), [0; 0]);
    let began = Instant::now();
    assert_eq!(wait_any(&many.all(), Some(Duration::from_millis(300))), [0; 0]);
    assert!(began.elapsed() >= Duration::from_millis(300), "it returned early");
    assert_eq!(wait_any(&[], None), [0; 0], "nothing to wait for");
    publish(&mut many.writers[1], 8, 8, 2);
    assert_eq!(wait_any(&many.all(), None), [1]);
    assert_eq!(wait_any(&many.all(), None), [1], "until it is read");
    publish(&mut many.writers[0], 8, 8, 2);
    assert_eq!(wait_any(&many.all(), None), [0, 1]);
    for ring in &many.rings {
        ring.latest(&mut Vec::new()).unwrap();
    }
    let rounds = amount(50, 5_000);
    for round in 0..rounds {
        expect_wake(&mut many, &[(round % 2) as usize]);
    }
    expect_wake(&mut many, &[0, 1]);
    // A sleep that ends by its time in the very moment of a publication counts as one.
    assert!(missed(&many.rings) <= rounds / 10, "{} of {rounds} wake-ups did not come", missed(&many.rings));
}

#[test]
fn waiting_for_as_many_rings_as_one_call_takes_and_for_more_ends_with_any_of_them() {
    for count in [128, 129, 300] {
        let shm = Shm::new();
        let mut many = Many::new(&shm, count);
        let edges = [0, 1, 126, 127, 128, 253, 254, 299];
        for which in edges.into_iter().chain([count - 1; 10]).filter(|which| *which < count) {
            expect_wake(&mut many, &[which]);
        }
        expect_wake(&mut many, &[0, 64, count - 1]);
        assert_eq!(wait_any(&many.all(), Some(Duration::from_millis(20))), [0; 0]);
        assert!(missed(&many.rings) < 5, "{} wake-ups did not come", missed(&many.rings));
    }
}

/// CPU time of this thread, ns.
fn cpu_ns() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[test]
fn where_one_call_for_many_words_is_refused_many_rings_are_waited_for_all_the_same() {
    for (error, count) in [(libc::ENOSYS, 2), (libc::EPERM, 2), (libc::ENOSYS, 130), (libc::EPERM, 130)] {
        let shm = Shm::new();
        let Many { mut writers, rings } = Many::new(&shm, count);
        let (says, hears) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            refuse_call(libc::SYS_futex_waitv, None, error);
            let all: Vec<&Ring> = rings.iter().collect();
            let before = cpu_ns();
            assert_eq!(wait_any(&all, Some(Duration::from_millis(300))), [0; 0]);
            let spent = cpu_ns() - before;
            assert!(spent < 150_000_000, "{spent} ns of CPU for waiting 300 ms means that it spins");
            says.send(count).unwrap();
            for _ in 0..6 {
                let ready = wait_any(&all, LONG);
                all[ready[0]].next(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
                says.send(ready[0]).unwrap();
            }
        });
        assert_eq!(hears.recv_timeout(Duration::from_secs(60)), Ok(count));
        for which in [0, count - 1, 1, 0, 0, count - 1] {
            publish(&mut writers[which], 8, 8, 2);
            assert_eq!(hears.recv_timeout(Duration::from_secs(60)), Ok(which));
        }
        waiting.join().unwrap();
    }
}

#[test]
fn waiting_for_many_rings_follows_their_generations() {
    let shm = Shm::new();
    let mut writers = ["a", "b"].map(|name| Writer::start(shm.options(name)).unwrap().0);
    let rings = ["a", "b"].map(|name| attach(&shm, name));
    let all: Vec<&Ring> = rings.iter().collect();
    for width in [64, 640, 1280, 1920] {
        publish(&mut writers[1], width, 480, 1);
        assert_eq!(wait_any(&all, LONG), [1], "{width}");
        let meta = rings[1].next(&mut Vec::new(), Some(Duration::ZERO)).unwrap().meta;
        assert_eq!(meta.geometry.width, width);
    }
    assert_eq!(rings[1].stats().followed, 4);
}

#[test]
fn a_removed_ring_ends_every_wait_and_keeps_its_last_frame() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam");
    publish(&mut writer, 8, 8, 7);
    let ring = attach(&shm, "cam");
    let mut pixels = Vec::new();
    ring.next(&mut pixels, None).unwrap();
    drop(writer);
    std::thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| ring.next(&mut Vec::new(), LONG).unwrap_err()),
            scope.spawn(|| ring.lease_next(LONG).unwrap_err()),
            scope.spawn(|| ring.after(Sequence(1), &mut Vec::new(), LONG).unwrap_err()),
            scope.spawn(|| {
                assert_eq!(wait_any(&[&ring, &ring], LONG), [0; 0]);
                assert!(!ring.wait(Sequence(1), LONG));
                ring.next(&mut Vec::new(), None).unwrap_err()
            }),
        ];
        remove(&shm.dir(), &RingName::new("cam").unwrap()).unwrap();
        until("every wait has ended before its time", || waiting.iter().all(|waiting| waiting.is_finished()));
        for error in waiting.map(|waiting| waiting.join().unwrap()) {
            assert_eq!(
                error.to_string(),
                "ring \"cam\" was removed by its operator; start its daemon to make a new one"
            );
        }
    });
    assert!(ring.is_removed());
    assert_eq!((ring.latest(&mut pixels).unwrap().meta.seq.0, pixels[0]), (1, 7));
    assert_eq!(ring.lease().unwrap().frame().meta.seq.0, 1);
    let mut writer = start(&shm, "cam");
    publish(&mut writer, 8, 8, 8);
    until("the new ring is followed", || !ring.is_removed());
    assert_eq!((ring.next(&mut pixels, LONG).unwrap().meta.seq.0, pixels[0]), (1, 8));
}

#[test]
fn a_ring_that_is_made_anew_at_once_is_followed_and_no_wait_ends() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam");
    publish(&mut writer, 8, 8, 7);
    let ring = attach(&shm, "cam");
    ring.next(&mut Vec::new(), None).unwrap();
    std::thread::scope(|scope| {
        let (says, hears) = std::sync::mpsc::channel();
        let ring = &ring;
        let waiting = scope.spawn(move || {
            says.send(rustix::thread::gettid()).unwrap();
            ring.next(&mut Vec::new(), LONG)
        });
        let waiter = hears.recv().unwrap();
        until("the waiter sleeps", || is_asleep(waiter));
        drop(writer);
        remove(&shm.dir(), &RingName::new("cam").unwrap()).unwrap();
        let mut writer = start(&shm, "cam");
        publish(&mut writer, 8, 8, 8);
        assert_eq!(waiting.join().unwrap().unwrap().meta.seq.0, 1);
    });
    assert_eq!(ring.stats().resets, 1);
}

#[test]
fn a_name_that_keeps_leading_to_a_replaced_file_says_to_mount_the_folder() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    // What a single file looks like that is mounted into a container: another name of the same inode.
    let container = shm.path().join("container");
    std::fs::create_dir(&container).unwrap();
    std::fs::hard_link(shm.path().join("camring.cam"), container.join("cam")).unwrap();
    let options = AttachOptions { shm: ShmDir::new(&container), ..shm.attach_options() };
    let ring = Ring::attach("cam", options).unwrap();
    let mut pixels = Vec::new();
    ring.next(&mut pixels, None).unwrap();
    let before = ring.next(&mut pixels, Some(Duration::from_millis(20))).unwrap_err();
    assert!(matches!(before, ReadError::Timeout { .. }), "{before}");
    publish(&mut writer, 640, 480, 2);
    let error = ring.next(&mut pixels, Some(Duration::from_millis(50))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ring \"cam\" has been replaced but the name still leads to the old one; in a container, mount the whole folder \
         instead of the single file"
    );
    assert_eq!(ring.after(Sequence(1), &mut pixels, Some(Duration::from_millis(20))).unwrap_err(), error);
    assert_eq!(ring.lease_next(Some(Duration::from_millis(20))).unwrap_err(), error);
    assert_eq!(ring.latest(&mut pixels).unwrap().meta.seq.0, 1, "the last frame stays");
    assert_eq!(attach(&shm, "cam").latest(&mut pixels).unwrap().meta.seq.0, 2);
}

#[test]
fn the_word_that_readers_sleep_on_wraps_without_a_lost_wake_up() {
    let shm = Shm::new();
    let mut many = Many::new(&shm, 2);
    for name in ["cam0", "cam1"] {
        let file = std::fs::OpenOptions::new().write(true).open(shm.path().join(format!("camring.{name}"))).unwrap();
        file.write_all_at(&(u32::MAX - 2).to_le_bytes(), at::NOTIFY).unwrap();
    }
    for _ in 0..8 {
        expect_wake(&mut many, &[1]);
        let Many { writers, rings } = &mut many;
        std::thread::scope(|scope| {
            let (says, hears) = std::sync::mpsc::channel();
            let ring = &rings[0];
            let waiting = scope.spawn(move || {
                says.send(rustix::thread::gettid()).unwrap();
                ring.next(&mut Vec::new(), LONG).unwrap().meta.seq
            });
            let waiter = hears.recv().unwrap();
            until("the waiter sleeps", || is_asleep(waiter));
            let seq = publish(&mut writers[0], 8, 8, 3);
            assert_eq!(waiting.join().unwrap().0, seq);
        });
    }
    assert!(missed(&many.rings) < 3, "{} wake-ups did not come", missed(&many.rings));
    let file = std::fs::File::open(shm.path().join("camring.cam0")).unwrap();
    let mut word = [0; 4];
    file.read_exact_at(&mut word, at::NOTIFY).unwrap();
    assert_eq!(u32::from_le_bytes(word), 5, "eight more than 2^32 - 3");
}

#[test]
fn signals_interrupt_neither_waits_nor_locks() {
    let shm = Shm::new();
    let writers: Vec<WriterProcess> =
        ["a", "b"].iter().map(|name| WriterProcess::spawn(&shm, name, &["--fps", "500", "--slots", "8"])).collect();
    let options = shm.attach_options();
    let rounds = amount(300, 20_000);
    let mut reader = Child::fork(move |line| {
        let signals = signal_every(Duration::from_micros(50));
        let rings = ["a", "b"].map(|name| Ring::attach(name, options.clone()).unwrap());
        let mut pixels = Vec::new();
        for round in 0..rounds {
            if round % 100 == 0 {
                line.say("on it");
            }
            for ring in &rings {
                let frame = ring.next(&mut pixels, LONG).unwrap();
                assert_untorn(frame.meta.seq.0, &pixels);
                let lease = ring.lease_next(LONG).unwrap();
                lease.copy_to(&mut pixels).unwrap();
                assert_untorn(lease.frame().meta.seq.0, &pixels);
                lease.release().unwrap();
            }
            let ready = wait_any(&rings.each_ref(), LONG);
            assert!(!ready.is_empty());
        }
        let began = Instant::now();
        let quiet = Ring::attach("quiet", AttachOptions { timeout: Some(Duration::from_millis(200)), ..options });
        assert!(quiet.is_err() && began.elapsed() >= Duration::from_millis(200), "it gave up early");
        let stats = rings[0].stats();
        line.say(&format!("{} signals, {} missed wakes", signals.load(Ordering::Relaxed), stats.missed_wakes));
    });
    for _ in 0..rounds.div_ceil(100) {
        assert_eq!(reader.hear(), "on it");
    }
    let said = reader.hear();
    let signals: u64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(signals > 1_000, "{said}");
    common::measured(format!("{said} in {rounds} rounds"));
    reader.end();
    drop(writers);
}

#[test]
fn a_timeout_lasts_as_long_as_it_says_through_signals() {
    let shm = Shm::new();
    let mut options = shm.options("cam");
    options.lease_policy = LeasePolicy::Protect;
    let (mut writer, _) = Writer::start(options).unwrap();
    publish_pattern(&mut writer, 64, 48);
    let options = shm.attach_options();
    let reader = Child::fork(move |_| {
        signal_every(Duration::from_micros(200));
        let ring = Ring::attach("cam", options).unwrap();
        ring.next(&mut Vec::new(), LONG).unwrap();
        let timeout = Duration::from_millis(400);
        let began = Instant::now();
        assert!(matches!(ring.next(&mut Vec::new(), Some(timeout)), Err(ReadError::Timeout { .. })));
        assert!(began.elapsed() >= timeout, "next gave up after {:?}", began.elapsed());
        let began = Instant::now();
        assert!(wait_any(&[&ring, &ring], Some(timeout)).is_empty());
        assert!(began.elapsed() >= timeout, "wait_any gave up after {:?}", began.elapsed());
    });
    reader.end();
}
