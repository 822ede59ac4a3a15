//! P11: a second, smaller output of a picture, against converting the picture whole.

use std::time::Instant;

use camring::paint::{Normalize, Painter};
use camring::placement::{Size, View};
use camring::source::{FrameRef, FrameTiming, Plane, SourceLayout};
use camring_ring::frame::{Fit, FrameFlags, Geometry, PixelFormat};

use crate::figures::{Bar, Line, median};
use crate::{NoFallback, PICTURES, SLOTS, USUAL};

/// Pictures of one size, and what makes outputs of them.
struct Second {
    size: (u32, u32),
    sources: Vec<Vec<u8>>,
    painter: Painter,
}

impl Second {
    fn new(size: (u32, u32)) -> Self {
        let mut random = fastrand::Rng::with_seed(2);
        let bytes = (size.0 * size.1) as usize * 3 / 2;
        let sources =
            (0..SLOTS).map(|_| std::iter::repeat_with(|| random.u8(16..=235)).take(bytes).collect()).collect();
        Self { size, sources, painter: Painter::default() }
    }

    /// Milliseconds per picture of one round into frames of this view and format.
    fn round(&mut self, view: View, format: PixelFormat, slots: &mut [Vec<u8>]) -> f64 {
        let Self { size: (width, height), sources, painter } = self;
        let (luma, half) = ((*width * *height) as usize, *width / 2);
        let placement = view.place((*width, *height), 2).expect("it has a place");
        let geometry = Geometry::packed(placement.size.0, placement.size.1, format).expect("a picture");
        let began = Instant::now();
        for picture in 0..PICTURES {
            let (y, chroma) = sources[picture % SLOTS].split_at(luma);
            let (u, v) = chroma.split_at(luma / 4);
            let planes = [(y, *width), (u, half), (v, half)].map(|(bytes, stride)| Plane { bytes, stride });
            let frame = FrameRef {
                width: *width,
                height: *height,
                layout: SourceLayout::I420,
                planes: &planes,
                color: USUAL,
                pixel_aspect: (1, 1),
                timing: FrameTiming::default(),
                flags: FrameFlags::default(),
                lost_before: 0,
                fallback: &NoFallback,
            };
            let slot = &mut slots[picture % SLOTS];
            painter.paint(&frame, &placement, &geometry, &Normalize::default(), slot).expect("it is painted");
        }
        began.elapsed().as_secs_f64() * 1e3 / PICTURES as f64
    }
}

/// The lines of pictures of `size`, letterboxed into `fitted`.
pub fn lines(size: (u32, u32), fitted: (u32, u32), rounds: usize) -> Vec<Line> {
    let mut second = Second::new(size);
    let mut slots = vec![vec![1; (size.0 * size.1 * 3) as usize]; SLOTS];
    let view = View { region: None, size: Size::Exactly(fitted.0, fitted.1), fit: Fit::Letterbox };
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        times[0].push(second.round(View::default(), PixelFormat::Bgr, &mut slots));
        times[1].push(second.round(view, PixelFormat::Bgr, &mut slots));
        times[2].push(second.round(view, PixelFormat::RgbPlanarF32, &mut slots));
    }
    let [whole, packed, floats] = times.map(median);
    let line = |format: &str, ours| Line {
        goal: "P11",
        group: "convert",
        what: format!("{}x{} of {}x{}, letterboxed, {format}", fitted.0, fitted.1, size.0, size.1),
        unit: "ms",
        ours,
        beside: Some(whole),
        beside_is: "all of it to bgr",
        bar: Bar::Times(0.8),
    };
    vec![line("bgr", packed), line("floats", floats)]
}
