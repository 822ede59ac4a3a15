//! Forked children: what they inherit ends with them and never touches what is their parent's.

mod common;

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camring_ring::{
    AttachOptions, Capacity, Lease, LeasePolicy, ReadError, Ring, RingName, Sequence, ShmDir, Writer, wait_any,
};
use common::system::{Child, Fork, Grandchild, Line, no_more_descriptors, replace_number};
use common::{Shm, amount, assert_untorn, publish, publish_pattern, until};

const LEN: u64 = 64 * 48 * 3;
const LONG: Option<Duration> = Some(Duration::from_secs(60));

/// A ring of three slots whose writer drops a frame rather than take a leased slot.
fn start(shm: &Shm) -> Writer {
    let mut options = shm.options("cam");
    (options.slots, options.lease_policy, options.capacity) = (3, LeasePolicy::Protect, Capacity::Bytes(64 * 1024));
    Writer::start(options).unwrap().0
}

fn has_room(writer: &mut Writer) -> bool {
    writer.claim(LEN).is_ok()
}

/// Leases the frames as they come, until every slot is leased.
fn lease_all(ring: &Ring, line: &mut Line) -> Vec<Lease> {
    (0..3)
        .map(|_| {
            let lease = ring.lease_next(LONG).unwrap();
            line.say("leased");
            lease
        })
        .collect()
}

/// A process that attaches and leases every slot, then goes on with `act`.
fn holder(shm: &Shm, writer: &mut Writer, act: impl FnOnce(&Ring, Vec<Lease>, &mut Line)) -> Child {
    let options = shm.attach_options();
    let mut holder = Child::fork(move |line| {
        let ring = Ring::attach("cam", options).unwrap();
        let leases = lease_all(&ring, line);
        act(&ring, leases, line);
    });
    for value in 1..=3 {
        publish(writer, 64, 48, value);
        assert_eq!(holder.hear(), "leased");
    }
    assert!(!has_room(writer), "every slot is leased");
    holder
}

#[test]
fn a_killed_parents_leases_end_although_its_child_lives() {
    let shm = Shm::new();
    let mut writer = start(&shm);
    let mut parent = holder(&shm, &mut writer, |_, leases, line| {
        let mut child = Child::fork(|line| {
            line.say("here");
            line.hear();
        });
        assert_eq!(child.hear(), "here");
        line.say(&child.pid.to_string());
        line.hear();
        drop(leases);
    });
    let child = Grandchild(parent.hear().parse().unwrap());
    assert!(!has_room(&mut writer));
    parent.kill();
    assert!(child.is_running(), "the child is still there");
    assert!(has_room(&mut writer), "and holds none of its parent's slots");
}

#[test]
fn a_child_without_a_free_descriptor_number_gives_its_parents_leases_up_as_well() {
    let shm = Shm::new();
    let mut writer = start(&shm);
    let mut parent = holder(&shm, &mut writer, |_, leases, line| {
        no_more_descriptors();
        let child = Child::fork_silent(|| {
            loop {
                std::thread::park();
            }
        });
        line.say(&child.to_string());
        line.hear();
        drop(leases);
    });
    let child = Grandchild(parent.hear().parse().unwrap());
    parent.kill();
    // Its handler may not have run yet when the parent is killed.
    until("the child has given up what it inherited", || has_room(&mut writer));
    assert!(child.is_running());
}

#[test]
fn what_a_child_inherits_is_revoked_there_and_its_end_changes_nothing_for_the_parent() {
    for how in [Fork::Handled, Fork::Bare] {
        let shm = Shm::new();
        let mut writer = start(&shm);
        let parent = holder(&shm, &mut writer, move |_, leases, line| {
            let mut inherited = Some(leases);
            let child = Child::made_by(how, |_| {
                for (lease, seq) in inherited.take().unwrap().into_iter().zip(1..) {
                    assert!(!lease.is_valid() && !lease.is_guarded() && lease.protected().is_none());
                    let revoked = ReadError::Revoked { ring: "cam".into(), seq: Sequence(seq) };
                    assert_eq!(lease.copy_to(&mut [0; LEN as usize]), Err(revoked.clone()));
                    assert_eq!(lease.release(), Err(revoked));
                }
            });
            child.end();
            let leases = inherited.unwrap();
            assert!(leases.iter().all(Lease::is_valid), "they are the parent's as before");
            line.say("child ended");
            assert_eq!(line.hear(), "go on");
            for (lease, value) in leases.into_iter().zip(1..) {
                assert!(lease.protected().unwrap().iter().all(|byte| *byte == value));
                lease.release().unwrap();
            }
        });
        let mut parent = parent;
        assert_eq!(parent.hear(), "child ended");
        assert!(!has_room(&mut writer), "{how:?}: the child's release has dropped its parent's leases");
        parent.say("go on");
        parent.end();
        assert!(has_room(&mut writer));
    }
}

#[test]
fn a_child_uses_an_inherited_handle_as_its_own() {
    for how in [Fork::Handled, Fork::Bare] {
        let shm = Shm::new();
        let mut writer = start(&shm);
        publish(&mut writer, 64, 48, 1);
        let options = shm.attach_options();
        let mut parent = Child::fork(move |line| {
            let ring = Ring::attach("cam", options).unwrap();
            let lease = ring.lease().unwrap();
            let mut child = Child::made_by(how, |line| {
                let own = ring.lease().unwrap();
                assert_eq!((own.frame().meta.seq.0, own.frame().skipped), (1, 0));
                assert!(own.is_valid() && own.protected().unwrap().iter().all(|byte| *byte == 1));
                line.say("leased");
                let frame = ring.next(&mut Vec::new(), LONG).unwrap();
                assert_eq!(wait_any(&[&ring], Some(Duration::ZERO)), [0; 0]);
                let grandchild = Child::fork(|_| {
                    assert_eq!(ring.latest(&mut Vec::new()).unwrap().meta.seq, frame.meta.seq);
                    assert!(!own.is_valid());
                });
                grandchild.end();
                let pid = std::process::id();
                assert!(ring.readers().contains(&pid), "{:?} without {pid}", ring.readers());
                own.release().unwrap();
            });
            assert_eq!(child.hear(), "leased");
            line.say("publish");
            child.end();
            assert!(lease.is_valid());
            assert_eq!(ring.last_seq().0, 1, "the parent's handle has not seen what the child has");
            assert_eq!(ring.next(&mut Vec::new(), LONG).unwrap().meta.seq.0, 2);
            lease.release().unwrap();
        });
        assert_eq!(parent.hear(), "publish");
        publish(&mut writer, 64, 48, 2);
        parent.end();
    }
}

#[test]
fn a_child_reads_on_although_a_thread_of_its_parent_was_in_the_middle_of_the_handle() {
    let shm = Shm::new();
    let mut options = shm.options("cam");
    options.slots = 16;
    let (mut writer, _) = Writer::start(options).unwrap();
    publish_pattern(&mut writer, 64, 48);
    let options = shm.attach_options();
    let rounds = amount(100, 5_000);
    let parent = Child::fork(move |_| {
        let ring = Ring::attach("cam", options).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        drop(ring.lease().unwrap());
                        drop(Ring::attach("cam", ring.options().clone()).unwrap());
                    }
                });
            }
            for _ in 0..rounds {
                let child = Child::fork(|_| {
                    let mut pixels = Vec::new();
                    let frame = ring.latest(&mut pixels).unwrap();
                    assert_untorn(frame.meta.seq.0, &pixels);
                    ring.lease().unwrap().release().unwrap();
                });
                child.end();
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    parent.end();
}

#[test]
fn a_child_that_cannot_open_the_ring_reads_what_it_has_inherited() {
    let shm = Shm::new();
    let mut writer = start(&shm);
    publish(&mut writer, 64, 48, 1);
    let options = shm.attach_options();
    let mut parent = Child::fork(move |line| {
        let ring = Ring::attach("cam", options).unwrap();
        let mut child = Child::fork(|line| {
            line.say("forked");
            assert_eq!(line.hear(), "names are gone");
            let mut pixels = Vec::new();
            assert_eq!((ring.latest(&mut pixels).unwrap().meta.seq.0, pixels[0]), (1, 1));
            assert_eq!(
                ring.lease().unwrap_err().to_string(),
                "ring \"cam\" cannot be leased: this process was forked, and the ring could not be opened again so far; \
                 read copies instead"
            );
            line.say("read");
            assert_eq!(line.hear(), "names are back");
            let seq = ring.next(&mut pixels, LONG).unwrap().meta.seq;
            until("the child has a ring of its own", || ring.lease().is_ok());
            assert!(ring.peek().unwrap().seq >= seq);
        });
        assert_eq!(child.hear(), "forked");
        for word in ["forked", "read"] {
            line.say(word);
            let order = line.hear();
            child.say(&order);
            if word == "forked" {
                assert_eq!(child.hear(), "read");
            }
        }
        child.end();
    });
    assert_eq!(parent.hear(), "forked");
    for name in ["camring.cam", "camring.d/cam"] {
        std::fs::rename(shm.path().join(name), shm.path().join(name.replace("cam", "other"))).unwrap_or_else(|_| {
            std::fs::remove_file(shm.path().join(name)).unwrap();
        });
    }
    parent.say("names are gone");
    assert_eq!(parent.hear(), "read");
    writer.status().settle_names().unwrap();
    publish(&mut writer, 64, 48, 2);
    parent.say("names are back");
    parent.end();
}

#[test]
fn a_killed_writers_ring_can_be_written_again_although_its_child_lives() {
    let shm = Shm::new();
    let options = shm.options("cam");
    let mut daemon = Child::fork(move |line| {
        let (mut writer, _) = Writer::start(options).unwrap();
        publish(&mut writer, 64, 48, 1);
        let mut child = Child::fork(|line| {
            line.say("here");
            line.hear();
        });
        assert_eq!(child.hear(), "here");
        line.say(&child.pid.to_string());
        line.hear();
    });
    let child = Grandchild(daemon.hear().parse().unwrap());
    assert!(Writer::start(shm.options("cam")).is_err(), "the daemon writes it");
    daemon.kill();
    assert!(child.is_running());
    let (mut writer, started) = Writer::start(shm.options("cam")).unwrap();
    assert!(started.adopted, "{started:?}");
    assert_eq!(publish(&mut writer, 64, 48, 2), 2);
}

#[test]
fn a_number_that_somebody_has_closed_and_reused_is_left_alone_in_children() {
    let shm = Shm::new();
    let mut writer = start(&shm);
    publish(&mut writer, 64, 48, 1);
    let file = shm.path().join("other");
    std::fs::write(&file, "precious").unwrap();
    let options = shm.attach_options();
    let parent = Child::fork(move |_| {
        let ring = Ring::attach("cam", options).unwrap();
        let lease = ring.lease().unwrap();
        let anchor = std::fs::canonicalize(ring.options().shm.root().join("camring.d/cam")).unwrap();
        let leads = |fd: &i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|found| found == anchor);
        let number = (3..100).find(leads).unwrap();
        replace_number(&std::fs::File::open(&file).unwrap(), number);
        // The lease is the last that needs the descriptor, and ends in the child.
        drop(ring);
        let child = Child::fork(|_| {
            let found = || std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
            assert_eq!(found(), file, "another file has this number now");
            drop(lease);
            assert_eq!(found(), file, "it was closed by somebody who did not own it");
        });
        child.end();
    });
    parent.end();
}

#[test]
fn a_handle_is_made_again_from_its_name_and_options_in_another_process() {
    let shm = Shm::new();
    let mut writer = start(&shm);
    publish(&mut writer, 64, 48, 9);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    // What a pickle of the handle would carry.
    let (name, root) = (ring.name().to_owned(), ring.options().shm.root().to_owned());
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .args(["--ignored", "--exact", "--nocapture", "reader_made_from_words"])
        .env("CAMRING_TEST_RING", name)
        .env("CAMRING_TEST_SHM", root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the other side of a_handle_is_made_again_from_its_name_and_options_in_another_process"]
fn reader_made_from_words() {
    let name = std::env::var("CAMRING_TEST_RING").unwrap();
    let shm = ShmDir::new(std::env::var("CAMRING_TEST_SHM").unwrap());
    let ring = Ring::attach(&name, AttachOptions { shm, ..AttachOptions::default() }).unwrap();
    let lease = ring.lease().unwrap();
    assert!(lease.protected().unwrap().iter().all(|byte| *byte == 9));
    lease.release().unwrap();
}

#[test]
fn forking_over_and_over_neither_piles_up_descriptors_nor_children() {
    let shm = Shm::new();
    let mut writer = start(&shm);
    publish(&mut writer, 64, 48, 1);
    let options = shm.attach_options();
    let parent = Child::fork(move |_| {
        let ring = Ring::attach("cam", options).unwrap();
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        for _ in 0..amount(50, 2_000) {
            Child::fork(|_| {
                // Its own pipe ends, and no more.
                let inherited = count();
                drop(ring.lease().unwrap());
                assert_eq!(count(), inherited + 1, "one descriptor for its own attachment");
            })
            .end();
        }
        assert_eq!(count(), before);
    });
    parent.end();
    drop(writer);
    camring_ring::remove(&shm.dir(), &RingName::new("cam").unwrap()).unwrap();
}

#[test]
fn descriptors_given_up_lead_to_nothing_in_the_child() {
    let shm = Shm::new();
    let mut writer = start(&shm);
    publish(&mut writer, 64, 48, 1);
    let options = shm.attach_options();
    let parent = Child::fork(move |_| {
        let rings: Vec<Ring> = (0..100).map(|_| Ring::attach("cam", options.clone()).unwrap()).collect();
        let inode = std::fs::canonicalize(rings[0].options().shm.root().join("camring.d/cam")).unwrap();
        let leading = || {
            let numbers = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            numbers.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|found| found == inode)).count()
        };
        assert_eq!(leading(), 100);
        Child::fork(|_| {
            assert_eq!(leading(), 0);
            let null = std::fs::File::open("/dev/null").unwrap();
            assert!(null.as_raw_fd() > 0);
        })
        .end();
        assert_eq!(leading(), 100);
    });
    parent.end();
}
