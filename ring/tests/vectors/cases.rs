//! The cases: what lies in the file, and what a reader says about it.

use serde_json::{Value, json};

use crate::image::Image;

/// One vector.
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    pub image: Image,
    pub expect: Value,
}

fn case(name: &'static str, about: &'static str, image: Image, expect: Value) -> Case {
    Case { name, about, image, expect }
}

/// Every case, in the order of the catalogue in docs/vectors/README.md.
pub fn all() -> Vec<Case> {
    let mut cases = vec![waiting_room(), one_bgr_frame(), odd_width_with_stride(), payload_fills_the_slot()];
    cases.extend(formats());
    cases.push(unknown_pixel_format());
    cases.extend(slots_in_every_state());
    cases.extend([every_metadata_field(), unknown_numbers(), no_camera_time(), status_and_texts()]);
    cases.extend(grown_layouts());
    cases.extend(policies());
    cases.extend(names_that_ended());
    cases.extend(not_ready());
    cases.extend(wrong_files());
    cases.extend(other_versions());
    cases.extend(contradictions());
    cases.extend(damaged_frames());
    cases
}

fn waiting_room() -> Case {
    let mut image = Image::new(json!({}));
    let status = image.state(json!("connecting"), json!("auth"), 3);
    let latest = json!({ "error": "no_frame", "state": "connecting", "reason": "auth" });
    let expect = json!({ "attach": "ok", "status": status, "latest": latest, "held": [], "lease": latest });
    case("waiting_room", "a ring whose first frame has not come: state and reason, no frame", image, expect)
}

/// A ring whose only frame is the one that `frame` puts into slot 1.
fn one_frame(format: &str, size: (u64, u64), more: Value) -> (Image, Value) {
    let mut image = Image::new(json!({}));
    let latest = image.frame(1, 7, format, size, more);
    image.head(7, 1);
    image.state(json!("live"), json!("none"), 0);
    (image, latest)
}

fn one_bgr_frame() -> Case {
    let (image, latest) = one_frame("bgr", (8, 4), json!({ "flags": ["keyframe", "synthetic"] }));
    let status = json!({ "state": "live", "reason": "none", "attempt": 0 });
    let expect = json!({ "attach": "ok", "status": status, "latest": latest, "held": [7], "lease": { "seq": 7, "guarded": true } });
    case("one_bgr_frame", "one frame of 8 x 4 pixels", image, expect)
}

fn odd_width_with_stride() -> Case {
    let padded = json!({ "plane_stride": [24, 0, 0, 0], "payload_len": 24 * 2 + 21 });
    let (image, latest) = one_frame("bgr", (7, 3), padded);
    let about = "rows of 21 bytes every 24 bytes; the last row has no padding, and the length is no multiple of 8";
    case("odd_width_with_stride", about, image, json!({ "attach": "ok", "latest": latest, "held": [7] }))
}

fn payload_fills_the_slot() -> Case {
    let mut image = Image::new(json!({ "slot_capacity": 96 }));
    let latest = image.frame(2, 9, "bgr", (8, 4), json!({}));
    image.head(9, 2);
    let expect = json!({ "attach": "ok", "latest": latest, "held": [9] });
    case("payload_fills_the_slot", "a payload of exactly slot_capacity bytes, in the last slot", image, expect)
}

fn formats() -> Vec<Case> {
    let plain = |name, about, format, size| {
        let (image, latest) = one_frame(format, size, json!({}));
        case(name, about, image, json!({ "attach": "ok", "latest": latest, "held": [7] }))
    };
    let floats = json!({ "value_scale": 0.5, "value_offset": -1.25 });
    let (image, latest) = one_frame("rgb-planar-f32", (3, 2), floats);
    let planar = json!({ "attach": "ok", "latest": latest, "held": [7] });
    let opaque = json!({ "payload_len": 100, "plane_count": 1 });
    let (bytes, meta) = one_frame("opaque", (0, 0), opaque);
    vec![
        plain("format_rgb", "three bytes a pixel", "rgb", (5, 3)),
        plain("format_gray", "one byte a pixel", "gray", (5, 3)),
        plain("format_i420", "odd sides: chroma rounds up", "i420", (7, 5)),
        plain("format_nv12", "odd sides: chroma rounds up, a row of it has an even number of bytes", "nv12", (7, 5)),
        plain("format_bgra", "four bytes a pixel", "bgra", (5, 3)),
        plain("format_rgba", "four bytes a pixel", "rgba", (5, 3)),
        case("format_rgb_planar_f32", "three planes of 32-bit floats, with scale and offset", image, planar),
        case(
            "format_opaque",
            "100 bytes without a picture meaning: width, height and planes say nothing",
            bytes,
            json!({ "attach": "ok", "latest": meta, "held": [7] }),
        ),
    ]
}

fn unknown_pixel_format() -> Case {
    let mut image = Image::new(json!({}));
    let known = image.frame(0, 5, "gray", (8, 4), json!({}));
    image.frame(1, 6, "gray", (8, 4), json!({ "pixfmt": 99 }));
    image.head(6, 1);
    let unknown = json!({ "error": "unknown_format", "text": ["99"] });
    let expect = json!({ "attach": "ok", "latest": unknown, "at": { "5": known, "6": unknown }, "lease": unknown });
    case("unknown_pixel_format", "that frame is an error; the ring and its other frames are not", image, expect)
}

/// A ring of gray frames: `(slot, sequence)`.
fn gray(changes: Value, frames: &[(u64, u64)]) -> (Image, Value) {
    let mut image = Image::new(changes);
    let mut newest = Value::Null;
    for (slot, seq) in frames {
        newest = image.frame(*slot, *seq, "gray", (8, 4), json!({}));
        image.head(*seq, *slot);
    }
    (image, newest)
}

fn slots_in_every_state() -> Vec<Case> {
    let order = [(3, 13), (0, 14), (7, 15), (1, 16), (6, 17), (2, 18), (4, 19), (5, 20)];
    let (image, latest) = gray(json!({ "slot_count": 8 }), &order);
    let at = json!({
        "12": { "error": "overrun", "oldest": 13 }, "13": { "seq": 13 }, "17": { "seq": 17 },
        "21": { "error": "not_yet", "newest": 20 },
    });
    let held: Vec<u64> = (13..=20).collect();
    let full = json!({ "attach": "ok", "latest": latest, "held": held, "at": at });
    let full = case("all_slots_full", "eight frames in no order of slots: the stamps tell their order", image, full);

    let (mut image, latest) = gray(json!({ "slot_count": 4 }), &[(0, 30), (1, 31), (2, 32), (3, 33)]);
    image.set_slot(0, "stamp", &(30 << 1 | 1).into());
    let at = json!({ "30": { "error": "overrun", "oldest": 31 } });
    let expect = json!({ "attach": "ok", "latest": latest, "held": [31, 32, 33], "at": at });
    let writing =
        case("slot_being_written", "an odd stamp: whatever else the slot says, it holds no frame", image, expect);

    let (mut image, latest) = gray(json!({}), &[(0, 40), (1, 41)]);
    image.frame(2, 42, "gray", (8, 4), json!({}));
    let at = json!({ "42": { "error": "not_yet", "newest": 41 } });
    let expect = json!({ "attach": "ok", "latest": latest, "held": [40, 41], "at": at });
    let about =
        "the writer died between stamp and head: the frame is complete, but not published until a head names it";
    let crashed = case("crash_between_stamp_and_head", about, image, expect);

    let (image, latest) = gray(json!({ "base_seq": (1u64 << 47) - 3 }), &[(0, (1 << 47) - 2), (2, (1 << 47) - 1)]);
    let expect = json!({ "attach": "ok", "latest": latest, "held": [(1u64 << 47) - 2, (1u64 << 47) - 1] });
    let big = case(
        "largest_sequence",
        "sequences up to 2^47 - 1: no number may pass through a float or 32 bits",
        image,
        expect,
    );
    vec![full, writing, crashed, big]
}

fn every_metadata_field() -> Case {
    let all = json!({
        "flags": ["keyframe", "discont", "tainted", "after_reconnect", "gap", "interlaced", "scaled"],
        "color": [9, 16, 10, 1], "geometry_epoch": 101, "writer_epoch": 102, "session_id": 103,
        "rtp_timestamp": 0xDEAD_BEEFu32, "pts_ns": -104_000_000_001i64, "duration_ns": 105_000_000_002i64,
        "arrival_mono_ns": 106_000_000_003i64, "arrival_real_ns": 1_700_000_000_107_000_004i64,
        "source_unix_ns": 1_700_000_000_008_000_005i64, "decoded_mono_ns": 109_000_000_006i64,
        "publish_mono_ns": 110_000_000_007i64, "publish_real_ns": 1_700_000_000_111_000_008i64,
        "source_seq": 0x0102_0304_0506_0708u64, "dropped_before": 112, "payload_crc32c": 0x1234_5678, "pixel_aspect": [40, 33],
        "gap": 113, "time_source": "onvif", "source_pixfmt": "nv12", "rotation": 3, "fit": "crop",
        "source_size": [1920, 1088], "scale": [0.25, 0.375], "offset": [-12.5, 7.75], "pad_color": [114, 115, 116, 117],
        "value_scale": 0.0625, "value_offset": -2.5, "boot_minus_mono_ns": 118_000_000_009i64, "lag_ns": 119_000_010u64,
    });
    let (image, latest) = one_frame("bgr", (8, 4), all);
    let expect = json!({ "attach": "ok", "latest": latest });
    case("every_metadata_field", "every field of a slot header with a value of its own", image, expect)
}

fn unknown_numbers() -> Case {
    let mut image = Image::new(json!({}));
    let strange = json!({ "flags": 0xFFFF_E001u32, "time_source": 77, "fit": 78, "source_pixfmt": 250, "rotation": 9 });
    let mut latest = image.frame(1, 7, "bgr", (8, 4), strange);
    latest["flags"] = json!(["keyframe"]);
    image.head(7, 1);
    let status = image.state(json!(200), json!(5000), 255);
    let expect = json!({ "attach": "ok", "status": status, "latest": latest });
    let about = "numbers of a later writer: unknown flag bits are ignored, the rest is printed as the number";
    case("unknown_numbers", about, image, expect)
}

fn no_camera_time() -> Case {
    let (image, latest) = one_frame("bgr", (8, 4), json!({ "source_unix_ns": null, "time_source": "none" }));
    let expect = json!({ "attach": "ok", "latest": latest });
    case("no_camera_time", "source_unix_ns of -2^63: the camera's time is not known", image, expect)
}

fn status_and_texts() -> Case {
    let mut image = Image::new(json!({ "camera_id": "y".repeat(64), "builder": "0.9.9 bridge" }));
    let mut status = image.state(json!("reconnecting"), json!("server_busy"), 12);
    let fields = json!({
        "last_publish_mono_ns": 201, "state_since_mono_ns": 202, "next_retry_mono_ns": 203, "frame_interval_us": 40_004,
        "writer_epoch": 205, "writer_pid": 206, "geometry_epoch": 207, "session_id": 208, "heartbeat_mono_ns": 209,
        "decoder": "avdec_h264", "codec": "h264", "packets": 210, "bytes": 1u64 << 40, "leases_revoked": 211, "lag_ns_max": 212,
    });
    for (name, value) in fields.as_object().expect("an object") {
        image.set(name, value);
        status[name] = value.clone();
    }
    image.set("text_seq", &json!(4));
    let config =
        json!({ "camera_id": "y".repeat(64), "builder": "0.9.9 bridge", "stale_after_ms": 1000, "slot_count": 3 });
    let latest = json!({ "error": "no_frame", "state": "reconnecting", "reason": "server_busy" });
    let expect = json!({ "attach": "ok", "config": config, "status": status, "latest": latest, "held": [] });
    let about = "words, counters and texts of the header; a text that fills its field has no zero behind it";
    case("status_and_texts", about, image, expect)
}

fn grown_layouts() -> Vec<Case> {
    let accepted = |name, about, changes: Value| {
        let (mut image, _) = gray(changes, &[(0, 50), (2, 51)]);
        let latest = image.frame(1, 52, "bgr", (8, 4), json!({}));
        image.head(52, 1);
        let expect =
            json!({ "attach": "ok", "latest": latest, "held": [50, 51, 52], "lease": { "seq": 52, "guarded": true } });
        case(name, about, image, expect)
    };
    vec![
        accepted(
            "larger_headers",
            "headers of a later version: the stated sizes and offsets count, not today's",
            json!({ "header_bytes": 8192, "slot_header_bytes": 320, "slot_table_off": 12288 }),
        ),
        accepted(
            "payload_elsewhere",
            "payload begins later and slots lie further apart than they must",
            json!({ "data_off": 131_072, "slot_stride": 131_072, "slot_capacity": 1000 }),
        ),
        accepted(
            "locks_elsewhere",
            "other lock offsets than today's",
            json!({ "lease_lock_base": 1u64 << 50, "alive_lock_off": (1u64 << 51) + 5, "presence_lock_base": 1u64 << 52 }),
        ),
        accepted("newer_minor", "a later minor version only adds", json!({ "abi_minor": 7 })),
        accepted(
            "unknown_compatible_feature",
            "unknown bits of feature_compat are ignored",
            json!({ "feature_compat": 1u64 << 63 | 5 }),
        ),
    ]
}

fn policies() -> Vec<Case> {
    let with = |name, about, policy: u64, lease_now: u64, lease: Value| {
        let (mut image, latest) = gray(json!({ "lease_policy": policy }), &[(0, 60), (1, 61)]);
        image.set("lease_now", &lease_now.into());
        let expect = json!({ "attach": "ok", "config": { "lease_policy": policy }, "latest": latest, "lease": lease });
        case(name, about, image, expect)
    };
    let unavailable = json!({ "error": "lease_unavailable" });
    vec![
        with("policy_protect", "leases are never revoked", 1, 0, json!({ "seq": 61, "guarded": true })),
        with("policy_off", "no leases; copies go on", 2, 0, unavailable.clone()),
        with("policy_unknown", "a policy without a word is as off", 77, 0, unavailable),
        with(
            "leases_suspended",
            "lease_now is 1: a lease is to be had, but only validated",
            0,
            1,
            json!({ "seq": 61, "guarded": false }),
        ),
    ]
}

fn names_that_ended() -> Vec<Case> {
    let ended = |name, about, retired: u64, attach: &str, text: Value| {
        let (mut image, _) = gray(json!({}), &[(0, 70), (1, 71)]);
        image.set("retired", &retired.into());
        case(name, about, image, json!({ "attach": attach, "text": text }))
    };
    vec![
        ended("retired_superseded", "replaced, and the name still leads here", 1, "superseded", json!(["replaced"])),
        ended("retired_removed", "removed by its operator", 2, "removed", json!(["removed by its operator"])),
    ]
}

fn not_ready() -> Vec<Case> {
    let mut making = Image::new(json!({}));
    making.bytes[..8].fill(0);
    let mut empty = Image::new(json!({}));
    empty.bytes.clear();
    let expect = json!({ "attach": "not_ready", "text": ["being made"] });
    vec![
        case("magic_zero", "the first word is stored last: zero means not ready", making, expect.clone()),
        case("file_empty", "no byte yet", empty, expect),
    ]
}

/// A ring that is to be refused, with what the error says.
fn refused(name: &'static str, about: &'static str, changes: Value, text: &str) -> Case {
    let (image, _) = gray(changes, &[(0, 80), (1, 81)]);
    case(name, about, image, json!({ "attach": "layout_mismatch", "text": [text] }))
}

fn other_versions() -> Vec<Case> {
    let bit = json!({ "feature_incompat": 4 });
    let major = json!({ "abi_major": 2, "abi_minor": 5 });
    let endian = json!({ "endian_tag": 0x0D0C_0B0Au32 });
    vec![
        refused("unknown_incompatible_feature", "a bit of feature_incompat", bit, "unknown features 0x4"),
        refused("other_major", "a layout version that would be misread", major, "layout version 2.5"),
        refused("other_byte_order", "endian_tag the other way round", endian, "byte order"),
    ]
}

fn contradictions() -> Vec<Case> {
    let small = json!({ "slot_header_bytes": 192 });
    let crooked = json!({ "slot_header_bytes": 264 });
    let wide = json!({ "slot_capacity": 65_537 });
    let low = json!({ "header_bytes": 8192 });
    let high = json!({ "slot_table_off": 65_024 });
    let data = json!({ "data_off": 69_632 });
    let locks = json!({ "lease_lock_base": u64::MAX });
    let mut cases = vec![
        refused("two_slots", "slot_count below 3", json!({ "slot_count": 2 }), "slot count"),
        refused("too_many_slots", "slot_count above 256", json!({ "slot_count": 257 }), "slot count"),
        refused("capacity_over_stride", "slot_capacity above slot_stride", wide, "capacity"),
        refused("capacity_zero", "slots without room", json!({ "slot_capacity": 0 }), "capacity"),
        refused("table_in_header", "slot_table_off below header_bytes", low, "slot table"),
        refused("table_over_payload", "slot headers that reach into the payload", high, "slot table"),
        refused("slot_headers_small", "slot_header_bytes below 256", small, "slot headers"),
        refused("slot_headers_crooked", "slot_header_bytes no multiple of 64", crooked, "slot headers"),
        refused("payload_crooked", "data_off no multiple of 64 KiB", data, "not aligned"),
        refused("locks_out_of_range", "lock ranges that end above 2^63", locks, "lock offset"),
    ];
    let (mut image, _) = gray(json!({}), &[(0, 80)]);
    image.set("slot_stride", &(!0xFFFFu64).into());
    image.set("slot_capacity", &(!0xFFFFu64).into());
    image.seal();
    let overflow = json!({ "attach": "layout_mismatch", "text": ["exceeds the file"] });
    cases.push(case("stride_overflows", "slot_count * slot_stride does not fit 64 bits", image, overflow));
    cases
}

fn wrong_files() -> Vec<Case> {
    let refused = |name, about, text: &str, damage: fn(&mut Image)| {
        let (mut image, _) = gray(json!({}), &[(0, 80), (1, 81)]);
        damage(&mut image);
        case(name, about, image, json!({ "attach": "layout_mismatch", "text": [text] }))
    };
    vec![
        refused("wrong_magic", "a file of something else", "no camring segment", |image| image.bytes[7] = b'2'),
        refused("wrong_checksum", "a configuration with one byte changed", "checksum", |image| {
            image.bytes[0xA8] ^= 0x20
        }),
        refused("file_shorter", "the file was cut to 64 KiB", "size", |image| image.bytes.truncate(65_536)),
        refused("file_longer", "the file has grown", "size", |image| image.bytes.extend([0; 4096])),
        refused("file_tiny", "511 bytes: no room for a configuration", "no camring segment", |image| {
            image.bytes.truncate(511)
        }),
    ]
}

fn damaged_frames() -> Vec<Case> {
    let frame = |name, about, more: Value| {
        let (image, _) = one_frame("bgr", (8, 4), more);
        let corrupt = json!({ "error": "corrupt" });
        case(name, about, image, json!({ "attach": "ok", "latest": corrupt, "lease": corrupt }))
    };
    let head = |name, about, word: u64, error: &str| {
        let (mut image, _) = one_frame("bgr", (8, 4), json!({}));
        image.set("head", &word.into());
        case(name, about, image, json!({ "attach": "ok", "latest": { "error": error }, "lease": { "error": error } }))
    };
    let mut small = Image::new(json!({ "slot_capacity": 96 }));
    small.frame(1, 7, "bgr", (8, 4), json!({ "payload_len": 97 }));
    small.head(7, 1);
    let corrupt = json!({ "error": "corrupt" });
    let expect = json!({ "attach": "ok", "latest": corrupt, "lease": corrupt });
    vec![
        case("payload_over_capacity", "payload_len one byte above slot_capacity", small, expect),
        frame("plane_outside", "the last row ends one byte behind the payload", json!({ "plane_off": [1, 0, 0, 0] })),
        frame(
            "plane_far_outside",
            "offset and stride whose product needs more than 32 bits",
            json!({ "plane_off": [u32::MAX, 0, 0, 0], "plane_stride": [u32::MAX, 0, 0, 0] }),
        ),
        frame("stride_too_small", "rows that overlap", json!({ "plane_stride": [23, 0, 0, 0] })),
        frame("too_few_planes", "a bgr frame without a plane", json!({ "plane_count": 0 })),
        frame("too_many_planes", "a bgr frame of four planes", json!({ "plane_count": 4 })),
        frame("no_width", "a picture without a pixel", json!({ "width": 0 })),
        frame("seq_differs", "the slot's own sequence is not the stamp's", json!({ "seq": 8 })),
        head("head_slot_out_of_range", "head names slot 3 of 3", 7 << 16 | 3, "corrupt"),
        head("head_without_sequence", "head names a slot and the sequence 0", 1, "corrupt"),
        head("head_stamp_differs", "the slot never has the stamp that head promises", 8 << 16 | 1, "overrun"),
    ]
}
