//! What a key alone cannot tell: combinations that cannot work, within a camera and between cameras.

use std::collections::BTreeMap;
use std::time::Duration;

use super::camera::MaxSize;
use super::duration;
use super::name::CameraName;
use super::report::{Place, Problem, Severity};
use super::resolve::Merged;
use super::size::{FrameSize, MountRoom, mebibytes, ring_bytes};
use super::url::redacted;
use super::value::Value;

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
    if let Some(mount) = mount {
        ring_fits(merged, mount, problems);
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

fn ring_fits(merged: &Merged<'_>, mount: &MountRoom, problems: &mut Vec<Problem>) {
    let (size, slots) = (known_size(merged), merged.number("slots"));
    let bytes = ring_bytes(size.unwrap_or(LIKELY), slots);
    if bytes <= mount.total_bytes {
        return;
    }
    let (path, has) = (mount.path.display(), mebibytes(mount.total_bytes));
    let needs = format!("needs {}, {path} has {has}", mebibytes(bytes));
    let slots_place = merged.place("slots");
    let (title, severity, place, label) = match size {
        Some(size) => {
            let size_place = merged.place("max_size").or_else(|| merged.place("test.size"));
            let place = size_place.or_else(|| merged.camera.tables.get("test"));
            (format!("a ring of {slots} slots of {size} {needs}"), Severity::Error, place, "the largest frame")
        }
        None => {
            let title = format!("a ring of {slots} slots of {LIKELY}, if the camera sends that, {needs}");
            (title, Severity::Warning, SOURCES.iter().find_map(|name| merged.place(name)), "its size is not known yet")
        }
    };
    let hint = format!("fewer slots, a smaller frame, or a larger mount: mount -o remount,size=SIZE {path}");
    let problem = Problem::error(title, hint).at(place.or(merged.camera.place.as_ref()), label);
    problems.push(problem.at(slots_place, "the number of slots").as_severity(severity));
}

/// A warning when the rings whose size is known do not fit together.
pub(super) fn rings_together(cameras: &[Merged<'_>], mount: &MountRoom, problems: &mut Vec<Problem>) {
    let sizes = || cameras.iter().filter_map(|merged| Some((known_size(merged)?, merged.number("slots"))));
    let bytes: Vec<u64> = sizes().map(|(size, slots)| ring_bytes(size, slots)).collect();
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
pub(super) fn segments(name: &CameraName, merged: &Merged<'_>, table: &super::document::CameraTable) -> Vec<Segment> {
    let place = merged.place("segment").or(merged.camera.place.as_ref());
    let main = Segment { name: merged.segment(name), owner: format!("camera {name}"), place: place.cloned() };
    let output = |(output, layer): &(CameraName, super::document::Layer)| {
        let said = layer.entries.get("segment").and_then(|entry| Some((entry.value.as_ref()?.text(), &entry.place)));
        let (segment, place) = match said {
            Some((segment, place)) => (segment, place.clone()),
            None => (format!("{}.{output}", name.default_segment()), layer.place.clone()),
        };
        Segment { name: segment, owner: format!("output {name}.{output}"), place }
    };
    std::iter::once(main).chain(table.outputs.iter().map(output)).collect()
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
