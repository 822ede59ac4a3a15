//! GstVideoConverter: for formats that the fast way has no function for.
//!
//! A slot cannot be wrapped into a GStreamer buffer without `unsafe`, so it writes into a buffer of its own, kept from
//! picture to picture, and the rows are copied from there: one more pass over the target, on a path that costs ten times
//! the fast one anyway.

use std::cell::RefCell;

use camring_ring::frame::{Color, PixelFormat};
use gst_video::prelude::*;
use gst_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoConverter, VideoConverterConfig,
    VideoFormat, VideoFrameRef, VideoInfo, VideoResamplerMethod, VideoTransferFunction,
};

use crate::paint::stored_color;
use crate::source::{Fallback, PlaneMut, Rect};

/// Converters kept at most: one for each output of a camera that has several of them.
const KEPT_MAX: usize = 16;

/// What is kept from picture to picture of one source format.
#[derive(Default)]
pub(super) struct Scratch(Vec<Ready>);

/// What comes out of a converter.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Wanted {
    format: VideoFormat,
    part: Rect,
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
        self.0.clear();
    }

    fn ready(&mut self, source: &VideoInfo, color: Color, wanted: Wanted) -> Result<&mut Ready, String> {
        let known = self.0.iter().position(|ready| ready.wanted == wanted);
        let at = match known {
            Some(at) => at,
            None => {
                let ready = Ready::new(source, color, wanted)?;
                if self.0.len() == KEPT_MAX {
                    self.0.remove(0);
                }
                self.0.push(ready);
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[at])
    }
}

impl Ready {
    fn new(source: &VideoInfo, color: Color, wanted: Wanted) -> Result<Self, String> {
        let (name, Wanted { format, part, size }) = (source.name(), wanted);
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
        let gray = stored_color(color, PixelFormat::I420, source.height());
        let target = match format {
            VideoFormat::I420 => Some(colorimetry(stored_color(color, PixelFormat::I420, source.height()))),
            VideoFormat::Nv12 => Some(colorimetry(stored_color(color, PixelFormat::Nv12, source.height()))),
            VideoFormat::Gray8 => Some(colorimetry(Color { full_range: color.full_range, ..gray })),
            _ => None,
        };
        let yuv = matches!(format, VideoFormat::I420 | VideoFormat::Nv12) && source.is_yuv();
        let out = VideoInfo::builder(format, size.0, size.1)
            .fps(source.fps())
            .interlace_mode(source.interlace_mode())
            .chroma_site_if(source.chroma_site(), yuv)
            .colorimetry_if_some(target.as_ref())
            .build()
            .map_err(|_| cannot("the target is not understood"))?;
        let mut config = VideoConverterConfig::new();
        // As many source pixels as a target pixel covers; two, the fastest, would lose thin lines.
        config.set_resampler_method(VideoResamplerMethod::Linear);
        if (part.width, part.height) != (source.width(), source.height()) {
            let [x, y, width, height] = [part.x, part.y, part.width, part.height].map(|side| side as i32);
            config.set_src_x(x);
            config.set_src_y(y);
            config.set_src_width(Some(width));
            config.set_src_height(Some(height));
        }
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
    pub color: Color,
    pub scratch: &'a RefCell<Scratch>,
}

impl Fallback for SlowPath<'_> {
    fn convert_into(
        &self,
        format: PixelFormat,
        part: Rect,
        size: (u32, u32),
        planes: &mut [PlaneMut<'_>],
    ) -> Result<(), String> {
        let (wide, high) = (size.0 as usize, size.1 as usize);
        let half = (wide.div_ceil(2), high.div_ceil(2));
        // Bytes of a row and rows of each plane.
        let (video, extents): (_, &[(usize, usize)]) = match format {
            PixelFormat::Bgr => (VideoFormat::Bgr, &[(wide * 3, high)]),
            PixelFormat::Rgb => (VideoFormat::Rgb, &[(wide * 3, high)]),
            PixelFormat::Rgba => (VideoFormat::Rgba, &[(wide * 4, high)]),
            PixelFormat::Gray => (VideoFormat::Gray8, &[(wide, high)]),
            PixelFormat::I420 => (VideoFormat::I420, &[(wide, high), half, half]),
            PixelFormat::Nv12 => (VideoFormat::Nv12, &[(wide, high), (half.0 * 2, half.1)]),
            _ => return Err(format!("cannot convert into {format}; packed pixels and 4:2:0 are possible")),
        };
        for ((row_bytes, rows), plane) in extents.iter().zip(planes.iter()) {
            let expected = plane.stride * (rows - 1) + row_bytes;
            if plane.bytes.len() < expected {
                return Err(format!("the target has {} bytes, the picture needs {expected}", plane.bytes.len()));
            }
        }
        let mut scratch = self.scratch.try_borrow_mut().map_err(|_| "the slow converter is in use".to_owned())?;
        let ready = scratch.ready(self.picture.info(), self.color, Wanted { format: video, part, size })?;
        let converted = ready.run(self.picture)?;
        for (number, ((row_bytes, rows), plane)) in extents.iter().zip(planes.iter_mut()).enumerate() {
            let stride = converted.plane_stride()[number].unsigned_abs() as usize;
            let none = |_| "the slow converter wrote no such plane".to_owned();
            let source = converted.plane_data(number as u32).map_err(none)?;
            for (from, to) in source.chunks(stride).zip(plane.bytes.chunks_mut(plane.stride)).take(*rows) {
                to[..*row_bytes].copy_from_slice(&from[..*row_bytes]);
            }
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
        let size = (info.width(), info.height());
        let part = Rect { x: 0, y: 0, width: size.0, height: size.1 };
        let planes = &mut [PlaneMut { bytes: rows, stride: size.0 as usize * 3 }];
        SlowPath { picture: &picture, color: BT709, scratch }.convert_into(PixelFormat::Bgr, part, size, planes)
    }

    /// Where the kept buffer's memory is.
    fn kept(scratch: &RefCell<Scratch>) -> usize {
        let scratch = scratch.borrow();
        let buffer = &scratch.0.first().expect("a converter").buffer;
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
    fn every_format_has_the_part_that_was_asked_for_in_the_colours_of_the_picture() {
        gst::init().expect("GStreamer");
        // Ten bits; the left half black, the right half a light gray of limited range: 800 of 1023.
        let info = VideoInfo::builder(VideoFormat::I42010le, 64, 32).fps((25, 1)).build().expect("a picture");
        let mut bytes = vec![0; info.size()];
        for plane in 0..3 {
            let (side, stride) = (if plane == 0 { 64 } else { 32 }, info.stride()[plane] as usize);
            for (row, x) in (0..side / 2).flat_map(|row| (0..side).map(move |x| (row, x))) {
                let value: u16 = if plane > 0 {
                    512
                } else if x < 32 {
                    64
                } else {
                    800
                };
                bytes[info.offset()[plane] + row * stride + x * 2..][..2].copy_from_slice(&value.to_le_bytes());
            }
        }
        let buffer = gst::Buffer::from_slice(bytes);
        let picture = VideoFrameRef::from_buffer_ref_readable(&buffer, &info).expect("a picture");
        let scratch = RefCell::default();
        let slow = SlowPath { picture: &picture, color: BT709, scratch: &scratch };
        let part = Rect { x: 40, y: 8, width: 16, height: 8 };
        // 800 of ten bits is 200 of eight, which is 214 on the scale of 0 to 255.
        for (format, expected) in [
            (PixelFormat::Bgr, 214),
            (PixelFormat::Rgba, 214),
            (PixelFormat::Gray, 200),
            (PixelFormat::I420, 200),
            (PixelFormat::Nv12, 200),
        ] {
            let (mut first, mut second, mut third) = (vec![0; 8 * 4 * 5], vec![0; 8 * 5], vec![0; 8 * 5]);
            let mut planes = [(&mut first, 40), (&mut second, 10), (&mut third, 10)]
                .map(|(bytes, stride)| PlaneMut { bytes, stride });
            slow.convert_into(format, part, (8, 4), &mut planes).unwrap_or_else(|error| panic!("{format}: {error}"));
            assert!(first[0].abs_diff(expected) <= 3, "{format}: {first:?}");
            if matches!(format, PixelFormat::I420 | PixelFormat::Nv12) {
                assert!(second[0].abs_diff(128) <= 1, "{format}: {second:?}");
            }
        }
        assert_eq!(scratch.borrow().0.len(), 5, "one converter for each");
    }

    #[test]
    fn pictures_of_red_green_and_blue_become_luma_and_chroma() {
        gst::init().expect("GStreamer");
        let color = Color { primaries: 1, transfer: 1, matrix: 0, full_range: 1 };
        let info = VideoInfo::builder(VideoFormat::Gbr, 32, 16).fps((25, 1)).build().expect("a picture");
        // Green 0, blue 0, red 255.
        let bytes: Vec<u8> = (0..info.size()).map(|at| if at < info.offset()[2] { 0 } else { 255 }).collect();
        let buffer = gst::Buffer::from_slice(bytes);
        let picture = VideoFrameRef::from_buffer_ref_readable(&buffer, &info).expect("a picture");
        let scratch = RefCell::default();
        let slow = SlowPath { picture: &picture, color, scratch: &scratch };
        let part = Rect { x: 0, y: 0, width: 32, height: 16 };
        // BT.601: red has luma 0.299, which is 81 in limited range and 76 in full.
        for (format, expected) in [(PixelFormat::I420, [81, 90, 240]), (PixelFormat::Gray, [76, 0, 0])] {
            let (mut first, mut second, mut third) = (vec![0; 512], vec![0; 128], vec![0; 128]);
            let mut planes = [(&mut first, 32), (&mut second, 16), (&mut third, 16)]
                .map(|(bytes, stride)| PlaneMut { bytes, stride });
            slow.convert_into(format, part, (32, 16), &mut planes).expect("it converts");
            let found = [first[0], second[0], third[0]];
            assert!(
                found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 2),
                "{format}: {found:?}"
            );
        }
    }

    #[test]
    fn a_target_of_another_size_is_refused() {
        gst::init().expect("GStreamer");
        let (buffer, info) = gray(VideoFormat::Yuy2, 16, 4, &[128]);
        let error = convert(&buffer, &info, &RefCell::default(), &mut [0; 16 * 4 * 3 - 1]).expect_err("too short");
        assert_eq!(error, "the target has 191 bytes, the picture needs 192");
    }
}
