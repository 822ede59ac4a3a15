//! Where the camera's picture goes in an output: which part of it, how large, and what is left around it.

use camring_ring::frame::Fit;
use thiserror::Error;

use crate::source::Rect;

/// What an output shows of the camera's picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct View {
    /// Part of the picture, before everything else; `None` = all of it.
    pub region: Option<Rect>,
    /// How large the frames are.
    pub size: Size,
    /// How the picture is made to fit [`Size::Exactly`].
    pub fit: Fit,
}

/// How large frames are, in pixels (width, height).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Size {
    /// As the camera sends them.
    #[default]
    Source,
    /// As the camera sends them where that fits; a larger one gets the largest even size within, its aspect kept.
    Within(u32, u32),
    /// Always this size.
    Exactly(u32, u32),
}

impl Default for View {
    fn default() -> Self {
        Self { region: None, size: Size::Source, fit: Fit::None }
    }
}

/// Why a picture has no place.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PlacementError {
    /// The region begins outside the picture.
    #[error("the region {}x{} at {},{} is outside the camera's picture of {width}x{height}; change region", region.width, region.height, region.x, region.y)]
    Outside {
        /// The region.
        region: Rect,
        /// Pixels in a row of the picture.
        width: u32,
        /// Rows of the picture.
        height: u32,
    },
    /// The picture has no pixel.
    #[error("the decoder delivered a picture of {0}x{1}; both sides must be at least 1")]
    Empty(u32, u32),
}

/// Where one size of picture goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Placement {
    /// The pixels of the camera's picture that are shown; begins at even numbers.
    pub part: Rect,
    /// Where they are shown; begins at even numbers.
    pub content: Rect,
    /// Width and height of the frame; what is not content is padding.
    pub size: (u32, u32),
    /// How it was made to fit.
    pub fit: Fit,
}

impl View {
    /// The place of a picture of `source` pixels; `step` is the number of rows whose multiples a part may begin at (2, or
    /// 4 for woven fields).
    ///
    /// # Errors
    ///
    /// [`PlacementError::Outside`]; a region that only ends outside is cut.
    pub fn place(&self, source: (u32, u32), step: u32) -> Result<Placement, PlacementError> {
        let (width, height) = source;
        if width == 0 || height == 0 {
            return Err(PlacementError::Empty(width, height));
        }
        let whole = Rect { x: 0, y: 0, width, height };
        let part = match self.region {
            None => whole,
            Some(region) => {
                let (x, y) = (region.x & !1, region.y / step * step);
                if x >= width || y >= height || region.width == 0 || region.height == 0 {
                    return Err(PlacementError::Outside { region, width, height });
                }
                Rect { x, y, width: region.width.min(width - x), height: region.height.min(height - y) }
            }
        };
        Ok(self.shown(part, step))
    }

    fn shown(&self, part: Rect, step: u32) -> Placement {
        let filled = |part: Rect, size: (u32, u32), fit| Placement {
            part,
            content: Rect { x: 0, y: 0, width: size.0, height: size.1 },
            size,
            fit: if (part.width, part.height) == size { Fit::None } else { fit },
        };
        match (self.size, self.fit) {
            (Size::Source, _) => filled(part, (part.width, part.height), Fit::None),
            (Size::Within(width, height), _) => filled(part, within((width, height), part), Fit::None),
            (Size::Exactly(width, height), Fit::Crop) => {
                filled(cut(part, (width, height), step), (width, height), Fit::Crop)
            }
            (Size::Exactly(width, height), Fit::Letterbox) => letterboxed(part, (width, height)),
            (Size::Exactly(width, height), fit) => filled(part, (width, height), fit),
        }
    }
}

/// The largest even size within `most` that has the aspect of `part` to the pixel, at least 2x2; its own when it fits.
fn within(most: (u32, u32), part: Rect) -> (u32, u32) {
    if part.width <= most.0 && part.height <= most.1 {
        return (part.width, part.height);
    }
    let [width, height, wide, high] = [part.width, part.height, most.0, most.1].map(u64::from);
    let even = |pixels: u64| u32::try_from(pixels & !1).unwrap_or(u32::MAX).max(2);
    if wide * height <= high * width {
        (even(wide), even(height * wide / width))
    } else {
        (even(width * high / height), even(high))
    }
}

/// `a * b / c`, rounded to the nearest even number between 2 and `most`; `most` itself where that is less.
fn even_share(a: u32, b: u32, c: u32, most: u32) -> u32 {
    let [a, b, c] = [a, b, c].map(u64::from);
    let even = (a * b + c) / (2 * c) * 2;
    u32::try_from(even).unwrap_or(u32::MAX).max(2).min(most)
}

/// The middle of `part` that has the aspect of `size`.
fn cut(part: Rect, size: (u32, u32), step: u32) -> Rect {
    let [width, height, wide, high] = [part.width, part.height, size.0, size.1].map(u64::from);
    if width * high > height * wide {
        let kept = even_share(part.height, size.0, size.1, part.width);
        Rect { x: part.x + (((part.width - kept) / 2) & !1), width: kept, ..part }
    } else {
        let kept = even_share(part.width, size.1, size.0, part.height);
        Rect { y: part.y + (part.height - kept) / 2 / step * step, height: kept, ..part }
    }
}

/// All of `part` in the middle of a frame of `size`.
fn letterboxed(part: Rect, size: (u32, u32)) -> Placement {
    let [width, height, wide, high] = [part.width, part.height, size.0, size.1].map(u64::from);
    let (width, height) = if wide * height <= high * width {
        (size.0, even_share(part.height, size.0, part.width, size.1))
    } else {
        (even_share(part.width, size.1, part.height, size.0), size.1)
    };
    let content = Rect { x: ((size.0 - width) / 2) & !1, y: ((size.1 - height) / 2) & !1, width, height };
    let same = (part.width, part.height) == size;
    Placement { part, content, size, fit: if same { Fit::None } else { Fit::Letterbox } }
}

impl Placement {
    /// Output pixels per pixel of the camera's picture, x and y.
    #[must_use]
    pub fn scale(&self) -> (f32, f32) {
        let scale = |to: u32, from: u32| (f64::from(to) / f64::from(from)) as f32;
        (scale(self.content.width, self.part.width), scale(self.content.height, self.part.height))
    }

    /// `x_out = x_source * scale + offset`, x and y.
    #[must_use]
    pub fn offset(&self) -> (f32, f32) {
        let offset = |at: u32, to: u32, from: u32, first: u32| {
            (f64::from(at) - f64::from(first) * f64::from(to) / f64::from(from)) as f32
        };
        let Self { part, content, .. } = *self;
        (offset(content.x, content.width, part.width, part.x), offset(content.y, content.height, part.height, part.y))
    }

    /// Whether the picture has another size in the frame than the camera gave it.
    #[must_use]
    pub fn is_scaled(&self) -> bool {
        (self.part.width, self.part.height) != (self.content.width, self.content.height)
    }

    /// Whether there is padding.
    #[must_use]
    pub fn is_padded(&self) -> bool {
        (self.content.width, self.content.height) != self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(size: Size, fit: Fit) -> View {
        View { region: None, size, fit }
    }

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    #[test]
    fn larger_pictures_fit_into_the_limit_with_their_aspect_and_smaller_ones_stay() {
        let size =
            |most: (u32, u32), source| view(Size::Within(most.0, most.1), Fit::None).place(source, 2).unwrap().size;
        let cases = [
            ((1280, 720), (640, 360)),
            ((640, 360), (640, 360)),
            ((639, 479), (639, 479)),
            ((1080, 1920), (270, 480)),
            ((641, 479), (640, 478)),
            ((640, 481), (638, 480)),
            ((16384, 16), (640, 2)),
            ((16, 16384), (2, 480)),
        ];
        for (source, expected) in cases {
            assert_eq!(size((640, 480), source), expected, "{source:?}");
        }
        assert_eq!(View::default().place((7680, 4320), 2).unwrap().size, (7680, 4320));
        assert_eq!(size((17, 17), (100, 100)), (16, 16));
    }

    #[test]
    fn no_frame_exceeds_its_limit_and_no_part_its_picture() {
        for limit in [(16, 16), (17, 31), (640, 480), (16384, 16384)] {
            for width in (1..3000).step_by(37) {
                for height in (1..3000).step_by(41) {
                    for (size, fit) in [
                        (Size::Within(limit.0, limit.1), Fit::None),
                        (Size::Exactly(limit.0, limit.1), Fit::Letterbox),
                        (Size::Exactly(limit.0, limit.1), Fit::Crop),
                        (Size::Exactly(limit.0, limit.1), Fit::Stretch),
                    ] {
                        let placed = view(size, fit).place((width, height), 4).unwrap();
                        let what = format!("{width}x{height} in {limit:?} {fit}: {placed:?}");
                        let Placement { part, content, size, .. } = placed;
                        assert!(size.0 <= limit.0 && size.1 <= limit.1, "{what}");
                        assert!(part.width > 0 && part.height > 0 && content.width > 0 && content.height > 0, "{what}");
                        assert!(part.x + part.width <= width && part.y + part.height <= height, "{what}");
                        assert!(content.x + content.width <= size.0 && content.y + content.height <= size.1, "{what}");
                        let places = [part.x, part.y / 2, content.x, content.y];
                        assert!(places.iter().all(|place| place.is_multiple_of(2)), "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_letterbox_shows_everything_in_the_middle() {
        let square = view(Size::Exactly(640, 640), Fit::Letterbox);
        let wide = square.place((1920, 1080), 2).unwrap();
        assert_eq!((wide.part, wide.content), (rect(0, 0, 1920, 1080), rect(0, 140, 640, 360)));
        let tall = square.place((1080, 1920), 2).unwrap();
        assert_eq!(tall.content, rect(140, 0, 360, 640));
        let small = square.place((320, 180), 2).unwrap();
        assert_eq!((small.content, small.is_scaled()), (rect(0, 140, 640, 360), true));
        let same = square.place((640, 640), 2).unwrap();
        assert_eq!((same.fit, same.is_scaled(), same.is_padded()), (Fit::None, false, false));
        let odd = view(Size::Exactly(641, 641), Fit::Letterbox).place((1366, 768), 2).unwrap();
        assert_eq!(odd.content, rect(0, 140, 641, 360));
    }

    #[test]
    fn a_crop_fills_the_frame_with_the_middle() {
        let square = view(Size::Exactly(640, 640), Fit::Crop);
        let wide = square.place((1920, 1080), 2).unwrap();
        assert_eq!((wide.part, wide.content), (rect(420, 0, 1080, 1080), rect(0, 0, 640, 640)));
        assert_eq!(square.place((1080, 1920), 4).unwrap().part, rect(0, 420, 1080, 1080));
    }

    #[test]
    fn points_come_back_from_every_view_to_where_they_were() {
        let regions =
            [None, Some(rect(0, 0, 1920, 1080)), Some(rect(101, 57, 640, 480)), Some(rect(1800, 900, 400, 400))];
        for (region, fit) in
            regions.into_iter().flat_map(|region| [Fit::Letterbox, Fit::Stretch, Fit::Crop].map(|fit| (region, fit)))
        {
            for size in [Size::Source, Size::Within(700, 700), Size::Exactly(640, 640), Size::Exactly(321, 199)] {
                let placed = View { region, size, fit }.place((1920, 1080), 2).unwrap();
                let Placement { part, content, .. } = placed;
                let ((scale_x, scale_y), (offset_x, offset_y)) = (placed.scale(), placed.offset());
                for (out, source) in [
                    ((content.x, content.y), (part.x, part.y)),
                    (
                        (content.x + content.width, content.y + content.height),
                        (part.x + part.width, part.y + part.height),
                    ),
                ] {
                    let x = (f64::from(out.0) - f64::from(offset_x)) / f64::from(scale_x);
                    let y = (f64::from(out.1) - f64::from(offset_y)) / f64::from(scale_y);
                    let off = (x - f64::from(source.0)).abs().max((y - f64::from(source.1)).abs());
                    assert!(off < 0.01, "{region:?} {fit} {size:?}: {off}");
                }
            }
        }
    }

    #[test]
    fn a_region_is_cut_at_the_picture_and_refused_outside_it() {
        let region = |x, y| View { region: Some(rect(x, y, 200, 200)), ..View::default() };
        assert_eq!(region(101, 33).place((320, 240), 2).unwrap().part, rect(100, 32, 200, 200));
        assert_eq!(region(101, 33).place((320, 240), 4).unwrap().part, rect(100, 32, 200, 200));
        assert_eq!(region(200, 100).place((320, 240), 2).unwrap().size, (120, 140));
        let error = region(320, 0).place((320, 240), 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the region 200x200 at 320,0 is outside the camera's picture of 320x240; change region"
        );
    }
}
