//! What a key alone cannot tell: combinations that cannot work, within a camera and between cameras.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use camring_ring::frame::PixelFormat;

use super::camera::MaxSize;
use super::document::{CameraTable, Layer};
use super::duration;
use super::name::CameraName;
use super::report::{Place, Problem, Severity};
use super::resolve::Merged;
use super::size::{FrameSize, MountRoom, mebibytes, ring_bytes};
use super::url::redacted;
use super::value::Value;
use crate::source::Rect;

const SOURCES: [&str; 5] = ["url", "test", "file", "device", "pipeline"];
/// The shortest `frozen_after` that is not off.
const FROZEN_LEAST: Duration = Duration::from_secs(1);
/// What a camera is taken for whose size is not known yet.
const LIKELY: FrameSize = FrameSize { width: 1920, height: 1080 };

/// Notes what is impossible or doubtful about one camera.
pub(super) fn camera(merged: &Merged<'_>, mount: Option<&MountRoom>, problems: &mut Vec<Problem>) {
    sources(merged, problems);
    access(merged, problems);
    secrets_in_file(merged, problems);
    tls(merged, problems);
    reconnect(merged, problems);
    frozen(merged, problems);
    slow_for_stale(merged.number("max_fps"), merged.duration("stale_after"), merged.place("max_fps"), problems);
    if let MaxSize::Fixed(size) = merged.max_size() {
        even_sides(merged.format(), size, merged.place("max_size"), problems);
    }
    if let Some(mount) = mount {
        Room::of_camera(merged).check(mount, problems);
    }
}

fn sources(merged: &Merged<'_>, problems: &mut Vec<Problem>) {
    let said = |name: &'static str| {
        let entry = merged.camera.entries.get(name).map(|entry| entry.place.as_ref());
        entry.or_else(|| merged.camera.tables.get(name).map(Some)).map(|place| (name, place))
    };
    let mut found: Vec<_> = SOURCES.into_iter().filter_map(said).collect();
    found.sort_by_key(|(_, place)| place.map(|place| place.span.start));
    let is_meant =
        || merged.camera.meant.iter().any(|path| SOURCES.iter().any(|name| path.split('.').next() == Some(name)));
    match found.as_slice() {
        [] if !is_meant() => {
            let hint = "write url = \"rtsp://HOST/PATH\", device = \"/dev/video0\", file = \"PATH\" or test = {}";
            let problem = Problem::error("this camera has no source", hint);
            problems.push(problem.at(merged.camera.place.as_ref(), "none of url, device, pipeline, file and test"));
        }
        [_, _, ..] => {
            let problem = Problem::error("this camera has more than one source", "keep one of them");
            let problem = found.iter().fold(problem, |problem, (name, place)| problem.at(*place, *name));
            problems.push(problem);
        }
        _ => {}
    }
}

/// User and password: once each, and only where there is somebody to tell them to.
fn access(merged: &Merged<'_>, problems: &mut Vec<Problem>) {
    let said = |path: &str| merged.camera.entries.contains_key(path);
    let is_other = merged.camera.tables.contains_key("test") || ["file", "device", "pipeline"].into_iter().any(said);
    for path in ["user", "password", "password_file"] {
        if is_other && !said("url") && said(path) {
            let problem = Problem::error(format!("{path} without url"), "remove it: only a url is asked for a user");
            problems.push(problem.at(merged.place(path), "nobody to tell it to"));
        }
    }
    if said("password") && said("password_file") {
        let problem = Problem::error("the password is given twice", "keep one of password and password_file");
        problems.push(problem.at(merged.place("password"), "here").at(merged.place("password_file"), "and here"));
    }
    let Some(Value::Url(parts)) = merged.value("url") else { return };
    let password = ["password", "password_file"].into_iter().find(|path| said(path));
    for (path, in_url) in [(Some("user").filter(|path| said(path)), &parts.user), (password, &parts.password)] {
        if let (Some(path), Some(_)) = (path, in_url) {
            let problem = Problem::error(format!("{path} is given twice"), "remove it from the url");
            problems.push(problem.at(merged.place("url"), "here").at(merged.place(path), "and here"));
        }
    }
    let place = merged.place(password.unwrap_or("url"));
    if (password.is_some() || parts.password.is_some()) && !said("user") && parts.user.is_none() {
        let problem = Problem::error("a password without a user", "write user = \"NAME\"");
        problems.push(problem.at(place, "whose password?"));
    }
}

fn secrets_in_file(merged: &Merged<'_>, problems: &mut Vec<Problem>) {
    let hint = "write password = \"${NAME}\" or password_file = \"PATH\", or keep the file at mode 0640";
    let mut warn = |path: &str, label: &str| {
        if let Some(place) = merged.place(path) {
            let problem = Problem::error("a password is written in this file, which makes the file a secret", hint);
            problems.push(problem.at(Some(place), label).as_severity(Severity::Warning));
        }
    };
    match merged.value("password") {
        Some(Value::Password(password)) if password.has_literal() => warn("password", "written out"),
        _ => {}
    }
    if matches!(merged.value("pipeline"), Some(Value::Pipeline(text)) if redacted(&text.exposed()) != text.exposed()) {
        warn("pipeline", "inside this pipeline");
    }
    if let Some(Value::Url(parts)) = merged.value("url")
        && (parts.url.has_secret() || parts.password.as_ref().is_some_and(super::secret::Template::has_literal))
    {
        warn("url", "inside this address");
    }
}

fn tls(merged: &Merged<'_>, problems: &mut Vec<Problem>) {
    if merged.flag("tls.verify") {
        return;
    }
    let place = merged.place("tls.verify");
    if !merged.flag("tls.allow_insecure") {
        let hint = "better: tls.pin_sha256 or tls.ca; or write tls.allow_insecure = true as well";
        let problem = Problem::error("tls.verify = false without tls.allow_insecure = true", hint);
        problems.push(problem.at(place, "anybody on the way could read password and picture"));
    } else if merged.value("tls.ca").is_some() {
        let problem = Problem::error("tls.ca has no effect with tls.verify = false", "remove one of them");
        let problem = problem.at(merged.place("tls.ca"), "never looked at").at(place, "because of this");
        problems.push(problem.as_severity(Severity::Warning));
    }
}

fn reconnect(merged: &Merged<'_>, problems: &mut Vec<Problem>) {
    let mut must = |low: &str, high: &str, fine: bool, relation: &str| {
        if fine {
            return;
        }
        let text = |path: &str| duration::format(merged.duration(path));
        let title = format!("{low} = \"{}\" {relation} {high} = \"{}\"", text(low), text(high));
        let problem = Problem::error(title, format!("lower {low} or raise {high}"));
        problems.push(problem.at(merged.place(low), "this one").at(merged.place(high), "and this one"));
    };
    let of = |path: &str| merged.duration(path);
    let (first, max) = ("reconnect.first", "reconnect.max");
    must(first, max, of(first) <= of(max), "is longer than");
    let (request, connect) = ("reconnect.request_timeout", "reconnect.connect_timeout");
    must(request, connect, of(request) < of(connect), "is not shorter than");
}

/// Two pictures alike are no frozen camera: the shortest time is one in which several come.
fn frozen(merged: &Merged<'_>, problems: &mut Vec<Problem>) {
    let after = merged.duration("frozen_after");
    if !after.is_zero() && after < FROZEN_LEAST {
        let title = format!("frozen_after = \"{}\" is out of range", duration::format(after));
        let problem = Problem::error(title, "write 0s to switch it off, or at least 1s");
        problems.push(problem.at(merged.place("frozen_after"), "expected 0s, or 1s to 1day"));
    }
}

/// The size of the largest frame, when it is known before the first one.
fn known_size(merged: &Merged<'_>) -> Option<FrameSize> {
    match merged.max_size() {
        MaxSize::Fixed(size) => Some(size),
        MaxSize::Source => merged.test().map(|test| test.size),
    }
}

/// A ring of the configuration, for the question whether the mount holds it.
struct Room<'a> {
    /// What is made: `a ring`, or `a ring of the output NAME`.
    what: String,
    /// Size of its frames; `None` = not known before the first one.
    size: Option<FrameSize>,
    format: PixelFormat,
    slots: u32,
    size_place: Option<&'a Place>,
    slots_place: Option<&'a Place>,
}

impl<'a> Room<'a> {
    fn of_camera(merged: &Merged<'a>) -> Self {
        let size = known_size(merged);
        let size_place = merged.place("max_size").or_else(|| merged.place("test.size"));
        let size_place = size_place.or_else(|| merged.camera.tables.get("test"));
        let unknown = || SOURCES.iter().find_map(|name| merged.place(name));
        Self {
            what: "a ring".to_owned(),
            size,
            format: merged.format(),
            slots: merged.number("slots"),
            size_place: if size.is_some() { size_place } else { unknown() }.or(merged.camera.place.as_ref()),
            slots_place: merged.place("slots"),
        }
    }

    fn of_output(name: &CameraName, layer: &'a Layer, nothing: &'a Layer, camera: &Merged<'a>) -> Self {
        let merged = Merged::output(layer, nothing);
        let source = || camera.test().map(|test| test.size);
        let size = match (merged.size("size"), merged.region()) {
            (MaxSize::Fixed(size), _) => Some(size),
            // A region is no larger than the picture; one that is smaller is not known to be cut.
            (MaxSize::Source, Some(Rect { width, height, .. })) => Some(FrameSize { width, height }),
            (MaxSize::Source, None) => source(),
        };
        let own_slots = layer.entries.contains_key("slots");
        let slots = if own_slots { merged } else { *camera };
        Self {
            what: format!("a ring of the output {name}"),
            size,
            format: merged.format(),
            slots: if own_slots { slots_of(layer).unwrap_or(3) } else { camera.number("slots") },
            size_place: merged.place("size").or_else(|| merged.place("region")).or(layer.place.as_ref()),
            slots_place: slots.place("slots"),
        }
    }

    fn bytes(&self) -> u64 {
        ring_bytes(self.size.unwrap_or(LIKELY), self.format, self.slots)
    }

    /// Notes a ring that the mount cannot hold.
    fn check(&self, mount: &MountRoom, problems: &mut Vec<Problem>) {
        let bytes = self.bytes();
        if bytes <= mount.total_bytes {
            return;
        }
        let Self { what, size, format, slots, .. } = self;
        let (path, has) = (mount.path.display(), mebibytes(mount.total_bytes));
        let needs = format!("needs {}, {path} has {has}", mebibytes(bytes));
        let kind = if *format == PixelFormat::Bgr { String::new() } else { format!(" {format}") };
        let (title, severity, label) = match size {
            Some(size) => {
                (format!("{what} of {slots} slots of {size}{kind} {needs}"), Severity::Error, "the largest frame")
            }
            None => (
                format!("{what} of {slots} slots of {LIKELY}{kind}, if the camera sends that, {needs}"),
                Severity::Warning,
                "its size is not known yet",
            ),
        };
        let hint = format!("fewer slots, a smaller frame, or a larger mount: mount -o remount,size=SIZE {path}");
        let problem = Problem::error(title, hint).at(self.size_place, label);
        problems.push(problem.at(self.slots_place, "the number of slots").as_severity(severity));
    }
}

fn slots_of(layer: &Layer) -> Option<u32> {
    match layer.entries.get("slots")?.value {
        Some(Value::Integer(slots)) => u32::try_from(slots).ok(),
        _ => None,
    }
}

/// Notes what is impossible or doubtful about one output of a camera.
pub(super) fn output(
    name: &CameraName,
    layer: &Layer,
    camera: &Merged<'_>,
    mount: Option<&MountRoom>,
    problems: &mut Vec<Problem>,
) {
    let nothing = Layer::default();
    let merged = Merged::output(layer, &nothing);
    let format = merged.format();
    if merged.place("normalize").is_some() && format != PixelFormat::RgbPlanarF32 {
        let hint = "write format = \"rgb-planar-f32\", or remove normalize";
        let problem = Problem::error(format!("normalize with format = \"{format}\""), hint);
        problems.push(problem.at(merged.place("normalize"), "bytes stay bytes in this format"));
    }
    if merged.place("fit").is_some() && merged.size("size") == MaxSize::Source {
        let problem = Problem::error("fit without a size", "write size = \"WIDTHxHEIGHT\", or remove fit");
        problems.push(problem.at(merged.place("fit"), "there is nothing to fit into"));
    }
    if let MaxSize::Fixed(size) = merged.size("size") {
        even_sides(format, size, merged.place("size"), problems);
    }
    let stale = camera.duration("stale_after");
    slow_for_stale(merged.number("max_fps"), stale, merged.place("max_fps"), problems);
    if let (Some(region), Some(test)) = (merged.region(), camera.test())
        && (region.x >= test.size.width || region.y >= test.size.height)
    {
        let title = format!("the region begins outside the picture of {}", test.size);
        let problem = Problem::error(title, "choose one inside");
        problems.push(problem.at(merged.place("region"), "nothing to be seen there"));
    }
    if let Some(mount) = mount {
        Room::of_output(name, layer, &nothing, camera).check(mount, problems);
    }
}

/// 4:2:0 of an odd side makes no array.
fn even_sides(format: PixelFormat, size: FrameSize, place: Option<&Place>, problems: &mut Vec<Problem>) {
    let shared = matches!(format, PixelFormat::I420 | PixelFormat::Nv12);
    if shared && !(size.width.is_multiple_of(2) && size.height.is_multiple_of(2)) {
        let title = format!("a size of {size} with format = \"{format}\"");
        let problem = Problem::error(title, "choose even sides, or another format");
        problems.push(problem.at(place, "two pixels share their colour, so both sides must be even"));
    }
}

/// A ring whose frames are meant to be further apart than they may be old.
fn slow_for_stale(max_fps: u32, stale: Duration, place: Option<&Place>, problems: &mut Vec<Problem>) {
    if max_fps == 0 || stale.is_zero() || stale.as_millis() * u128::from(max_fps) >= 1500 {
        return;
    }
    let title = format!("max_fps = {max_fps} and stale_after = \"{}\"", duration::format(stale));
    let problem = Problem::error(title, "raise stale_after above the time between two frames, or max_fps");
    let problem = problem.at(place, "readers would see \"stale\" between two frames");
    problems.push(problem.as_severity(Severity::Warning));
}

/// A warning when the rings whose size is known do not fit together.
pub(super) fn rings_together(
    tables: &[CameraTable],
    cameras: &[Merged<'_>],
    mount: &MountRoom,
    problems: &mut Vec<Problem>,
) {
    let nothing = Layer::default();
    let rooms = tables.iter().zip(cameras).flat_map(|(table, merged)| {
        let outputs = table.outputs.iter().map(|(name, layer)| Room::of_output(name, layer, &nothing, merged));
        std::iter::once(Room::of_camera(merged)).chain(outputs)
    });
    let bytes: Vec<u64> = rooms.filter(|room| room.size.is_some()).map(|room| room.bytes()).collect();
    let sum = bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    if bytes.len() > 1 && sum > mount.total_bytes && bytes.iter().all(|bytes| *bytes <= mount.total_bytes) {
        let (path, has) = (mount.path.display(), mebibytes(mount.total_bytes));
        let title = format!("{} rings together need {}, {path} has {has}", bytes.len(), mebibytes(sum));
        let hint = format!("fewer slots, or a larger mount: mount -o remount,size=SIZE {path}");
        problems.push(Problem::error(title, hint).as_severity(Severity::Warning));
    }
}

/// One segment of the configuration: its public name, whose it is, and where that is said.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) place: Option<Place>,
}

/// The public names that a camera and its outputs take.
pub(super) fn segments(name: &CameraName, merged: &Merged<'_>, table: &CameraTable) -> Vec<Segment> {
    let place = merged.place("segment").or(merged.camera.place.as_ref());
    let main = Segment { name: merged.segment(name), owner: format!("camera {name}"), place: place.cloned() };
    let output = |(output, layer): &(CameraName, Layer)| {
        let said = layer.entries.get("segment").and_then(|entry| Some((entry.value.as_ref()?.text(), &entry.place)));
        let (segment, place) = match said {
            Some((segment, place)) => (segment, place.clone()),
            None => (name.output_segment(output), layer.place.clone()),
        };
        Segment { name: segment, owner: format!("output {name}.{output}"), place }
    };
    std::iter::once(main).chain(table.outputs.iter().map(output)).collect()
}

/// Notes what `camring serve` will refuse, and a token that makes the file a secret.
pub(super) fn serve(layer: &Layer, problems: &mut Vec<Problem>) {
    let entry = |path: &str| layer.entries.get(path);
    match entry("token") {
        Some(token) => {
            if matches!(&token.value, Some(Value::Password(text)) if text.has_literal()) {
                let hint = "write token = \"${NAME}\", or keep the file at mode 0640";
                let problem = Problem::error("a token is written in this file, which makes the file a secret", hint);
                problems.push(problem.at(token.place.as_ref(), "written out").as_severity(Severity::Warning));
            }
        }
        None => {
            let Some(listen) = entry("listen") else { return };
            let address = listen.value.as_ref().and_then(|value| value.text().parse::<SocketAddr>().ok());
            if address.is_some_and(|address| !address.ip().is_loopback()) {
                let hint = "write token = \"${serve_token}\" beside it, or start it with --token-file";
                let problem = Problem::error("camring serve will not listen here without a token", hint);
                let label = "others can reach this address";
                problems.push(problem.at(listen.place.as_ref(), label).as_severity(Severity::Warning));
            }
        }
    }
}

/// Notes every public name that is taken twice.
pub(super) fn unique_segments(segments: &[Segment], problems: &mut Vec<Problem>) {
    let mut taken: BTreeMap<&str, &Segment> = BTreeMap::new();
    for segment in segments {
        if let Some(first) = taken.insert(&segment.name, segment) {
            let title = format!("the segment name {} is taken twice", segment.name);
            let problem = Problem::error(title, "give one of them another segment");
            problems.push(
                problem
                    .at(segment.place.as_ref(), segment.owner.as_str())
                    .at(first.place.as_ref(), first.owner.as_str()),
            );
        }
    }
}
