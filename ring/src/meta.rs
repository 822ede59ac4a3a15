//! A frame's metadata as the 32 words of its slot header.
//!
//! Every field is cut out of its word at an offset that the compiler knows: neither direction goes through memory of its
//! own, and both are short, because they run per frame on processors that have just slept.

use crate::frame::{Color, Fit, FrameFlags, FrameMeta, Geometry, PixelFormat, Sequence, TimeSource};
use crate::layout::{SLOT_WORDS, slot_at as at};

/// The words of one slot header; word 0 (the stamp) belongs to the protocol.
pub(crate) type SlotWords = [u64; SLOT_WORDS];

/// The number in `source_unix_ns` that says "not known".
const UNKNOWN_TIME: i64 = i64::MIN;

/// Puts a value of at most eight bytes at `offset`, where the word is still zero.
#[inline(always)]
fn put(words: &mut SlotWords, offset: usize, value: impl Into<u64>) {
    words[offset / 8] |= value.into() << (offset % 8 * 8);
}

#[inline(always)]
fn put_time(words: &mut SlotWords, offset: usize, value: i64) {
    put(words, offset, value.cast_unsigned());
}

#[inline(always)]
fn u64_at(words: &SlotWords, offset: usize) -> u64 {
    words[offset / 8] >> (offset % 8 * 8)
}

#[inline(always)]
fn u32_at(words: &SlotWords, offset: usize) -> u32 {
    u64_at(words, offset) as u32
}

#[inline(always)]
fn u16_at(words: &SlotWords, offset: usize) -> u16 {
    u64_at(words, offset) as u16
}

#[inline(always)]
fn u8_at(words: &SlotWords, offset: usize) -> u8 {
    u64_at(words, offset) as u8
}

#[inline(always)]
fn time_at(words: &SlotWords, offset: usize) -> i64 {
    u64_at(words, offset).cast_signed()
}

#[inline(always)]
fn f32_at(words: &SlotWords, offset: usize) -> f32 {
    f32::from_bits(u32_at(words, offset))
}

/// The words to store; word 0 is zero.
#[inline(always)]
pub(crate) fn encode(meta: &FrameMeta) -> SlotWords {
    let mut words = [0; SLOT_WORDS];
    put_geometry(&mut words, &meta.geometry);
    put_identity(&mut words, meta);
    put_times(&mut words, meta);
    put_source(&mut words, meta);
    words
}

#[inline(always)]
fn put_geometry(words: &mut SlotWords, geometry: &Geometry) {
    put(words, at::WIDTH, geometry.width);
    put(words, at::HEIGHT, geometry.height);
    put(words, at::PIXFMT, geometry.format.code());
    put(words, at::PLANE_COUNT, geometry.plane_count);
    put(words, at::PAYLOAD_LEN, geometry.len);
    for plane in 0..4 {
        put(words, at::PLANE_OFF + plane * 4, geometry.plane_offsets[plane]);
        put(words, at::PLANE_STRIDE + plane * 4, geometry.plane_strides[plane]);
    }
}

#[inline(always)]
fn put_identity(words: &mut SlotWords, meta: &FrameMeta) {
    let Color { primaries, transfer, matrix, full_range } = meta.color;
    put(words, at::SEQ, meta.seq.0);
    put(words, at::FLAGS, meta.flags.0);
    put(words, at::COLOR, u32::from_le_bytes([primaries, transfer, matrix, full_range]));
    put(words, at::GEOMETRY_EPOCH, meta.geometry_epoch);
    put(words, at::WRITER_EPOCH, meta.writer_epoch);
    put(words, at::SESSION_ID, meta.session_id);
    put(words, at::SOURCE_SEQ, meta.source_seq);
    put(words, at::DROPPED_BEFORE, meta.dropped_before);
    put(words, at::PAYLOAD_CRC32C, meta.payload_crc32c);
    put(words, at::GAP, meta.gap);
}

#[inline(always)]
fn put_times(words: &mut SlotWords, meta: &FrameMeta) {
    put(words, at::RTP_TIMESTAMP, meta.rtp_timestamp);
    put_time(words, at::PTS_NS, meta.pts_ns);
    put_time(words, at::DURATION_NS, meta.duration_ns);
    put_time(words, at::ARRIVAL_MONO_NS, meta.arrival_mono_ns);
    put_time(words, at::ARRIVAL_REAL_NS, meta.arrival_real_ns);
    put_time(words, at::SOURCE_UNIX_NS, meta.source_unix_ns.unwrap_or(UNKNOWN_TIME));
    put_time(words, at::DECODED_MONO_NS, meta.decoded_mono_ns);
    put_time(words, at::PUBLISH_MONO_NS, meta.publish_mono_ns);
    put_time(words, at::PUBLISH_REAL_NS, meta.publish_real_ns);
    put_time(words, at::BOOT_MINUS_MONO_NS, meta.boot_minus_mono_ns);
    put(words, at::LAG_NS, meta.lag_ns);
}

#[inline(always)]
fn put_source(words: &mut SlotWords, meta: &FrameMeta) {
    put(words, at::PIXEL_ASPECT, meta.pixel_aspect.0);
    put(words, at::PIXEL_ASPECT + 2, meta.pixel_aspect.1);
    put(words, at::TIME_SOURCE, meta.time_source.code());
    put(words, at::SOURCE_PIXFMT, meta.source_format.code() as u8);
    put(words, at::ROTATION, meta.rotation);
    put(words, at::FIT, meta.fit.code());
    put(words, at::SOURCE_SIZE, meta.source_size.0);
    put(words, at::SOURCE_SIZE + 4, meta.source_size.1);
    put(words, at::SCALE, meta.scale.0.to_bits());
    put(words, at::SCALE + 4, meta.scale.1.to_bits());
    put(words, at::OFFSET, meta.offset.0.to_bits());
    put(words, at::OFFSET + 4, meta.offset.1.to_bits());
    put(words, at::PAD_COLOR, u32::from_le_bytes(meta.pad_color));
    put(words, at::VALUE_SCALE, meta.value_scale.to_bits());
    put(words, at::VALUE_OFFSET, meta.value_offset.to_bits());
}

/// The metadata behind a private copy of a slot header; any bytes give some value, bounds are checked by the reader.
#[inline(always)]
pub(crate) fn decode(words: &SlotWords) -> FrameMeta {
    let [primaries, transfer, matrix, full_range] = u32_at(words, at::COLOR).to_le_bytes();
    let source_unix_ns = time_at(words, at::SOURCE_UNIX_NS);
    FrameMeta {
        seq: Sequence(u64_at(words, at::SEQ)),
        geometry: geometry(words),
        flags: FrameFlags(u32_at(words, at::FLAGS)),
        color: Color { primaries, transfer, matrix, full_range },
        geometry_epoch: u32_at(words, at::GEOMETRY_EPOCH),
        writer_epoch: u32_at(words, at::WRITER_EPOCH),
        session_id: u32_at(words, at::SESSION_ID),
        rtp_timestamp: u32_at(words, at::RTP_TIMESTAMP),
        pts_ns: time_at(words, at::PTS_NS),
        duration_ns: time_at(words, at::DURATION_NS),
        arrival_mono_ns: time_at(words, at::ARRIVAL_MONO_NS),
        arrival_real_ns: time_at(words, at::ARRIVAL_REAL_NS),
        source_unix_ns: (source_unix_ns != UNKNOWN_TIME).then_some(source_unix_ns),
        time_source: TimeSource::from_code(u8_at(words, at::TIME_SOURCE)),
        decoded_mono_ns: time_at(words, at::DECODED_MONO_NS),
        publish_mono_ns: time_at(words, at::PUBLISH_MONO_NS),
        publish_real_ns: time_at(words, at::PUBLISH_REAL_NS),
        source_seq: u64_at(words, at::SOURCE_SEQ),
        dropped_before: u64_at(words, at::DROPPED_BEFORE),
        payload_crc32c: u32_at(words, at::PAYLOAD_CRC32C),
        pixel_aspect: (u16_at(words, at::PIXEL_ASPECT), u16_at(words, at::PIXEL_ASPECT + 2)),
        gap: u32_at(words, at::GAP),
        source_format: PixelFormat::from_code(u32::from(u8_at(words, at::SOURCE_PIXFMT))),
        rotation: u8_at(words, at::ROTATION),
        fit: Fit::from_code(u8_at(words, at::FIT)),
        source_size: (u32_at(words, at::SOURCE_SIZE), u32_at(words, at::SOURCE_SIZE + 4)),
        scale: (f32_at(words, at::SCALE), f32_at(words, at::SCALE + 4)),
        offset: (f32_at(words, at::OFFSET), f32_at(words, at::OFFSET + 4)),
        pad_color: u32_at(words, at::PAD_COLOR).to_le_bytes(),
        value_scale: f32_at(words, at::VALUE_SCALE),
        value_offset: f32_at(words, at::VALUE_OFFSET),
        boot_minus_mono_ns: time_at(words, at::BOOT_MINUS_MONO_NS),
        lag_ns: u64_at(words, at::LAG_NS),
    }
}

#[inline(always)]
fn geometry(words: &SlotWords) -> Geometry {
    let four = |offset: usize| {
        [u32_at(words, offset), u32_at(words, offset + 4), u32_at(words, offset + 8), u32_at(words, offset + 12)]
    };
    Geometry {
        width: u32_at(words, at::WIDTH),
        height: u32_at(words, at::HEIGHT),
        format: PixelFormat::from_code(u32_at(words, at::PIXFMT)),
        plane_count: u32_at(words, at::PLANE_COUNT),
        plane_offsets: four(at::PLANE_OFF),
        plane_strides: four(at::PLANE_STRIDE),
        len: u64_at(words, at::PAYLOAD_LEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_survives_the_slot_header() {
        let geometry = Geometry::packed(641, 359, PixelFormat::I420).unwrap();
        let mut meta = FrameMeta::new(geometry);
        meta.seq = Sequence(7);
        meta.flags = FrameFlags::KEYFRAME.with(FrameFlags::GAP);
        meta.color = Color { primaries: 1, transfer: 2, matrix: 3, full_range: 1 };
        meta.source_unix_ns = Some(-5);
        meta.time_source = TimeSource::RtcpSr;
        meta.pixel_aspect = (4, 3);
        meta.scale = (0.5, 0.25);
        meta.offset = (1.0, -2.0);
        meta.pad_color = [1, 2, 3, 4];
        meta.gap = 9;
        meta.lag_ns = u64::MAX;
        meta.boot_minus_mono_ns = -1;
        meta.source_size = (1282, 718);
        meta.rtp_timestamp = 0xDEAD_BEEF;
        assert_eq!(decode(&encode(&meta)), meta);
        meta.source_unix_ns = None;
        assert_eq!(decode(&encode(&meta)), meta);
    }

    #[test]
    fn a_point_leads_back_through_region_letterbox_and_scale() {
        let mut meta = FrameMeta::new(Geometry::packed(640, 640, PixelFormat::Rgb).unwrap());
        assert_eq!(meta.to_source(3.5, 7.0), Some((3.5, 7.0)));
        // 1280x720 from (640, 360) on, letterboxed.
        meta.scale = (0.5, 0.5);
        meta.offset = (-320.0, 140.0 - 180.0);
        assert_eq!(meta.to_source(0.0, 140.0), Some((640.0, 360.0)));
        assert_eq!(meta.to_source(640.0, 500.0), Some((1920.0, 1080.0)));
        for wrong in [0.0, f32::NAN, f32::INFINITY] {
            meta.scale.1 = wrong;
            assert_eq!(meta.to_source(0.0, 0.0), None);
        }
    }
}
