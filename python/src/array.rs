//! Which arrays make a frame of which geometry.

use camring_ring::{Geometry, PixelFormat};

use crate::picture::Picture;
use crate::view::Given;

/// What a writer's arrays look like.
pub(crate) struct Form {
    format: PixelFormat,
    /// When the shape is fixed.
    fixed: Option<Geometry>,
}

impl Form {
    pub(crate) fn new(format: PixelFormat, shape: Option<Vec<usize>>) -> Result<Self, String> {
        let fixed = shape.map(|shape| {
            geometry(format, &shape)
                .ok_or_else(|| format!("shape is {shape:?}; expected {} for {format}", expected_shape(format)))
        });
        Ok(Self { format, fixed: fixed.transpose()? })
    }

    pub(crate) fn format(&self) -> PixelFormat {
        self.format
    }

    pub(crate) fn fixed(&self) -> Option<&Geometry> {
        self.fixed.as_ref()
    }

    pub(crate) fn shape(&self) -> Option<Vec<isize>> {
        self.fixed.as_ref().map(|geometry| Picture::of(geometry).shape().to_vec())
    }

    /// The geometry of the frame that `given` makes; the error ends a sentence that begins with the ring.
    pub(crate) fn geometry(&self, given: &Given) -> Result<Geometry, String> {
        let found = geometry(self.format, given.shape());
        let item = Picture::item_of(self.format);
        let right_item = given.format().as_bytes() == item.code().to_bytes();
        match (&self.fixed, found) {
            (Some(fixed), _) if given.shape().len() == 1 && right_item && is_plain(given, fixed) => Ok(*fixed),
            (Some(fixed), Some(found)) if right_item && found == *fixed => Ok(found),
            (None, Some(found)) if right_item => Ok(found),
            (fixed, _) => Err(format!(
                "takes arrays of {} {} but this one is {:?} of \"{}\"; convert it first",
                fixed.as_ref().map_or_else(
                    || expected_shape(self.format).to_owned(),
                    |fixed| format!("{:?}", Picture::of(fixed).shape())
                ),
                item.word(),
                given.shape(),
                given.format()
            )),
        }
    }
}

/// Whether `given` is as many plain bytes as the frame has.
fn is_plain(given: &Given, fixed: &Geometry) -> bool {
    given.format() == "B" && given.len() as u64 == fixed.len
}

fn expected_shape(format: PixelFormat) -> &'static str {
    match format {
        PixelFormat::Bgr | PixelFormat::Rgb => "(height, width, 3)",
        PixelFormat::Bgra | PixelFormat::Rgba => "(height, width, 4)",
        PixelFormat::Gray => "(height, width)",
        PixelFormat::I420 | PixelFormat::Nv12 => "(height * 3 / 2, width) with even height and width",
        PixelFormat::RgbPlanarF32 => "(3, height, width)",
        _ => "(bytes,)",
    }
}

/// The tight geometry of an array of this shape; `None` when the format has no such shape.
fn geometry(format: PixelFormat, shape: &[usize]) -> Option<Geometry> {
    let (height, width) = match (format, shape) {
        (PixelFormat::Bgr | PixelFormat::Rgb, [height, width, 3]) => (*height, *width),
        (PixelFormat::Bgra | PixelFormat::Rgba, [height, width, 4]) => (*height, *width),
        (PixelFormat::Gray, [height, width]) => (*height, *width),
        (PixelFormat::RgbPlanarF32, [3, height, width]) => (*height, *width),
        (PixelFormat::I420 | PixelFormat::Nv12, [rows, width]) if rows % 3 == 0 && width % 2 == 0 => {
            (rows / 3 * 2, *width)
        }
        (PixelFormat::Opaque, [bytes]) if *bytes > 0 => return opaque(*bytes),
        _ => return None,
    };
    Geometry::packed(u32::try_from(width).ok()?, u32::try_from(height).ok()?, format)
}

fn opaque(bytes: usize) -> Option<Geometry> {
    Some(Geometry {
        width: 0,
        height: 0,
        format: PixelFormat::Opaque,
        plane_count: 1,
        plane_offsets: [0; 4],
        plane_strides: [0; 4],
        len: u64::try_from(bytes).ok()?,
    })
}
