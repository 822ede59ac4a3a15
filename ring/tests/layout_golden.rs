//! The byte layout is what docs/segment.md says: offsets, words and golden bytes.

mod document;

use std::collections::BTreeMap;

use camring_ring::layout::{BUCKET_FIRST_NS, CONFIG_BYTES, Layout, SLOT_HEADER_BYTES, at, slot_at};
use camring_ring::{Counter, Fit, FrameFlags, Generation, LeasePolicy, PixelFormat, Reason, State, TimeSource};
use document::{Kind, document, rows, section, words};

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

/// `00c0  xx xx ...  text`, lines of zeros left out.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        if line.iter().all(|byte| *byte == 0) {
            continue;
        }
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        out += &format!("{:03x}  {}\n", index * 16, hex.join(" "));
    }
    out
}

#[test]
fn the_golden_configuration_has_the_documented_bytes() {
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
    let bytes: [u8; CONFIG_BYTES] = layout.encode();
    let text = document();
    let golden = section(&text, "## 15. Golden bytes").split_once("```text\n").expect("a block of bytes").1;
    let golden = golden.split_once("```").expect("an end of the block").0;
    assert_eq!(golden, dump(&bytes), "docs/segment.md shows other bytes than the code writes");
    assert_eq!(Layout::decode(&bytes, layout.file_bytes), Ok(layout));
}
