//! The table of keys: what the file may say, with default, range and advice. Everything else follows from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use toml::de::DeValue;

use super::name::did_you_mean;
use super::url::looks_secret;
use super::value::{Kind, Value};
use super::words::{
    AccessUnits, Deinterlace, Fit, HugePages, Idle, LeasePolicy, LogFormat, LogLevel, OnCorrupt, TestPattern,
    Transport, Word,
};

/// Where a key may stand.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// At the top of the file.
    Root,
    /// In `[defaults]` and in every camera.
    Shared,
    /// In a camera only.
    Camera,
    /// In an output of a camera.
    Output,
    /// In `[serve]`.
    Serve,
    /// In `[log]`.
    Log,
}

/// A table of the file that holds keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Table {
    /// The file itself.
    Root,
    /// `[defaults]`.
    Defaults,
    /// `[camera.NAME]`.
    Camera,
    /// `[camera.NAME.output.NAME]`.
    Output,
    /// `[serve]`.
    Serve,
    /// `[log]`.
    Log,
}

impl Table {
    /// Whether keys of a scope may stand in this table.
    #[must_use]
    pub fn accepts(self, scope: Scope) -> bool {
        matches!(
            (self, scope),
            (Self::Root, Scope::Root)
                | (Self::Defaults | Self::Camera, Scope::Shared)
                | (Self::Camera, Scope::Camera)
                | (Self::Output, Scope::Output)
                | (Self::Serve, Scope::Serve)
                | (Self::Log, Scope::Log)
        )
    }
}

/// How much of a key this build can do.
#[derive(Clone, Copy, Debug)]
pub enum Support {
    /// Everything.
    Full,
    /// The default only.
    DefaultOnly,
}

/// One key of the file. `Debug` shows its path.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name below its table, with dots: `decode.device`.
    pub path: &'static str,
    /// Where it may stand.
    pub scope: Scope,
    /// What it takes.
    pub kind: Kind,
    /// What it is when the file says nothing, as TOML; `None` = not set.
    pub default: Option<&'static str>,
    /// A value that shows its form, as TOML, for keys without a default.
    pub example: Option<&'static str>,
    /// How much of it works.
    pub support: Support,
    /// What it does, and when to change it.
    pub doc: &'static str,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.path)
    }
}

impl Key {
    const fn new(scope: Scope, path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Self {
        Self { path, scope, kind, default: Some(default), example: None, support: Support::Full, doc }
    }

    const fn unset(scope: Scope, path: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Self {
        Self { path, scope, kind, default: None, example: Some(example), support: Support::Full, doc }
    }

    /// The same key in a build that can do less with it: the file may say its default and nothing else.
    #[must_use]
    pub const fn supporting(mut self, support: Support) -> Self {
        self.support = support;
        self
    }

    /// The last part of its path.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Whether its value must never be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Password)
    }

    /// The value when the file says nothing.
    #[must_use]
    pub fn builtin(&self) -> Option<&'static Value> {
        BUILTIN.get(&(self.scope, self.path))
    }

    /// Why a value that was read well cannot be used yet; `None` when it can.
    #[must_use]
    pub fn not_yet(&self, value: &Value) -> Option<String> {
        match self.support {
            Support::DefaultOnly if self.builtin() != Some(value) => {
                Some(format!("supported now: {}", self.default.unwrap_or("nothing")))
            }
            Support::Full | Support::DefaultOnly => None,
        }
    }

    /// Default and range as one line of documentation.
    #[must_use]
    pub fn range(&self) -> String {
        let default = self.default.map_or_else(|| "not set".to_owned(), |default| format!("default {default}"));
        let range = self.kind.expects();
        let later = match self.support {
            Support::Full => String::new(),
            Support::DefaultOnly => "; only the default is supported now".to_owned(),
        };
        format!("{default}; {range}{later}")
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const HOUR: u64 = 3600;
const FORMATS: &[&str] = &["bgr", "rgb", "gray", "i420", "nv12", "rgb-planar-f32"];
const FITS: &[&str] = Fit::WORDS;
const FORMAT: &str = "Layout of the pixels that readers get: bgr (OpenCV's order), rgb, gray (luma, 0 to 255), i420 and nv12 \
    (as the camera's colours are), rgb-planar-f32 (three planes of floats, 0 to 1, for models).";
const JITTER: Kind = Kind::Duration { min: seconds(0), max: seconds(10) };
const STALL: Kind = Kind::Duration { min: millis(500), max: seconds(HOUR) };
const RETRY: Kind = Kind::DurationRange { min: millis(100), max: seconds(24 * HOUR) };

use Scope::{Camera, Log, Output, Root, Serve, Shared};

/// Every key, in the order in which documentation shows them.
pub static KEYS: &[Key] = &[
    Key::new(Root, "version", Kind::Integer { min: 1, max: 1 }, "1", "Version of this file's format."),
    Key::new(
        Shared,
        "slots",
        Kind::Integer { min: 3, max: 256 },
        "8",
        "Frames that the ring keeps. One slot of 1920x1080 bgr is 5.94 MiB. Raise it when slow readers report \
         overruns: one for each reader that holds a lease.",
    ),
    Key::new(Shared, "format", Kind::Words(FORMATS), r#""bgr""#, FORMAT),
    Key::new(
        Shared,
        "transport",
        Kind::Words(Transport::WORDS),
        r#""tcp""#,
        "How packets travel: tcp loses none, udp has no head-of-line delay, multicast is one stream for many receivers, \
         http tunnels RTSP through HTTP (give the url that port, often 80), auto tries udp and falls back to tcp.",
    ),
    Key::new(
        Shared,
        "jitter_buffer",
        Kind::Either(&["auto"], &JITTER),
        r#""auto""#,
        "How long to wait for a late packet; auto is 100ms with tcp and 200ms with udp. It costs no delay while \
         nothing is lost. Raise it on wireless links.",
    ),
    Key::new(
        Shared,
        "stall_after",
        Kind::Either(&["auto"], &STALL),
        r#""auto""#,
        "Reconnect after this long without a frame; auto is 10 frame intervals, between 2s and 5s. Raise it for \
         cameras that pause.",
    ),
    Key::new(
        Shared,
        "stale_after",
        Kind::Duration { min: seconds(0), max: seconds(HOUR) },
        r#""1s""#,
        "Readers see \"stale\" when the newest frame is older; 0s is never. Raise it for cameras below 2 frames a \
         second.",
    ),
    Key::new(
        Shared,
        "on_corrupt",
        Kind::Words(OnCorrupt::WORDS),
        r#""drop""#,
        "After a loss: drop withholds frames until the next keyframe, flag delivers them with the flag CORRUPT.",
    ),
    Key::new(
        Shared,
        "keyframe_wait",
        Kind::Duration { min: millis(100), max: seconds(600) },
        r#""10s""#,
        "How long on_corrupt = \"drop\" waits for a keyframe; then frames are delivered flagged. A keyframe that is \
         sent and lost begins the wait anew, up to ten times as long in all. Set it above the camera's keyframe \
         interval.",
    ),
    Key::new(
        Shared,
        "access_units",
        Kind::Words(AccessUnits::WORDS),
        r#""auto""#,
        "How the end of a picture is found: marker trusts the RTP marker, parse reads the bitstream and costs one \
         frame of delay, auto begins with marker and changes when the camera marks every slice.",
    ),
    Key::new(
        Shared,
        "deinterlace",
        Kind::Words(Deinterlace::WORDS),
        r#""off""#,
        "What happens to interlaced pictures: off delivers both fields woven, with the flag INTERLACED; linear keeps \
         the rows of the top field and interpolates the others; yadif heeds motion and costs up to two frame \
         intervals. Pictures of more than 8 bits stay woven. Set it when moving things have combs.",
    ),
    Key::new(
        Shared,
        "max_size",
        Kind::Either(&["source"], &Kind::Size),
        r#""source""#,
        "The largest frame: source makes the ring as large as the frames need, a size makes it that large at once \
         and for good. Larger frames are scaled down to fit, aspect kept, sizes even; each frame says by how much. \
         Set it to bound memory, or where the readers need less than the camera sends.",
    ),
    Key::new(
        Shared,
        "max_fps",
        Kind::Integer { min: 0, max: 240 },
        "0",
        "Frames a second at most, evenly spaced; 0 delivers them as sent.",
    ),
    Key::new(
        Shared,
        "idle",
        Kind::Words(Idle::WORDS),
        r#""full""#,
        "When no library reader has been attached for 10 s: full goes on, keyframes decodes keyframes only, park stays \
         connected and decodes nothing. The state is parked meanwhile, and the newest frame stays readable with its \
         age. The first reader gets a fresh frame at the camera's next keyframe. Set it where cameras are many and \
         watched now and then. Readers that take no presence lock are not counted. Where every picture is a keyframe \
         (MJPEG over HTTP) or the pictures are decoded by others (device, pipeline, test, file), keyframes is the same as \
         full.",
    ),
    Key::new(
        Shared,
        "frozen_after",
        Kind::Duration { min: seconds(0), max: seconds(24 * HOUR) },
        r#""0s""#,
        "State degraded, frozen when frames come and the picture has not changed by a bit for so long; 0s is off, else \
         at least 1s. Set it where a camera may go on sending one picture, and above the time for which a picture may \
         rightly stand still: many encoders repeat an unchanged scene bit for bit until their next keyframe. Costs \
         reading an eighth of each picture.",
    ),
    Key::new(
        Shared,
        "ready_timeout",
        Kind::Duration { min: seconds(0), max: seconds(HOUR) },
        r#""20s""#,
        "systemd hears READY at the first frame or after this; the status text says which.",
    ),
    Key::new(
        Shared,
        "tls.verify",
        Kind::Flag,
        "true",
        "Whether the certificate of an rtsps:// camera is checked. false needs allow_insecure = true; pin_sha256 is \
         the better answer to a self-signed certificate.",
    ),
    Key::unset(
        Shared,
        "tls.ca",
        Kind::Path,
        r#""/etc/camring/ca.pem""#,
        "Certificates to trust instead of the system's (PEM).",
    ),
    Key::unset(
        Shared,
        "tls.pin_sha256",
        Kind::Fingerprint,
        r#""0000000000000000000000000000000000000000000000000000000000000000""#,
        "Accept exactly the certificate with this SHA-256 (of its DER form), whoever signed it.",
    ),
    Key::new(
        Shared,
        "tls.allow_insecure",
        Kind::Flag,
        "false",
        "The second key that tls.verify = false needs: anybody on the way can then read the password and the picture.",
    ),
    Key::new(
        Shared,
        "decode.device",
        Kind::Either(&["auto", "software", "vaapi", "nvidia", "v4l2"], &Kind::Element),
        r#""auto""#,
        "What decodes; auto tries the hardware, proves it with a frame and falls back. Name an element to force it.",
    ),
    Key::new(
        Shared,
        "decode.threads",
        Kind::Integer { min: 0, max: 64 },
        "0",
        "Threads of a software decoder; 0 is chosen by size, 1 has the lowest latency. Raise it when one core cannot \
         follow the camera.",
    ),
    Key::new(
        Shared,
        "reconnect.first",
        Kind::Duration { min: seconds(0), max: seconds(HOUR) },
        r#""0s""#,
        "Pause before the first new try; later ones double, always with full jitter.",
    ),
    Key::new(
        Shared,
        "reconnect.max",
        Kind::Duration { min: millis(100), max: seconds(HOUR) },
        r#""5s""#,
        "The longest pause between tries; the time for which a try hung counts. Raise it when very many cameras share a \
         slow network.",
    ),
    Key::new(
        Shared,
        "reconnect.connect_timeout",
        Kind::Duration { min: seconds(1), max: seconds(600) },
        r#""10s""#,
        "From the start of a try to the first packet; must be longer than request_timeout.",
    ),
    Key::new(
        Shared,
        "reconnect.request_timeout",
        Kind::Duration { min: millis(500), max: seconds(300) },
        r#""5s""#,
        "How long the camera may take for the answer to one RTSP request.",
    ),
    Key::new(
        Shared,
        "reconnect.permanent_retry",
        RETRY,
        r#""5s..60s""#,
        "Pauses after faults that only a change cures: no such stream, a codec without a decoder.",
    ),
    Key::new(
        Shared,
        "reconnect.auth_retry",
        RETRY,
        r#""60s..15m""#,
        "Pauses after a wrong user or password. Cameras lock accounts: lower it with care.",
    ),
    Key::new(
        Shared,
        "ring.mode",
        Kind::Mode,
        r#""0640""#,
        "Who may open the ring; readers need no write permission. 0644 lets every user read.",
    ),
    Key::new(
        Shared,
        "ring.group",
        Kind::Either(&["auto"], &Kind::Group),
        r#""auto""#,
        "Group of the ring: auto is camring where it exists and we may give files to it, else our own. A name must \
         work or the camera does not start.",
    ),
    Key::new(
        Shared,
        "ring.lease_policy",
        Kind::Words(LeasePolicy::WORDS),
        r#""fresh""#,
        "When readers lease every slot that the camera could take: fresh revokes the oldest lease, protect drops the \
         frame (any reader can then stop the camera: trusted groups only), off offers no leases.",
    ),
    Key::new(
        Shared,
        "ring.prefault",
        Kind::Flag,
        "true",
        "Whether all pages are touched at the start, so that no frame pays for it.",
    ),
    Key::new(
        Shared,
        "ring.huge_pages",
        Kind::Words(HugePages::WORDS),
        r#""try""#,
        "Whether to ask for huge pages; works without. Only for rings that are made new.",
    ),
    Key::new(
        Shared,
        "ring.lock",
        Kind::Flag,
        "false",
        "Whether the ring is locked into memory; needs LimitMEMLOCK. Turn it on where the host swaps.",
    ),
    Key::unset(
        Camera,
        "url",
        Kind::Url,
        r#""rtsp://10.0.0.21:554/stream1""#,
        "Where the camera is; http:// is MJPEG (multipart/x-mixed-replace), for which transport, access_units and tls \
         have no meaning.",
    ),
    Key::unset(Camera, "user", Kind::User, r#""viewer""#, "User name, apart from the URL: no percent-encoding here."),
    Key::unset(
        Camera,
        "password",
        Kind::Password,
        r#""${front_pw}""#,
        "Password. ${NAME} is looked up when the camera starts: $CREDENTIALS_DIRECTORY/NAME, the environment, \
         /etc/camring/credentials/NAME.",
    ),
    Key::unset(
        Camera,
        "password_file",
        Kind::Path,
        r#""/etc/camring/front.pw""#,
        "File that holds the password, mode 0600 or 0640; instead of password.",
    ),
    Key::unset(
        Camera,
        "segment",
        Kind::Segment,
        r#""camring.front""#,
        "Public name in the memory mount; camring.NAME when it is not set. Change it when a worker expects another.",
    ),
    Key::new(Camera, "test.pattern", Kind::Words(TestPattern::WORDS), r#""clock""#, "What a test source draws."),
    Key::new(Camera, "test.size", Kind::Size, r#""1920x1080""#, "Size of the test picture."),
    Key::new(Camera, "test.fps", Kind::Integer { min: 1, max: 240 }, "30", "Frames a second of the test source."),
    Key::unset(Camera, "file", Kind::Path, r#""/srv/loop.mp4""#, "A video file, played in a loop at its own speed."),
    Key::unset(
        Camera,
        "device",
        Kind::Path,
        r#""/dev/video0""#,
        "A camera at this machine (Video4Linux), in the largest size it offers. While it is not plugged in, it is looked \
         for at the pace of reconnect.max.",
    ),
    Key::unset(
        Camera,
        "pipeline",
        Kind::Pipeline,
        r#""videotestsrc is-live=true ! appsink name=out sync=false""#,
        "For experts: a GStreamer pipeline of your own, as for gst-launch-1.0, with an appsink called out that gets \
         pictures (video/x-raw). Without sync=false they wait for their time. Nothing else of a camera applies to it: \
         no gate, no lag, no time of arrival but that of the decoded picture. A password in it makes this file a secret.",
    ),
    Key::new(
        Output,
        "size",
        Kind::Either(&["source"], &Kind::Size),
        r#""source""#,
        "Size of its frames; source is that of the camera's picture, or of the region. Smaller pictures are the average of \
         the area, larger ones are interpolated.",
    ),
    Key::new(
        Output,
        "fit",
        Kind::Words(FITS),
        r#""letterbox""#,
        "How the picture is made to fit the size: letterbox keeps all of it and its aspect and pads with gray 114, stretch \
         keeps all of it and not its aspect, crop fills the frame with the middle. Each frame says how points map back.",
    ),
    Key::new(Output, "format", Kind::Words(FORMATS), r#""bgr""#, FORMAT),
    Key::unset(
        Output,
        "normalize",
        Kind::Normalize,
        r#""0..1""#,
        "How bytes become floats, with format rgb-planar-f32: 0..1 divides by 255, which is also what happens when it is not \
         set; mean and std make (byte / 255 - mean) / std of each channel.",
    ),
    Key::unset(
        Output,
        "region",
        Kind::Region,
        r#""0,0,1920,1080""#,
        "Part of the camera's picture, before size: its left and top edge (rounded down to even numbers; top to multiples \
         of 4 while the picture is interlaced), width and height. What lies outside the picture is left out.",
    ),
    Key::new(
        Output,
        "max_fps",
        Kind::Integer { min: 0, max: 240 },
        "0",
        "Frames a second at most, evenly spaced by the camera's time; 0 delivers them as sent.",
    ),
    Key::unset(
        Output,
        "slots",
        Kind::Integer { min: 3, max: 256 },
        "8",
        "Frames that this ring keeps; the camera's number when it is not set.",
    ),
    Key::unset(
        Output,
        "ring.lease_policy",
        Kind::Words(LeasePolicy::WORDS),
        r#""fresh""#,
        "What happens to a slot that a reader holds; as the camera's when it is not set. The other keys of ring are the \
         camera's.",
    ),
    Key::unset(
        Output,
        "segment",
        Kind::Segment,
        r#""camring.front.small""#,
        "Public name in the memory mount; camring.CAMERA.OUTPUT when it is not set.",
    ),
    Key::new(
        Serve,
        "listen",
        Kind::Address,
        r#""127.0.0.1:9178""#,
        "Where camring serve listens. An address that others can reach needs a token. It speaks plain HTTP: put a proxy \
         with TLS in front where others can listen.",
    ),
    Key::new(Serve, "preview", Kind::Flag, "true", "Whether it shows pictures, not only numbers."),
    Key::unset(
        Serve,
        "token",
        Kind::Password,
        r#""${serve_token}""#,
        "What every request must know, as `Authorization: Bearer TOKEN` or ?token=TOKEN; at least 16 characters. ${NAME} is \
         looked up as for passwords, when camring serve starts.",
    ),
    Key::new(Log, "level", Kind::Words(LogLevel::WORDS), r#""info""#, "The least important line that is logged."),
    Key::new(
        Log,
        "format",
        Kind::Words(LogFormat::WORDS),
        r#""auto""#,
        "auto writes to the journal under systemd and text elsewhere.",
    ),
];

static BUILTIN: LazyLock<BTreeMap<(Scope, &str), Value>> = LazyLock::new(|| {
    let builtin = |key: &'static Key| {
        let value = DeValue::parse(key.default?).expect("defaults are TOML; a test reads them all");
        let value = key.kind.parse(key.path, value.get_ref()).expect("defaults are in range; a test reads them all");
        Some(((key.scope, key.path), value))
    };
    KEYS.iter().filter_map(builtin).collect()
});

/// The keys that may stand in a table.
pub fn of_table(table: Table) -> impl Iterator<Item = &'static Key> + Clone {
    KEYS.iter().filter(move |key| table.accepts(key.scope))
}

/// The key of this path in a table.
#[must_use]
pub fn find(table: Table, path: &str) -> Option<&'static Key> {
    of_table(table).find(|key| key.path == path)
}

/// Whether the value behind the last part of a key may be quoted: the key, or what it was meant to be, is no secret.
#[must_use]
pub fn is_public(name: &str) -> bool {
    let parts = || KEYS.iter().flat_map(|key| key.path.split('.'));
    let is_secret = |known: &str| KEYS.iter().any(|key| key.is_secret() && key.name() == known);
    if parts().any(|part| part == name) {
        return !is_secret(name);
    }
    !looks_secret(name) && did_you_mean(name, parts()).is_some_and(|known| !is_secret(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_and_example_is_a_value_of_its_kind() {
        for key in KEYS {
            for text in [key.default, key.example].into_iter().flatten() {
                let parse = |text: &str| key.kind.parse(key.path, DeValue::parse(text).unwrap().get_ref());
                let value = parse(text).unwrap_or_else(|refusal| panic!("{}: {refusal:?}", key.path));
                assert!(key.is_secret() || parse(&value.to_string()) == Ok(value), "{}", key.path);
            }
            assert!(key.default.is_some() || key.example.is_some(), "{}", key.path);
        }
        assert_eq!(BUILTIN.len(), KEYS.iter().filter(|key| key.default.is_some()).count());
    }

    #[test]
    fn every_default_is_supported() {
        for key in KEYS {
            if let Some(value) = key.builtin() {
                assert_eq!(key.not_yet(value), None, "{}", key.path);
            }
        }
    }

    #[test]
    fn of_a_key_whose_feature_comes_later_only_the_default_is_accepted() {
        let later = find(Table::Serve, "preview").unwrap().supporting(Support::DefaultOnly);
        assert_eq!(later.not_yet(&Value::Flag(true)), None);
        assert_eq!(later.not_yet(&Value::Flag(false)).as_deref(), Some("supported now: true"));
        assert!(later.range().ends_with("only the default is supported now"), "{}", later.range());
    }

    #[test]
    fn a_path_stands_once_in_a_table() {
        for table in [Table::Root, Table::Defaults, Table::Camera, Table::Output, Table::Serve, Table::Log] {
            let mut paths: Vec<_> = of_table(table).map(|key| key.path).collect();
            let count = paths.len();
            paths.sort_unstable();
            paths.dedup();
            assert_eq!(paths.len(), count);
        }
    }

    #[test]
    fn passwords_and_unknown_keys_are_not_public() {
        for name in ["url", "slots", "solts", "tranport", "user", "password_file"] {
            assert!(is_public(name), "{name}");
        }
        for name in ["password", "passwrod", "pasword", "pwd", "geheim", "token", ""] {
            assert!(!is_public(name), "{name}");
        }
    }
}
