//! The matrix: luma and chroma of I420 and NV12 become red, green and blue, rounded once.
//!
//! Products keep five fraction bits until they are added, so that a colour is as far from the exact one as rounding makes it
//! (0.001 of a step more, in the mean). The loops here are plain; `pulp` has them compiled for the instructions of today's
//! processors. On x86 they do only what `x86` leaves: the last pixels of a row, and all of them where there is no AVX2.

#[cfg(target_arch = "x86_64")]
mod x86;

use camring_ring::frame::Color;
use pulp::{Simd, WithSimd};

use crate::paint::Normalize;
use crate::picture::Picture;
use crate::source::{Plane, PlaneMut, SourceLayout};

/// Pixels of a row that are worked on at a time; even.
const PIXELS: usize = 2048;
/// Bits of a sample behind its point, before it is multiplied: a multiplication drops 16 bits.
const SAMPLE_BITS: u32 = 8;
/// Fraction bits of a product.
const FRACTION_BITS: u32 = 5;
/// Units of a product in a step of a colour.
const STEP: f64 = (1 << FRACTION_BITS) as f64;

/// What luma and chroma are multiplied by, in units of `1 << 13`, and what is added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    luma: i16,
    red_v: i16,
    green_u: i16,
    green_v: i16,
    blue_u: i16,
    /// What takes black to 0 and rounds, for red, green and blue.
    add: [i16; 3],
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
            if color.full_range == 1 { (0.0, 1.0, 1.0) } else { (16.0, 255.0 / 219.0, 255.0 / 224.0) };
        let kg = 1.0 - kr - kb;
        let factor = |value: f64| (value * f64::from(1 << (16 + FRACTION_BITS - SAMPLE_BITS))).round() as i16;
        // A product is cut, not rounded, which takes half of its last bit in the mean; none of a whole multiple of luma.
        let cut = if luma == 1.0 { 0.0 } else { 0.5 };
        let add = |cut: f64| ((STEP - 1.0) / 2.0 + cut - black * luma * STEP).round() as i16;
        Some(Self {
            luma: factor(luma),
            red_v: factor(2.0 * (1.0 - kr) * chroma),
            green_u: factor(2.0 * (1.0 - kb) * kb / kg * chroma),
            green_v: factor(2.0 * (1.0 - kr) * kr / kg * chroma),
            blue_u: factor(2.0 * (1.0 - kb) * chroma),
            add: [add(cut + 0.5), add(cut - 1.0), add(cut + 0.5)],
        })
    }

    /// Whether the picture has the planes that this takes.
    pub(crate) fn is_for(picture: &Picture<'_>) -> bool {
        matches!(picture.layout, SourceLayout::I420 | SourceLayout::Nv12)
    }

    /// Writes a picture of I420 or NV12 into packed rows, blue or red first, which are `stride` bytes apart.
    pub(crate) fn packed(self, picture: &Picture<'_>, is_bgr: bool, rows: &mut [u8], stride: usize) {
        if is_bgr {
            self.write(picture, &mut Packed::<true> { rows, stride });
        } else {
            self.write(picture, &mut Packed::<false> { rows, stride });
        }
    }

    /// Writes a picture of I420 or NV12 into planes of floats from their row `first`.
    pub(crate) fn floats(
        self,
        picture: &Picture<'_>,
        normalize: &Normalize,
        planes: &mut [PlaneMut<'_>; 3],
        first: usize,
    ) {
        self.write(picture, &mut Floats { planes, normalize, first });
    }

    fn write(self, picture: &Picture<'_>, out: &mut impl Out) {
        match picture.fields() {
            None => self.rows(picture, Rows { first: 0, step: 1 }, out),
            Some([top, bottom]) => {
                self.rows(&top, Rows { first: 0, step: 2 }, out);
                self.rows(&bottom, Rows { first: 1, step: 2 }, out);
            }
        }
    }

    fn rows(self, picture: &Picture<'_>, rows: Rows, out: &mut impl Out) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            let kernel = x86::Wide::new(simd, &self);
            return Simd::vectorize(simd, Run { matrix: self, picture, rows, out, kernel });
        }
        pulp::Arch::new().dispatch(Run { matrix: self, picture, rows, out, kernel: Plain });
    }
}

/// Which rows of the target those of a picture are.
#[derive(Clone, Copy)]
struct Rows {
    first: usize,
    step: usize,
}

/// A row of chroma.
#[derive(Clone, Copy)]
enum Chroma<'a> {
    Planes(&'a [u8], &'a [u8]),
    Pairs(&'a [u8]),
}

/// What does most of a row at once. Returns how many pixels are done: an even number or all.
trait Kernel: Copy {
    fn packed<const BGR: bool>(self, luma: &[u8], chroma: Chroma<'_>, target: &mut [u8]) -> usize;
    fn floats(self, luma: &[u8], chroma: Chroma<'_>, normalize: &Normalize, targets: [&mut [u8]; 3]) -> usize;
}

/// No kernel: the plain loops do all.
#[derive(Clone, Copy)]
struct Plain;

impl Kernel for Plain {
    #[inline(always)]
    fn packed<const BGR: bool>(self, _: &[u8], _: Chroma<'_>, _: &mut [u8]) -> usize {
        0
    }

    #[inline(always)]
    fn floats(self, _: &[u8], _: Chroma<'_>, _: &Normalize, _: [&mut [u8]; 3]) -> usize {
        0
    }
}

/// What chroma adds to the luma of each pixel of a part of a row, with what brings black to 0 and rounds.
struct Tint {
    red: [i16; PIXELS],
    green: [i16; PIXELS],
    blue: [i16; PIXELS],
}

/// Where pixels go.
trait Out {
    /// Has a kernel write what it can of a row.
    fn kernel(&mut self, row: usize, kernel: impl Kernel, luma: &[u8], chroma: Chroma<'_>) -> usize;

    /// Writes the pixels of one row from `x` on; `luma` is theirs.
    fn write(&mut self, row: usize, x: usize, factor: i16, luma: &[u8], tint: &Tint);
}

struct Packed<'a, const BGR: bool> {
    rows: &'a mut [u8],
    stride: usize,
}

impl<const BGR: bool> Out for Packed<'_, BGR> {
    #[inline(always)]
    fn kernel(&mut self, row: usize, kernel: impl Kernel, luma: &[u8], chroma: Chroma<'_>) -> usize {
        kernel.packed::<BGR>(luma, chroma, &mut self.rows[row * self.stride..])
    }

    #[inline(always)]
    fn write(&mut self, row: usize, x: usize, factor: i16, luma: &[u8], tint: &Tint) {
        let pixels = self.rows[row * self.stride + x * 3..].as_chunks_mut::<3>().0;
        let (first, last) = if BGR { (&tint.blue, &tint.red) } else { (&tint.red, &tint.blue) };
        let tints = first.iter().zip(&tint.green).zip(last);
        for ((luma, ((first, green), last)), pixel) in luma.iter().zip(tints).zip(pixels) {
            let light = light(*luma, factor);
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
    fn kernel(&mut self, row: usize, kernel: impl Kernel, luma: &[u8], chroma: Chroma<'_>) -> usize {
        let [red, green, blue] = &mut *self.planes;
        let row = self.first + row;
        let targets = [
            &mut red.bytes[row * red.stride..],
            &mut green.bytes[row * green.stride..],
            &mut blue.bytes[row * blue.stride..],
        ];
        kernel.floats(luma, chroma, self.normalize, targets)
    }

    #[inline(always)]
    fn write(&mut self, row: usize, x: usize, factor: i16, luma: &[u8], tint: &Tint) {
        for (channel, tint) in [&tint.red, &tint.green, &tint.blue].into_iter().enumerate() {
            let (scale, offset) = (self.normalize.scale[channel], self.normalize.offset[channel]);
            let PlaneMut { bytes, stride } = &mut self.planes[channel];
            let floats = bytes[(self.first + row) * *stride + x * 4..].as_chunks_mut::<4>().0;
            for ((luma, tint), float) in luma.iter().zip(tint).zip(floats) {
                *float = (f32::from(step(light(*luma, factor), *tint)) * scale + offset).to_ne_bytes();
            }
        }
    }
}

/// A colour, 0 to 255.
#[inline(always)]
fn step(light: i16, tint: i16) -> u8 {
    (light.wrapping_add(tint) >> FRACTION_BITS).clamp(0, 255) as u8
}

/// The upper half of a product of luma.
#[inline(always)]
fn light(luma: u8, factor: i16) -> i16 {
    ((u32::from(luma) << SAMPLE_BITS).wrapping_mul(u32::from(factor as u16)) >> 16) as i16
}

/// The upper half of a product of chroma.
#[inline(always)]
fn product(sample: i16, factor: i16) -> i16 {
    (i32::from(sample).wrapping_mul(i32::from(factor)) >> 16) as i16
}

/// A picture on its way, for whichever instructions the processor has.
struct Run<'a, 'p, O, K> {
    matrix: Matrix,
    picture: &'a Picture<'p>,
    rows: Rows,
    out: &'a mut O,
    kernel: K,
}

impl<O: Out, K: Kernel> WithSimd for Run<'_, '_, O, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { matrix, picture, rows, out, kernel } = self;
        let Picture { layout, planes: [luma, first, second], .. } = *picture;
        let (width, height) = (picture.width as usize, picture.height as usize);
        let half = width.div_ceil(2);
        let mut tint = Tint { red: [0; PIXELS], green: [0; PIXELS], blue: [0; PIXELS] };
        for pair in 0..height.div_ceil(2) {
            let chroma = if layout == SourceLayout::Nv12 {
                Chroma::Pairs(row(first, pair, half * 2))
            } else {
                Chroma::Planes(row(first, pair, half), row(second, pair, half))
            };
            let both = pair * 2..height.min(pair * 2 + 2);
            let mut done = 0;
            for number in both.clone() {
                done = out.kernel(rows.first + number * rows.step, kernel, row(luma, number, width), chroma);
            }
            for x in (done..width).step_by(PIXELS) {
                matrix.tint(chroma, x / 2, &mut tint);
                for number in both.clone() {
                    let luma = &row(luma, number, width)[x..width.min(x + PIXELS)];
                    out.write(rows.first + number * rows.step, x, matrix.luma, luma, &tint);
                }
            }
        }
    }
}

/// `samples` of a row of a plane.
#[inline(always)]
fn row(plane: Plane<'_>, number: usize, samples: usize) -> &[u8] {
    &plane.bytes[number * plane.stride as usize..][..samples]
}

impl Matrix {
    /// What a row's samples of chroma from `first` on, each of which belongs to two pixels, add to luma.
    #[inline(always)]
    fn tint(&self, chroma: Chroma<'_>, first: usize, tint: &mut Tint) {
        match chroma {
            Chroma::Planes(u, v) => self.tints(u[first..].iter().zip(&v[first..]).map(|(u, v)| (*u, *v)), tint),
            Chroma::Pairs(both) => self.tints(both[first * 2..].as_chunks::<2>().0.iter().map(|[u, v]| (*u, *v)), tint),
        }
    }

    #[inline(always)]
    fn tints(&self, chroma: impl Iterator<Item = (u8, u8)>, tint: &mut Tint) {
        let Tint { red, green, blue } = tint;
        let pairs =
            red.as_chunks_mut::<2>().0.iter_mut().zip(green.as_chunks_mut::<2>().0).zip(blue.as_chunks_mut::<2>().0);
        for ((u, v), ((red, green), blue)) in chroma.zip(pairs) {
            let [u, v] = [u, v].map(|sample| i16::from(sample).wrapping_sub(128) << SAMPLE_BITS);
            *red = [product(v, self.red_v).wrapping_add(self.add[0]); 2];
            *blue = [product(u, self.blue_u).wrapping_add(self.add[2]); 2];
            let sum = product(u, self.green_u).wrapping_add(product(v, self.green_v));
            *green = [self.add[1].wrapping_sub(sum); 2];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planes of random bytes, legal or not, with padding, and no byte behind the last sample of a plane.
    struct Sample {
        layout: SourceLayout,
        size: (u32, u32),
        planes: [(Vec<u8>, u32); 3],
    }

    impl Sample {
        fn random(random: &mut fastrand::Rng, layout: SourceLayout, (width, height): (u32, u32)) -> Self {
            let (half, rows) = (width.div_ceil(2), height.div_ceil(2));
            let chroma = if layout == SourceLayout::Nv12 { [(half * 2, rows), (0, 0)] } else { [(half, rows); 2] };
            let planes = [(width, height), chroma[0], chroma[1]].map(|(row_bytes, rows)| {
                let stride = row_bytes + random.u32(0..40);
                let len = if rows == 0 { 0 } else { stride * (rows - 1) + row_bytes };
                (std::iter::repeat_with(|| random.u8(..)).take(len as usize).collect(), stride)
            });
            Self { layout, size: (width, height), planes }
        }

        fn picture(&self, interlaced: bool) -> Picture<'_> {
            let planes = self.planes.each_ref().map(|(bytes, stride)| Plane { bytes, stride: *stride });
            Picture { width: self.size.0, height: self.size.1, layout: self.layout, planes, interlaced }
        }

        fn pixels(&self) -> usize {
            (self.size.0 * self.size.1) as usize
        }
    }

    const LAYOUTS: [SourceLayout; 2] = [SourceLayout::I420, SourceLayout::Nv12];
    const NORMALIZE: Normalize = Normalize { scale: [0.017, 0.016, 0.015], offset: [-2.1, -2.0, -1.8] };

    fn plainly(matrix: Matrix, picture: &Picture<'_>, out: &mut impl Out) {
        let rows = Rows { first: 0, step: 1 };
        pulp::Arch::new().dispatch(Run { matrix, picture, rows, out, kernel: Plain });
    }

    /// Bytes of the planes as `write` fills them, and what is behind them.
    fn floats(sample: &Sample, write: impl FnOnce(&mut [PlaneMut<'_>; 3])) -> Vec<u8> {
        let mut bytes = vec![0xa5; (sample.pixels() * 4 + 8) * 3];
        let (plane, stride) = (bytes.len() / 3, sample.size.0 as usize * 4);
        let (red, others) = bytes.split_at_mut(plane);
        let (green, blue) = others.split_at_mut(plane);
        write(&mut [red, green, blue].map(|bytes| PlaneMut { bytes, stride }));
        bytes
    }

    #[test]
    fn every_kernel_gives_the_bytes_of_the_plain_loops_in_every_width_matrix_and_order() {
        let mut random = fastrand::Rng::with_seed(7);
        let widths = (1..=131).chain([640, 719, 1366, 2048, 2079, 2081, 4131]);
        let sizes = widths.flat_map(|width| [1, 2, 5].map(|height| (width, height)));
        for (size, layout) in sizes.flat_map(|size| LAYOUTS.map(|layout| (size, layout))) {
            let sample = Sample::random(&mut random, layout, size);
            let picture = sample.picture(false);
            for (matrix, full_range) in [1, 4, 6, 7, 9].into_iter().flat_map(|matrix| [(matrix, 0), (matrix, 1)]) {
                let what = format!("{layout:?} {size:?} matrix {matrix} full {full_range}");
                let matrix = Matrix::of(Color { primaries: 1, transfer: 1, matrix, full_range }).expect("a matrix");
                let stride = size.0 as usize * 3 + 5;
                let [mut ours, mut plain] = [(); 2].map(|()| vec![0xa5; stride * size.1 as usize]);
                matrix.packed(&picture, true, &mut ours, stride);
                plainly(matrix, &picture, &mut Packed::<true> { rows: &mut plain, stride });
                assert!(ours == plain, "{what}: bgr");
                matrix.packed(&picture, false, &mut ours, stride);
                plainly(matrix, &picture, &mut Packed::<false> { rows: &mut plain, stride });
                assert!(ours == plain, "{what}: rgb");
                let ours = floats(&sample, |planes| matrix.floats(&picture, &NORMALIZE, planes, 0));
                let plain = floats(&sample, |planes| {
                    plainly(matrix, &picture, &mut Floats { planes, normalize: &NORMALIZE, first: 0 });
                });
                assert!(ours == plain, "{what}: floats");
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn where_there_is_avx2_all_but_the_last_pixels_of_a_row_are_for_the_kernel() {
        let Some(simd) = pulp::x86::V3::try_new() else { return };
        let matrix = Matrix::of(Color { primaries: 1, transfer: 1, matrix: 1, full_range: 0 }).expect("a matrix");
        let kernel = x86::Wide::new(simd, &matrix);
        let (luma, chroma, mut target) = ([0; 131], [0; 132], [0; 131 * 4]);
        for (width, done) in [(1, 0), (31, 0), (32, 32), (95, 64), (131, 128)] {
            let half = usize::div_ceil(width, 2);
            let planes = Chroma::Planes(&chroma[..half], &chroma[..half]);
            for chroma in [planes, Chroma::Pairs(&chroma[..half * 2])] {
                assert_eq!(kernel.packed::<true>(&luma[..width], chroma, &mut target[..width * 3]), done);
            }
        }
    }

    #[test]
    fn floats_are_the_bytes_of_rgb_also_of_woven_fields() {
        let mut random = fastrand::Rng::with_seed(8);
        let matrix = Matrix::of(Color { primaries: 1, transfer: 1, matrix: 6, full_range: 0 }).expect("a matrix");
        for (layout, interlaced) in LAYOUTS.into_iter().flat_map(|layout| [(layout, false), (layout, true)]) {
            let sample = Sample::random(&mut random, layout, (75, 12));
            let picture = sample.picture(interlaced);
            let mut rgb = vec![0; sample.pixels() * 3];
            matrix.packed(&picture, false, &mut rgb, 75 * 3);
            let bytes = floats(&sample, |planes| matrix.floats(&picture, &NORMALIZE, planes, 0));
            for (channel, plane) in bytes.chunks(bytes.len() / 3).enumerate() {
                let (floats, behind) = plane.split_at(sample.pixels() * 4);
                assert_eq!(behind, [0xa5; 8]);
                for (at, float) in floats.as_chunks::<4>().0.iter().enumerate() {
                    let expected =
                        f32::from(rgb[at * 3 + channel]) * NORMALIZE.scale[channel] + NORMALIZE.offset[channel];
                    assert_eq!(f32::from_ne_bytes(*float), expected, "{layout:?} {interlaced}: {channel}, {at}");
                }
            }
        }
    }
}
