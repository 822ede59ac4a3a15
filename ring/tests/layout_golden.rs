//! The byte layout is what docs/segment.md says: offsets, words and golden bytes.

mod common;
mod document;
#[allow(dead_code)]
#[path = "vectors/image.rs"]
mod image;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use camring_ring::layout::{BUCKET_FIRST_NS, CONFIG_BYTES, Layout, SLOT_HEADER_BYTES, at, slot_at};
use camring_ring::{
    Color, Counter, Fit, FrameFlags, FrameMeta, Generation, Geometry, LeasePolicy, PixelFormat, Reason, Ring, Sequence,
    State, TimeSource, Writer,
};
use document::{Kind, document, rows, section, words};
use serde_json::json;

/// Field names by offset, as the document's tables under a heading say.
fn fields(text: &str, heading: &str) -> BTreeMap<u64, String> {
    document::fields(text, heading).into_iter().map(|(name, field)| (field.offset, name)).collect()
}

macro_rules! named { ($module:ident: $($name:ident)+) => { [$(($module::$name as u64, stringify!($name).to_lowercase())),+] } }

#[test]
fn every_field_of_the_header_is_where_the_document_says() {
    let text = document();
    let mut documented = BTreeMap::new();
    for heading in [
        "### 3.1 Immutable configuration, 0x000 to 0x1FF",
        "### 3.2 Hot line, 0x200 to 0x23F",
        "### 3.3 Liveness, 0x240 to 0x27F",
        "### 3.5 Process, 0x400 to 0x43F",
        "### 3.6 Histograms, 0x440 to 0x57F",
        "### 3.7 Text and reconnects, 0x580 to 0xFFF",
    ] {
        documented.extend(fields(&text, heading));
    }
    let coded = named!(at: MAGIC ENDIAN_TAG ABI_MAJOR ABI_MINOR FEATURE_INCOMPAT FEATURE_COMPAT HEADER_BYTES
        SLOT_HEADER_BYTES SLOT_COUNT LEASE_POLICY SLOT_TABLE_OFF DATA_OFF SLOT_STRIDE SLOT_CAPACITY FILE_BYTES
        LEASE_LOCK_BASE ALIVE_LOCK_OFF PRESENCE_LOCK_BASE RING_UUID BOOT_ID CREATED_REAL_NS OWNER_UID OWNER_GID BASE_SEQ
        CAMERA_ID SEGMENT_NAME BUILDER STALE_AFTER_MS HEADER_CRC32C HEAD NOTIFY STATE_WORD LAST_PUBLISH_MONO_NS
        STATE_SINCE_MONO_NS WAKE_MODE RETIRED NEXT_RETRY_MONO_NS FRAME_INTERVAL_US LEASE_NOW HEARTBEAT_MONO_NS
        WRITER_EPOCH WRITER_PID WRITER_START_TICKS GEOMETRY_EPOCH SESSION_ID SUCCESSOR_UUID TIME_NS_INO
        HEARTBEAT_REAL_NS RSS_BYTES RSS_ANON_BYTES CPU_USER_NS CPU_SYS_NS THREADS OPEN_FDS PROCESS_START_REAL_NS
        DECODE_TO_PUBLISH FRAME_INTERVAL TEXT_SEQ DECODER CODEC RECONNECTS);
    assert_eq!(documented, BTreeMap::from(coded));
}

#[test]
fn every_field_of_a_slot_header_is_where_the_document_says() {
    let coded = named!(slot_at: STAMP SEQ WIDTH HEIGHT PIXFMT PLANE_COUNT PAYLOAD_LEN PLANE_OFF PLANE_STRIDE FLAGS COLOR
        GEOMETRY_EPOCH WRITER_EPOCH SESSION_ID RTP_TIMESTAMP PTS_NS DURATION_NS ARRIVAL_MONO_NS ARRIVAL_REAL_NS
        SOURCE_UNIX_NS DECODED_MONO_NS PUBLISH_MONO_NS PUBLISH_REAL_NS SOURCE_SEQ DROPPED_BEFORE PAYLOAD_CRC32C
        PIXEL_ASPECT GAP TIME_SOURCE SOURCE_PIXFMT ROTATION FIT SOURCE_SIZE SCALE OFFSET PAD_COLOR VALUE_SCALE
        VALUE_OFFSET BOOT_MINUS_MONO_NS LAG_NS);
    assert_eq!(fields(&document(), "### 3.8 Slot header, 256 bytes"), BTreeMap::from(coded));
}

#[test]
fn the_documented_fields_fill_the_header_without_a_hole() {
    let text = document();
    let mut next = 0;
    for (offset, cells) in rows(section(&text, "## 3. Layout")) {
        if cells[2] == "`stamp`" {
            break;
        }
        // Counters that are not listed are zero.
        next = if offset == at::RSS_BYTES { offset } else { next };
        assert_eq!(offset, next, "before {}", cells[2]);
        next += Kind::parse(cells[1]).bytes();
    }
    assert_eq!(next, 4096);
    let mut next = 0;
    for (offset, cells) in rows(section(&text, "### 3.8 Slot header, 256 bytes")) {
        assert_eq!(offset, next, "before {}", cells[2]);
        next += Kind::parse(cells[1]).bytes();
    }
    assert_eq!(next, u64::from(SLOT_HEADER_BYTES));
}

#[test]
fn the_counters_are_in_the_documented_order() {
    let coded: BTreeMap<u64, String> =
        Counter::ALL.iter().map(|counter| (at::COUNTERS + *counter as u64 * 8, counter.word().to_owned())).collect();
    assert_eq!(fields(&document(), "### 3.4 Counters, 0x280 to 0x3FF"), coded);
}

#[test]
fn every_number_has_the_documented_word() {
    let text = document();
    let words = |heading, column| words(&text, heading, column);
    macro_rules! coded {
        ($kind:ident) => {
            $kind::ALL
                .iter()
                .map(|v| (u64::from(v.code()), v.word().unwrap_or_default().to_owned()))
                .collect::<Vec<_>>()
        };
    }
    assert_eq!(words("### 4.1 Pixel format", "number | word"), coded!(PixelFormat));
    assert_eq!(words("### 4.2 State", "number | word"), coded!(State));
    assert_eq!(words("### 4.3 Reason", "number | word"), coded!(Reason));
    assert_eq!(words("### 4.5 Time source and fit", "number | time source"), coded!(TimeSource));
    assert_eq!(words("### 4.5 Time source and fit", "number | fit"), coded!(Fit));
    let flags: Vec<_> = (0..).zip(FrameFlags::WORDS.map(str::to_owned)).collect();
    assert_eq!(words("### 4.4 Flags", "bit | word"), flags);
    let policies = words("### 4.6 Lease policy", "number | word");
    let coded = [(LeasePolicy::Fresh, "fresh"), (LeasePolicy::Protect, "protect"), (LeasePolicy::Off, "off")];
    assert_eq!(policies, coded.map(|(policy, word)| (policy as u64, word.to_owned())));
}

#[test]
fn the_documented_bucket_bounds_are_powers_of_two() {
    let text = document();
    let list = section(&text, "### 3.6 Histograms, 0x440 to 0x57F").split_once("bucket before: ").expect("bounds").1;
    let list = list.split_once(';').expect("an end of the bounds").0.replace('\n', " ");
    let bounds: Vec<u64> = list
        .split(", ")
        .map(|bound| {
            let (number, unit) = bound.trim().split_once(' ').expect("a unit");
            let number: f64 = number.parse().expect("a number");
            let scale = match unit {
                "us" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                other => panic!("unknown unit {other}"),
            };
            (number * scale).round() as u64
        })
        .collect();
    let coded: Vec<u64> = (0..15).map(|bucket| BUCKET_FIRST_NS << bucket).collect();
    assert_eq!(bounds, coded);
}

/// `0c0  xx xx ...`, lines of zeros left out.
fn dump(bytes: &[u8], base: usize) -> String {
    let mut out = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        if line.iter().all(|byte| *byte == 0) {
            continue;
        }
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        out += &format!("{:03x}  {}\n", base + index * 16, hex.join(" "));
    }
    out
}

/// Compares bytes with the block that the document prints under a heading.
fn assert_printed(heading: &str, bytes: &[u8], base: usize) {
    let text = document();
    let golden = section(&text, heading).split_once("```text\n").expect("a block of bytes").1;
    let golden = golden.split_once("```").expect("an end of the block").0;
    let found = dump(bytes, base);
    assert!(golden == found, "docs/segment.md shows other bytes under {heading}; these are right:\n{found}");
}

fn golden_layout() -> Layout {
    let mut layout = Layout::plan(8, 1920 * 1080 * 3).expect("a common size");
    layout.camera_id = "front".into();
    layout.segment_name = "camring.front".into();
    layout.ring_uuid = Generation(std::array::from_fn(|index| index as u8));
    layout.boot_id = std::array::from_fn(|index| 16 + index as u8);
    layout.created_real_ns = 1_700_000_000_000_000_000;
    (layout.owner_uid, layout.owner_gid) = (997, 998);
    layout.base_seq = 1234;
    layout.builder = "0.1.0".into();
    layout.stale_after_ms = 1000;
    layout
}

#[test]
fn the_golden_configuration_has_the_documented_bytes() {
    let layout = golden_layout();
    let bytes: [u8; CONFIG_BYTES] = layout.encode();
    assert_printed("### 15.1 Configuration", &bytes, 0);
    assert_eq!(Layout::decode(&bytes, layout.file_bytes), Ok(layout));
}

/// What the golden frame's description in the document says, without what a writer sets itself.
fn golden_meta() -> FrameMeta {
    let mut meta = FrameMeta::new(Geometry::packed(1920, 1080, PixelFormat::Bgr).expect("a size"));
    meta.flags = FrameFlags::KEYFRAME.with(FrameFlags::GAP);
    meta.color = Color { primaries: 1, transfer: 1, matrix: 1, full_range: 0 };
    (meta.rtp_timestamp, meta.pts_ns, meta.duration_ns) = (90_000, 1_000_000_000, 40_000_000);
    (meta.arrival_mono_ns, meta.arrival_real_ns) = (7_000_000_000, 1_700_000_007_000_000_000);
    meta.decoded_mono_ns = 7_001_000_000;
    meta.source_seq = 1300;
    meta.payload_crc32c = 0x89AB_CDEF;
    meta.pixel_aspect = (1, 1);
    meta.gap = 2;
    meta.source_format = PixelFormat::Nv12;
    meta.lag_ns = 500_000;
    meta
}

/// Hot line and slot header, from the document's tables and its description of the golden frame.
fn golden_lines() -> ([u8; 0x40], [u8; 0x100]) {
    let mut image = image::Image::new(json!({}));
    let meta = json!({
        "flags": ["keyframe", "gap"], "color": [1, 1, 1, 0], "geometry_epoch": 1, "writer_epoch": 2, "session_id": 3,
        "rtp_timestamp": 90_000, "pts_ns": 1_000_000_000, "duration_ns": 40_000_000, "arrival_mono_ns": 7_000_000_000u64,
        "arrival_real_ns": 1_700_000_007_000_000_000u64, "source_unix_ns": null, "decoded_mono_ns": 7_001_000_000u64,
        "publish_mono_ns": 7_002_000_000u64, "publish_real_ns": 1_700_000_007_002_000_000u64, "source_seq": 1300,
        "dropped_before": 4, "payload_crc32c": 0x89AB_CDEFu32, "pixel_aspect": [1, 1], "gap": 2, "source_pixfmt": "nv12",
        "source_size": [1920, 1080], "scale": [1.0, 1.0], "value_scale": 1.0, "boot_minus_mono_ns": 11, "lag_ns": 500_000,
    });
    image.frame(2, 1235, "bgr", (1920, 1080), meta);
    image.head(1235, 2);
    image.state(json!("degraded"), json!("loss_gate"), 3);
    image.set("notify", &json!(7));
    image.set("state_since_mono_ns", &json!(5_000_000_000u64));
    image.set("next_retry_mono_ns", &json!(6_000_000_000u64));
    let part = |start: usize, len: usize| image.bytes[start..start + len].to_vec();
    (part(0x200, 0x40).try_into().unwrap(), part(4096 + 2 * 256, 256).try_into().unwrap())
}

#[test]
fn the_golden_hot_line_and_slot_header_have_the_documented_bytes() {
    let (hot, slot) = golden_lines();
    assert_printed("### 15.2 Hot line", &hot, 0x200);
    assert_printed("### 15.3 Slot header", &slot, 0);
}

#[test]
fn the_golden_bytes_are_read_as_the_document_describes_them() {
    let (shm, layout, (hot, slot)) = (common::Shm::new(), golden_layout(), golden_lines());
    let file = File::create(shm.path().join("camring.front")).unwrap();
    file.set_len(layout.file_bytes).unwrap();
    file.write_all_at(&layout.encode(), 0).unwrap();
    file.write_all_at(&hot, at::HEAD).unwrap();
    file.write_all_at(&slot, layout.slot_header_off(2)).unwrap();
    let ring = Ring::attach("camring.front", shm.attach_options()).unwrap();
    let mut expected = golden_meta();
    expected.seq = Sequence(1235);
    (expected.geometry_epoch, expected.writer_epoch, expected.session_id, expected.dropped_before) = (1, 2, 3, 4);
    (expected.publish_mono_ns, expected.publish_real_ns) = (7_002_000_000, 1_700_000_007_002_000_000);
    expected.boot_minus_mono_ns = 11;
    assert_eq!(ring.peek(), Ok(expected));
    let status = ring.status();
    assert_eq!((status.state, status.reason, status.attempt), (State::Degraded, Reason::LossGate, 3));
    assert_eq!((status.state_since_mono_ns, status.next_retry_mono_ns), (5_000_000_000, 6_000_000_000));
}

#[test]
fn a_writer_stores_the_golden_bytes() {
    let shm = common::Shm::new();
    let (mut writer, _) = Writer::start(shm.options("front")).unwrap();
    let meta = golden_meta();
    let slot = writer.claim(meta.geometry.len).unwrap();
    assert_eq!(writer.publish(slot, meta).unwrap(), Sequence(1));
    writer.status().set_state(State::Degraded, Reason::LossGate, 3, Some(6_000_000_000));
    let file = File::open(shm.path().join("camring.front")).unwrap();
    let (mut hot, mut slot) = ([0; 0x40], [0; 0x100]);
    file.read_exact_at(&mut hot, at::HEAD).unwrap();
    file.read_exact_at(&mut slot, 4096).unwrap();
    let (golden_hot, golden_slot) = golden_lines();
    assert_eq!(
        (&hot[..8], &slot[..16]),
        (&[0, 0, 1, 0, 0, 0, 0, 0][..], &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..])
    );
    // What depends on this ring's history and on the clock: covered in both.
    let covered = |mut bytes: [u8; 0x100]| {
        for range in [0..0x10, 0x50..0x5C, 0x90..0xA0, 0xA8..0xB0, 0xE8..0xF0] {
            bytes[range].fill(0);
        }
        bytes
    };
    assert_eq!(covered(slot), covered(golden_slot));
    assert_eq!((&hot[0x0C..0x10], &hot[0x20..0x30]), (&golden_hot[0x0C..0x10], &golden_hot[0x20..0x30]));
}
