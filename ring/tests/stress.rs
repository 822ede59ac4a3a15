//! Writers and readers that are killed at random moments, all the time: nothing torn, nothing back, nothing left.

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use camring_ring::{Counter, Ring};
use common::actors::{Actor, PATIENCE, Random, is_full, let_pass, locks_on, until_within};
use common::{Shm, amount, measured};

/// Everything that a ring consists of.
const FILES: [&str; 3] = ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"];
/// Counts of readers; summed over those that were killed.
const COUNTS: [&str; 7] = ["copies", "constant", "revoked", "changed", "overruns", "retries", "refused_old"];

/// What a ring must have been through.
#[derive(Clone, Copy)]
struct Goal {
    writer_kills: u64,
    reader_kills: u64,
    copies: u64,
    leases: u64,
}

/// A reader that is killed and started again.
struct Seat {
    mode: &'static str,
    options: Vec<String>,
    actor: Actor,
    due: Instant,
}

/// One ring with a writer and readers, each killed again and again.
struct Stage<'a> {
    shm: &'a Shm,
    ring: &'static str,
    writer: Vec<&'a str>,
    seats: Vec<Seat>,
    totals: HashMap<&'static str, u64>,
    writer_kills: u64,
    reader_kills: u64,
    floor: u64,
    random: Random,
}

impl<'a> Stage<'a> {
    fn new(shm: &'a Shm, ring: &'static str, writer: Vec<&'a str>, modes: &[(&'static str, u64)]) -> Self {
        let mut stage = Self {
            shm,
            ring,
            writer,
            seats: Vec::new(),
            totals: HashMap::new(),
            writer_kills: 0,
            reader_kills: 0,
            floor: 0,
            random: Random::new(),
        };
        for (mode, busy_ms) in modes {
            let mut options = vec!["--busy-ms".to_owned(), busy_ms.to_string()];
            if *mode == "copy" {
                options.push("--ask-old".to_owned());
            }
            let actor = stage.read(mode, &options);
            let due = stage.next_reader_kill();
            stage.seats.push(Seat { mode, options, actor, due });
        }
        stage
    }

    /// A new reader, which must not see a frame older than one that anybody has seen.
    fn read(&self, mode: &str, options: &[String]) -> Actor {
        let floor = self.floor.to_string();
        let mut words = vec!["--floor", &floor];
        words.extend(options.iter().map(String::as_str));
        Actor::reader(self.shm, mode, self.ring, &words)
    }

    fn next_reader_kill(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.random.within(30..400))
    }

    /// A writer's life: killed 5 to 45 ms after it has the ring, one in four while it starts.
    fn writer_lives_and_dies(&mut self) {
        let mut writer = Actor::writer(self.shm, self.ring, &self.writer);
        if self.random.within(0..4) > 0 {
            assert_eq!(writer.answer(), "ready");
        }
        let_pass(Duration::from_micros(self.random.within(5_000..45_000)));
        assert_eq!(writer.ended(), None, "the writer has ended by itself");
        writer.kill();
        self.writer_kills += 1;
    }

    /// Kills the readers whose time has come, takes their counts over and starts others in their place.
    fn replace_readers(&mut self) {
        for index in 0..self.seats.len() {
            if let Some(status) = self.seats[index].actor.ended() {
                panic!("a reader ended with {status}: {:?}", self.seats[index].actor.stop());
            }
            if Instant::now() < self.seats[index].due {
                continue;
            }
            self.seats[index].actor.kill();
            self.take_over(index);
            self.reader_kills += 1;
            let (mode, options) = (self.seats[index].mode, self.seats[index].options.clone());
            let (actor, due) = (self.read(mode, &options), self.next_reader_kill());
            (self.seats[index].actor, self.seats[index].due) = (actor, due);
        }
    }

    fn take_over(&mut self, index: usize) {
        let actor = &self.seats[index].actor;
        for count in COUNTS {
            *self.totals.entry(count).or_default() += actor.count(count);
        }
        self.floor = self.floor.max(actor.count("last"));
    }

    fn total(&self, count: &str) -> u64 {
        let now: u64 = self.seats.iter().map(|seat| seat.actor.count(count)).sum();
        now + self.totals.get(count).copied().unwrap_or(0)
    }

    fn leases(&self) -> u64 {
        self.total("constant") + self.total("revoked")
    }

    fn has_reached(&self, goal: &Goal) -> bool {
        self.writer_kills >= goal.writer_kills
            && self.reader_kills >= goal.reader_kills
            && self.total("copies") >= goal.copies
            && self.leases() >= goal.leases
    }

    /// Ends the readers in order; from here on the counts are final.
    fn dismiss_readers(&mut self) {
        for index in 0..self.seats.len() {
            self.seats[index].actor.stop();
            self.take_over(index);
        }
        self.seats.clear();
    }
}

/// One life after the other until `goal` is reached, then everything that must hold at the end.
fn act(policy: &str, slots: u32, modes: &[(&'static str, u64)], goal: Goal) {
    let (shm, began, slots) = (Shm::new(), Instant::now(), slots.to_string());
    let sizes = ["--size", "64x48,80x60,32x24,192x144", "--per-size", "97"];
    let writer = [&["--crc", "--policy", policy, "--slots", &slots], &sizes[..]].concat();
    let mut stage = Stage::new(&shm, "cam", writer.clone(), modes);
    let limit = if is_full() { Duration::from_secs(500) } else { 3 * PATIENCE };
    while !stage.has_reached(&goal) {
        stage.writer_lives_and_dies();
        stage.replace_readers();
        assert!(began.elapsed() < limit, "not there within {limit:?}: {}", summary(&stage));
    }
    // The last writer lives on, so that readers come to rest on frames of a ring that has been through all this.
    let mut last = Actor::ready_writer(&shm, "cam", &writer);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let newest = ring.status().seq.0.max(stage.floor);
    until_within(PATIENCE, "the last writer publishes", || ring.peek().is_ok_and(|meta| meta.seq.0 > newest + 100));
    stage.dismiss_readers();
    let repaired = ring.status().counter(Counter::TornRepaired);
    drop(ring);
    last.stop();
    assert_eq!(locks_on(&shm.path().join("camring.d/cam")), 0, "locks outlived their holders");
    assert_eq!(shm.files(), FILES);
    if policy == "protect" {
        assert_eq!(stage.total("revoked"), 0, "a lease was revoked under policy protect");
    }
    measured(format!(
        "{policy}, {slots} slots, {} s: {}; {repaired} slots repaired",
        began.elapsed().as_secs(),
        summary(&stage)
    ));
}

fn summary(stage: &Stage<'_>) -> String {
    format!(
        "{} writer kills, {} reader kills, {} verified copies ({} overtaken and repeated, {} overruns reported, {} old frames \
         refused), {} leases ({} constant, {} revoked and reported, {} of them seen to change), 0 torn, 0 back",
        stage.writer_kills,
        stage.reader_kills,
        stage.total("copies"),
        stage.total("retries"),
        stage.total("overruns"),
        stage.total("refused_old"),
        stage.leases(),
        stage.total("constant"),
        stage.total("revoked"),
        stage.total("changed"),
    )
}

/// Copy readers, one of them slow, and lease readers, two of them slow.
const READERS: [(&str, u64); 6] = [("copy", 0), ("copy", 0), ("copy", 3), ("lease", 0), ("lease", 4), ("lease", 9)];

fn goal() -> Goal {
    Goal {
        writer_kills: amount(12, 450),
        reader_kills: amount(12, 450),
        copies: amount(1_000, 450_000),
        leases: amount(100, 22_500),
    }
}

#[test]
fn killed_writers_and_readers_leave_nothing_torn_in_four_slots() {
    act("fresh", 4, &READERS, goal());
}

#[test]
fn killed_writers_and_readers_leave_nothing_torn_in_three_slots() {
    act("fresh", 3, &READERS, goal());
}

#[test]
fn killed_writers_and_readers_leave_every_lease_constant_under_policy_protect() {
    act("protect", 8, &READERS, goal());
}

/// A process that is killed when its time has come, and started again.
struct Mortal {
    actor: Actor,
    due: Option<Instant>,
    start: Box<dyn Fn() -> Actor>,
    /// Longest life, ms.
    life_ms: u64,
}

impl Mortal {
    fn new(life_ms: Option<u64>, start: Box<dyn Fn() -> Actor>, random: &mut Random) -> Self {
        let due = life_ms.map(|ms| Instant::now() + Duration::from_millis(random.within(50..ms)));
        Self { actor: start(), due, start, life_ms: life_ms.unwrap_or(0) }
    }

    /// Kills it if it is due; returns what it had read by then.
    fn live_on(&mut self, random: &mut Random) -> Option<u64> {
        assert!(self.actor.ended().is_none(), "it ended by itself: {:?}", self.actor.stop());
        if self.due.is_none_or(|due| Instant::now() < due) {
            return None;
        }
        self.actor.kill();
        let read = self.frames();
        self.actor = (self.start)();
        self.due = Some(Instant::now() + Duration::from_millis(random.within(50..self.life_ms)));
        Some(read)
    }

    fn frames(&self) -> u64 {
        ["copies", "constant", "revoked"].iter().map(|count| self.actor.count(count)).sum()
    }
}

/// What must not grow: descriptors and memory of those that live through, bytes and locks of the rings.
#[derive(Debug)]
struct Held {
    fds: Vec<usize>,
    rss_kib: Vec<u64>,
    bytes: u64,
}

impl Held {
    fn of(shm: &Shm, lasting: &[&Mortal]) -> Self {
        let expected = ring_files();
        until_within(PATIENCE, "there is nothing but the rings", || shm.files() == expected);
        let rings = expected.iter().filter(|file| !file.contains(".lock"));
        let size = |file: &String| std::fs::metadata(shm.path().join(file)).unwrap().len();
        Self {
            fds: lasting.iter().map(|mortal| mortal.actor.fds()).collect(),
            rss_kib: lasting.iter().map(|mortal| mortal.actor.rss_anon_kib()).collect(),
            bytes: rings.map(size).sum(),
        }
    }
}

const RINGS: usize = 8;

/// Lock, anchor and public name of each ring, sorted.
fn ring_files() -> Vec<String> {
    let names = ["camring.d/.lock-ring", "camring.d/ring", "camring.ring"];
    names.iter().flat_map(|name| (0..RINGS).map(move |ring| format!("{name}{ring}"))).collect()
}

/// Eight writers, of which the first lives through, and thirty readers, of which ten do.
fn cast(shm: &std::sync::Arc<Shm>, random: &mut Random) -> (Vec<Mortal>, Vec<Mortal>) {
    let sizes = ["320x240", "64x48", "192x144", "641x359"];
    let writers = (0..RINGS).map(|n| {
        let (shm, size, policy) = (shm.clone(), sizes[n % 4], if n % 4 == 3 { "protect" } else { "fresh" });
        let start = move || {
            Actor::writer(&shm, &format!("ring{n}"), &["--fps", "60", "--crc", "--size", size, "--policy", policy])
        };
        Mortal::new((n > 0).then_some(2_000), Box::new(start), random)
    });
    let writers = writers.collect();
    let readers = (0..30).map(|n| {
        let (shm, mode) = (shm.clone(), if n % 3 == 0 { "lease" } else { "copy" });
        let start =
            move || Actor::reader(&shm, mode, &format!("ring{}", n % RINGS), &["--busy-ms", ["0", "30"][n % 2]]);
        Mortal::new((n >= 10).then_some(1_000), Box::new(start), random)
    });
    (writers, readers.collect())
}

#[test]
fn eight_rings_and_thirty_readers_that_come_and_go_leave_memory_and_descriptors_flat() {
    let (shm, mut random) = (std::sync::Arc::new(Shm::new()), Random::new());
    let (mut writers, mut readers) = cast(&shm, &mut random);
    let (mut writer_kills, mut reader_kills, mut frames) = (0, 0, 0);
    let mut pass = |writers: &mut Vec<Mortal>, readers: &mut Vec<Mortal>, time: Duration| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            writer_kills += writers.iter_mut().filter_map(|writer| writer.live_on(&mut random)).count();
            for read in readers.iter_mut().filter_map(|reader| reader.live_on(&mut random)) {
                reader_kills += 1;
                frames += read;
            }
            let_pass(Duration::from_millis(5));
        }
    };
    pass(&mut writers, &mut readers, Duration::from_secs(amount(2, 120)));
    let lives_on = |mortal: &&Mortal| mortal.due.is_none();
    for mortal in readers.iter().filter(lives_on) {
        until_within(PATIENCE, "every ring is read", || mortal.frames() > 20);
    }
    let before = Held::of(&shm, &writers.iter().chain(&readers).filter(lives_on).collect::<Vec<_>>());
    pass(&mut writers, &mut readers, Duration::from_secs(amount(3, 1_800)));
    let after = Held::of(&shm, &writers.iter().chain(&readers).filter(lives_on).collect::<Vec<_>>());
    assert_eq!(after.fds, before.fds, "descriptors grew");
    for (before, after) in before.rss_kib.iter().zip(&after.rss_kib) {
        assert!(*after <= before + 1024, "memory grew from {before} to {after} KiB");
    }
    assert_eq!(after.bytes, before.bytes, "the rings grew");
    frames += readers.iter().map(Mortal::frames).sum::<u64>();
    readers.iter_mut().for_each(|reader| drop(reader.actor.stop()));
    writers.clear();
    for ring in 0..RINGS {
        assert_eq!(locks_on(&shm.path().join(format!("camring.d/ring{ring}"))), 0, "locks outlived their holders");
    }
    let range = |values: &[u64]| format!("{} to {}", values.iter().min().unwrap(), values.iter().max().unwrap());
    measured(format!(
        "8 rings, 30 readers, {} s: {writer_kills} writer kills, {reader_kills} reader kills, {frames} frames verified; of the \
         writer and the 10 readers that lived through: descriptors {:?} and the same, private memory {} and {} KiB; rings {} \
         bytes and the same",
        amount(3, 1_800),
        before.fds,
        range(&before.rss_kib),
        range(&after.rss_kib),
        after.bytes
    ));
}
