//! The conformance vectors of docs/vectors/: made from the document's tables, and read by this library as they say.

#[path = "vectors/cases.rs"]
mod cases;
mod common;
mod document;
#[path = "vectors/image.rs"]
mod image;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use camring_ring::{AttachError, FrameMeta, LayoutError, ReadError, Ring, Sequence};
use cases::Case;
use common::Shm;
use serde_json::{Value, json};

/// Set to anything: writes the vectors instead of comparing them.
const BLESS: &str = "CAMRING_BLESS";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors")
}

/// One value per line, lists of plain values on one line: what a person can read and a diff can show.
fn print(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent + 2);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (index, (name, field)) in fields.into_iter().enumerate() {
                write!(out, "{}\n{pad}{}: ", if index == 0 { "{" } else { "," }, json!(name)).unwrap();
                print(field, indent + 2, out);
            }
            write!(out, "\n{}}}", " ".repeat(indent)).unwrap();
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                write!(out, "{}\n{pad}", if index == 0 { "[" } else { "," }).unwrap();
                print(item, indent + 2, out);
            }
            write!(out, "\n{}]", " ".repeat(indent)).unwrap();
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            write!(out, "[{}]", items.join(", ")).unwrap();
        }
        plain => write!(out, "{plain}").unwrap(),
    }
}

fn vector(case: &Case) -> String {
    let chunks: Value = case.image.chunks().into_iter().map(|(offset, hex)| json!([offset, hex])).collect();
    let mut out = String::from("{");
    for (name, value) in [
        ("name", json!(case.name)),
        ("about", json!(case.about)),
        ("file_bytes", json!(case.image.bytes.len())),
        ("chunks", chunks),
        ("expect", case.expect.clone()),
    ] {
        write!(out, "{}\n  {}: ", if name == "name" { "" } else { "," }, json!(name)).unwrap();
        print(&value, 2, &mut out);
    }
    out + "\n}\n"
}

#[test]
fn the_vectors_are_the_ones_that_the_document_makes() {
    let bless = std::env::var_os(BLESS).is_some();
    let mut names = BTreeSet::new();
    for case in cases::all() {
        assert!(names.insert(format!("{}.json", case.name)), "two cases are called {}", case.name);
        let path = folder().join(format!("{}.json", case.name));
        if bless {
            fs::write(&path, vector(&case)).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == vector(&case),
            "{} is out of step; run this test with {BLESS}=1 and look at the diff",
            path.display()
        );
    }
    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    assert_eq!(there, names, "docs/vectors/ holds exactly the cases");
}

/// The file that a vector describes, under the name `camring.yard`.
fn put(shm: &Shm, vector: &Value) {
    let mut bytes = vec![0; vector["file_bytes"].as_u64().unwrap() as usize];
    for chunk in vector["chunks"].as_array().unwrap() {
        let (offset, hex) = (chunk[0].as_u64().unwrap() as usize, chunk[1].as_str().unwrap());
        for index in 0..hex.len() / 2 {
            bytes[offset + index] = u8::from_str_radix(&hex[index * 2..index * 2 + 2], 16).unwrap();
        }
    }
    fs::write(shm.path().join("camring.yard"), bytes).unwrap();
}

fn attach_word(result: &Result<Ring, AttachError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(AttachError::Layout { error: LayoutError::NotReady, .. }) => "not_ready",
        Err(AttachError::Layout { .. }) => "layout_mismatch",
        Err(AttachError::Superseded(_)) => "superseded",
        Err(AttachError::Removed(_)) => "removed",
        Err(error) => panic!("no vector expects {error}"),
    }
}

fn read_error(error: &ReadError) -> Value {
    match error {
        ReadError::NoFrame { state, reason, .. } => {
            let (state, reason) = (coded(state.word(), state.code()), coded(reason.word(), reason.code()));
            json!({ "error": "no_frame", "state": state, "reason": reason })
        }
        ReadError::UnknownFormat { .. } => json!({ "error": "unknown_format" }),
        ReadError::Corrupt { .. } => json!({ "error": "corrupt" }),
        ReadError::Overrun { oldest, .. } => json!({ "error": "overrun", "oldest": oldest.0 }),
        ReadError::NotYet { newest, .. } => json!({ "error": "not_yet", "newest": newest.0 }),
        ReadError::LeaseUnavailable { .. } => json!({ "error": "lease_unavailable" }),
        error => panic!("no vector expects {error}"),
    }
}

/// The word, or the number where there is no word.
fn coded(word: Option<&str>, code: impl Into<u64>) -> Value {
    word.map_or_else(|| json!(code.into()), |word| json!(word))
}

/// A frame's metadata under the names of the document.
fn described(meta: &FrameMeta) -> Value {
    let FrameMeta { geometry, color, .. } = meta;
    json!({
        "seq": meta.seq.0, "width": geometry.width, "height": geometry.height,
        "pixfmt": coded(geometry.format.word(), geometry.format.code()), "plane_count": geometry.plane_count,
        "payload_len": geometry.len, "plane_off": geometry.plane_offsets, "plane_stride": geometry.plane_strides,
        "flags": meta.flags.words().collect::<Vec<_>>(),
        "color": [color.primaries, color.transfer, color.matrix, color.full_range],
        "geometry_epoch": meta.geometry_epoch, "writer_epoch": meta.writer_epoch, "session_id": meta.session_id,
        "rtp_timestamp": meta.rtp_timestamp, "pts_ns": meta.pts_ns, "duration_ns": meta.duration_ns,
        "arrival_mono_ns": meta.arrival_mono_ns, "arrival_real_ns": meta.arrival_real_ns,
        "source_unix_ns": meta.source_unix_ns, "decoded_mono_ns": meta.decoded_mono_ns,
        "publish_mono_ns": meta.publish_mono_ns, "publish_real_ns": meta.publish_real_ns,
        "source_seq": meta.source_seq, "dropped_before": meta.dropped_before, "payload_crc32c": meta.payload_crc32c,
        "pixel_aspect": [meta.pixel_aspect.0, meta.pixel_aspect.1], "gap": meta.gap,
        "time_source": coded(meta.time_source.word(), meta.time_source.code()),
        "source_pixfmt": coded(meta.source_format.word(), meta.source_format.code()),
        "rotation": meta.rotation, "fit": coded(meta.fit.word(), meta.fit.code()),
        "source_size": [meta.source_size.0, meta.source_size.1], "scale": [meta.scale.0, meta.scale.1],
        "offset": [meta.offset.0, meta.offset.1], "pad_color": meta.pad_color, "value_scale": meta.value_scale,
        "value_offset": meta.value_offset, "boot_minus_mono_ns": meta.boot_minus_mono_ns, "lag_ns": meta.lag_ns,
    })
}

/// Every field that `expected` names is in `found` with that value.
fn assert_contains(found: &Value, expected: &Value, what: &str) {
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(found.get(name), Some(value), "{what}: {name}");
    }
}

/// A read's frame and pixels, or its error, against what the vector expects.
fn assert_read(result: Result<(FrameMeta, &[u8]), &ReadError>, expected: &Value, what: &str) {
    let mut expected = expected.clone();
    let fields = expected.as_object_mut().expect("an object");
    match result {
        Ok((meta, pixels)) => {
            let planes = fields.remove("planes");
            assert_contains(&described(&meta), &expected, what);
            let seq = meta.seq.0;
            assert_eq!(pixels.len() as u64, meta.geometry.len, "{what}");
            assert!(
                (0..).zip(pixels).all(|(k, byte)| *byte == image::pattern(seq, k)),
                "{what}: pixels of frame {seq}"
            );
            planes.iter().for_each(|planes| assert_planes(&meta, pixels, planes, what));
        }
        Err(error) => {
            let texts = fields.remove("text");
            assert_contains(&read_error(error), &expected, what);
            assert_texts(&error.to_string(), texts.as_ref(), what);
        }
    }
}

fn assert_lease(ring: &Ring, expected: &Value, what: &str) {
    let what = format!("{what}: lease");
    match ring.lease() {
        Err(error) => assert_read(Err(&error), expected, &what),
        Ok(lease) => {
            assert_eq!(json!({ "seq": lease.frame().meta.seq.0, "guarded": lease.is_guarded() }), *expected, "{what}");
            let mut pixels = vec![0; lease.len()];
            lease.copy_to(&mut pixels).expect("nobody writes here");
            assert_read(Ok((lease.frame().meta, &pixels)), &json!({}), &what);
            lease.release().expect("nobody writes here");
        }
    }
}

fn assert_planes(meta: &FrameMeta, pixels: &[u8], planes: &Value, what: &str) {
    for (index, plane) in planes.as_array().unwrap().iter().enumerate() {
        let (row_bytes, rows) = meta.geometry.plane_extent(index).expect("a plane");
        assert_eq!((json!(row_bytes), json!(rows)), (plane["row_bytes"].clone(), plane["rows"].clone()), "{what}");
        let last =
            u64::from(meta.geometry.plane_offsets[index]) + u64::from(meta.geometry.plane_strides[index]) * (rows - 1);
        let row = &pixels[last as usize..(last + row_bytes) as usize];
        let hex: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(json!(hex), plane["last_row"], "{what}: the last row of plane {index}");
    }
}

fn assert_texts(found: &str, texts: Option<&Value>, what: &str) {
    for text in texts.and_then(Value::as_array).into_iter().flatten() {
        let text = text.as_str().expect("a text");
        assert!(found.contains(text), "{what}: {found:?} does not say {text:?}");
    }
}

fn assert_status(ring: &Ring, expected: &Value, what: &str) {
    let status = ring.status();
    let mut found = json!({
        "state": coded(status.state.word(), status.state.code()), "reason": coded(status.reason.word(), status.reason.code()),
        "attempt": status.attempt, "last_publish_mono_ns": status.last_publish_mono_ns,
        "state_since_mono_ns": status.state_since_mono_ns, "next_retry_mono_ns": status.next_retry_mono_ns,
        "frame_interval_us": status.frame_interval_us, "writer_epoch": status.writer_epoch, "writer_pid": status.writer_pid,
        "geometry_epoch": status.geometry_epoch, "session_id": status.session_id,
        "heartbeat_mono_ns": status.heartbeat_mono_ns, "decoder": status.decoder, "codec": status.codec,
    });
    for (name, value) in &status.counters {
        found[*name] = json!(value);
    }
    assert_contains(&found, expected, what);
}

fn assert_config(ring: &Ring, expected: &Value, what: &str) {
    let layout = ring.layout();
    let found = json!({
        "camera_id": layout.camera_id, "builder": layout.builder, "stale_after_ms": layout.stale_after_ms,
        "slot_count": layout.slot_count, "lease_policy": layout.lease_policy,
    });
    assert_contains(&found, expected, what);
}

fn run(vector: &Value) {
    let what = vector["name"].as_str().unwrap();
    let expect = &vector["expect"];
    let shm = Shm::new();
    put(&shm, vector);
    let mut options = shm.attach_options();
    options.timeout = Some(Duration::ZERO);
    let ring = Ring::attach("camring.yard", options);
    let error = ring.as_ref().err().map(ToString::to_string).unwrap_or_default();
    assert_eq!(attach_word(&ring), expect["attach"], "{what}: {error}");
    assert_texts(&error, expect.get("text"), what);
    let Ok(ring) = ring else { return };
    let mut pixels = Vec::new();
    if let Some(expected) = expect.get("latest") {
        let read = ring.latest(&mut pixels);
        assert_read(read.as_ref().map(|frame| (frame.meta, pixels.as_slice())), expected, what);
    }
    if let Some(held) = expect.get("held") {
        let found: Vec<u64> = ring.held().iter().map(|meta| meta.seq.0).collect();
        assert_eq!(&json!(found), held, "{what}: held");
    }
    for (seq, expected) in expect.get("at").and_then(Value::as_object).into_iter().flatten() {
        let read = ring.at(Sequence(seq.parse().unwrap()), &mut pixels);
        assert_read(
            read.as_ref().map(|frame| (frame.meta, pixels.as_slice())),
            expected,
            &format!("{what}: frame {seq}"),
        );
    }
    expect.get("lease").iter().for_each(|expected| assert_lease(&ring, expected, what));
    expect.get("status").iter().for_each(|expected| assert_status(&ring, expected, what));
    expect.get("config").iter().for_each(|expected| assert_config(&ring, expected, what));
}

#[test]
fn every_vector_reads_as_it_says() {
    // From the files, as every other reader takes them; a missing one fails here.
    for case in cases::all() {
        let text = fs::read_to_string(folder().join(format!("{}.json", case.name))).unwrap_or_else(|_| vector(&case));
        run(&serde_json::from_str(&text).expect("JSON"));
    }
}
