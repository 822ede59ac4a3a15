//! Leases: frames read in place, slots that the writer leaves alone, and what becomes of both.

mod common;

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camring_ring::layout::at;
use camring_ring::{Capacity, Counter, Lease, LeasePolicy, ReadError, Reason, Ring, State, Writer, WriterOptions};
use common::system::{Child, classic_lock, duplicate, refuse_call};
use common::{Shm, WriterProcess, amount, assert_untorn, publish, publish_pattern, until};

const LEN: usize = 64 * 48 * 3;

fn options(shm: &Shm, slots: u32, policy: LeasePolicy) -> WriterOptions {
    let mut options = shm.options("cam");
    (options.slots, options.lease_policy) = (slots, policy);
    // No waiting room: the first generation is the one that the tests lease from.
    options.capacity = Capacity::Bytes(64 * 1024);
    options
}

fn start(shm: &Shm, slots: u32, policy: LeasePolicy) -> Writer {
    Writer::start(options(shm, slots, policy)).unwrap().0
}

fn attach(shm: &Shm) -> Ring {
    Ring::attach("cam", shm.attach_options()).unwrap()
}

/// The bytes of a lease, at this moment.
fn bytes_of(lease: &Lease) -> Vec<u8> {
    let mut copy = vec![0; lease.len()];
    lease.copy_to(&mut copy).unwrap();
    copy
}

fn held(ring: &Ring) -> Vec<u64> {
    ring.held().iter().map(|meta| meta.seq.0).collect()
}

/// Whether a frame can be published without taking a leased slot, under the policy `protect`.
fn has_room(writer: &mut Writer) -> bool {
    writer.claim(LEN as u64).is_ok()
}

/// A writer process of its own that publishes the pattern as fast as it can, under any policy.
fn full_speed(shm: &Shm, slots: u32, policy: LeasePolicy) -> Child {
    let options = options(shm, slots, policy);
    let mut child = Child::fork(move |line| {
        let (mut writer, _) = Writer::start(options).unwrap();
        while !publish_pattern(&mut writer, 64, 48) {}
        line.say("ready");
        loop {
            if !publish_pattern(&mut writer, 64, 48) {
                writer.count_drop(Counter::DroppedNoSlot);
            }
        }
    });
    assert_eq!(child.hear(), "ready");
    child
}

#[test]
fn a_lease_shows_the_newest_frame_in_place_and_ends_valid() {
    let shm = Shm::new();
    let mut writer = start(&shm, 4, LeasePolicy::Protect);
    publish(&mut writer, 64, 48, 7);
    let ring = attach(&shm);
    let lease = ring.lease().unwrap();
    assert_eq!((lease.frame().meta.seq.0, lease.len(), lease.is_empty()), (1, LEN, false));
    for value in 8..40 {
        publish(&mut writer, 64, 48, value);
    }
    assert!(lease.is_valid() && lease.is_guarded());
    assert!(lease.protected().unwrap().iter().all(|byte| *byte == 7), "the writer has used the slot");
    assert_eq!(lease.protected().unwrap().as_ptr(), lease.as_ptr());
    assert_eq!(bytes_of(&lease), [7; LEN]);
    let found = lease.copy_to(&mut [0]).unwrap_err();
    assert_eq!(found, ReadError::BufferSize { found: 1, expected: LEN as u64 });
    lease.release().unwrap();
    assert_eq!(ring.last_seq().0, 1, "a lease counts as returned");
}

#[test]
fn handles_and_leases_go_from_thread_to_thread() {
    fn is_free<T: Send + Sync + 'static>() {}
    is_free::<Lease>();
    is_free::<Ring>();
}

#[test]
fn a_lease_waits_for_the_next_frame_and_counts_what_it_skipped() {
    let shm = Shm::new();
    let mut writer = start(&shm, 4, LeasePolicy::Fresh);
    writer.status().set_state(State::Connecting, Reason::Dns, 1, None);
    let ring = attach(&shm);
    let error = ring.lease().unwrap_err();
    assert_eq!(error.to_string(), "ring \"cam\" has no frame yet; its camera is connecting (dns)");
    publish(&mut writer, 64, 48, 1);
    assert_eq!(ring.lease_next(None).unwrap().frame().meta.seq.0, 1);
    let error = ring.lease_next(Some(Duration::from_millis(5))).unwrap_err();
    assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
    assert_eq!(ring.lease().unwrap().frame().skipped, 0, "the same frame again");
    for value in 2..6 {
        publish(&mut writer, 64, 48, value);
    }
    let lease = ring.lease_next(None).unwrap();
    assert_eq!((lease.frame().meta.seq.0, lease.frame().skipped), (5, 3));
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| ring.lease_next(Some(Duration::from_secs(30))).map(|lease| lease.frame().meta.seq.0));
        publish(&mut writer, 64, 48, 6);
        assert_eq!(waiting.join().unwrap(), Ok(6));
    });
}

#[test]
fn a_held_lease_blocks_exactly_its_slot() {
    let shm = Shm::new();
    let mut writer = start(&shm, 4, LeasePolicy::Fresh);
    for value in 1..=3 {
        publish(&mut writer, 64, 48, value);
    }
    let ring = attach(&shm);
    let lease = ring.lease().unwrap();
    for seq in 4..200 {
        publish(&mut writer, 64, 48, 9);
        let wanted = if seq == 4 { vec![1, 2, 3, 4] } else { vec![3, seq - 2, seq - 1, seq] };
        let wanted: Vec<u64> = if seq == 5 { vec![2, 3, 4, 5] } else { wanted };
        assert_eq!(held(&ring), wanted, "three slots go round, the leased one stays");
    }
    lease.release().unwrap();
    publish(&mut writer, 64, 48, 9);
    assert_eq!(held(&ring), [197, 198, 199, 200], "the oldest slot is the first to be used again");
    assert_eq!(ring.status().counter(Counter::LeasesRevoked), 0);
}

#[test]
fn two_leases_of_one_slot_are_given_back_one_by_one() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Protect);
    publish(&mut writer, 64, 48, 1);
    let ring = attach(&shm);
    let other = attach(&shm);
    let leases = [ring.lease().unwrap(), ring.lease().unwrap(), other.lease().unwrap()];
    publish(&mut writer, 64, 48, 2);
    let newer = ring.lease().unwrap();
    publish(&mut writer, 64, 48, 3);
    // Slots: frame 1 leased three times, frame 2 once, frame 3 is the newest.
    for lease in leases {
        assert!(!has_room(&mut writer), "frame 1 is still leased");
        lease.release().unwrap();
    }
    assert!(has_room(&mut writer), "nobody leases frame 1 any more");
    newer.release().unwrap();
}

#[test]
fn under_fresh_the_oldest_lease_is_revoked_and_says_so() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Fresh);
    let ring = attach(&shm);
    publish(&mut writer, 64, 48, 1);
    let oldest = ring.lease().unwrap();
    publish(&mut writer, 64, 48, 2);
    let second = ring.lease().unwrap();
    publish(&mut writer, 64, 48, 3);
    let newest = ring.lease().unwrap();
    assert!(oldest.is_valid() && second.is_valid() && newest.is_valid());
    publish(&mut writer, 64, 48, 4);
    assert!(!oldest.is_valid() && second.is_valid() && newest.is_valid());
    let error = oldest.copy_to(&mut [0; LEN]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame 1 of ring \"cam\" was overwritten while it was leased; discard what was read from it, and set more slots or \
         hold leases for less time"
    );
    assert_eq!(oldest.release().unwrap_err(), error);
    assert!(second.protected().is_none(), "no plain slice of what may be revoked");
    assert_eq!((bytes_of(&second), bytes_of(&newest)), (vec![2; LEN], vec![3; LEN]));
    assert_eq!(ring.status().counter(Counter::LeasesRevoked), 1);
    second.release().unwrap();
    newest.release().unwrap();
}

#[test]
fn under_protect_frames_are_dropped_while_every_slot_is_leased_and_none_is_revoked() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Protect);
    let ring = attach(&shm);
    let leases: Vec<Lease> = (1..=3)
        .map(|value| {
            publish(&mut writer, 64, 48, value);
            ring.lease().unwrap()
        })
        .collect();
    for _ in 0..10 {
        assert!(writer.claim(LEN as u64).is_err());
    }
    assert_eq!(ring.peek().unwrap().seq.0, 3, "the newest frame stays");
    for (lease, value) in leases.into_iter().zip(1..) {
        assert!(lease.protected().unwrap().iter().all(|byte| *byte == value));
        lease.release().unwrap();
    }
    assert_eq!(publish(&mut writer, 64, 48, 4), 4);
}

#[test]
fn under_protect_a_leased_view_is_constant_while_a_writer_runs_at_full_speed() {
    let shm = Shm::new();
    let writer = full_speed(&shm, 6, LeasePolicy::Protect);
    let rounds = amount(200, 10_000);
    let ring = attach(&shm);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let lease = match ring.lease() {
                        Err(ReadError::Overrun { .. }) => continue,
                        lease => lease.unwrap(),
                    };
                    let seq = lease.frame().meta.seq.0;
                    assert_untorn(seq, lease.protected().expect("nothing is revoked under protect"));
                    until("the writer has gone round", || ring.status().seq.0 > seq + 12);
                    assert_untorn(seq, lease.protected().expect("nothing is revoked under protect"));
                    lease.release().unwrap();
                }
            });
        }
    });
    assert_eq!(ring.status().counter(Counter::LeasesRevoked), 0);
    writer.kill();
}

#[test]
fn under_fresh_a_view_that_ends_valid_was_constant_and_every_other_one_says_revoked() {
    let shm = Shm::new();
    let writer = full_speed(&shm, 3, LeasePolicy::Fresh);
    let ring = attach(&shm);
    let (mut valid, mut revoked) = (0, 0);
    for round in 0..amount(200, 20_000) {
        // Three frames in three slots: each further one takes the oldest lease away.
        let leases: Vec<Lease> = (0..3).filter_map(|_| ring.lease_next(Some(Duration::from_secs(60))).ok()).collect();
        let first: Vec<Vec<u8>> = leases.iter().map(bytes_now).collect();
        let lapped = round % 2 == 1;
        if lapped {
            until("the writer has gone round", || ring.status().seq.0 > ring.last_seq().0 + 3);
        }
        for (lease, first) in leases.into_iter().zip(first) {
            let (seq, second) = (lease.frame().meta.seq, bytes_now(&lease));
            match lease.release() {
                Ok(()) => {
                    assert!(!lapped, "frame {seq} was overwritten");
                    assert_untorn(seq.0, &first);
                    assert_untorn(seq.0, &second);
                    valid += 1;
                }
                Err(error) => {
                    assert_eq!(error, ReadError::Revoked { ring: "cam".into(), seq });
                    revoked += 1;
                }
            }
        }
    }
    assert!(valid > 0 && revoked > 0, "{valid} leases ended valid, {revoked} revoked");
    common::measured(format!("{valid} leases constant throughout, {revoked} reported as revoked"));
    writer.kill();
}

/// A copy that is not checked: whatever the bytes are while they are read.
fn bytes_now(lease: &Lease) -> Vec<u8> {
    let mut copy = vec![0; lease.len()];
    match lease.copy_to(&mut copy) {
        Ok(()) | Err(ReadError::Revoked { .. }) => copy,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn leases_of_many_threads_on_one_handle_do_not_end_each_other() {
    let shm = Shm::new();
    let writer = full_speed(&shm, 8, LeasePolicy::Protect);
    let ring = attach(&shm);
    let long = ring.lease().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if let Ok(lease) = ring.lease() {
                        assert_untorn(lease.frame().meta.seq.0, lease.protected().unwrap());
                    }
                }
            });
        }
        for _ in 0..amount(1, 300) {
            let begun = ring.status().seq.0;
            until("the writer has published many frames", || ring.status().seq.0 > begun + 3_000);
            assert!(long.is_valid());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_untorn(long.frame().meta.seq.0, long.protected().unwrap());
    long.release().unwrap();
    writer.kill();
}

#[test]
fn the_slots_of_a_killed_holder_are_free_when_it_is_gone() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Protect);
    publish(&mut writer, 64, 48, 1);
    let attach_options = shm.attach_options();
    let mut holder = Child::fork(move |line| {
        let ring = Ring::attach("cam", attach_options).unwrap();
        let mut leases = Vec::new();
        loop {
            leases.push(ring.lease_next(None).unwrap());
            line.say("leased");
        }
    });
    assert_eq!(holder.hear(), "leased");
    publish(&mut writer, 64, 48, 2);
    assert_eq!(holder.hear(), "leased");
    publish(&mut writer, 64, 48, 3);
    assert_eq!(holder.hear(), "leased");
    assert!(!has_room(&mut writer));
    holder.kill();
    assert!(has_room(&mut writer), "the kernel has dropped its locks");
}

#[test]
fn a_lease_outlives_its_handle() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Protect);
    publish(&mut writer, 64, 48, 1);
    let (one, two) = (attach(&shm), attach(&shm));
    let first = one.lease().unwrap();
    publish(&mut writer, 64, 48, 2);
    let second = two.lease().unwrap();
    publish(&mut writer, 64, 48, 3);
    drop((one, two));
    assert!(!has_room(&mut writer));
    assert!(second.protected().unwrap().iter().all(|byte| *byte == 2));
    second.release().unwrap();
    assert!(has_room(&mut writer));
    assert_eq!(bytes_of(&first), [1; LEN]);
    first.release().unwrap();
}

#[test]
fn a_lease_outlives_its_generation() {
    let shm = Shm::new();
    let mut options = shm.options("cam");
    options.lease_policy = LeasePolicy::Protect;
    let (mut writer, _) = Writer::start(options).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = attach(&shm);
    let old = ring.lease().unwrap();
    let generation = old.frame().generation;
    for round in 0..5 {
        publish(&mut writer, 640 << round, 480, 2);
        let new = ring.lease_next(None).unwrap();
        assert_ne!(new.frame().generation, generation);
        assert!(new.protected().unwrap().iter().all(|byte| *byte == 2));
    }
    assert!(old.protected().unwrap().iter().all(|byte| *byte == 1), "a retired generation is never written");
    old.release().unwrap();
    drop(ring);
    drop(writer);
}

#[test]
fn a_lease_outlives_a_killed_daemon_and_the_next_one_respects_it() {
    let shm = Shm::new();
    let first = WriterProcess::spawn(&shm, "cam", &["--fps", "0", "--slots", "4"]);
    let ring = attach(&shm);
    let lease = ring.lease_next(Some(Duration::from_secs(30))).unwrap();
    let seq = lease.frame().meta.seq.0;
    first.kill();
    for _ in 0..amount(5, 500) {
        let writer = WriterProcess::spawn(&shm, "cam", &["--fps", "0", "--slots", "4"]);
        let begun = ring.status().seq.0;
        until("the next writer has gone round many times", || ring.status().seq.0 > begun + 200);
        assert_untorn(seq, &bytes_of(&lease));
        writer.kill();
    }
    assert_eq!(ring.status().generation, lease.frame().generation, "every restart adopted the same file");
    lease.release().unwrap();
}

/// The descriptors of this process that lead to the ring's file.
fn descriptors_of(path: &Path) -> Vec<i32> {
    let wanted = std::fs::canonicalize(path).unwrap();
    let leads = |fd: &i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|found| found == wanted);
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(leads).collect()
}

#[test]
fn neither_a_closed_duplicate_nor_a_classic_lock_ends_a_lease() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Protect);
    let ring = attach(&shm);
    let mut leases = Vec::new();
    for value in 1..=3 {
        publish(&mut writer, 64, 48, value);
        leases.push(ring.lease().unwrap());
    }
    let path = shm.path().join("camring.d/cam");
    let found = descriptors_of(&path);
    assert!(!found.is_empty());
    for fd in found {
        let copy = duplicate(fd);
        assert_ne!(copy.as_raw_fd(), fd);
        classic_lock(&copy);
        classic_lock(&std::fs::File::open(&path).unwrap());
        drop(copy);
    }
    assert!(!has_room(&mut writer), "the leases are still there");
    assert!(leases.iter().all(Lease::is_valid));
}

#[test]
fn a_ring_without_leases_says_so_and_gives_copies() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Off);
    publish(&mut writer, 64, 48, 1);
    let ring = attach(&shm);
    assert_eq!(
        ring.lease().unwrap_err().to_string(),
        "ring \"cam\" cannot be leased: its lease policy is off; read copies instead"
    );
    assert_eq!(ring.latest(&mut Vec::new()).unwrap().meta.seq.0, 1);
}

#[test]
fn where_the_kernel_refuses_locks_leases_say_so_and_copies_go_on() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Fresh);
    publish(&mut writer, 64, 48, 1);
    let options = shm.attach_options();
    let confined = std::thread::spawn(move || {
        refuse_call(libc::SYS_fcntl, Some(libc::F_OFD_SETLK), libc::ENOLCK);
        let ring = Ring::attach("cam", options).unwrap();
        (ring.lease().unwrap_err().to_string(), ring.latest(&mut Vec::new()).unwrap().meta.seq.0)
    });
    let (error, seq) = confined.join().unwrap();
    assert_eq!(
        error,
        "ring \"cam\" cannot be leased: the kernel refuses the lock (No locks available (os error 37)); read copies instead"
    );
    assert_eq!(seq, 1);
}

#[test]
fn a_writer_that_cannot_ask_takes_no_slot_under_protect_and_goes_on_under_fresh() {
    for policy in [LeasePolicy::Protect, LeasePolicy::Fresh] {
        let shm = Shm::new();
        let mut writer = start(&shm, 3, policy);
        publish(&mut writer, 64, 48, 1);
        let lease = attach(&shm).lease().unwrap();
        let confined = std::thread::spawn(move || {
            refuse_call(libc::SYS_fcntl, Some(libc::F_OFD_SETLK), libc::ENOLCK);
            writer.claim(LEN as u64).is_ok()
        });
        assert_eq!(confined.join().unwrap(), policy == LeasePolicy::Fresh);
        assert_eq!(lease.protected().is_some(), policy == LeasePolicy::Protect);
    }
}

#[test]
fn a_plain_slice_is_given_only_where_nobody_else_may_write() {
    let shm = Shm::new();
    let mut options = options(&shm, 3, LeasePolicy::Protect);
    options.mode = 0o660;
    let (mut writer, _) = Writer::start(options).unwrap();
    publish(&mut writer, 64, 48, 1);
    let lease = attach(&shm).lease().unwrap();
    assert!(lease.is_valid() && lease.protected().is_none(), "the group may write this file");
    assert_eq!(bytes_of(&lease), [1; LEN]);
}

#[test]
fn a_writer_that_does_not_honour_leases_now_is_seen_by_those_who_hold_one() {
    use std::os::unix::fs::FileExt;
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Fresh);
    publish(&mut writer, 64, 48, 1);
    let lease = attach(&shm).lease().unwrap();
    assert!(lease.is_guarded());
    let file = std::fs::OpenOptions::new().write(true).open(shm.path().join("camring.cam")).unwrap();
    file.write_all_at(&1u32.to_le_bytes(), at::LEASE_NOW).unwrap();
    assert!(!lease.is_guarded());
    assert!(lease.is_valid(), "it is constant all the same, so far");
}

#[test]
fn an_ended_lease_frees_its_slot_and_tells_when_it_is_used_again() {
    let shm = Shm::new();
    let mut writer = start(&shm, 3, LeasePolicy::Protect);
    publish(&mut writer, 64, 48, 7);
    let ring = attach(&shm);
    let (ended, outcome) = ring.lease().unwrap().end();
    outcome.unwrap();
    drop(ring);
    assert!(ended.is_valid(), "nobody has used the slot since");
    for value in 8..12 {
        publish(&mut writer, 64, 48, value);
    }
    assert!(!ended.is_valid(), "the slot was free for the writer");
}
