//! The `clock` test pattern: the time of day in seven-segment digits, painted into the luma plane.
//!
//! Own segments instead of a text overlay: no fonts are needed on the machine.

use gst::glib;
use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};

const BLACK: u8 = 16;
const WHITE: u8 = 235;

/// Characters of `HH:MM:SS.mmm`.
const COLUMNS: usize = 12;

/// Segments of the digits 0 to 9; bits from 0: top, top right, bottom right, bottom, bottom left, top left, middle.
const SEGMENTS: [u8; 10] = [0x3f, 0x06, 0x5b, 0x4f, 0x66, 0x6d, 0x7d, 0x07, 0x7f, 0x6f];

/// Rectangle of each segment in a cell of 4 by 7 units: x, y, width, height.
const PLACES: [(usize, usize, usize, usize); 7] =
    [(0, 0, 3, 1), (2, 0, 1, 4), (2, 3, 1, 4), (0, 6, 3, 1), (0, 3, 1, 4), (0, 0, 1, 4), (0, 3, 3, 1)];

/// A luma plane.
struct Canvas<'a> {
    bytes: &'a mut [u8],
    stride: usize,
    width: usize,
    height: usize,
}

impl Canvas<'_> {
    /// Fills a rectangle, cut at the borders.
    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, value: u8) {
        let (left, right) = (x.min(self.width), (x + width).min(self.width));
        for row in y..(y + height).min(self.height) {
            let start = row * self.stride;
            if let Some(pixels) = self.bytes.get_mut(start + left..start + right) {
                pixels.fill(value);
            }
        }
    }

    /// Paints `text` (digits, colons and points) in white on a black band in the middle.
    fn write(&mut self, text: &[u8]) {
        let unit = (self.width / (COLUMNS * 4 + 2)).min(self.height / 9);
        if unit == 0 {
            return;
        }
        let left = (self.width - unit * (text.len() * 4 - 1)) / 2;
        let top = (self.height - unit * 7) / 2;
        self.fill(0, top - unit, self.width, unit * 9, BLACK);
        for (column, character) in text.iter().enumerate() {
            self.write_character(*character, left + column * 4 * unit, top, unit);
        }
    }

    fn write_character(&mut self, character: u8, left: usize, top: usize, unit: usize) {
        let mut block = |x: usize, y: usize, width: usize, height: usize| {
            self.fill(left + x * unit, top + y * unit, width * unit, height * unit, WHITE);
        };
        match character {
            b'0'..=b'9' => {
                let lit = SEGMENTS[usize::from(character - b'0')];
                let places = PLACES.iter().enumerate().filter(|(segment, _)| lit >> segment & 1 == 1);
                places.for_each(|(_, &(x, y, width, height))| block(x, y, width, height));
            }
            b':' => [2, 4].into_iter().for_each(|y| block(1, y, 1, 1)),
            _ => block(1, 6, 1, 1),
        }
    }
}

/// `HH:MM:SS.mmm`.
fn text(hour: i32, minute: i32, second: i32, millisecond: i32) -> [u8; COLUMNS] {
    let digit = |value: i32, place: i32| b'0' + u8::try_from(value / place % 10).unwrap_or(0);
    let mut text = *b"00:00:00.000";
    for (at, value) in [(0, hour), (3, minute), (6, second)] {
        text[at] = digit(value, 10);
        text[at + 1] = digit(value, 1);
    }
    for (at, place) in [(9, 100), (10, 10), (11, 1)] {
        text[at] = digit(millisecond, place);
    }
    text
}

/// Paints the local time of day into every I420 picture of `size` that passes `pad`.
pub(super) fn paint_clock(pad: &gst::Pad, size: (u32, u32)) {
    let Ok(info) = VideoInfo::builder(VideoFormat::I420, size.0, size.1).build() else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info_of_probe| {
        let now = glib::DateTime::now_local()
            .map(|now| text(now.hour(), now.minute(), now.second(), now.microsecond() / 1000));
        if let (Ok(now), Some(buffer)) = (now, info_of_probe.buffer_mut()) {
            paint(buffer.make_mut(), &info, &now);
        }
        gst::PadProbeReturn::Ok
    });
}

fn paint(buffer: &mut gst::BufferRef, info: &VideoInfo, text: &[u8]) {
    let Ok(mut picture) = VideoFrameRef::from_buffer_ref_writable(buffer, info) else { return };
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let stride = picture.plane_stride()[0].unsigned_abs() as usize;
    if let Ok(bytes) = picture.plane_data_mut(0) {
        Canvas { bytes, stride, width, height }.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(width: usize, height: usize, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![100; width * height];
        Canvas { bytes: &mut bytes, stride: width, width, height }.write(text);
        bytes
    }

    #[test]
    fn times_are_written_with_leading_zeros() {
        assert_eq!(&text(9, 5, 0, 42), b"09:05:00.042");
        assert_eq!(&text(23, 59, 60, 999), b"23:59:60.999");
    }

    #[test]
    fn every_time_looks_different_and_stays_in_the_middle() {
        let (width, height) = (100, 40);
        let one = painted(width, height, b"11:11:11.111");
        let two = painted(width, height, b"11:11:11.112");
        assert_ne!(one, two);
        assert!(one[..width].iter().all(|pixel| *pixel == 100), "the top row is left alone");
        assert!(one.contains(&WHITE) && one.contains(&BLACK));
    }

    #[test]
    fn pictures_too_small_for_digits_are_left_alone() {
        for (width, height) in [(1, 1), (49, 100), (200, 8)] {
            assert!(painted(width, height, b"00:00:00.000").iter().all(|pixel| *pixel == 100), "{width}x{height}");
        }
        painted(50, 9, b"88:88:88.888");
    }
}
