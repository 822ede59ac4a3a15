//! C, Rust and the pattern agree on frames of a live ring that another process writes.

mod common;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use camring_ring::{AttachOptions, ReadError, Ring, ShmDir};
use common::{Asked, Synthetic, amount, measured, mount, program};

const SIZES: [(u64, u64); 2] = [(64, 48), (321, 241)];
const PER_SIZE: u64 = 25;

/// What the synthetic writer has put into frame `seq`.
fn expected(seq: u64) -> u32 {
    let (width, height) = SIZES[((seq - 1) / PER_SIZE % 2) as usize];
    let begin = seq * 31 % 251;
    let bytes: Vec<u8> = (begin..begin + width * height * 3).map(|k| (k % 251) as u8).collect();
    crc32fast::hash(&bytes)
}

/// Reads beside the C program until the writer has stopped.
fn read(ring: &Ring) -> BTreeMap<u64, u32> {
    let (mut seen, mut pixels) = (BTreeMap::new(), Vec::new());
    while seen.is_empty() || ring.status().state != camring_ring::State::Stopped {
        match ring.next(&mut pixels, Some(Duration::from_millis(200))) {
            Ok(frame) => drop(seen.insert(frame.meta.seq.0, crc32fast::hash(&pixels))),
            Err(ReadError::Timeout { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    seen
}

#[test]
fn c_and_rust_read_the_same_frames_of_a_live_ring() {
    // Before the writer starts: it does not wait for a compiler.
    let agree = program("tests/programs/agree.c");
    let shm = mount();
    let wanted = amount(300, 10_000);
    // Twice as many as wanted: a busy machine lets a reader skip.
    let frames = (wanted * 2).to_string();
    let options = ["--size", "64x48,321x241", "--per-size", "25", "--fps", "250", "--slots", "8"];
    let mut writer = Synthetic::start(shm.path(), "yard", &[&options[..], &["--frames", &frames]].concat());
    let ring =
        Ring::attach("yard", AttachOptions { shm: ShmDir::new(shm.path()), ..AttachOptions::default() }).unwrap();
    let mut c = Asked::start(&agree, shm.path(), &["yard", &wanted.to_string()]);
    let rust = thread::spawn(move || read(&ring));
    let (mut read_by_c, mut revoked) = (BTreeMap::new(), 0);
    while read_by_c.len() < wanted as usize {
        let line = c.line();
        let (seq, crc) = line.split_once(' ').expect("two words");
        match seq {
            "revoked" => revoked += 1,
            seq => drop(read_by_c.insert(seq.parse::<u64>().unwrap(), u32::from_str_radix(crc, 16).unwrap())),
        }
    }
    assert!(c.ends().success());
    while writer.is_running() {
        thread::park_timeout(Duration::from_millis(20));
    }
    let read_by_rust = rust.join().expect("no panic");
    for (reader, seen) in [("C", &read_by_c), ("Rust", &read_by_rust)] {
        let wrong: Vec<u64> = seen.iter().filter(|(seq, crc)| expected(**seq) != **crc).map(|(seq, _)| *seq).collect();
        assert_eq!(wrong, [], "frames that {reader} read wrongly");
    }
    let common = read_by_c.keys().filter(|seq| read_by_rust.contains_key(seq)).count();
    assert!(common as u64 > wanted / 10, "only {common} frames were read by both");
    let all = read_by_c.len();
    measured(format!("C read {all} frames right, {common} of them beside Rust; {revoked} leases were revoked"));
}
