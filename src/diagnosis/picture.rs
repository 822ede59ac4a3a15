//! What a few pixels of a few pictures tell: black, of one colour, or one and the same picture all the time.

use camring_ring::frame::{FrameMeta, PixelFormat};

use super::Finding;
use crate::report::Span;

/// Pixels looked at, across and down.
const ACROSS: u32 = 96;
const DOWN: u32 = 54;
/// A pixel whose channels are all below this is black.
const DARK: u8 = 26;
/// This part of the pixels decides.
const MOST: f64 = 0.7;
/// How far a channel may be from the median and still be the same colour.
const NEAR: u8 = 12;
/// A pixel that changes by more than this has moved: an encoder that codes one picture anew changes it by less.
const MOVED: u8 = 30;
/// So many samples in a thousand may do so and nothing has moved.
const MOVED_PER_MILLE: usize = 1;
/// Two pictures that differ by less than this on average are the same one; a sensor's noise is more.
const IDENTICAL: f64 = 0.05;
/// For so long must they be the same, ns; and so many.
const STILL_NS: i64 = 1_500_000_000;
const STILL_PICTURES: u32 = 5;

/// What was seen in the pictures of one ring.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    first: Option<(i64, Vec<[u8; 3]>)>,
    newest: Vec<[u8; 3]>,
    newest_ns: i64,
    pictures: u32,
    moved: bool,
    /// Two of them in a row were equal.
    repeated: bool,
}

impl Sight {
    /// Looks at one more picture; formats without plain bytes are left out.
    pub fn look(&mut self, meta: &FrameMeta, pixels: &[u8]) {
        let Some(samples) = sample(meta, pixels) else { return };
        match &self.first {
            Some((_, first)) if first.len() == samples.len() => {
                self.moved |= has_moved(first, &samples);
                self.repeated |= difference(&self.newest, &samples) < IDENTICAL;
                self.pictures += 1;
            }
            _ => {
                self.first = Some((meta.arrival_mono_ns, samples.clone()));
                (self.pictures, self.moved, self.repeated) = (1, false, false);
            }
        }
        (self.newest, self.newest_ns) = (samples, meta.arrival_mono_ns);
    }

    /// What is wrong with the pictures.
    pub(super) fn finding(&self) -> Option<Finding> {
        if self.newest.is_empty() {
            return None;
        }
        self.flat().or_else(|| self.still())
    }

    fn flat(&self) -> Option<Finding> {
        let part = |is: &dyn Fn(&[u8; 3]) -> bool| {
            self.newest.iter().filter(|sample| is(sample)).count() as f64 / self.newest.len() as f64
        };
        if part(&|sample| sample.iter().all(|value| *value < DARK)) >= MOST {
            return Some(Finding::warn(
                "black",
                "frames come and the picture is black",
                "lens cap, night without infrared light, a dead sensor: look at the camera's own page",
            ));
        }
        let colour = self.median();
        let near = |sample: &[u8; 3]| sample.iter().zip(colour).all(|(value, of)| value.abs_diff(of) <= NEAR);
        (part(&near) >= MOST).then(|| {
            let [r, g, b] = colour;
            let name = if g > 80 && r < 60 && b < 60 { "green" } else { "of one colour" };
            Finding::warn(
                "one_colour",
                format!("frames come and the picture is {name} (red {r}, green {g}, blue {b})"),
                "the camera's own encoder or sensor has failed: restart the camera; a wall in front of the lens looks the same",
            )
        })
    }

    fn still(&self) -> Option<Finding> {
        let since_ns = self.newest_ns - self.first.as_ref()?.0;
        let still = !self.moved && self.repeated && self.pictures >= STILL_PICTURES && since_ns >= STILL_NS;
        still.then(|| {
            let span = Span(since_ns as f64 / 1e6);
            Finding::warn(
                "frozen",
                format!("{} frames came in {span} and all show the same picture: a camera that is frozen, or a scene in which nothing moves", self.pictures),
                "look whether the camera's own page moves; restart the camera if not; frozen_after = \"30s\" watches for it all the time",
            )
        })
    }

    fn median(&self) -> [u8; 3] {
        std::array::from_fn(|channel| {
            let mut values: Vec<u8> = self.newest.iter().map(|sample| sample[channel]).collect();
            values.sort_unstable();
            values[values.len() / 2]
        })
    }
}

fn has_moved(a: &[[u8; 3]], b: &[[u8; 3]]) -> bool {
    let channels = a.iter().flatten().zip(b.iter().flatten());
    channels.filter(|(a, b)| a.abs_diff(**b) > MOVED).count() * 1000 > a.len() * 3 * MOVED_PER_MILLE
}

fn difference(a: &[[u8; 3]], b: &[[u8; 3]]) -> f64 {
    let sum: u64 = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / (a.len() * 3) as f64
}

/// Pixels at even distances, as red, green, blue; luma alone counts for all three.
fn sample(meta: &FrameMeta, pixels: &[u8]) -> Option<Vec<[u8; 3]>> {
    let geometry = &meta.geometry;
    let (bytes, order): (usize, [usize; 3]) = match geometry.format {
        PixelFormat::Bgr => (3, [2, 1, 0]),
        PixelFormat::Rgb => (3, [0, 1, 2]),
        PixelFormat::Bgra => (4, [2, 1, 0]),
        PixelFormat::Rgba => (4, [0, 1, 2]),
        PixelFormat::Gray | PixelFormat::I420 | PixelFormat::Nv12 => (1, [0, 0, 0]),
        _ => return None,
    };
    let (stride, start) = (geometry.plane_strides[0] as usize, geometry.plane_offsets[0] as usize);
    let (across, down) = (ACROSS.min(geometry.width), DOWN.min(geometry.height));
    let at = |row: u32, column: u32| {
        let (x, y) = (column * geometry.width / across, row * geometry.height / down);
        let place = start + y as usize * stride + x as usize * bytes;
        let pixel = pixels.get(place..place + bytes)?;
        Some(order.map(|channel| pixel[channel]))
    };
    (0..down)
        .flat_map(|row| (0..across).map(move |column| (row, column)))
        .map(|(row, column)| at(row, column))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use camring_ring::Geometry;

    fn seen(pictures: &[&dyn Fn(usize) -> u8]) -> Option<&'static str> {
        let mut sight = Sight::default();
        for (number, picture) in pictures.iter().enumerate() {
            let mut meta = FrameMeta::new(Geometry::packed(192, 108, PixelFormat::Bgr).expect("a size"));
            meta.arrival_mono_ns = number as i64 * 400_000_000;
            let pixels: Vec<u8> = (0..192 * 108 * 3).map(picture).collect();
            sight.look(&meta, &pixels);
        }
        sight.finding().map(|finding| finding.cause)
    }

    #[test]
    fn black_green_still_and_moving_pictures_are_told_apart() {
        let scene = |at: usize| (at * 37 % 251) as u8;
        let noise = |at: usize| scene(at).saturating_add((at % 7) as u8);
        let coded_anew = |at: usize| scene(at).saturating_add((at % 2) as u8);
        let moving = |at: usize| if at % 100 < 2 { 255 - scene(at) } else { scene(at) };
        assert_eq!(seen(&[&|_| 3]), Some("black"));
        assert_eq!(seen(&[&|at| [0, 135, 0][at % 3]]), Some("one_colour"));
        let still: &dyn Fn(usize) -> u8 = &scene;
        assert_eq!(seen(&[still; 6]), Some("frozen"));
        assert_eq!(seen(&[still; 3]), None, "too short a time to tell");
        assert_eq!(seen(&[still, still, &coded_anew, &coded_anew, still, still]), Some("frozen"));
        assert_eq!(seen(&[&scene, &noise, &scene, &noise, &scene, &noise]), None, "a sensor's noise");
        assert_eq!(seen(&[still, still, still, still, still, &moving]), None);
    }

    #[test]
    fn pixels_that_are_not_there_are_not_read() {
        let meta = FrameMeta::new(Geometry::packed(192, 108, PixelFormat::Bgr).expect("a size"));
        assert!(sample(&meta, &[0; 100]).is_none());
    }
}
