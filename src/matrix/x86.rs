//! The matrix by AVX2: 32 pixels of a row at a time, from the planes to packed bytes or floats without leaving the registers.
//!
//! Bytes come out as from the plain loops. `unpack` and `pack` work on halves of 16 bytes, and so does everything in between:
//! of 32 pixels, `low` is 0 to 7 and 16 to 23, `high` the others, and each half of a packed result holds 16 pixels in order.
//! No closures: they would be compiled without the instructions.

use std::arch::x86_64::{__m128i, __m256i};

use pulp::cast;
use pulp::x86::V3;

use super::{Chroma, FRACTION_BITS, Kernel, Matrix, SAMPLE_BITS};
use crate::paint::Normalize;

/// Pixels that are done at a time.
const PIXELS: usize = 32;
const SHIFT: i32 = FRACTION_BITS as i32;
/// No byte, for a shuffle.
const NONE: u8 = 0x80;

/// Each of 16 bytes as the upper half of 16 bits; both halves of the register hold all of them.
const WIDE: [u8; PIXELS] = {
    let mut from = [NONE; PIXELS];
    let mut at = 0;
    while at < 16 {
        from[at * 2 + 1] = at as u8;
        at += 1;
    }
    from
};

/// Which byte of register `R` goes where in part `P` of 48 packed bytes: `WOVEN[R][P]`, the same for both halves.
///
/// Half a register holds 8 bytes of a colour twice: the first and second colour of pixels 0 to 7, the third of these and the
/// first of 8 to 15, the second and third of those.
const WOVEN: [[[u8; PIXELS]; 3]; 3] = {
    let mut from = [[[NONE; PIXELS]; 3]; 3];
    let mut byte = 0;
    while byte < 48 {
        let (pixel, colour) = (byte / 3, byte % 3);
        let eight = pixel / 8 * 3 + colour;
        let place = (eight % 2 * 8 + pixel % 8) as u8;
        from[eight / 2][byte / 16][byte % 16] = place;
        from[eight / 2][byte / 16][byte % 16 + 16] = place;
        byte += 1;
    }
    from
};

/// A matrix in registers.
#[derive(Clone, Copy)]
pub(super) struct Wide {
    simd: V3,
    luma: __m256i,
    red_v: __m256i,
    green_u: __m256i,
    green_v: __m256i,
    blue_u: __m256i,
    add: [__m256i; 3],
}

/// The same of the two groups of 16 pixels.
#[derive(Clone, Copy)]
struct Groups {
    low: __m256i,
    high: __m256i,
}

impl Wide {
    pub(super) fn new(simd: V3, matrix: &Matrix) -> Self {
        let all = |value| simd.avx._mm256_set1_epi16(value);
        Self {
            simd,
            luma: all(matrix.luma),
            red_v: all(matrix.red_v),
            green_u: all(matrix.green_u),
            green_v: all(matrix.green_v),
            blue_u: all(matrix.blue_u),
            add: matrix.add.map(all),
        }
    }

    /// Red, green and blue of 32 pixels, before they are cut to bytes.
    #[inline(always)]
    fn colours(self, luma: &[u8; PIXELS], [u, v]: [__m256i; 2]) -> [Groups; 3] {
        let s = self.simd.avx2;
        let (luma, zero) = (cast(*luma), self.simd.avx._mm256_setzero_si256());
        let light = Groups {
            low: s._mm256_mulhi_epu16(s._mm256_unpacklo_epi8(zero, luma), self.luma),
            high: s._mm256_mulhi_epu16(s._mm256_unpackhi_epi8(zero, luma), self.luma),
        };
        let red = s._mm256_add_epi16(s._mm256_mulhi_epi16(v, self.red_v), self.add[0]);
        let blue = s._mm256_add_epi16(s._mm256_mulhi_epi16(u, self.blue_u), self.add[2]);
        let sum = s._mm256_add_epi16(s._mm256_mulhi_epi16(u, self.green_u), s._mm256_mulhi_epi16(v, self.green_v));
        let green = s._mm256_sub_epi16(self.add[1], sum);
        [self.steps(light, red), self.steps(light, green), self.steps(light, blue)]
    }

    /// Steps of a colour; each tint is for two pixels.
    #[inline(always)]
    fn steps(self, light: Groups, tint: __m256i) -> Groups {
        let s = self.simd.avx2;
        let low = s._mm256_add_epi16(light.low, s._mm256_unpacklo_epi16(tint, tint));
        let high = s._mm256_add_epi16(light.high, s._mm256_unpackhi_epi16(tint, tint));
        Groups { low: s._mm256_srai_epi16::<SHIFT>(low), high: s._mm256_srai_epi16::<SHIFT>(high) }
    }

    /// Packed pixels, `colours` in their order.
    #[inline(always)]
    fn weave(self, [first, second, third]: [Groups; 3], target: &mut [u8; PIXELS * 3]) {
        let s = self.simd.avx2;
        let a = s._mm256_packus_epi16(first.low, second.low);
        let b = s._mm256_packus_epi16(third.low, first.high);
        let c = s._mm256_packus_epi16(second.high, third.high);
        let parts = [
            s._mm256_or_si256(self.take(a, 0, 0), self.take(b, 1, 0)),
            s._mm256_or_si256(s._mm256_or_si256(self.take(a, 0, 1), self.take(b, 1, 1)), self.take(c, 2, 1)),
            s._mm256_or_si256(self.take(b, 1, 2), self.take(c, 2, 2)),
        ];
        // Half registers are stored: to bring them together would be three instructions more, which took longer.
        for (number, part) in parts.into_iter().enumerate() {
            let [left, right]: [[u8; 16]; 2] = cast(part);
            target[number * 16..][..16].copy_from_slice(&left);
            target[48 + number * 16..][..16].copy_from_slice(&right);
        }
    }

    #[inline(always)]
    fn take(self, bytes: __m256i, register: usize, part: usize) -> __m256i {
        self.simd.avx2._mm256_shuffle_epi8(bytes, cast(WOVEN[register][part]))
    }

    /// Floats of one colour.
    #[inline(always)]
    fn float(self, colour: Groups, scale: f32, offset: f32, target: &mut [u8; PIXELS * 4]) {
        let s = self.simd;
        let (scale, offset) = (s.avx._mm256_set1_ps(scale), s.avx._mm256_set1_ps(offset));
        let bytes: [u64; 4] = cast(s.avx2._mm256_packus_epi16(colour.low, colour.high));
        for (bytes, target) in bytes.into_iter().zip(target.as_chunks_mut::<PIXELS>().0) {
            let bytes: __m128i = cast([bytes, 0]);
            let floats = s.avx._mm256_cvtepi32_ps(s.avx2._mm256_cvtepu8_epi32(bytes));
            *target = cast(s.avx._mm256_add_ps(s.avx._mm256_mul_ps(floats, scale), offset));
        }
    }

    #[inline(always)]
    fn packed_row<const BGR: bool, C: Samples>(
        self,
        luma: &[[u8; PIXELS]],
        chroma: impl Iterator<Item = C>,
        targets: &mut [[u8; PIXELS * 3]],
    ) {
        for ((luma, chroma), target) in luma.iter().zip(chroma).zip(targets) {
            let [red, green, blue] = self.colours(luma, chroma.wide(self.simd));
            self.weave(if BGR { [blue, green, red] } else { [red, green, blue] }, target);
        }
    }

    #[inline(always)]
    fn float_row<C: Samples>(
        self,
        luma: &[[u8; PIXELS]],
        chroma: impl Iterator<Item = C>,
        Normalize { scale, offset }: &Normalize,
        [red, green, blue]: [&mut [[u8; PIXELS * 4]]; 3],
    ) {
        let targets = red.iter_mut().zip(green).zip(blue);
        for ((luma, chroma), ((red, green), blue)) in luma.iter().zip(chroma).zip(targets) {
            let colours = self.colours(luma, chroma.wide(self.simd));
            self.float(colours[0], scale[0], offset[0], red);
            self.float(colours[1], scale[1], offset[1], green);
            self.float(colours[2], scale[2], offset[2], blue);
        }
    }
}

/// Chroma of 32 pixels.
trait Samples {
    /// U and V, each of 16 samples in the upper half of 16 bits, 128 of them zero.
    fn wide(self, simd: V3) -> [__m256i; 2];
}

impl Samples for (&[u8; 16], &[u8; 16]) {
    #[inline(always)]
    fn wide(self, simd: V3) -> [__m256i; 2] {
        [widened(simd, self.0), widened(simd, self.1)]
    }
}

#[inline(always)]
fn widened(simd: V3, samples: &[u8; 16]) -> __m256i {
    let both = simd.avx2._mm256_broadcastsi128_si256(cast(*samples));
    let wide = simd.avx2._mm256_shuffle_epi8(both, cast(WIDE));
    simd.avx2._mm256_xor_si256(wide, simd.avx._mm256_set1_epi16(i16::MIN))
}

impl Samples for &[u8; PIXELS] {
    #[inline(always)]
    fn wide(self, simd: V3) -> [__m256i; 2] {
        let signed = simd.avx2._mm256_xor_si256(cast(*self), simd.avx._mm256_set1_epi8(i8::MIN));
        let u = simd.avx2._mm256_slli_epi16::<{ SAMPLE_BITS as i32 }>(signed);
        [u, simd.avx2._mm256_and_si256(signed, simd.avx._mm256_set1_epi16(!0xff))]
    }
}

impl Kernel for Wide {
    #[inline(always)]
    fn packed<const BGR: bool>(self, luma: &[u8], chroma: Chroma<'_>, target: &mut [u8]) -> usize {
        let (luma, _) = luma.as_chunks();
        let (targets, _) = target.as_chunks_mut();
        match chroma {
            Chroma::Planes(u, v) => {
                let samples = u.as_chunks().0.iter().zip(v.as_chunks().0);
                self.packed_row::<BGR, (&[u8; 16], &[u8; 16])>(luma, samples, targets);
            }
            Chroma::Pairs(both) => self.packed_row::<BGR, _>(luma, both.as_chunks::<PIXELS>().0.iter(), targets),
        }
        luma.len() * PIXELS
    }

    #[inline(always)]
    fn floats(self, luma: &[u8], chroma: Chroma<'_>, normalize: &Normalize, targets: [&mut [u8]; 3]) -> usize {
        let (luma, _) = luma.as_chunks();
        let [red, green, blue] = targets;
        let targets = [red.as_chunks_mut().0, green.as_chunks_mut().0, blue.as_chunks_mut().0];
        match chroma {
            Chroma::Planes(u, v) => {
                let samples = u.as_chunks().0.iter().zip(v.as_chunks().0);
                self.float_row::<(&[u8; 16], &[u8; 16])>(luma, samples, normalize, targets);
            }
            Chroma::Pairs(both) => self.float_row(luma, both.as_chunks::<PIXELS>().0.iter(), normalize, targets),
        }
        luma.len() * PIXELS
    }
}
