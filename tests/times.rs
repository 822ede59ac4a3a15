//! Time on its way from a camera to a reader: clocks that are wrong, and networks on which every packet takes its own time.
#![cfg(feature = "sim")]

mod system;

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::{Counter, FrameFlags, FrameMeta, ReadError, Ring, State, TimeSource, age_ns};
use system::damage::Judge;
use system::detour::{Bad, Detour};
use system::reader::{Reader, Seen, Way};
use system::{Daemon, PATIENCE, Shm, Sim, amount, is_full, measured, stamp_in, until, until_within};

const SECOND_NS: i64 = 1_000_000_000;
/// A camera's time that is further from ours is not trusted.
const PLAUSIBLE_NS: i64 = 5 * SECOND_NS;
/// From 1900, when the clock of a sender report begins, to 1970.
const NTP_TO_UNIX_S: i64 = 2_208_988_800;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// What the simulated camera has said of its faults so far.
fn events(log: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(log).unwrap();
    // The last line may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// When the first fault of a script began and ended, on the wall clock, and how many packets it changed.
fn course(log: &Path) -> Option<(i64, i64, u64)> {
    let events = events(log);
    let origin_ms = events.first()?["measured"]["unix_ms"].as_i64()?;
    let first = |what: &str| events.iter().find(|event| event["what"] == what && event["fault"] == 1);
    let at = |event: &serde_json::Value| Some((origin_ms + event["measured"]["at_ms"].as_i64()?) * 1_000_000);
    let (begin, end) = (first("begin")?, first("end")?);
    Some((at(begin)?, at(end)?, end["measured"]["changed"].as_u64()?))
}

/// `camring run` on this URL with these lines in the camera's table.
fn daemon(shm: &Shm, url: &str, lines: &str) -> (Daemon, tempfile::NamedTempFile) {
    let config = file(&format!("[camera.cam]\nurl = \"{url}\"\n{lines}\n"));
    (Daemon::spawn_config(shm, "cam", config.path()), config)
}

/// In its first session still.
fn is_live_as_ever(ring: &Ring) {
    until("the state is live", || ring.status().state == State::Live);
    assert_eq!(ring.status().counter(Counter::Reconnects), 0);
}

/// The number below which so many of a hundred are, in ms.
fn percentile_ms(mut all_ns: Vec<i64>, percent: usize) -> f64 {
    all_ns.sort_unstable();
    all_ns.get((all_ns.len() * percent / 100).min(all_ns.len().saturating_sub(1))).map_or(0.0, |ns| *ns as f64 / 1e6)
}

// --- the camera's clock ---

/// What a frame says of the camera's time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Said {
    Nothing,
    Right,
    /// Seconds from the time at which it was painted; marked.
    Untrusted(i64),
}

impl Said {
    /// The same, give or take a few seconds.
    fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Untrusted(one), Self::Untrusted(other)) => (one - other).abs() * SECOND_NS <= PLAUSIBLE_NS,
            _ => self == other,
        }
    }

    /// Fails when source, time and mark of a frame contradict each other.
    fn by(seen: &Seen) -> Self {
        let meta = &seen.frame.meta;
        let is_marked = meta.flags.contains(FrameFlags::UNTRUSTED_TIME);
        let Some(time_ns) = meta.source_unix_ns else {
            assert_eq!((meta.time_source, is_marked), (TimeSource::None, false), "{meta:?}");
            return Self::Nothing;
        };
        assert_eq!(meta.time_source, TimeSource::RtcpSr, "{meta:?}");
        assert_eq!(is_marked, (time_ns - meta.arrival_real_ns).abs() >= PLAUSIBLE_NS, "{meta:?}");
        // Not from its arrival, which may be late.
        let off_ns = time_ns - painted_unix_ns(seen);
        if is_marked { Self::Untrusted((off_ns as f64 / 1e9).round() as i64) } else { Self::Right }
    }
}

/// A camera whose sender reports are wrong for a while.
#[derive(Clone, Copy)]
struct Clock {
    name: &'static str,
    /// When that begins, after the first client's PLAY.
    from_s: u64,
    /// What is wrong with them, as scripts say it.
    word: &'static str,
    seconds: i64,
    /// Fails when its frames say anything else than they must.
    is_as_expected: fn(&Told, i64),
}

/// What came of it.
struct Told {
    seen: Vec<Seen>,
    /// When the fault began and ended, on the wall clock.
    wrong: (i64, i64),
}

impl Told {
    /// Watches until the reports are right again and pictures go on.
    fn by(clock: Clock) -> Self {
        let Clock { name, from_s, word, seconds, .. } = clock;
        let (for_s, log) = (amount(12, 120), tempfile::NamedTempFile::new().unwrap());
        let script = file(&format!(
            "[[fault]]\nat = \"{from_s}s\"\nfor = \"{for_s}s\"\ndo = \"sender-reports\"\nclock = \"{word}\"\n\
             seconds = {seconds}\n"
        ));
        let paths = [script.path(), log.path()].map(|path| path.to_str().unwrap());
        let small = ["--size", "640x360", "--fps", "10", "--gop", "200ms"];
        let sim = Sim::spawn(&[&small[..], &["--script", paths[0], "--events", paths[1]]].concat());
        let shm = Shm::new();
        let (_daemon, _config) = daemon(&shm, &sim.url, "");
        let reader = Reader::attach(&shm, "cam", Way::Next);
        reader.first("a frame", |_| true);
        let mut found = None;
        until_within(PATIENCE + Duration::from_secs(from_s + for_s), "the reports are right again", || {
            age_is_right(&reader);
            found = course(log.path());
            found.is_some()
        });
        let (begun_ns, ended_ns, changed) = found.unwrap();
        assert!(changed > 0, "{name}: no report came while they were wrong");
        let after = reader.newest().unwrap().frame.meta.seq;
        let is_right = |seen: &Seen| seen.frame.meta.seq > after && Said::by(seen) == Said::Right;
        let right = reader.first("a right report", is_right).frame.meta.seq;
        reader.first("the stream goes on", |seen| seen.frame.meta.seq.0 > right.0 + 10);
        age_is_right(&reader);
        is_live_as_ever(&reader.ring);
        let told = Self { seen: reader.finish(), wrong: (begun_ns, ended_ns) };
        told.nothing_else_is_touched();
        told.measure(name);
        told
    }

    /// Arrival, session and the order of all frames are as if the camera had told no time at all.
    fn nothing_else_is_touched(&self) {
        let first = self.seen[0].frame.meta;
        let host_ns = |meta: &FrameMeta| meta.arrival_real_ns - meta.arrival_mono_ns;
        let mut before = i64::MIN;
        for seen in &self.seen {
            let meta = &seen.frame.meta;
            let painted = painted_ns(seen);
            assert!((painted..painted + patience_ns()).contains(&meta.arrival_mono_ns), "{seen:?}");
            assert!((before..=meta.publish_mono_ns).contains(&meta.arrival_mono_ns), "{seen:?}");
            assert!((host_ns(meta) - host_ns(&first)).abs() < SECOND_NS, "{seen:?}");
            assert_eq!(meta.session_id, first.session_id);
            before = meta.arrival_mono_ns;
        }
    }

    /// What the frames that arrived in this time said, each change of it once.
    ///
    /// Once the time is known, a frame now and then has none, which says nothing wrong; most must have one.
    fn said_within(&self, arrived: Range<i64>) -> Vec<Said> {
        let (mut is_known, mut story, mut silent) = (false, Vec::new(), 0);
        for seen in &self.seen {
            let said = Said::by(seen);
            if is_known && said == Said::Nothing {
                silent += 1;
                continue;
            }
            is_known |= said != Said::Nothing;
            if arrived.contains(&seen.frame.meta.arrival_real_ns) {
                story.push(said);
            }
        }
        assert!(
            silent <= 3 + self.seen.len() / 100,
            "{silent} of {} frames lack a time that is known",
            self.seen.len()
        );
        // A camera that is busy is not exact about when it took the picture that its report names.
        story.dedup_by(|one, other| one.is_like(*other));
        story
    }

    fn story(&self) -> Vec<Said> {
        self.said_within(i64::MIN..i64::MAX)
    }

    /// What was said while the fault was in force, whose end is noted a moment late.
    fn meanwhile(&self) -> Vec<Said> {
        self.said_within(self.wrong.0..self.wrong.1 - SECOND_NS / 2)
    }

    fn measure(&self, name: &str) {
        let late_ns = self.seen.iter().map(|seen| seen.frame.meta.arrival_mono_ns - painted_ns(seen)).collect();
        let error_ns = |seen: &Seen| {
            let time_ns = seen.frame.meta.source_unix_ns.filter(|_| Said::by(seen) == Said::Right);
            time_ns.map(|time_ns| (time_ns - painted_unix_ns(seen)).abs())
        };
        let errors_ns: Vec<i64> = self.seen.iter().filter_map(error_ns).collect();
        let worst_ms = percentile_ms(errors_ns.clone(), 100);
        let first = self.seen.iter().position(|seen| Said::by(seen) != Said::Nothing).unwrap_or(0);
        let silent = self.seen[first..].iter().filter(|seen| Said::by(seen) == Said::Nothing).count();
        measured(format!(
            "reports, {name}: {} frames, painted to arrived {:.1} ms (median); of {} with a trusted time it is off \
             by {:.1} ms (median), {worst_ms:.1} ms at most; {silent} have none after the first; told {:?}",
            self.seen.len(),
            percentile_ms(late_ns, 50),
            errors_ns.len(),
            percentile_ms(errors_ns, 50),
            self.story(),
        ));
    }
}

fn patience_ns() -> i64 {
    i64::try_from(PATIENCE.as_nanos()).unwrap()
}

fn painted_ns(seen: &Seen) -> i64 {
    seen.stamp.mono_us.cast_signed() * 1000
}

/// The same on the wall clock.
fn painted_unix_ns(seen: &Seen) -> i64 {
    let meta = &seen.frame.meta;
    painted_ns(seen) + meta.arrival_real_ns - meta.arrival_mono_ns
}

/// The age of the newest frame is the time since it arrived: never below zero, never above the time since it was painted.
fn age_is_right(reader: &Reader) {
    let Some(seen) = reader.newest() else { return };
    let age_ns = age_ns(&seen.frame.meta);
    let since_painted_ns = mono_ns() - painted_ns(&seen);
    assert!((0..=since_painted_ns).contains(&age_ns), "an age of {age_ns} ns, painted {since_painted_ns} ns ago");
    assert!(since_painted_ns - age_ns < patience_ns(), "an age of {age_ns} ns, painted {since_painted_ns} ns ago");
}

fn unix_s() -> i64 {
    real_ns() / SECOND_NS
}

/// Seconds by which a camera's clock is a year ahead, begins in 1970, and begins in 1900.
fn wrong_clocks() -> [i64; 3] {
    [31_536_000, -unix_s(), -unix_s() - NTP_TO_UNIX_S]
}

#[test]
fn whatever_a_cameras_clock_says_frames_keep_their_arrival_and_age_and_the_stream_goes_on() {
    let [year, since_1970, since_1900] = wrong_clocks();
    let cameras = [
        Clock { name: "missing", from_s: 0, word: "none", seconds: 1, is_as_expected: is_never_told },
        Clock { name: "a year ahead", from_s: 0, word: "shifted", seconds: year, is_as_expected: is_untrusted },
        Clock { name: "1970", from_s: 0, word: "shifted", seconds: since_1970, is_as_expected: is_untrusted },
        // A clock that counts from the start of the camera, as RFC 3550 lets those do that know no time.
        Clock { name: "1900", from_s: 0, word: "shifted", seconds: since_1900, is_as_expected: is_never_told },
        Clock { name: "jumps", from_s: 0, word: "jumping", seconds: 100_000, is_as_expected: jumps },
        Clock { name: "stops", from_s: 6, word: "none", seconds: 1, is_as_expected: goes_on },
    ];
    std::thread::scope(|scope| {
        for clock in cameras {
            let watch = move || (clock.is_as_expected)(&Told::by(clock), clock.seconds);
            std::thread::Builder::new().name(clock.name.to_owned()).spawn_scoped(scope, watch).unwrap();
        }
    });
}

/// No time at all while the reports are wrong.
fn is_never_told(told: &Told, _: i64) {
    assert_eq!(told.meanwhile(), [Said::Nothing]);
    assert_eq!(told.story(), [Said::Nothing, Said::Right]);
}

/// Each report is believed to be what the camera says, and none is trusted.
fn jumps(told: &Told, _: i64) {
    let (story, meanwhile) = (told.story(), told.meanwhile());
    assert!(meanwhile.iter().filter(|said| matches!(said, Said::Untrusted(_))).count() >= 2, "{story:?}");
    assert_eq!((story.first(), story.last()), (Some(&Said::Nothing), Some(&Said::Right)), "{story:?}");
}

/// The last report is what the camera's time is reckoned from, on its own media clock.
fn goes_on(told: &Told, _: i64) {
    assert_eq!(told.meanwhile(), [Said::Right]);
    assert_eq!(told.story(), [Said::Nothing, Said::Right]);
}

/// The time is not known before the first report, off by as much as the camera's clock, and right in the end.
fn is_untrusted(told: &Told, seconds: i64) {
    let story = told.story();
    assert!(
        matches!(story[..], [Said::Nothing, Said::Untrusted(off), Said::Right] if Said::Untrusted(off).is_like(Said::Untrusted(seconds))),
        "{story:?}"
    );
}

// --- networks ---

/// Each packet is late by up to so much.
const JITTER: Duration = Duration::from_millis(50);
/// Of all pictures, 95 in a hundred are with their reader within this, from the moment when they were painted.
const MOSTLY_WITHIN_MS: f64 = 250.0;
const CAMERA: [&str; 8] = ["--size", "640x360", "--fps", "25", "--gop", "1s", "--bitrate", "2M"];

/// A picture as a reader got it.
struct Judged {
    meta: FrameMeta,
    number: u32,
    /// From paint to reader.
    delay_ns: i64,
    /// The greatest distance of a block from what was painted, in levels.
    worst: f32,
}

/// Reads for so long, and holds every picture against what was painted.
fn judge(ring: &Ring, time: Duration) -> Vec<Judged> {
    let (judge, began, mut pixels, mut all) = (Judge::new(640, 360), Instant::now(), Vec::new(), Vec::new());
    while began.elapsed() < time {
        let frame = match ring.next(&mut pixels, Some(PATIENCE)) {
            Err(ReadError::Overrun { .. }) => continue,
            frame => frame.unwrap(),
        };
        let now_ns = mono_ns();
        let stamp = stamp_in(&frame, &pixels).unwrap();
        all.push(Judged {
            meta: frame.meta,
            number: stamp.number,
            delay_ns: now_ns - stamp.mono_us.cast_signed() * 1000,
            worst: judge.worst(&frame, &pixels, &stamp),
        });
    }
    all
}

/// Compares what came over a bad network with what came over a good one.
fn compare(way: &str, ring: &Ring, clean: &[Judged], bad: &[Judged]) {
    let worst = |all: &[Judged]| all.iter().map(|one| one.worst).fold(0.0, f32::max);
    let delays = |all: &[Judged]| all.iter().map(|one| one.delay_ns).collect::<Vec<_>>();
    let (status, limit) = (ring.status(), worst(clean) * 1.5 + 2.0);
    let painted = bad.last().unwrap().number - bad[0].number + 1;
    let p95_ms = percentile_ms(delays(bad), 95);
    measured(format!(
        "{way}: {} of {painted} pictures came, worst block {:.1} levels off, {:.1} without a fault; from paint to reader {:.1} ms \
         (median), {p95_ms:.1} (95 of 100), {:.1} at worst, {:.1} and {:.1} without a fault; {} packets lost, {} pictures held \
         back",
        bad.len(),
        worst(bad),
        worst(clean),
        percentile_ms(delays(bad), 50),
        percentile_ms(delays(bad), 100),
        percentile_ms(delays(clean), 50),
        percentile_ms(delays(clean), 95),
        status.counter(Counter::PacketsLost),
        status.counter(Counter::DroppedGate),
    ));
    assert!(clean.len() >= 20, "only {} pictures to compare with", clean.len());
    for one in bad {
        let marked = [FrameFlags::CORRUPT, FrameFlags::TAINTED].iter().any(|mark| one.meta.flags.contains(*mark));
        assert!(!marked && one.worst <= limit, "{} levels off, {limit} allowed: {:?}", one.worst, one.meta);
    }
    assert!(bad.len() as u32 >= painted / 2, "{} of {painted} pictures came", bad.len());
    is_live_as_ever(ring);
    assert!(!is_full() || p95_ms <= MOSTLY_WITHIN_MS, "95 of 100 pictures within {p95_ms} ms");
}

#[test]
fn packets_late_by_up_to_50_ms_doubled_and_in_the_wrong_order_break_no_picture() {
    let (time, log) = (amount(5, 180), tempfile::NamedTempFile::new().unwrap());
    let fault = |words: &str| format!("[[fault]]\nat = \"5s\"\nfor = \"{time}s\"\n{words}\n");
    let script = file(
        &[
            fault(&format!("do = \"delay\"\ndelay = \"0s\"\njitter = \"{}ms\"", JITTER.as_millis())),
            fault("do = \"duplicate\"\npercent = 5"),
            fault("do = \"reorder\"\npercent = 5\nby = 3"),
        ]
        .concat(),
    );
    let paths = [script.path(), log.path()].map(|path| path.to_str().unwrap());
    let sim = Sim::spawn(&[&CAMERA[..], &["--script", paths[0], "--events", paths[1]]].concat());
    let shm = Shm::new();
    let (_daemon, _config) = daemon(&shm, &sim.url, "transport = \"tcp\"");
    let (reader, ring) = (Reader::attach(&shm, "cam", Way::Next), shm.attach("cam"));
    reader.first("a frame", |_| true);
    let mut all = judge(&ring, Duration::from_secs(5 + time));
    until("the faults end", || course(log.path()).is_some());
    let (begun_ns, ended_ns, changed) = course(log.path()).unwrap();
    assert!(changed > 0, "no packet was late");
    all.retain(|one| one.meta.arrival_real_ns < ended_ns);
    let (clean, bad): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.meta.arrival_real_ns < begun_ns);
    compare("TCP", &ring, &clean, &bad);
    reader.finish();
}

#[test]
fn datagrams_late_by_up_to_50_ms_doubled_and_in_the_wrong_order_break_no_picture() {
    let sim = Sim::spawn(&CAMERA);
    let detour = Detour::to(&sim.url, sim.port(), Bad { jitter: JITTER, doubled_percent: 5 });
    let shm = Shm::new();
    let (_daemon, _config) = daemon(&shm, &detour.url, "transport = \"udp\"");
    let (reader, ring) = (Reader::attach(&shm, "cam", Way::Next), shm.attach("cam"));
    reader.first("a frame", |_| true);
    let clean = judge(&ring, Duration::from_secs(4));
    detour.set_bad(true);
    let bad = judge(&ring, Duration::from_secs(amount(5, 180)));
    let done = detour.done();
    measured(format!("{done:?}"));
    assert!(done.passed > 0 && done.doubled > 0 && done.overtaken > 0, "{done:?}");
    compare("UDP", &ring, &clean, &bad);
    reader.finish();
}
