//! The painter: one decoded picture becomes the payload of one frame, in any format, size and place.
//!
//! A picture that changes its size is resampled in the decoder's own format, which has half the bytes of packed rows, and
//! converted at its new size straight into the slot. What is kept between pictures is made once per size.

use camring_ring::frame::{Color, Geometry, PixelFormat};
use pulp::{Simd, WithSimd};

use crate::convert::{ConvertError, Order, is_fast, packed};
use crate::picture::{Picture, plane_count, samples};
use crate::placement::Placement;
use crate::resample::Resampler;
use crate::source::{FrameRef, Plane, PlaneMut, Rect, SourceLayout};

/// The gray of padding, on the scale of 0 to 255; what detectors are trained with.
const PAD: u8 = 114;
/// Chroma of every gray.
const NEUTRAL: u8 = 128;
/// Above this height a picture of red, green and blue becomes BT.709, as broadcast practice has it.
const SD_HEIGHT_MAX: u32 = 576;

/// How bytes become floats: `value = byte * scale + offset`, for red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// What a byte is multiplied by.
    pub scale: [f32; 3],
    /// What is added.
    pub offset: [f32; 3],
}

impl Default for Normalize {
    /// 0 to 1.
    fn default() -> Self {
        Self { scale: [1.0 / 255.0; 3], offset: [0.0; 3] }
    }
}

impl Normalize {
    /// `(byte / 255 - mean) / std`.
    #[must_use]
    pub fn of(mean: [f64; 3], std: [f64; 3]) -> Self {
        let each = |value: fn(f64, f64) -> f64| [0, 1, 2].map(|channel| value(mean[channel], std[channel]) as f32);
        Self { scale: each(|_, std| 1.0 / (255.0 * std)), offset: each(|mean, std| -mean / std) }
    }

    /// Scale and offset for a reader that knows one of each: the averages of the channels.
    #[must_use]
    pub fn common(&self) -> (f32, f32) {
        let average = |values: [f32; 3]| {
            if values[0] == values[1] && values[1] == values[2] { values[0] } else { values.iter().sum::<f32>() / 3.0 }
        };
        (average(self.scale), average(self.offset))
    }
}

/// The padding colour as the metadata has it, in pixel order.
#[must_use]
pub fn pad_color(format: PixelFormat) -> [u8; 4] {
    match format {
        PixelFormat::Gray => [PAD, 0, 0, 0],
        PixelFormat::I420 | PixelFormat::Nv12 => [PAD, NEUTRAL, NEUTRAL, 0],
        _ => [PAD, PAD, PAD, 0],
    }
}

/// The colour description of a frame of `format` made from pictures of `color`: a format of luma and chroma needs a matrix.
#[must_use]
pub fn stored_color(color: Color, format: PixelFormat, height: u32) -> Color {
    let yuv = matches!(format, PixelFormat::I420 | PixelFormat::Nv12);
    if color.matrix != 0 || !yuv {
        return color;
    }
    Color { matrix: if height > SD_HEIGHT_MAX { 1 } else { 6 }, full_range: 0, ..color }
}

/// Paints pictures of one camera in one format; keeps what it needs from picture to picture.
#[derive(Debug, Default)]
pub struct Painter {
    scaled: Scaled,
    /// Packed pixels on their way to floats.
    pixels: Vec<u8>,
    /// Chroma on its way to another arrangement.
    chroma: [Vec<u8>; 2],
}

impl Painter {
    /// Writes `frame`, placed by `placement`, into `dst` as `geometry` says, and pads what is left.
    ///
    /// `geometry` must be the packed one of the placement's size in one of the formats of the configuration. Floats become
    /// what `normalize` says.
    ///
    /// # Errors
    ///
    /// [`ConvertError`]; bytes of `dst` are unspecified then.
    pub fn paint(
        &mut self,
        frame: &FrameRef<'_>,
        placement: &Placement,
        geometry: &Geometry,
        normalize: &Normalize,
        dst: &mut [u8],
    ) -> Result<(), ConvertError> {
        let too_short = ConvertError::TooShort { expected: geometry.len as usize, found: dst.len() };
        let dst = dst.get_mut(..geometry.len as usize).ok_or(too_short)?;
        if placement.is_padded() {
            pad(geometry, placement.content, normalize, dst);
        }
        let mut target = Target::new(geometry, placement.content, dst);
        let whole = Picture::of(frame)?;
        let way = Way::of(&whole, frame.color, geometry.format, placement);
        if way == Way::Fallback && geometry.format != PixelFormat::RgbPlanarF32 {
            let (part, planes) = (placement.part, &mut target.planes[..target.count]);
            let size = (placement.content.width, placement.content.height);
            let converted = frame.fallback.convert_into(geometry.format, part, size, planes);
            if geometry.format == PixelFormat::Gray {
                target.widen(frame.color);
            }
            return converted.map_err(ConvertError::Fallback);
        }
        match geometry.format {
            PixelFormat::RgbPlanarF32 => self.floats(frame, &whole, way, placement, normalize, &mut target),
            PixelFormat::Gray => self.gray(frame.color, &whole.part(placement.part), &mut target),
            PixelFormat::I420 | PixelFormat::Nv12 => {
                self.planes(&whole.part(placement.part), geometry.format, &mut target);
                Ok(())
            }
            format => {
                let order = Order::of(format).ok_or(ConvertError::Target(format))?;
                let PlaneMut { bytes, stride } = &mut target.planes[0];
                let picture = self.scaled.picture(&whole.part(placement.part), target.size, way);
                packed(&picture, frame.color, order, bytes, *stride)
            }
        }
    }

    fn floats(
        &mut self,
        frame: &FrameRef<'_>,
        whole: &Picture<'_>,
        way: Way,
        placement: &Placement,
        normalize: &Normalize,
        target: &mut Target<'_>,
    ) -> Result<(), ConvertError> {
        let (width, height) = target.size;
        let stride = width as usize * 4;
        grow(&mut self.pixels, stride * height as usize);
        let pixels = &mut self.pixels[..stride * height as usize];
        if way == Way::Fallback {
            let planes = &mut [PlaneMut { bytes: pixels, stride }];
            let converted = frame.fallback.convert_into(PixelFormat::Rgba, placement.part, target.size, planes);
            converted.map_err(ConvertError::Fallback)?;
        } else {
            let picture = self.scaled.picture(&whole.part(placement.part), target.size, way);
            packed(&picture, frame.color, Order::Rgba, pixels, stride)?;
        }
        let planes = &mut target.planes;
        pulp::Arch::new().dispatch(Floats {
            pixels: &self.pixels[..stride * height as usize],
            stride,
            normalize,
            planes,
        });
        Ok(())
    }

    /// Luma on the scale of 0 to 255, whatever the camera's range is.
    fn gray(&mut self, color: Color, part: &Picture<'_>, target: &mut Target<'_>) -> Result<(), ConvertError> {
        let (width, height) = target.size;
        let PlaneMut { bytes, stride } = &mut target.planes[0];
        self.scaled.luma.plane(part, 0, (width as usize, height as usize, 1), bytes, *stride);
        target.widen(color);
        Ok(())
    }

    /// Planes in the camera's own colours.
    fn planes(&mut self, part: &Picture<'_>, format: PixelFormat, target: &mut Target<'_>) {
        let (width, height) = (target.size.0 as usize, target.size.1 as usize);
        let (half, rows) = (width.div_ceil(2), height.div_ceil(2));
        let [luma, first, second] = &mut target.planes;
        self.scaled.luma.plane(part, 0, (width, height, 1), luma.bytes, luma.stride);
        let chroma = &mut self.scaled.chroma;
        match (part.layout, format) {
            (SourceLayout::Gray8, PixelFormat::Nv12) => fill(first, half * 2, rows, NEUTRAL),
            (SourceLayout::Gray8, _) => [first, second].into_iter().for_each(|plane| fill(plane, half, rows, NEUTRAL)),
            (SourceLayout::Nv12, PixelFormat::Nv12) => {
                chroma.plane(part, 1, (half, rows, 2), first.bytes, first.stride);
            }
            (SourceLayout::Nv12, _) => {
                let both = &mut self.chroma[0];
                grow(both, half * 2 * rows);
                chroma.plane(part, 1, (half, rows, 2), both, half * 2);
                for (row, both) in both.chunks_exact(half * 2).take(rows).enumerate() {
                    let u = &mut first.bytes[row * first.stride..][..half];
                    let v = &mut second.bytes[row * second.stride..][..half];
                    for ((both, u), v) in both.as_chunks::<2>().0.iter().zip(u).zip(v) {
                        [*u, *v] = *both;
                    }
                }
            }
            (_, PixelFormat::Nv12) => {
                for (number, plane) in self.chroma.iter_mut().enumerate() {
                    grow(plane, half * rows);
                    chroma.plane(part, number + 1, (half, rows, 1), plane, half);
                }
                let [u, v] = &self.chroma;
                let single = u.chunks_exact(half).zip(v.chunks_exact(half)).take(rows);
                for (both, (u, v)) in first.bytes.chunks_mut(first.stride).zip(single) {
                    for ((both, u), v) in both.as_chunks_mut::<2>().0.iter_mut().zip(u).zip(v) {
                        *both = [*u, *v];
                    }
                }
            }
            _ => {
                chroma.plane(part, 1, (half, rows, 1), first.bytes, first.stride);
                chroma.plane(part, 2, (half, rows, 1), second.bytes, second.stride);
            }
        }
    }
}

/// Packed pixels (red, green, blue and a byte that says nothing) to planes of floats, for whichever instructions the
/// processor has.
struct Floats<'a, 'p> {
    pixels: &'a [u8],
    stride: usize,
    normalize: &'a Normalize,
    planes: &'a mut [PlaneMut<'p>; 3],
}

impl WithSimd for Floats<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (number, row) in self.pixels.chunks_exact(self.stride).enumerate() {
            // One row of pixels stays in the first cache while it is read three times.
            for (channel, plane) in self.planes.iter_mut().enumerate() {
                let (scale, offset) = (self.normalize.scale[channel], self.normalize.offset[channel]);
                let floats = plane.bytes[number * plane.stride..].as_chunks_mut::<4>().0;
                for (pixel, float) in row.as_chunks::<4>().0.iter().zip(floats) {
                    let byte = u32::from_le_bytes(*pixel) >> (8 * channel) & 0xff;
                    *float = (byte as f32 * scale + offset).to_ne_bytes();
                }
            }
        }
    }
}

/// How a picture gets into a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// Converted as it is.
    Straight,
    /// Resampled in its own layout, then converted.
    Scaled,
    /// By the slow way.
    Fallback,
}

impl Way {
    fn of(picture: &Picture<'_>, color: Color, format: PixelFormat, placement: &Placement) -> Self {
        let way = if placement.is_scaled() { Self::Scaled } else { Self::Straight };
        let has_luma = matches!(
            picture.layout,
            SourceLayout::Gray8 | SourceLayout::I420 | SourceLayout::I422 | SourceLayout::I444 | SourceLayout::Nv12
        );
        let can = match format {
            PixelFormat::Gray | PixelFormat::I420 | PixelFormat::Nv12 => has_luma,
            // A part of a picture may have another width than the whole, and with it another answer.
            _ if picture.layout == SourceLayout::Other => false,
            _ => {
                is_fast(&picture.part(placement.part), color) && (way == Self::Straight || picture.sample_bytes() == 1)
            }
        };
        if can { way } else { Self::Fallback }
    }
}

/// A picture in another size, in the layout it came in.
#[derive(Debug, Default)]
struct Scaled {
    luma: Resizer,
    chroma: Resizer,
    planes: [Vec<u8>; 3],
}

impl Scaled {
    /// `part` at `size`; itself where the way is straight.
    fn picture<'a>(&'a mut self, part: &Picture<'a>, (width, height): (u32, u32), way: Way) -> Picture<'a> {
        if way == Way::Straight {
            return *part;
        }
        let Self { luma, chroma, planes } = self;
        let layout = part.layout;
        for (plane, bytes) in planes.iter_mut().enumerate().take(plane_count(layout)) {
            let (across, channels, rows) = samples(layout, plane, (width, height));
            grow(bytes, across * channels * rows);
            let sized = if plane == 0 { &mut *luma } else { &mut *chroma };
            sized.plane(part, plane, (across, rows, channels), bytes, across * channels);
        }
        let mut number = 0;
        let planes = planes.each_ref().map(|bytes| {
            let stride = samples(layout, number, (width, height));
            number += 1;
            Plane { bytes, stride: (stride.0 * stride.1) as u32 }
        });
        // Fields were mixed where rows were: chroma rows belong to both.
        Picture { width, height, layout, planes, interlaced: false }
    }
}

/// A resampler for planes of one size.
#[derive(Debug, Default)]
struct Resizer(Resampler);

impl Resizer {
    /// Writes a plane of `part` at another size (samples in a row, rows, channels), or copies it.
    fn plane(
        &mut self,
        part: &Picture<'_>,
        plane: usize,
        (wide, rows, channels): (usize, usize, usize),
        target: &mut [u8],
        stride: usize,
    ) {
        let Plane { bytes, stride: from } = part.planes[plane];
        let (across, _, down) = samples(part.layout, plane, (part.width, part.height));
        if (across, down) == (wide, rows) {
            let row_bytes = wide * channels;
            for (source, target) in bytes.chunks(from as usize).zip(target.chunks_mut(stride)).take(rows) {
                target[..row_bytes].copy_from_slice(&source[..row_bytes]);
            }
            return;
        }
        self.0.prepare((across, down), (wide, rows), channels);
        self.0.run(bytes, from as usize, target, stride, channels);
    }
}

/// The planes of a frame from the first sample of the picture in it.
struct Target<'a> {
    planes: [PlaneMut<'a>; 3],
    count: usize,
    /// Width and height of the picture.
    size: (u32, u32),
}

impl<'a> Target<'a> {
    fn new(geometry: &Geometry, content: Rect, dst: &'a mut [u8]) -> Self {
        let count = (geometry.plane_count as usize).min(3);
        let (mut rest, mut passed) = (dst, 0);
        let planes = [0, 1, 2].map(|plane| {
            if plane >= count {
                return PlaneMut { bytes: &mut [], stride: 1 };
            }
            let stride = geometry.plane_strides[plane] as usize;
            let (sample, shared) = sample_of(geometry.format, plane);
            let start = geometry.plane_offsets[plane] as usize
                + content.y as usize / shared * stride
                + content.x as usize / shared * sample;
            let end =
                if plane + 1 < count { geometry.plane_offsets[plane + 1] as usize } else { geometry.len as usize };
            let (this, after) = std::mem::take(&mut rest).split_at_mut(end - passed);
            rest = after;
            let bytes = &mut this[start - passed..];
            passed = end;
            PlaneMut { bytes, stride }
        });
        Self { planes, count, size: (content.width, content.height) }
    }
}

impl Target<'_> {
    /// Brings luma of the camera's range to the scale of 0 to 255.
    fn widen(&mut self, color: Color) {
        let PlaneMut { bytes, stride } = &mut self.planes[0];
        if color.full_range != 1 {
            let rows = bytes.chunks_mut(*stride).take(self.size.1 as usize);
            rows.for_each(|row| expand(&mut row[..self.size.0 as usize]));
        }
    }
}

/// Bytes of a sample of a target plane, and how many pixels share it each way.
fn sample_of(format: PixelFormat, plane: usize) -> (usize, usize) {
    match (format, plane) {
        (PixelFormat::RgbPlanarF32, _) => (4, 1),
        (PixelFormat::I420, 1..) => (1, 2),
        (PixelFormat::Nv12, 1..) => (2, 2),
        (PixelFormat::Gray | PixelFormat::I420 | PixelFormat::Nv12, _) => (1, 1),
        _ => (3, 1),
    }
}

/// Fills what is not `content`.
fn pad(geometry: &Geometry, content: Rect, normalize: &Normalize, dst: &mut [u8]) {
    for plane in 0..geometry.plane_count as usize {
        let Some((row_bytes, rows)) = geometry.plane_extent(plane) else { continue };
        let (row_bytes, rows) = (row_bytes as usize, rows as usize);
        let (sample, shared) = sample_of(geometry.format, plane);
        let (stride, start) = (geometry.plane_strides[plane] as usize, geometry.plane_offsets[plane] as usize);
        let (first, left) = (content.y as usize / shared, content.x as usize / shared * sample);
        let last = first + (content.height as usize).div_ceil(shared);
        let right = left + (content.width as usize).div_ceil(shared) * sample;
        for row in 0..rows {
            let bytes = &mut dst[start + row * stride..][..row_bytes];
            let (before, after) = if (first..last).contains(&row) { (left, right) } else { (row_bytes, row_bytes) };
            let chroma = plane > 0 && geometry.format != PixelFormat::RgbPlanarF32;
            for edge in [0..before, after.min(row_bytes)..row_bytes] {
                if geometry.format == PixelFormat::RgbPlanarF32 {
                    let value = f32::from(PAD) * normalize.scale[plane] + normalize.offset[plane];
                    bytes[edge].as_chunks_mut::<4>().0.fill(value.to_ne_bytes());
                } else {
                    bytes[edge].fill(if chroma { NEUTRAL } else { PAD });
                }
            }
        }
    }
}

fn fill(plane: &mut PlaneMut<'_>, row_bytes: usize, rows: usize, value: u8) {
    plane.bytes.chunks_mut(plane.stride).take(rows).for_each(|row| row[..row_bytes].fill(value));
}

/// Makes room once; never shrinks, so that nothing is allocated while sizes alternate.
fn grow(bytes: &mut Vec<u8>, len: usize) {
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
}

/// Luma of 16 to 235 on the scale of 0 to 255.
fn expand(row: &mut [u8]) {
    for luma in row {
        let above = u32::from(luma.saturating_sub(16));
        *luma = (above.wrapping_mul(19_077).wrapping_add(8192) >> 14).min(255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use camring_ring::frame::{Fit, FrameFlags};

    use super::*;
    use crate::placement::{Size, View};
    use crate::source::{Fallback, FrameTiming};

    const BT709: Color = Color { primaries: 1, transfer: 1, matrix: 1, full_range: 0 };
    const EIGHT_BITS: [SourceLayout; 5] =
        [SourceLayout::I420, SourceLayout::Nv12, SourceLayout::I422, SourceLayout::I444, SourceLayout::Gray8];

    type Question = (PixelFormat, Rect, (u32, u32));

    /// Remembers what it was asked for.
    #[derive(Default)]
    struct Asked(Cell<Option<Question>>);

    impl Fallback for Asked {
        fn convert_into(
            &self,
            format: PixelFormat,
            part: Rect,
            size: (u32, u32),
            planes: &mut [PlaneMut<'_>],
        ) -> Result<(), String> {
            self.0.set(Some((format, part, size)));
            let row_bytes = size.0 as usize * if format == PixelFormat::Rgba { 4 } else { 3 };
            fill(&mut planes[0], row_bytes, size.1 as usize, 51);
            Ok(())
        }
    }

    /// A picture whose three components change slowly, each in its own direction.
    struct Sample {
        layout: SourceLayout,
        size: (u32, u32),
        planes: Vec<(Vec<u8>, u32)>,
    }

    /// Luma and chroma at a place of the picture, counted in parts of its sides.
    fn component(number: usize, x: f64, y: f64) -> f64 {
        match number {
            0 => 70.0 + 110.0 * x,
            1 => 110.0 + 30.0 * y,
            _ => 145.0 - 30.0 * x * y,
        }
    }

    impl Sample {
        fn new(layout: SourceLayout, size: (u32, u32)) -> Self {
            let planes = (0..plane_count(layout))
                .map(|plane| {
                    let (across, channels, rows) = samples(layout, plane, size);
                    let stride = across * channels + 5;
                    let mut bytes = vec![250; stride * rows];
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        let (x, y) = (at % stride / channels, at / stride);
                        let place = |at: usize, of: usize| (at as f64 + 0.5) / of as f64;
                        if x < across {
                            let value = component(plane + at % stride % channels, place(x, across), place(y, rows));
                            *byte = value.round() as u8;
                        }
                    }
                    (bytes, stride as u32)
                })
                .collect();
            Self { layout, size, planes }
        }

        fn paint(&self, view: View, format: PixelFormat, normalize: Normalize) -> (Placement, Geometry, Vec<u8>) {
            let fallback = Asked::default();
            let painted = self.paint_with(&mut Painter::default(), view, (format, normalize), &fallback);
            assert_eq!(fallback.0.get(), None, "{:?} to {format}", self.layout);
            painted
        }

        fn paint_with(
            &self,
            painter: &mut Painter,
            view: View,
            (format, normalize): (PixelFormat, Normalize),
            fallback: &Asked,
        ) -> (Placement, Geometry, Vec<u8>) {
            let planes: Vec<Plane<'_>> =
                self.planes.iter().map(|(bytes, stride)| Plane { bytes, stride: *stride }).collect();
            let frame = FrameRef {
                width: self.size.0,
                height: self.size.1,
                layout: self.layout,
                planes: &planes,
                color: BT709,
                pixel_aspect: (1, 1),
                timing: FrameTiming::default(),
                flags: FrameFlags::default(),
                lost_before: 0,
                fallback,
            };
            let placement = view.place(self.size, 2).expect("it has a place");
            let geometry = Geometry::packed(placement.size.0, placement.size.1, format).expect("a picture");
            let mut bytes = vec![77; geometry.len as usize + 9];
            painter.paint(&frame, &placement, &geometry, &normalize, &mut bytes).expect("it is painted");
            assert_eq!(bytes[geometry.len as usize..], [77; 9], "behind the frame");
            bytes.truncate(geometry.len as usize);
            (placement, geometry, bytes)
        }
    }

    /// Red, green and blue that the camera's picture has at a place of it, exactly.
    fn exact(layout: SourceLayout, x: f64, y: f64) -> [f64; 3] {
        let luma = (component(0, x, y) - 16.0) / 219.0;
        let gray = layout == SourceLayout::Gray8;
        let chroma = |number| if gray { 0.0 } else { (component(number, x, y) - 128.0) / 224.0 };
        let (u, v) = (chroma(1), chroma(2));
        let (red, blue) = (luma + 1.5748 * v, luma + 1.8556 * u);
        let green = (luma - 0.2126 * red - 0.0722 * blue) / 0.7152;
        [red, green, blue].map(|value| value * 255.0)
    }

    fn views() -> Vec<View> {
        let region = Some(Rect { x: 31, y: 20, width: 77, height: 61 });
        let mut views = vec![View::default(), View { region, ..View::default() }];
        for fit in [Fit::Letterbox, Fit::Stretch, Fit::Crop] {
            for size in [(64, 64), (61, 47), (50, 90), (200, 150)] {
                for region in [None, region] {
                    views.push(View { region, size: Size::Exactly(size.0, size.1), fit });
                }
            }
        }
        views
    }

    /// Every pixel: the place in the camera's picture that its metadata lead to has its colour, or it is padding.
    fn check(sample: &Sample, placement: &Placement, what: &str, pixel: impl Fn(usize, usize) -> [f64; 3]) {
        let ((scale_x, scale_y), (offset_x, offset_y)) = (placement.scale(), placement.offset());
        let Rect { x: left, y: top, width, height } = placement.content;
        for y in 0..placement.size.1 {
            for x in 0..placement.size.0 {
                let found = pixel(x as usize, y as usize);
                let inside = (left..left + width).contains(&x) && (top..top + height).contains(&y);
                let expected = if inside {
                    let back = |at: u32, offset: f32, scale: f32, side: u32| {
                        (f64::from(at) + 0.5 - f64::from(offset)) / f64::from(scale) / f64::from(side)
                    };
                    let place = (back(x, offset_x, scale_x, sample.size.0), back(y, offset_y, scale_y, sample.size.1));
                    exact(sample.layout, place.0, place.1)
                } else {
                    [f64::from(PAD); 3]
                };
                let most = if inside { 5.0 } else { 0.51 };
                for (found, expected) in found.iter().zip(expected) {
                    let expected = expected.clamp(0.0, 255.0);
                    assert!((found - expected).abs() <= most, "{what} at {x},{y}: {found} and not {expected}");
                }
            }
        }
    }

    #[test]
    fn every_format_shows_in_each_pixel_the_place_that_its_metadata_lead_back_to() {
        for layout in EIGHT_BITS {
            let sample = Sample::new(layout, (161, 91));
            for view in views() {
                for format in [PixelFormat::Bgr, PixelFormat::Rgb, PixelFormat::RgbPlanarF32] {
                    let (placement, geometry, bytes) = sample.paint(view, format, Normalize::default());
                    let stride = geometry.plane_strides[0] as usize;
                    let what = format!("{layout:?} {view:?} {format}");
                    check(&sample, &placement, &what, |x, y| match format {
                        PixelFormat::RgbPlanarF32 => [0, 1, 2].map(|plane| {
                            let at = geometry.plane_offsets[plane] as usize + y * stride + x * 4;
                            f64::from(f32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())) * 255.0
                        }),
                        PixelFormat::Rgb => [0, 1, 2].map(|at| f64::from(bytes[y * stride + x * 3 + at])),
                        _ => [2, 1, 0].map(|at| f64::from(bytes[y * stride + x * 3 + at])),
                    });
                }
            }
        }
    }

    #[test]
    fn planes_have_the_cameras_own_luma_and_chroma_in_each_place() {
        for layout in EIGHT_BITS {
            let sample = Sample::new(layout, (161, 91));
            for view in views() {
                for format in [PixelFormat::I420, PixelFormat::Nv12] {
                    let (placement, geometry, bytes) = sample.paint(view, format, Normalize::default());
                    let at = |plane: usize, x: usize, y: usize| {
                        let start = geometry.plane_offsets[plane] as usize;
                        f64::from(bytes[start + y * geometry.plane_strides[plane] as usize + x])
                    };
                    let what = format!("{layout:?} {view:?} {format}");
                    check(&sample, &placement, &what, |x, y| {
                        let (u, v) = match format {
                            PixelFormat::I420 => (at(1, x / 2, y / 2), at(2, x / 2, y / 2)),
                            _ => (at(1, x / 2 * 2, y / 2), at(1, x / 2 * 2 + 1, y / 2)),
                        };
                        let content = placement.content;
                        let inside = (content.x..content.x + content.width).contains(&(x as u32))
                            && (content.y..content.y + content.height).contains(&(y as u32));
                        if !inside {
                            // Of a shared sample at the edge of an odd picture the picture has its part.
                            return [at(0, x, y); 3];
                        }
                        let luma = (at(0, x, y) - 16.0) / 219.0;
                        let (u, v) = ((u - 128.0) / 224.0, (v - 128.0) / 224.0);
                        let (red, blue) = (luma + 1.5748 * v, luma + 1.8556 * u);
                        [red, (luma - 0.2126 * red - 0.0722 * blue) / 0.7152, blue].map(|value| value * 255.0)
                    });
                }
            }
        }
    }

    #[test]
    fn gray_is_luma_on_the_scale_of_0_to_255_whatever_the_cameras_range_is() {
        for (layout, view) in
            EIGHT_BITS.into_iter().flat_map(|layout| views().into_iter().map(move |view| (layout, view)))
        {
            let sample = Sample::new(layout, (161, 91));
            let (placement, geometry, bytes) = sample.paint(view, PixelFormat::Gray, Normalize::default());
            let gray = |found: usize, x: u32, y: u32| {
                let (scale, offset) = (placement.scale(), placement.offset());
                let place = (f64::from(x) + 0.5 - f64::from(offset.0)) / f64::from(scale.0) / f64::from(sample.size.0);
                let expected = (component(0, place, 0.0) - 16.0) / 219.0 * 255.0;
                let Rect { x: left, y: top, width, height } = placement.content;
                let inside = (left..left + width).contains(&x) && (top..top + height).contains(&y);
                let expected = if inside { expected } else { PAD.into() };
                assert!(
                    (f64::from(bytes[found]) - expected).abs() <= 2.0,
                    "{layout:?} {view:?} at {x},{y}: {expected}"
                );
            };
            let places = (0..geometry.height).flat_map(|y| (0..geometry.width).map(move |x| (x, y)));
            places.enumerate().for_each(|(at, (x, y))| gray(at, x, y));
        }
        for luma in 0..=255_u8 {
            let mut row = [luma];
            expand(&mut row);
            let exact = ((f64::from(luma) - 16.0) * 255.0 / 219.0).round().clamp(0.0, 255.0);
            assert_eq!(f64::from(row[0]), exact, "{luma}");
        }
    }

    #[test]
    fn planes_of_the_same_size_are_the_decoders_bytes() {
        for size in [(64, 48), (33, 17), (1, 1), (2, 3)] {
            for layout in [SourceLayout::I420, SourceLayout::Nv12] {
                let sample = Sample::new(layout, size);
                let tight = |plane: usize| -> Vec<u8> {
                    let (across, channels, _) = samples(layout, plane, size);
                    let rows = sample.planes[plane].0.chunks(sample.planes[plane].1 as usize);
                    rows.flat_map(|row| &row[..across * channels]).copied().collect()
                };
                let own = if layout == SourceLayout::I420 { PixelFormat::I420 } else { PixelFormat::Nv12 };
                let (.., bytes) = sample.paint(View::default(), own, Normalize::default());
                assert_eq!(bytes, (0..plane_count(layout)).flat_map(tight).collect::<Vec<u8>>(), "{layout:?} {size:?}");
            }
            // The two arrangements differ in nothing else.
            let [planar, woven] = [SourceLayout::I420, SourceLayout::Nv12].map(|layout| Sample::new(layout, size));
            for format in [PixelFormat::I420, PixelFormat::Nv12] {
                let [first, second] =
                    [&planar, &woven].map(|sample| sample.paint(View::default(), format, Normalize::default()).2);
                assert_eq!(first, second, "{size:?} {format}");
            }
        }
    }

    #[test]
    fn floats_are_the_bytes_of_rgb_times_scale_plus_offset() {
        let sample = Sample::new(SourceLayout::Nv12, (96, 54));
        let view = View { region: None, size: Size::Exactly(40, 40), fit: Fit::Letterbox };
        let (.., rgb) = sample.paint(view, PixelFormat::Rgb, Normalize::default());
        let model = Normalize::of([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        for normalize in [Normalize::default(), model] {
            let (.., bytes) = sample.paint(view, PixelFormat::RgbPlanarF32, normalize);
            for (at, float) in bytes.as_chunks::<4>().0.iter().enumerate() {
                let (channel, pixel) = (at / 1600, at % 1600);
                let expected =
                    f32::from(rgb[pixel * 3 + channel]) * normalize.scale[channel] + normalize.offset[channel];
                assert_eq!(f32::from_ne_bytes(*float), expected, "channel {channel}, pixel {pixel}");
            }
        }
        let red = 200.0 * model.scale[0] + model.offset[0];
        assert!((red - (200.0 / 255.0 - 0.485) / 0.229).abs() < 1e-5, "{red}");
        assert_eq!(Normalize::default().common(), (1.0 / 255.0, 0.0));
        let (scale, offset) = model.common();
        assert!((scale - 0.017_359).abs() < 1e-4 && (offset + 1.9858).abs() < 1e-3, "{scale} {offset}");
    }

    #[test]
    fn what_has_no_fast_way_goes_the_slow_one_into_its_place() {
        let other = Sample { layout: SourceLayout::Other, size: (160, 90), planes: Vec::new() };
        let view = View {
            region: Some(Rect { x: 20, y: 10, width: 80, height: 40 }),
            size: Size::Exactly(64, 64),
            fit: Fit::Letterbox,
        };
        for (format, asked) in [(PixelFormat::Bgr, PixelFormat::Bgr), (PixelFormat::RgbPlanarF32, PixelFormat::Rgba)] {
            let fallback = Asked::default();
            let normalize = Normalize { scale: [1.0; 3], offset: [0.0; 3] };
            let (.., bytes) = other.paint_with(&mut Painter::default(), view, (format, normalize), &fallback);
            let part = Rect { x: 20, y: 10, width: 80, height: 40 };
            assert_eq!(fallback.0.get(), Some((asked, part, (64, 32))));
            let rows: Vec<f32> = match format {
                PixelFormat::Bgr => bytes.chunks(64 * 3).map(|row| f32::from(row[0])).collect(),
                _ => {
                    bytes.chunks(64 * 4).take(64).map(|row| f32::from_ne_bytes(row[..4].try_into().unwrap())).collect()
                }
            };
            let expected: Vec<f32> =
                (0..64).map(|row| if (16..48).contains(&row) { 51.0 } else { PAD.into() }).collect();
            assert_eq!(rows, expected, "{format}");
        }
    }

    #[test]
    fn nothing_is_allocated_after_the_first_picture_of_a_size() {
        let view = View { region: None, size: Size::Exactly(64, 64), fit: Fit::Letterbox };
        for (layout, format) in
            [(SourceLayout::I420, PixelFormat::RgbPlanarF32), (SourceLayout::Nv12, PixelFormat::I420)]
        {
            let sample = Sample::new(layout, (160, 90));
            let mut painter = Painter::default();
            let buffers = |painter: &Painter| {
                let kept = painter.scaled.planes.iter().chain(&painter.chroma).chain([&painter.pixels]);
                kept.map(|bytes| (bytes.as_ptr().addr(), bytes.capacity())).collect::<Vec<_>>()
            };
            let paint = |painter: &mut Painter| {
                sample.paint_with(painter, view, (format, Normalize::default()), &Asked::default());
                buffers(painter)
            };
            let first = paint(&mut painter);
            assert_eq!([paint(&mut painter), paint(&mut painter)], [first.clone(), first]);
        }
    }

    #[test]
    fn a_picture_of_red_green_and_blue_is_said_to_have_the_matrix_it_was_given() {
        let rgb = Color { primaries: 1, transfer: 1, matrix: 0, full_range: 1 };
        let of =
            |format, height| (stored_color(rgb, format, height).matrix, stored_color(rgb, format, height).full_range);
        assert_eq!(
            [of(PixelFormat::I420, 720), of(PixelFormat::Nv12, 480), of(PixelFormat::Bgr, 720)],
            [(1, 0), (6, 0), (0, 1)]
        );
        assert_eq!(stored_color(BT709, PixelFormat::I420, 480), BT709);
    }
}
