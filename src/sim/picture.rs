//! What the simulated camera sees: a scrolling scene with moving shapes, or colour bars, as I420 of any size.
//!
//! A picture depends on (pattern, size, colour, seed, frame number) alone. Painting one is mostly row copies.
//!
//! # Colour bars
//!
//! Defined in R'G'B' (0, 191 = 75 %, and greys), encoded with the stated matrix and range, so that a correct receiver
//! gets the same RGB whatever the codec. Column boundaries are at `k*width/7` (greys: `k*width/8`); the chroma of a
//! 2x2 block is that of its top-left pixel.
//!
//! | rows | content from left to right |
//! |---|---|
//! | 0 to 2/3 of the height | grey, yellow, cyan, green, magenta, red, blue, all 75 % |
//! | to 3/4 | blue, black, magenta, black, cyan, black, grey |
//! | to the end | 8 greys: R=G=B = 0, 36, 73, 109, 146, 182, 219, 255 |
//!
//! | R'G'B' | Y'CbCr BT.601 limited | BT.709 limited | BT.601 full (JPEG) |
//! |---|---|---|---|
//! | grey 191,191,191 | 180,128,128 | 180,128,128 | 191,128,128 |
//! | yellow 191,191,0 | 161,44,142 | 168,44,136 | 169,33,144 |
//! | cyan 0,191,191 | 131,156,44 | 145,147,44 | 134,160,33 |
//! | green 0,191,0 | 112,72,58 | 133,63,52 | 112,65,48 |
//! | magenta 191,0,191 | 84,184,198 | 63,193,204 | 79,191,208 |
//! | red 191,0,0 | 65,100,212 | 51,109,212 | 57,96,224 |
//! | blue 0,0,191 | 35,212,114 | 28,212,120 | 22,224,112 |
//! | black 0,0,0 | 16,128,128 | 16,128,128 | 0,128,128 |

/// What the pictures show.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Pattern {
    /// A textured landscape that scrolls, with coloured shapes moving over it.
    #[default]
    Scene,
    /// Still colour bars with exact values.
    Bars,
}

/// How the numbers in a picture stand for colours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Color {
    /// BT.601, luma 16-235 (caps `bt601`).
    Bt601,
    /// BT.709, luma 16-235 (caps `bt709`).
    Bt709,
    /// BT.601, 0-255, as JPEG defines it (caps `1:4:0:0`).
    Jpeg,
}

/// A picture to be painted: three planes, chroma halved both ways and rounded up.
#[derive(Debug)]
pub struct I420Mut<'a> {
    /// Luma, `height` rows.
    pub y: &'a mut [u8],
    /// Blue difference, `height / 2` rows rounded up.
    pub u: &'a mut [u8],
    /// Red difference, like `u`.
    pub v: &'a mut [u8],
    /// Bytes from one luma row to the next.
    pub y_stride: usize,
    /// Bytes from one chroma row to the next.
    pub chroma_stride: usize,
}

impl I420Mut<'_> {
    /// Makes all of the picture one colour, given as Y'CbCr.
    pub fn fill(&mut self, [y, u, v]: [u8; 3]) {
        self.y.fill(y);
        self.u.fill(u);
        self.v.fill(v);
    }
}

/// Paints the pictures of one camera.
#[derive(Debug)]
pub struct Painter {
    width: usize,
    height: usize,
    texture: Texture,
    shapes: Vec<Shape>,
}

/// How far the scene scrolls, pixels; even, so that chroma stays aligned.
const MARGIN: (usize, usize) = (256, 128);
/// How far it scrolls from frame to frame, pixels.
const SCROLL: usize = 2;

impl Painter {
    /// Prepares everything that does not change from frame to frame; for a scene of 1920x1080 about 0.1 s and 4 MB.
    #[must_use]
    pub fn new(pattern: Pattern, width: u32, height: u32, color: Color, seed: u64) -> Self {
        let (width, height) = (width as usize, height as usize);
        match pattern {
            Pattern::Scene => {
                let mut random = fastrand::Rng::with_seed(seed);
                let texture = Texture::landscape(width + MARGIN.0, height + MARGIN.1, &mut random);
                let shapes = SHAPE_COLORS.iter().map(|&yuv| Shape::new(yuv, width, height, &mut random)).collect();
                Self { width, height, texture, shapes }
            }
            Pattern::Bars => Self { width, height, texture: Texture::bars(width, height, color), shapes: Vec::new() },
        }
    }

    /// Paints picture `number`; bytes between the end of a row and the stride keep their value.
    ///
    /// # Panics
    ///
    /// When a plane is smaller than the picture this painter was made for.
    pub fn paint(&self, number: u32, picture: &mut I420Mut<'_>) {
        let (left, top) = self.window(number as usize);
        let (chroma_width, chroma_height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let texture = &self.texture;
        copy_rows(&texture.y, (left, top), picture.y, picture.y_stride, (self.width, self.height));
        for (from, to) in [(&texture.u, &mut *picture.u), (&texture.v, &mut *picture.v)] {
            copy_rows(from, (left / 2, top / 2), to, picture.chroma_stride, (chroma_width, chroma_height));
        }
        for shape in &self.shapes {
            shape.paint(number as usize, (self.width, self.height), picture);
        }
    }

    /// Where the picture lies in the texture: back and forth, with different periods across and down.
    fn window(&self, number: usize) -> (usize, usize) {
        let slack = |texture: usize, picture: usize| texture.saturating_sub(picture) & !1;
        let across = slack(self.texture.y.width, self.width);
        let down = slack(self.texture.y.height, self.height);
        (back_and_forth(number * SCROLL, across), back_and_forth(number * SCROLL, down))
    }
}

/// 0, 1, ... limit, limit-1, ... 0, 1, ...
fn back_and_forth(step: usize, limit: usize) -> usize {
    if limit == 0 {
        return 0;
    }
    let phase = step % (2 * limit);
    phase.min(2 * limit - phase)
}

fn copy_rows(from: &Plane, at: (usize, usize), to: &mut [u8], stride: usize, size: (usize, usize)) {
    for (y, row) in to.chunks_mut(stride).take(size.1).enumerate() {
        let start = (at.1 + y) * from.width + at.0;
        row[..size.0].copy_from_slice(&from.values[start..start + size.0]);
    }
}

/// One plane of bytes without padding.
#[derive(Debug)]
struct Plane {
    width: usize,
    height: usize,
    values: Vec<u8>,
}

impl Plane {
    fn from_fn(width: usize, height: usize, mut value: impl FnMut(usize, usize) -> u8) -> Self {
        let mut values = Vec::with_capacity(width * height);
        for y in 0..height {
            values.extend((0..width).map(|x| value(x, y)));
        }
        Self { width, height, values }
    }

    fn fill(&mut self, left: usize, top: usize, width: usize, height: usize, value: u8) {
        for row in self.values.chunks_mut(self.width).skip(top).take(height) {
            row[left.min(self.width)..(left + width).min(self.width)].fill(value);
        }
    }
}

/// What the window scrolls over.
#[derive(Debug)]
struct Texture {
    y: Plane,
    u: Plane,
    v: Plane,
}

impl Texture {
    /// Hills, haze and grain by summed noise, with a skyline of buildings.
    fn landscape(width: usize, height: usize, random: &mut fastrand::Rng) -> Self {
        let (width, height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        let mut relief = Relief::new(&[(192, 70), (48, 34), (12, 22), (5, 12)], width, random);
        let mut grain = random.fork();
        let mut y = Plane::from_fn(width, height, |x, row| {
            let haze = 60 + 60 * row / height;
            let light = haze + relief.at(x, row) + usize::from(grain.u8(0..8));
            u8::try_from(light.clamp(18, 232)).expect("clamped to a byte")
        });
        let (chroma_width, chroma_height) = (width / 2, height / 2);
        let chroma = |random: &mut fastrand::Rng| {
            let mut relief = Relief::new(&[(128, 56), (24, 16)], chroma_width, random);
            Plane::from_fn(chroma_width, chroma_height, |x, row| {
                u8::try_from(92 + relief.at(x, row)).expect("92 + 72 at most")
            })
        };
        let (u, v) = (chroma(random), chroma(random));
        skyline(&mut y, random);
        Self { y, u, v }
    }

    fn bars(width: usize, height: usize, color: Color) -> Self {
        let at = |x: usize, y: usize| color.encode(bars_rgb((x, y), (width, height)));
        let y = Plane::from_fn(width, height, |x, y| at(x, y)[0]);
        let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
        let u = Plane::from_fn(chroma_width, chroma_height, |x, y| at(2 * x, 2 * y)[1]);
        let v = Plane::from_fn(chroma_width, chroma_height, |x, y| at(2 * x, 2 * y)[2]);
        Self { y, u, v }
    }
}

/// Hard edges: blocks of flat luma with lit windows.
fn skyline(y: &mut Plane, random: &mut fastrand::Rng) {
    let ground = y.height * 3 / 4;
    let mut left = 0;
    while left < y.width {
        let (width, height) = (random.usize(24..120), random.usize(16..y.height / 2));
        let wall = random.u8(30..110);
        y.fill(left, ground - height, width, height, wall);
        for floor in (ground - height + 6..ground.saturating_sub(8)).step_by(14) {
            for window in (left + 6..(left + width).saturating_sub(8)).step_by(12) {
                if random.u8(..) < 100 {
                    y.fill(window, floor, 6, 8, wall + 100);
                }
            }
        }
        left += width + random.usize(10..160);
    }
}

/// Smooth noise: lattices of random heights, interpolated, summed; evaluated row by row.
#[derive(Debug)]
struct Relief {
    octaves: Vec<Octave>,
}

#[derive(Debug)]
struct Octave {
    cell: usize,
    height: usize,
    random: fastrand::Rng,
    /// The lattice rows above and below the current one.
    above: Vec<usize>,
    below: Vec<usize>,
    below_row: usize,
}

impl Relief {
    /// `octaves` are (distance of lattice points in pixels, greatest height); rows are `width` long.
    fn new(octaves: &[(usize, usize)], width: usize, random: &mut fastrand::Rng) -> Self {
        let octave = |&(cell, height): &(usize, usize)| {
            let mut random = random.fork();
            let mut line = || (0..width / cell + 2).map(|_| random.usize(0..=height * 256)).collect();
            let (above, below) = (line(), line());
            Octave { cell, height, random, above, below, below_row: 1 }
        };
        Self { octaves: octaves.iter().map(octave).collect() }
    }

    /// The sum of all octaves; rows must be asked for in order.
    fn at(&mut self, x: usize, y: usize) -> usize {
        self.octaves.iter_mut().map(|octave| octave.at(x, y)).sum::<usize>() / 256
    }
}

impl Octave {
    fn at(&mut self, x: usize, y: usize) -> usize {
        while y / self.cell >= self.below_row {
            std::mem::swap(&mut self.above, &mut self.below);
            let (random, height) = (&mut self.random, self.height);
            self.below.iter_mut().for_each(|value| *value = random.usize(0..=height * 256));
            self.below_row += 1;
        }
        let (column, right) = (x / self.cell, x % self.cell);
        let down = y % self.cell;
        let across = |line: &[usize]| line[column] * (self.cell - right) + line[column + 1] * right;
        let sum = across(&self.above) * (self.cell - down) + across(&self.below) * down;
        sum / (self.cell * self.cell)
    }
}

/// Luma, blue and red difference of the moving shapes.
const SHAPE_COLORS: [[u8; 3]; 5] = [[90, 90, 220], [160, 40, 140], [60, 210, 110], [150, 60, 50], [200, 120, 150]];

/// A disc that travels back and forth on its own path.
#[derive(Debug)]
struct Shape {
    color: [u8; 3],
    radius: usize,
    start: (usize, usize),
    speed: (usize, usize),
}

impl Shape {
    fn new(color: [u8; 3], width: usize, height: usize, random: &mut fastrand::Rng) -> Self {
        let radius = (width.min(height) / random.usize(8..20)).max(2);
        let start = (random.usize(..4 * width), random.usize(..4 * height));
        Self { color, radius, start, speed: (random.usize(1..=7), random.usize(1..=5)) }
    }

    fn paint(&self, number: usize, size: (usize, usize), picture: &mut I420Mut<'_>) {
        let along = |start: usize, speed: usize, length: usize| {
            let room = length.saturating_sub(2 * self.radius + 1);
            (back_and_forth(start + speed * number, room) + self.radius) & !1
        };
        let (x, y) = (along(self.start.0, self.speed.0, size.0), along(self.start.1, self.speed.1, size.1));
        fill_disc(picture.y, picture.y_stride, size, (x, y), self.radius, self.color[0]);
        let half = (size.0.div_ceil(2), size.1.div_ceil(2));
        for (plane, value) in [(&mut *picture.u, self.color[1]), (&mut *picture.v, self.color[2])] {
            fill_disc(plane, picture.chroma_stride, half, (x / 2, y / 2), self.radius / 2, value);
        }
    }
}

fn fill_disc(plane: &mut [u8], stride: usize, size: (usize, usize), center: (usize, usize), radius: usize, value: u8) {
    let top = center.1.saturating_sub(radius);
    let bottom = (center.1 + radius + 1).min(size.1);
    for (y, row) in plane.chunks_mut(stride).enumerate().take(bottom).skip(top) {
        let away = y.abs_diff(center.1);
        let half = (radius * radius - away * away).isqrt();
        row[center.0.saturating_sub(half)..(center.0 + half + 1).min(size.0)].fill(value);
    }
}

const GREY: [u8; 3] = [191, 191, 191];
const YELLOW: [u8; 3] = [191, 191, 0];
const CYAN: [u8; 3] = [0, 191, 191];
const GREEN: [u8; 3] = [0, 191, 0];
const MAGENTA: [u8; 3] = [191, 0, 191];
const RED: [u8; 3] = [191, 0, 0];
const BLUE: [u8; 3] = [0, 0, 191];
const DARK: [u8; 3] = [0, 0, 0];
const BARS: [[u8; 3]; 7] = [GREY, YELLOW, CYAN, GREEN, MAGENTA, RED, BLUE];
const REVERSE_BARS: [[u8; 3]; 7] = [BLUE, DARK, MAGENTA, DARK, CYAN, DARK, GREY];
const GREYS: [u8; 8] = [0, 36, 73, 109, 146, 182, 219, 255];

/// Red, green and blue of the colour bars at column and row `at` of a picture of `size` (width, height).
///
/// The stamps hide the top-left and the bottom-right corner.
///
/// # Panics
///
/// When the point lies outside of the picture.
#[must_use]
pub fn bars_rgb(at: (usize, usize), size: (usize, usize)) -> [u8; 3] {
    let ((x, y), (width, height)) = (at, size);
    // The bar k with k*width/n <= x < (k+1)*width/n.
    let bar = |n: usize| ((x + 1) * n - 1) / width;
    match y {
        _ if y < height * 2 / 3 => BARS[bar(7)],
        _ if y < height * 3 / 4 => REVERSE_BARS[bar(7)],
        _ => [GREYS[bar(8)]; 3],
    }
}

impl Color {
    /// The `colorimetry` field of GStreamer caps.
    #[must_use]
    pub fn caps_field(self) -> &'static str {
        match self {
            Self::Bt601 => "bt601",
            Self::Bt709 => "bt709",
            Self::Jpeg => "1:4:0:0",
        }
    }

    /// Y'CbCr of a colour, rounded to nearest, halves up.
    #[must_use]
    pub fn encode(self, rgb: [u8; 3]) -> [u8; 3] {
        // Exact: the weights are in 1/10000, the sum of the weighted values in 1/2550000.
        let [red, green, blue] = rgb.map(i64::from);
        let (from_red, from_blue) = if self == Self::Bt709 { (2126, 722) } else { (2990, 1140) };
        let luma = from_red * red + (10_000 - from_red - from_blue) * green + from_blue * blue;
        let (base, luma_range, chroma_range) = if self == Self::Jpeg { (0, 255, 255) } else { (16, 219, 224) };
        let chroma = |value: i64, weight: i64| {
            128 + divide_rounded(chroma_range * (value * 10_000 - luma), 2 * (10_000 - weight) * 255)
        };
        let y = base + divide_rounded(luma_range * luma, 10_000 * 255);
        [y, chroma(blue, from_blue), chroma(red, from_red)]
            .map(|value| u8::try_from(value.clamp(0, 255)).expect("clamped to a byte"))
    }
}

fn divide_rounded(dividend: i64, divisor: i64) -> i64 {
    (2 * dividend + divisor).div_euclid(2 * divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Y, U and V of one picture without padding.
    type Planes = (Vec<u8>, Vec<u8>, Vec<u8>);

    fn paint(painter: &Painter, number: u32) -> Planes {
        let (width, height) = (painter.width, painter.height);
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        let (mut y, mut u, mut v) = (vec![1; width * height], vec![1; chroma], vec![1; chroma]);
        let chroma_stride = width.div_ceil(2);
        painter.paint(number, &mut I420Mut { y: &mut y, u: &mut u, v: &mut v, y_stride: width, chroma_stride });
        (y, u, v)
    }

    fn scene(width: u32, height: u32, seed: u64) -> Painter {
        Painter::new(Pattern::Scene, width, height, Color::Bt601, seed)
    }

    #[test]
    fn the_same_seed_and_number_give_the_same_picture() {
        let (first, second) = (scene(641, 359, 5), scene(641, 359, 5));
        for number in [0, 1, 77, u32::MAX] {
            assert!(paint(&first, number) == paint(&second, number), "picture {number}");
        }
    }

    #[test]
    fn another_seed_and_the_next_number_give_another_picture() {
        let painter = scene(320, 240, 5);
        assert!(paint(&painter, 0) != paint(&scene(320, 240, 6), 0));
        for number in 0..300 {
            assert!(paint(&painter, number) != paint(&painter, number + 1), "picture {number}");
        }
    }

    #[test]
    fn every_pixel_of_any_size_is_painted_and_in_limited_range() {
        for (width, height) in [(128, 64), (129, 65), (641, 359), (1280, 720)] {
            let painter = scene(width, height, 3);
            for number in [0, 100, 5000] {
                let (y, u, v) = paint(&painter, number);
                assert!(y.iter().all(|value| (16..=235).contains(value)), "luma at {width}x{height}");
                assert!(u.iter().chain(&v).all(|value| (16..=240).contains(value)), "chroma at {width}x{height}");
            }
        }
    }

    #[test]
    fn the_scene_has_the_contrast_of_a_photograph() {
        let (y, u, _) = paint(&scene(640, 360, 1), 10);
        let spread = |plane: &[u8]| {
            let mean = plane.iter().map(|&value| f64::from(value)).sum::<f64>() / plane.len() as f64;
            let square = plane.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
            (square / plane.len() as f64).sqrt()
        };
        assert!(spread(&y) > 25.0, "luma deviates by {}", spread(&y));
        assert!(spread(&u) > 8.0, "chroma deviates by {}", spread(&u));
    }

    #[test]
    fn padding_between_rows_is_left_alone() {
        let painter = scene(129, 65, 3);
        let (mut y, mut u, mut v) = (vec![1; 160 * 65], vec![1; 80 * 33], vec![1; 80 * 33]);
        painter.paint(9, &mut I420Mut { y: &mut y, u: &mut u, v: &mut v, y_stride: 160, chroma_stride: 80 });
        assert!(y.chunks(160).all(|row| row[129..].iter().all(|&value| value == 1)));
        assert!(u.chunks(80).chain(v.chunks(80)).all(|row| row[65..].iter().all(|&value| value == 1)));
    }

    #[test]
    fn bars_have_the_documented_values() {
        let table: [([u8; 3], [[u8; 3]; 3]); 8] = [
            (GREY, [[180, 128, 128], [180, 128, 128], [191, 128, 128]]),
            (YELLOW, [[161, 44, 142], [168, 44, 136], [169, 33, 144]]),
            (CYAN, [[131, 156, 44], [145, 147, 44], [134, 160, 33]]),
            (GREEN, [[112, 72, 58], [133, 63, 52], [112, 65, 48]]),
            (MAGENTA, [[84, 184, 198], [63, 193, 204], [79, 191, 208]]),
            (RED, [[65, 100, 212], [51, 109, 212], [57, 96, 224]]),
            (BLUE, [[35, 212, 114], [28, 212, 120], [22, 224, 112]]),
            (DARK, [[16, 128, 128], [16, 128, 128], [0, 128, 128]]),
        ];
        for (rgb, encoded) in table {
            let found = [Color::Bt601, Color::Bt709, Color::Jpeg].map(|color| color.encode(rgb));
            assert_eq!(found, encoded, "{rgb:?}");
        }
    }

    #[test]
    fn bars_are_where_the_documentation_says() {
        let size = (700, 120);
        for (bar, color) in BARS.into_iter().enumerate() {
            assert_eq!(bars_rgb((bar * 100, 0), size), color);
            assert_eq!(bars_rgb((bar * 100 + 99, 79), size), color);
            assert_eq!(bars_rgb((bar * 100, 80), size), REVERSE_BARS[bar]);
        }
        assert_eq!(bars_rgb((0, 90), size), [0; 3]);
        assert_eq!(bars_rgb((699, 119), size), [255; 3]);
        for width in [128, 641, 1920] {
            for (bar, color) in BARS.into_iter().enumerate() {
                let first = bar * width / 7;
                assert_eq!(bars_rgb((first, 0), (width, 90)), color, "first column of bar {bar} at width {width}");
                assert_eq!(bars_rgb(((bar + 1) * width / 7 - 1, 0), (width, 90)), color);
            }
        }
    }

    #[test]
    fn bars_stand_still_and_hold_their_encoded_values() {
        let painter = Painter::new(Pattern::Bars, 641, 359, Color::Bt709, 0);
        let (y, u, v) = paint(&painter, 0);
        assert!((y.clone(), u.clone(), v.clone()) == paint(&painter, 1234));
        let expected = Color::Bt709.encode(RED);
        let (column, row) = (500, 100);
        let chroma = row / 2 * 321 + column / 2;
        assert_eq!([y[row * 641 + column], u[chroma], v[chroma]], expected);
    }
}
