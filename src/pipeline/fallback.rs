//! The slow converter (GstVideoConverter) for formats that the fast one has no function for.
//!
//! A slot cannot be wrapped into a GStreamer buffer without `unsafe`, so it converts into one buffer of its own, kept
//! from picture to picture, and copies the rows from there: one more pass over the target, on a path that costs ten
//! times the fast one anyway.

use std::cell::RefCell;

use camring_ring::frame::{Color, PixelFormat};
use gst_video::prelude::*;
use gst_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoConverter, VideoFormat,
    VideoFrameRef, VideoInfo, VideoTransferFunction,
};

use crate::source::Fallback;

/// What is kept from picture to picture of one format.
#[derive(Default)]
pub(super) struct Scratch(Option<Ready>);

struct Ready {
    format: PixelFormat,
    converter: VideoConverter,
    out: VideoInfo,
    buffer: gst::Buffer,
}

impl Scratch {
    /// Drops everything; to be called when the source format changes.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    fn ready(&mut self, source: &VideoInfo, color: Color, format: PixelFormat) -> Result<&mut Ready, String> {
        if self.0.as_ref().is_none_or(|ready| ready.format != format) {
            self.0 = Some(Ready::new(source, color, format)?);
        }
        Ok(self.0.as_mut().expect("set in the line above"))
    }
}

impl Ready {
    fn new(source: &VideoInfo, color: Color, format: PixelFormat) -> Result<Self, String> {
        let name = source.name();
        let cannot = |what: &str| format!("cannot convert {name} pictures into {format}: {what}");
        let packed = match format {
            PixelFormat::Bgr => VideoFormat::Bgr,
            PixelFormat::Rgb => VideoFormat::Rgb,
            _ => return Err(cannot("packed bgr and rgb are possible")),
        };
        let described = colorimetry(color);
        let source = VideoInfo::builder(source.format(), source.width(), source.height())
            .fps(source.fps())
            .interlace_mode(source.interlace_mode())
            .chroma_site(source.chroma_site())
            .colorimetry_if(&described, !source.is_rgb())
            .build()
            .map_err(|_| cannot("its format is not understood"))?;
        let out = VideoInfo::builder(packed, source.width(), source.height())
            .fps(source.fps())
            .interlace_mode(source.interlace_mode())
            .build()
            .map_err(|_| cannot("the target is not understood"))?;
        let converter = VideoConverter::new(&source, &out, None).map_err(|error| cannot(&error.message))?;
        let buffer = gst::Buffer::with_size(out.size()).map_err(|_| cannot("no memory"))?;
        Ok(Self { format, converter, out, buffer })
    }
}

fn colorimetry(color: Color) -> VideoColorimetry {
    let range = if color.full_range == 1 { VideoColorRange::Range0_255 } else { VideoColorRange::Range16_235 };
    VideoColorimetry::new(
        range,
        VideoColorMatrix::from_iso(color.matrix.into()),
        VideoTransferFunction::from_iso(color.transfer.into()),
        VideoColorPrimaries::from_iso(color.primaries.into()),
    )
}

/// The slow way for one picture.
pub(super) struct SlowPath<'a> {
    pub picture: &'a VideoFrameRef<&'a gst::BufferRef>,
    pub color: Color,
    pub scratch: &'a RefCell<Scratch>,
}

impl Fallback for SlowPath<'_> {
    fn convert_into(&self, format: PixelFormat, rows: &mut [u8]) -> Result<(), String> {
        let mut scratch = self.scratch.try_borrow_mut().map_err(|_| "the slow converter is in use".to_owned())?;
        let ready = scratch.ready(self.picture.info(), self.color, format)?;
        let row_bytes = ready.out.width() as usize * 3;
        let expected = row_bytes * ready.out.height() as usize;
        if rows.len() != expected {
            return Err(format!("the target has {} bytes, the picture needs {expected}", rows.len()));
        }
        let failed = |_| "the slow converter's buffer cannot be mapped".to_owned();
        let buffer = ready.buffer.make_mut();
        let mut target = VideoFrameRef::from_buffer_ref_writable(buffer, &ready.out).map_err(failed)?;
        ready.converter.frame_ref(self.picture, &mut target);
        let stride = ready.out.stride()[0].unsigned_abs() as usize;
        let converted = target.plane_data(0).map_err(|_| "the slow converter wrote no plane".to_owned())?;
        for (from, to) in converted.chunks(stride).zip(rows.chunks_exact_mut(row_bytes)) {
            to.copy_from_slice(&from[..row_bytes]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BT709: Color = Color { primaries: 1, transfer: 1, matrix: 1, full_range: 0 };

    fn gray(format: VideoFormat, width: u32, height: u32, fill: &[u8]) -> (gst::Buffer, VideoInfo) {
        let info = VideoInfo::builder(format, width, height).fps((25, 1)).build().expect("a picture");
        let bytes: Vec<u8> = fill.iter().copied().cycle().take(info.size()).collect();
        (gst::Buffer::from_slice(bytes), info)
    }

    fn convert(
        buffer: &gst::BufferRef,
        info: &VideoInfo,
        scratch: &RefCell<Scratch>,
        rows: &mut [u8],
    ) -> Result<(), String> {
        let picture = VideoFrameRef::from_buffer_ref_readable(buffer, info).expect("a picture");
        SlowPath { picture: &picture, color: BT709, scratch }.convert_into(PixelFormat::Bgr, rows)
    }

    #[test]
    fn ten_bit_pictures_of_odd_width_fill_every_row() {
        gst::init().expect("GStreamer");
        // 502 of 1023 in ten bits: mid-gray in limited range, and neutral enough as chroma to stay gray within 10.
        let (buffer, info) = gray(VideoFormat::I42010le, 35, 7, &502u16.to_le_bytes());
        let scratch = RefCell::default();
        let mut rows = vec![0; 35 * 7 * 3];
        convert(&buffer, &info, &scratch, &mut rows).expect("it converts");
        assert!(rows.iter().all(|value| (110..=140).contains(value)), "{:?}", &rows[..6]);
        convert(&buffer, &info, &scratch, &mut rows).expect("again, with what was kept");
    }

    #[test]
    fn a_target_of_another_size_is_refused() {
        gst::init().expect("GStreamer");
        let (buffer, info) = gray(VideoFormat::Yuy2, 16, 4, &[128]);
        let error = convert(&buffer, &info, &RefCell::default(), &mut [0; 16 * 4 * 3 - 1]).expect_err("too short");
        assert_eq!(error, "the target has 191 bytes, the picture needs 192");
    }
}
