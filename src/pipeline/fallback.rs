//! GstVideoConverter: for formats that the fast converter has no function for, and for scaling.
//!
//! A slot cannot be wrapped into a GStreamer buffer without `unsafe`, so it writes into one buffer of its own, kept
//! from picture to picture, and the rows are copied from there: one more pass over the target, on a path that costs
//! ten times the fast one anyway. A scaled picture in the decoder's own format is converted from that buffer.

use std::cell::RefCell;

use camring_ring::frame::{Color, PixelFormat};
use gst_video::prelude::*;
use gst_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoConverter, VideoConverterConfig,
    VideoFormat, VideoFrameRef, VideoInfo, VideoResamplerMethod, VideoTransferFunction,
};

use super::sample;
use crate::source::{Fallback, Plane, SourceLayout};

/// What is kept from picture to picture of one format.
#[derive(Default)]
pub(super) struct Scratch(Option<Ready>);

/// What comes out of a converter.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Wanted {
    format: VideoFormat,
    size: (u32, u32),
}

struct Ready {
    wanted: Wanted,
    converter: VideoConverter,
    out: VideoInfo,
    /// Nobody else has a reference, so it is written anew for every picture.
    buffer: gst::Buffer,
}

impl Scratch {
    /// Drops everything; to be called when the source format changes.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    fn ready(&mut self, source: &VideoInfo, color: Color, wanted: Wanted) -> Result<&mut Ready, String> {
        if self.0.as_ref().is_none_or(|ready| ready.wanted != wanted) {
            self.0 = Some(Ready::new(source, color, wanted)?);
        }
        Ok(self.0.as_mut().expect("set in the line above"))
    }
}

impl Ready {
    fn new(source: &VideoInfo, color: Color, wanted: Wanted) -> Result<Self, String> {
        let (name, Wanted { format, size }) = (source.name(), wanted);
        let cannot = |what: &str| {
            let (width, height) = size;
            format!("cannot convert {name} pictures into {} of {width}x{height}: {what}", format.to_str())
        };
        let described = colorimetry(color);
        let source = VideoInfo::builder(source.format(), source.width(), source.height())
            .fps(source.fps())
            .interlace_mode(source.interlace_mode())
            .chroma_site(source.chroma_site())
            .colorimetry_if(&described, !source.is_rgb())
            .build()
            .map_err(|_| cannot("its format is not understood"))?;
        let same = format == source.format();
        let out = VideoInfo::builder(format, size.0, size.1)
            .fps(source.fps())
            .interlace_mode(source.interlace_mode())
            .chroma_site_if(source.chroma_site(), same)
            .colorimetry_if(&described, same && !source.is_rgb())
            .build()
            .map_err(|_| cannot("the target is not understood"))?;
        let mut config = VideoConverterConfig::new();
        // As many source pixels as a target pixel covers; two, the fastest, would lose thin lines.
        config.set_resampler_method(VideoResamplerMethod::Linear);
        let converter = VideoConverter::new(&source, &out, Some(config)).map_err(|error| cannot(&error.message))?;
        let buffer = gst::Buffer::with_size(out.size()).map_err(|_| cannot("no memory"))?;
        Ok(Self { wanted, converter, out, buffer })
    }

    /// Converts `picture` into the buffer.
    fn run(&mut self, picture: &VideoFrameRef<&gst::BufferRef>) -> Result<VideoFrameRef<&mut gst::BufferRef>, String> {
        let failed = |_| "the slow converter's buffer cannot be mapped".to_owned();
        let buffer = self.buffer.make_mut();
        let mut target = VideoFrameRef::from_buffer_ref_writable(buffer, &self.out).map_err(failed)?;
        self.converter.frame_ref(picture, &mut target);
        Ok(target)
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
    pub layout: SourceLayout,
    pub color: Color,
    pub scratch: &'a RefCell<Scratch>,
}

impl Fallback for SlowPath<'_> {
    fn convert_into(&self, format: PixelFormat, size: (u32, u32), rows: &mut [u8]) -> Result<(), String> {
        let packed = match format {
            PixelFormat::Bgr => VideoFormat::Bgr,
            PixelFormat::Rgb => VideoFormat::Rgb,
            _ => return Err(format!("cannot convert into {format}; packed bgr and rgb are possible")),
        };
        let row_bytes = size.0 as usize * 3;
        let expected = row_bytes * size.1 as usize;
        if rows.len() != expected {
            return Err(format!("the target has {} bytes, the picture needs {expected}", rows.len()));
        }
        let mut scratch = self.scratch.try_borrow_mut().map_err(|_| "the slow converter is in use".to_owned())?;
        let ready = scratch.ready(self.picture.info(), self.color, Wanted { format: packed, size })?;
        let target = ready.run(self.picture)?;
        let stride = target.plane_stride()[0].unsigned_abs() as usize;
        let converted = target.plane_data(0).map_err(|_| "the slow converter wrote no plane".to_owned())?;
        for (from, to) in converted.chunks(stride).zip(rows.chunks_exact_mut(row_bytes)) {
            to.copy_from_slice(&from[..row_bytes]);
        }
        Ok(())
    }

    fn scaled(&self, size: (u32, u32), with: &mut dyn FnMut(&[Plane<'_>])) -> Result<(), String> {
        let mut scratch = self.scratch.try_borrow_mut().map_err(|_| "the slow converter is in use".to_owned())?;
        let wanted = Wanted { format: self.picture.format(), size };
        let ready = scratch.ready(self.picture.info(), self.color, wanted)?;
        let target = ready.run(self.picture)?;
        let (planes, count) = sample::planes(&target, self.layout);
        with(&planes[..count]);
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
        let size = (info.width(), info.height());
        SlowPath { picture: &picture, layout: SourceLayout::Other, color: BT709, scratch }.convert_into(
            PixelFormat::Bgr,
            size,
            rows,
        )
    }

    /// Where the kept buffer's memory is.
    fn kept(scratch: &RefCell<Scratch>) -> usize {
        let scratch = scratch.borrow();
        let buffer = &scratch.0.as_ref().expect("a converter").buffer;
        buffer.map_readable().expect("readable").as_ptr().addr()
    }

    #[test]
    fn the_buffer_of_the_first_picture_is_used_for_the_later_ones() {
        gst::init().expect("GStreamer");
        let (buffer, info) = gray(VideoFormat::Y44410le, 64, 64, &502u16.to_le_bytes());
        let (scratch, mut rows) = (RefCell::default(), vec![0; 64 * 64 * 3]);
        convert(&buffer, &info, &scratch, &mut rows).expect("it converts");
        let first = kept(&scratch);
        for _ in 0..20 {
            convert(&buffer, &info, &scratch, &mut rows).expect("it converts");
            // Whoever frees and allocates instead gets other memory sooner or later: this takes what was freed.
            let other = gst::Buffer::with_size(info.size()).expect("memory");
            assert_eq!(kept(&scratch), first);
            drop(other);
        }
    }

    #[test]
    fn a_scaled_picture_keeps_its_format_and_its_colours() {
        gst::init().expect("GStreamer");
        let info = VideoInfo::builder(VideoFormat::I420, 64, 48).fps((25, 1)).build().expect("a picture");
        // Left half dark, right half bright, one colour.
        let luma = |at: usize| if at % 64 < 32 { 40 } else { 200 };
        let bytes: Vec<u8> = (0..info.size())
            .map(|at| {
                if at < 64 * 48 {
                    luma(at)
                } else if at < 64 * 60 {
                    90
                } else {
                    170
                }
            })
            .collect();
        let buffer = gst::Buffer::from_slice(bytes);
        let picture = VideoFrameRef::from_buffer_ref_readable(&buffer, &info).expect("a picture");
        let scratch = RefCell::default();
        let slow = SlowPath { picture: &picture, layout: SourceLayout::I420, color: BT709, scratch: &scratch };
        let mut seen = 0;
        slow.scaled((32, 24), &mut |planes| {
            seen += 1;
            let at = |plane: usize, x: usize, y: usize| planes[plane].bytes[y * planes[plane].stride as usize + x];
            assert_eq!((at(0, 4, 4), at(0, 28, 20)), (40, 200));
            assert_eq!((at(1, 4, 4), at(2, 4, 4)), (90, 170));
        })
        .expect("it scales");
        assert_eq!(seen, 1);
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
