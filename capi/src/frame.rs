//! One frame as C sees it: one struct with everything that the ring says about it.

use std::mem::offset_of;
use std::ptr::null;

use camring_ring::{Age, FrameMeta};

use crate::memory::Sized32;

/// `source_unix_ns` of a camera whose clock is not known.
pub const CAMRING_NO_TIME: i64 = i64::MIN;

/// One frame: what it shows, where its bytes are, when it was made. Later versions add fields at the end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// In: sizeof(struct camring_frame). Kept as it is.
    pub struct_size: u32,
    /// Bits of enum camring_flag.
    pub flags: u32,
    /// Number of this frame in its ring: first 1, then +1 each, never again.
    pub seq: u64,
    /// Frames published since the one this handle returned before, without this one; 0 for the first.
    pub skipped: u64,
    /// The pixels: the caller's buffer after a copy, the ring's own memory (read-only) in a lease; NULL when only
    /// described.
    pub payload: *const u8,
    /// Bytes of the pixels, all planes together.
    pub payload_bytes: u64,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// enum camring_pixfmt.
    pub pixfmt: u32,
    /// Planes in use, 1 to 4.
    pub plane_count: u32,
    /// First byte of each plane, from `payload`.
    pub plane_offset: [u32; 4],
    /// Bytes from one row to the next, by plane.
    pub plane_stride: [u32; 4],
    /// Identity of the generation it was read from.
    pub generation: [u8; 16],
    /// Age at the moment of the call: now minus arrival, time suspended included. A negative age is never fresh.
    pub age_ns: i64,
    /// When the picture's last packet arrived.
    pub arrival_mono_ns: i64,
    /// The same, since 1970.
    pub arrival_real_ns: i64,
    /// The camera's own clock, since 1970; CAMRING_NO_TIME when it is not known.
    pub source_unix_ns: i64,
    /// When the decoder delivered the picture.
    pub decoded_mono_ns: i64,
    /// When publishing it began, microseconds before readers could see it.
    pub publish_mono_ns: i64,
    /// The same, since 1970.
    pub publish_real_ns: i64,
    /// Presentation time within the session.
    pub pts_ns: i64,
    /// Nominal duration; 0 = unknown.
    pub duration_ns: i64,
    /// CLOCK_BOOTTIME - CLOCK_MONOTONIC when the slot was taken: time spent suspended.
    pub boot_minus_mono_ns: i64,
    /// From arrival to the converter.
    pub lag_ns: u64,
    /// Number of the decoded picture, equal in all outputs of a camera.
    pub source_seq: u64,
    /// Frames dropped in this ring before this one, since the ring was made.
    pub dropped_before: u64,
    /// Source pictures not published in this ring since its previous frame.
    pub gap: u32,
    /// CRC-32C of the pixels; 0 = not computed.
    pub payload_crc32c: u32,
    /// Grows with each daemon that takes the ring over.
    pub writer_epoch: u32,
    /// Grows when the size or format changes within a generation.
    pub geometry_epoch: u32,
    /// Grows with each session with the camera.
    pub session_id: u32,
    /// RTP time of the picture, 90 kHz for video.
    pub rtp_timestamp: u32,
    /// Colour primaries of the source, a code point of ITU-T H.273.
    pub color_primaries: u8,
    /// Transfer characteristics, likewise.
    pub color_transfer: u8,
    /// Matrix coefficients, likewise.
    pub color_matrix: u8,
    /// 1 = full range (0..255), 0 = limited (16..235).
    pub color_full_range: u8,
    /// enum camring_time_source: where `source_unix_ns` comes from.
    pub time_source: u8,
    /// The decoder's own format, a small enum camring_pixfmt.
    pub source_pixfmt: u8,
    /// Quarter turns that were applied.
    pub rotation: u8,
    /// enum camring_fit: how the picture was made to fit.
    pub fit: u8,
    /// Pixel aspect ratio, width; 0 = unknown.
    pub pixel_aspect_width: u16,
    /// Pixel aspect ratio, height; 0 = unknown.
    pub pixel_aspect_height: u16,
    /// Size of the decoded picture.
    pub source_width: u32,
    /// Size of the decoded picture.
    pub source_height: u32,
    /// x_out = x_source * scale_x + offset_x, and so for y: letterbox, crop and region are all in it.
    pub scale_x: f32,
    /// Output pixels per source pixel.
    pub scale_y: f32,
    /// Output pixels.
    pub offset_x: f32,
    /// Output pixels.
    pub offset_y: f32,
    /// Scale of float formats.
    pub value_scale: f32,
    /// Offset of float formats.
    pub value_offset: f32,
    /// Padding colour in pixel order.
    pub pad_color: [u8; 4],
    /// 1 = `age_ns` was taken from wall clocks because writer and reader live in different time namespaces.
    pub age_approximate: u32,
    /// 1 in a lease that the writer honours; 0 in a copy, and while the writer takes slots without asking (a lease is
    /// then only checked, and camring_release() says what became of it).
    pub guarded: u32,
}

// SAFETY: repr(C) and without padding: the assertion below adds the fields up; integers, floats and raw pointers may
// have any bytes; struct_size comes first.
unsafe impl Sized32 for Frame {
    const WHAT: &'static str = "camring_frame";
    const LEAST: usize = offset_of!(Self, generation);
    fn with_size(self, size: u32) -> Self {
        Self { struct_size: size, ..self }
    }
}

const _: () = assert!(size_of::<Frame>() == 8 + 8 * 4 + 16 + 32 + 16 + 13 * 8 + 6 * 4 + 8 + 4 + 2 * 4 + 6 * 4 + 3 * 4);

/// What a frame's metadata and age are in C; `payload` and `guarded` are left empty.
pub(crate) fn describe(meta: &FrameMeta, skipped: u64, generation: [u8; 16], age: Age) -> Frame {
    let geometry = &meta.geometry;
    Frame {
        struct_size: 0,
        flags: meta.flags.0,
        seq: meta.seq.0,
        skipped,
        payload: null(),
        payload_bytes: geometry.len,
        width: geometry.width,
        height: geometry.height,
        pixfmt: geometry.format.code(),
        plane_count: geometry.plane_count,
        plane_offset: geometry.plane_offsets,
        plane_stride: geometry.plane_strides,
        generation,
        age_ns: age.ns,
        arrival_mono_ns: meta.arrival_mono_ns,
        arrival_real_ns: meta.arrival_real_ns,
        source_unix_ns: meta.source_unix_ns.unwrap_or(CAMRING_NO_TIME),
        decoded_mono_ns: meta.decoded_mono_ns,
        publish_mono_ns: meta.publish_mono_ns,
        publish_real_ns: meta.publish_real_ns,
        pts_ns: meta.pts_ns,
        duration_ns: meta.duration_ns,
        boot_minus_mono_ns: meta.boot_minus_mono_ns,
        lag_ns: meta.lag_ns,
        source_seq: meta.source_seq,
        dropped_before: meta.dropped_before,
        gap: meta.gap,
        payload_crc32c: meta.payload_crc32c,
        writer_epoch: meta.writer_epoch,
        geometry_epoch: meta.geometry_epoch,
        session_id: meta.session_id,
        rtp_timestamp: meta.rtp_timestamp,
        color_primaries: meta.color.primaries,
        color_transfer: meta.color.transfer,
        color_matrix: meta.color.matrix,
        color_full_range: meta.color.full_range,
        time_source: meta.time_source.code(),
        // One byte in the layout, so nothing is cut.
        source_pixfmt: meta.source_format.code() as u8,
        rotation: meta.rotation,
        fit: meta.fit.code(),
        pixel_aspect_width: meta.pixel_aspect.0,
        pixel_aspect_height: meta.pixel_aspect.1,
        source_width: meta.source_size.0,
        source_height: meta.source_size.1,
        scale_x: meta.scale.0,
        scale_y: meta.scale.1,
        offset_x: meta.offset.0,
        offset_y: meta.offset.1,
        value_scale: meta.value_scale,
        value_offset: meta.value_offset,
        pad_color: meta.pad_color,
        age_approximate: u32::from(age.approximate),
        guarded: 0,
    }
}
