//! The matrix: luma and chroma of I420 and NV12 become red, green and blue, rounded once.
//!
//! Products keep five fraction bits until they are added, so that a colour is as far from the exact one as rounding makes it
//! (0.002 of a step more, in the mean). The loops are plain; `pulp` has them compiled for the instructions of today's
//! processors and takes those that are there.

use camring_ring::frame::Color;
use pulp::{Simd, WithSimd};

use crate::convert::Order;
use crate::paint::Normalize;
use crate::picture::Picture;
use crate::source::{Plane, PlaneMut, SourceLayout};

/// Pixels of a row that are worked on at a time; even.
const PIXELS: usize = 2048;
/// Bits of a sample behind its point, before it is multiplied.
const SAMPLE_BITS: u32 = 7;
/// Fraction bits of a product; a multiplication drops 16 bits.
const FRACTION_BITS: u32 = 5;
/// Half of a step.
const HALF: i16 = 1 << (FRACTION_BITS - 1);
/// What puts the mean right: a product is cut, not rounded, which takes half of its last bit, and the rounding of a sum gives
/// half of that bit too much.
const EVEN_GREEN: i16 = -1;
const EVEN_BLUE: i16 = 1;

/// What luma and chroma are multiplied by, in units of `1 << 14`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    /// Luma of black.
    black: i16,
    luma: i16,
    red_v: i16,
    green_u: i16,
    green_v: i16,
    /// Half of it: the whole one may exceed 16 bits.
    half_blue_u: i16,
}

impl Matrix {
    /// `None` for a matrix that is not one of luma and chroma.
    pub(crate) fn of(color: Color) -> Option<Self> {
        let (kr, kb) = match color.matrix {
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            5 | 6 => (0.299, 0.114),
            7 => (0.212, 0.087),
            9 | 10 => (0.2627, 0.0593),
            _ => return None,
        };
        let (black, luma, chroma) =
            if color.full_range == 1 { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let kg = 1.0 - kr - kb;
        let factor = |value: f64| (value * f64::from(1 << (16 + FRACTION_BITS - SAMPLE_BITS))).round() as i16;
        Some(Self {
            black,
            luma: factor(luma),
            red_v: factor(2.0 * (1.0 - kr) * chroma),
            green_u: factor(2.0 * (1.0 - kb) * kb / kg * chroma),
            green_v: factor(2.0 * (1.0 - kr) * kr / kg * chroma),
            half_blue_u: factor((1.0 - kb) * chroma),
        })
    }

    /// Whether the picture has the planes that this takes, in rows of one picture.
    pub(crate) fn is_for(picture: &Picture<'_>) -> bool {
        matches!(picture.layout, SourceLayout::I420 | SourceLayout::Nv12) && picture.fields().is_none()
    }

    /// Writes a picture of I420 or NV12 into rows of [`Order::Bgr`] or [`Order::Rgb`], which are `stride` bytes apart.
    pub(crate) fn packed(self, picture: &Picture<'_>, order: Order, rows: &mut [u8], stride: usize) {
        let out = Packed { rows, stride, is_bgr: order == Order::Bgr };
        pulp::Arch::new().dispatch(Run { matrix: self, picture, out });
    }

    /// Writes a picture of I420 or NV12 into planes of floats from their row `first`.
    pub(crate) fn floats(
        self,
        picture: &Picture<'_>,
        normalize: &Normalize,
        planes: &mut [PlaneMut<'_>; 3],
        first: usize,
    ) {
        pulp::Arch::new().dispatch(Run { matrix: self, picture, out: Floats { planes, normalize, first } });
    }
}

/// What chroma adds to the luma of each pixel of a part of a row, the rounding included.
struct Tint {
    red: [i16; PIXELS],
    green: [i16; PIXELS],
    blue: [i16; PIXELS],
}

/// Where pixels go.
trait Out {
    /// Writes the pixels of one row from `x` on; `luma` is theirs.
    fn write(&mut self, row: usize, x: usize, matrix: &Matrix, luma: &[u8], tint: &Tint);
}

struct Packed<'a> {
    rows: &'a mut [u8],
    stride: usize,
    is_bgr: bool,
}

impl Out for Packed<'_> {
    #[inline(always)]
    fn write(&mut self, row: usize, x: usize, matrix: &Matrix, luma: &[u8], tint: &Tint) {
        let pixels = self.rows[row * self.stride + x * 3..].as_chunks_mut::<3>().0;
        let (first, last) = if self.is_bgr { (&tint.blue, &tint.red) } else { (&tint.red, &tint.blue) };
        let tints = first.iter().zip(&tint.green).zip(last);
        let (black, factor) = (matrix.black, matrix.luma);
        for ((luma, ((first, green), last)), pixel) in luma.iter().zip(tints).zip(pixels) {
            let light = product(i16::from(*luma).wrapping_sub(black) << SAMPLE_BITS, factor);
            *pixel = [step(light, *first), step(light, *green), step(light, *last)];
        }
    }
}

struct Floats<'a, 'p> {
    planes: &'a mut [PlaneMut<'p>; 3],
    normalize: &'a Normalize,
    first: usize,
}

impl Out for Floats<'_, '_> {
    #[inline(always)]
    fn write(&mut self, row: usize, x: usize, matrix: &Matrix, luma: &[u8], tint: &Tint) {
        for (channel, tint) in [&tint.red, &tint.green, &tint.blue].into_iter().enumerate() {
            let (scale, offset) = (self.normalize.scale[channel], self.normalize.offset[channel]);
            let PlaneMut { bytes, stride } = &mut self.planes[channel];
            let floats = bytes[(self.first + row) * *stride + x * 4..].as_chunks_mut::<4>().0;
            for ((luma, tint), float) in luma.iter().zip(tint).zip(floats) {
                let light = product(i16::from(*luma).wrapping_sub(matrix.black) << SAMPLE_BITS, matrix.luma);
                *float = (f32::from(step(light, *tint)) * scale + offset).to_ne_bytes();
            }
        }
    }
}

/// A colour, 0 to 255.
#[inline(always)]
fn step(light: i16, tint: i16) -> u8 {
    (light.wrapping_add(tint) >> FRACTION_BITS).clamp(0, 255) as u8
}

/// The upper half of a product.
#[inline(always)]
fn product(sample: i16, factor: i16) -> i16 {
    (i32::from(sample).wrapping_mul(i32::from(factor)) >> 16) as i16
}

/// A picture on its way, for whichever instructions the processor has.
struct Run<'a, 'p, O> {
    matrix: Matrix,
    picture: &'a Picture<'p>,
    out: O,
}

impl<O: Out> WithSimd for Run<'_, '_, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { matrix, picture, mut out } = self;
        let Picture { layout, planes: [luma, first, second], .. } = *picture;
        let (width, height) = (picture.width as usize, picture.height as usize);
        let mut tint = Tint { red: [0; PIXELS], green: [0; PIXELS], blue: [0; PIXELS] };
        for pair in 0..height.div_ceil(2) {
            for x in (0..width).step_by(PIXELS) {
                let pixels = (width - x).min(PIXELS);
                let half = pixels.div_ceil(2);
                if layout == SourceLayout::Nv12 {
                    let both = &row(first, pair)[x..x + half * 2];
                    matrix.tint(both.as_chunks::<2>().0.iter().map(|[u, v]| (*u, *v)), &mut tint);
                } else {
                    let (u, v) = (&row(first, pair)[x / 2..x / 2 + half], &row(second, pair)[x / 2..x / 2 + half]);
                    matrix.tint(u.iter().zip(v).map(|(u, v)| (*u, *v)), &mut tint);
                }
                for number in pair * 2..height.min(pair * 2 + 2) {
                    out.write(number, x, &matrix, &row(luma, number)[x..x + pixels], &tint);
                }
            }
        }
    }
}

/// A row of a plane, and what follows it.
#[inline(always)]
fn row(plane: Plane<'_>, number: usize) -> &[u8] {
    &plane.bytes[number * plane.stride as usize..]
}

impl Matrix {
    /// What samples of chroma, each of which belongs to two pixels, add to luma.
    #[inline(always)]
    fn tint(&self, chroma: impl Iterator<Item = (u8, u8)>, tint: &mut Tint) {
        let Tint { red, green, blue } = tint;
        let pairs =
            red.as_chunks_mut::<2>().0.iter_mut().zip(green.as_chunks_mut::<2>().0).zip(blue.as_chunks_mut::<2>().0);
        for ((u, v), ((red, green), blue)) in chroma.zip(pairs) {
            let [u, v] = [u, v].map(|sample| i16::from(sample).wrapping_sub(128) << SAMPLE_BITS);
            *red = [product(v, self.red_v).wrapping_add(HALF); 2];
            *blue = [(product(u, self.half_blue_u) << 1).wrapping_add(HALF + EVEN_BLUE); 2];
            let sum = product(u, self.green_u).wrapping_add(product(v, self.green_v));
            *green = [(HALF + EVEN_GREEN).wrapping_sub(sum); 2];
        }
    }
}
