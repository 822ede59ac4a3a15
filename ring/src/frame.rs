//! What a frame is: its picture layout, its metadata, and the words for states, reasons and formats.

use std::fmt;

/// Defines an enum whose numbers are part of the byte layout and whose words every surface prints.
macro_rules! coded_words {
    ($(#[$meta:meta])* $name:ident: $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $code:literal $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
            /// A number that this build has no word for; printed as the number.
            Unknown($repr),
        }

        impl $name {
            /// Every value that has a word, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number in the byte layout.
            #[must_use]
            pub const fn code(self) -> $repr {
                match self { $(Self::$variant => $code,)+ Self::Unknown(code) => code }
            }

            /// The value behind a number of the byte layout.
            #[must_use]
            pub const fn from_code(code: $repr) -> Self {
                match code { $($code => Self::$variant,)+ other => Self::Unknown(other) }
            }

            /// The word that docs, commands, Python, C and metrics use; `None` for an unknown number.
            #[must_use]
            pub const fn word(self) -> Option<&'static str> {
                match self { $(Self::$variant => Some($word),)+ Self::Unknown(_) => None }
            }

            /// The value that a word stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == Some(word))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.word() {
                    Some(word) => f.pad(word),
                    None => f.pad(&self.code().to_string()),
                }
            }
        }
    };
}

coded_words! {
    /// How the bytes of a frame are to be read.
    PixelFormat: u32 {
        /// Bytes without a picture meaning.
        Opaque = 0 "opaque",
        /// Blue, green, red; one byte each (OpenCV's order).
        Bgr = 1 "bgr",
        /// Red, green, blue; one byte each.
        Rgb = 2 "rgb",
        /// One byte of luma.
        Gray = 3 "gray",
        /// Planar Y, U, V; chroma halved both ways.
        I420 = 4 "i420",
        /// Planar Y and interleaved UV; chroma halved both ways.
        Nv12 = 5 "nv12",
        /// Three planes of native floats; `v = byte * value_scale + value_offset`.
        RgbPlanarF32 = 6 "rgb-planar-f32",
        /// Blue, green, red, alpha.
        Bgra = 7 "bgra",
        /// Red, green, blue, alpha.
        Rgba = 8 "rgba",
    }
}

coded_words! {
    /// What a camera's daemon is doing; the only words that users see.
    State: u8 {
        /// The daemon has the ring and has not tried the camera yet.
        Starting = 0 "starting",
        /// The camera was never reached so far; trying.
        Connecting = 1 "connecting",
        /// Packets arrive, no picture yet.
        Syncing = 2 "syncing",
        /// Frames are published.
        Live = 3 "live",
        /// Frames are missing or late; the reason says why.
        Degraded = 4 "degraded",
        /// No frame for too long; the session is being torn down.
        Stalled = 5 "stalled",
        /// Was live before; trying again.
        Reconnecting = 6 "reconnecting",
        /// Paused on purpose because nobody reads.
        Parked = 7 "parked",
        /// Stopped by the operator.
        Stopped = 8 "stopped",
        /// Needs an operator; the reason says why.
        Error = 9 "error",
        /// A teardown missed its deadline; the process is being replaced.
        Restarting = 10 "restarting",
    }
}

coded_words! {
    /// Why a camera is in its state.
    Reason: u16 {
        /// Nothing to say.
        None = 0 "none",
        /// The camera's port refused the connection.
        ConnectRefused = 1 "connect_refused",
        /// The camera did not answer in time.
        ConnectTimeout = 2 "connect_timeout",
        /// The camera's host name does not resolve.
        Dns = 3 "dns",
        /// The TLS handshake or certificate check failed.
        Tls = 4 "tls",
        /// The camera refused user or password.
        Auth = 5 "auth",
        /// The camera has no such stream.
        NotFound = 6 "not_found",
        /// Whatever answers does not speak RTSP.
        NotRtsp = 7 "not_rtsp",
        /// The stream has no video.
        NoVideo = 8 "no_video",
        /// The stream's codec has no decoder here.
        UnsupportedCodec = 9 "unsupported_codec",
        /// No keyframe arrived in time.
        NoKeyframe = 10 "no_keyframe",
        /// Packets stopped arriving.
        NoPackets = 11 "no_packets",
        /// Packets arrive but the decoder gives no picture.
        DecoderStuck = 12 "decoder_stuck",
        /// The decoder reported errors.
        DecoderError = 13 "decoder_error",
        /// Pictures are withheld until the next keyframe after a loss.
        LossGate = 14 "loss_gate",
        /// Frames reach the ring too late.
        Lag = 15 "lag",
        /// Far fewer frames than usual.
        LowFps = 16 "low_fps",
        /// The camera closed the connection.
        ServerClosed = 17 "server_closed",
        /// The file or stream ended.
        EndOfFile = 18 "end_of_file",
        /// The camera has no session left for us.
        ServerBusy = 19 "server_busy",
        /// The memory mount has no room for the ring.
        NoRoom = 20 "no_room",
        /// Another program owns the ring's public name.
        NameTaken = 21 "name_taken",
        /// The frame is larger than the ring may become.
        FrameTooLarge = 22 "frame_too_large",
        /// The configuration is wrong.
        Config = 23 "config",
        /// A fault of this program.
        Internal = 24 "internal",
        /// The operator asked for it.
        Operator = 25 "operator",
        /// The picture has not changed for too long.
        Frozen = 26 "frozen",
        /// The picture is black.
        Black = 27 "black",
        /// A planned reconnect.
        Planned = 28 "planned",
    }
}

coded_words! {
    /// Where a frame's camera time comes from.
    TimeSource: u8 {
        /// The camera's time is not known.
        None = 0 "none",
        /// RTCP sender reports.
        RtcpSr = 1 "rtcp_sr",
        /// The 64-bit NTP RTP header extension.
        Ntp64Hdrext = 2 "ntp64_hdrext",
        /// RFC 7273 clock signalling.
        Rfc7273 = 3 "rfc7273",
        /// The ONVIF replay header extension.
        Onvif = 4 "onvif",
    }
}

coded_words! {
    /// How a picture was made to fit its output size.
    Fit: u8 {
        /// Not scaled.
        None = 0 "none",
        /// Scaled with padding.
        Letterbox = 1 "letterbox",
        /// Scaled without keeping the aspect ratio.
        Stretch = 2 "stretch",
        /// Scaled and cut.
        Crop = 3 "crop",
    }
}

/// Number of a frame; the first one is 1 and numbers never repeat or go back.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of one inode's life under a ring's name.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Generation(pub [u8; 16]);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A set of facts about one frame.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct FrameFlags(pub u32);

impl FrameFlags {
    /// Decodable on its own.
    pub const KEYFRAME: Self = Self(1 << 0);
    /// First frame after a gap in time.
    pub const DISCONT: Self = Self(1 << 1);
    /// Known to be damaged.
    pub const CORRUPT: Self = Self(1 << 2);
    /// May show damage concealed by the decoder.
    pub const TAINTED: Self = Self(1 << 3);
    /// First frame of another size.
    pub const GEOMETRY_CHANGED: Self = Self(1 << 4);
    /// First frame of another source format.
    pub const FORMAT_CHANGED: Self = Self(1 << 5);
    /// First frame of a new session with the camera.
    pub const AFTER_RECONNECT: Self = Self(1 << 6);
    /// First frame of a new daemon on this ring.
    pub const AFTER_RESTART: Self = Self(1 << 7);
    /// Source pictures are missing before this frame; `gap` counts them.
    pub const GAP: Self = Self(1 << 8);
    /// Two fields woven into one picture.
    pub const INTERLACED: Self = Self(1 << 9);
    /// The camera's time is implausible.
    pub const UNTRUSTED_TIME: Self = Self(1 << 10);
    /// Not from a camera: a test picture, a file, or a program.
    pub const SYNTHETIC: Self = Self(1 << 11);
    /// Scaled to its size.
    pub const SCALED: Self = Self(1 << 12);

    /// Words of the flags, by bit.
    pub const WORDS: [&'static str; 13] = [
        "keyframe",
        "discont",
        "corrupt",
        "tainted",
        "geometry_changed",
        "format_changed",
        "after_reconnect",
        "after_restart",
        "gap",
        "interlaced",
        "untrusted_time",
        "synthetic",
        "scaled",
    ];

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// This set with the flags of `other` set.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set with the flags of `other` set when `yes`.
    #[must_use]
    pub const fn with_if(self, yes: bool, other: Self) -> Self {
        if yes { self.with(other) } else { self }
    }

    /// The words of the set flags; bits without a word are left out.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, word)| *word)
    }
}

/// Colour description of the source, as code points of ITU-T H.273.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Color {
    /// Colour primaries.
    pub primaries: u8,
    /// Transfer characteristics.
    pub transfer: u8,
    /// Matrix coefficients: 1 BT.709, 5 and 6 BT.601, 9 BT.2020, 0 RGB, 2 unspecified.
    pub matrix: u8,
    /// 1 = full range (0..255), 0 = limited (16..235).
    pub full_range: u8,
}

/// Size, format and memory layout of one frame's payload.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Geometry {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How the bytes are to be read.
    pub format: PixelFormat,
    /// Planes in use, 1..=4.
    pub plane_count: u32,
    /// First byte of each plane, from the payload's start.
    pub plane_offsets: [u32; 4],
    /// Bytes from one row to the next, by plane.
    pub plane_strides: [u32; 4],
    /// Bytes of the whole payload.
    pub len: u64,
}

impl Geometry {
    /// The tight layout of a picture: planes one after the other, rows without padding.
    ///
    /// Returns `None` when a side is zero or a plane does not fit 32 bits, and for formats without a picture meaning.
    #[must_use]
    pub fn packed(width: u32, height: u32, format: PixelFormat) -> Option<Self> {
        let planes = Planes::of(width, height, format)?;
        let (plane_offsets, plane_strides) = ([0; 4], [0; 4]);
        let mut geometry =
            Self { width, height, format, plane_count: planes.count, plane_offsets, plane_strides, len: 0 };
        for plane in 0..planes.count as usize {
            let (stride, rows) = planes.extent(plane)?;
            geometry.plane_offsets[plane] = u32::try_from(geometry.len).ok()?;
            geometry.plane_strides[plane] = u32::try_from(stride).ok()?;
            geometry.len = geometry.len.checked_add(stride.checked_mul(rows)?)?;
        }
        Some(geometry)
    }

    /// Bytes of one row and number of rows of a plane, without padding; `None` for a plane the format does not have.
    #[must_use]
    pub fn plane_extent(&self, plane: usize) -> Option<(u64, u64)> {
        Planes::of(self.width, self.height, self.format)?.extent(plane)
    }

    /// Whether every plane lies inside `len` bytes, computed without overflow.
    #[must_use]
    #[inline]
    pub fn fits(&self, capacity: u64) -> bool {
        if self.len > capacity {
            return false;
        }
        if self.format == PixelFormat::Opaque {
            return self.plane_count <= 4;
        }
        let Some(planes) = Planes::of(self.width, self.height, self.format) else { return false };
        self.plane_count == planes.count
            && self.holds(0, planes.first)
            && (1..planes.count as usize).all(|plane| self.holds(plane, planes.others))
    }

    /// Whether a plane of `rows` rows of `row_bytes` lies inside `len` bytes.
    #[inline]
    fn holds(&self, plane: usize, (row_bytes, rows): (u64, u64)) -> bool {
        let stride = u64::from(self.plane_strides[plane]);
        let before_last = stride.checked_mul(rows - 1);
        let end = before_last.and_then(|bytes| bytes.checked_add(u64::from(self.plane_offsets[plane]) + row_bytes));
        stride >= row_bytes && end.is_some_and(|end| end <= self.len)
    }
}

/// The planes of a picture: bytes of one row without padding, and rows. Those after the first are all alike.
#[derive(Clone, Copy, Debug)]
struct Planes {
    count: u32,
    first: (u64, u64),
    others: (u64, u64),
}

impl Planes {
    /// `None` when a side is zero, and for formats without a picture meaning.
    #[inline]
    fn of(width: u32, height: u32, format: PixelFormat) -> Option<Self> {
        let (w, h) = (u64::from(width), u64::from(height));
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        let (count, first, others) = match format {
            PixelFormat::Bgr | PixelFormat::Rgb => (1, w * 3, (0, 0)),
            PixelFormat::Gray => (1, w, (0, 0)),
            PixelFormat::Bgra | PixelFormat::Rgba => (1, w * 4, (0, 0)),
            PixelFormat::I420 => (3, w, (cw, ch)),
            PixelFormat::Nv12 => (2, w, (cw * 2, ch)),
            PixelFormat::RgbPlanarF32 => (3, w * 4, (w * 4, h)),
            PixelFormat::Opaque | PixelFormat::Unknown(_) => return None,
        };
        (width > 0 && height > 0).then_some(Self { count, first: (first, h), others })
    }

    fn extent(&self, plane: usize) -> Option<(u64, u64)> {
        match plane {
            0 => Some(self.first),
            _ => (plane < self.count as usize).then_some(self.others),
        }
    }
}

/// Everything the ring says about one frame.
///
/// A writer fills what it knows and leaves the rest at its default; sequence, epochs and publish times are set by
/// [`Writer::publish`](crate::Writer::publish).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameMeta {
    /// Number of this frame.
    pub seq: Sequence,
    /// Size, format and memory layout.
    pub geometry: Geometry,
    /// Facts about this frame.
    pub flags: FrameFlags,
    /// Colour description of the source.
    pub color: Color,
    /// Grows when the size or format changes within a generation.
    pub geometry_epoch: u32,
    /// Grows with each daemon that takes the ring over.
    pub writer_epoch: u32,
    /// Grows with each session with the camera.
    pub session_id: u32,
    /// RTP time of the picture, 90 kHz for video.
    pub rtp_timestamp: u32,
    /// Presentation time within the session, ns.
    pub pts_ns: i64,
    /// Nominal duration, ns; 0 = unknown.
    pub duration_ns: i64,
    /// When the picture's last packet arrived, ns of CLOCK_MONOTONIC.
    pub arrival_mono_ns: i64,
    /// The same, ns since 1970 (CLOCK_REALTIME).
    pub arrival_real_ns: i64,
    /// The camera's own clock, ns since 1970, when it is known.
    pub source_unix_ns: Option<i64>,
    /// Where `source_unix_ns` comes from.
    pub time_source: TimeSource,
    /// When the decoder delivered the picture, ns of CLOCK_MONOTONIC.
    pub decoded_mono_ns: i64,
    /// When publishing it began, microseconds before readers could see it; ns of CLOCK_MONOTONIC.
    pub publish_mono_ns: i64,
    /// The same, ns since 1970.
    pub publish_real_ns: i64,
    /// Number of the decoded picture, equal in all outputs of a camera.
    pub source_seq: u64,
    /// Frames dropped in this ring before this one, since the ring was made.
    pub dropped_before: u64,
    /// CRC-32C of the payload; 0 = not computed.
    pub payload_crc32c: u32,
    /// Pixel aspect ratio, width : height; 0:0 = unknown.
    pub pixel_aspect: (u16, u16),
    /// Source pictures not published in this ring since its previous frame.
    pub gap: u32,
    /// The decoder's own format.
    pub source_format: PixelFormat,
    /// Quarter turns that were applied.
    pub rotation: u8,
    /// How the picture was made to fit.
    pub fit: Fit,
    /// Size of the decoded picture.
    pub source_size: (u32, u32),
    /// Output pixels per source pixel, x and y.
    pub scale: (f32, f32),
    /// `x_out = x_src * scale + offset`, x and y.
    pub offset: (f32, f32),
    /// Padding colour in pixel order.
    pub pad_color: [u8; 4],
    /// Scale of float formats.
    pub value_scale: f32,
    /// Offset of float formats.
    pub value_offset: f32,
    /// CLOCK_BOOTTIME - CLOCK_MONOTONIC when the slot was taken, ns: time spent suspended.
    pub boot_minus_mono_ns: i64,
    /// From arrival to the converter, ns.
    pub lag_ns: u64,
}

impl FrameMeta {
    /// Where the point (`x`, `y`) of this picture lies in the camera's own picture: undoes region, crop, letterbox and scale.
    ///
    /// Points are counted from the top left corner, so that the middle of the first pixel is (0.5, 0.5). Corners of a box are
    /// points: what was found in an output is where it is in the full picture.
    ///
    /// `None` when the scale is none, which our writer never says.
    #[must_use]
    pub fn to_source(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let back = |at: f64, scale: f32, offset: f32| {
            (scale.is_normal() && offset.is_finite()).then(|| (at - f64::from(offset)) / f64::from(scale))
        };
        Some((back(x, self.scale.0, self.offset.0)?, back(y, self.scale.1, self.offset.1)?))
    }

    /// Metadata of a frame with this geometry; everything else at its default.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self {
            seq: Sequence(0),
            geometry,
            flags: FrameFlags::default(),
            color: Color::default(),
            geometry_epoch: 0,
            writer_epoch: 0,
            session_id: 0,
            rtp_timestamp: 0,
            pts_ns: 0,
            duration_ns: 0,
            arrival_mono_ns: 0,
            arrival_real_ns: 0,
            source_unix_ns: None,
            time_source: TimeSource::None,
            decoded_mono_ns: 0,
            publish_mono_ns: 0,
            publish_real_ns: 0,
            source_seq: 0,
            dropped_before: 0,
            payload_crc32c: 0,
            pixel_aspect: (0, 0),
            gap: 0,
            source_format: PixelFormat::Opaque,
            rotation: 0,
            fit: Fit::None,
            source_size: (geometry.width, geometry.height),
            scale: (1.0, 1.0),
            offset: (0.0, 0.0),
            pad_color: [0; 4],
            value_scale: 1.0,
            value_offset: 0.0,
            boot_minus_mono_ns: 0,
            lag_ns: 0,
        }
    }
}
