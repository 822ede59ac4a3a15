//! The painter: one decoded picture becomes the payload of one frame, in any format, size and place.
//!
//! A picture that changes its size is resampled in the decoder's own format, which has half the bytes of packed rows, and
//! converted at its new size straight into the slot. What is kept between pictures is made once per size.

use camring_ring::frame::{Color, Geometry, PixelFormat};

use crate::convert::{ConvertError, Order, is_fast};
use crate::lane::{Job, Lane, Scaled, grow, to_floats};
use crate::padding::{NEUTRAL, Surround};
use crate::pair;
use crate::picture::Picture;
use crate::placement::Placement;
use crate::source::{FrameRef, PlaneMut, Rect, SourceLayout};

/// From so many pixels on, of the camera's picture or of the frame, two threads are sooner done than one.
const TWO_THREADS_MIN: u64 = 3840 * 2160;
/// Rows that are not divided: fields have pairs of rows with a row of chroma each.
const ROWS_TOGETHER: u32 = 4;
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

/// The colour description of a frame of `format` made from pictures of `color`: a format of luma and chroma needs a matrix.
#[must_use]
pub fn stored_color(color: Color, format: PixelFormat, height: u32) -> Color {
    let yuv = matches!(format, PixelFormat::I420 | PixelFormat::Nv12);
    if color.matrix != 0 || !yuv {
        return color;
    }
    Color { matrix: if height > SD_HEIGHT_MAX { 1 } else { 6 }, full_range: 0, ..color }
}

/// How many threads a picture is painted by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Threads {
    /// The one that calls.
    One,
    /// Two for a large picture on a machine with more than one processor.
    #[default]
    BySize,
    /// Two for every picture of at least two bands.
    Two,
}

/// The frame that is to be painted.
#[derive(Debug)]
pub struct Canvas<'a> {
    /// Its payload, at least.
    pub bytes: &'a mut [u8],
    /// Whether its padding is there from an earlier frame.
    pub is_padded: bool,
}

/// Paints pictures of one camera in one format; keeps what it needs from picture to picture.
#[derive(Debug, Default)]
pub struct Painter {
    threads: Threads,
    lanes: [Lane; 2],
    /// Chroma on its way to another arrangement.
    chroma: [Vec<u8>; 2],
}

impl Painter {
    /// A painter with so many threads; the default chooses by size.
    #[must_use]
    pub fn new(threads: Threads) -> Self {
        Self { threads, ..Self::default() }
    }

    /// Writes `frame`, placed by `placement`, into `canvas` as `geometry` says, and pads what is left.
    ///
    /// `geometry` must be the packed one of the placement's size in one of the formats of the configuration. Floats become
    /// what `normalize` says. Padding that the canvas has already is not touched.
    ///
    /// # Errors
    ///
    /// [`ConvertError`]; the bytes of the canvas are unspecified then.
    pub fn paint(
        &mut self,
        frame: &FrameRef<'_>,
        placement: &Placement,
        geometry: &Geometry,
        normalize: &Normalize,
        canvas: Canvas<'_>,
    ) -> Result<(), ConvertError> {
        let Canvas { bytes, is_padded } = canvas;
        let too_short = ConvertError::TooShort { expected: geometry.len as usize, found: bytes.len() };
        let dst = bytes.get_mut(..geometry.len as usize).ok_or(too_short)?;
        if placement.is_padded() && !is_padded {
            Surround::new(geometry, placement, normalize).paint(dst);
        }
        let mut target = Target::new(geometry, placement.content, dst);
        let whole = Picture::of(frame)?;
        if !is_quick(&whole, frame.color, geometry.format, placement) {
            return self.slowly(frame, placement, geometry.format, normalize, target);
        }
        let job = Job { part: whole.part(placement.part), color: frame.color, size: target.size };
        match geometry.format {
            PixelFormat::RgbPlanarF32 => self.floats(&job, normalize, target.planes),
            PixelFormat::Gray => {
                self.gray(&job, &mut target);
                Ok(())
            }
            PixelFormat::I420 | PixelFormat::Nv12 => {
                self.planes(&job.part, geometry.format, &mut target);
                Ok(())
            }
            format => {
                let order = Order::of(format).ok_or(ConvertError::Target(format))?;
                let [rows, ..] = target.planes;
                self.packed(&job, order, rows)
            }
        }
    }

    /// What no fast function is there for.
    fn slowly(
        &mut self,
        frame: &FrameRef<'_>,
        placement: &Placement,
        format: PixelFormat,
        normalize: &Normalize,
        mut target: Target<'_>,
    ) -> Result<(), ConvertError> {
        let (size, part) = (target.size, placement.part);
        if format != PixelFormat::RgbPlanarF32 {
            let converted = frame.fallback.convert_into(format, part, size, &mut target.planes[..target.count]);
            if format == PixelFormat::Gray {
                target.widen(frame.color);
            }
            return converted.map_err(ConvertError::Fallback);
        }
        let (stride, pixels) = (size.0 as usize * 4, &mut self.lanes[0].pixels);
        grow(pixels, stride * size.1 as usize);
        let pixels = &mut pixels[..stride * size.1 as usize];
        let planes = &mut [PlaneMut { bytes: &mut *pixels, stride }];
        let converted = frame.fallback.convert_into(PixelFormat::Rgba, part, size, planes);
        converted.map_err(ConvertError::Fallback)?;
        to_floats(pixels, stride, normalize, &mut target.planes, 0);
        Ok(())
    }

    fn packed(&mut self, job: &Job<'_>, order: Order, rows: PlaneMut<'_>) -> Result<(), ConvertError> {
        let [here, there] = &mut self.lanes;
        let Some(half) = self.threads.half(job) else { return here.packed(job, 0..job.size.1, order, rows) };
        let (above, below) = split(rows, half);
        let (first, second) = pair::both(
            || here.packed(job, 0..half, order, above),
            || there.packed(job, half..job.size.1, order, below),
        );
        first.and(second)
    }

    fn floats(&mut self, job: &Job<'_>, normalize: &Normalize, planes: [PlaneMut<'_>; 3]) -> Result<(), ConvertError> {
        let [here, there] = &mut self.lanes;
        let Some(half) = self.threads.half(job) else { return here.floats(job, 0..job.size.1, normalize, planes) };
        let [(r, red), (g, green), (b, blue)] = planes.map(|plane| split(plane, half));
        let (first, second) = pair::both(
            || here.floats(job, 0..half, normalize, [r, g, b]),
            || there.floats(job, half..job.size.1, normalize, [red, green, blue]),
        );
        first.and(second)
    }

    /// Luma on the scale of 0 to 255, whatever the camera's range is.
    fn gray(&mut self, job: &Job<'_>, target: &mut Target<'_>) {
        let (width, height) = (job.size.0 as usize, job.size.1 as usize);
        let [luma, ..] = &mut target.planes;
        self.lanes[0].scaled.luma.plane(&job.part, 0, (width, height, 1), 0..height, luma.reborrow());
        target.widen(job.color);
    }

    /// Planes in the camera's own colours.
    fn planes(&mut self, part: &Picture<'_>, format: PixelFormat, target: &mut Target<'_>) {
        let (width, height) = (target.size.0 as usize, target.size.1 as usize);
        let (half, rows) = (width.div_ceil(2), height.div_ceil(2));
        let [luma, first, second] = &mut target.planes;
        let Scaled { luma: sized, chroma, .. } = &mut self.lanes[0].scaled;
        sized.plane(part, 0, (width, height, 1), 0..height, luma.reborrow());
        match (part.layout, format) {
            (SourceLayout::Gray8, PixelFormat::Nv12) => fill(first, half * 2, rows, NEUTRAL),
            (SourceLayout::Gray8, _) => [first, second].into_iter().for_each(|plane| fill(plane, half, rows, NEUTRAL)),
            (SourceLayout::Nv12, PixelFormat::Nv12) => {
                chroma.plane(part, 1, (half, rows, 2), 0..rows, first.reborrow());
            }
            (SourceLayout::Nv12, _) => {
                let both = &mut self.chroma[0];
                grow(both, half * 2 * rows);
                let stride = half * 2;
                chroma.plane(part, 1, (half, rows, 2), 0..rows, PlaneMut { bytes: both, stride });
                for (row, both) in both.chunks_exact(stride).take(rows).enumerate() {
                    let u = &mut first.bytes[row * first.stride..][..half];
                    let v = &mut second.bytes[row * second.stride..][..half];
                    for ((both, u), v) in both.as_chunks::<2>().0.iter().zip(u).zip(v) {
                        [*u, *v] = *both;
                    }
                }
            }
            (_, PixelFormat::Nv12) => {
                for (number, bytes) in self.chroma.iter_mut().enumerate() {
                    grow(bytes, half * rows);
                    chroma.plane(part, number + 1, (half, rows, 1), 0..rows, PlaneMut { bytes, stride: half });
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
                chroma.plane(part, 1, (half, rows, 1), 0..rows, first.reborrow());
                chroma.plane(part, 2, (half, rows, 1), 0..rows, second.reborrow());
            }
        }
    }
}

impl Threads {
    /// The row at which a picture is divided between two threads; `None` = one does it.
    fn half(self, job: &Job<'_>) -> Option<u32> {
        let pixels = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
        let most = pixels(job.size).max(pixels((job.part.width, job.part.height)));
        let half = (job.size.1 / 2).next_multiple_of(ROWS_TOGETHER);
        let two = match self {
            Self::One => false,
            Self::BySize => most >= TWO_THREADS_MIN && pair::is_there(),
            Self::Two => true,
        };
        (two && half < job.size.1).then_some(half)
    }
}

/// The first `half` rows of a plane, and the others.
fn split(PlaneMut { bytes, stride }: PlaneMut<'_>, half: u32) -> (PlaneMut<'_>, PlaneMut<'_>) {
    let (above, below) = bytes.split_at_mut(half as usize * stride);
    (PlaneMut { bytes: above, stride }, PlaneMut { bytes: below, stride })
}

/// Whether there is a fast function for a picture in this format and place; where there is none, GStreamer converts it.
fn is_quick(picture: &Picture<'_>, color: Color, format: PixelFormat, placement: &Placement) -> bool {
    let has_luma = matches!(
        picture.layout,
        SourceLayout::Gray8 | SourceLayout::I420 | SourceLayout::I422 | SourceLayout::I444 | SourceLayout::Nv12
    );
    match format {
        PixelFormat::Gray | PixelFormat::I420 | PixelFormat::Nv12 => has_luma,
        _ if picture.layout == SourceLayout::Other => false,
        // A part of a picture may have another width than the whole, and with it another answer.
        _ => is_fast(&picture.part(placement.part), color) && (!placement.is_scaled() || picture.sample_bytes() == 1),
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
pub(crate) fn sample_of(format: PixelFormat, plane: usize) -> (usize, usize) {
    match (format, plane) {
        (PixelFormat::RgbPlanarF32, _) => (4, 1),
        (PixelFormat::I420, 1..) => (1, 2),
        (PixelFormat::Nv12, 1..) => (2, 2),
        (PixelFormat::Gray | PixelFormat::I420 | PixelFormat::Nv12, _) => (1, 1),
        _ => (3, 1),
    }
}

fn fill(plane: &mut PlaneMut<'_>, row_bytes: usize, rows: usize, value: u8) {
    plane.bytes.chunks_mut(plane.stride).take(rows).for_each(|row| row[..row_bytes].fill(value));
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
    use crate::padding::PAD;
    use crate::picture::{plane_count, samples};
    use crate::placement::{Size, View};
    use crate::source::{Fallback, FrameTiming, Plane};

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

        fn borrowed(&self) -> Vec<Plane<'_>> {
            self.planes.iter().map(|(bytes, stride)| Plane { bytes, stride: *stride }).collect()
        }

        fn frame<'a>(&self, planes: &'a [Plane<'a>], fallback: &'a Asked) -> FrameRef<'a> {
            FrameRef {
                width: self.size.0,
                height: self.size.1,
                layout: self.layout,
                planes,
                color: BT709,
                pixel_aspect: (1, 1),
                timing: FrameTiming::default(),
                flags: FrameFlags::default(),
                lost_before: 0,
                fallback,
            }
        }

        fn paint(&self, view: View, format: PixelFormat, normalize: Normalize) -> (Placement, Geometry, Vec<u8>) {
            let fallback = Asked::default();
            let painted = self.paint_with(&mut Painter::default(), view, (format, normalize), &fallback);
            let two = self.paint_with(&mut Painter::new(Threads::Two), view, (format, normalize), &fallback);
            assert_eq!(fallback.0.get(), None, "{:?} to {format}", self.layout);
            assert_eq!(painted.2, two.2, "{:?} to {format} by two threads", self.layout);
            painted
        }

        fn paint_with(
            &self,
            painter: &mut Painter,
            view: View,
            (format, normalize): (PixelFormat, Normalize),
            fallback: &Asked,
        ) -> (Placement, Geometry, Vec<u8>) {
            let planes = self.borrowed();
            let frame = self.frame(&planes, fallback);
            let placement = view.place(self.size, 2).expect("it has a place");
            let geometry = Geometry::packed(placement.size.0, placement.size.1, format).expect("a picture");
            let mut bytes = vec![77; geometry.len as usize + 9];
            let canvas = Canvas { bytes: &mut bytes, is_padded: false };
            painter.paint(&frame, &placement, &geometry, &normalize, canvas).expect("it is painted");
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
            let mut painter = Painter::new(Threads::Two);
            let buffers = |painter: &Painter| {
                let lanes = painter.lanes.iter().flat_map(|lane| lane.scaled.planes.iter().chain([&lane.pixels]));
                let kept = lanes.chain(&painter.chroma);
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
    fn padding_that_is_there_is_left_alone_and_the_picture_is_painted() {
        let view = View { region: None, size: Size::Exactly(64, 64), fit: Fit::Letterbox };
        for format in [PixelFormat::Bgr, PixelFormat::RgbPlanarF32, PixelFormat::I420, PixelFormat::Gray] {
            let sample = Sample::new(SourceLayout::I420, (160, 90));
            let (placement, geometry, painted) = sample.paint(view, format, Normalize::default());
            let planes = sample.borrowed();
            let fallback = Asked::default();
            let frame = sample.frame(&planes, &fallback);
            let mut blank = vec![0; painted.len()];
            Surround::new(&geometry, &placement, &Normalize::default()).paint(&mut blank);
            let mut bytes = vec![0; painted.len()];
            let canvas = Canvas { bytes: &mut bytes, is_padded: true };
            Painter::default().paint(&frame, &placement, &geometry, &Normalize::default(), canvas).expect("painted");
            // What is padding differs from 0, and nothing of it was written.
            let whole: Vec<u8> = bytes.iter().zip(&blank).map(|(byte, pad)| byte | pad).collect();
            assert!(bytes.iter().zip(&blank).all(|(byte, pad)| *byte == 0 || *pad == 0), "{format}");
            assert_eq!(whole, painted, "{format}");
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
