//! One frame as a file: JPEG, PNG, NumPy array or raw bytes.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use camring_ring::{FrameMeta, Geometry, PixelFormat};
use jpeg_encoder::ColorType;
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvPlanarImage, YuvRange, YuvStandardMatrix};

/// Above this height a source that does not say so is taken for BT.709, as broadcast practice has it.
const SD_HEIGHT_MAX: u32 = 576;
/// Bytes that a NumPy header is padded to.
const NPY_ALIGN: usize = 64;

/// What kind of file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum FileFormat {
    /// Lossy, small.
    Jpeg,
    /// Lossless; channels in the file's own order.
    Png,
    /// NumPy array, version 1.0: (height, width, channels) u1, channels in the ring's order.
    Npy,
    /// The pixels as they are in the ring, planes one after the other, rows without padding.
    Raw,
}

impl FileFormat {
    /// The format that a file's extension stands for.
    #[must_use]
    pub fn from_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "png" => Some(Self::Png),
            "npy" => Some(Self::Npy),
            "raw" | "bin" => Some(Self::Raw),
            _ => None,
        }
    }
}

/// Why a frame cannot be written in a format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The frame is no picture, or not one that the format can hold.
    #[error("a {pixels} frame of {width}x{height} cannot be written as {file}: {problem}; {remedy}")]
    Unsupported {
        /// The ring's format.
        pixels: PixelFormat,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The file's format.
        file: String,
        /// What is in the way.
        problem: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The bytes are not the picture that the metadata describes.
    #[error("the frame has {found} bytes but its metadata describe {expected}; read it again")]
    Length {
        /// Bytes given.
        found: usize,
        /// Bytes described.
        expected: u64,
    },
    /// An encoder failed.
    #[error("the {file} encoder failed: {source}")]
    Encoder {
        /// The file's format.
        file: String,
        /// The encoder's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Npy => "npy",
            Self::Raw => "raw",
        })
    }
}

/// A frame and its bytes, as a read has returned them.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// What the ring says about the frame.
    pub meta: &'a FrameMeta,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Snapshot<'_> {
    /// The bytes of a file; `quality` (1 to 100) is for JPEG alone.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`].
    pub fn encode(&self, format: FileFormat, quality: u8) -> Result<Vec<u8>, SnapshotError> {
        match format {
            FileFormat::Jpeg => self.jpeg_within(None, quality),
            FileFormat::Png => self.png(),
            FileFormat::Npy => self.npy(),
            FileFormat::Raw => Ok(self.tight(format)?.into_owned()),
        }
    }

    /// A JPEG of at most so many columns (`None` = as they are): a wider picture is averaged down by a whole number.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`].
    pub fn jpeg_within(&self, columns: Option<u32>, quality: u8) -> Result<Vec<u8>, SnapshotError> {
        let (pixels, order) = self.packed(FileFormat::Jpeg)?;
        let Geometry { width, height, .. } = self.meta.geometry;
        let factor = columns.map_or(1, |columns| width.div_ceil(columns.max(1)));
        let (pixels, width, height) = match factor {
            0 | 1 => (pixels, width, height),
            factor => (averaged(&pixels, width, height, factor).into(), width / factor, (height / factor).max(1)),
        };
        let (Ok(width), Ok(height)) = (u16::try_from(width), u16::try_from(height)) else {
            return Err(self.unsupported(FileFormat::Jpeg, "a side exceeds 65535 pixels", "use png, npy or raw"));
        };
        let mut file = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut file, quality.clamp(1, 100));
        encoder.encode(&pixels, width, height, order).map_err(|e| failed(FileFormat::Jpeg, e))?;
        Ok(file)
    }

    fn png(&self) -> Result<Vec<u8>, SnapshotError> {
        let (pixels, order) = self.packed(FileFormat::Png)?;
        let (pixels, color) = match order {
            ColorType::Luma => (pixels, png::ColorType::Grayscale),
            ColorType::Bgr => (swapped::<3>(&pixels), png::ColorType::Rgb),
            ColorType::Bgra => (swapped::<4>(&pixels), png::ColorType::Rgba),
            ColorType::Rgba => (pixels, png::ColorType::Rgba),
            _ => (pixels, png::ColorType::Rgb),
        };
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.meta.geometry.width, self.meta.geometry.height);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|e| failed(FileFormat::Png, e))?;
        writer.write_image_data(&pixels).map_err(|e| failed(FileFormat::Png, e))?;
        writer.finish().map_err(|e| failed(FileFormat::Png, e))?;
        Ok(file)
    }

    fn npy(&self) -> Result<Vec<u8>, SnapshotError> {
        let Geometry { width, height, format, .. } = self.meta.geometry;
        let even = width.is_multiple_of(2) && height.is_multiple_of(2);
        let (descr, shape) = match format {
            PixelFormat::Bgr | PixelFormat::Rgb => ("|u1", format!("({height}, {width}, 3)")),
            PixelFormat::Bgra | PixelFormat::Rgba => ("|u1", format!("({height}, {width}, 4)")),
            PixelFormat::Gray => ("|u1", format!("({height}, {width})")),
            // The shape that OpenCV's COLOR_YUV2BGR_I420 and _NV12 expect.
            PixelFormat::I420 | PixelFormat::Nv12 if even => ("|u1", format!("({}, {width})", height / 2 * 3)),
            PixelFormat::I420 | PixelFormat::Nv12 => {
                return Err(self.unsupported(FileFormat::Npy, "an odd side leaves no rectangle", "use png or raw"));
            }
            PixelFormat::RgbPlanarF32 => ("<f4", format!("(3, {height}, {width})")),
            _ => ("|u1", format!("({},)", self.meta.geometry.len)),
        };
        let tight = self.tight(FileFormat::Npy)?;
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let fixed = 10;
        let padded = (fixed + header.len() + 1).next_multiple_of(NPY_ALIGN) - fixed;
        header.push_str(&" ".repeat(padded - header.len() - 1));
        header.push('\n');
        let length = u16::try_from(header.len()).expect("a header of a few short fields");
        let mut file = Vec::with_capacity(fixed + header.len() + tight.len());
        file.extend_from_slice(b"\x93NUMPY\x01\x00");
        file.extend_from_slice(&length.to_le_bytes());
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&tight);
        Ok(file)
    }

    /// Packed 8-bit pixels and their order, for the image encoders.
    fn packed(&self, file: FileFormat) -> Result<(Cow<'_, [u8]>, ColorType), SnapshotError> {
        let tight = self.tight(file)?;
        Ok(match self.meta.geometry.format {
            PixelFormat::Bgr => (tight, ColorType::Bgr),
            PixelFormat::Rgb => (tight, ColorType::Rgb),
            PixelFormat::Gray => (tight, ColorType::Luma),
            PixelFormat::Bgra => (tight, ColorType::Bgra),
            PixelFormat::Rgba => (tight, ColorType::Rgba),
            PixelFormat::I420 | PixelFormat::Nv12 => (self.yuv_to_rgb(&tight, file)?.into(), ColorType::Rgb),
            PixelFormat::RgbPlanarF32 => (self.floats_to_rgb(&tight).into(), ColorType::Rgb),
            _ => return Err(self.unsupported(file, "it is no picture", "use raw or npy")),
        })
    }

    /// The planes one after the other, rows without padding; no copy when the ring has them so already.
    fn tight(&self, file: FileFormat) -> Result<Cow<'_, [u8]>, SnapshotError> {
        let geometry = &self.meta.geometry;
        let short = || SnapshotError::Length { found: self.payload.len(), expected: geometry.len };
        if !geometry.fits(self.payload.len() as u64) {
            return Err(short());
        }
        let len = usize::try_from(geometry.len).map_err(|_| short())?;
        if geometry.format == PixelFormat::Opaque {
            return Ok(self.payload[..len].into());
        }
        let packed = Geometry::packed(geometry.width, geometry.height, geometry.format);
        let packed = packed.ok_or_else(|| self.unsupported(file, "its format is unknown", "upgrade camring"))?;
        if packed == *geometry {
            return Ok(self.payload[..len].into());
        }
        let mut tight = Vec::with_capacity(usize::try_from(packed.len).unwrap_or(0));
        for plane in 0..packed.plane_count as usize {
            let (row_bytes, rows) = geometry.plane_extent(plane).ok_or_else(short)?;
            let stride = geometry.plane_strides[plane] as usize;
            let offset = geometry.plane_offsets[plane] as usize;
            for row in 0..rows as usize {
                let start = offset + row * stride;
                tight.extend_from_slice(self.payload.get(start..start + row_bytes as usize).ok_or_else(short)?);
            }
        }
        Ok(tight.into())
    }

    fn yuv_to_rgb(&self, tight: &[u8], file: FileFormat) -> Result<Vec<u8>, SnapshotError> {
        let Geometry { width, height, format, .. } = self.meta.geometry;
        let chroma_width = width.div_ceil(2);
        let (luma, chroma) = tight.split_at(width as usize * height as usize);
        let mut rgb = vec![0; width as usize * height as usize * 3];
        let range = if self.meta.color.full_range == 1 { YuvRange::Full } else { YuvRange::Limited };
        let matrix = matrix(self.meta.color.matrix, height);
        let result = if format == PixelFormat::I420 {
            let (u_plane, v_plane) = chroma.split_at(chroma.len() / 2);
            let image = YuvPlanarImage {
                y_plane: luma,
                y_stride: width,
                u_plane,
                u_stride: chroma_width,
                v_plane,
                v_stride: chroma_width,
                width,
                height,
            };
            yuv::yuv420_to_rgb(&image, &mut rgb, width * 3, range, matrix)
        } else {
            let (y_plane, y_stride, uv_stride) = (luma, width, chroma_width * 2);
            let image = YuvBiPlanarImage { y_plane, y_stride, uv_plane: chroma, uv_stride, width, height };
            yuv::yuv_nv12_to_rgb(&image, &mut rgb, width * 3, range, matrix, YuvConversionMode::Balanced)
        };
        result.map_err(|e| failed(file, e))?;
        Ok(rgb)
    }

    fn floats_to_rgb(&self, tight: &[u8]) -> Vec<u8> {
        let (scale, offset) = (self.meta.value_scale, self.meta.value_offset);
        let byte = |value: f32| ((value - offset) / scale).round().clamp(0.0, 255.0) as u8;
        let plane = tight.len() / 3;
        let mut rgb = vec![0; plane / 4 * 3];
        for (channel, floats) in tight.chunks_exact(plane.max(1)).enumerate() {
            for (pixel, bytes) in floats.chunks_exact(4).enumerate() {
                let value = f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                rgb[pixel * 3 + channel] = byte(value);
            }
        }
        rgb
    }

    fn unsupported(&self, file: FileFormat, problem: &'static str, remedy: &'static str) -> SnapshotError {
        let Geometry { width, height, format: pixels, .. } = self.meta.geometry;
        SnapshotError::Unsupported { pixels, width, height, file: file.to_string(), problem, remedy }
    }
}

fn failed(file: FileFormat, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SnapshotError {
    SnapshotError::Encoder { file: file.to_string(), source: source.into() }
}

/// Packed pixels averaged over squares of `factor`; what is left over at the right and at the bottom is left out.
fn averaged(pixels: &[u8], width: u32, height: u32, factor: u32) -> Vec<u8> {
    let channels = pixels.len() / (width as usize * height as usize).max(1);
    let (width, side) = (width as usize, factor as usize);
    let (columns, rows) = (width / side, (height as usize / side).max(1));
    let side_down = side.min(height as usize).max(1);
    let area = u32::try_from(side * side_down).unwrap_or(u32::MAX);
    let mut sums = vec![0_u32; columns * channels];
    let mut small = Vec::with_capacity(columns * rows * channels);
    for strip in pixels.chunks(width * channels * side_down).take(rows) {
        sums.fill(0);
        for row in strip.chunks(width * channels) {
            for (sum, square) in sums.chunks_exact_mut(channels).zip(row.chunks_exact(side * channels)) {
                for pixel in square.chunks_exact(channels) {
                    sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(*value));
                }
            }
        }
        small.extend(sums.iter().map(|sum| ((sum + area / 2) / area) as u8));
    }
    small
}

/// Exchanges the first and the third byte of every pixel of `N` bytes.
fn swapped<const N: usize>(pixels: &[u8]) -> Cow<'static, [u8]> {
    let mut out = pixels.to_vec();
    for pixel in out.chunks_exact_mut(N) {
        pixel.swap(0, 2);
    }
    out.into()
}

/// The matrix behind a code point of ITU-T H.273; a source that says nothing is judged by its height.
fn matrix(code: u8, height: u32) -> YuvStandardMatrix {
    match code {
        1 => YuvStandardMatrix::Bt709,
        5 | 6 => YuvStandardMatrix::Bt601,
        9 | 10 => YuvStandardMatrix::Bt2020,
        _ if height > SD_HEIGHT_MAX => YuvStandardMatrix::Bt709,
        _ => YuvStandardMatrix::Bt601,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(width: u32, height: u32, format: PixelFormat) -> FrameMeta {
        FrameMeta::new(Geometry::packed(width, height, format).unwrap())
    }

    fn decoded_png(file: &[u8]) -> (png::ColorType, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        pixels.truncate(info.buffer_size());
        (info.color_type, pixels)
    }

    fn png_of(meta: &FrameMeta, payload: &[u8]) -> (png::ColorType, Vec<u8>) {
        decoded_png(&Snapshot { meta, payload }.encode(FileFormat::Png, 0).unwrap())
    }

    #[test]
    fn png_holds_red_green_blue_whatever_the_ring_has() {
        let (bgr, rgb) = (meta(2, 1, PixelFormat::Bgr), meta(2, 1, PixelFormat::Rgb));
        assert_eq!(png_of(&bgr, &[1, 2, 3, 4, 5, 6]), (png::ColorType::Rgb, vec![3, 2, 1, 6, 5, 4]));
        assert_eq!(png_of(&rgb, &[1, 2, 3, 4, 5, 6]), (png::ColorType::Rgb, vec![1, 2, 3, 4, 5, 6]));
        let (bgra, rgba) = (meta(1, 1, PixelFormat::Bgra), meta(1, 1, PixelFormat::Rgba));
        assert_eq!(png_of(&bgra, &[1, 2, 3, 4]), (png::ColorType::Rgba, vec![3, 2, 1, 4]));
        assert_eq!(png_of(&rgba, &[1, 2, 3, 4]), (png::ColorType::Rgba, vec![1, 2, 3, 4]));
        let gray = meta(3, 1, PixelFormat::Gray);
        assert_eq!(png_of(&gray, &[7, 8, 9]), (png::ColorType::Grayscale, vec![7, 8, 9]));
    }

    #[test]
    fn floats_come_back_as_the_bytes_they_were_made_of() {
        let mut meta = meta(2, 1, PixelFormat::RgbPlanarF32);
        meta.value_scale = 1.0 / 255.0;
        let planes: Vec<u8> =
            [10u8, 20, 30, 40, 50, 60].iter().flat_map(|b| (f32::from(*b) / 255.0).to_ne_bytes()).collect();
        assert_eq!(png_of(&meta, &planes), (png::ColorType::Rgb, vec![10, 30, 50, 20, 40, 60]));
    }

    #[test]
    fn planar_and_semi_planar_red_are_red() {
        // BT.601 limited range: red is Y 81, U 90, V 240.
        let i420 = meta(3, 3, PixelFormat::I420);
        let payload = [[81; 9].as_slice(), &[90; 4], &[240; 4]].concat();
        let nv12 = meta(3, 3, PixelFormat::Nv12);
        let interleaved = [[81; 9].as_slice(), &[90, 240].repeat(4)].concat();
        for (meta, payload) in [(i420, payload), (nv12, interleaved)] {
            let (_, rgb) = png_of(&meta, &payload);
            assert_eq!(rgb.len(), 27);
            assert!(rgb.chunks(3).all(|p| p[0] > 250 && p[1] < 5 && p[2] < 5), "{rgb:?}");
        }
    }

    #[test]
    fn padded_rows_are_written_without_their_padding() {
        let mut meta = meta(2, 2, PixelFormat::Gray);
        (meta.geometry.plane_strides[0], meta.geometry.len) = (5, 10);
        let payload = [1, 2, 9, 9, 9, 3, 4, 9, 9, 9];
        let raw = Snapshot { meta: &meta, payload: &payload }.encode(FileFormat::Raw, 0).unwrap();
        assert_eq!(raw, [1, 2, 3, 4]);
    }

    #[test]
    fn an_array_file_has_a_header_of_whole_lines_and_the_rings_own_order() {
        let meta = meta(3, 2, PixelFormat::Bgr);
        let payload: Vec<u8> = (0..18).collect();
        let file = Snapshot { meta: &meta, payload: &payload }.encode(FileFormat::Npy, 0).unwrap();
        assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
        let header_end = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert_eq!(header_end % 64, 0);
        let header = std::str::from_utf8(&file[10..header_end]).unwrap();
        assert!(header.starts_with("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 3), }"), "{header}");
        assert!(header.ends_with('\n'));
        assert_eq!(file[header_end..], payload);
    }

    #[test]
    fn a_wide_picture_is_averaged_down_by_a_whole_number() {
        let rgb: Vec<u8> = (0..6 * 4).flat_map(|n| [n as u8 * 10, 7, 250]).collect();
        let small = averaged(&rgb, 6, 4, 2);
        // Of the first square: 0, 10, 60, 70.
        assert_eq!((small.len(), &small[..6]), (3 * 2 * 3, &[35, 7, 250, 55, 7, 250][..]));
        assert_eq!(averaged(&[1, 2, 3, 4, 5, 6, 7], 7, 1, 3), [2, 5], "one row, and a rest at the right");
        let meta = meta(1000, 10, PixelFormat::Gray);
        let file = Snapshot { meta: &meta, payload: &[9; 10_000] }.jpeg_within(Some(400), 90).unwrap();
        let header = file.windows(9).find(|bytes| bytes[..2] == [0xFF, 0xC0]).expect("a frame header");
        let side = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        assert_eq!((side(7), side(5)), (333, 3));
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused_with_a_remedy() {
        let odd = meta(3, 3, PixelFormat::I420);
        let error = Snapshot { meta: &odd, payload: &[0; 17] }.encode(FileFormat::Npy, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a i420 frame of 3x3 cannot be written as npy: an odd side leaves no rectangle; use png or raw"
        );
        let wide = meta(70_000, 1, PixelFormat::Gray);
        let error = Snapshot { meta: &wide, payload: &[0; 70_000] }.encode(FileFormat::Jpeg, 90).unwrap_err();
        assert!(error.to_string().contains("65535"), "{error}");
        let short = Snapshot { meta: &wide, payload: &[0; 10] }.encode(FileFormat::Raw, 0).unwrap_err();
        assert!(short.to_string().contains("has 10 bytes"), "{short}");
    }

    #[test]
    fn the_extension_chooses_the_format() {
        let chosen = ["a.jpg", "a.JPEG", "a.png", "a.npy", "a.raw", "a.tiff", "a"];
        let found = chosen.map(|name| FileFormat::from_path(Path::new(name)));
        let jpeg = Some(FileFormat::Jpeg);
        let rest = [Some(FileFormat::Png), Some(FileFormat::Npy), Some(FileFormat::Raw), None, None];
        assert_eq!((&found[..2], &found[2..]), (&[jpeg, jpeg][..], &rest[..]));
    }
}
