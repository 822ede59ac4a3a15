//! P4: a decoder's I420 and NV12 into packed BGR rows, against one memory pass over the same bytes and against
//! GstVideoConverter; P11: a second, smaller output of the same picture, against converting the picture whole. Slots
//! rotate, so caches are cold. Prints medians of interleaved rounds in ms per picture.

use std::hint::black_box;
use std::time::Instant;

use camring::convert::convert;
use camring::paint::{Normalize, Painter};
use camring::placement::{Size, View};
use camring::source::{Fallback, FrameRef, FrameTiming, Plane, PlaneMut, Rect, SourceLayout};
use camring_ring::frame::{Color, Fit, FrameFlags, Geometry, PixelFormat};
use gst_video::{VideoConverter, VideoFormat, VideoFrameRef, VideoInfo};

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const SLOTS: usize = 8;
const ROUNDS: usize = 9;
const PICTURES: usize = 40;
const LUMA: usize = (WIDTH * HEIGHT) as usize;

struct NoFallback;

impl Fallback for NoFallback {
    fn convert_into(&self, format: PixelFormat, _: Rect, _: (u32, u32), _: &mut [PlaneMut<'_>]) -> Result<(), String> {
        Err(format!("no fallback to {format} here"))
    }
}

struct Bench {
    sources: Vec<Vec<u8>>,
    slots: Vec<Vec<u8>>,
}

impl Bench {
    /// Milliseconds per picture of one round of `step`.
    fn round(&mut self, mut step: impl FnMut(&[u8], &mut [u8])) -> f64 {
        let began = Instant::now();
        for picture in 0..PICTURES {
            step(&self.sources[picture % SLOTS], &mut self.slots[picture % SLOTS]);
        }
        black_box(&self.slots);
        began.elapsed().as_secs_f64() * 1e3 / PICTURES as f64
    }
}

fn ours(layout: SourceLayout, source: &[u8], slot: &mut [u8]) {
    let (y, chroma) = source.split_at(LUMA);
    let (u, v) = chroma.split_at(LUMA / 4);
    let half = WIDTH / 2;
    let i420 = [(y, WIDTH), (u, half), (v, half)].map(|(bytes, stride)| Plane { bytes, stride });
    let nv12 = [(y, WIDTH), (chroma, WIDTH)].map(|(bytes, stride)| Plane { bytes, stride });
    let planes = if layout == SourceLayout::Nv12 { &nv12[..] } else { &i420[..] };
    let frame = FrameRef { planes, ..described(layout) };
    let geometry = Geometry::packed(WIDTH, HEIGHT, PixelFormat::Bgr).expect("a picture");
    convert(&frame, &geometry, slot).expect("it converts");
}

/// Reads every source byte from memory once and writes every target byte once, in blocks that stay in the first cache.
fn memory_pass(source: &[u8], slot: &mut [u8]) {
    const BLOCK: usize = 8192;
    for (from, to) in source.chunks(BLOCK).zip(slot.chunks_mut(BLOCK * 2)) {
        let (one, two) = to.split_at_mut(from.len());
        one.copy_from_slice(from);
        two.copy_from_slice(from);
    }
}

/// GstVideoConverter into its own buffer, as `videoconvert` works.
struct Gst {
    converter: VideoConverter,
    info: VideoInfo,
    out: VideoInfo,
    sources: Vec<gst::Buffer>,
    slots: Vec<gst::Buffer>,
}

impl Gst {
    fn new(format: VideoFormat, sources: &[Vec<u8>]) -> Self {
        let info = VideoInfo::builder(format, WIDTH, HEIGHT).fps((25, 1)).build().expect("a picture");
        let out = VideoInfo::builder(VideoFormat::Bgr, WIDTH, HEIGHT).fps((25, 1)).build().expect("a picture");
        Self {
            converter: VideoConverter::new(&info, &out, None).expect("it converts"),
            sources: sources.iter().map(|source| gst::Buffer::from_slice(source.clone())).collect(),
            slots: (0..SLOTS).map(|_| gst::Buffer::from_mut_slice(vec![1u8; LUMA * 3])).collect(),
            info,
            out,
        }
    }

    fn round(&mut self) -> f64 {
        let began = Instant::now();
        for picture in 0..PICTURES {
            let slot = self.slots[picture % SLOTS].get_mut().expect("the only reference");
            let source = &self.sources[picture % SLOTS];
            let source = VideoFrameRef::from_buffer_ref_readable(source, &self.info).expect("a picture");
            let mut target = VideoFrameRef::from_buffer_ref_writable(slot, &self.out).expect("a picture");
            self.converter.frame_ref(&source, &mut target);
        }
        began.elapsed().as_secs_f64() * 1e3 / PICTURES as f64
    }
}

/// A picture of a size other than the one above, for the comparison of a second output with the picture as a whole.
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
            let frame = FrameRef { width: *width, height: *height, planes: &planes, ..described(SourceLayout::I420) };
            let slot = &mut slots[picture % SLOTS];
            painter.paint(&frame, &placement, &geometry, &Normalize::default(), slot).expect("it is painted");
        }
        began.elapsed().as_secs_f64() * 1e3 / PICTURES as f64
    }
}

/// P11 for one size of picture.
fn second_output(size: (u32, u32), fitted: (u32, u32)) {
    let mut second = Second::new(size);
    let mut slots = vec![vec![1; (size.0 * size.1 * 3) as usize]; SLOTS];
    let view = View { region: None, size: Size::Exactly(fitted.0, fitted.1), fit: Fit::Letterbox };
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(second.round(View::default(), PixelFormat::Bgr, &mut slots));
        times[1].push(second.round(view, PixelFormat::Bgr, &mut slots));
        times[2].push(second.round(view, PixelFormat::RgbPlanarF32, &mut slots));
    }
    let [whole, packed, floats] = times.map(median);
    println!("{}x{} whole     {whole:.3}", size.0, size.1);
    println!("  {}x{} bgr     {packed:.3}   {:.2} x the whole picture", fitted.0, fitted.1, packed / whole);
    println!("  {}x{} floats  {floats:.3}   {:.2} x the whole picture", fitted.0, fitted.1, floats / whole);
}

/// A frame of this layout without pixels.
fn described(layout: SourceLayout) -> FrameRef<'static> {
    FrameRef {
        width: WIDTH,
        height: HEIGHT,
        layout,
        planes: &[],
        color: Color { primaries: 1, transfer: 1, matrix: 1, full_range: 0 },
        pixel_aspect: (1, 1),
        timing: FrameTiming::default(),
        flags: FrameFlags::default(),
        lost_before: 0,
        fallback: &NoFallback,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    gst::init().expect("GStreamer");
    let mut random = fastrand::Rng::with_seed(1);
    let sources: Vec<Vec<u8>> =
        (0..SLOTS).map(|_| std::iter::repeat_with(|| random.u8(16..=235)).take(LUMA * 3 / 2).collect()).collect();
    let (mut i420_gst, mut nv12_gst) = (Gst::new(VideoFormat::I420, &sources), Gst::new(VideoFormat::Nv12, &sources));
    let mut bench = Bench { sources, slots: vec![vec![1; LUMA * 3]; SLOTS] };
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(bench.round(memory_pass));
        times[1].push(bench.round(|source, slot| ours(SourceLayout::I420, source, slot)));
        times[2].push(bench.round(|source, slot| ours(SourceLayout::Nv12, source, slot)));
        times[3].push(i420_gst.round());
        times[4].push(nv12_gst.round());
    }
    let [pass, i420, nv12, i420_gst, nv12_gst] = times.map(median);
    println!("{WIDTH}x{HEIGHT} to bgr, one thread, ms per picture (median of {ROUNDS} rounds)");
    println!("memory pass          {pass:.3}");
    println!(
        "i420                 {i420:.3}   {:.2} x the pass, {:.1} x cheaper than videoconvert",
        i420 / pass,
        i420_gst / i420
    );
    println!(
        "nv12                 {nv12:.3}   {:.2} x the pass, {:.1} x cheaper than videoconvert",
        nv12 / pass,
        nv12_gst / nv12
    );
    println!("videoconvert i420    {i420_gst:.3}");
    println!("videoconvert nv12    {nv12_gst:.3}");
    second_output((1920, 1080), (640, 640));
    second_output((3840, 2160), (1920, 1080));
}
