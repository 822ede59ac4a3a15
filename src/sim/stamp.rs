//! The stamp in every simulated picture: which frame it is, when it was made, by which run; survives lossy codecs.
//!
//! # Geometry
//!
//! 16 columns x 8 rows of square cells, no gap and no border, from the top-left pixel of the picture. The cell side
//! follows from the picture's size alone (integer divisions):
//!
//! ```text
//! side = clamp(min(width / 40, height / 24), 8, 24), then rounded down to an even number
//!        1920x1080 -> 24    1280x720 -> 24    641x359 -> 14    640x360 -> 14    320x240 -> 8
//! ```
//!
//! The stamp covers `16*side` x `8*side` pixels; a picture under 128x64 has no room for one. A picture of at least
//! `16*side` rows carries the same stamp a second time, from column `(width - 16*side) & !1`, row
//! `(height - 8*side) & !1` on (bottom right): when the two differ, the picture is a mixture of two frames. Luma of a cell is 16
//! (bit 0) or 235 (bit 1), chroma under the stamp is 128, so that grey, the green channel, or the mean of packed RGB
//! all read alike, in limited and in full range.
//!
//! # Bits
//!
//! 128 bits = 16 bytes, most significant bit first: bit 7 of byte 0 is the top-left cell, then to the right, then the
//! next row. Row `r` therefore holds bytes `2r` and `2r+1`. Integers are big-endian.
//!
//! | bytes | rows | content |
//! |---|---|---|
//! | 0 | 0 left | sync, always 0xA6 |
//! | 1-2 | 0 right, 1 left | run id (u16) |
//! | 3-6 | 1 right, 2, 3 left | frame number (u32) |
//! | 7-13 | 3 right, 4, 5, 6 | CLOCK_MONOTONIC of the host, microseconds, low 56 bits |
//! | 14-15 | 7 | CRC-16 of bytes 0-13: polynomial 0x1021, initial value 0xFFFF, no reflection, no final xor (Python: `binascii.crc_hqx(data, 0xFFFF)`) |
//!
//! # Reading
//!
//! A cell's value is the mean (integer division) of its inner half: `side/2` x `side/2` pixels starting at `side/4`
//! from the cell's left and top edge. At most [`BLACK_MAX`] is 0, at least [`WHITE_MIN`] is 1, anything between is an
//! error. Then the sync byte and the CRC must match; the CRC finds every one- and two-bit error.

/// Cells across.
pub const COLUMNS: u32 = 16;
/// Cells down.
pub const ROWS: u32 = 8;
/// First byte of every stamp.
pub const SYNC: u8 = 0xA6;
/// Luma of a cell that holds a 0.
pub const BLACK: u8 = 16;
/// Luma of a cell that holds a 1.
pub const WHITE: u8 = 235;
/// The largest mean that still reads as 0.
pub const BLACK_MAX: u8 = 100;
/// The smallest mean that still reads as 1.
pub const WHITE_MIN: u8 = 155;

const BYTES: usize = 16;
const CRC_AT: usize = 14;
const TIME_MASK: u64 = (1 << 56) - 1;

/// What a stamp says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stamp {
    /// Tells the pictures of one server from those of its predecessor on the same port.
    pub run_id: u16,
    /// Number of the frame in its run; a number that is missing was skipped by the server or lost on the way.
    pub number: u32,
    /// CLOCK_MONOTONIC when the picture was handed to the encoder, microseconds; only the low 56 bits are kept.
    pub mono_us: u64,
}

/// Why a picture has no readable stamp.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StampError {
    /// No stamp fits.
    #[error("a picture of {width}x{height} has no room for a stamp; it needs at least 128x64")]
    TooSmall {
        /// Width of the picture, pixels.
        width: u32,
        /// Height of the picture, pixels.
        height: u32,
    },
    /// The rows given are not a whole picture.
    #[error("{found} bytes are not a picture of {expected} bytes; pass every row up to the end of the last pixel")]
    ShortRows {
        /// Bytes that were given.
        found: usize,
        /// Bytes that the size and the stride call for.
        expected: usize,
    },
    /// A cell is neither black nor white.
    #[error("stamp cell {column},{row} has the value {value}; expected at most 100 or at least 155")]
    Unclear {
        /// Column of the cell, from 0.
        column: u32,
        /// Row of the cell, from 0.
        row: u32,
        /// Mean of its inner half.
        value: u8,
    },
    /// The cells are clear but they are no stamp.
    #[error("the stamp begins with {found:#04x}, not with 0xa6: no stamp here, or the picture was moved or scaled")]
    Sync {
        /// First byte that was read.
        found: u8,
    },
    /// The upper part is of one frame and the lower part of another.
    #[error("the picture is torn: frame {top} at the top, frame {bottom} at the bottom")]
    Torn {
        /// Frame number at the top.
        top: u32,
        /// Frame number at the bottom.
        bottom: u32,
    },
    /// A bit is wrong.
    #[error("the stamp has checksum {found:#06x} but its content gives {expected:#06x}: the picture is damaged")]
    Checksum {
        /// Checksum in the picture.
        found: u16,
        /// Checksum of the content that was read.
        expected: u16,
    },
}

impl Stamp {
    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0] = SYNC;
        bytes[1..3].copy_from_slice(&self.run_id.to_be_bytes());
        bytes[3..7].copy_from_slice(&self.number.to_be_bytes());
        bytes[7..CRC_AT].copy_from_slice(&(self.mono_us & TIME_MASK).to_be_bytes()[1..]);
        let crc = crc16(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; BYTES]) -> Result<Self, StampError> {
        if bytes[0] != SYNC {
            return Err(StampError::Sync { found: bytes[0] });
        }
        let found = u16::from_be_bytes([bytes[14], bytes[15]]);
        let expected = crc16(&bytes[..CRC_AT]);
        if found != expected {
            return Err(StampError::Checksum { found, expected });
        }
        let mono_us = bytes[7..CRC_AT].iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        Ok(Self {
            run_id: u16::from_be_bytes([bytes[1], bytes[2]]),
            number: u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]),
            mono_us,
        })
    }
}

/// Side of a cell in a picture of this size, pixels.
///
/// # Errors
///
/// [`StampError::TooSmall`] under 128x64.
pub fn cell_side(width: u32, height: u32) -> Result<u32, StampError> {
    let side = (width / 40).min(height / 24).clamp(8, 24) & !1;
    if side * COLUMNS > width || side * ROWS > height {
        return Err(StampError::TooSmall { width, height });
    }
    Ok(side)
}

/// Top-left pixels of the stamps of a picture: the first, and the second when its rows do not touch the first.
fn origins(width: u32, height: u32, side: u32) -> impl Iterator<Item = (u32, u32)> {
    let second = ((width - side * COLUMNS) & !1, (height - side * ROWS) & !1);
    [(0, 0), second].into_iter().take(if height >= 2 * side * ROWS { 2 } else { 1 })
}

/// Paints the stamp, twice where there is room, into the luma plane of a picture of `width` x `height`.
///
/// The chroma under it must be neutral: see [`blank_chroma`].
///
/// # Errors
///
/// [`StampError::TooSmall`], or [`StampError::ShortRows`] when `luma` does not hold the whole picture.
pub fn paint(luma: &mut [u8], stride: usize, width: u32, height: u32, stamp: &Stamp) -> Result<(), StampError> {
    let side = cell_side(width, height)?;
    check_rows(luma.len(), stride, width as usize, height as usize)?;
    let bytes = stamp.to_bytes();
    for (left, top) in origins(width, height, side) {
        let area = luma.chunks_mut(stride).skip(top as usize).take((side * ROWS) as usize);
        for (y, row) in area.enumerate() {
            let bits = bytes[y / side as usize * 2..][..2].iter();
            let bits = bits.flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
            for (cell, bit) in row[left as usize..].chunks_exact_mut(side as usize).zip(bits) {
                cell.fill(if bit == 1 { WHITE } else { BLACK });
            }
        }
    }
    Ok(())
}

/// Makes the chroma under the stamp neutral in one chroma plane of an I420 picture of `width` x `height`.
///
/// # Errors
///
/// [`StampError::TooSmall`], or [`StampError::ShortRows`] when `chroma` does not hold the whole plane.
pub fn blank_chroma(chroma: &mut [u8], stride: usize, width: u32, height: u32) -> Result<(), StampError> {
    let side = cell_side(width, height)?;
    check_rows(chroma.len(), stride, width.div_ceil(2) as usize, height.div_ceil(2) as usize)?;
    let (columns, rows) = ((side * COLUMNS / 2) as usize, (side * ROWS / 2) as usize);
    for (left, top) in origins(width, height, side) {
        for row in chroma.chunks_mut(stride).skip(top as usize / 2).take(rows) {
            row[left as usize / 2..][..columns].fill(128);
        }
    }
    Ok(())
}

/// Reads the stamp of a picture of `width` x `height` whose brightness at column x, row y is `value(x, y)`.
///
/// # Errors
///
/// Why there is no readable stamp; a damaged stamp is never returned as a good one.
pub fn read(width: u32, height: u32, mut value: impl FnMut(u32, u32) -> u8) -> Result<Stamp, StampError> {
    let side = cell_side(width, height)?;
    let mut stamps = origins(width, height, side).map(|origin| read_one(origin, side, &mut value));
    let top = stamps.next().expect("every stamped picture has a first stamp")?;
    match stamps.next().transpose()? {
        Some(bottom) if bottom != top => Err(StampError::Torn { top: top.number, bottom: bottom.number }),
        _ => Ok(top),
    }
}

fn read_one((left, top): (u32, u32), side: u32, value: &mut impl FnMut(u32, u32) -> u8) -> Result<Stamp, StampError> {
    let mut bytes = [0; BYTES];
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            let mean = mean_of_inner_half(left + column * side, top + row * side, side, value);
            let bit = match mean {
                ..=BLACK_MAX => 0,
                WHITE_MIN.. => 1,
                _ => return Err(StampError::Unclear { column, row, value: mean }),
            };
            bytes[(row * 2 + column / 8) as usize] |= bit << (7 - column % 8);
        }
    }
    Stamp::from_bytes(bytes)
}

/// Reads the stamp from packed rows of three bytes a pixel (BGR or RGB), by the green channel.
///
/// `stride` is the distance from one row to the next, bytes.
///
/// # Errors
///
/// As [`read`], and [`StampError::ShortRows`] when `rows` does not hold the whole picture.
pub fn read_bgr(rows: &[u8], stride: usize, width: u32, height: u32) -> Result<Stamp, StampError> {
    check_rows(rows.len(), stride, width as usize * 3, height as usize)?;
    read(width, height, |x, y| rows[y as usize * stride + x as usize * 3 + 1])
}

/// Reads the stamp from a plane of luma or grey.
///
/// # Errors
///
/// As [`read`], and [`StampError::ShortRows`] when `rows` does not hold the whole picture.
pub fn read_luma(rows: &[u8], stride: usize, width: u32, height: u32) -> Result<Stamp, StampError> {
    check_rows(rows.len(), stride, width as usize, height as usize)?;
    read(width, height, |x, y| rows[y as usize * stride + x as usize])
}

fn mean_of_inner_half(left: u32, top: u32, side: u32, value: &mut impl FnMut(u32, u32) -> u8) -> u8 {
    let (first, count) = (side / 4, side / 2);
    let mut sum = 0;
    for y in top + first..top + first + count {
        for x in left + first..left + first + count {
            sum += u32::from(value(x, y));
        }
    }
    u8::try_from(sum / (count * count)).expect("a mean of bytes is a byte")
}

fn check_rows(found: usize, stride: usize, row_bytes: usize, height: usize) -> Result<(), StampError> {
    let expected = height.saturating_sub(1).saturating_mul(stride.max(row_bytes)).saturating_add(row_bytes);
    if found < expected || stride < row_bytes {
        return Err(StampError::ShortRows { found, expected });
    }
    Ok(())
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc: u16, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 != 0 { 0x1021 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [(u32, u32); 7] =
        [(128, 64), (320, 240), (640, 360), (641, 359), (1280, 720), (1920, 1080), (3840, 2160)];

    fn stamp() -> Stamp {
        Stamp { run_id: 0xBEEF, number: 0x0102_0304, mono_us: 0x00AB_CDEF_0123_4567 }
    }

    /// A mid-grey picture with `stamp` in it; stride 5 bytes more than the width.
    fn picture(width: u32, height: u32, stamp: &Stamp) -> (Vec<u8>, usize) {
        let stride = width as usize + 5;
        let mut luma = vec![128; stride * height as usize];
        paint(&mut luma, stride, width, height, stamp).expect("the picture is big enough");
        (luma, stride)
    }

    fn shifted(luma: &[u8], offset: i16) -> Vec<u8> {
        luma.iter().map(|&value| (i16::from(value) + offset).clamp(0, 255) as u8).collect()
    }

    #[test]
    fn every_size_reads_back_what_was_painted() {
        for (width, height) in SIZES {
            let (luma, stride) = picture(width, height, &stamp());
            assert_eq!(read_luma(&luma, stride, width, height), Ok(stamp()), "{width}x{height}");
        }
    }

    #[test]
    fn the_documented_cell_sides_hold() {
        let sides = [(1920, 1080, 24), (1280, 720, 24), (641, 359, 14), (640, 360, 14), (320, 240, 8), (128, 64, 8)];
        for (width, height, side) in sides {
            assert_eq!(cell_side(width, height), Ok(side), "{width}x{height}");
        }
    }

    #[test]
    fn the_documented_bytes_are_in_the_documented_cells() {
        let bytes = stamp().to_bytes();
        assert_eq!(bytes[..14], [0xA6, 0xBE, 0xEF, 1, 2, 3, 4, 0xAB, 0xCD, 0xEF, 0x01, 0x23, 0x45, 0x67]);
        let (luma, stride) = picture(320, 240, &stamp());
        // 0xA6 = 1010_0110 along the top row, 0xBE = 1011_1110 beside it.
        let top: Vec<u8> = (0..16).map(|column| luma[3 * stride + column * 8 + 3]).collect();
        let expected = [1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0].map(|bit| if bit == 1 { WHITE } else { BLACK });
        assert_eq!(top, expected);
    }

    #[test]
    fn the_checksum_is_the_one_named_in_the_documentation() {
        // The check value of CRC-16/IBM-3740 ("CCITT-FALSE") in the public catalogues of CRCs.
        assert_eq!(crc16(b"123456789"), 0x29B1);
    }

    #[test]
    fn nothing_outside_the_stamp_is_painted() {
        let (luma, stride) = picture(641, 359, &stamp());
        // 641 - 16*14 = 417 and 359 - 8*14 = 247, rounded down to even.
        let first = |x: usize, y: usize| x < 14 * 16 && y < 14 * 8;
        let second = |x: usize, y: usize| (416..416 + 14 * 16).contains(&x) && (246..246 + 14 * 8).contains(&y);
        let outside = |x: usize, y: usize| !first(x, y) && !second(x, y);
        let touched = (0..luma.len()).filter(|i| outside(i % stride, i / stride) && luma[*i] != 128).count();
        assert_eq!(touched, 0);
    }

    #[test]
    fn offsets_of_forty_either_way_are_tolerated() {
        for offset in [-40, 40] {
            let (luma, stride) = picture(640, 360, &stamp());
            assert_eq!(read_luma(&shifted(&luma, offset), stride, 640, 360), Ok(stamp()), "offset {offset}");
        }
    }

    #[test]
    fn strong_noise_is_tolerated() {
        let mut random = fastrand::Rng::with_seed(7);
        for (width, height) in SIZES {
            let (mut luma, stride) = picture(width, height, &stamp());
            for value in &mut luma {
                *value = (i16::from(*value) + random.i16(-90..=90)).clamp(0, 255) as u8;
            }
            assert_eq!(read_luma(&luma, stride, width, height), Ok(stamp()), "{width}x{height}");
        }
    }

    #[test]
    fn any_one_flipped_cell_is_an_error() {
        let (luma, stride) = picture(320, 240, &stamp());
        for cell in 0..128_usize {
            let mut damaged = luma.clone();
            let (left, top) = (cell % 16 * 8, cell / 16 * 8);
            for y in top..top + 8 {
                for value in &mut damaged[y * stride + left..][..8] {
                    *value = WHITE + BLACK - *value;
                }
            }
            let error = read_luma(&damaged, stride, 320, 240).expect_err("one bit is wrong");
            assert!(matches!(error, StampError::Sync { .. } | StampError::Checksum { .. }), "cell {cell}: {error}");
        }
    }

    #[test]
    fn a_mixture_of_two_frames_is_called_torn() {
        let (mut luma, stride) = picture(640, 360, &stamp());
        let (newer, _) = picture(640, 360, &Stamp { number: stamp().number + 1, ..stamp() });
        luma[..200 * stride].copy_from_slice(&newer[..200 * stride]);
        let torn = StampError::Torn { top: stamp().number + 1, bottom: stamp().number };
        assert_eq!(read_luma(&luma, stride, 640, 360), Err(torn));
    }

    #[test]
    fn a_grey_cell_is_reported_with_its_place() {
        let (mut luma, stride) = picture(320, 240, &stamp());
        for y in 16..24 {
            luma[y * stride + 40..][..8].fill(128);
        }
        let expected = StampError::Unclear { column: 5, row: 2, value: 128 };
        assert_eq!(read_luma(&luma, stride, 320, 240), Err(expected));
    }

    #[test]
    fn a_picture_without_a_stamp_is_an_error() {
        for value in [0, 128, 255] {
            assert!(read(640, 360, |_, _| value).is_err());
        }
    }

    #[test]
    fn time_keeps_its_low_56_bits() {
        let (luma, stride) = picture(320, 240, &Stamp { mono_us: u64::MAX, ..stamp() });
        assert_eq!(read_luma(&luma, stride, 320, 240).map(|read| read.mono_us), Ok(TIME_MASK));
    }

    #[test]
    fn packed_bgr_rows_read_by_their_green() {
        let (luma, stride) = picture(641, 359, &stamp());
        let rows: Vec<u8> = luma.chunks(stride).flat_map(|row| &row[..641]).flat_map(|&grey| [9, grey, 200]).collect();
        assert_eq!(read_bgr(&rows, 641 * 3, 641, 359), Ok(stamp()));
    }

    #[test]
    fn chroma_under_the_stamp_becomes_neutral_and_nothing_else() {
        let mut chroma = vec![7; 161 * 120];
        blank_chroma(&mut chroma, 161, 321, 240).expect("the picture is big enough");
        let first = |i: usize| i % 161 < 64 && i / 161 < 32;
        let second = |i: usize| (96..160).contains(&(i % 161)) && i / 161 >= 88;
        let inside = |i: usize| first(i) || second(i);
        assert!((0..chroma.len()).all(|i| chroma[i] == if inside(i) { 128 } else { 7 }));
    }

    #[test]
    fn pictures_too_small_or_cut_short_are_refused() {
        let small = StampError::TooSmall { width: 127, height: 64 };
        assert_eq!(paint(&mut [0; 127 * 64], 127, 127, 64, &stamp()), Err(small));
        let short = StampError::ShortRows { found: 128 * 64 - 1, expected: 128 * 64 };
        assert_eq!(paint(&mut [0; 128 * 64 - 1], 128, 128, 64, &stamp()), Err(short));
        assert_eq!(read_luma(&[0; 128 * 64 - 1], 128, 128, 64), Err(short));
        assert!(read_bgr(&[0; 3 * 128 * 64], 3 * 127, 128, 64).is_err());
        assert!(matches!(read_luma(&[], 0, 128, 64), Err(StampError::ShortRows { .. })));
    }
}
