//! P4: a decoder's I420 and NV12 into packed BGR rows, against one memory pass over the same bytes and against
//! GstVideoConverter; slots rotate, so caches are cold. Prints medians of interleaved rounds in ms per picture.

use std::hint::black_box;
use std::time::Instant;

use camring::convert::convert;
use camring::source::{Fallback, FrameRef, FrameTiming, Plane, PlaneMut, Rect, SourceLayout};
use camring_ring::frame::{Color, FrameFlags, Geometry, PixelFormat};
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
    let frame = FrameRef {
        width: WIDTH,
        height: HEIGHT,
        layout,
        planes: if layout == SourceLayout::Nv12 { &nv12 } else { &i420 },
        color: Color { primaries: 1, transfer: 1, matrix: 1, full_range: 0 },
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
}
