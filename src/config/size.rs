//! Sizes: of a frame in pixels, of a ring in bytes, of the memory mount that must hold it.

use std::fmt;
use std::path::PathBuf;

use camring_ring::Writer;
use camring_ring::frame::{Geometry, PixelFormat};
use camring_ring::layout::{SLOTS_MAX, SLOTS_MIN};
pub use camring_ring::mebibytes;

/// The longest side of a frame, in pixels.
pub const SIDE_MAX: u32 = 16_384;
/// The shortest side of a frame, in pixels.
pub const SIDE_MIN: u32 = 16;

/// Width and height of a frame in pixels.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FrameSize {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl FrameSize {
    /// Reads `"1920x1080"`.
    ///
    /// # Errors
    ///
    /// One sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (width, height) = text.split_once('x').ok_or("it is not width, x and height")?;
        let side = |name: &str, digits: &str| match digits.parse::<u32>() {
            Ok(side) if (SIDE_MIN..=SIDE_MAX).contains(&side) => Ok(side),
            Ok(side) => Err(format!("{name} {side} is not between {SIDE_MIN} and {SIDE_MAX}")),
            Err(_) => Err(format!("{name} is not a whole number of pixels")),
        };
        Ok(Self { width: side("width", width)?, height: side("height", height)? })
    }

    /// Bytes of one frame of a format of the configuration.
    #[must_use]
    pub fn bytes(self, format: PixelFormat) -> u64 {
        let geometry = Geometry::packed(self.width, self.height, format);
        geometry.expect("the longest sides make planes of 1 GiB, and every format here is a picture").len
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Bytes of the file of a ring with `slots` slots for frames of `size` and `format`.
///
/// A number of slots that makes no ring, which is a mistake reported by itself, counts as the nearest that does.
#[must_use]
pub fn ring_bytes(size: FrameSize, format: PixelFormat, slots: u32) -> u64 {
    let slots = slots.clamp(SLOTS_MIN, SLOTS_MAX);
    Writer::format_bytes(slots, size.bytes(format)).expect("the longest sides make less than 1 TiB in all")
}

/// How much room the memory mount has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountRoom {
    /// Where it is.
    pub path: PathBuf,
    /// All of it, used or not; `u64::MAX` for a mount without a limit.
    pub total_bytes: u64,
}

impl MountRoom {
    /// Asks the kernel about the file system that holds `path`; `None` when it cannot be asked.
    #[must_use]
    pub fn of(path: &std::path::Path) -> Option<Self> {
        let room = rustix::fs::statvfs(path).ok()?;
        // A tmpfs mounted with size=0 has no limit and says 0.
        let total_bytes = match room.f_blocks.saturating_mul(room.f_frsize) {
            0 => u64::MAX,
            bytes => bytes,
        };
        Some(Self { path: path.to_owned(), total_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: FrameSize = FrameSize { width: 1920, height: 1080 };

    #[test]
    fn sizes_are_read_and_written_alike() {
        assert_eq!(FrameSize::parse("1920x1080"), Ok(HD));
        assert_eq!(HD.to_string(), "1920x1080");
    }

    #[test]
    fn a_bad_size_says_why() {
        assert_eq!(FrameSize::parse("1080p"), Err("it is not width, x and height".to_owned()));
        assert_eq!(FrameSize::parse("1920x"), Err("height is not a whole number of pixels".to_owned()));
        assert_eq!(FrameSize::parse("0x1080"), Err("width 0 is not between 16 and 16384".to_owned()));
        assert_eq!(FrameSize::parse("1920x99999"), Err("height 99999 is not between 16 and 16384".to_owned()));
        assert!(FrameSize::parse("-1x1080").is_err());
        assert!(FrameSize::parse("1920 x 1080").is_err());
    }

    #[test]
    fn a_ring_is_as_large_as_its_layout_says() {
        let ring_bytes = |size, slots| ring_bytes(size, PixelFormat::Bgr, slots);
        assert_eq!(ring_bytes(HD, 8), (2 << 20) + 8 * 6_225_920);
        assert_eq!(ring_bytes(FrameSize { width: 640, height: 360 }, 8), (64 << 10) + 8 * 720_896);
        let tiny = FrameSize { width: 16, height: 16 };
        assert_eq!(ring_bytes(tiny, 256), (2 << 20) + 256 * 65_536);
        assert_eq!(ring_bytes(tiny, 250), (128 << 10) + 250 * 65_536);
        let huge = FrameSize { width: SIDE_MAX, height: SIDE_MAX };
        assert_eq!(ring_bytes(huge, 256), (2 << 20) + 256 * 3 * (1 << 28));
    }

    #[test]
    fn a_frame_has_the_bytes_of_its_format() {
        let bytes = |format| FrameSize { width: 33, height: 17 }.bytes(format);
        assert_eq!([PixelFormat::Bgr, PixelFormat::Rgb, PixelFormat::Gray].map(bytes), [1683, 1683, 561]);
        assert_eq!([PixelFormat::I420, PixelFormat::Nv12].map(bytes), [561 + 2 * 153; 2]);
        assert_eq!(bytes(PixelFormat::RgbPlanarF32), 33 * 17 * 12);
    }

    #[test]
    fn bytes_are_rounded_to_tenths() {
        assert_eq!(mebibytes(8 * 6_225_920), "47.5 MiB");
        assert_eq!(mebibytes(0), "0.0 MiB");
    }
}
