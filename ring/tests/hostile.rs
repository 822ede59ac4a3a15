//! Damaged and hostile segments: any bytes give an error or a frame, never a crash, a hang or an access outside.

mod common;
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use camring_ring::layout::{
    ABI_MAJOR, CONFIG_BYTES, HUGE_ALIGN, HUGE_FROM, Layout, PAGE_ALIGN, SLOT_HEADER_BYTES, SLOTS_MAX, SLOTS_MIN, at,
    crc32c,
};
use camring_ring::{AttachError, Frame, ReadError, Ring, Writer};
use common::{Shm, amount, measured, publish};
use fuzz::{AttachBench, ReadBench, exercise, text};

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

/// A configuration that says of itself what `change` makes of it, with a right checksum.
fn put_config(file: &std::fs::File, change: impl Fn(&mut [u8; CONFIG_BYTES])) {
    let mut bytes = [0; CONFIG_BYTES];
    file.read_exact_at(&mut bytes, 0).unwrap();
    change(&mut bytes);
    let crc = crc32c(&bytes[..at::HEADER_CRC32C as usize]);
    bytes[at::HEADER_CRC32C as usize..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&bytes, 0).unwrap();
}

#[test]
fn readers_of_the_minor_version_before_and_after_read_each_others_rings() {
    for minor in [0u16, 1, 2, u16::MAX] {
        let shm = Shm::new();
        ring_with_frames(&shm);
        put_config(&file(&shm), |bytes| bytes[at::ABI_MINOR as usize..][..2].copy_from_slice(&minor.to_le_bytes()));
        let ring = attach_now(&shm).unwrap();
        assert_eq!(ring.layout().abi_minor, minor);
        let mut pixels = Vec::new();
        assert_eq!(ring.latest(&mut pixels).unwrap().meta.seq.0, 10, "minor version {minor}");
        assert_eq!(pixels, vec![10; 64 * 48 * 3]);
    }
}

#[test]
fn a_feature_that_may_be_ignored_is_ignored_and_one_that_must_be_known_is_refused() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    let file = file(&shm);
    put_config(&file, |bytes| bytes[at::FEATURE_COMPAT as usize..][..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    assert_eq!(attach_now(&shm).unwrap().latest(&mut Vec::new()).unwrap().meta.seq.0, 10);
    for bit in [0, 17, 63] {
        put_config(&file, |bytes| {
            bytes[at::FEATURE_INCOMPAT as usize..][..8].copy_from_slice(&(1u64 << bit).to_le_bytes());
        });
        let error = attach_now(&shm).unwrap_err();
        let expected = format!(
            "segment \"cam\" has layout version 1.0 with the unknown features {:#x} but this build speaks layout \
             version 1.0; upgrade the older of the two",
            1u64 << bit
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_ring_of_another_major_version_is_refused_with_both_versions() {
    for (major, minor) in [(ABI_MAJOR + 1, 0u16), (0, 7), (u16::MAX, u16::MAX)] {
        let shm = Shm::new();
        ring_with_frames(&shm);
        put_config(&file(&shm), |bytes| {
            bytes[at::ABI_MAJOR as usize..][..2].copy_from_slice(&major.to_le_bytes());
            bytes[at::ABI_MINOR as usize..][..2].copy_from_slice(&minor.to_le_bytes());
        });
        let error = attach_now(&shm).unwrap_err();
        let expected = format!(
            "segment \"cam\" has layout version {major}.{minor} but this build speaks layout version 1.0; upgrade the \
             older of the two"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn every_planned_ring_fits_kernels_with_pages_of_64_kib_and_huge_pages() {
    let mut random = Random(0xA11);
    let sizes = (0..4_000).map(|round| match round {
        0..200 => round,
        _ => random.next() >> (random.next() % 48 + 16),
    });
    for bytes in sizes {
        for slots in [SLOTS_MIN, 4, 8, 63, SLOTS_MAX] {
            let Some(plan) = Layout::plan(slots, bytes) else {
                assert!(
                    bytes.saturating_mul(u64::from(slots)) >= 1 << 39,
                    "{slots} slots of {bytes} bytes make a ring"
                );
                continue;
            };
            let align = if plan.file_bytes >= HUGE_FROM + HUGE_ALIGN { HUGE_ALIGN } else { PAGE_ALIGN };
            assert!(plan.data_off.is_multiple_of(align), "{slots} slots of {bytes} bytes begin at {}", plan.data_off);
            assert!(plan.slot_stride.is_multiple_of(PAGE_ALIGN) && plan.slot_capacity >= bytes);
            let ends = plan.payload_off(slots - 1) + plan.slot_stride;
            assert!(ends == plan.file_bytes && plan.file_bytes.is_multiple_of(PAGE_ALIGN));
            assert!(plan.slot_header_off(slots) <= plan.data_off, "the slot table runs into the payload");
            assert_eq!(Layout::decode(&plan.encode(), plan.file_bytes), Ok(plan));
        }
    }
}

#[test]
fn a_header_that_claims_a_huge_table_is_not_paid_for_when_it_is_attached() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    let file = file(&shm);
    let blocks = file.metadata().unwrap().blocks();
    // 8 slots with headers of 256 MiB each: a sparse file of 2 GiB and a bit.
    let (header, stride) = (1u32 << 28, PAGE_ALIGN);
    let data = (4096 + 8 * u64::from(header)).next_multiple_of(PAGE_ALIGN);
    put_config(&file, |bytes| {
        bytes[at::SLOT_HEADER_BYTES as usize..][..4].copy_from_slice(&header.to_le_bytes());
        for (offset, value) in [
            (at::DATA_OFF, data),
            (at::SLOT_STRIDE, stride),
            (at::SLOT_CAPACITY, stride),
            (at::FILE_BYTES, data + 8 * stride),
        ] {
            bytes[offset as usize..][..8].copy_from_slice(&value.to_le_bytes());
        }
    });
    file.set_len(data + 8 * stride).unwrap();
    let ring = attach_now(&shm).unwrap();
    let grown = (file.metadata().unwrap().blocks() - blocks) * 512;
    assert!(grown <= 1 << 20, "attaching allocated {grown} bytes of the memory mount");
    exercise(&ring);
}

#[test]
fn a_frame_that_no_memory_can_hold_is_an_error() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    let file = file(&shm);
    let stride = 1u64 << 37;
    let old = Layout::decode(&config_of(&file), file.metadata().unwrap().len()).unwrap();
    let size = old.data_off + 7 * stride;
    put_config(&file, |bytes| {
        bytes[at::SLOT_COUNT as usize..][..4].copy_from_slice(&7u32.to_le_bytes());
        for (offset, value) in [(at::SLOT_STRIDE, stride), (at::SLOT_CAPACITY, stride), (at::FILE_BYTES, size)] {
            bytes[offset as usize..][..8].copy_from_slice(&value.to_le_bytes());
        }
    });
    file.set_len(size).unwrap();
    // The newest frame claims the whole slot as opaque bytes.
    let ring = attach_now(&shm).unwrap();
    let slot = old.slot_header_off(0);
    for (offset, value) in [(0, 2 * 11u64), (8, 11), (0x18, 0), (0x20, stride)] {
        file.write_all_at(&value.to_le_bytes(), slot + offset).unwrap();
    }
    file.write_all_at(&(11u64 << 16).to_le_bytes(), at::HEAD).unwrap();
    // Of this process only: what it may have is limited so that the kernel refuses on every machine.
    let limit = rustix::process::Rlimit { current: Some(1 << 36), maximum: None };
    let before = rustix::process::getrlimit(rustix::process::Resource::Data);
    // AddressSanitizer reserves terabytes, and has a limit of its own (scripts/test-asan).
    if std::env::var_os("ASAN_OPTIONS").is_none() {
        rustix::process::setrlimit(rustix::process::Resource::Data, limit).unwrap();
    }
    let error = ring.latest(&mut Vec::new()).unwrap_err();
    rustix::process::setrlimit(rustix::process::Resource::Data, before).unwrap();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("a frame of 137438953472 bytes, for which there is no memory"), "{error}");
}

fn config_of(file: &std::fs::File) -> [u8; CONFIG_BYTES] {
    let mut bytes = [0; CONFIG_BYTES];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_header_that_changes_at_full_speed_under_its_readers_gives_errors_or_frames() {
    let shm = Shm::new();
    ring_with_frames(&shm);
    let file = file(&shm);
    let mut good = vec![0; 4096 + 8 * SLOT_HEADER_BYTES as usize];
    file.read_exact_at(&mut good, 0).unwrap();
    let (stop, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let rounds = amount(2_000, 1_000_000);
    let (mut attached, mut refused, mut frames) = (0u64, 0u64, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(0x70C);
            while !stop.load(Ordering::Relaxed) {
                change_everything(&file, &good, &mut random);
                changes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (mut standing, mut round, deadline) = (None, 0, Instant::now() + Duration::from_secs(60));
        // On a busy machine all rounds may be over before the other thread has had the processor once.
        while round < rounds || (attached.min(refused).min(frames) == 0 && Instant::now() < deadline) {
            round += 1;
            match attach_now(&shm) {
                Ok(ring) => {
                    attached += 1;
                    frames += read_while_it_changes(&ring);
                    standing.get_or_insert(ring);
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
            frames += standing.as_ref().map_or(0, read_while_it_changes);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let changes = changes.into_inner();
    assert!(attached > 0 && refused > 0 && frames > 0, "{attached} attached, {refused} refused, {frames} frames");
    measured(format!("{changes} changes of a header: {attached} attached, {refused} refused, {frames} frames read"));
}

/// Puts the good header back, or changes some words of it, immutable ones included, with or without a checksum.
fn change_everything(file: &std::fs::File, good: &[u8], random: &mut Random) {
    let mut bytes = good.to_vec();
    if random.next().is_multiple_of(2) {
        file.write_all_at(&bytes, 0).unwrap();
        return;
    }
    for _ in 0..random.next() % 6 {
        let place = (random.next() as usize % bytes.len()) & !7;
        let values = [0, u64::MAX, random.next(), random.next() & 0xFFFF, 1 << (random.next() % 64)];
        bytes[place..place + 8].copy_from_slice(&values[random.next() as usize % 5].to_le_bytes());
    }
    if random.next().is_multiple_of(2) {
        let crc = crc32c(&bytes[..at::HEADER_CRC32C as usize]);
        bytes[at::HEADER_CRC32C as usize..][..4].copy_from_slice(&crc.to_le_bytes());
    }
    file.write_all_at(&bytes, 0).unwrap();
}

/// Frames read; what they describe lies inside their slot, whatever changed meanwhile.
fn read_while_it_changes(ring: &Ring) -> u64 {
    let (capacity, mut pixels, mut frames) = (ring.layout().slot_capacity, Vec::new(), 0);
    let mut count = |result: Result<Frame, ReadError>, len: usize| match result {
        Ok(frame) => {
            assert!(frame.meta.geometry.len as usize == len && len as u64 <= capacity);
            frames += 1;
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    };
    let read = ring.latest(&mut pixels);
    count(read, pixels.len());
    let read = ring.next(&mut pixels, Some(Duration::ZERO));
    count(read, pixels.len());
    let read = ring.nearest(0, &mut pixels);
    count(read, pixels.len());
    for (frame, pixels) in ring.history(3).unwrap_or_default() {
        count(Ok(frame), pixels.len());
    }
    if let Ok(lease) = ring.lease() {
        let mut copy = vec![0; lease.len()];
        let _ = (lease.copy_to(&mut copy), lease.is_valid(), lease.release());
    }
    let _ = (ring.held(), ring.status(), ring.liveness(), ring.peek());
    frames
}

// --- the corpus of the fuzz targets, and what grows from it ---

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 4, "{} holds {} inputs", folder.display(), paths.len());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs a target over its corpus, then over inputs grown from it by repeatable chance.
fn feed(target: &str, short: u64, full: u64, mut run: impl FnMut(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|input| run(input));
    let (mut random, rounds) = (Random(0xF00D), amount(short, full));
    let part = std::env::var("CAMRING_SOAK_PART").ok().and_then(|part| part.parse().ok()).unwrap_or(0);
    random.0 ^= u64::wrapping_mul(part, 0x9E37_79B9_7F4A_7C15);
    for _ in 0..rounds {
        let input = grow(&corpus, &mut random);
        run(&input);
    }
    measured(format!("{target}: {} inputs of the corpus and {rounds} grown from it: errors or frames", corpus.len()));
}

/// One input with a few bytes changed, put in, taken out, or taken from another input.
fn grow(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random| &corpus[random.next() as usize % corpus.len()];
    let mut input = pick(random).clone();
    for _ in 0..=random.next() % 8 {
        let place = random.next() as usize % (input.len() + 1);
        match random.next() % 6 {
            0 if place < input.len() => input[place] ^= 1 << (random.next() % 8),
            1 if place < input.len() => input[place] = random.next() as u8,
            2 => input.insert(place, random.next() as u8),
            3 => drop(input.drain(place..input.len().min(place + random.next() as usize % 16))),
            4 if place + 8 <= input.len() => {
                let values = [0, u64::MAX, 1 << 40, random.next(), random.next() & 0xFFFF, 65_536];
                input[place..place + 8].copy_from_slice(&values[random.next() as usize % 6].to_le_bytes());
            }
            _ => {
                let other = pick(random);
                let from = random.next() as usize % (other.len() + 1);
                let until = other.len().min(from + random.next() as usize % 64);
                input.splice(place.., other[from..until].iter().copied());
            }
        }
    }
    input.truncate(8192);
    input
}

#[test]
fn any_bytes_as_a_file_are_refused_or_read() {
    let bench = AttachBench::new();
    feed("attach", 3_000, 1_000_000, |bytes| bench.run(bytes));
}

#[test]
fn any_change_of_a_valid_ring_is_an_error_or_a_frame() {
    let bench = ReadBench::new();
    feed("read", 2_000, 500_000, |bytes| bench.run(bytes));
}

#[test]
fn any_configuration_and_any_name_is_refused_or_makes_sense() {
    feed("text", 100_000, 20_000_000, text);
}
