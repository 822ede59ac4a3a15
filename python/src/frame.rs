//! `Frame`: the pixels of one picture and everything the ring says about it.

use camring_ring::{FrameFlags, FrameMeta, Lease, age_ns};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::dlpack;
use crate::errors::{read_error, revoked};
use crate::jpeg;
use crate::picture::Picture;
use crate::view::{Leased, Memory, Pixels};

/// One frame: pixels with their metadata; a copy that belongs to the caller, or leased in place.
///
/// `numpy.asarray(frame)`, `memoryview(frame)` and everything else that speaks the buffer protocol see the pixels
/// without a copy. Their memory stays as long as anybody uses it, whatever happens to the ring; a copy is the caller's
/// to change, a leased frame is read-only and the frame's own until `valid` says otherwise.
#[pyclass(frozen, extends = Pixels, module = "camring")]
pub(crate) struct Frame {
    frame: camring_ring::Frame,
    picture: Picture,
    /// The ring's name, for errors.
    ring: Box<str>,
    /// What the clock of another time namespace adds to the age, ns; `None` in the daemon's own.
    clock_shift_ns: Option<i64>,
}

impl Frame {
    pub(crate) fn new(
        py: Python<'_>,
        ring: &camring_ring::Ring,
        frame: camring_ring::Frame,
        memory: Memory,
    ) -> PyResult<Py<Self>> {
        let picture = Picture::of(&frame.meta.geometry);
        let age = ring.age(&frame.meta);
        let clock_shift_ns = age.approximate.then(|| age.ns.saturating_sub(age_ns(&frame.meta)));
        let pixels = PyClassInitializer::from(Pixels::new(memory, picture));
        Py::new(py, pixels.add_subclass(Self { frame, picture, ring: ring.name().into(), clock_shift_ns }))
    }

    pub(crate) fn leased(py: Python<'_>, ring: &camring_ring::Ring, lease: Lease) -> PyResult<Py<Self>> {
        Self::new(py, ring, *lease.frame(), Memory::Leased(Leased::new(lease).into()))
    }

    pub(crate) fn meta(&self) -> &FrameMeta {
        &self.frame.meta
    }

    /// Refuses what was read from a frame that has been overwritten.
    fn check_valid(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.as_super().get().is_valid() { Ok(()) } else { Err(slf.get().revoked(slf.py())) }
    }

    pub(crate) fn revoked(&self, py: Python<'_>) -> PyErr {
        revoked(py, &self.ring, self.frame.meta.seq)
    }

    fn has(&self, flag: FrameFlags) -> bool {
        self.frame.meta.flags.contains(flag)
    }
}

/// Which frame it is, and what it shows.
#[pymethods]
impl Frame {
    fn __repr__(&self) -> String {
        let (geometry, seq) = (&self.frame.meta.geometry, self.frame.meta.seq);
        let age = self.age();
        format!("<camring.Frame {seq}: {}x{} {}, {age:.3} s old>", geometry.width, geometry.height, geometry.format)
    }

    /// The pixels as a NumPy array, without a copy; writable unless the frame is leased.
    fn numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("numpy")?.call_method1("asarray", (slf,))
    }

    /// Where the point (x, y) of this picture lies in the camera's own picture: undoes crop, letterbox and scale.
    fn to_source(&self, x: f64, y: f64) -> PyResult<(f64, f64)> {
        let ((scale_x, scale_y), (offset_x, offset_y)) = (self.scale(), self.offset());
        if ![scale_x, scale_y].iter().all(|scale| scale.is_normal()) {
            let text = format!("frame {} has the scale {scale_x} x {scale_y}: no way back", self.seq());
            return Err(PyValueError::new_err(text));
        }
        Ok(((x - offset_x) / scale_x, (y - offset_y) / scale_y))
    }

    /// The picture as a JPEG file, quality 1 to 100; the interpreter lock is released meanwhile.
    #[pyo3(signature = (quality=85))]
    fn jpeg<'py>(slf: &Bound<'py, Self>, quality: u8) -> PyResult<Bound<'py, PyBytes>> {
        if !(1..=100).contains(&quality) {
            return Err(PyValueError::new_err(format!("quality is {quality}; expected 1 to 100")));
        }
        let (meta, pixels) = (*slf.get().meta(), slf.as_super().get());
        let file = slf.py().detach(|| jpeg::encode(&meta, &pixels.copy(), quality));
        Self::check_valid(slf)?;
        Ok(PyBytes::new(slf.py(), &file.map_err(PyValueError::new_err)?))
    }

    /// The pixels as a DLPack capsule, for `from_dlpack` of NumPy, PyTorch and others.
    ///
    /// A copy is shared and writable; a leased frame is shared read-only, which only consumers of DLPack 1.0 can be told
    /// (`BufferError` for older ones). copy=True: a copy of the pixels.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        slf: &Bound<'py, Self>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if stream.is_some() {
            return Err(PyBufferError::new_err(
                "a frame is in main memory, where there are no streams; pass stream=None",
            ));
        }
        if let Some(device) = dl_device.filter(|device| *device != dlpack::CPU) {
            let text = format!(
                "a frame is in main memory, device {:?}, not {device:?}; move the tensor afterwards",
                dlpack::CPU
            );
            return Err(PyBufferError::new_err(text));
        }
        let versioned = max_version.is_some_and(|(major, _)| major >= 1);
        let copied = copy == Some(true);
        let wish = dlpack::Wish { versioned, copied };
        let pixels = slf.as_super();
        if copied {
            let duplicate = pixels.get().duplicate(slf.py())?;
            Self::check_valid(slf)?;
            return dlpack::capsule(&duplicate, &wish);
        }
        dlpack::capsule(pixels, &wish)
    }

    /// `(1, 0)`: main memory.
    fn __dlpack_device__(&self) -> (i32, i32) {
        dlpack::CPU
    }

    /// Number of this frame; the first one of a ring is 1, numbers never repeat.
    #[getter]
    fn seq(&self) -> u64 {
        self.frame.meta.seq.0
    }

    /// Frames published since the one that the handle returned before, without this one; 0 for the first.
    #[getter]
    fn skipped(&self) -> u64 {
        self.frame.skipped
    }

    /// Seconds since the picture's last packet arrived, now; time suspended included.
    #[getter]
    fn age(&self) -> f64 {
        age_ns(&self.frame.meta).saturating_add(self.clock_shift_ns.unwrap_or(0)) as f64 / 1e9
    }

    /// Whether `age` was taken from the wall clock, because the daemon's other clocks are not this process's.
    #[getter]
    fn age_approximate(&self) -> bool {
        self.clock_shift_ns.is_some()
    }

    /// Whether the pixels are those of this frame, from when it was read up to now; a copy's always are.
    ///
    /// Also after the lease has ended: the writer may then use the memory for another frame at any time.
    #[getter]
    fn valid(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_valid()
    }

    /// Whether this frame is leased: shown in place and held against the writer.
    #[getter]
    fn is_leased(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_leased()
    }

    /// Whether the writer takes the lease into account at the moment; False for a copy, and for an ended lease.
    #[getter]
    fn is_guarded(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_guarded()
    }

    /// Ends the lease; `Revoked` when the frame was overwritten while it was leased. Nothing to do for a copy.
    ///
    /// Views keep their memory, which then may show another frame at any time; `valid` tells.
    fn release(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.as_super().get().end_lease().map_err(|error| read_error(slf.py(), &error))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Ends the lease: raises `Revoked` as `release` does, unless another exception is on its way; that one gets a note.
    fn __exit__(
        slf: &Bound<'_, Self>,
        _exception_type: &Bound<'_, PyAny>,
        exception: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match slf.as_super().get().end_lease() {
            Ok(()) => Ok(()),
            Err(error) if exception.is_none() => Err(read_error(slf.py(), &error)),
            Err(error) => exception.call_method1("add_note", (error.to_string(),)).map(drop),
        }
    }

    /// Identity of the ring's file that it was read from, 32 hexadecimal digits.
    #[getter]
    fn generation(&self) -> String {
        self.frame.generation.to_string()
    }

    /// Grows with each daemon that takes the ring over.
    #[getter]
    fn writer_epoch(&self) -> u32 {
        self.frame.meta.writer_epoch
    }

    /// Grows when size or format change within a generation.
    #[getter]
    fn geometry_epoch(&self) -> u32 {
        self.frame.meta.geometry_epoch
    }

    /// Grows with each session with the camera.
    #[getter]
    fn session_id(&self) -> u32 {
        self.frame.meta.session_id
    }

    /// Number of the decoded picture, equal in all outputs of a camera.
    #[getter]
    fn source_seq(&self) -> u64 {
        self.frame.meta.source_seq
    }

    /// Source pictures that were not published in this ring since its previous frame.
    #[getter]
    fn gap(&self) -> u32 {
        self.frame.meta.gap
    }

    /// Frames dropped in this ring before this one, since the ring was made.
    #[getter]
    fn dropped_before(&self) -> u64 {
        self.frame.meta.dropped_before
    }

    /// Pixels in a row.
    #[getter]
    fn width(&self) -> u32 {
        self.frame.meta.geometry.width
    }

    /// Rows.
    #[getter]
    fn height(&self) -> u32 {
        self.frame.meta.geometry.height
    }

    /// How the bytes are to be read: `bgr`, `rgb`, `gray`, ...
    #[getter]
    fn format(&self) -> String {
        self.frame.meta.geometry.format.to_string()
    }

    /// Shape of the buffer: (H, W, C), or (H, W) for grey.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.picture.shape())
    }

    /// Bytes from one row to the next in the first plane.
    #[getter]
    fn stride(&self) -> u32 {
        self.frame.meta.geometry.plane_strides[0]
    }

    /// First byte and bytes from row to row, by plane, counted from the payload's start.
    #[getter]
    fn planes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let geometry = &self.frame.meta.geometry;
        let count = geometry.plane_count.min(4) as usize;
        let planes = geometry.plane_offsets.iter().zip(geometry.plane_strides).take(count);
        PyTuple::new(py, planes.map(|(offset, stride)| (*offset, stride)).collect::<Vec<_>>())
    }

    /// Bytes of the payload.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.frame.meta.geometry.len
    }

    /// CRC-32C of the payload; 0 = not computed.
    #[getter]
    fn payload_crc32c(&self) -> u32 {
        self.frame.meta.payload_crc32c
    }

    /// When the picture's last packet arrived, ns of CLOCK_MONOTONIC (`time.monotonic_ns()`).
    #[getter]
    fn arrival_ns(&self) -> i64 {
        self.frame.meta.arrival_mono_ns
    }

    /// The same, ns since 1970; may jump with the system's clock.
    #[getter]
    fn arrival_unix_ns(&self) -> i64 {
        self.frame.meta.arrival_real_ns
    }

    /// When the decoder delivered the picture, ns of CLOCK_MONOTONIC.
    #[getter]
    fn decoded_ns(&self) -> i64 {
        self.frame.meta.decoded_mono_ns
    }

    /// When publishing it began, microseconds before readers could see it; ns of CLOCK_MONOTONIC.
    #[getter]
    fn publish_ns(&self) -> i64 {
        self.frame.meta.publish_mono_ns
    }

    /// The same, ns since 1970.
    #[getter]
    fn publish_unix_ns(&self) -> i64 {
        self.frame.meta.publish_real_ns
    }

    /// Presentation time within the session, ns.
    #[getter]
    fn pts_ns(&self) -> i64 {
        self.frame.meta.pts_ns
    }

    /// Nominal duration, ns; 0 = unknown.
    #[getter]
    fn duration_ns(&self) -> i64 {
        self.frame.meta.duration_ns
    }

    /// From arrival to the converter, ns.
    #[getter]
    fn lag_ns(&self) -> u64 {
        self.frame.meta.lag_ns
    }

    /// RTP time of the picture, 90 kHz for video.
    #[getter]
    fn rtp_timestamp(&self) -> u32 {
        self.frame.meta.rtp_timestamp
    }

    /// The camera's own clock, ns since 1970; None when it is not known.
    #[getter]
    fn source_unix_ns(&self) -> Option<i64> {
        self.frame.meta.source_unix_ns
    }

    /// Where `source_unix_ns` comes from: `none`, `rtcp_sr`, ...
    #[getter]
    fn time_source(&self) -> String {
        self.frame.meta.time_source.to_string()
    }

    /// Words of the flags that are set, in the order of their bits.
    #[getter]
    fn flags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.frame.meta.flags.words().collect::<Vec<_>>())
    }

    /// The flags as a number, bits without a word included.
    #[getter]
    fn flag_bits(&self) -> u32 {
        self.frame.meta.flags.0
    }

    /// Decodable on its own.
    #[getter]
    fn keyframe(&self) -> bool {
        self.has(FrameFlags::KEYFRAME)
    }

    /// First frame after a gap in time.
    #[getter]
    fn discont(&self) -> bool {
        self.has(FrameFlags::DISCONT)
    }

    /// Known to be damaged.
    #[getter]
    fn corrupt(&self) -> bool {
        self.has(FrameFlags::CORRUPT)
    }

    /// May show damage that the decoder concealed.
    #[getter]
    fn tainted(&self) -> bool {
        self.has(FrameFlags::TAINTED)
    }

    /// First frame of another size.
    #[getter]
    fn geometry_changed(&self) -> bool {
        self.has(FrameFlags::GEOMETRY_CHANGED)
    }

    /// First frame of another source format.
    #[getter]
    fn format_changed(&self) -> bool {
        self.has(FrameFlags::FORMAT_CHANGED)
    }

    /// First frame of a new session with the camera.
    #[getter]
    fn after_reconnect(&self) -> bool {
        self.has(FrameFlags::AFTER_RECONNECT)
    }

    /// First frame of a new daemon on this ring.
    #[getter]
    fn after_restart(&self) -> bool {
        self.has(FrameFlags::AFTER_RESTART)
    }

    /// Two fields woven into one picture.
    #[getter]
    fn interlaced(&self) -> bool {
        self.has(FrameFlags::INTERLACED)
    }

    /// The camera's time is implausible.
    #[getter]
    fn untrusted_time(&self) -> bool {
        self.has(FrameFlags::UNTRUSTED_TIME)
    }

    /// Not from a camera: a test picture, a file, or a program.
    #[getter]
    fn synthetic(&self) -> bool {
        self.has(FrameFlags::SYNTHETIC)
    }

    /// Scaled to its size.
    #[getter]
    fn scaled(&self) -> bool {
        self.has(FrameFlags::SCALED)
    }

    /// Colour description of the source, as code points of ITU-T H.273.
    #[getter]
    fn color<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let color = self.frame.meta.color;
        let class = py.import("camring._words")?.getattr("Color")?;
        class.call1((color.primaries, color.transfer, color.matrix, color.full_range != 0))
    }

    /// Pixel aspect ratio (width, height); (0, 0) = unknown.
    #[getter]
    fn pixel_aspect(&self) -> (u16, u16) {
        self.frame.meta.pixel_aspect
    }

    /// The decoder's own format.
    #[getter]
    fn source_format(&self) -> String {
        self.frame.meta.source_format.to_string()
    }

    /// Width of the decoded picture, pixels.
    #[getter]
    fn source_width(&self) -> u32 {
        self.frame.meta.source_size.0
    }

    /// Height of the decoded picture, pixels.
    #[getter]
    fn source_height(&self) -> u32 {
        self.frame.meta.source_size.1
    }

    /// Degrees that the picture was turned by.
    #[getter]
    fn rotation(&self) -> u32 {
        u32::from(self.frame.meta.rotation) * 90
    }

    /// How the picture was made to fit: `none`, `letterbox`, `stretch` or `crop`.
    #[getter]
    fn fit(&self) -> String {
        self.frame.meta.fit.to_string()
    }

    /// Output pixels per source pixel, x and y.
    #[getter]
    fn scale(&self) -> (f64, f64) {
        let (x, y) = self.frame.meta.scale;
        (f64::from(x), f64::from(y))
    }

    /// `x = x_source * scale + offset`, x and y.
    #[getter]
    fn offset(&self) -> (f64, f64) {
        let (x, y) = self.frame.meta.offset;
        (f64::from(x), f64::from(y))
    }

    /// Colour of the padding, in pixel order.
    #[getter]
    fn pad_color(&self) -> (u8, u8, u8, u8) {
        self.frame.meta.pad_color.into()
    }

    /// Float formats: value = byte * value_scale + value_offset.
    #[getter]
    fn value_scale(&self) -> f64 {
        f64::from(self.frame.meta.value_scale)
    }

    /// Float formats: value = byte * value_scale + value_offset.
    #[getter]
    fn value_offset(&self) -> f64 {
        f64::from(self.frame.meta.value_offset)
    }
}
