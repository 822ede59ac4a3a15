//! P4: a decoder's I420 and NV12 into packed BGR rows, against one memory pass over the same bytes and against
//! GstVideoConverter; slots rotate, so caches are cold; medians of interleaved rounds. P5: how exact the colours are.
//! P11 is in `second`, what it costs to notice a picture that stands still in `still`.

mod figures;
mod second;
mod still;

use std::hint::black_box;

use camring::convert::convert;
use camring::source::{Fallback, FrameRef, FrameTiming, Plane, PlaneMut, Rect, SourceLayout};
use camring_ring::frame::{Color, FrameFlags, Geometry, PixelFormat};
use figures::{Bar, Line, cpu_ms, median};
use gst_video::{VideoConverter, VideoFormat, VideoFrameRef, VideoInfo};

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const SLOTS: usize = 8;
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
    /// Milliseconds of processor time per picture of one round of `step`.
    fn round(&mut self, mut step: impl FnMut(&[u8], &mut [u8])) -> f64 {
        let began = cpu_ms();
        for picture in 0..PICTURES {
            step(&self.sources[picture % SLOTS], &mut self.slots[picture % SLOTS]);
        }
        black_box(&self.slots);
        (cpu_ms() - began) / PICTURES as f64
    }
}

/// BT.709, limited range.
const USUAL: Color = Color { primaries: 1, transfer: 1, matrix: 1, full_range: 0 };

fn ours(layout: SourceLayout, color: Color, source: &[u8], slot: &mut [u8]) {
    let (y, chroma) = source.split_at(LUMA);
    let (u, v) = chroma.split_at(LUMA / 4);
    let half = WIDTH / 2;
    let i420 = [(y, WIDTH), (u, half), (v, half)].map(|(bytes, stride)| Plane { bytes, stride });
    let nv12 = [(y, WIDTH), (chroma, WIDTH)].map(|(bytes, stride)| Plane { bytes, stride });
    let frame = FrameRef {
        width: WIDTH,
        height: HEIGHT,
        layout,
        planes: if layout == SourceLayout::Nv12 { &nv12 } else { &i420 },
        color,
        pixel_aspect: (1, 1),
        timing: FrameTiming::default(),
        flags: FrameFlags::default(),
        lost_before: 0,
        fallback: &NoFallback,
    };
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
        let began = cpu_ms();
        for picture in 0..PICTURES {
            let slot = self.slots[picture % SLOTS].get_mut().expect("the only reference");
            let source = &self.sources[picture % SLOTS];
            let source = VideoFrameRef::from_buffer_ref_readable(source, &self.info).expect("a picture");
            let mut target = VideoFrameRef::from_buffer_ref_writable(slot, &self.out).expect("a picture");
            self.converter.frame_ref(&source, &mut target);
        }
        (cpu_ms() - began) / PICTURES as f64
    }
}

/// The exact colour in f64: blue, green, red.
fn exact(yuv: [u8; 3], color: Color) -> [f64; 3] {
    let (kr, kb) = if color.matrix == 1 { (0.2126, 0.0722) } else { (0.299, 0.114) };
    let [y, u, v] = yuv.map(f64::from);
    let (y, u, v) = match color.full_range {
        1 => (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0),
        _ => ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0),
    };
    let (red, blue) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
    let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
    [blue, green, red].map(|value| (value * 255.0).clamp(0.0, 255.0))
}

/// The largest distance from the rounded exact colour, and by how much the mean distance exceeds that of rounding.
fn errors(layout: SourceLayout, color: Color, source: &[u8], slot: &mut [u8]) -> (f64, f64) {
    ours(layout, color, source, slot);
    let (y, chroma) = source.split_at(LUMA);
    let (mut largest, mut mean, mut rounded) = (0f64, 0f64, 0f64);
    for (at, pixel) in slot.chunks_exact(3).enumerate() {
        let half = (at / WIDTH as usize / 2) * (WIDTH / 2) as usize + at % WIDTH as usize / 2;
        let (u, v) = match layout {
            SourceLayout::Nv12 => (chroma[half * 2], chroma[half * 2 + 1]),
            _ => (chroma[half], chroma[LUMA / 4 + half]),
        };
        for (found, exact) in pixel.iter().zip(exact([y[at], u, v], color)) {
            largest = largest.max((f64::from(*found) - exact.round()).abs());
            mean += (f64::from(*found) - exact).abs();
            rounded += (exact.round() - exact).abs();
        }
    }
    (largest, (mean - rounded) / (LUMA * 3) as f64)
}

/// Random legal values in every matrix, range and layout.
fn colors(random: &mut fastrand::Rng) -> Vec<Line> {
    let mut slot = vec![0; LUMA * 3];
    let mut lines = Vec::new();
    for (matrix, matrix_name) in [(1, "BT.709"), (6, "BT.601")] {
        for (full_range, range_name, legal) in [(0, "limited", 16..=235), (1, "full", 0..=255)] {
            let color = Color { matrix, full_range, ..USUAL };
            let source: Vec<u8> = std::iter::repeat_with(|| random.u8(legal.clone())).take(LUMA * 3 / 2).collect();
            for (layout, layout_name) in [(SourceLayout::I420, "i420"), (SourceLayout::Nv12, "nv12")] {
                let (largest, mean) = errors(layout, color, &source, &mut slot);
                let line = |what: &str, ours, limit| Line {
                    goal: "P5",
                    group: "convert",
                    what: format!("{layout_name}, {matrix_name} {range_name}: {what}"),
                    unit: "",
                    ours,
                    beside: None,
                    beside_is: "",
                    bar: Bar::AtMost(limit),
                };
                lines.push(line("largest error of a colour", largest, 1.0));
                lines.push(line("mean error above rounding", mean, 0.05));
            }
        }
    }
    lines
}

fn main() {
    gst::init().expect("GStreamer");
    let rounds = if figures::is_quick() { 3 } else { 9 };
    let mut random = fastrand::Rng::with_seed(1);
    let sources: Vec<Vec<u8>> =
        (0..SLOTS).map(|_| std::iter::repeat_with(|| random.u8(16..=235)).take(LUMA * 3 / 2).collect()).collect();
    let (mut i420_gst, mut nv12_gst) = (Gst::new(VideoFormat::I420, &sources), Gst::new(VideoFormat::Nv12, &sources));
    let mut bench = Bench { sources, slots: vec![vec![1; LUMA * 3]; SLOTS] };
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        times[0].push(bench.round(memory_pass));
        times[1].push(bench.round(|source, slot| ours(SourceLayout::I420, USUAL, source, slot)));
        times[2].push(bench.round(|source, slot| ours(SourceLayout::Nv12, USUAL, source, slot)));
        times[3].push(i420_gst.round());
        times[4].push(nv12_gst.round());
    }
    let [pass, i420, nv12, i420_gst, nv12_gst] = times.map(median);
    let line = |layout: &str, ours, beside, beside_is, limit| Line {
        goal: "P4",
        group: "convert",
        what: format!("{layout} of {WIDTH}x{HEIGHT} to bgr, one thread"),
        unit: "ms",
        ours,
        beside: Some(beside),
        beside_is,
        bar: Bar::Times(limit),
    };
    let mut lines = vec![
        line("i420", i420, pass, "memory pass", 2.6),
        line("nv12", nv12, pass, "memory pass", 2.6),
        line("i420", i420, i420_gst, "videoconvert", 1.0 / 5.0),
        line("nv12", nv12, nv12_gst, "videoconvert", 1.0 / 7.0),
    ];
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        lines.push(second::two_threads((3840, 2160), rounds));
    }
    lines.extend(colors(&mut random));
    lines.extend(second::lines((1920, 1080), (640, 640), rounds));
    lines.extend(second::lines((3840, 2160), (1920, 1080), rounds));
    lines.push(still::line(rounds));
    figures::finish("convert", &lines);
}
