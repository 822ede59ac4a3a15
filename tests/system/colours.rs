//! Whether a frame has the size, the layout, the stated colours and the colour bars of the simulated camera.

use camring::sim::picture::{Color, bars_rgb};
use camring::sim::{Size, stamp};
use camring_ring::{Frame, PixelFormat};

/// Fails unless the metadata describe a BGR picture of this size, coded in these colours.
pub fn assert_described(frame: &Frame, pixels: &[u8], size: Size, color: Color) {
    let geometry = &frame.meta.geometry;
    assert_eq!((geometry.width, geometry.height), (size.width, size.height));
    assert_eq!((geometry.format, geometry.plane_count), (PixelFormat::Bgr, 1));
    assert_eq!((geometry.plane_offsets[0], geometry.plane_strides[0]), (0, size.width * 3));
    assert_eq!(geometry.len, u64::from(size.width) * u64::from(size.height) * 3);
    assert_eq!(pixels.len() as u64, geometry.len);
    assert_eq!(frame.meta.source_size, (size.width, size.height));
    let matrix = if color == Color::Bt709 { &[1][..] } else { &[5, 6] };
    let stated = frame.meta.color;
    assert!(matrix.contains(&stated.matrix), "{stated:?} for a stream of {color:?}");
    assert_eq!(stated.full_range, u8::from(color == Color::Jpeg), "{stated:?} for a stream of {color:?}");
}

/// Whether one of the two stamps hides this pixel.
fn is_stamped((x, y): (usize, usize), size: Size) -> bool {
    let side = stamp::cell_side(size.width, size.height).unwrap();
    let (across, down) = ((stamp::COLUMNS * side) as usize, (stamp::ROWS * side) as usize);
    let (width, height) = (size.width as usize, size.height as usize);
    (x < across && y < down) || (x + 1 + across >= width && y + 1 + down >= height)
}

/// How far a colour may be from the painted one, of 255. A wrong matrix or range moves some by 10 and more.
pub const EXACT: u8 = 3;
/// The same where the encoder cannot be told to lose less, or bars are a few blocks wide.
pub const LOSSY: u8 = 6;

/// Samples the middle of every bar and compares with the documented colours; the stamps are where a picture of its size has them.
pub fn assert_bars_of(frame: &Frame, pixels: &[u8], tolerance: u8, what: &str) {
    let size = Size::new(frame.meta.geometry.width, frame.meta.geometry.height);
    let stride = frame.meta.geometry.plane_strides[0] as usize;
    let (width, height) = (size.width as usize, size.height as usize);
    let mut sampled = 0;
    for (row, bars) in [(height * 3 / 5, 7), (height * 17 / 24, 7), (height * 7 / 8, 8)] {
        let columns = (0..bars).map(|bar| (2 * bar + 1) * width / (2 * bars));
        for column in columns.filter(|column| !is_stamped((*column, row), size)) {
            let [red, green, blue] = bars_rgb((column, row), (width, height));
            let found = &pixels[row * stride + column * 3..][..3];
            let near =
                found.iter().zip([blue, green, red]).all(|(found, expected)| found.abs_diff(expected) <= tolerance);
            assert!(near, "{what} {size}: BGR at {column},{row} is {found:?}, not {:?}", [blue, green, red]);
            sampled += 1;
        }
    }
    assert!(sampled >= 16, "only {sampled} bars of {size} can be seen");
}
