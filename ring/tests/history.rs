//! Frames that are not the newest: by number, by time, and how old they are.

mod common;

use std::process::Command;
use std::time::Duration;

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::layout::at;
use camring_ring::{Age, Capacity, FrameMeta, Geometry, PixelFormat, ReadError, Ring, Sequence, Writer, nearest};
use common::system::Child;
use common::{Shm, WriterProcess, amount, assert_untorn, publish, publish_pattern};

const SECOND: i64 = 1_000_000_000;

fn start(shm: &Shm, ring: &str, slots: u32) -> Writer {
    let mut options = shm.options(ring);
    (options.slots, options.capacity) = (slots, Capacity::Bytes(64 * 1024));
    Writer::start(options).unwrap().0
}

fn attach(shm: &Shm, ring: &str) -> Ring {
    Ring::attach(ring, shm.attach_options()).unwrap()
}

/// Publishes a frame that arrived at a certain time.
fn publish_at(writer: &mut Writer, arrival_mono_ns: i64) -> u64 {
    let mut meta = FrameMeta::new(Geometry::packed(8, 4, PixelFormat::Gray).unwrap());
    (meta.arrival_mono_ns, meta.arrival_real_ns) = (arrival_mono_ns, real_ns());
    let slot = writer.claim(meta.geometry.len).unwrap();
    writer.publish(slot, meta).unwrap().0
}

#[test]
fn a_frame_is_read_by_its_number_as_long_as_it_is_held() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam", 4);
    let ring = attach(&shm, "cam");
    let mut pixels = Vec::new();
    let error = ring.at(Sequence(1), &mut pixels).unwrap_err();
    assert!(matches!(error, ReadError::NoFrame { .. }), "{error}");
    for value in 1..=10 {
        publish(&mut writer, 64, 48, value);
    }
    for seq in 7..=10u8 {
        let frame = ring.at(Sequence(seq.into()), &mut pixels).unwrap();
        assert_eq!((frame.meta.seq.0, frame.skipped, pixels[0]), (seq.into(), 0, seq));
        assert_eq!(frame.generation, ring.status().generation);
    }
    assert_eq!(
        ring.at(Sequence(6), &mut pixels).unwrap_err(),
        ReadError::Overrun { ring: "cam".into(), oldest: Sequence(7) }
    );
    assert_eq!(
        ring.at(Sequence(11), &mut pixels).unwrap_err().to_string(),
        "frame 11 of ring \"cam\" is not published yet, the newest is 10; wait for it"
    );
    assert_eq!(ring.last_seq().0, 0, "the horizon has not moved");
    assert_eq!(ring.next(&mut pixels, None).unwrap().meta.seq.0, 10);
}

#[test]
fn after_gives_every_frame_to_a_reader_that_keeps_up_and_counts_what_it_lost_else() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam", 5);
    let ring = attach(&shm, "cam");
    let mut pixels = Vec::new();
    let timeout = Some(Duration::from_millis(5));
    let error = ring.after(Sequence(0), &mut pixels, timeout).unwrap_err();
    assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
    let mut last = Sequence(0);
    let mut lost = 0;
    for burst in [1u64, 3, 5, 1, 12, 4] {
        for _ in 0..burst {
            publish(&mut writer, 64, 48, 1);
        }
        let mut read = 0;
        while let Ok(frame) = ring.after(last, &mut pixels, Some(Duration::ZERO)) {
            assert_eq!(frame.meta.seq.0, last.0 + frame.skipped + 1);
            (last, lost, read) = (frame.meta.seq, lost + frame.skipped, read + 1);
        }
        assert_eq!(read, burst.min(5), "all that were held after a burst of {burst}");
    }
    assert_eq!((last.0, lost), (26, 7));
    assert_eq!(ring.last_seq().0, 0, "the horizon has not moved");
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| ring.after(last, &mut Vec::new(), Some(Duration::from_secs(30))).unwrap().meta.seq);
        publish(&mut writer, 64, 48, 1);
        assert_eq!(waiting.join().unwrap().0, 27);
    });
}

#[test]
fn after_loses_nothing_to_a_larger_generation() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = attach(&shm, "cam");
    let mut pixels = Vec::new();
    for _ in 0..3 {
        publish(&mut writer, 64, 48, 1);
    }
    publish(&mut writer, 1280, 720, 2);
    publish(&mut writer, 1280, 720, 2);
    let mut numbers = Vec::new();
    let mut last = Sequence(0);
    while let Ok(frame) = ring.after(last, &mut pixels, Some(Duration::ZERO)) {
        last = frame.meta.seq;
        numbers.push((last.0, frame.meta.geometry.width));
    }
    assert_eq!(numbers, [(1, 64), (2, 64), (3, 64), (4, 64), (5, 1280), (6, 1280)]);
}

#[test]
fn a_frame_of_a_replaced_generation_is_read_by_its_number_until_the_next_one_is_followed() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = attach(&shm, "cam");
    publish(&mut writer, 1280, 720, 2);
    let mut pixels = Vec::new();
    let frame = ring.at(Sequence(1), &mut pixels).unwrap();
    assert_eq!((frame.meta.geometry.width, pixels[0]), (64, 1));
    assert_ne!(frame.generation, ring.status().generation);
    assert_eq!(ring.at(Sequence(2), &mut pixels).unwrap().meta.geometry.width, 1280);
    let error = ring.at(Sequence(1), &mut pixels).unwrap_err();
    assert_eq!(error, ReadError::Overrun { ring: "cam".into(), oldest: Sequence(2) });
}

#[test]
fn after_begins_with_the_oldest_when_the_numbers_have_begun_anew() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam", 4);
    for _ in 0..50 {
        publish(&mut writer, 64, 48, 1);
    }
    let ring = attach(&shm, "cam");
    let mut pixels = Vec::new();
    assert_eq!(ring.latest(&mut pixels).unwrap().meta.seq.0, 50);
    drop(writer);
    camring_ring::remove(&shm.dir(), &camring_ring::RingName::new("cam").unwrap()).unwrap();
    let mut writer = start(&shm, "cam", 4);
    for _ in 0..6 {
        publish(&mut writer, 64, 48, 2);
    }
    for know_it_already in [false, true] {
        if know_it_already {
            assert_eq!(ring.status().seq.0, 6);
            assert!(ring.wait(Sequence(50), Some(Duration::ZERO)));
        }
        let frame = ring.after(Sequence(50), &mut pixels, Some(Duration::from_secs(30))).unwrap();
        assert_eq!((frame.meta.seq.0, frame.skipped, pixels[0]), (3, 0, 2));
    }
    let frame = ring.at(Sequence(3), &mut pixels).unwrap();
    let frame = ring.after(frame.meta.seq, &mut pixels, None).unwrap();
    assert_eq!(frame.meta.seq.0, 4);
    assert_eq!(ring.stats().resets, 1);
    let error = ring.after(Sequence(60), &mut pixels, Some(Duration::from_millis(5))).unwrap_err();
    assert!(matches!(error, ReadError::Timeout { .. }), "60 is no number of before: {error}");
}

#[test]
fn history_gives_the_newest_frames_the_oldest_first() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam", 5);
    let ring = attach(&shm, "cam");
    assert!(matches!(ring.history(3), Err(ReadError::NoFrame { .. })));
    let numbers = |count| -> Vec<(u64, u8)> {
        ring.history(count).unwrap().iter().map(|(frame, pixels)| (frame.meta.seq.0, pixels[0])).collect()
    };
    publish(&mut writer, 64, 48, 1);
    publish(&mut writer, 64, 48, 2);
    assert_eq!(numbers(5), [(1, 1), (2, 2)], "no more are held");
    for value in 3..=9 {
        publish(&mut writer, 64, 48, value);
    }
    assert_eq!(numbers(3), [(7, 7), (8, 8), (9, 9)]);
    assert_eq!(numbers(100), [(5, 5), (6, 6), (7, 7), (8, 8), (9, 9)]);
    assert_eq!(numbers(0), []);
    let held: Vec<u64> = ring.held().iter().map(|meta| meta.seq.0).collect();
    assert_eq!(held, [5, 6, 7, 8, 9]);
    assert_eq!(ring.last_seq().0, 0, "the horizon has not moved");
    let lease = ring.lease().unwrap();
    for value in 10..=20 {
        publish(&mut writer, 64, 48, value);
    }
    assert_eq!(numbers(100), [(9, 9), (17, 17), (18, 18), (19, 19), (20, 20)], "leased frames stay");
    lease.release().unwrap();
}

#[test]
fn the_nearest_frame_is_found_by_its_arrival() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam", 8);
    let ring = attach(&shm, "cam");
    let mut pixels = Vec::new();
    assert!(matches!(ring.nearest(0, &mut pixels), Err(ReadError::NoFrame { .. })));
    for seq in 1..=6 {
        publish_at(&mut writer, seq * 100);
    }
    let mut found = |wanted| ring.nearest(wanted, &mut pixels).unwrap().meta.seq.0;
    assert_eq!((found(0), found(149), found(151), found(400), found(9_999)), (1, 1, 2, 4, 6));
    assert_eq!(found(250), 3, "of two equally near ones the newer");
    assert_eq!((found(i64::MIN), found(i64::MAX)), (1, 6));
}

#[test]
fn frames_of_several_rings_are_joined_by_time_or_the_ring_that_has_none_is_named() {
    let shm = Shm::new();
    let mut writers = ["a", "b", "c"].map(|name| start(&shm, name, 8));
    let rings = ["a", "b", "c"].map(|name| attach(&shm, name));
    for (writer, offset) in writers.iter_mut().zip([0, 3_000_000, -2_000_000]) {
        for frame in 1..=6 {
            publish_at(writer, frame * 40_000_000 + offset);
        }
    }
    let rings: Vec<&Ring> = rings.iter().collect();
    let joined = nearest(&rings, 120_000_000, Duration::from_millis(3)).unwrap();
    let found: Vec<(u64, usize)> = joined.iter().map(|(frame, pixels)| (frame.meta.seq.0, pixels.len())).collect();
    assert_eq!(found, [(3, 32); 3]);
    let error = nearest(&rings, 120_000_000, Duration::from_nanos(2_999_999)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the frame of ring \"b\" nearest to 120000000 ns arrived at 123000000 ns, expected at most 2999999 ns between them; \
         allow more, or set more slots"
    );
    assert!(nearest(&rings, 0, Duration::MAX).is_ok());
    assert!(nearest(&[], 0, Duration::ZERO).unwrap().is_empty());
}

#[test]
fn what_is_read_from_a_ring_at_full_speed_is_whole_whichever_way_it_is_asked_for() {
    let shm = Shm::new();
    let writer = WriterProcess::spawn(&shm, "cam", &["--fps", "0", "--slots", "3", "--size", "640x480"]);
    let ring = attach(&shm, "cam");
    let mut pixels = Vec::new();
    let mut last = Sequence(0);
    let mut reads = 0;
    let mut check = |result: Result<camring_ring::Frame, ReadError>, pixels: &[u8]| match result {
        Ok(frame) => {
            assert_untorn(frame.meta.seq.0, pixels);
            reads += 1;
            Some(frame)
        }
        Err(ReadError::Overrun { .. }) => None,
        Err(error) => panic!("{error}"),
    };
    for round in 0..amount(1_000, 50_000) {
        let result = ring.after(last, &mut pixels, Some(Duration::from_secs(30)));
        if let Some(frame) = check(result, &pixels) {
            assert_eq!(frame.meta.seq.0, last.0 + 1 + frame.skipped);
            last = frame.meta.seq;
        }
        let oldest = ring.held().first().map_or(last, |meta| meta.seq);
        let wanted = Sequence(oldest.0 + round % 3);
        let result = ring.at(wanted, &mut pixels);
        if let Err(ReadError::NotYet { newest, .. }) = &result {
            assert!(*newest < wanted);
        } else if let Some(frame) = check(result, &pixels) {
            assert_eq!(frame.meta.seq, wanted);
        }
        let result = ring.nearest(mono_ns() - (round % 4) as i64 * 1_000_000, &mut pixels);
        check(result, &pixels);
        if round % 8 == 0 {
            let frames = ring.history(4).unwrap_or_default();
            assert!(frames.is_sorted_by_key(|(frame, _)| frame.meta.seq) && frames.len() <= 4);
            frames.iter().for_each(|(frame, pixels)| assert_untorn(frame.meta.seq.0, pixels));
        }
    }
    assert!(reads > 100, "only {reads} reads were not overtaken");
    common::measured(format!("{reads} reads of old frames, none torn"));
    writer.kill();
}

#[test]
fn an_age_is_exact_in_the_daemons_own_time_namespace() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam", 4);
    let ring = attach(&shm, "cam");
    publish_at(&mut writer, mono_ns() - 5 * SECOND);
    let meta = ring.peek().unwrap();
    let Age { ns, approximate } = ring.age(&meta);
    assert!(!approximate && (5 * SECOND..50 * SECOND).contains(&ns), "{ns}");
    let mut pixels = Vec::new();
    ring.latest_within(&mut pixels, Duration::from_secs(50)).unwrap();
    let error = ring.latest_within(&mut pixels, Duration::from_secs(5)).unwrap_err();
    assert!(matches!(error, ReadError::Stale { limit_ms: 5000, .. }), "{error}");
}

#[test]
fn a_frame_from_the_future_is_never_fresh() {
    let shm = Shm::new();
    let mut writer = start(&shm, "cam", 4);
    let ring = attach(&shm, "cam");
    publish_at(&mut writer, mono_ns() + 3600 * SECOND);
    assert!(ring.age(&ring.peek().unwrap()).ns < 0);
    let error = ring.latest_within(&mut Vec::new(), Duration::MAX).unwrap_err();
    assert!(matches!(error, ReadError::Stale { .. }), "{error}");
}

#[test]
fn without_a_common_clock_the_age_is_taken_from_the_wall_clock() {
    use std::os::unix::fs::FileExt;
    let shm = Shm::new();
    let mut writer = start(&shm, "cam", 4);
    let ring = attach(&shm, "cam");
    // As a daemon in another namespace would have it: its monotonic clock is a day ahead.
    publish_at(&mut writer, mono_ns() + 24 * 3600 * SECOND);
    let file = std::fs::OpenOptions::new().write(true).open(shm.path().join("camring.cam")).unwrap();
    file.write_all_at(&1u64.to_le_bytes(), at::TIME_NS_INO).unwrap();
    let Age { ns, approximate } = ring.age(&ring.peek().unwrap());
    assert!(approximate && (0..60 * SECOND).contains(&ns), "{ns}");
    ring.latest_within(&mut Vec::new(), Duration::from_secs(60)).unwrap();
}

#[test]
fn a_reader_in_another_time_namespace_knows_the_age() {
    let unshare = ["--time", "--fork", "--monotonic", "86400", "--boottime", "86400"];
    let allowed = Command::new("unshare").args(unshare).arg("true").output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no time namespace of one's own here ({allowed:?})");
        return;
    }
    let shm = Shm::new();
    let options = shm.options("cam");
    let mut daemon = Child::fork(move |line| {
        let (mut writer, _) = Writer::start(options).unwrap();
        let _house = camring_ring::Housekeeping::spawn(writer.status(), |_| {}).unwrap();
        publish_pattern(&mut writer, 64, 48);
        line.say("ready");
        while line.hear() == "frame" {
            publish_pattern(&mut writer, 64, 48);
        }
    });
    assert_eq!(daemon.hear(), "ready");
    let program = std::env::current_exe().unwrap();
    let reader = Command::new("unshare")
        .args(unshare)
        .arg(program)
        .args(["--ignored", "--exact", "--nocapture", "reader_in_this_namespace"])
        .env("CAMRING_TEST_SHM", shm.path())
        .env("CAMRING_TEST_MONO", mono_ns().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&reader.stdout);
    assert!(reader.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&reader.stderr));
    daemon.say("end");
    daemon.end();
}

#[test]
#[ignore = "the other side of a_reader_in_another_time_namespace_knows_the_age"]
fn reader_in_this_namespace() {
    let theirs: i64 = std::env::var("CAMRING_TEST_MONO").unwrap().parse().unwrap();
    assert!(mono_ns() > theirs + 12 * 3600 * SECOND, "the clock was meant to be a day ahead");
    let options = camring_ring::AttachOptions {
        shm: camring_ring::ShmDir::new(std::env::var("CAMRING_TEST_SHM").unwrap()),
        ..camring_ring::AttachOptions::default()
    };
    let ring = Ring::attach("cam", options).unwrap();
    let Age { ns, approximate } = ring.age(&ring.peek().unwrap());
    assert!(approximate && (0..60 * SECOND).contains(&ns), "{ns}");
    ring.latest_within(&mut Vec::new(), Duration::from_secs(60)).unwrap();
    // The call for many rings takes a point in time, which is one of this namespace's clock.
    let began = std::time::Instant::now();
    ring.latest(&mut Vec::new()).unwrap();
    assert_eq!(camring_ring::wait_any(&[&ring, &ring], Some(Duration::from_millis(300))), [0; 0]);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(ring.stats().missed_wakes, 0);
    common::until("the heartbeat is seen to move", || ring.liveness() == camring_ring::Liveness::Alive);
}
