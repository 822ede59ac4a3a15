//! Leases as the writer sees them: which slot it takes under each policy, and what readers' locks can do to its time.

mod common;
mod holder;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use camring_ring::layout::at;
use camring_ring::{
    ClaimError, Counter, FrameMeta, Geometry, Housekeeping, HousekeepingEvent, LeasePolicy, PixelFormat, Ring, Writer,
};
use common::{Shm, WriterProcess, publish, until};
use holder::Holder;

fn public(shm: &Shm) -> std::path::PathBuf {
    shm.path().join("camring.cam")
}

/// A word of the header, as another process sees it.
fn header_u32(shm: &Shm, offset: u64) -> u32 {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 4];
    std::fs::File::open(public(shm)).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    u32::from_le_bytes(bytes)
}

/// The slot that the head names.
fn head_slot(shm: &Shm) -> u64 {
    u64::from(header_u32(shm, at::HEAD) & 0xFFFF)
}

/// A writer with three slots of this policy, and two frames in it.
fn small_ring(shm: &Shm, policy: LeasePolicy) -> (Writer, Ring) {
    let mut options = shm.options("cam");
    (options.slots, options.lease_policy) = (3, policy);
    let (mut writer, _) = Writer::start(options).unwrap();
    publish(&mut writer, 64, 48, 1);
    publish(&mut writer, 64, 48, 2);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    (writer, ring)
}

fn counts(ring: &Ring) -> [u64; 4] {
    let status = ring.status();
    [Counter::LeaseConflicts, Counter::LeasesRevoked, Counter::DroppedNoSlot, Counter::LeaseLockSlow]
        .map(|counter| status.counter(counter))
}

#[test]
fn a_leased_slot_is_left_alone_while_another_one_is_free() {
    let shm = Shm::new();
    let (mut writer, ring) = small_ring(&shm, LeasePolicy::Fresh);
    let mut holder = Holder::new(&public(&shm));
    let leased = head_slot(&shm);
    holder.say("hold", ring.layout().lease_lock_base + leased, 1, 1);
    for value in 3..=20 {
        publish(&mut writer, 64, 48, value);
        assert_ne!(head_slot(&shm), leased, "frame {value} was written into the leased slot");
    }
    assert_eq!(counts(&ring), [0; 4]);
    holder.kill();
    until("the dead reader's slot is used again", || {
        publish(&mut writer, 64, 48, 9);
        head_slot(&shm) == leased
    });
}

#[test]
fn policy_fresh_takes_the_oldest_leased_slot_and_counts_it() {
    let shm = Shm::new();
    let (mut writer, ring) = small_ring(&shm, LeasePolicy::Fresh);
    let mut holder = Holder::new(&public(&shm));
    holder.say("hold", ring.layout().lease_lock_base, 3, 1);
    let before = head_slot(&shm);
    for (done, value) in (3..=10).enumerate() {
        publish(&mut writer, 64, 48, value);
        assert_eq!(counts(&ring), [done as u64 + 1, done as u64 + 1, 0, 0]);
    }
    assert_eq!(ring.peek().unwrap().seq.0, 10);
    // Two frames were there, so the first slot taken was the empty one, and from then on they take turns.
    assert_eq!((before, head_slot(&shm)), (1, 0));
}

#[test]
fn policy_protect_drops_the_frame_and_says_why() {
    let shm = Shm::new();
    let (mut writer, ring) = small_ring(&shm, LeasePolicy::Protect);
    let mut holder = Holder::new(&public(&shm));
    let base = ring.layout().lease_lock_base;
    holder.say("hold", base, 3, 1);
    for refused in 1..=5 {
        let error = writer.claim(64 * 48 * 3).unwrap_err();
        assert!(matches!(error, ClaimError::Leased), "{error}");
        assert_eq!(
            error.to_string(),
            "no slot is free: readers lease all of them and the lease policy is protect; release leases sooner, set \
             more slots or the policy fresh"
        );
        writer.count_drop(Counter::DroppedNoSlot);
        assert_eq!(counts(&ring), [refused, 0, refused, 0]);
    }
    assert_eq!(ring.peek().unwrap().seq.0, 2, "the newest frame stays");
    holder.say("free", base, 1, 1);
    assert_eq!(publish(&mut writer, 64, 48, 3), 3, "the numbers go on without a hole");
    assert_eq!(ring.peek().unwrap().dropped_before, 5);
}

#[test]
fn policy_off_asks_nobody() {
    let shm = Shm::new();
    let (mut writer, ring) = small_ring(&shm, LeasePolicy::Off);
    let mut holder = Holder::new(&public(&shm));
    holder.say("hold", ring.layout().lease_lock_base, 3, 1);
    for value in 3..=10 {
        publish(&mut writer, 64, 48, value);
    }
    assert_eq!((ring.peek().unwrap().seq.0, counts(&ring)), (10, [0; 4]));
    assert_eq!(ring.layout().lease_policy, LeasePolicy::Off as u32);
}

#[test]
fn slots_that_are_all_being_written_are_another_error_than_leased_ones() {
    let shm = Shm::new();
    let (mut writer, ring) = small_ring(&shm, LeasePolicy::Protect);
    let taken = [writer.claim(9216).unwrap(), writer.claim(9216).unwrap()];
    let error = writer.claim(9216).unwrap_err();
    assert!(matches!(error, ClaimError::NoSlot), "{error}");
    assert_eq!(counts(&ring)[0], 0, "nobody leases anything");
    drop(taken);
    assert_eq!(publish(&mut writer, 64, 48, 3), 3);
}

#[test]
fn each_policy_does_in_a_process_of_its_own_what_it_says() {
    for (policy, expected) in [("fresh", "flows"), ("protect", "stands"), ("off", "flows")] {
        let shm = Shm::new();
        let _writer = WriterProcess::spawn(&shm, "cam", &["--fps", "500", "--slots", "4", "--policy", policy]);
        let ring = Ring::attach("cam", shm.attach_options()).unwrap();
        until("frames come", || ring.peek().is_ok_and(|meta| meta.seq.0 > 10));
        let mut holder = Holder::new(&public(&shm));
        holder.say("hold", ring.layout().lease_lock_base, 4, 1);
        let held_at = ring.peek().unwrap().seq.0;
        if expected == "flows" {
            until("frames go on", || ring.peek().is_ok_and(|meta| meta.seq.0 > held_at + 50));
        } else {
            until("frames are dropped", || counts(&ring)[2] > 20);
            let stands_at = ring.peek().unwrap().seq;
            let dropped = counts(&ring)[2];
            until("more are dropped", || counts(&ring)[2] > dropped + 20);
            assert_eq!(ring.peek().unwrap().seq, stands_at, "{policy}");
        }
        let [conflicts, revoked, dropped, _] = counts(&ring);
        assert_eq!(
            (conflicts > 0, revoked > 0, dropped > 0),
            match policy {
                "fresh" => (true, true, false),
                "protect" => (true, false, true),
                _ => (false, false, false),
            }
        );
        holder.kill();
        let seq = ring.peek().unwrap().seq.0;
        until("frames come again", || ring.peek().is_ok_and(|meta| meta.seq.0 > seq + 10));
    }
}

/// So many locks make a claim too slow on the machines we know; where they do not, more are added.
const MANY: u64 = 10_000;
const MORE: u64 = 2_000;

/// Publishes frames while a reader holds ever more locks, until `tripped`; none of the frames is lost.
fn trip(writer: &mut Writer, ring: &Ring, holder: &mut Holder, mut tripped: impl FnMut() -> bool) {
    // Downwards: the kernel inserts at the front of its list.
    let mut next = ring.layout().presence_lock_base + (1 << 43);
    let mut hold = |count: u64| {
        holder.say("hold", next, count, -2);
        next -= 2 * count;
    };
    hold(MANY);
    let mut seq = ring.peek().unwrap().seq.0;
    until("the guard trips", || {
        frame(writer);
        seq += 1;
        assert_eq!(ring.peek().unwrap().seq.0, seq, "every frame is published");
        if seq.is_multiple_of(100) {
            hold(MORE);
        }
        tripped()
    });
}

/// A writer of this policy under housekeeping, what that has told, and a reader of it.
fn watched(shm: &Shm, policy: LeasePolicy) -> (Writer, Housekeeping, Arc<Mutex<Vec<HousekeepingEvent>>>, Ring) {
    let mut options = shm.options("cam");
    options.lease_policy = policy;
    let (mut writer, _) = Writer::start(options).unwrap();
    publish(&mut writer, 64, 48, 1);
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let house = Housekeeping::spawn(writer.status(), move |event| heard.lock().unwrap().push(event)).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    (writer, house, events, ring)
}

/// Claims and publishes one frame.
fn frame(writer: &mut Writer) {
    let geometry = Geometry::packed(64, 48, PixelFormat::Bgr).unwrap();
    let slot = writer.claim(geometry.len).unwrap();
    writer.publish(slot, FrameMeta::new(geometry)).unwrap();
}

#[test]
fn a_reader_with_thousands_of_locks_ends_leases_for_a_while_and_never_frames() {
    let shm = Shm::new();
    let (mut writer, _house, events, ring) = watched(&shm, LeasePolicy::Fresh);
    assert_eq!(header_u32(&shm, at::LEASE_NOW), 0);
    let mut holder = Holder::new(&public(&shm));
    trip(&mut writer, &ring, &mut holder, || header_u32(&shm, at::LEASE_NOW) == 1);
    assert!(counts(&ring)[3] >= 3, "three confirmed claims");
    until("the log is told", || !events.lock().unwrap().is_empty());
    match &events.lock().unwrap()[..] {
        [HousekeepingEvent::LocksSlow { locks: Some(locks), pause: Some(pause) }] => {
            // The kernel skips some when others on this host release theirs meanwhile.
            assert!(*locks as u64 >= MANY / 2, "{locks} locks counted of {MANY}");
            assert_eq!(*pause, Duration::from_secs(10));
        }
        other => panic!("{other:?}"),
    }
    // Meanwhile a lease is no obstacle: every slot is taken in turn, locked or not.
    let slow = counts(&ring)[3];
    holder.say("hold", ring.layout().lease_lock_base, 8, 1);
    for _ in 0..100 {
        frame(&mut writer);
    }
    assert_eq!(counts(&ring), [0, 0, 0, slow], "locks were asked about although the guard had tripped");
    holder.kill();
    until("leases are honoured again", || {
        frame(&mut writer);
        header_u32(&shm, at::LEASE_NOW) == 0
    });
    until("and the log is told", || events.lock().unwrap().last() == Some(&HousekeepingEvent::LocksFine));
    let mut holder = Holder::new(&public(&shm));
    holder.say("hold", ring.layout().lease_lock_base, 8, 1);
    frame(&mut writer);
    assert_eq!(counts(&ring), [1, 1, 0, slow]);
}

#[test]
fn under_protect_the_guard_only_counts_and_says_so() {
    let shm = Shm::new();
    let (mut writer, _house, events, ring) = watched(&shm, LeasePolicy::Protect);
    let mut holder = Holder::new(&public(&shm));
    trip(&mut writer, &ring, &mut holder, || !events.lock().unwrap().is_empty());
    let told = events.lock().unwrap().clone();
    assert!(matches!(told[..], [HousekeepingEvent::LocksSlow { locks: Some(_), pause: None }]), "{told:?}");
    assert!(counts(&ring)[3] >= 3);
    holder.say("hold", ring.layout().lease_lock_base, 8, 1);
    assert!(matches!(writer.claim(9216), Err(ClaimError::Leased)), "a lease holds all the same");
    assert_eq!(header_u32(&shm, at::LEASE_NOW), 0);
}
