//! What a start makes of the ring it finds: damaged in every way, of another configuration, of another layout version.

mod common;

use std::os::unix::fs::FileExt;

use camring_ring::layout::{at, crc32c};
use camring_ring::{Capacity, Counter, LeasePolicy, Ring, SegmentName, Started, Writer, WriterOptions};
use common::{Shm, publish, until};

/// Frames that the rings of these tests hold before they are damaged.
const FRAMES: u64 = 20;
const STAMPS: u64 = 4096;

/// A ring with frames and no writer, and a way to damage it.
struct Wreck {
    shm: Shm,
    file: std::fs::File,
}

impl Wreck {
    fn new() -> Self {
        let shm = Shm::new();
        let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
        for value in 1..=FRAMES {
            publish(&mut writer, 64, 48, value as u8);
        }
        let path = shm.path().join("camring.d/cam");
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        Self { shm, file }
    }

    fn word(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, offset).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).unwrap();
    }

    fn put_word(&self, offset: u64, value: u64) {
        self.put(offset, &value.to_le_bytes());
    }

    /// Damages the configuration and makes its checksum right again.
    fn configure(&self, offset: u64, bytes: &[u8]) {
        self.put(offset, bytes);
        let mut config = [0; 0x1FC];
        self.file.read_exact_at(&mut config, 0).unwrap();
        self.put(at::HEADER_CRC32C, &crc32c(&config).to_le_bytes());
    }

    fn head_stamp(&self) -> u64 {
        STAMPS + (self.word(at::HEAD) & 0xFFFF) * 256
    }
}

/// What the numbers do after the damage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Numbers {
    GoOn,
    /// What said how far they were is gone.
    BeginAnew,
}
use Numbers::{BeginAnew, GoOn};

type Damage = (&'static str, Numbers, fn(&Wreck));
/// A change that is none of a reader's business.
type Harmless = (&'static str, fn(&Wreck));

const DAMAGE: &[Damage] = &[
    ("no magic", BeginAnew, |it| it.put_word(at::MAGIC, 0)),
    ("another magic", BeginAnew, |it| it.put(at::MAGIC, b"MPEGRING")),
    ("the other byte order", BeginAnew, |it| it.configure(at::ENDIAN_TAG, &[10, 11, 12, 13])),
    ("another major version", BeginAnew, |it| it.configure(at::ABI_MAJOR, &2u16.to_le_bytes())),
    ("a newer minor version", GoOn, |it| it.configure(at::ABI_MINOR, &9u16.to_le_bytes())),
    ("an unknown feature", GoOn, |it| it.configure(at::FEATURE_INCOMPAT, &(1u64 << 40).to_le_bytes())),
    ("a wrong checksum", BeginAnew, |it| it.put(at::HEADER_CRC32C, &[1, 2, 3, 4])),
    ("a short header", GoOn, |it| it.configure(at::HEADER_BYTES, &512u32.to_le_bytes())),
    ("short slot headers", GoOn, |it| it.configure(at::SLOT_HEADER_BYTES, &64u32.to_le_bytes())),
    ("no slots", GoOn, |it| it.configure(at::SLOT_COUNT, &0u32.to_le_bytes())),
    ("fewer slots", GoOn, |it| it.configure(at::SLOT_COUNT, &3u32.to_le_bytes())),
    ("more slots", GoOn, |it| it.configure(at::SLOT_COUNT, &256u32.to_le_bytes())),
    ("countless slots", GoOn, |it| it.configure(at::SLOT_COUNT, &u32::MAX.to_le_bytes())),
    ("an unknown policy", GoOn, |it| it.configure(at::LEASE_POLICY, &77u32.to_le_bytes())),
    ("slots inside the header", GoOn, |it| it.configure(at::SLOT_TABLE_OFF, &64u64.to_le_bytes())),
    ("slots far away", GoOn, |it| it.configure(at::SLOT_TABLE_OFF, &(u64::MAX - 63).to_le_bytes())),
    ("payload in the slots", GoOn, |it| it.configure(at::DATA_OFF, &0u64.to_le_bytes())),
    ("payload far away", GoOn, |it| it.configure(at::DATA_OFF, &(1u64 << 62).to_le_bytes())),
    ("no stride", GoOn, |it| it.configure(at::SLOT_STRIDE, &0u64.to_le_bytes())),
    ("an endless stride", GoOn, |it| it.configure(at::SLOT_STRIDE, &(u64::MAX << 16).to_le_bytes())),
    ("slots larger than their stride", GoOn, |it| it.configure(at::SLOT_CAPACITY, &(1u64 << 40).to_le_bytes())),
    ("another size of the file", GoOn, |it| it.configure(at::FILE_BYTES, &4096u64.to_le_bytes())),
    ("locks without end", GoOn, |it| it.configure(at::LEASE_LOCK_BASE, &u64::MAX.to_le_bytes())),
    ("the alive byte out of reach", GoOn, |it| it.configure(at::ALIVE_LOCK_OFF, &u64::MAX.to_le_bytes())),
    ("another camera", GoOn, |it| it.configure(at::CAMERA_ID, b"dog\0")),
    ("a camera that is no text", GoOn, |it| it.configure(at::CAMERA_ID, &[0xFF; 64])),
    ("a name that is no text", GoOn, |it| it.configure(at::SEGMENT_NAME, &[0xFE; 256])),
    ("a head in slot 60000", GoOn, |it| it.put_word(at::HEAD, FRAMES << 16 | 60_000)),
    ("a head beyond all numbers", GoOn, |it| it.put_word(at::HEAD, u64::MAX)),
    ("a newest slot that is empty", GoOn, |it| it.put_word(it.head_stamp(), 0)),
    ("a newest slot of another frame", GoOn, |it| it.put_word(it.head_stamp(), 4)),
    ("a newest slot half written", GoOn, |it| it.put_word(it.head_stamp(), FRAMES << 1 | 1)),
    ("every stamp odd", GoOn, |it| (0..8).for_each(|slot| it.put_word(STAMPS + slot * 256, slot << 1 | 1))),
    ("every stamp that of the newest frame", GoOn, |it| {
        (0..8).for_each(|slot| it.put_word(STAMPS + slot * 256, FRAMES << 1));
    }),
    ("two frames newer than the newest", GoOn, |it| {
        let head = it.word(at::HEAD) & 0xFFFF;
        [head ^ 1, head ^ 2].iter().for_each(|slot| it.put_word(STAMPS + slot * 256, (FRAMES + 1) << 1));
    }),
    ("a frame of the far future", GoOn, |it| {
        let other = (it.word(at::HEAD) & 0xFFFF) ^ 1;
        it.put_word(STAMPS + other * 256, (FRAMES + 2) << 1);
    }),
    ("a flag that says retired", GoOn, |it| it.put(at::RETIRED, &1u32.to_le_bytes())),
    ("a flag that says removed", GoOn, |it| it.put(at::RETIRED, &2u32.to_le_bytes())),
    ("an empty file", BeginAnew, |it| it.file.set_len(0).unwrap()),
    ("a file of one byte", BeginAnew, |it| it.file.set_len(1).unwrap()),
    ("a configuration cut off", BeginAnew, |it| it.file.set_len(0x1FF).unwrap()),
    ("nothing but the configuration", BeginAnew, |it| it.file.set_len(0x200).unwrap()),
    ("nothing but the header", GoOn, |it| it.file.set_len(4096).unwrap()),
    ("a file cut in half", GoOn, |it| it.file.set_len(300_000).unwrap()),
    ("a file too long", GoOn, |it| it.file.set_len(100 << 20).unwrap()),
];

#[test]
fn a_ring_damaged_in_any_way_is_replaced_and_its_numbers_go_on_where_they_can_be_known() {
    for (what, numbers, damage) in DAMAGE {
        let it = Wreck::new();
        damage(&it);
        let (mut writer, started) = Writer::start(it.shm.options("cam")).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(!started.adopted && started.not_adopted.is_some(), "{what}: {started:?}");
        let seq = publish(&mut writer, 64, 48, 9);
        match numbers {
            BeginAnew => assert_eq!(seq, 1, "{what}"),
            GoOn => assert!((FRAMES + 1..FRAMES + 4).contains(&seq), "{what}: frame {seq} after frame {FRAMES}"),
        }
        let ring = Ring::attach("cam", it.shm.attach_options()).unwrap();
        let mut pixels = Vec::new();
        assert_eq!(ring.latest(&mut pixels).unwrap().meta.seq.0, seq, "{what}");
        assert_eq!(pixels, vec![9; 64 * 48 * 3], "{what}");
        assert_eq!(it.shm.files(), ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"], "{what}");
        drop(writer);
        let (_, started) = Writer::start(it.shm.options("cam")).unwrap();
        assert!(started.adopted, "{what}: the new one is in order: {started:?}");
    }
}

#[test]
fn damage_that_harms_no_frame_is_repaired_and_the_ring_adopted() {
    let harmless: [Harmless; 4] = [
        ("an unknown feature that may be ignored", |it| it.configure(at::FEATURE_COMPAT, &u64::MAX.to_le_bytes())),
        ("a hole in the payload", |it| {
            let fd = &it.file;
            let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(fd, flags, 65536, 8 * 65536).unwrap();
        }),
        ("a slot half written", |it| {
            let other = (it.word(at::HEAD) & 0xFFFF) ^ 1;
            it.put_word(STAMPS + other * 256, 7);
        }),
        ("counters, states and texts of garbage", |it| it.put(0x20C, &[0xA5; 0x18])),
    ];
    for (what, damage) in harmless {
        let it = Wreck::new();
        let size = it.file.metadata().unwrap().len();
        damage(&it);
        let (mut writer, started) = Writer::start(it.shm.options("cam")).unwrap();
        assert!(started.adopted, "{what}: {started:?}");
        assert_eq!(publish(&mut writer, 64, 48, 9), FRAMES + 1, "{what}");
        use std::os::unix::fs::MetadataExt;
        assert!(it.file.metadata().unwrap().blocks() * 512 >= size, "{what}: a hole is left");
    }
}

/// Publishes a frame, starts again with other options, and has a reader follow.
fn restarted_with(change: impl Fn(&mut WriterOptions)) -> (Shm, Started, Ring) {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    drop(writer);
    let mut options = shm.options("cam");
    change(&mut options);
    let (mut writer, started) = Writer::start(options).unwrap();
    assert_eq!(publish(&mut writer, 64, 48, 2), 2, "the numbers go on: {started:?}");
    let mut pixels = Vec::new();
    until("the reader follows", || ring.latest(&mut pixels).is_ok_and(|frame| frame.meta.seq.0 == 2));
    assert_eq!(ring.stats().resets, 0);
    (shm, started, ring)
}

#[test]
fn another_configuration_makes_a_new_generation_that_says_what_differs() {
    type Change = (fn(&mut WriterOptions), &'static str);
    let changes: [Change; 6] = [
        (|options| options.slots = 5, "the number of slots was 8 and is now 5"),
        (|options| options.lease_policy = LeasePolicy::Protect, "the lease policy was fresh and is now protect"),
        (|options| options.lease_policy = LeasePolicy::Off, "the lease policy was fresh and is now off"),
        (
            |options| options.capacity = Capacity::Bytes(1 << 20),
            "the size of a slot in bytes was 65536 and is now 1048576",
        ),
        (
            |options| options.segment = SegmentName::new("other").unwrap(),
            "the segment's name was camring.cam and is now other",
        ),
        (|options| options.stale_after = std::time::Duration::ZERO, "stale_after in ms was 1000 and is now 0"),
    ];
    for (change, why) in changes {
        let (_shm, started, ring) = restarted_with(change);
        assert_eq!((started.adopted, started.not_adopted.as_deref()), (false, Some(why)));
        assert_eq!(ring.stats().followed, 1, "{why}");
        assert_eq!(ring.status().counter(Counter::Published), 2, "counters go on: {why}");
    }
}

#[test]
fn what_does_not_shape_the_segment_is_changed_without_a_new_generation() {
    let (shm, started, ring) = restarted_with(|options| options.mode = 0o644);
    assert!(started.adopted, "{started:?}");
    assert_eq!(ring.stats().followed, 0);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(shm.path().join("camring.cam")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn the_old_public_name_is_left_to_no_one_when_the_segment_is_renamed() {
    let (shm, _, _ring) = restarted_with(|options| options.segment = SegmentName::new("other").unwrap());
    assert_eq!(shm.files(), ["camring.d/.lock-cam", "camring.d/cam", "other"]);
}
