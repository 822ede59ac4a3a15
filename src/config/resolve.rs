//! From layers to a camera: its own keys before `[defaults]`, those before what is built in.

use std::time::Duration;

use camring_ring::frame::PixelFormat;

use super::camera::{
    Camera, CameraAddress, Decode, DecodeDevice, Group, MaxSize, Origin, Output, Password, Reconnect, RingSettings,
    Setting, Source, TestPicture, Tls, from_folder,
};
use super::document::Layer;
use super::duration::DurationRange;
use super::keys::{self, Scope, Table};
use super::name::CameraName;
use super::report::Place;
use super::url::Scheme;
use super::value::Value;
use super::words::{AutoOr, Switch, Word};
use crate::paint::Normalize;
use crate::source::Rect;

/// A camera's keys over the defaults.
#[derive(Clone, Copy)]
pub(super) struct Merged<'a> {
    pub(super) camera: &'a Layer,
    pub(super) defaults: &'a Layer,
    table: Table,
}

const IN_TABLE: &str = "the table of keys gives this key this kind, and a default";

impl<'a> Merged<'a> {
    pub(super) fn camera(camera: &'a Layer, defaults: &'a Layer) -> Self {
        Self { camera, defaults, table: Table::Camera }
    }

    /// An output's keys, which have no defaults but the built-in ones.
    pub(super) fn output(output: &'a Layer, nothing: &'a Layer) -> Self {
        Self { camera: output, defaults: nothing, table: Table::Output }
    }

    /// The value that counts; refused ones count as not said.
    pub(super) fn value(&self, path: &str) -> Option<&'a Value> {
        self.said(path).map(|(value, _)| value).or_else(|| keys::find(self.table, path)?.builtin())
    }

    /// Where the value that counts stands.
    pub(super) fn place(&self, path: &str) -> Option<&'a Place> {
        self.said(path).and_then(|(_, origin)| origin)
    }

    fn said(&self, path: &str) -> Option<(&'a Value, Option<&'a Place>)> {
        let of = |layer: &'a Layer| layer.entries.get(path).and_then(|entry| entry.value.as_ref().map(|v| (v, entry)));
        of(self.camera).or_else(|| of(self.defaults)).map(|(value, entry)| (value, entry.place.as_ref()))
    }

    fn origin(&self, path: &str) -> Origin {
        let layer = |layer: &Layer| layer.entries.get(path).filter(|entry| entry.value.is_some()).cloned();
        match (layer(self.camera), layer(self.defaults)) {
            (Some(entry), _) => entry.place.map_or(Origin::CommandLine, Origin::Camera),
            (None, Some(entry)) => entry.place.map_or(Origin::CommandLine, Origin::Defaults),
            (None, None) => Origin::BuiltIn,
        }
    }

    fn take<T>(&self, path: &str, take: impl Fn(&Value) -> Option<T>) -> T {
        self.value(path).and_then(take).expect(IN_TABLE)
    }

    fn word<T: Word>(&self, path: &str) -> T {
        self.take(path, |value| match value {
            Value::Word(word) => T::from_word(word),
            _ => None,
        })
    }

    pub(super) fn number(&self, path: &str) -> u32 {
        self.take(path, |value| match value {
            Value::Integer(number) => u32::try_from(*number).ok(),
            _ => None,
        })
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.take(path, |value| match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn duration(&self, path: &str) -> Duration {
        self.take(path, |value| match value {
            Value::Duration(found) => Some(*found),
            _ => None,
        })
    }

    fn auto_or_duration(&self, path: &str) -> AutoOr<Duration> {
        self.take(path, |value| match value {
            Value::Duration(found) => Some(AutoOr::Fixed(*found)),
            Value::Word(_) => Some(AutoOr::Auto),
            _ => None,
        })
    }

    fn range(&self, path: &str) -> DurationRange {
        self.take(path, |value| match value {
            Value::DurationRange(range) => Some(*range),
            _ => None,
        })
    }

    fn text(&self, path: &str) -> Option<&'a str> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn path(&self, path: &str) -> Option<std::path::PathBuf> {
        self.text(path).map(|text| from_folder(self.place(path), text))
    }

    /// The largest frame.
    pub(super) fn max_size(&self) -> MaxSize {
        self.size("max_size")
    }

    pub(super) fn size(&self, path: &str) -> MaxSize {
        match self.value(path) {
            Some(Value::Size(size)) => MaxSize::Fixed(*size),
            _ => MaxSize::Source,
        }
    }

    pub(super) fn format(&self) -> PixelFormat {
        self.take("format", |value| PixelFormat::from_word(&value.text()))
    }

    pub(super) fn region(&self) -> Option<Rect> {
        match self.value("region") {
            Some(Value::Region(region)) => Some(*region),
            _ => None,
        }
    }

    fn normalize(&self) -> Normalize {
        match self.value("normalize") {
            Some(Value::MeanStd(mean, std)) => Normalize::of(*mean, *std),
            _ => Normalize::default(),
        }
    }

    /// The test picture, when the camera draws one.
    pub(super) fn test(&self) -> Option<TestPicture> {
        self.camera.tables.contains_key("test").then(|| TestPicture {
            pattern: self.word("test.pattern"),
            size: self.take("test.size", |value| match value {
                Value::Size(size) => Some(*size),
                _ => None,
            }),
            fps: self.number("test.fps"),
        })
    }

    fn source(&self) -> Option<Source> {
        if let Some(test) = self.test() {
            return Some(Source::Test(test));
        }
        if let Some(file) = self.path("file") {
            return Some(Source::File(file));
        }
        if let Some(device) = self.path("device") {
            return Some(Source::Device(device));
        }
        if let Some(Value::Pipeline(launch)) = self.value("pipeline") {
            return Some(Source::Pipeline(launch.exposed().into()));
        }
        let Some(Value::Url(parts)) = self.value("url") else { return None };
        let user = match self.value("user") {
            Some(Value::User(user)) => Some(user.clone()),
            _ => parts.user.clone(),
        };
        let password = match (self.value("password"), self.path("password_file")) {
            (Some(Value::Password(password)), _) => Some(Password::Text(password.clone())),
            (_, Some(path)) => Some(Password::File(path)),
            _ => parts.password.clone().map(Password::Text),
        };
        let address = CameraAddress { url: parts.url.clone(), user, password };
        Some(match parts.url.scheme() {
            Scheme::Rtsp | Scheme::Rtsps => Source::Rtsp(address),
            Scheme::Http => Source::Http(address),
        })
    }

    /// Every setting that has a value, in the order of the table of keys.
    fn settings(&self, name: &CameraName) -> Vec<Setting> {
        let is_test = self.camera.tables.contains_key("test");
        let counts = |key: &&keys::Key| key.scope != Scope::Camera || key.default.is_none() || is_test;
        let setting = |key: &'static keys::Key| {
            let (value, origin) = match self.value(key.path) {
                Some(value) => (value.clone(), self.origin(key.path)),
                None => self.implied(name, key.path)?,
            };
            Some(Setting { key, value, origin })
        };
        keys::of_table(Table::Camera).filter(counts).filter_map(setting).collect()
    }

    /// What a camera key is when nobody says it: the segment after the name, user and password out of the URL.
    fn implied(&self, name: &CameraName, path: &str) -> Option<(Value, Origin)> {
        if path == "segment" {
            return Some((Value::Text(name.default_segment()), Origin::BuiltIn));
        }
        let Some(Value::Url(parts)) = self.value("url") else { return None };
        let value = match path {
            "user" => parts.user.clone().map(Value::User),
            "password" if self.value("password_file").is_none() => parts.password.clone().map(Value::Password),
            _ => None,
        };
        value.map(|value| (value, self.origin("url")))
    }

    fn tls(&self) -> Tls {
        let pin_sha256 = match self.value("tls.pin_sha256") {
            Some(Value::Fingerprint(bytes)) => Some(*bytes),
            _ => None,
        };
        let insecure = !self.flag("tls.verify") && self.flag("tls.allow_insecure");
        Tls { verify: Switch::from(!insecure), ca: self.path("tls.ca"), pin_sha256 }
    }

    fn decode(&self) -> Decode {
        let device = self.take("decode.device", |value| match value {
            Value::Word("auto") => Some(DecodeDevice::Auto),
            Value::Word("software") => Some(DecodeDevice::Software),
            Value::Word("vaapi") => Some(DecodeDevice::Vaapi),
            Value::Word("nvidia") => Some(DecodeDevice::Nvidia),
            Value::Word("v4l2") => Some(DecodeDevice::V4l2),
            Value::Text(element) => Some(DecodeDevice::Element(element.clone())),
            _ => None,
        });
        Decode { device, threads: self.number("decode.threads") }
    }

    fn reconnect(&self) -> Reconnect {
        Reconnect {
            first: self.duration("reconnect.first"),
            max: self.duration("reconnect.max"),
            connect_timeout: self.duration("reconnect.connect_timeout"),
            request_timeout: self.duration("reconnect.request_timeout"),
            permanent_retry: self.range("reconnect.permanent_retry"),
            auth_retry: self.range("reconnect.auth_retry"),
        }
    }

    fn ring(&self) -> RingSettings {
        let mode = self.take("ring.mode", |value| match value {
            Value::Mode(mode) => Some(*mode),
            _ => None,
        });
        RingSettings {
            mode,
            group: self.text("ring.group").map_or(Group::Auto, |name| Group::Name(name.to_owned())),
            lease_policy: self.word("ring.lease_policy"),
            prefault: self.flag("ring.prefault").into(),
            huge_pages: self.word("ring.huge_pages"),
            lock: self.flag("ring.lock").into(),
        }
    }

    /// The segment's public name.
    pub(super) fn segment(&self, name: &CameraName) -> String {
        self.text("segment").map_or_else(|| name.default_segment(), str::to_owned)
    }
}

/// The output that the layer describes, of a camera with these settings.
fn output(camera: &CameraName, name: &CameraName, layer: &Layer, of: &Merged<'_>) -> Output {
    let nothing = Layer::default();
    let merged = Merged::output(layer, &nothing);
    // What an output does not say is as its camera has it.
    let from = |path: &str| if merged.said(path).is_some() { merged } else { *of };
    let segment = merged.text("segment").map_or_else(|| camera.output_segment(name), str::to_owned);
    let setting = |key: &'static keys::Key| {
        let source = from(key.path);
        let (value, origin) = match (key.path, source.value(key.path)) {
            ("segment", _) => (Value::Text(segment.clone()), merged.origin("segment")),
            ("slots" | "ring.lease_policy", Some(value)) => (value.clone(), source.origin(key.path)),
            (path, _) => (merged.value(path)?.clone(), merged.origin(path)),
        };
        Some(Setting { key, value, origin })
    };
    Output {
        name: name.clone(),
        size: merged.size("size"),
        fit: merged.word("fit"),
        format: merged.format(),
        normalize: merged.normalize(),
        region: merged.region(),
        max_fps: merged.number("max_fps"),
        slots: from("slots").number("slots"),
        lease_policy: from("ring.lease_policy").word("ring.lease_policy"),
        settings: keys::of_table(Table::Output).filter_map(setting).collect(),
        segment,
    }
}

/// The camera that the layers describe; `None` without a source, which validation has noted.
pub(super) fn camera(name: &CameraName, merged: &Merged<'_>, outputs: &[(CameraName, Layer)]) -> Option<Camera> {
    Some(Camera {
        name: name.clone(),
        source: merged.source()?,
        segment: merged.segment(name),
        slots: merged.number("slots"),
        format: merged.format(),
        transport: merged.word("transport"),
        jitter_buffer: merged.auto_or_duration("jitter_buffer"),
        stall_after: merged.auto_or_duration("stall_after"),
        stale_after: merged.duration("stale_after"),
        on_corrupt: merged.word("on_corrupt"),
        keyframe_wait: merged.duration("keyframe_wait"),
        access_units: merged.word("access_units"),
        deinterlace: merged.word("deinterlace"),
        max_size: merged.max_size(),
        max_fps: merged.number("max_fps"),
        idle: merged.word("idle"),
        frozen_after: merged.duration("frozen_after"),
        ready_timeout: merged.duration("ready_timeout"),
        tls: merged.tls(),
        decode: merged.decode(),
        reconnect: merged.reconnect(),
        ring: merged.ring(),
        outputs: outputs.iter().map(|(of, layer)| output(name, of, layer, merged)).collect(),
        settings: merged.settings(name),
        place: merged.camera.place.clone(),
    })
}
