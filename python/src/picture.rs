//! How a frame's payload appears through the buffer protocol: shape, strides and item, in NumPy's terms.

use std::ffi::CStr;

use camring_ring::{Geometry, PixelFormat};

/// What one item of the picture is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Item {
    U8,
    F32,
}

impl Item {
    pub(crate) const fn bytes(self) -> isize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }

    /// The code of Python's `struct` module.
    pub(crate) const fn code(self) -> &'static CStr {
        match self {
            Self::U8 => c"B",
            Self::F32 => c"f",
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::F32 => "float32",
        }
    }
}

/// Shape and strides of a payload; every item lies inside the payload's `len` bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Picture {
    pub(crate) item: Item,
    /// First byte of the picture in the payload.
    pub(crate) offset: usize,
    /// Dimensions in use, 1..=3.
    pub(crate) ndim: usize,
    pub(crate) shape: [isize; 3],
    /// Bytes from one item to the next, by dimension.
    pub(crate) strides: [isize; 3],
}

impl Picture {
    /// Packed formats are (H, W, C), grey is (H, W), planar floats are (3, H, W), tight 4:2:0 of an even size is
    /// (H * 3/2, W); everything else is one row of bytes, to be taken apart by the plane offsets and strides.
    pub(crate) fn of(geometry: &Geometry) -> Self {
        Self::shaped(geometry).filter(|picture| picture.fits(geometry.len)).unwrap_or_else(|| Self::flat(geometry.len))
    }

    /// What the arrays of a format are made of.
    pub(crate) const fn item_of(format: PixelFormat) -> Item {
        match format {
            PixelFormat::RgbPlanarF32 => Item::F32,
            _ => Item::U8,
        }
    }

    fn shaped(geometry: &Geometry) -> Option<Self> {
        let (height, width) = (isize::try_from(geometry.height).ok()?, isize::try_from(geometry.width).ok()?);
        let stride = isize::try_from(geometry.plane_strides[0]).ok()?;
        let offset = usize::try_from(geometry.plane_offsets[0]).ok()?;
        let packed = |channels: isize| Self {
            item: Item::U8,
            offset,
            ndim: 3,
            shape: [height, width, channels],
            strides: [stride, channels, 1],
        };
        let rows =
            |rows: isize| Self { item: Item::U8, offset, ndim: 2, shape: [rows, width, 0], strides: [stride, 1, 0] };
        match geometry.format {
            PixelFormat::Bgr | PixelFormat::Rgb => Some(packed(3)),
            PixelFormat::Bgra | PixelFormat::Rgba => Some(packed(4)),
            PixelFormat::Gray => Some(rows(height)),
            PixelFormat::I420 | PixelFormat::Nv12 => {
                let tight = Geometry::packed(geometry.width, geometry.height, geometry.format);
                let even = width % 2 == 0 && height % 2 == 0;
                (even && tight == Some(*geometry)).then(|| rows(height / 2 * 3))
            }
            PixelFormat::RgbPlanarF32 => {
                let [red, green, blue, _] = geometry.plane_offsets.map(i64::from);
                let [s0, s1, s2, _] = geometry.plane_strides;
                let plane = isize::try_from(green - red).ok()?;
                let regular = blue - green == green - red && s0 == s1 && s1 == s2;
                let picture =
                    Self { item: Item::F32, offset, ndim: 3, shape: [3, height, width], strides: [plane, stride, 4] };
                regular.then_some(picture)
            }
            _ => None,
        }
    }

    fn flat(len: u64) -> Self {
        let len = isize::try_from(len).unwrap_or(0);
        Self { item: Item::U8, offset: 0, ndim: 1, shape: [len, 0, 0], strides: [1, 0, 0] }
    }

    /// Whether every item lies inside `len` bytes, computed without overflow.
    fn fits(&self, len: u64) -> bool {
        let last = (0..self.ndim).try_fold(self.offset as i128, |at, dimension| {
            let (count, stride) = (self.shape[dimension], self.strides[dimension]);
            (count > 0 && stride > 0).then(|| at + (count as i128 - 1) * stride as i128)
        });
        last.is_some_and(|last| last + self.item.bytes() as i128 <= i128::from(len))
    }

    pub(crate) fn shape(&self) -> &[isize] {
        &self.shape[..self.ndim]
    }

    /// Bytes of all items, without the padding between rows.
    pub(crate) fn bytes(&self) -> isize {
        self.shape().iter().product::<isize>() * self.item.bytes()
    }

    /// Whether there is no padding between the items.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = self.item.bytes();
        (0..self.ndim).rev().all(|dimension| {
            let tight = self.strides[dimension] == expected;
            expected *= self.shape[dimension];
            tight
        })
    }
}
