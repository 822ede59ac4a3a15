//! From the configuration of one camera to the parts that run it.

use std::sync::Arc;
use std::time::Duration;

use camring_ring::{
    Capacity, Fit, HugePages, LeasePolicy, NameError, ReaderGroup, RingName, SegmentName, ShmDir, WriterOptions,
};

use secrecy::ExposeSecret;

use crate::backoff::RetryPolicy;
use crate::camera::Policy;
use crate::config::url::secret_spans;
use crate::config::words::{self, Switch, Word};
use crate::config::{
    Access, Camera, CameraAddress, ConfigErrors, DecodeDevice, Group, Idle, MaxSize, Output, Problem, Source, Tls,
};
use crate::output::Look;
use crate::paint::Normalize;
use crate::pipeline::{
    self, AccessUnits, CustomSource, Deinterlace, Device, FileSource, OnCorrupt, RtspSource, RtspSourceConfig, Tap,
    TestSource, TlsOptions, Transport, V4l2Source, WebSource,
};
use crate::placement::{Size, View};
use crate::rings::Plan;
use crate::source::{Demand, FrameSource};

/// Packets of a TCP session are never late, only lost by the camera; those of UDP may be.
const JITTER_TCP: Duration = Duration::from_millis(100);
const JITTER_UDP: Duration = Duration::from_millis(200);

/// By so much the supervisor is ahead of a connection's own timeout, which tells less.
const WEB_SLACK: Duration = Duration::from_secs(2);

/// The rings that a camera writes, the main one first.
///
/// # Errors
///
/// A name that is none; the configuration has checked it before.
pub fn plans(camera: &Camera, shm: &ShmDir) -> Result<Vec<Plan>, NameError> {
    let main = Plan { options: writer_options(camera, shm)?, look: look(camera) };
    let outputs = camera.outputs.iter().map(|output| output_plan(camera, output, shm));
    std::iter::once(Ok(main)).chain(outputs).collect()
}

/// The main ring of a camera.
///
/// # Errors
///
/// As [`plans`].
pub fn writer_options(camera: &Camera, shm: &ShmDir) -> Result<WriterOptions, NameError> {
    let ring = &camera.ring;
    let mut options = WriterOptions::new(RingName::new(camera.name.as_str())?);
    options.segment = SegmentName::new(camera.segment.clone())?;
    options.shm = shm.clone();
    options.slots = camera.slots;
    options.lease_policy = lease_policy(ring.lease_policy);
    options.capacity = match camera.max_size {
        MaxSize::Source => Capacity::FromSource,
        MaxSize::Fixed(size) => Capacity::Bytes(size.bytes(camera.format)),
    };
    options.mode = ring.mode;
    options.group = match &ring.group {
        Group::Auto => ReaderGroup::Auto,
        Group::Name(name) => ReaderGroup::Named(name.clone()),
    };
    options.prefault = ring.prefault == Switch::On;
    options.huge_pages = match ring.huge_pages {
        words::HugePages::Never => HugePages::Never,
        words::HugePages::Try => HugePages::Try,
    };
    options.lock_in_memory = ring.lock == Switch::On;
    options.stale_after = camera.stale_after;
    Ok(options)
}

/// The ring of one more output of a camera.
///
/// # Errors
///
/// As [`plans`].
pub fn output_plan(camera: &Camera, output: &Output, shm: &ShmDir) -> Result<Plan, NameError> {
    let options = WriterOptions {
        ring: RingName::new(format!("{}.{}", camera.name, output.name))?,
        segment: SegmentName::new(output.segment.clone())?,
        slots: output.slots,
        lease_policy: lease_policy(output.lease_policy),
        capacity: match output.size {
            MaxSize::Source => Capacity::FromSource,
            MaxSize::Fixed(size) => Capacity::Bytes(size.bytes(output.format)),
        },
        ..writer_options(camera, shm)?
    };
    let view = View {
        region: output.region,
        size: match output.size {
            MaxSize::Source => Size::Source,
            MaxSize::Fixed(size) => Size::Exactly(size.width, size.height),
        },
        fit: match output.fit {
            words::Fit::Letterbox => Fit::Letterbox,
            words::Fit::Stretch => Fit::Stretch,
            words::Fit::Crop => Fit::Crop,
        },
    };
    let look = Look { view, format: output.format, normalize: output.normalize, max_fps: output.max_fps };
    Ok(Plan { options, look })
}

/// What the frames of a camera's main ring are.
#[must_use]
pub fn look(camera: &Camera) -> Look {
    let size = match camera.max_size {
        MaxSize::Source => Size::Source,
        MaxSize::Fixed(size) => Size::Within(size.width, size.height),
    };
    let view = View { size, ..View::default() };
    Look { view, format: camera.format, normalize: Normalize::default(), max_fps: camera.max_fps }
}

fn lease_policy(word: words::LeasePolicy) -> LeasePolicy {
    match word {
        words::LeasePolicy::Fresh => LeasePolicy::Fresh,
        words::LeasePolicy::Protect => LeasePolicy::Protect,
        words::LeasePolicy::Off => LeasePolicy::Off,
    }
}

/// Where a camera's pictures come from; `access` is what `Camera::resolve_secrets` gave.
#[must_use]
pub fn source(camera: &Camera, access: Option<Access>) -> Box<dyn FrameSource> {
    match (&camera.source, access) {
        (Source::Test(picture), _) => Box::new(TestSource {
            pattern: picture.pattern.word().to_owned(),
            size: (picture.size.width, picture.size.height),
            fps: picture.fps,
        }),
        (Source::File(path), _) => {
            Box::new(FileSource { path: path.clone(), deinterlace: deinterlace(camera.deinterlace) })
        }
        (Source::Device(path), _) => {
            Box::new(V4l2Source { path: path.clone(), deinterlace: deinterlace(camera.deinterlace) })
        }
        (Source::Pipeline(launch), _) => {
            let launch = launch.expose_secret().to_owned();
            let secrets = secret_spans(&launch).into_iter().map(|span| launch[span].into()).collect();
            Box::new(CustomSource { launch, secrets })
        }
        (Source::Rtsp(address), access) => {
            Box::new(RtspSource::new(rtsp(camera, access.unwrap_or_else(|| without_secrets(address)))))
        }
        (Source::Http(address), access) => Box::new(web(camera, access.unwrap_or_else(|| without_secrets(address)))),
    }
}

/// The same for a camera behind RTSP, with somebody who hears everything of its stream; `None` for any other source.
#[must_use]
pub fn tapped_source(camera: &Camera, access: Option<Access>, tap: Arc<Tap>) -> Option<Box<dyn FrameSource>> {
    let Source::Rtsp(address) = &camera.source else { return None };
    let access = access.unwrap_or_else(|| without_secrets(address));
    Some(Box::new(RtspSource::tapped(rtsp(camera, access), tap)))
}

fn without_secrets(address: &CameraAddress) -> Access {
    Access { url: address.url.clone(), user: None, password: None }
}

/// Looks at what only GStreamer can judge of a camera, before anything of it starts: the text of `pipeline`.
///
/// # Errors
///
/// The mistake, at its place in the file.
pub fn examine(camera: &Camera) -> Result<(), ConfigErrors> {
    let Source::Pipeline(launch) = &camera.source else { return Ok(()) };
    let launch = launch.expose_secret();
    let Err(fault) = pipeline::examine(launch) else { return Ok(()) };
    let secrets = secret_spans(launch).into_iter().map(|span| &launch[span]).filter(|secret| secret.len() >= 3);
    let what = secrets.fold(fault.what, |what, secret| what.replace(secret, "***"));
    let place = camera.place_of("pipeline").map(|place| match &fault.word {
        Some(word) => place.narrowed_to(word),
        None => place.clone(),
    });
    let problem = Problem::error(format!("pipeline cannot be built: {what}"), fault.hint);
    Err(problem.at(place.as_ref(), "GStreamer refuses this").into())
}

fn web(camera: &Camera, access: Access) -> WebSource {
    WebSource {
        url: access.url.expose(),
        user: access.user,
        password: access.password,
        patience: web_patience(camera),
        device: device(&camera.decode.device),
        on_corrupt: on_corrupt(camera),
        keyframe_wait: camera.keyframe_wait,
    }
}

/// How long a read may block: longer than the supervisor waits for anything, which knows what a silence means.
fn web_patience(camera: &Camera) -> Duration {
    let policy = policy(camera);
    let waits = [policy.connect_timeout, policy.sync_timeout, policy.stall_after.unwrap_or_default()];
    waits.into_iter().max().unwrap_or_default() + WEB_SLACK
}

fn on_corrupt(camera: &Camera) -> OnCorrupt {
    match camera.on_corrupt {
        words::OnCorrupt::Drop => OnCorrupt::Drop,
        words::OnCorrupt::Flag => OnCorrupt::Flag,
    }
}

fn rtsp(camera: &Camera, access: Access) -> RtspSourceConfig {
    let jitter = match camera.transport {
        words::Transport::Tcp | words::Transport::Http => JITTER_TCP,
        words::Transport::Udp | words::Transport::Multicast | words::Transport::Auto => JITTER_UDP,
    };
    RtspSourceConfig {
        user: access.user,
        password: access.password,
        transport: match camera.transport {
            words::Transport::Tcp => Transport::Tcp,
            words::Transport::Udp => Transport::Udp,
            words::Transport::Multicast => Transport::Multicast,
            words::Transport::Http => Transport::Http,
            words::Transport::Auto => Transport::Auto,
        },
        jitter_buffer: camera.jitter_buffer.fixed().unwrap_or(jitter),
        request_timeout: camera.reconnect.request_timeout,
        tls: tls(&camera.tls),
        device: device(&camera.decode.device),
        threads: camera.decode.threads,
        on_corrupt: on_corrupt(camera),
        keyframe_wait: camera.keyframe_wait,
        access_units: match camera.access_units {
            words::AccessUnits::Auto => AccessUnits::Auto,
            words::AccessUnits::Marker => AccessUnits::Marker,
            words::AccessUnits::Parse => AccessUnits::Parse,
        },
        deinterlace: deinterlace(camera.deinterlace),
        ..RtspSourceConfig::new(&access.url.expose())
    }
}

fn deinterlace(word: words::Deinterlace) -> Deinterlace {
    match word {
        words::Deinterlace::Off => Deinterlace::Off,
        words::Deinterlace::Linear => Deinterlace::Linear,
        words::Deinterlace::Yadif => Deinterlace::Yadif,
    }
}

fn tls(tls: &Tls) -> TlsOptions {
    let hex = |pin: &[u8; 32]| pin.iter().map(|byte| format!("{byte:02x}")).collect();
    TlsOptions {
        verify: tls.verify == Switch::On,
        ca: tls.ca.clone(),
        pin_sha256: tls.pin_sha256.as_ref().map(hex),
        // The configuration accepts "off" only together with this word.
        allow_insecure: tls.verify == Switch::Off,
    }
}

fn device(device: &DecodeDevice) -> Device {
    match device {
        DecodeDevice::Auto => Device::Auto,
        DecodeDevice::Software => Device::Software,
        DecodeDevice::Vaapi => Device::Vaapi,
        DecodeDevice::Nvidia => Device::Nvidia,
        DecodeDevice::V4l2 => Device::V4l2,
        DecodeDevice::Element(name) => Device::Element(name.clone()),
    }
}

/// What is asked of a camera's session while nobody reads. Only of RTSP some pictures can be left to others.
fn demand(camera: &Camera) -> Demand {
    match (camera.idle, &camera.source) {
        (Idle::Keyframes, Source::Rtsp(_)) => Demand::Keyframes,
        (Idle::Full | Idle::Keyframes, _) => Demand::All,
        (Idle::Park, _) => Demand::Nothing,
    }
}

/// How patient the supervisor is with a camera.
#[must_use]
pub fn policy(camera: &Camera) -> Policy {
    let reconnect = &camera.reconnect;
    Policy {
        retry: RetryPolicy {
            first: reconnect.first,
            max: reconnect.max,
            permanent: reconnect.permanent_retry.first..=reconnect.permanent_retry.max,
            auth: reconnect.auth_retry.first..=reconnect.auth_retry.max,
        },
        connect_timeout: reconnect.connect_timeout,
        stall_after: camera.stall_after.fixed(),
        idle: demand(camera),
        frozen_after: Some(camera.frozen_after).filter(|limit| !limit.is_zero()),
        ..Policy::default()
    }
}
