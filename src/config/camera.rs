//! `Camera`: everything about one camera, resolved into plain types, with the place each setting comes from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use camring_ring::frame::PixelFormat;
use secrecy::SecretString;

use super::document::{Entry, Layer};
use super::duration::DurationRange;
use super::keys::{self, Key, Table};
use super::name::{CameraName, NAME_RULE};
use super::report::{ConfigErrors, Place, Problem};
use super::resolve::Merged;
use super::secret::{SecretFault, SecretStore, Template, read_file};
use super::size::FrameSize;
use super::url::CameraUrl;
use super::value::{Kind, Value};
use super::words::{
    AccessUnits, AutoOr, Deinterlace, Fit, HugePages, Idle, LeasePolicy, OnCorrupt, Switch, TestPattern, Transport,
};
use super::{resolve, validate};
use crate::paint::Normalize;
use crate::source::Rect;

/// One camera. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Camera {
    /// Its name, also the name of its ring and of `camring@NAME.service`.
    pub name: CameraName,
    /// Where its pictures come from.
    pub source: Source,
    /// Public name of its segment in the memory mount.
    pub segment: String,
    /// Frames that the ring keeps, 3 to 256.
    pub slots: u32,
    /// Layout of the pixels that readers get.
    pub format: PixelFormat,
    /// How packets travel.
    pub transport: Transport,
    /// How long to wait for a late packet.
    pub jitter_buffer: AutoOr<Duration>,
    /// Silence after which the session is given up.
    pub stall_after: AutoOr<Duration>,
    /// Age at which readers call the newest frame stale; zero = never.
    pub stale_after: Duration,
    /// What happens to damaged pictures.
    pub on_corrupt: OnCorrupt,
    /// Longest silence of [`OnCorrupt::Drop`].
    pub keyframe_wait: Duration,
    /// How the end of a picture is found.
    pub access_units: AccessUnits,
    /// What happens to interlaced pictures.
    pub deinterlace: Deinterlace,
    /// The largest frame.
    pub max_size: MaxSize,
    /// Frames a second at most; 0 = as sent.
    pub max_fps: u32,
    /// What it does while nobody reads.
    pub idle: Idle,
    /// Age at which an unchanged picture counts as frozen; zero = never.
    pub frozen_after: Duration,
    /// When systemd hears READY without a frame.
    pub ready_timeout: Duration,
    /// How the camera's certificate is checked.
    pub tls: Tls,
    /// What decodes.
    pub decode: Decode,
    /// When it is tried again.
    pub reconnect: Reconnect,
    /// How the ring is made.
    pub ring: RingSettings,
    /// More rings from the same decoder, in the order of the file.
    pub outputs: Vec<Output>,
    /// Every setting with its origin, in the order of the documentation; unset ones are missing.
    pub settings: Vec<Setting>,
    /// Where the camera begins in its file; `None` = on the command line.
    pub place: Option<Place>,
}

/// One more ring from a camera's decoder.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name; its ring is `CAMERA.NAME`.
    pub name: CameraName,
    /// Public name of its segment in the memory mount.
    pub segment: String,
    /// Size of its frames.
    pub size: MaxSize,
    /// How pictures are made to fit a fixed size.
    pub fit: Fit,
    /// Layout of its pixels.
    pub format: PixelFormat,
    /// How bytes become floats, with a format of floats.
    pub normalize: Normalize,
    /// Part of the camera's picture.
    pub region: Option<Rect>,
    /// Frames a second at most; 0 = as sent.
    pub max_fps: u32,
    /// Frames that its ring keeps, 3 to 256.
    pub slots: u32,
    /// What happens to a slot that a reader holds.
    pub lease_policy: LeasePolicy,
    /// Every setting with its origin, in the order of the documentation; unset ones are missing.
    pub settings: Vec<Setting>,
}

/// Where a camera's pictures come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// An RTSP camera.
    Rtsp(CameraAddress),
    /// A camera that sends MJPEG over HTTP.
    Http(CameraAddress),
    /// A picture drawn by the program.
    Test(TestPicture),
    /// A video file, played in a loop.
    File(PathBuf),
    /// A camera at this machine, through Video4Linux.
    Device(PathBuf),
    /// A GStreamer pipeline of the operator's own; may hold secrets.
    Pipeline(SecretString),
}

/// A camera on the network, secrets not yet looked up.
#[derive(Clone, Debug)]
pub struct CameraAddress {
    /// The address without user and password.
    pub url: CameraUrl,
    /// The user.
    pub user: Option<Template>,
    /// The password.
    pub password: Option<Password>,
}

/// Where a password comes from.
#[derive(Clone, Debug)]
pub enum Password {
    /// From the configuration, possibly through `${NAME}`.
    Text(Template),
    /// From a file.
    File(PathBuf),
}

/// A picture drawn by the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TestPicture {
    /// What is drawn.
    pub pattern: TestPattern,
    /// Its size.
    pub size: FrameSize,
    /// Frames a second.
    pub fps: u32,
}

/// The largest frame of a camera, the size of an output's frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MaxSize {
    /// The ring becomes as large as the frames need.
    Source,
    /// The ring is made this large at the start; a larger frame is scaled down.
    Fixed(FrameSize),
}

/// How the camera's certificate is checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// Whether it is checked at all; off only when the file says `allow_insecure` too.
    pub verify: Switch,
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// SHA-256 of the only certificate to accept (DER).
    pub pin_sha256: Option<[u8; 32]>,
}

/// What decodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decode {
    /// The decoder.
    pub device: DecodeDevice,
    /// Threads of a software decoder; 0 = chosen by size.
    pub threads: u32,
}

/// A choice of decoder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DecodeDevice {
    /// The best that works.
    Auto,
    /// On the CPU.
    Software,
    /// Intel and AMD.
    Vaapi,
    /// NVIDIA.
    Nvidia,
    /// Single-board computers.
    V4l2,
    /// This GStreamer element and no other.
    Element(String),
}

/// When a camera is tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reconnect {
    /// Pause before the first try.
    pub first: Duration,
    /// Longest pause.
    pub max: Duration,
    /// From the start of a try to the first packet; longer than `request_timeout`.
    pub connect_timeout: Duration,
    /// For the answer to one RTSP request.
    pub request_timeout: Duration,
    /// Pauses after faults that only a change cures.
    pub permanent_retry: DurationRange,
    /// Pauses after a wrong user or password.
    pub auth_retry: DurationRange,
}

/// How the ring is made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RingSettings {
    /// Permission bits.
    pub mode: u32,
    /// Its group; `Auto` = `camring` where that works, else our own.
    pub group: Group,
    /// What happens to a slot that a reader holds.
    pub lease_policy: LeasePolicy,
    /// Whether all pages are touched at the start.
    pub prefault: Switch,
    /// Whether it asks for huge pages.
    pub huge_pages: HugePages,
    /// Whether it is locked into memory.
    pub lock: Switch,
}

/// The group of a ring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Group {
    /// `camring` where that works, else our own.
    Auto,
    /// This one, or the camera does not start.
    Name(String),
}

/// Where a setting comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Built in.
    BuiltIn,
    /// `[defaults]`.
    Defaults(Place),
    /// The camera's own table.
    Camera(Place),
    /// The command line.
    CommandLine,
}

impl Origin {
    /// The word that `check --effective` prints.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::BuiltIn => "default",
            Self::Defaults(_) => "defaults",
            Self::Camera(_) => "camera",
            Self::CommandLine => "command line",
        }
    }

    /// The place in a file.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Defaults(place) | Self::Camera(place) => Some(place),
            Self::BuiltIn | Self::CommandLine => None,
        }
    }
}

/// One setting of a camera and where it comes from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The key.
    pub key: &'static Key,
    /// Its value.
    pub value: Value,
    /// Who says so.
    pub origin: Origin,
}

impl Setting {
    /// The path of a [`Kind::Path`] key, counted from the folder of its file.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match (self.key.kind, &self.value) {
            (Kind::Path, Value::Text(path)) => Some(from_folder(self.origin.place(), path)),
            _ => None,
        }
    }
}

/// A path as the file at `place` means it.
pub(super) fn from_folder(place: Option<&Place>, path: &str) -> PathBuf {
    let folder = place.and_then(|place| place.file.path.parent()).unwrap_or(Path::new(""));
    folder.join(path)
}

/// How to reach a camera on the network, with every secret in it.
#[derive(Clone, Debug)]
pub struct Access {
    /// The address; [`CameraUrl::expose`] gives the text to connect to.
    pub url: CameraUrl,
    /// The user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<SecretString>,
}

impl Camera {
    /// A camera without a file: built-in settings and this address.
    ///
    /// `password` is taken as it is; `url` and `user` may name secrets by `${NAME}`.
    ///
    /// # Errors
    ///
    /// The same as for a file, without places.
    pub fn from_url(
        name: &str,
        url: &str,
        user: Option<&str>,
        password: Option<SecretString>,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let name = CameraName::new(name).map_err(|what| {
            Problem::error(format!("{name:?} is not a name for a camera: {what}"), format!("write {NAME_RULE}"))
        })?;
        let mut layer = Layer::default();
        for (path, text) in [("url", Some(url)), ("user", user)] {
            let Some((key, text)) = keys::find(Table::Camera, path).zip(text) else { continue };
            let value = key.kind.parse(path, &toml::de::DeValue::String(text.into()));
            let value = value.map_err(|refusal| {
                problems.push(Problem::error(format!("{}: {}", refusal.title, refusal.label), refusal.hint));
            });
            layer.entries.insert(key.path, Entry { value: value.ok(), place: None });
        }
        if let Some(secret) = password {
            let value = Some(Value::plain_password(secret));
            layer.entries.insert("password", Entry { value, place: None });
        }
        let nothing = Layer::default();
        let merged = Merged::camera(&layer, &nothing);
        validate::camera(&merged, None, &mut problems);
        match resolve::camera(&name, &merged, &[]) {
            Some(camera) if problems.is_empty() => Ok(camera),
            _ => Err(ConfigErrors::new(problems)),
        }
    }

    /// Where a setting stands, for messages about it; the camera's own place when it stands nowhere.
    #[must_use]
    pub fn place_of(&self, path: &str) -> Option<&Place> {
        let setting = self.settings.iter().find(|setting| setting.key.path == path);
        setting.and_then(|setting| setting.origin.place()).or(self.place.as_ref())
    }

    /// Looks up every secret of the camera; `None` for a source that is not reached over the network.
    ///
    /// # Errors
    ///
    /// Every secret that is missing or may not be used, each at its line.
    pub fn resolve_secrets(&self, store: &SecretStore) -> Result<Option<Access>, ConfigErrors> {
        let (Source::Rtsp(address) | Source::Http(address)) = &self.source else { return Ok(None) };
        let mut problems = Vec::new();
        let mut note = |path: &str, fault: SecretFault| {
            let problem = Problem::error(fault.what, fault.hint);
            problems.push(problem.at(self.place_of(path), format!("camera {} needs it here", self.name)));
        };
        let url = address.url.fill(store).map_err(|fault| note("url", fault)).ok();
        let fill = |template: &Template| template.fill(store, str::to_owned);
        let user = address.user.as_ref().map(fill).transpose().map_err(|fault| note("user", fault)).ok();
        let password = match &address.password {
            None => Ok(None),
            Some(Password::Text(template)) => fill(template).map(Some).map_err(|fault| note("password", fault)),
            Some(Password::File(path)) => read_file(path).map(Some).map_err(|fault| note("password_file", fault)),
        };
        match (url, user, password) {
            (Some(url), Some(user), Ok(password)) => {
                use secrecy::ExposeSecret;
                let user = user.map(|user| user.expose_secret().to_owned());
                Ok(Some(Access { url, user, password }))
            }
            _ => Err(ConfigErrors::new(problems)),
        }
    }
}
