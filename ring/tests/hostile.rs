//! Damaged and hostile segments: any bytes give an error or a frame, never a crash, a hang or an access outside.

mod common;

use std::os::unix::fs::FileExt;
use std::time::Duration;

use camring_ring::layout::{CONFIG_BYTES, Layout, SLOT_HEADER_BYTES, at, crc32c};
use camring_ring::{AttachError, ReadError, Ring, Writer};
use common::{Shm, publish};

/// A small generator of repeatable numbers (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

fn ring_with_frames(shm: &Shm) {
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    for value in 1..=10 {
        publish(&mut writer, 64, 48, value);
    }
}

fn file(shm: &Shm) -> std::fs::File {
    std::fs::OpenOptions::new().read(true).write(true).open(shm.path().join("camring.d/cam")).unwrap()
}

fn attach_now(shm: &Shm) -> Result<Ring, AttachError> {
    let mut options = shm.attach_options();
    options.timeout = Some(Duration::ZERO);
    Ring::attach("cam", options)
}

/// Uses everything a reader has; only the absence of crashes and hangs is asserted.
fn exercise(ring: &Ring) {
    let mut pixels = Vec::new();
    let _ = ring.latest(&mut pixels);
    let _ = ring.next(&mut pixels, Some(Duration::ZERO));
    let _ = (ring.status(), ring.liveness(), ring.peek(), ring.readers());
}

#[test]
fn any_bytes_in_the_hot_line_and_the_slot_headers_are_survived() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    let file = file(&shm);
    let mut random = Random(0x5EED);
    for round in 0..3_000 {
        let table = 4096..4096 + 8 * u64::from(SLOT_HEADER_BYTES);
        let places = 1 + random.next() % 8;
        for _ in 0..places {
            let offset = match random.next() % 3 {
                0 => CONFIG_BYTES as u64 + random.next() % 0x100,
                _ => table.start + random.next() % (table.end - table.start),
            } & !7;
            let value =
                [0, 1, u64::MAX, random.next(), random.next() >> 32, random.next() & 0xFF][random.next() as usize % 6];
            file.write_all_at(&value.to_le_bytes(), offset).unwrap();
        }
        // Retired for good is a legal reading of random bytes, and not what this test is after.
        file.write_all_at(&[0; 4], at::RETIRED).unwrap();
        match attach_now(&shm) {
            Ok(ring) => exercise(&ring),
            Err(error) => panic!("round {round}: the header itself was not touched: {error}"),
        }
    }
}

#[test]
fn headers_with_a_right_checksum_and_wrong_fields_are_refused() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    let file = file(&shm);
    let mut good = [0; CONFIG_BYTES];
    file.read_exact_at(&mut good, 0).unwrap();
    let size = file.metadata().unwrap().len();
    let mut random = Random(0xBAD);
    for _ in 0..2_000 {
        let mut bytes = good;
        let offset = (0x28 + (random.next() % 0x48) as usize) & !3;
        let value = [0u32, u32::MAX, random.next() as u32, 1 << 31, 4096][random.next() as usize % 5];
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        let crc = crc32c(&bytes[..at::HEADER_CRC32C as usize]);
        bytes[at::HEADER_CRC32C as usize..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&bytes, 0).unwrap();
        match attach_now(&shm) {
            Ok(ring) => exercise(&ring),
            Err(AttachError::Layout { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let _ = Layout::decode(&bytes, size);
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    for size in [1, 511, 512, 4096, 65_536] {
        file(&shm).set_len(size).unwrap();
        let error = attach_now(&shm).unwrap_err();
        assert!(matches!(error, AttachError::Layout { .. }), "{size} bytes: {error}");
    }
}

#[test]
fn a_format_from_the_future_is_an_error_and_never_garbage() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    for slot in 0..8u64 {
        file(&shm).write_all_at(&99u32.to_le_bytes(), 4096 + slot * 256 + 0x18).unwrap();
    }
    let error = attach_now(&shm).unwrap().latest(&mut Vec::new()).unwrap_err();
    assert_eq!(error, ReadError::UnknownFormat { ring: "cam".into(), format: 99 });
}

#[test]
fn a_damaged_ring_is_replaced_by_the_next_writer_and_never_crashes_it() {
    let damage: [(&str, u64, u64); 5] = [
        ("magic", at::MAGIC, 0x4141_4141),
        ("checksum", at::HEADER_CRC32C & !7, u64::MAX),
        ("head slot", at::HEAD, 5 << 16 | 60_000),
        ("head number", at::HEAD, u64::MAX),
        ("newest stamp", 4096 + 256, 0xFFFF),
    ];
    for (what, offset, value) in damage {
        let shm = Shm::new();
        ring_with_frames(&shm);
        file(&shm).write_all_at(&value.to_le_bytes(), offset).unwrap();
        let (mut writer, started) = Writer::start(shm.options("cam")).unwrap();
        assert!(!started.adopted && started.not_adopted.is_some(), "{what}: {started:?}");
        publish(&mut writer, 64, 48, 9);
        let mut pixels = Vec::new();
        attach_now(&shm).unwrap().latest(&mut pixels).unwrap();
        assert_eq!(pixels, vec![9; 64 * 48 * 3], "{what}");
    }
}

#[test]
fn half_written_slots_are_emptied_when_the_ring_is_adopted() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    let stamp = |slot: u64| 4096 + slot * 256;
    let file = file(&shm);
    let mut head = [0; 8];
    file.read_exact_at(&mut head, at::HEAD).unwrap();
    let newest = u64::from_le_bytes(head) & 0xFFFF;
    let other = (newest + 3) % 8;
    file.write_all_at(&5u64.to_le_bytes(), stamp(other)).unwrap();
    let (_writer, started) = Writer::start(shm.options("cam")).unwrap();
    assert!(started.adopted, "{started:?}");
    assert_eq!(started.torn_repaired, 1);
}

#[test]
fn a_frame_finished_before_the_crash_reached_the_head_becomes_the_newest() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    let file = file(&shm);
    let mut head = [0; 8];
    file.read_exact_at(&mut head, at::HEAD).unwrap();
    let word = u64::from_le_bytes(head);
    let before_newest = (((word >> 16) - 1) << 16) | (((word & 0xFFFF) + 7) % 8);
    file.write_all_at(&before_newest.to_le_bytes(), at::HEAD).unwrap();
    let (_writer, started) = Writer::start(shm.options("cam")).unwrap();
    assert!(started.adopted, "{started:?}");
    assert_eq!(attach_now(&shm).unwrap().peek().unwrap().seq.0, word >> 16);
}
