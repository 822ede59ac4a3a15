//! A frame's metadata as the 32 words of its slot header.

use crate::frame::{Color, Fit, FrameFlags, FrameMeta, Geometry, PixelFormat, Sequence, TimeSource};
use crate::layout::{SLOT_HEADER_BYTES, SLOT_WORDS, slot_at as at};

/// The words of one slot header; word 0 (the stamp) belongs to the protocol.
pub(crate) type SlotWords = [u64; SLOT_WORDS];

/// The number in `source_unix_ns` that says "not known".
const UNKNOWN_TIME: i64 = i64::MIN;

struct Bytes([u8; SLOT_HEADER_BYTES as usize]);

impl Bytes {
    fn put<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        self.0[offset..offset + N].copy_from_slice(&bytes);
    }

    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.0[offset..offset + N]);
        out
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.get(offset))
    }
    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.get(offset))
    }
    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.get(offset))
    }
    fn i64(&self, offset: usize) -> i64 {
        i64::from_le_bytes(self.get(offset))
    }
    fn f32(&self, offset: usize) -> f32 {
        f32::from_le_bytes(self.get(offset))
    }
}

/// The words to store; word 0 is zero.
pub(crate) fn encode(meta: &FrameMeta) -> SlotWords {
    let mut out = Bytes([0; SLOT_HEADER_BYTES as usize]);
    put_geometry(&mut out, &meta.geometry);
    put_identity(&mut out, meta);
    put_times(&mut out, meta);
    put_source(&mut out, meta);
    let mut words = [0; SLOT_WORDS];
    for (word, chunk) in words.iter_mut().zip(out.0.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes"));
    }
    words
}

fn put_geometry(out: &mut Bytes, geometry: &Geometry) {
    out.put(at::WIDTH, geometry.width.to_le_bytes());
    out.put(at::HEIGHT, geometry.height.to_le_bytes());
    out.put(at::PIXFMT, geometry.format.code().to_le_bytes());
    out.put(at::PLANE_COUNT, geometry.plane_count.to_le_bytes());
    out.put(at::PAYLOAD_LEN, geometry.len.to_le_bytes());
    for plane in 0..4 {
        out.put(at::PLANE_OFF + plane * 4, geometry.plane_offsets[plane].to_le_bytes());
        out.put(at::PLANE_STRIDE + plane * 4, geometry.plane_strides[plane].to_le_bytes());
    }
}

fn put_identity(out: &mut Bytes, meta: &FrameMeta) {
    out.put(at::SEQ, meta.seq.0.to_le_bytes());
    out.put(at::FLAGS, meta.flags.0.to_le_bytes());
    let Color { primaries, transfer, matrix, full_range } = meta.color;
    out.put(at::COLOR, [primaries, transfer, matrix, full_range]);
    out.put(at::GEOMETRY_EPOCH, meta.geometry_epoch.to_le_bytes());
    out.put(at::WRITER_EPOCH, meta.writer_epoch.to_le_bytes());
    out.put(at::SESSION_ID, meta.session_id.to_le_bytes());
    out.put(at::SOURCE_SEQ, meta.source_seq.to_le_bytes());
    out.put(at::DROPPED_BEFORE, meta.dropped_before.to_le_bytes());
    out.put(at::PAYLOAD_CRC32C, meta.payload_crc32c.to_le_bytes());
    out.put(at::GAP, meta.gap.to_le_bytes());
}

fn put_times(out: &mut Bytes, meta: &FrameMeta) {
    out.put(at::RTP_TIMESTAMP, meta.rtp_timestamp.to_le_bytes());
    out.put(at::PTS_NS, meta.pts_ns.to_le_bytes());
    out.put(at::DURATION_NS, meta.duration_ns.to_le_bytes());
    out.put(at::ARRIVAL_MONO_NS, meta.arrival_mono_ns.to_le_bytes());
    out.put(at::ARRIVAL_REAL_NS, meta.arrival_real_ns.to_le_bytes());
    out.put(at::SOURCE_UNIX_NS, meta.source_unix_ns.unwrap_or(UNKNOWN_TIME).to_le_bytes());
    out.put(at::DECODED_MONO_NS, meta.decoded_mono_ns.to_le_bytes());
    out.put(at::PUBLISH_MONO_NS, meta.publish_mono_ns.to_le_bytes());
    out.put(at::PUBLISH_REAL_NS, meta.publish_real_ns.to_le_bytes());
    out.put(at::BOOT_MINUS_MONO_NS, meta.boot_minus_mono_ns.to_le_bytes());
    out.put(at::LAG_NS, meta.lag_ns.to_le_bytes());
}

fn put_source(out: &mut Bytes, meta: &FrameMeta) {
    out.put(at::PIXEL_ASPECT, meta.pixel_aspect.0.to_le_bytes());
    out.put(at::PIXEL_ASPECT + 2, meta.pixel_aspect.1.to_le_bytes());
    out.put(at::TIME_SOURCE, [meta.time_source.code()]);
    out.put(at::SOURCE_PIXFMT, [meta.source_format.code() as u8]);
    out.put(at::ROTATION, [meta.rotation]);
    out.put(at::FIT, [meta.fit.code()]);
    out.put(at::SOURCE_SIZE, meta.source_size.0.to_le_bytes());
    out.put(at::SOURCE_SIZE + 4, meta.source_size.1.to_le_bytes());
    out.put(at::SCALE, meta.scale.0.to_le_bytes());
    out.put(at::SCALE + 4, meta.scale.1.to_le_bytes());
    out.put(at::OFFSET, meta.offset.0.to_le_bytes());
    out.put(at::OFFSET + 4, meta.offset.1.to_le_bytes());
    out.put(at::PAD_COLOR, meta.pad_color);
    out.put(at::VALUE_SCALE, meta.value_scale.to_le_bytes());
    out.put(at::VALUE_OFFSET, meta.value_offset.to_le_bytes());
}

/// The metadata behind a private copy of a slot header; any bytes give some value, bounds are checked by the reader.
pub(crate) fn decode(words: &SlotWords) -> FrameMeta {
    let mut raw = Bytes([0; SLOT_HEADER_BYTES as usize]);
    for (chunk, word) in raw.0.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let [primaries, transfer, matrix, full_range] = raw.get(at::COLOR);
    let source_unix_ns = raw.i64(at::SOURCE_UNIX_NS);
    FrameMeta {
        seq: Sequence(raw.u64(at::SEQ)),
        geometry: geometry(&raw),
        flags: FrameFlags(raw.u32(at::FLAGS)),
        color: Color { primaries, transfer, matrix, full_range },
        geometry_epoch: raw.u32(at::GEOMETRY_EPOCH),
        writer_epoch: raw.u32(at::WRITER_EPOCH),
        session_id: raw.u32(at::SESSION_ID),
        rtp_timestamp: raw.u32(at::RTP_TIMESTAMP),
        pts_ns: raw.i64(at::PTS_NS),
        duration_ns: raw.i64(at::DURATION_NS),
        arrival_mono_ns: raw.i64(at::ARRIVAL_MONO_NS),
        arrival_real_ns: raw.i64(at::ARRIVAL_REAL_NS),
        source_unix_ns: (source_unix_ns != UNKNOWN_TIME).then_some(source_unix_ns),
        time_source: TimeSource::from_code(raw.get::<1>(at::TIME_SOURCE)[0]),
        decoded_mono_ns: raw.i64(at::DECODED_MONO_NS),
        publish_mono_ns: raw.i64(at::PUBLISH_MONO_NS),
        publish_real_ns: raw.i64(at::PUBLISH_REAL_NS),
        source_seq: raw.u64(at::SOURCE_SEQ),
        dropped_before: raw.u64(at::DROPPED_BEFORE),
        payload_crc32c: raw.u32(at::PAYLOAD_CRC32C),
        pixel_aspect: (raw.u16(at::PIXEL_ASPECT), raw.u16(at::PIXEL_ASPECT + 2)),
        gap: raw.u32(at::GAP),
        source_format: PixelFormat::from_code(u32::from(raw.get::<1>(at::SOURCE_PIXFMT)[0])),
        rotation: raw.get::<1>(at::ROTATION)[0],
        fit: Fit::from_code(raw.get::<1>(at::FIT)[0]),
        source_size: (raw.u32(at::SOURCE_SIZE), raw.u32(at::SOURCE_SIZE + 4)),
        scale: (raw.f32(at::SCALE), raw.f32(at::SCALE + 4)),
        offset: (raw.f32(at::OFFSET), raw.f32(at::OFFSET + 4)),
        pad_color: raw.get(at::PAD_COLOR),
        value_scale: raw.f32(at::VALUE_SCALE),
        value_offset: raw.f32(at::VALUE_OFFSET),
        boot_minus_mono_ns: raw.i64(at::BOOT_MINUS_MONO_NS),
        lag_ns: raw.u64(at::LAG_NS),
    }
}

fn geometry(raw: &Bytes) -> Geometry {
    let four = |offset: usize| [0, 4, 8, 12].map(|step| raw.u32(offset + step));
    Geometry {
        width: raw.u32(at::WIDTH),
        height: raw.u32(at::HEIGHT),
        format: PixelFormat::from_code(raw.u32(at::PIXFMT)),
        plane_count: raw.u32(at::PLANE_COUNT),
        plane_offsets: four(at::PLANE_OFF),
        plane_strides: four(at::PLANE_STRIDE),
        len: raw.u64(at::PAYLOAD_LEN),
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
