//! What a C program sees of a ring: frames by copy and in place, waits, errors, restarts. One program per test, told
//! line by line what to do, while this test writes the ring.

mod common;

use std::fs;

use camring_ring::layout::{CONFIG_BYTES, at, crc32c};
use camring_ring::{LeasePolicy, Reason, RingName, ShmDir, State};
use common::{Asked, PATIENCE, Source, command, finish, mount, program};
use std::os::unix::process::ExitStatusExt;

const NO_FRAME: i64 = -11;
const TIMEOUT: i64 = -12;
const BUFFER_SIZE: i64 = -14;
const REVOKED: i64 = -17;
const LEASE_UNAVAILABLE: i64 = -18;

#[test]
fn the_newest_frame_is_copied_with_its_description() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    let before = c.ask("latest");
    assert_eq!(before.code(), NO_FRAME);
    assert_eq!(before.text, "ring \"yard\" has no frame yet; its camera is starting");
    source.publish(8, 4);
    let frame = c.ask("latest");
    assert_eq!(frame.all("code seq skipped bytes width height whole own"), "0 1 0 96 8 4 1 1");
    assert!((0..60_000_000_000).contains(&frame.number("age_ns")), "{frame:?}");
    assert_eq!(c.ask("latest").all("code seq skipped"), "0 1 0", "the same frame again");
    source.lap(4);
    assert_eq!(c.ask("latest").all("code seq skipped whole"), "0 5 3 1");
}

#[test]
fn a_frame_can_be_described_without_a_copy_and_does_not_count() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    assert_eq!(c.ask("describe").code(), NO_FRAME);
    source.publish(8, 4);
    assert_eq!(c.ask("describe").all("code seq bytes null"), "0 1 96 1");
    assert_eq!(c.ask("next 0").all("code seq"), "0 1", "described is not returned");
}

#[test]
fn a_buffer_that_is_too_small_is_told_the_size_and_the_frame_is_not_lost() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    source.publish(8, 4);
    for size in [0, 1, 95] {
        c.ask(&format!("buffer {size}"));
        for call in ["next 0", "latest"] {
            let short = c.ask(call);
            assert_eq!(short.all("code seq bytes null"), format!("{BUFFER_SIZE} 1 96 1"), "{call} into {size} bytes");
            assert_eq!(short.text, format!("the buffer has {size} bytes but the frame needs 96; make it that size"));
        }
    }
    c.ask("buffer 96");
    assert_eq!(c.ask("next 0").all("code seq whole"), "0 1 1");
}

#[test]
fn next_returns_no_frame_twice_and_says_what_was_skipped() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    source.lap(3);
    assert_eq!(c.ask("next -1").all("code seq skipped whole"), "0 3 0 1");
    let none = c.ask("next 0");
    assert_eq!(none.code(), TIMEOUT);
    assert!(none.text.starts_with("no new frame in ring \"yard\" for "), "{none:?}");
    source.lap(10);
    assert_eq!(c.ask("next 0").all("code seq skipped whole"), "0 13 9 1");
    // Longer than one slice of the library's own waits.
    c.send("next 600000000");
    assert_eq!(c.line().split(' ').next(), Some("code=-12"));
    c.send("next -1");
    source.publish(8, 4);
    let line = c.line();
    assert!(line.contains(" seq=14 skipped=0 "), "{line}");
}

#[test]
fn wait_ends_with_a_frame_and_at_its_deadline() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    source.writer().status().set_state(State::Reconnecting, Reason::NoPackets, 2, None);
    let none = c.ask("wait 1000000");
    assert_eq!(none.code(), TIMEOUT);
    assert!(none.text.contains("its camera is reconnecting (no_packets)"), "{none:?}");
    c.send("wait -1");
    source.publish(8, 4);
    assert!(c.line().starts_with("code=0 "));
    assert_eq!(c.ask("wait 0").code(), 0, "not returned yet");
    assert_eq!(c.ask("lease").all("code seq"), "0 1");
    assert_eq!(c.ask("wait 0").code(), TIMEOUT, "a lease counts as returned");
}

#[test]
fn a_lease_is_read_in_place_and_stands_while_the_writer_has_other_slots() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    source.publish(8, 4);
    assert_eq!(c.ask("lease").all("code lease seq guarded whole own"), "0 0 1 1 1 0");
    source.lap(50);
    assert_eq!(c.ask("valid 0").code(), 0);
    assert_eq!(c.ask("look 0").all("seq whole"), "1 1", "fifty frames later");
    assert_eq!(c.ask("lease").all("code lease seq skipped whole"), "0 1 51 49 1");
    assert_eq!(c.ask("release 1").code(), 0);
    assert_eq!(c.ask("release 0").code(), 0);
    assert_eq!(c.ask("release 0").code(), -2, "twice");
    assert_eq!(c.ask("info").all("frames skipped"), "2 49");
}

#[test]
fn a_lease_that_the_writer_takes_back_ends_revoked() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 3);
    let mut c = Asked::attached(shm.path(), "yard");
    for seq in 1..=3 {
        source.lap(1);
        assert_eq!(c.ask("lease").number("seq"), seq);
    }
    // Every slot is leased: under the policy `fresh` the oldest one goes.
    source.lap(1);
    let revoked = c.ask("valid 0");
    assert_eq!(revoked.code(), REVOKED);
    assert!(revoked.text.starts_with("the leased frame 1 is being overwritten"), "{revoked:?}");
    let revoked = c.ask("release 0");
    assert_eq!(revoked.code(), REVOKED);
    assert!(revoked.text.starts_with("frame 1 of ring \"yard\" was overwritten while it was leased; "), "{revoked:?}");
    assert_eq!(c.ask("release 0").code(), -2, "it is over all the same");
    assert_eq!((c.ask("release 1").code(), c.ask("release 2").code()), (0, 0));
}

#[test]
fn a_ring_without_leases_says_so_and_can_be_copied() {
    let shm = mount();
    let mut source = Source::with_policy(shm.path(), "yard", 3, LeasePolicy::Off);
    let mut c = Asked::attached(shm.path(), "yard");
    source.lap(1);
    let refused = c.ask("lease");
    assert_eq!(refused.code(), LEASE_UNAVAILABLE);
    assert_eq!(refused.text, "ring \"yard\" cannot be leased: its lease policy is off; read copies instead");
    assert_eq!(c.ask("next 0").all("code seq whole"), "0 1 1");
    assert_eq!(c.ask("info").number("policy"), 2);
}

#[test]
fn leases_outlive_the_handle_and_the_generation() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    source.lap(2);
    assert_eq!(c.ask("lease").number("seq"), 2);
    // A larger frame makes a new generation, which the handle follows.
    source.publish(640, 480);
    assert_eq!(c.ask("lease").all("code seq width whole"), "0 3 640 1");
    assert_eq!(c.ask("info").number("followed"), 1);
    assert_eq!(c.ask("detach").code(), 0);
    source.lap(9);
    assert_eq!(c.ask("look 0").all("seq whole"), "2 1");
    assert_eq!(c.ask("look 1").all("seq whole"), "3 1");
    assert_eq!((c.ask("release 0").code(), c.ask("release 1").code()), (0, 0));
    let detached = c.ask("latest");
    assert_eq!(detached.code(), -2);
    assert!(detached.text.ends_with(" is no handle: never given out by camring_attach, or given back already"));
}

#[test]
fn info_tells_what_the_ring_and_the_handle_know() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    let empty = c.ask("info");
    assert_eq!(empty.all("code state seq width slots"), "0 starting 0 0 4");
    assert_eq!(empty.number("age_ns"), i64::MIN);
    source.lap(5);
    source.writer().status().set_state(State::Degraded, Reason::LowFps, 0, None);
    c.ask("latest");
    let now = c.ask("info");
    assert_eq!(now.all("state reason seq width height pixfmt"), "degraded low_fps 5 8 4 bgr");
    assert_eq!(now.all("frames skipped camera segment removed published"), "1 0 yard camring.yard 0 5");
    assert!(now.number("capacity") >= 96 && now.number("age_ns") >= 0, "{now:?}");
    // This writer has no housekeeping, so its life shows in its lock alone; without it there is none.
    drop(source);
    assert_eq!(c.ask("info").number("daemon"), 0);
}

#[test]
fn a_handle_goes_on_after_a_restart_and_ends_after_a_removal() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut c = Asked::attached(shm.path(), "yard");
    source.lap(3);
    assert_eq!(c.ask("next 0").number("seq"), 3);
    drop(source);
    let mut source = Source::new(shm.path(), "yard", 4);
    source.lap(1);
    assert_eq!(c.ask("next -1").all("code seq skipped whole"), "0 4 0 1");
    drop(source);
    camring_ring::remove(&ShmDir::new(shm.path()), &RingName::new("yard").unwrap()).expect("removed");
    for call in ["next -1", "wait -1"] {
        let gone = c.ask(call);
        assert_eq!(gone.code(), -9, "{call}");
        assert_eq!(gone.text, "ring \"yard\" was removed by its operator; start its daemon to make a new one");
    }
    assert_eq!(c.ask("latest").all("code seq whole"), "0 4 1", "the last frame stays readable");
}

#[test]
fn a_ring_of_another_layout_version_is_refused_with_both_versions() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 3);
    source.lap(1);
    let bytes = fs::read(shm.path().join("camring.yard")).unwrap();
    for (name, major, said) in [("newer", 2u16, "layout version 2.0"), ("older", 0, "layout version 0.0")] {
        let mut other = bytes.clone();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        other[at(at::ABI_MAJOR)..][..2].copy_from_slice(&major.to_le_bytes());
        let crc = crc32c(&other[..CONFIG_BYTES - 4]);
        other[at(at::HEADER_CRC32C)..][..4].copy_from_slice(&crc.to_le_bytes());
        fs::write(shm.path().join(name), other).unwrap();
        let mut c = Asked::start(&program("tests/programs/ask.c"), shm.path(), &[]);
        let refused = c.ask(&format!("attach {name}"));
        assert_eq!(refused.code(), -7);
        let wanted = format!("segment \"{name}\" has {said} but this build speaks layout version 1.0");
        assert!(refused.text.starts_with(&wanted), "{refused:?}");
        assert!(refused.text.ends_with("; upgrade the older of the two"), "{refused:?}");
    }
}

#[test]
fn writing_into_a_lease_ends_the_writer_of_that_mistake_alone() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    let mut other = Asked::attached(shm.path(), "yard");
    source.lap(1);
    assert_eq!(other.ask("lease").all("code seq"), "0 1");
    let scribble = program("tests/programs/scribble.c");
    let ended = finish(command(&scribble, shm.path()).arg("yard"), PATIENCE);
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "leased 31\n", "it got as far as the write, and no further");
    assert_eq!(ended.status.signal(), Some(libc::SIGSEGV), "{ended:?}");
    assert_eq!(other.ask("look 0").all("seq whole"), "1 1", "another reader's lease of the same frame");
    assert_eq!(other.ask("release 0").code(), 0);
    source.lap(20);
    assert_eq!(other.ask("next 0").all("code seq skipped whole"), "0 21 19 1");
    assert_eq!(other.ask("lease").all("code guarded"), "0 1");
}
