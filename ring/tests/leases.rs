//! Leases: frames read in place, slots that the writer leaves alone, and what becomes of both.

mod common;

use camring_ring::{LeasePolicy, ReadError, Ring, Writer, WriterOptions};
use common::{Shm, publish};

fn options(shm: &Shm, slots: u32, policy: LeasePolicy) -> WriterOptions {
    let mut options = shm.options("cam");
    (options.slots, options.lease_policy) = (slots, policy);
    options
}

#[test]
fn a_lease_shows_the_newest_frame_in_place_and_ends_valid() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(options(&shm, 4, LeasePolicy::Protect)).unwrap();
    publish(&mut writer, 64, 48, 7);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let lease = ring.lease().unwrap();
    assert_eq!((lease.frame().meta.seq.0, lease.len(), lease.is_empty()), (1, 64 * 48 * 3, false));
    for value in 8..40 {
        publish(&mut writer, 64, 48, value);
    }
    assert!(lease.is_valid() && lease.is_guarded());
    assert!(lease.protected().unwrap().iter().all(|byte| *byte == 7), "the writer has used the slot");
    let mut copy = vec![0; lease.len()];
    lease.copy_to(&mut copy).unwrap();
    assert_eq!(copy, vec![7; 64 * 48 * 3]);
    assert_eq!(lease.copy_to(&mut [0]).unwrap_err(), ReadError::BufferSize { found: 1, expected: 64 * 48 * 3 });
    lease.release().unwrap();
    assert_eq!(ring.last_seq().0, 1, "a lease counts as returned");
}

#[test]
fn an_ended_lease_frees_its_slot_and_tells_when_it_is_used_again() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(options(&shm, 3, LeasePolicy::Protect)).unwrap();
    publish(&mut writer, 64, 48, 7);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let lease = ring.lease().unwrap();
    let (ended, outcome) = lease.end();
    outcome.unwrap();
    drop(ring);
    assert!(ended.is_valid(), "nobody has used the slot since");
    for value in 8..12 {
        publish(&mut writer, 64, 48, value);
    }
    assert!(!ended.is_valid(), "the slot was free for the writer");
}
