//! How far a picture is from what the simulated camera has painted, block by block.

use camring::sim::picture::{Color, I420Mut, Painter};
use camring::sim::stamp::{self, Stamp};
use camring::sim::{Codec, Pattern, Size};
use camring_ring::Frame;

/// Side of a block, luma samples: a macroblock of H.264.
const BLOCK: usize = 16;

/// Knows what a camera of this size paints (H.264, seed 1, pattern scene).
pub struct Judge {
    painter: Painter,
    size: (usize, usize),
    color: Color,
}

impl Judge {
    pub fn new(width: u32, height: u32) -> Self {
        let color = Size::new(width, height).color(Codec::H264);
        let painter = Painter::new(Pattern::Scene, width, height, color, 1);
        Self { painter, size: (width as usize, height as usize), color }
    }

    /// The largest distance between the mean luma of a block and that of the same block as painted.
    pub fn worst(&self, frame: &Frame, pixels: &[u8], stamp: &Stamp) -> f32 {
        let stride = frame.meta.geometry.plane_strides[0] as usize;
        let seen = self.means(|column, row| {
            let at = row * stride + column * 3;
            self.color.encode([pixels[at + 2], pixels[at + 1], pixels[at]])[0]
        });
        let painted = self.painted(stamp);
        seen.iter().zip(painted).map(|(seen, painted)| (seen - painted).abs()).fold(0.0, f32::max)
    }

    fn painted(&self, stamp: &Stamp) -> Vec<f32> {
        let (width, height) = self.size;
        let mut planes = [vec![0; width * height], vec![0; width * height / 4], vec![0; width * height / 4]];
        let [y, u, v] = &mut planes;
        let mut picture = I420Mut { y, u, v, y_stride: width, chroma_stride: width / 2 };
        self.painter.paint(stamp.number, &mut picture);
        stamp::paint(y, width, width as u32, height as u32, stamp).unwrap();
        let y = &planes[0];
        self.means(|column, row| y[row * width + column])
    }

    /// The mean of every whole block, of every other sample both ways.
    fn means(&self, sample: impl Fn(usize, usize) -> u8) -> Vec<f32> {
        let (width, height) = self.size;
        let steps = |to: usize| (0..to / BLOCK).map(|block| block * BLOCK);
        let blocks = steps(height).flat_map(|top| steps(width).map(move |left| (left, top)));
        let mean = |(left, top): (usize, usize)| {
            let inside = (0..BLOCK).step_by(2).flat_map(|row| (0..BLOCK).step_by(2).map(move |column| (column, row)));
            let sum: u32 = inside.map(|(column, row)| u32::from(sample(left + column, top + row))).sum();
            sum as f32 / (BLOCK * BLOCK / 4) as f32
        };
        blocks.map(mean).collect()
    }
}
