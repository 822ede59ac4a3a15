//! Instructions of the hot path, counted by callgrind: they rise with an added copy, and not with a busy machine.
//!
//! `scripts/instructions` runs it under valgrind and compares with `tests/benches/instructions.json`. Each step of a frame's way is
//! a function of its own, `counted_...`, by whose name callgrind begins and ends to count; nothing in it may be a
//! closure, whose name would be its own. Rings have 640x360 pixels; what prepares a step is not counted.
//!
//! ```text
//! instructions STEP       one of them; without a step their names
//! ```

use std::hint::black_box;
use std::path::PathBuf;

use camring::convert::convert;
use camring::source::{Fallback, FrameRef, FrameTiming, Plane, PlaneMut, Rect, SourceLayout};
use camring_ring::{
    AttachOptions, Capacity, Color, FrameFlags, FrameMeta, Geometry, HugePages, PixelFormat, Ring, RingName, ShmDir,
    Writer, WriterOptions,
};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
const LUMA: usize = (WIDTH * HEIGHT) as usize;
/// Frames published and read before the counted one: what is done once is done.
const WARM_UP: usize = 10;

struct NoFallback;

impl Fallback for NoFallback {
    fn convert_into(&self, format: PixelFormat, _: Rect, _: (u32, u32), _: &mut [PlaneMut<'_>]) -> Result<(), String> {
        Err(format!("no fallback to {format} here"))
    }
}

/// A ring with its writer and a reader, in a folder of its own.
struct Scene {
    folder: PathBuf,
    writer: Writer,
    ring: Ring,
    geometry: Geometry,
    buffer: Vec<u8>,
    source: Vec<u8>,
}

impl Scene {
    /// One picture, converted into its slot and published: what the capture process does with each.
    fn frame(&mut self, layout: SourceLayout) {
        let mut slot = self.writer.claim(self.geometry.len).expect("a slot");
        to_bgr(layout, &self.source, &self.geometry, slot.as_mut());
        self.writer.publish(slot, FrameMeta::new(self.geometry)).expect("published");
    }
}

fn to_bgr(layout: SourceLayout, source: &[u8], geometry: &Geometry, slot: &mut [u8]) {
    let (y, chroma) = source.split_at(LUMA);
    let (u, v) = chroma.split_at(LUMA / 4);
    let i420 = [(y, WIDTH), (u, WIDTH / 2), (v, WIDTH / 2)].map(|(bytes, stride)| Plane { bytes, stride });
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
    convert(&frame, geometry, slot).expect("it converts");
}

fn scene() -> Scene {
    let folder = PathBuf::from(format!("/dev/shm/camring-instructions-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder on the memory mount");
    let geometry = Geometry::packed(WIDTH, HEIGHT, PixelFormat::Bgr).expect("a picture");
    let mut options = WriterOptions::new(RingName::new("counted").expect("a ring's name"));
    options.shm = ShmDir::new(&folder);
    options.slots = 4;
    options.capacity = Capacity::Bytes(geometry.len);
    options.huge_pages = HugePages::Never;
    let writer = Writer::start(options).expect("a ring").0;
    let ring = Ring::attach("counted", AttachOptions { shm: ShmDir::new(&folder), ..AttachOptions::default() });
    let ring = ring.expect("a ring");
    let buffer = vec![1; geometry.len as usize];
    let source = (0..LUMA * 3 / 2).map(|at| 16 + (at / 7 % 200) as u8).collect();
    let mut scene = Scene { folder, writer, ring, geometry, buffer, source };
    for number in 0..WARM_UP {
        scene.frame(if number % 2 == 0 { SourceLayout::I420 } else { SourceLayout::Nv12 });
        drop(scene.ring.lease().expect("a frame"));
        scene.ring.latest_into(&mut scene.buffer).expect("a frame");
        scene.ring.peek().expect("a frame");
    }
    scene
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A slot claimed and published, pixels apart.
#[inline(never)]
fn counted_claim_and_publish(scene: &mut Scene) {
    let slot = scene.writer.claim(scene.geometry.len).expect("a slot");
    scene.writer.publish(slot, FrameMeta::new(scene.geometry)).expect("published");
}

/// The whole of the capture process's work on a picture.
#[inline(never)]
fn counted_convert_and_publish_i420(scene: &mut Scene) {
    scene.frame(SourceLayout::I420);
}

/// The same, from two planes.
#[inline(never)]
fn counted_convert_and_publish_nv12(scene: &mut Scene) {
    scene.frame(SourceLayout::Nv12);
}

/// A reader's look at the newest frame.
#[inline(never)]
fn counted_peek(scene: &mut Scene) {
    black_box(scene.ring.peek().expect("a frame"));
}

/// The newest frame leased, and given back.
#[inline(never)]
fn counted_lease(scene: &mut Scene) {
    black_box(scene.ring.lease().expect("a frame").as_ptr());
}

/// The newest frame copied into a buffer that is used again.
#[inline(never)]
fn counted_copy(scene: &mut Scene) {
    black_box(scene.ring.latest_into(&mut scene.buffer).expect("a frame"));
}

type Step = fn(&mut Scene);

const STEPS: [(&str, Step); 6] = [
    ("claim_and_publish", counted_claim_and_publish),
    ("convert_and_publish_i420", counted_convert_and_publish_i420),
    ("convert_and_publish_nv12", counted_convert_and_publish_nv12),
    ("peek", counted_peek),
    ("lease", counted_lease),
    ("copy", counted_copy),
];

fn main() {
    let wanted = std::env::args().skip(1).find(|word| word != "--bench");
    match wanted {
        None => STEPS.iter().for_each(|(name, _)| println!("{name}")),
        Some(wanted) => {
            let step = STEPS.iter().find(|(name, _)| *name == wanted);
            let (_, step) = step.unwrap_or_else(|| panic!("no step {wanted:?}; without a word it prints their names"));
            step(&mut scene());
        }
    }
}
