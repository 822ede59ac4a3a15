//! A lane: what turns rows of a picture into rows of a frame, on one thread.
//!
//! Resampling, conversion and floats follow each other in bands of a few rows, so that what one leaves to the next stays in the
//! first cache. What is kept between pictures is made once per size.

use std::ops::Range;

use camring_ring::frame::Color;
use pulp::{Simd, WithSimd};

use crate::convert::{ConvertError, Order, packed};
use crate::matrix::Matrix;
use crate::paint::Normalize;
use crate::picture::{Picture, plane_count, samples};
use crate::resample::Resampler;
use crate::source::{Plane, PlaneMut, Rect};

/// Bytes of a band between two steps.
const BAND_BYTES: usize = 32 << 10;

/// A part of a picture that is to have a size.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) part: Picture<'a>,
    pub(crate) color: Color,
    /// Width and height in the frame.
    pub(crate) size: (u32, u32),
}

impl<'a> Job<'a> {
    fn is_scaled(&self) -> bool {
        (self.part.width, self.part.height) != self.size
    }

    /// Some rows of the part, which begin at a multiple of 4 and end at one or at the last row.
    fn rows(&self, rows: &Range<u32>) -> Picture<'a> {
        let Picture { width, .. } = self.part;
        let cut = self.part.part(Rect { x: 0, y: rows.start, width, height: rows.end - rows.start });
        // Rows of fields are woven in all of the picture or nowhere.
        Picture { interlaced: self.part.fields().is_some(), ..cut }
    }
}

/// The steps from a picture's rows to a frame's.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) scaled: Scaled,
    /// Packed pixels on their way to floats.
    pub(crate) pixels: Vec<u8>,
}

impl Lane {
    /// Writes `rows` of the frame's picture into packed rows, of which `target` begins with the first.
    pub(crate) fn packed(
        &mut self,
        job: &Job<'_>,
        rows: Range<u32>,
        order: Order,
        PlaneMut { bytes, stride }: PlaneMut<'_>,
    ) -> Result<(), ConvertError> {
        if !job.is_scaled() {
            return packed(&job.rows(&rows), job.color, order, bytes, stride);
        }
        bands(rows.clone(), job.size.0 as usize * 3).try_for_each(|band| {
            let at = (band.start - rows.start) as usize * stride;
            packed(&self.scaled.rows(job, &band), job.color, order, &mut bytes[at..], stride)
        })
    }

    /// Writes `rows` of the frame's picture into three planes of floats, which begin with the first of them.
    pub(crate) fn floats(
        &mut self,
        job: &Job<'_>,
        rows: Range<u32>,
        normalize: &Normalize,
        mut planes: [PlaneMut<'_>; 3],
    ) -> Result<(), ConvertError> {
        let row_bytes = job.size.0 as usize * 4;
        let mut done = 0;
        bands(rows, row_bytes + job.size.0 as usize * 3).try_for_each(|band| {
            let count = (band.end - band.start) as usize;
            let picture = if job.is_scaled() { self.scaled.rows(job, &band) } else { job.rows(&band) };
            if let Some(matrix) = Matrix::of(job.color).filter(|_| Matrix::is_for(&picture)) {
                matrix.floats(&picture, normalize, &mut planes, done);
                done += count;
                return Ok(());
            }
            grow(&mut self.pixels, row_bytes * count);
            let pixels = &mut self.pixels[..row_bytes * count];
            packed(&picture, job.color, Order::Rgba, pixels, row_bytes)?;
            to_floats(pixels, row_bytes, normalize, &mut planes, done);
            done += count;
            Ok(())
        })
    }
}

/// `rows` in steps of some whose `row_bytes` fit [`BAND_BYTES`].
fn bands(rows: Range<u32>, row_bytes: usize) -> impl Iterator<Item = Range<u32>> {
    let step = (BAND_BYTES / row_bytes.max(1)).clamp(4, 64) & !3;
    let end = rows.end;
    rows.step_by(step).map(move |first| first..(first + step as u32).min(end))
}

/// Packed pixels (red, green, blue and a byte that says nothing) into planes of floats from their row `first`.
pub(crate) fn to_floats(
    pixels: &[u8],
    stride: usize,
    normalize: &Normalize,
    planes: &mut [PlaneMut<'_>; 3],
    first: usize,
) {
    pulp::Arch::new().dispatch(Floats { pixels, stride, normalize, planes, first });
}

/// [`to_floats`], for whichever instructions the processor has.
struct Floats<'a, 'p> {
    pixels: &'a [u8],
    stride: usize,
    normalize: &'a Normalize,
    planes: &'a mut [PlaneMut<'p>; 3],
    first: usize,
}

impl WithSimd for Floats<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (number, row) in self.pixels.chunks_exact(self.stride).enumerate() {
            // One row of pixels stays in the first cache while it is read three times.
            for (channel, plane) in self.planes.iter_mut().enumerate() {
                let (scale, offset) = (self.normalize.scale[channel], self.normalize.offset[channel]);
                let floats = plane.bytes[(self.first + number) * plane.stride..].as_chunks_mut::<4>().0;
                for (pixel, float) in row.as_chunks::<4>().0.iter().zip(floats) {
                    let byte = u32::from_le_bytes(*pixel) >> (8 * channel) & 0xff;
                    *float = (byte as f32 * scale + offset).to_ne_bytes();
                }
            }
        }
    }
}

/// Rows of a picture in another size, in the layout it came in.
#[derive(Debug, Default)]
pub(crate) struct Scaled {
    pub(crate) luma: Resizer,
    pub(crate) chroma: Resizer,
    pub(crate) planes: [Vec<u8>; 3],
}

impl Scaled {
    /// `rows`, which begin at an even number, of the part at its size.
    fn rows<'a>(&'a mut self, job: &Job<'_>, rows: &Range<u32>) -> Picture<'a> {
        let Self { luma, chroma, planes } = self;
        let Picture { layout, .. } = job.part;
        let size = (job.size.0, rows.end - rows.start);
        for (plane, bytes) in planes.iter_mut().enumerate().take(plane_count(layout)) {
            let (across, channels, count) = samples(layout, plane, size);
            let (.., all) = samples(layout, plane, job.size);
            let first = if all < job.size.1 as usize { rows.start as usize / 2 } else { rows.start as usize };
            grow(bytes, across * channels * count);
            let sized = if plane == 0 { &mut *luma } else { &mut *chroma };
            let target = PlaneMut { bytes, stride: across * channels };
            sized.plane(&job.part, plane, (across, all, channels), first..first + count, target);
        }
        let mut number = 0;
        let planes = planes.each_ref().map(|bytes| {
            let (across, channels, count) = samples(layout, number, size);
            let stride = across * channels;
            number += 1;
            Plane { bytes: bytes.get(..stride * count).unwrap_or_default(), stride: stride as u32 }
        });
        // Fields were mixed where rows were: chroma rows belong to both.
        Picture { width: size.0, height: size.1, layout, planes, interlaced: false }
    }
}

/// A resampler for planes of one size.
#[derive(Debug, Default)]
pub(crate) struct Resizer(Resampler);

impl Resizer {
    /// Writes `rows` of a plane of `part` at another size (samples in a row, rows, channels), or copies them.
    pub(crate) fn plane(
        &mut self,
        part: &Picture<'_>,
        plane: usize,
        (wide, high, channels): (usize, usize, usize),
        rows: Range<usize>,
        PlaneMut { bytes: target, stride }: PlaneMut<'_>,
    ) {
        let Plane { bytes, stride: from } = part.planes[plane];
        let from = from as usize;
        let (across, _, down) = samples(part.layout, plane, (part.width, part.height));
        if (across, down) == (wide, high) {
            let row_bytes = wide * channels;
            let sources = bytes.chunks(from).skip(rows.start);
            for (source, target) in sources.zip(target.chunks_mut(stride)).take(rows.len()) {
                target[..row_bytes].copy_from_slice(&source[..row_bytes]);
            }
            return;
        }
        self.0.prepare((across, down), (wide, high), channels);
        self.0.run((bytes, from), rows, (target, stride), channels);
    }
}

/// Makes room once; never shrinks, so that nothing is allocated while sizes alternate.
pub(crate) fn grow(bytes: &mut Vec<u8>, len: usize) {
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
}
