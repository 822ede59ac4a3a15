//! A stream's colour description, made complete: what is not said is decided here, by one rule.

use camring_ring::frame::Color;
use gst_video::{VideoColorMatrix, VideoColorRange, VideoColorimetry};

/// Highest picture that is taken for standard definition when the stream does not say.
const SD_HEIGHT: u32 = 576;

const UNSPECIFIED: u32 = 2;

/// The complete description of `colorimetry`; `rgb` for packed RGB, `full_range` for codecs that are so by definition.
///
/// Unspecified matrices are BT.601 up to 576 rows and BT.709 above, primaries and transfer follow the matrix, the
/// range is limited unless the codec says otherwise.
pub(super) fn describe(colorimetry: &VideoColorimetry, rgb: bool, height: u32, full_range: bool) -> Color {
    let matrix = match colorimetry.matrix() {
        _ if rgb => 0,
        VideoColorMatrix::Unknown | VideoColorMatrix::Rgb if height <= SD_HEIGHT => 6,
        VideoColorMatrix::Unknown | VideoColorMatrix::Rgb => 1,
        matrix => code(matrix.to_iso()).unwrap_or(2),
    };
    let (primaries, transfer) = match matrix {
        5 => (5, 6),
        6 => (6, 6),
        9 | 10 => (9, 14),
        0 => (1, 13),
        _ => (1, 1),
    };
    let full_range = match colorimetry.range() {
        VideoColorRange::Range0_255 => true,
        VideoColorRange::Range16_235 => false,
        _ => rgb || full_range,
    };
    Color {
        primaries: code(colorimetry.primaries().to_iso()).unwrap_or(primaries),
        transfer: code(colorimetry.transfer().to_iso()).unwrap_or(transfer),
        matrix,
        full_range: u8::from(full_range),
    }
}

fn code(iso: u32) -> Option<u8> {
    u8::try_from(iso).ok().filter(|_| iso != UNSPECIFIED && iso != 0)
}

#[cfg(test)]
mod tests {
    use gst_video::{VideoColorPrimaries, VideoTransferFunction};

    use super::*;

    fn color(primaries: u8, transfer: u8, matrix: u8, full_range: u8) -> Color {
        Color { primaries, transfer, matrix, full_range }
    }

    #[test]
    fn named_colorimetries_keep_their_meaning() {
        gst::init().expect("GStreamer");
        let of = |name: &str| describe(&name.parse().expect("a colorimetry"), false, 1080, false);
        assert_eq!(of("bt709"), color(1, 1, 1, 0));
        assert_eq!(of("bt601"), color(6, 6, 6, 0));
        assert_eq!(of("bt2020").matrix, 9);
        assert_eq!(of("1:3:5:1").full_range, 1);
    }

    #[test]
    fn what_is_not_said_is_decided_by_height_and_codec() {
        gst::init().expect("GStreamer");
        let unknown = VideoColorimetry::new(
            VideoColorRange::Unknown,
            VideoColorMatrix::Unknown,
            VideoTransferFunction::Unknown,
            VideoColorPrimaries::Unknown,
        );
        assert_eq!(describe(&unknown, false, 576, false), color(6, 6, 6, 0));
        assert_eq!(describe(&unknown, false, 577, false), color(1, 1, 1, 0));
        assert_eq!(describe(&unknown, false, 480, true), color(6, 6, 6, 1));
        assert_eq!(describe(&unknown, true, 480, false), color(1, 13, 0, 1));
    }
}
