//! Padding: what lies around a picture that does not fill its frame, and which slots of a ring have theirs already.
//!
//! Half of a letterboxed frame may be padding, and it is the same in every frame: it is painted when a slot gets its first
//! frame of a kind, and stays. What is remembered is this process's own doing alone: a ring that was adopted, a new
//! generation, another place or size, a picture that could not be painted to its end all begin without a memory.

use camring_ring::{Generation, Geometry, PixelFormat};

use crate::paint::{Normalize, sample_of};
use crate::placement::Placement;
use crate::source::Rect;

/// The gray of padding, on the scale of 0 to 255; what detectors are trained with.
pub(crate) const PAD: u8 = 114;
/// Chroma of every gray.
pub(crate) const NEUTRAL: u8 = 128;
/// For so many frames a slot's padding is believed to be there. A program that writes into rings, which our rules forbid,
/// then harms some frames and not all that follow.
const BELIEVED: u32 = 64;

/// The padding colour as the metadata has it, in pixel order.
#[must_use]
pub fn pad_color(format: PixelFormat) -> [u8; 4] {
    match format {
        PixelFormat::Gray => [PAD, 0, 0, 0],
        PixelFormat::I420 | PixelFormat::Nv12 => [PAD, NEUTRAL, NEUTRAL, 0],
        _ => [PAD, PAD, PAD, 0],
    }
}

/// Everything that the bytes of a frame's padding follow from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surround {
    geometry: Geometry,
    content: Rect,
    normalize: Normalize,
}

impl Surround {
    /// The padding of frames of this geometry with the picture in this place.
    #[must_use]
    pub fn new(geometry: &Geometry, placement: &Placement, normalize: &Normalize) -> Self {
        Self { geometry: *geometry, content: placement.content, normalize: *normalize }
    }

    /// Paints it.
    pub(crate) fn paint(&self, dst: &mut [u8]) {
        let Self { geometry, content, normalize } = self;
        for plane in 0..geometry.plane_count as usize {
            let Some((row_bytes, rows)) = geometry.plane_extent(plane) else { continue };
            let (row_bytes, rows) = (row_bytes as usize, rows as usize);
            let (sample, shared) = sample_of(geometry.format, plane);
            let (stride, start) = (geometry.plane_strides[plane] as usize, geometry.plane_offsets[plane] as usize);
            let (first, left) = (content.y as usize / shared, content.x as usize / shared * sample);
            let last = first + (content.height as usize).div_ceil(shared);
            let right = left + (content.width as usize).div_ceil(shared) * sample;
            for row in 0..rows {
                let bytes = &mut dst[start + row * stride..][..row_bytes];
                let (before, after) = if (first..last).contains(&row) { (left, right) } else { (row_bytes, row_bytes) };
                let chroma = plane > 0 && geometry.format != PixelFormat::RgbPlanarF32;
                for edge in [0..before, after.min(row_bytes)..row_bytes] {
                    if geometry.format == PixelFormat::RgbPlanarF32 {
                        let value = f32::from(PAD) * normalize.scale[plane] + normalize.offset[plane];
                        bytes[edge].as_chunks_mut::<4>().0.fill(value.to_ne_bytes());
                    } else {
                        bytes[edge].fill(if chroma { NEUTRAL } else { PAD });
                    }
                }
            }
        }
    }
}

/// Which slots of one ring have their padding from an earlier frame.
#[derive(Debug, Default)]
pub struct Padded {
    generation: Generation,
    /// What each slot has around its picture, and for how many frames more that is believed.
    slots: Vec<Option<(Surround, u32)>>,
}

impl Padded {
    /// For how many frames the slot is believed to have this padding; 0 = it is to be painted.
    ///
    /// From now on it counts as having none, until [`Padded::keep`] says that a frame was painted to its end.
    pub fn take(&mut self, (generation, slot): (Generation, u32), surround: &Surround) -> u32 {
        if generation != self.generation {
            self.generation = generation;
            self.slots.clear();
        }
        match self.slots.get_mut(slot as usize).and_then(Option::take) {
            Some((painted, frames)) if painted == *surround => frames,
            _ => 0,
        }
    }

    /// Remembers what is in the slot of the newest [`Padded::take`], which answered `frames`.
    pub fn keep(&mut self, (_, slot): (Generation, u32), surround: Surround, frames: u32) {
        let slot = slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize((slot + 1).next_power_of_two(), None);
        }
        self.slots[slot] = Some((surround, frames.checked_sub(1).unwrap_or(BELIEVED)));
    }
}

#[cfg(test)]
mod tests {
    use camring_ring::Fit;

    use super::*;
    use crate::placement::{Size, View};

    const FIRST: Generation = Generation([1; 16]);
    const SECOND: Generation = Generation([2; 16]);

    fn surround(size: (u32, u32), source: (u32, u32), normalize: Normalize) -> Surround {
        let view = View { region: None, size: Size::Exactly(size.0, size.1), fit: Fit::Letterbox };
        let placement = view.place(source, 2).unwrap();
        let geometry = Geometry::packed(size.0, size.1, PixelFormat::RgbPlanarF32).unwrap();
        Surround::new(&geometry, &placement, &normalize)
    }

    #[test]
    fn padding_is_painted_anew_wherever_another_frame_may_have_been() {
        let usual = surround((64, 64), (160, 90), Normalize::default());
        let others = [
            surround((64, 64), (90, 160), Normalize::default()),
            surround((64, 64), (64, 64), Normalize::default()),
            surround((128, 32), (160, 90), Normalize::default()),
            surround((64, 64), (160, 90), Normalize::of([0.5; 3], [0.2; 3])),
        ];
        let mut padded = Padded::default();
        let mut frame = |place, surround: &Surround| {
            let frames = padded.take(place, surround);
            padded.keep(place, *surround, frames);
            frames > 0
        };
        assert_eq!([0, 1, 0, 1, 5].map(|slot| frame((FIRST, slot), &usual)), [false, false, true, true, false]);
        for other in &others {
            let seen = [&usual, other, other, &usual, &usual].map(|surround| frame((FIRST, 0), surround));
            assert_eq!(seen, [true, false, true, false, true], "{other:?}");
        }
        assert_eq!([0, 0, 1].map(|slot| frame((SECOND, slot), &usual)), [false, true, false], "a new generation");
        assert!(!frame((FIRST, 1), &usual), "an older one, whose memory is gone");
    }

    #[test]
    fn a_frame_that_was_not_painted_to_its_end_is_forgotten() {
        let usual = surround((64, 64), (160, 90), Normalize::default());
        let mut padded = Padded::default();
        assert_eq!(padded.take((FIRST, 0), &usual), 0, "the first frame");
        padded.keep((FIRST, 0), usual, 0);
        assert!(padded.take((FIRST, 0), &usual) > 0, "it was painted to its end");
        assert_eq!(padded.take((FIRST, 0), &usual), 0, "the one before this was not");
    }

    #[test]
    fn padding_is_painted_anew_now_and_then_whatever_is_remembered() {
        let usual = surround((64, 64), (160, 90), Normalize::default());
        let mut padded = Padded::default();
        let painted = (0..300).filter(|_| {
            let frames = padded.take((FIRST, 3), &usual);
            padded.keep((FIRST, 3), usual, frames);
            frames == 0
        });
        assert_eq!(painted.count(), 300_usize.div_ceil(BELIEVED as usize + 1));
    }
}
