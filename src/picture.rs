//! A decoded picture whose planes were checked against its size: its parts, its fields, its last rows.

use camring_ring::frame::FrameFlags;
use zerocopy::FromBytes;

use crate::convert::ConvertError;
use crate::source::{FrameRef, Plane, Rect, SourceLayout};

/// A picture, every plane of which holds the rows that its size needs.
#[derive(Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) layout: SourceLayout,
    pub(crate) planes: [Plane<'a>; 3],
    /// Woven of two fields.
    pub(crate) interlaced: bool,
}

impl<'a> Picture<'a> {
    /// The picture of `frame`; one of [`SourceLayout::Other`] has no planes.
    pub(crate) fn of(frame: &FrameRef<'a>) -> Result<Self, ConvertError> {
        let (width, height) = (frame.width, frame.height);
        let interlaced = frame.flags.contains(FrameFlags::INTERLACED);
        Self::new(frame.layout, (width, height), frame.planes, interlaced)
    }

    /// A picture of `planes`; neither side of `size` may be 0.
    pub(crate) fn new(
        layout: SourceLayout,
        (width, height): (u32, u32),
        planes: &[Plane<'a>],
        interlaced: bool,
    ) -> Result<Self, ConvertError> {
        let none = Plane { bytes: &[], stride: 0 };
        if width == 0 || height == 0 {
            return Err(ConvertError::Empty(width, height));
        }
        let mut picture = Self { width, height, layout, planes: [none; 3], interlaced };
        for plane in 0..picture.plane_count() {
            let (row_bytes, rows) = picture.extent(plane);
            let found = planes.get(plane).copied().unwrap_or(none);
            let expected = found.stride as usize * (rows - 1) + row_bytes;
            if (found.stride as usize) < row_bytes || found.bytes.len() < expected {
                let expected = expected.max(row_bytes * rows);
                return Err(ConvertError::Plane { plane, found: found.bytes.len(), stride: found.stride, expected });
            }
            picture.planes[plane] = found;
        }
        Ok(picture)
    }

    pub(crate) fn plane_count(&self) -> usize {
        plane_count(self.layout)
    }

    /// Bytes in a row of a plane, and its rows; neither is 0.
    pub(crate) fn extent(&self, plane: usize) -> (usize, usize) {
        let (samples, channels, rows) = samples(self.layout, plane, (self.width, self.height));
        (samples * channels * self.sample_bytes(), rows)
    }

    pub(crate) fn sample_bytes(&self) -> usize {
        if matches!(self.layout, SourceLayout::I010 | SourceLayout::I210 | SourceLayout::P010) { 2 } else { 1 }
    }

    /// Whether samples of two bytes lie at even addresses, as GStreamer's own memory always does, in rows of an even
    /// width: of odd ones, which no encoder here makes, `yuv` 0.8.20 panics at some.
    pub(crate) fn is_for_the_fast_converter(&self) -> bool {
        let aligned = || self.planes[..self.plane_count()].iter().all(|plane| words(*plane).is_some());
        self.sample_bytes() == 1 || (self.width.is_multiple_of(2) && aligned())
    }

    /// The pixels of `part`, which must lie inside and, where chroma is shared, begin at even numbers.
    pub(crate) fn part(&self, part: Rect) -> Picture<'a> {
        if part == (Rect { x: 0, y: 0, width: self.width, height: self.height }) {
            return *self;
        }
        let mut cut = Self { width: part.width, height: part.height, ..*self };
        for plane in 0..self.plane_count() {
            let (across, channels, down) = samples(self.layout, plane, (self.width, self.height));
            let halved = |full: u32, found: usize| if found < full as usize { 2 } else { 1 };
            let x = part.x as usize / halved(self.width, across) * channels * self.sample_bytes();
            let y = part.y as usize / halved(self.height, down);
            let Plane { bytes, stride } = self.planes[plane];
            let start = y * stride as usize + x;
            let end = (start + stride as usize * cut.extent(plane).1).min(bytes.len());
            cut.planes[plane] = Plane { bytes: &bytes[start..end], stride };
        }
        cut
    }

    /// The two fields of a woven picture, where chroma rows belong to one field each; `None` = to be converted whole.
    ///
    /// With chroma at full height each row of a woven picture has its own chroma already.
    pub(crate) fn fields(&self) -> Option<[Picture<'a>; 2]> {
        let halved = self.plane_count() > 1 && self.extent(1).1 < self.height as usize;
        if !halved || !self.interlaced || !self.height.is_multiple_of(4) {
            return None;
        }
        Some([0, 1].map(|first| {
            let mut field = Self { height: self.height / 2, ..*self };
            for plane in &mut field.planes[..self.plane_count()] {
                *plane = Plane { bytes: &plane.bytes[plane.stride as usize * first..], stride: plane.stride * 2 };
            }
            field
        }))
    }

    /// Converts the picture whole when every plane has all bytes of its last row's stride, else the last rows one by one.
    ///
    /// Some functions of `yuv` walk whole strides and would leave out a last row that ends with its last pixel. The
    /// target's rows are `target_stride` bytes apart and have `row_bytes` of the picture.
    pub(crate) fn in_bands(
        &self,
        rows: &mut [u8],
        (target_stride, row_bytes): (usize, usize),
        convert: impl Fn(&Picture<'_>, &mut [u8], usize) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let whole = (0..self.plane_count()).all(|plane| {
            let rows = self.extent(plane).1;
            self.planes[plane].bytes.len() >= self.planes[plane].stride as usize * rows
        });
        if whole && rows.len() >= target_stride * self.height as usize {
            return convert(
                &self.band(0, self.height),
                &mut rows[..target_stride * self.height as usize],
                target_stride,
            );
        }
        let head = (self.height - 1) & !1;
        let (head_rows, tail_rows) = rows.split_at_mut(target_stride * head as usize);
        if head > 0 {
            convert(&self.band(0, head), head_rows, target_stride)?;
        }
        (head..self.height)
            .zip(tail_rows.chunks_mut(target_stride))
            .try_for_each(|(row, target)| convert(&self.band(row, 1), &mut target[..row_bytes], row_bytes))
    }

    /// `height` rows from `first` (which is even, unless `height` is 1), every plane cut to exactly these.
    fn band(&self, first: u32, height: u32) -> Picture<'a> {
        let mut band = Self { height, ..*self };
        for plane in 0..self.plane_count() {
            let Plane { bytes, stride } = self.planes[plane];
            let halved = self.extent(plane).1 < self.height as usize;
            let first = if halved { first as usize / 2 } else { first as usize };
            let (row_bytes, rows) = band.extent(plane);
            let start = stride as usize * first;
            let stride = if rows == 1 { row_bytes } else { stride as usize };
            band.planes[plane] = Plane { bytes: &bytes[start..start + stride * rows], stride: stride as u32 };
        }
        band
    }
}

/// Planes of a layout.
pub(crate) fn plane_count(layout: SourceLayout) -> usize {
    match layout {
        SourceLayout::I420 | SourceLayout::I422 | SourceLayout::I444 | SourceLayout::I010 | SourceLayout::I210 => 3,
        SourceLayout::Nv12 | SourceLayout::P010 => 2,
        SourceLayout::Gray8 | SourceLayout::Bgr | SourceLayout::Rgb => 1,
        SourceLayout::Other => 0,
    }
}

/// Samples in a row of a plane, channels of a sample, and rows, of a picture of this size.
pub(crate) fn samples(layout: SourceLayout, plane: usize, (width, height): (u32, u32)) -> (usize, usize, usize) {
    let (width, height) = (width as usize, height as usize);
    match (layout, plane) {
        (SourceLayout::Bgr | SourceLayout::Rgb, _) => (width, 3, height),
        (SourceLayout::Nv12 | SourceLayout::P010, 1) => (width.div_ceil(2), 2, height.div_ceil(2)),
        (SourceLayout::I420 | SourceLayout::I010, 1..) => (width.div_ceil(2), 1, height.div_ceil(2)),
        (SourceLayout::I422 | SourceLayout::I210, 1..) => (width.div_ceil(2), 1, height),
        _ => (width, 1, height),
    }
}

/// The samples of a plane of two bytes each and the samples from one row to the next; `None` when they are not aligned.
pub(crate) fn words(plane: Plane<'_>) -> Option<(&[u16], u32)> {
    let even = &plane.bytes[..plane.bytes.len() & !1];
    let samples = <[u16]>::ref_from_bytes(even).ok()?;
    plane.stride.is_multiple_of(2).then_some((samples, plane.stride / 2))
}
