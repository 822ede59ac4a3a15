//! The numbers of docs/segment.md under the names that C programs use; tests compare them with camring-ring's.

/// How the bytes of a frame are to be read: `pixfmt`.
#[repr(C)]
pub enum Pixfmt {
    /// Bytes without a picture meaning.
    Opaque = 0,
    /// Blue, green, red; one byte each (OpenCV's order).
    Bgr = 1,
    /// Red, green, blue; one byte each.
    Rgb = 2,
    /// One byte of luma.
    Gray = 3,
    /// Planar Y, U, V; chroma halved both ways.
    I420 = 4,
    /// Planar Y and interleaved UV; chroma halved both ways.
    Nv12 = 5,
    /// Three planes of native floats; v = byte * value_scale + value_offset.
    RgbPlanarF32 = 6,
    /// Blue, green, red, alpha.
    Bgra = 7,
    /// Red, green, blue, alpha.
    Rgba = 8,
}

/// What a camera's daemon is doing: `state`.
#[repr(C)]
pub enum State {
    /// The daemon has the ring and has not tried the camera yet.
    Starting = 0,
    /// The camera was never reached so far; trying.
    Connecting = 1,
    /// Packets arrive, no picture yet.
    Syncing = 2,
    /// Frames are published.
    Live = 3,
    /// Frames are missing or late; the reason says why.
    Degraded = 4,
    /// No frame for too long; the session is being torn down.
    Stalled = 5,
    /// Was live before; trying again.
    Reconnecting = 6,
    /// Paused on purpose because nobody reads.
    Parked = 7,
    /// Stopped by the operator.
    Stopped = 8,
    /// Needs an operator; the reason says why.
    Error = 9,
    /// A teardown missed its deadline; the process is being replaced.
    Restarting = 10,
}

/// Why a camera is in its state: `reason`.
#[repr(C)]
pub enum Reason {
    /// Nothing to say.
    None = 0,
    /// The camera's port refused the connection.
    ConnectRefused = 1,
    /// The camera did not answer in time.
    ConnectTimeout = 2,
    /// The camera's host name does not resolve.
    Dns = 3,
    /// The TLS handshake or certificate check failed.
    Tls = 4,
    /// The camera refused user or password.
    Auth = 5,
    /// The camera has no such stream.
    NotFound = 6,
    /// Whatever answers does not speak RTSP.
    NotRtsp = 7,
    /// The stream has no video.
    NoVideo = 8,
    /// The stream's codec has no decoder here.
    UnsupportedCodec = 9,
    /// No keyframe arrived in time.
    NoKeyframe = 10,
    /// Packets stopped arriving.
    NoPackets = 11,
    /// Packets arrive but the decoder gives no picture.
    DecoderStuck = 12,
    /// The decoder reported errors.
    DecoderError = 13,
    /// Pictures are withheld until the next keyframe after a loss.
    LossGate = 14,
    /// Frames reach the ring too late.
    Lag = 15,
    /// Far fewer frames than usual.
    LowFps = 16,
    /// The camera closed the connection.
    ServerClosed = 17,
    /// The file or stream ended.
    EndOfFile = 18,
    /// The camera has no session left for us.
    ServerBusy = 19,
    /// The memory mount has no room for the ring.
    NoRoom = 20,
    /// Another program owns the ring's public name.
    NameTaken = 21,
    /// The frame is larger than the ring may become.
    FrameTooLarge = 22,
    /// The configuration is wrong.
    Config = 23,
    /// A fault of the daemon.
    Internal = 24,
    /// The operator asked for it.
    Operator = 25,
    /// The picture has not changed for too long.
    Frozen = 26,
    /// The picture is black.
    Black = 27,
    /// A planned reconnect.
    Planned = 28,
}

/// Facts about one frame: bits of `flags`. Ignore bits that have no name here.
#[repr(C)]
pub enum Flag {
    /// Decodable on its own.
    Keyframe = 0x0001,
    /// First frame after a gap in time.
    Discont = 0x0002,
    /// Known to be damaged.
    Corrupt = 0x0004,
    /// May show damage concealed by the decoder.
    Tainted = 0x0008,
    /// First frame of another size.
    GeometryChanged = 0x0010,
    /// First frame of another source format.
    FormatChanged = 0x0020,
    /// First frame of a new session with the camera.
    AfterReconnect = 0x0040,
    /// First frame of a new daemon on this ring.
    AfterRestart = 0x0080,
    /// Source pictures are missing before this frame; `gap` counts them.
    Gap = 0x0100,
    /// Two fields woven into one picture.
    Interlaced = 0x0200,
    /// The camera's time is implausible.
    UntrustedTime = 0x0400,
    /// Not from a camera: a test picture, a file, or a program.
    Synthetic = 0x0800,
    /// Scaled to its size.
    Scaled = 0x1000,
}

/// Where a frame's camera time comes from: `time_source`.
#[repr(C)]
pub enum TimeSource {
    /// The camera's time is not known.
    None = 0,
    /// RTCP sender reports.
    RtcpSr = 1,
    /// The 64-bit NTP RTP header extension.
    Ntp64Hdrext = 2,
    /// RFC 7273 clock signalling.
    Rfc7273 = 3,
    /// The ONVIF replay header extension.
    Onvif = 4,
}

/// How a picture was made to fit its output size: `fit`.
#[repr(C)]
pub enum Fit {
    /// Not scaled.
    None = 0,
    /// Scaled with padding.
    Letterbox = 1,
    /// Scaled without keeping the aspect ratio.
    Stretch = 2,
    /// Scaled and cut.
    Crop = 3,
}

/// What happens when the writer needs a slot and readers lease all: `lease_policy`.
#[repr(C)]
pub enum LeasePolicy {
    /// The oldest leased slot is taken back: its lease ends revoked, and the newest frame is always fresh.
    Fresh = 0,
    /// Leases are kept and new frames are dropped meanwhile.
    Protect = 1,
    /// There are no leases on this ring.
    Off = 2,
}

/// Whether a daemon is there: `daemon`.
#[repr(C)]
pub enum Daemon {
    /// There is none.
    Gone = 0,
    /// It shows signs of life.
    Alive = 1,
    /// It holds its lock but has not moved for a second: stopped or overloaded.
    Hung = 2,
}

/// Whose rings to accept: `owner`. The owner of a file could truncate it under its readers.
#[repr(C)]
pub enum Owner {
    /// Root, this process's user, or the user camring.
    Usual = 0,
    /// Only the user `owner_uid`.
    Uid = 1,
    /// Anybody.
    Any = 2,
}

/// Whether the daemon may count a handle as a reader: `presence`.
#[repr(C)]
pub enum Presence {
    /// As a worker that uses the frames.
    Counted = 0,
    /// As an onlooker, which does not keep a camera awake.
    Uncounted = 1,
}
