//! P11: a second, smaller output of a picture, against converting the picture whole. P4: two threads against one.

use std::time::Instant;

use camring::padding::{Padded, Surround};
use camring::paint::{Canvas, Normalize, Painter, Threads};
use camring::placement::{Size, View};
use camring::source::{FrameRef, FrameTiming, Plane, SourceLayout};
use camring_ring::frame::{Fit, FrameFlags, Generation, Geometry, PixelFormat};

use crate::figures::{Bar, Line, cpu_ms, median};
use crate::{NoFallback, PICTURES, SLOTS, USUAL};

/// Pictures of one size, and the slots of a ring for what is made of them.
struct Second {
    size: (u32, u32),
    sources: Vec<Vec<u8>>,
    slots: Vec<Vec<u8>>,
}

/// One output: what its frames are, and what it keeps between them.
struct Output {
    view: View,
    format: PixelFormat,
    painter: Painter,
    padded: Padded,
}

impl Output {
    fn new(view: View, format: PixelFormat, threads: Threads) -> Self {
        Self { view, format, painter: Painter::new(threads), padded: Padded::default() }
    }
}

impl Second {
    fn new(size: (u32, u32)) -> Self {
        let mut random = fastrand::Rng::with_seed(2);
        let bytes = (size.0 * size.1) as usize * 3 / 2;
        let sources =
            (0..SLOTS).map(|_| std::iter::repeat_with(|| random.u8(16..=235)).take(bytes).collect()).collect();
        Self { size, sources, slots: vec![vec![1; (size.0 * size.1 * 3) as usize]; SLOTS] }
    }

    /// Milliseconds per picture of one round into frames of this output: processor time of this thread, and by the clock.
    ///
    /// Outputs share the slots here, so the first frame in each has its padding painted, and those that follow keep it.
    fn round(&mut self, output: &mut Output) -> (f64, f64) {
        let Self { size: (width, height), sources, slots } = self;
        let Output { view, format, painter, padded } = output;
        *padded = Padded::default();
        let (luma, half) = ((*width * *height) as usize, *width / 2);
        let placement = view.place((*width, *height), 2).expect("it has a place");
        let geometry = Geometry::packed(placement.size.0, placement.size.1, *format).expect("a picture");
        let surround = Surround::new(&geometry, &placement, &Normalize::default());
        let mut paint = |picture: usize| {
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
            let place = (Generation::default(), (picture % SLOTS) as u32);
            let believed = padded.take(place, &surround);
            let canvas = Canvas { bytes: &mut slots[picture % SLOTS], is_padded: believed > 0 };
            painter.paint(&frame, &placement, &geometry, &Normalize::default(), canvas).expect("it is painted");
            padded.keep(place, surround, believed);
        };
        (0..SLOTS).for_each(&mut paint);
        let (began, began_ms) = (Instant::now(), cpu_ms());
        (0..PICTURES).for_each(paint);
        let (cpu, clock) = (cpu_ms() - began_ms, began.elapsed().as_secs_f64() * 1e3);
        (cpu / PICTURES as f64, clock / PICTURES as f64)
    }
}

/// The lines of pictures of `size`, letterboxed into `fitted`.
pub fn lines(size: (u32, u32), fitted: (u32, u32), rounds: usize) -> Vec<Line> {
    let mut second = Second::new(size);
    let view = View { region: None, size: Size::Exactly(fitted.0, fitted.1), fit: Fit::Letterbox };
    let formats = [PixelFormat::Bgr, PixelFormat::RgbPlanarF32];
    let mut outputs = [(View::default(), PixelFormat::Bgr), (view, formats[0]), (view, formats[1])]
        .map(|(view, format)| Output::new(view, format, Threads::One));
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        outputs.iter_mut().zip(&mut times).for_each(|(output, times)| times.push(second.round(output).0));
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

/// The line of pictures of `size`, converted whole by two threads.
pub fn two_threads(size: (u32, u32), rounds: usize) -> Line {
    let mut second = Second::new(size);
    let mut outputs =
        [Threads::One, Threads::Two].map(|threads| Output::new(View::default(), PixelFormat::Bgr, threads));
    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        outputs.iter_mut().zip(&mut times).for_each(|(output, times)| times.push(second.round(output).1));
    }
    let [one, two] = times.map(median);
    Line {
        goal: "P4",
        group: "convert",
        what: format!("i420 of {}x{} to bgr, two threads", size.0, size.1),
        unit: "ms",
        ours: two,
        beside: Some(one),
        beside_is: "one thread",
        bar: Bar::Times(0.55),
    }
}
