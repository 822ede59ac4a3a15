//! A frame as a JPEG file.

use std::borrow::Cow;

use camring_ring::{FrameMeta, Geometry, PixelFormat};
use jpeg_encoder::{ColorType, Encoder};
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvPlanarImage, YuvRange, YuvStandardMatrix};

/// Above this height a source that does not say so is taken for BT.709, as broadcast practice has it.
const SD_HEIGHT_MAX: u32 = 576;

/// Encodes the picture in `payload`; the error says in words why it cannot be done.
pub(crate) fn encode(meta: &FrameMeta, payload: &[u8], quality: u8) -> Result<Vec<u8>, String> {
    let Geometry { width, height, format, .. } = meta.geometry;
    let refuse =
        |why: &str| format!("frame {} is {width}x{height} {format}, which makes no JPEG picture: {why}", meta.seq);
    let (Ok(jpeg_width), Ok(jpeg_height)) = (u16::try_from(width), u16::try_from(height)) else {
        return Err(refuse("a side exceeds 65535 pixels; encode it in parts"));
    };
    let (pixels, order) = packed(meta, payload).ok_or_else(|| refuse("expected packed, 4:2:0 or float pixels"))?;
    let mut file = Vec::new();
    Encoder::new(&mut file, quality)
        .encode(&pixels, jpeg_width, jpeg_height, order)
        .map_err(|error| refuse(&error.to_string()))?;
    Ok(file)
}

/// Packed 8-bit pixels and their order.
fn packed<'a>(meta: &FrameMeta, payload: &'a [u8]) -> Option<(Cow<'a, [u8]>, ColorType)> {
    let tight = tight(&meta.geometry, payload)?;
    Some(match meta.geometry.format {
        PixelFormat::Bgr => (tight, ColorType::Bgr),
        PixelFormat::Rgb => (tight, ColorType::Rgb),
        PixelFormat::Gray => (tight, ColorType::Luma),
        PixelFormat::Bgra => (tight, ColorType::Bgra),
        PixelFormat::Rgba => (tight, ColorType::Rgba),
        PixelFormat::I420 | PixelFormat::Nv12 => (yuv_to_rgb(meta, &tight)?.into(), ColorType::Rgb),
        PixelFormat::RgbPlanarF32 => (floats_to_rgb(meta, &tight)?.into(), ColorType::Rgb),
        _ => return None,
    })
}

/// The planes one after the other, rows without padding; no copy when they lie so already.
fn tight<'a>(geometry: &Geometry, payload: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if !geometry.fits(payload.len() as u64) {
        return None;
    }
    let packed = Geometry::packed(geometry.width, geometry.height, geometry.format)?;
    if packed == *geometry {
        return payload.get(..usize::try_from(packed.len).ok()?).map(Cow::from);
    }
    let mut tight = Vec::with_capacity(usize::try_from(packed.len).ok()?);
    for plane in 0..packed.plane_count as usize {
        let (row_bytes, rows) = geometry.plane_extent(plane)?;
        let (offset, stride) = (geometry.plane_offsets[plane] as usize, geometry.plane_strides[plane] as usize);
        for row in 0..rows as usize {
            let start = offset + row * stride;
            tight.extend_from_slice(payload.get(start..start + row_bytes as usize)?);
        }
    }
    Some(tight.into())
}

fn yuv_to_rgb(meta: &FrameMeta, tight: &[u8]) -> Option<Vec<u8>> {
    let Geometry { width, height, format, .. } = meta.geometry;
    let chroma_width = width.div_ceil(2);
    let (y_plane, chroma) = tight.split_at_checked(width as usize * height as usize)?;
    let mut rgb = vec![0; y_plane.len() * 3];
    let range = if meta.color.full_range == 1 { YuvRange::Full } else { YuvRange::Limited };
    let matrix = matrix(meta.color.matrix, height);
    let converted = if format == PixelFormat::I420 {
        let (u_plane, v_plane) = chroma.split_at(chroma.len() / 2);
        let (u_stride, v_stride) = (chroma_width, chroma_width);
        let image = YuvPlanarImage { y_plane, y_stride: width, u_plane, u_stride, v_plane, v_stride, width, height };
        yuv::yuv420_to_rgb(&image, &mut rgb, width * 3, range, matrix)
    } else {
        let uv_stride = chroma_width * 2;
        let image = YuvBiPlanarImage { y_plane, y_stride: width, uv_plane: chroma, uv_stride, width, height };
        yuv::yuv_nv12_to_rgb(&image, &mut rgb, width * 3, range, matrix, YuvConversionMode::Balanced)
    };
    converted.is_ok().then_some(rgb)
}

/// `None` when the frame's scale leads to no byte.
fn floats_to_rgb(meta: &FrameMeta, tight: &[u8]) -> Option<Vec<u8>> {
    let (scale, offset) = (meta.value_scale, meta.value_offset);
    if !scale.is_normal() || !offset.is_finite() {
        return None;
    }
    let byte = |value: f32| ((value - offset) / scale).round().clamp(0.0, 255.0) as u8;
    let plane = tight.len() / 3;
    let mut rgb = vec![0; plane / 4 * 3];
    for (channel, floats) in tight.chunks_exact(plane).enumerate() {
        for (pixel, bytes) in floats.chunks_exact(4).enumerate() {
            let value = f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            rgb[pixel * 3 + channel] = byte(value);
        }
    }
    Some(rgb)
}

/// The matrix behind a code point of ITU-T H.273; a source that says nothing is judged by its height.
fn matrix(code: u8, height: u32) -> YuvStandardMatrix {
    match code {
        1 => YuvStandardMatrix::Bt709,
        5 | 6 => YuvStandardMatrix::Bt601,
        9 | 10 => YuvStandardMatrix::Bt2020,
        _ if height > SD_HEIGHT_MAX => YuvStandardMatrix::Bt709,
        _ => YuvStandardMatrix::Bt601,
    }
}
