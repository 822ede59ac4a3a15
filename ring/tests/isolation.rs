//! No reader costs the writer or another reader anything: stopped, killed, slow, many, or attaching all the time.

mod common;

use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use camring_ring::{AttachError, AttachOptions, Counter, Liveness, ReadError, Ring, RingName, Writer, age_ns, remove};
use common::actors::{Actor, PATIENCE, example, let_pass, numbers, reader_locks_on, until_within};
use common::{Shm, amount, measured, publish};
use rustix::process::Signal;

fn published(ring: &Ring) -> u64 {
    ring.status().counter(Counter::Published)
}

/// Waits until the writer has published so many frames more; returns how long that took.
fn frames_pass(ring: &Ring, frames: u64) -> Duration {
    let (began, goal) = (Instant::now(), published(ring) + frames);
    until_within(4 * PATIENCE, "the frames are published", || published(ring) >= goal);
    began.elapsed()
}

/// What each reader has read since it was asked last; every frame is accounted for.
fn reports(readers: &mut [Actor]) -> Vec<HashMap<String, u64>> {
    readers.iter_mut().for_each(|reader| reader.order("report"));
    let answers = readers.iter().map(|reader| numbers(&reader.answer()));
    answers
        .inspect(|report| {
            assert!(report["frames"] > 0, "a reader got no frame: {report:?}");
            assert_eq!(report["frames"] + report["skipped"], report["last"] - report["after"], "{report:?}");
        })
        .collect()
}

fn dropped(ring: &Ring) -> u64 {
    let status = ring.status();
    [Counter::DroppedNoSlot, Counter::DroppedOverload].iter().map(|counter| status.counter(*counter)).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How far apart the phases with and without a fault are, and how far apart those of one kind.
fn ratio_and_spread(calm: [f64; 2], fault: [f64; 2]) -> String {
    let mean = |pair: [f64; 2]| f64::midpoint(pair[0], pair[1]);
    let spread = |pair: [f64; 2]| (pair[0] - pair[1]).abs() / mean(pair) * 100.0;
    format!("ratio {:.4}, spread {:.2} % and {:.2} %", mean(fault) / mean(calm), spread(calm), spread(fault))
}

/// One phase of the test below: what writer and readers have done meanwhile.
struct Phase {
    fps: f64,
    p50_us: f64,
    rss_kib: u64,
}

fn phase(ring: &Ring, writer: &Actor, readers: &mut [Actor], frames: u64) -> Phase {
    reports(readers);
    let before = dropped(ring);
    let took = frames_pass(ring, frames);
    let p50 = reports(readers).iter().map(|report| report["p50_us"] as f64).collect();
    assert_eq!(dropped(ring), before, "the writer dropped frames");
    Phase { fps: frames as f64 / took.as_secs_f64(), p50_us: median(p50), rss_kib: writer.rss_anon_kib() }
}

#[test]
fn a_stopped_lease_holder_costs_nobody_a_frame() {
    let shm = Shm::new();
    let writer = Actor::ready_writer(&shm, "cam", &["--fps", "100", "--size", "320x240"]);
    let mut readers: Vec<Actor> = (0..7).map(|_| Actor::reader(&shm, "copy", "cam", &[])).collect();
    let mut holder = Actor::reader(&shm, "hold", "cam", &[]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    holder.order("lease");
    let held = holder.answer();
    frames_pass(&ring, 50);
    let frames = amount(60, 12_000);
    let mut phases = Vec::new();
    for _ in 0..2 {
        phases.push(phase(&ring, &writer, &mut readers, frames));
        holder.signal(Signal::STOP);
        phases.push(phase(&ring, &writer, &mut readers, frames));
        holder.order("check");
        holder.signal(Signal::CONT);
        assert_eq!(holder.answer(), "valid", "the lease of {held} was alone in a ring of eight slots");
    }
    let [a, b, c, d] = phases.try_into().unwrap_or_else(|_| panic!("four phases"));
    assert!(d.rss_kib <= a.rss_kib + 1024, "the writer grew from {} to {} KiB", a.rss_kib, d.rss_kib);
    measured(format!(
        "lease holder running, stopped, running, stopped for {frames} frames each: fps {:.2} {:.2} {:.2} {:.2} ({}); median \
         latency of 7 readers {} {} {} {} us ({}); writer's memory {} and {} KiB",
        a.fps,
        b.fps,
        c.fps,
        d.fps,
        ratio_and_spread([a.fps, c.fps], [b.fps, d.fps]),
        a.p50_us,
        b.p50_us,
        c.p50_us,
        d.p50_us,
        ratio_and_spread([a.p50_us, c.p50_us], [b.p50_us, d.p50_us]),
        a.rss_kib,
        d.rss_kib
    ));
    holder.order("release");
    assert_eq!(holder.answer(), "valid");
}

#[test]
fn a_holder_that_was_stopped_too_long_is_told_that_its_lease_was_revoked() {
    let shm = Shm::new();
    let _writer = Actor::ready_writer(&shm, "cam", &["--fps", "200", "--slots", "3"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    // Two of three slots: whatever the writer takes next is leased or the newest frame.
    let mut holders: Vec<Actor> = Vec::new();
    for _ in 0..2 {
        let mut holder = Actor::reader(&shm, "hold", "cam", &[]);
        holder.order("lease");
        assert!(holder.answer().starts_with("held "));
        holder.signal(Signal::STOP);
        holders.push(holder);
        // The next one is to get another frame.
        frames_pass(&ring, 2);
    }
    until_within(PATIENCE, "the writer takes a leased slot", || ring.status().counter(Counter::LeasesRevoked) > 1);
    let before = dropped(&ring);
    frames_pass(&ring, 20);
    assert_eq!(dropped(&ring), before, "under policy fresh no frame waits for a lease");
    let mut told = Vec::new();
    for holder in &mut holders {
        holder.order("check");
        holder.order("release");
        holder.signal(Signal::CONT);
        told.push([holder.answer(), holder.answer()]);
    }
    assert!(told.iter().all(|[check, release]| check == release), "{told:?}");
    assert!(told.iter().any(|[check, _]| check == "revoked"), "{told:?}");
}

#[test]
fn the_slot_of_a_killed_lease_holder_is_claimed_again() {
    let shm = Shm::new();
    let options = ["--fps", "500", "--slots", "4", "--policy", "protect"];
    let _writer = Actor::ready_writer(&shm, "cam", &options);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut took_ms = Vec::new();
    for _ in 0..amount(5, 200) {
        let mut holder = Actor::reader(&shm, "hold", "cam", &[]);
        holder.order("lease");
        let held: u64 = holder.answer().strip_prefix("held ").unwrap().parse().unwrap();
        frames_pass(&ring, 20);
        let holds = || ring.held().iter().any(|meta| meta.seq.0 == held);
        assert!(holds(), "frame {held} is leased, and was overwritten");
        let killed = Instant::now();
        holder.kill();
        until_within(PATIENCE, "the slot is claimed again", || !holds());
        took_ms.push(killed.elapsed().as_secs_f64() * 1000.0);
    }
    let worst = took_ms.iter().copied().fold(0.0, f64::max);
    assert_eq!(dropped(&ring), 0);
    measured(format!(
        "{} lease holders killed with -9, at 500 frames a second: slot claimed again after {:.1} ms (median), {worst:.1} ms at worst",
        took_ms.len(),
        median(took_ms.clone())
    ));
}

#[test]
fn of_thirty_two_readers_sixteen_slow_ones_cost_the_others_no_frame() {
    let shm = Shm::new();
    let mut writer = Actor::ready_writer(&shm, "cam", &["--fps", "50"]);
    let reader = |busy: &str| Actor::reader(&shm, "copy", "cam", &["--busy-ms", busy]);
    let mut fast: Vec<Actor> = (0..16).map(|_| reader("0")).collect();
    let mut slow: Vec<Actor> = (0..16).map(|_| reader("500")).collect();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    for reader in fast.iter().chain(&slow) {
        until_within(PATIENCE, "each reader has read", || reader.count("copies") > 0);
    }
    let frames = amount(100, 6_000);
    frames_pass(&ring, frames);
    let (fast_reports, slow_reports) = (reports(&mut fast), reports(&mut slow));
    let sum = |reports: &[HashMap<String, u64>], count: &str| reports.iter().map(|report| report[count]).sum::<u64>();
    assert!(sum(&slow_reports, "skipped") > 0, "the slow ones were meant to skip");
    assert_eq!(dropped(&ring), 0);
    let p50 = |reports: &[HashMap<String, u64>]| median(reports.iter().map(|report| report["p50_us"] as f64).collect());
    measured(format!(
        "32 readers at 50 frames a second for {frames} frames: 16 fast ones read {} and skipped {} (counted exactly), median \
         latency {} us; 16 of 0 to 500 ms per frame read {} and skipped {}, their frames {} us old (median)",
        sum(&fast_reports, "frames"),
        sum(&fast_reports, "skipped"),
        p50(&fast_reports),
        sum(&slow_reports, "frames"),
        sum(&slow_reports, "skipped"),
        p50(&slow_reports),
    ));
    fast.iter_mut().chain(&mut slow).for_each(|reader| drop(reader.stop()));
    writer.stop();
}

#[test]
fn ten_million_frames_of_the_smallest_ring_are_never_mixed() {
    let (shm, began) = (Shm::new(), Instant::now());
    let mut writer = Actor::ready_writer(&shm, "cam", &["--slots", "3", "--size", "32x24"]);
    let mut readers: Vec<Actor> = (0..2).map(|_| Actor::reader(&shm, "copy", "cam", &["--ask-old"])).collect();
    let goal = amount(50_000, 10_000_000);
    let total = |readers: &[Actor], count: &str| readers.iter().map(|reader| reader.count(count)).sum::<u64>();
    until_within(Duration::from_secs(500), "the frames are read", || {
        assert!(
            readers.iter_mut().all(|reader| reader.ended().is_none()),
            "a reader has ended: {:?}",
            readers[0].answer()
        );
        total(&readers, "copies") >= goal
    });
    readers.iter_mut().for_each(|reader| drop(reader.stop()));
    let newest = Ring::attach("cam", shm.attach_options()).unwrap().status().seq;
    writer.stop();
    let refused = total(&readers, "refused_old");
    assert!(refused > 0, "a frame that is gone is refused, and none was");
    measured(format!(
        "3 slots at full speed: {newest} frames in {} s, {} copies verified, 0 mixed; {} copies overtaken and repeated, {} overruns \
         reported by reads, {refused} by questions for frames that were gone",
        began.elapsed().as_secs(),
        total(&readers, "copies"),
        total(&readers, "retries"),
        total(&readers, "overruns"),
    ));
}

/// Processor time of the calling thread.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

#[test]
fn a_wait_for_a_stopped_camera_ends_after_its_time_and_costs_no_processor_time() {
    let shm = Shm::new();
    let mut writer = Actor::ready_writer(&shm, "cam", &["--frames", "10"]);
    assert!(writer.wait().success());
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut pixels = Vec::new();
    let last = ring.latest(&mut pixels).unwrap();
    assert_eq!(ring.liveness(), Liveness::Gone);
    let limit = Duration::from_millis(100);
    let (before, mut waits) = (cpu(), Vec::new());
    for _ in 0..amount(15, 600) {
        let began = Instant::now();
        let error = ring.next(&mut pixels, Some(limit)).unwrap_err();
        assert!(matches!(error, ReadError::Timeout { writer_alive: false, .. }), "{error}");
        assert!(began.elapsed() >= limit, "it returned after {:?}", began.elapsed());
        waits.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let (used, waited) = (cpu() - before, waits.iter().sum::<f64>());
    assert!(used.as_secs_f64() * 1000.0 < waited / 10.0, "{used:?} of processor time for waiting {waited:.0} ms");
    assert_eq!(ring.latest(&mut pixels).unwrap().meta, last.meta);
    let worst = waits.iter().copied().fold(0.0, f64::max);
    measured(format!(
        "{} waits of 100 ms for a stopped camera: {:.2} ms (median), {worst:.2} ms at worst, {:.3} % processor time",
        waits.len(),
        median(waits.clone()),
        used.as_secs_f64() * 100_000.0 / waited
    ));
}

/// A reader whose system calls are written to `log`.
fn traced_reader(shm: &Shm, log: &str, frames: u64) -> Actor {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", log]).arg(example("stress_reader"));
    command.args(["copy", "cam", "--frames", &frames.to_string(), "--shm-dir"]).arg(shm.path());
    Actor::start(command)
}

/// Whether this process may be traced and follow its own children.
fn can_trace() -> bool {
    let said = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let can = said.as_ref().is_ok_and(|said| said.status.success());
    if !can {
        println!("skipped: no tracing of system calls here: {said:?}");
    }
    can
}

#[test]
fn readers_that_wait_sleep_in_the_kernel_and_never_poll() {
    if !can_trace() {
        return;
    }
    let (shm, frames) = (Shm::new(), amount(40, 600));
    let _writer = Actor::ready_writer(&shm, "cam", &["--fps", "30"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut plain: Vec<Actor> = (0..8).map(|_| Actor::reader(&shm, "copy", "cam", &[])).collect();
    frames_pass(&ring, frames);
    let p50: Vec<f64> = reports(&mut plain).iter().map(|report| report["p50_us"] as f64).collect();
    plain.clear();
    let logs: Vec<String> = (0..8).map(|n| shm.path().join(format!("strace-{n}")).display().to_string()).collect();
    let mut traced: Vec<Actor> = logs.iter().map(|log| traced_reader(&shm, log, frames)).collect();
    let mut futexes = Vec::new();
    for (reader, log) in traced.iter_mut().zip(&logs) {
        until_within(4 * PATIENCE, "the traced reader has its frames", || reader.ended().is_some());
        let calls = std::fs::read_to_string(log).unwrap();
        let count = |name: &str| calls.lines().filter(|line| line.contains(name)).count() as u64;
        for poll in ["nanosleep(", "sched_yield(", "select(", "epoll_wait("] {
            assert_eq!(count(poll), 0, "a waiting reader calls {poll})");
        }
        assert!(count("poll(") <= 1, "more calls of poll() than the one by which a Rust program begins");
        // One sleep per frame, besides the looks at orders every 50 ms; a poll of 2 ms would make fifteen.
        let sleeps = count(" futex(");
        assert!(sleeps <= 4 * frames + 40, "{sleeps} futex calls for {frames} frames");
        futexes.push(sleeps as f64);
        std::fs::remove_file(log).unwrap();
    }
    measured(format!(
        "8 waiting readers at 30 frames a second: woken {:.0} us after publication (median of the 8 medians); under strace {:.0} \
         futex calls for {frames} frames, none that polls",
        median(p50),
        median(futexes)
    ));
}

#[test]
fn a_reader_that_was_busy_gets_the_newest_frame_and_an_exact_count_of_the_skipped_ones() {
    let shm = Shm::new();
    let _writer = Actor::ready_writer(&shm, "cam", &["--fps", "25"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut pixels = Vec::new();
    let mut ages_ms = Vec::new();
    let mut last = ring.next(&mut pixels, Some(PATIENCE)).unwrap().meta.seq.0;
    let busy = Duration::from_millis(amount(600, 5_000));
    for _ in 0..amount(2, 12) {
        let_pass(busy);
        let newest = ring.status().seq.0;
        let frame = ring.latest(&mut pixels).unwrap();
        ages_ms.push(age_ns(&frame.meta) as f64 / 1e6);
        assert!(frame.meta.seq.0 >= newest, "frame {} although {newest} was there", frame.meta.seq);
        assert_eq!(frame.skipped, frame.meta.seq.0 - last - 1);
        assert!(frame.skipped > 0, "the reader was meant to skip");
        common::assert_untorn(frame.meta.seq.0, &pixels);
        last = frame.meta.seq.0;
    }
    let worst = ages_ms.iter().copied().fold(0.0, f64::max);
    measured(format!(
        "reads {} ms apart at 25 frames a second: {:.1} ms old (median), {worst:.1} ms at worst; skipped counts exact",
        busy.as_millis(),
        median(ages_ms.clone())
    ));
}

#[test]
fn attaching_and_detaching_all_the_time_leaves_nothing_behind() {
    let shm = Shm::new();
    let writer = Actor::ready_writer(&shm, "cam", &["--fps", "200"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    until_within(PATIENCE, "a frame", || ring.peek().is_ok());
    drop(ring);
    let anchor = shm.path().join("camring.d/cam");
    let fds = writer.fds();
    let count = amount(1_000, 100_000).to_string();
    let mut reader = Actor::reader(&shm, "attach", "cam", &["--frames", &count]);
    let line = reader.answer_within(Duration::from_secs(500)).expect("the reader says what it left behind");
    let said = numbers(&line);
    assert_eq!((said["fds_after"], said["maps_after"]), (said["fds_before"], said["maps_before"]), "{line}");
    assert_eq!(writer.fds(), fds, "what a reader leaves with the writer");
    reader.stop();
    until_within(PATIENCE, "no lock of a reader is left", || reader_locks_on(&anchor) == 0);
    measured(format!(
        "{count} attaches with a frame and detaches: {} a second; descriptors {} and {}, mappings {} and {}",
        said["per_second"], said["fds_before"], said["fds_after"], said["maps_before"], said["maps_after"]
    ));
}

/// Attaches without waiting until told to stop; returns how often there was a ring and how often none yet.
fn attach_again_and_again(options: &AttachOptions, stop: &AtomicBool) -> (u64, u64) {
    let (mut complete, mut not_yet, mut pixels) = (0, 0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let ring = match Ring::attach("cam", options.clone()) {
            Ok(ring) => ring,
            Err(AttachError::NotFound { .. } | AttachError::Superseded(_) | AttachError::Removed(_)) => {
                not_yet += 1;
                continue;
            }
            Err(error) => panic!("neither a ring nor \"not there yet\": {error}"),
        };
        let layout = ring.layout();
        assert!((3..=4).contains(&layout.slot_count) && layout.camera_id == "cam", "{layout:?}");
        match ring.latest(&mut pixels) {
            Ok(frame) => {
                let value = (frame.meta.seq.0 % 251) as u8;
                assert!(pixels.len() == 64 * 48 * 3 && pixels.iter().all(|byte| *byte == value), "{:?}", frame.meta);
            }
            Err(ReadError::NoFrame { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        complete += 1;
    }
    (complete, not_yet)
}

#[test]
fn an_attach_while_the_ring_is_made_anew_finds_all_of_it_or_nothing() {
    let (shm, stop) = (Shm::new(), AtomicBool::new(false));
    let options = AttachOptions { timeout: Some(Duration::ZERO), ..shm.attach_options() };
    let rings = amount(400, 10_000);
    let (complete, not_yet) = std::thread::scope(|scope| {
        let readers = [0, 1].map(|_| scope.spawn(|| attach_again_and_again(&options, &stop)));
        for number in 0..rings {
            // Another number of slots is another generation; every eighth time there is none to continue.
            let mut wanted = shm.options("cam");
            wanted.slots = 3 + (number % 2) as u32;
            wanted.lock_wait = PATIENCE;
            let (mut writer, _) = Writer::start(wanted).unwrap();
            if number % 3 > 0 {
                let next = writer.status().newest().0 + 1;
                publish(&mut writer, 64, 48, (next % 251) as u8);
            }
            drop(writer);
            if number % 8 == 7 {
                remove(&shm.dir(), &RingName::new("cam").unwrap()).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        let counts = readers.map(|reader| reader.join().unwrap());
        (counts[0].0 + counts[1].0, counts[0].1 + counts[1].1)
    });
    assert!(complete > 0 && not_yet > 0, "{complete} complete rings and {not_yet} times none");
    measured(format!(
        "{rings} rings made anew: {complete} attaches found a complete ring, {not_yet} none yet, none a half one"
    ));
}
