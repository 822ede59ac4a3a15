//! What noticing a picture that stands still costs, against a checksum over all of each picture.

use camring::pipeline::Stillness;
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};

use crate::figures::{Bar, Line, cpu_ms, median};
use crate::{HEIGHT, PICTURES, WIDTH};

/// More pictures than a cache holds: a decoder's picture is not in the cache of one core either.
const DIFFERENT: usize = 24;

type Readable<'a> = VideoFrameRef<&'a gst::BufferRef>;

/// The line of pictures of 1920x1080.
pub fn line(rounds: usize) -> Line {
    let info = VideoInfo::builder(VideoFormat::I420, WIDTH, HEIGHT).build().expect("a picture");
    let pictures: Vec<gst::Buffer> =
        (0..DIFFERENT).map(|number| gst::Buffer::from_slice(vec![number as u8; info.size()])).collect();
    let round = |look: &mut dyn FnMut(&Readable<'_>, i64)| {
        let began = cpu_ms();
        for number in 0..PICTURES {
            let picture = VideoFrameRef::from_buffer_ref_readable(&pictures[number % DIFFERENT], &info);
            look(&picture.expect("readable"), number as i64);
        }
        (cpu_ms() - began) / PICTURES as f64
    };
    let (mut ours, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut stillness = Stillness::default();
        ours.push(round(&mut |picture, now| {
            stillness.look(picture, now);
        }));
        whole.push(round(&mut |picture, _| {
            let planes = (0..picture.n_planes()).map(|plane| picture.plane_data(plane).expect("a plane"));
            std::hint::black_box(planes.map(crc32fast::hash).fold(0, |all, one| all ^ one));
        }));
    }
    Line {
        goal: "still",
        group: "convert",
        what: format!("a look whether {WIDTH}x{HEIGHT} stands still"),
        unit: "ms",
        ours: median(ours),
        beside: Some(median(whole)),
        beside_is: "checksum of all of it",
        bar: Bar::Times(0.2),
    }
}
