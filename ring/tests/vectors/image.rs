//! A segment built byte by byte from the tables of docs/segment.md, by field name.

use std::collections::BTreeMap;

use camring_ring::layout::crc32c;
use serde_json::{Map, Value, json};

use crate::document::{Field, Kind, document, fields, words};

/// Sections whose fields lie in the segment header.
const HEADER_SECTIONS: [&str; 6] = [
    "### 3.1 Immutable configuration, 0x000 to 0x1FF",
    "### 3.2 Hot line, 0x200 to 0x23F",
    "### 3.3 Liveness, 0x240 to 0x27F",
    "### 3.4 Counters, 0x280 to 0x3FF",
    "### 3.5 Process, 0x400 to 0x43F",
    "### 3.7 Text and reconnects, 0x580 to 0xFFF",
];
const SLOT_SECTION: &str = "### 3.8 Slot header, 256 bytes";
const CRC_AT: usize = 0x1FC;

/// The bytes of one file.
pub struct Image {
    pub bytes: Vec<u8>,
    header: BTreeMap<String, Field>,
    slot: BTreeMap<String, Field>,
    words: BTreeMap<&'static str, Vec<(u64, String)>>,
    config: Map<String, Value>,
}

/// The byte that every vector's payload has at `k` in frame `seq`.
pub fn pattern(seq: u64, k: u64) -> u8 {
    ((u128::from(seq) * 31 + u128::from(k)) % 251) as u8
}

/// Bytes of a row and rows of each plane of a picture.
pub fn planes(format: &str, width: u64, height: u64) -> Vec<(u64, u64)> {
    let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
    match format {
        "bgr" | "rgb" => vec![(width * 3, height)],
        "bgra" | "rgba" => vec![(width * 4, height)],
        "gray" => vec![(width, height)],
        "i420" => vec![(width, height), (half_width, half_height), (half_width, half_height)],
        "nv12" => vec![(width, height), (half_width * 2, half_height)],
        "rgb-planar-f32" => vec![(width * 4, height); 3],
        _ => Vec::new(),
    }
}

impl Image {
    /// A ring of three slots of 64 KiB for the camera `yard`; `changes` replace fields of the configuration.
    pub fn new(changes: Value) -> Self {
        let text = document();
        let mut header = BTreeMap::new();
        for heading in HEADER_SECTIONS {
            header.extend(fields(&text, heading));
        }
        let words = BTreeMap::from([
            ("pixfmt", words(&text, "### 4.1 Pixel format", "number | word")),
            ("source_pixfmt", words(&text, "### 4.1 Pixel format", "number | word")),
            ("state", words(&text, "### 4.2 State", "number | word")),
            ("reason", words(&text, "### 4.3 Reason", "number | word")),
            ("flags", words(&text, "### 4.4 Flags", "bit | word")),
            ("time_source", words(&text, "### 4.5 Time source and fit", "number | time source")),
            ("fit", words(&text, "### 4.5 Time source and fit", "number | fit")),
        ]);
        let mut config = usual_config();
        config.extend(changes.as_object().expect("an object of fields").clone());
        let number = |name: &str| config[name].as_u64().expect("a number");
        // A size that overflows is what some cases are about: the file itself stays small.
        let slots = number("slot_count").min(8);
        let planned = number("data_off").min(1 << 20) + slots * number("slot_stride").min(1 << 17);
        config.entry("file_bytes").or_insert(planned.into());
        let bytes = vec![0; planned as usize];
        let mut image = Self { bytes, header, slot: fields(&text, SLOT_SECTION), words, config };
        for (name, value) in image.config.clone() {
            image.set(&name, &value);
        }
        image.seal();
        image
    }

    /// Puts the right checksum over whatever the configuration is now.
    pub fn seal(&mut self) {
        let crc = crc32c(&self.bytes[..CRC_AT]);
        self.bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Stores a field of the header; the checksum stays as it is.
    pub fn set(&mut self, name: &str, value: &Value) {
        let field =
            self.header.get(name).unwrap_or_else(|| panic!("docs/segment.md has no header field {name}")).clone();
        store(&mut self.bytes, field.offset, &field.kind, value);
    }

    /// State and reason by word, or by number where a case needs one without a word.
    pub fn state(&mut self, state: Value, reason: Value, attempt: u64) -> Value {
        let word = self.code("state", &state) | self.code("reason", &reason) << 8 | attempt << 24;
        self.set("state_word", &word.into());
        json!({ "state": state, "reason": reason, "attempt": attempt })
    }

    /// Makes slot `slot` the newest frame.
    pub fn head(&mut self, seq: u64, slot: u64) {
        self.set("head", &(seq << 16 | slot).into());
    }

    /// Where slot `slot`'s header begins, by the configuration's own values.
    fn slot_header(&self, slot: u64) -> u64 {
        self.config("slot_table_off") + slot * self.config("slot_header_bytes")
    }

    fn config(&self, name: &str) -> u64 {
        self.config[name].as_u64().expect("a number")
    }

    fn code(&self, field: &str, value: &Value) -> u64 {
        let Some(word) = value.as_str() else { return value.as_u64().expect("a word or a number") };
        let known = self.words[field].iter().find(|(_, known)| known == word);
        known.unwrap_or_else(|| panic!("docs/segment.md has no {field} {word}")).0
    }

    /// Stores a field of a slot header; words stand for their numbers, lists of words for their bits.
    pub fn set_slot(&mut self, slot: u64, name: &str, value: &Value) {
        let field = self.slot.get(name).unwrap_or_else(|| panic!("docs/segment.md has no slot field {name}")).clone();
        let value = match (name, value) {
            ("flags", Value::Array(names)) => {
                names.iter().map(|word| 1u64 << self.code(name, word)).sum::<u64>().into()
            }
            (_, Value::String(_)) => self.code(name, value).into(),
            ("source_unix_ns", Value::Null) => i64::MIN.into(),
            _ => value.clone(),
        };
        let offset = self.slot_header(slot) + field.offset;
        store(&mut self.bytes, offset, &field.kind, &value);
    }

    /// A tight picture in a slot, stamped; `more` replaces or adds fields. Returns what a reader is to say of it.
    pub fn frame(&mut self, slot: u64, seq: u64, format: &str, size: (u64, u64), more: Value) -> Value {
        let mut meta = tight(seq, format, size);
        meta.extend(more.as_object().expect("an object of fields").clone());
        self.set_slot(slot, "stamp", &(seq << 1).into());
        for (name, value) in &meta {
            self.set_slot(slot, name, value);
        }
        let payload = self.config("data_off") + slot * self.config("slot_stride");
        let len = meta["payload_len"].as_u64().expect("a number").min(self.config("slot_capacity"));
        for k in 0..len {
            self.bytes[(payload + k) as usize] = pattern(seq, k);
        }
        meta.insert("planes".into(), described_planes(&meta, format, size));
        Value::Object(meta)
    }

    /// Runs of lines of 16 bytes that are not all zero: offset and hexadecimal digits.
    pub fn chunks(&self) -> Vec<(usize, String)> {
        let mut chunks: Vec<(usize, String)> = Vec::new();
        for (index, line) in self.bytes.chunks(16).enumerate() {
            if line.iter().all(|byte| *byte == 0) {
                continue;
            }
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            match chunks.last_mut() {
                Some((offset, digits)) if *offset + digits.len() / 2 == index * 16 => digits.push_str(&hex),
                _ => chunks.push((index * 16, hex)),
            }
        }
        chunks
    }
}

fn usual_config() -> Map<String, Value> {
    let uuid: Vec<u8> = (0..16).collect();
    let boot: Vec<u8> = (16..32).collect();
    let config = json!({
        "magic": "CAMRING1", "endian_tag": 0x0A0B_0C0D, "abi_major": 1, "abi_minor": 0, "feature_incompat": 0,
        "feature_compat": 0, "header_bytes": 4096, "slot_header_bytes": 256, "slot_count": 3, "lease_policy": 0,
        "slot_table_off": 4096, "data_off": 65536, "slot_stride": 65536, "slot_capacity": 65536,
        "lease_lock_base": 1u64 << 40, "alive_lock_off": 1u64 << 41, "presence_lock_base": 1u64 << 44,
        "ring_uuid": uuid, "boot_id": boot, "created_real_ns": 1_700_000_000_000_000_000i64, "owner_uid": 997,
        "owner_gid": 998, "base_seq": 0, "camera_id": "yard", "segment_name": "camring.yard", "builder": "0.1.0",
        "stale_after_ms": 1000,
    });
    config.as_object().expect("an object").clone()
}

/// The slot-header fields of a picture whose planes follow one another without padding.
fn tight(seq: u64, format: &str, (width, height): (u64, u64)) -> Map<String, Value> {
    let (mut offsets, mut strides, mut len) = ([0; 4], [0; 4], 0);
    let planes = planes(format, width, height);
    for (index, (row_bytes, rows)) in planes.iter().enumerate() {
        (offsets[index], strides[index]) = (len, *row_bytes);
        len += row_bytes * rows;
    }
    let meta = json!({
        "seq": seq, "width": width, "height": height, "pixfmt": format, "plane_count": planes.len(),
        "payload_len": len, "plane_off": offsets, "plane_stride": strides, "flags": [],
    });
    meta.as_object().expect("an object").clone()
}

/// Each plane as a reader is to find it: its place, and the bytes of its last row without padding.
fn described_planes(meta: &Map<String, Value>, format: &str, (width, height): (u64, u64)) -> Value {
    let seq = meta["seq"].as_u64().expect("a number");
    let described = planes(format, width, height).into_iter().enumerate().map(|(index, (row_bytes, rows))| {
        let value = |name: &str| meta[name][index].as_u64().expect("a number per plane");
        let last = value("plane_off") + value("plane_stride") * (rows - 1);
        let row: String = (last..last + row_bytes).map(|k| format!("{:02x}", pattern(seq, k))).collect();
        json!({ "row_bytes": row_bytes, "rows": rows, "last_row": row })
    });
    described.collect()
}

fn store(bytes: &mut [u8], offset: u64, kind: &Kind, value: &Value) {
    let at = offset as usize;
    match value {
        Value::String(text) => {
            assert!(kind.base == "u8" && text.len() as u64 <= kind.bytes(), "{text:?} does not fit {kind:?}");
            bytes[at..at + kind.bytes() as usize].fill(0);
            bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        Value::Array(elements) => {
            assert!(elements.len() as u64 <= kind.count, "{elements:?} does not fit {kind:?}");
            let one = Kind { count: 1, ..kind.clone() };
            for (index, element) in elements.iter().enumerate() {
                store(bytes, offset + index as u64 * kind.width(), &one, element);
            }
        }
        number => {
            let all = little_endian(kind, number);
            bytes[at..at + all.len()].copy_from_slice(&all);
        }
    }
}

fn little_endian(kind: &Kind, number: &Value) -> Vec<u8> {
    assert_eq!(kind.count, 1, "{number} for {kind:?}");
    if kind.base == "f32" {
        return (number.as_f64().expect("a number") as f32).to_le_bytes().to_vec();
    }
    let bits = number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned)).expect("a whole number");
    let width = kind.width() as usize;
    assert!(width == 8 || bits >> (width * 8) == 0, "{number} does not fit {kind:?}");
    bits.to_le_bytes()[..width].to_vec()
}
