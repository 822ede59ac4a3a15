//! The end of every pipeline: a decoded sample becomes a borrowed `FrameRef` and goes to the sink.
//!
//! Runs on one streaming thread. Per picture: no lock, no allocation and no log of ours.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use camring_ring::frame::{FrameFlags, Reason, TimeSource};
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};

use super::arrival::{Arrival, Arrivals, mono_ns, real_ns};
use super::color;
use super::fallback::{Scratch, SlowPath};
use super::gate::{Findings, FindingsTable};
use super::report::Reporter;
use super::still::Stillness;
use crate::source::{
    Demand, FrameRef, FrameSink, FrameTiming, Loan, Plane, Progress, RetryClass, RetryReason, SourceEvent, SourceLayout,
};

/// Seconds from 1900 (NTP) to 1970 (Unix), in ns.
const NTP_TO_UNIX_NS: u64 = 2_208_988_800_000_000_000;

/// A camera clock further off than this is not believed.
const PLAUSIBLE_NS: u64 = 5_000_000_000;

/// Where the pictures come from.
pub(super) enum Origin {
    /// A camera: arrival times and findings of the gate are matched by PTS.
    Camera {
        arrivals: Arc<Arrivals>,
        findings: Arc<FindingsTable>,
        /// Whether pictures of unknown range are full range.
        full_range: bool,
    },
    /// Anything that tells no time of arrival: a picture arrives when it is decoded.
    Local {
        /// Whether the pictures show nothing that is happening now, such as those of a file.
        synthetic: bool,
        /// Added to every PTS so that a looped file goes on where it began again.
        pts_offset: i64,
    },
}

/// A picture that waits for the next one, with the time at which it was decoded (ns of CLOCK_MONOTONIC).
type Held = Option<(gst::Sample, i64)>;

/// What the caps say, worked out once per change.
struct Format {
    caps: gst::Caps,
    info: VideoInfo,
    layout: SourceLayout,
    color: camring_ring::frame::Color,
    pixel_aspect: (u16, u16),
}

/// Takes samples from the appsink to the sink.
pub(super) struct Tail {
    sink: Loan<Box<dyn FrameSink>>,
    origin: Origin,
    /// Whether a picture may turn out to be a part of one.
    doubts: bool,
    held: Held,
    progress: Arc<Progress>,
    reporter: Arc<Reporter>,
    format: Option<Format>,
    scratch: RefCell<Scratch>,
    stillness: Stillness,
    last_pts: Option<i64>,
    last_lost: u64,
    /// Pictures that were decoded and not delivered since the previous one.
    withheld: u64,
}

impl Tail {
    pub(super) fn new(
        sink: Loan<Box<dyn FrameSink>>,
        origin: Origin,
        progress: Arc<Progress>,
        reporter: Arc<Reporter>,
    ) -> Self {
        let (scratch, stillness) = (RefCell::default(), Stillness::default());
        Self {
            sink,
            origin,
            doubts: false,
            held: None,
            progress,
            reporter,
            format: None,
            scratch,
            stillness,
            last_pts: None,
            last_lost: 0,
            withheld: 0,
        }
    }

    /// Holds a picture back until the next one shows whether it is whole, where fewer slices of it have come than any
    /// whole one had: half a picture, whose other half is still on its way, cannot be told from a whole one. Costs the
    /// first frame of a camera one frame interval, and then those with fewer slices than ever before.
    pub(super) fn doubting(self, doubts: bool) -> Self {
        Self { doubts, ..self }
    }

    /// The appsink callback.
    ///
    /// # Errors
    ///
    /// Stops the stream after it has told the supervisor why.
    pub(super) fn take(&mut self, appsink: &gst_app::AppSink) -> Result<gst::FlowSuccess, gst::FlowError> {
        let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        self.judge(sample, mono_ns()).map(|()| gst::FlowSuccess::Ok).map_err(|end| {
            self.reporter.ended(end.reason, end.class, &end.message);
            gst::FlowError::Error
        })
    }

    fn judge(&mut self, sample: gst::Sample, decoded_mono_ns: i64) -> Result<(), RetryReason> {
        if let Some((before, before_mono_ns)) = self.held.take() {
            self.deliver(&before, before_mono_ns)?;
        }
        if self.doubts && sample.buffer().is_some_and(|buffer| self.may_be_a_part(buffer)) {
            self.foresee(&sample)?;
            self.held = Some((sample, decoded_mono_ns));
            return Ok(());
        }
        self.deliver(&sample, decoded_mono_ns)
    }

    /// Has the sink prepare for a picture while it is held back.
    fn foresee(&mut self, sample: &gst::SampleRef) -> Result<(), RetryReason> {
        if let Some(caps) = sample.caps() {
            self.adopt(caps)?;
        }
        if let Some(Format { info, .. }) = &self.format {
            self.sink.expect((info.width(), info.height()));
        }
        Ok(())
    }

    fn deliver(&mut self, sample: &gst::SampleRef, decoded_mono_ns: i64) -> Result<(), RetryReason> {
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
            return Err(internal("the decoder delivered a sample without a picture"));
        };
        let format_changed = self.adopt(caps)?;
        let (timing, findings) = self.describe(buffer, decoded_mono_ns);
        let lost = self.count_lost(findings.lost);
        self.note(&timing);
        if self.is_unwanted(buffer) || self.is_part(buffer, findings.flags) {
            self.withheld += 1 + lost;
            return Ok(());
        }
        let lost_before = lost + std::mem::take(&mut self.withheld);
        let format = self.format.as_ref().expect("adopt has set it");
        let picture = VideoFrameRef::from_buffer_ref_readable(buffer, &format.info)
            .map_err(|_| internal("a decoded picture cannot be mapped"))?;
        if self.progress.compare.load(Ordering::Relaxed) {
            if findings.flags.contains(FrameFlags::DISCONT) {
                // What was to be seen meanwhile is not known: the time of a still picture begins anew.
                self.stillness = Stillness::default();
            }
            let unchanged_ns = self.stillness.look(&picture, decoded_mono_ns);
            self.progress.unchanged_ns.store(unchanged_ns, Ordering::Relaxed);
        }
        let planes = planes(&picture, format.layout);
        let frame = FrameRef {
            width: picture.width(),
            height: picture.height(),
            layout: format.layout,
            planes: &planes.0[..planes.1],
            color: format.color,
            pixel_aspect: format.pixel_aspect,
            timing,
            flags: findings
                .flags
                .with_if(format_changed, FrameFlags::FORMAT_CHANGED)
                .with_if(picture.is_interlaced(), FrameFlags::INTERLACED)
                .with_if(is_implausible(&timing), FrameFlags::UNTRUSTED_TIME),
            lost_before: u32::try_from(lost_before).unwrap_or(u32::MAX),
            fallback: &SlowPath { picture: &picture, color: format.color, scratch: &self.scratch },
        };
        catch_unwind(AssertUnwindSafe(|| self.sink.frame(&frame)))
            .map_err(|_| internal("publishing a picture panicked; the place is on standard error"))
    }

    /// Takes over new caps; true when this session had others before.
    fn adopt(&mut self, caps: &gst::CapsRef) -> Result<bool, RetryReason> {
        if self.format.as_ref().is_some_and(|format| std::ptr::eq(format.caps.as_ref(), caps)) {
            return Ok(false);
        }
        let info = VideoInfo::from_caps(caps).map_err(|_| internal("the decoder's caps are no video"))?;
        let jpeg = matches!(self.origin, Origin::Camera { full_range: true, .. });
        let format = Format {
            caps: caps.to_owned(),
            layout: layout(&info),
            color: color::describe(&info.colorimetry(), info.is_rgb(), info.height(), jpeg),
            pixel_aspect: aspect(info.par()),
            info,
        };
        self.scratch.borrow_mut().forget();
        let changed = self.format.as_ref().is_some_and(|old| {
            (old.info.format(), old.info.width(), old.info.height(), old.color)
                != (format.info.format(), format.info.width(), format.info.height(), format.color)
        });
        self.format = Some(format);
        Ok(changed)
    }

    fn describe(&mut self, buffer: &gst::BufferRef, decoded_mono_ns: i64) -> (FrameTiming, Findings) {
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        let now =
            Arrival { mono_ns: decoded_mono_ns, real_ns: real_ns(), rtp_timestamp: 0, torn: false, gaps: 0, slices: 0 };
        let (arrival, findings, pts_ns) = match &mut self.origin {
            Origin::Camera { arrivals, findings, .. } => {
                let findings =
                    pts.and_then(|pts| findings.get(pts)).unwrap_or_else(|| unmatched(&self.progress, self.last_lost));
                (pts.and_then(|pts| arrivals.get(pts)).unwrap_or(now), findings, to_i64(pts))
            }
            Origin::Local { pts_offset, synthetic } => {
                let flags = FrameFlags::KEYFRAME
                    .with_if(*synthetic, FrameFlags::SYNTHETIC)
                    .with_if(self.last_pts.is_none(), FrameFlags::DISCONT);
                let pts = onward(
                    pts_offset,
                    to_i64(pts),
                    self.last_pts,
                    to_i64(buffer.duration().map(gst::ClockTime::nseconds)),
                );
                (now, Findings { flags, lost: 0 }, pts)
            }
        };
        let source_unix_ns = camera_time(buffer);
        let timing = FrameTiming {
            pts_ns,
            duration_ns: to_i64(buffer.duration().map(gst::ClockTime::nseconds)),
            rtp_timestamp: arrival.rtp_timestamp,
            arrival_mono_ns: arrival.mono_ns,
            arrival_real_ns: arrival.real_ns,
            decoded_mono_ns,
            source_unix_ns,
            time_source: source_unix_ns.map(|_| TimeSource::RtcpSr),
        };
        (timing, findings)
    }

    /// Whether a picture came out of the decoder because of its order, or of a source that cannot rest, and is not to be
    /// shown: nobody reads, or it is from before the time when nobody did.
    fn is_unwanted(&mut self, buffer: &gst::BufferRef) -> bool {
        match &self.origin {
            Origin::Camera { findings, .. } => buffer.pts().is_some_and(|pts| findings.is_left_over(pts.nseconds())),
            Origin::Local { .. } => self.progress.demand() == Demand::Nothing,
        }
    }

    /// Whether it turned out, while the decoder had it, that the picture is a part of one; marked ones pass.
    fn is_part(&self, buffer: &gst::BufferRef, flags: FrameFlags) -> bool {
        self.is_torn(buffer) && !flags.contains(FrameFlags::CORRUPT) && !flags.contains(FrameFlags::TAINTED)
    }

    fn may_be_a_part(&self, buffer: &gst::BufferRef) -> bool {
        let Origin::Camera { arrivals, .. } = &self.origin else { return false };
        buffer.pts().is_some_and(|pts| arrivals.may_be_a_part(pts.nseconds()))
    }

    fn is_torn(&self, buffer: &gst::BufferRef) -> bool {
        let Origin::Camera { arrivals, .. } = &self.origin else { return false };
        buffer.pts().is_some_and(|pts| arrivals.wholeness(pts.nseconds()).torn)
    }

    /// Pictures lost since the previous one of this session; what came before its first keyframe is not lost.
    fn count_lost(&mut self, lost: u64) -> u64 {
        let since = if self.last_pts.is_some() { lost.saturating_sub(self.last_lost) } else { 0 };
        self.last_lost = self.last_lost.max(lost);
        since
    }

    fn note(&mut self, timing: &FrameTiming) {
        let first = self.last_pts.replace(timing.pts_ns).is_none();
        let progress = &self.progress;
        if matches!(self.origin, Origin::Local { .. }) {
            progress.packets.fetch_add(1, Ordering::Relaxed);
            if first {
                self.reporter.event(SourceEvent::FirstPacket);
            }
            progress.last_packet_mono_ns.store(timing.arrival_mono_ns, Ordering::Relaxed);
        }
        let lag_ns = timing.decoded_mono_ns.saturating_sub(timing.arrival_mono_ns);
        progress.lag_ns.store(u64::try_from(lag_ns).unwrap_or(0), Ordering::Relaxed);
        progress.last_decoded_mono_ns.store(timing.decoded_mono_ns, Ordering::Relaxed);
        progress.decoded.fetch_add(1, Ordering::Relaxed);
    }
}

/// Findings for a picture whose PTS the decoder has changed: as the gate stands now.
fn unmatched(progress: &Progress, lost: u64) -> Findings {
    let closed = progress.gate_closed.load(Ordering::Relaxed);
    Findings { flags: FrameFlags::default().with_if(closed, FrameFlags::TAINTED), lost }
}

fn internal(message: &str) -> RetryReason {
    RetryReason { reason: Reason::Internal, class: RetryClass::Transient, message: message.into() }
}

fn to_i64(ns: Option<u64>) -> i64 {
    ns.map_or(0, |ns| i64::try_from(ns).unwrap_or(i64::MAX))
}

/// PTS that never goes back: when a file begins again, it goes on one picture after the last one.
fn onward(offset: &mut i64, pts: i64, last: Option<i64>, duration: i64) -> i64 {
    let shifted = pts.saturating_add(*offset);
    let Some(last) = last.filter(|last| shifted <= *last) else { return shifted };
    *offset = last.saturating_add(duration.max(1)).saturating_sub(pts);
    pts.saturating_add(*offset)
}

/// The camera's own time of a picture, ns since 1900, once its first sender report has come.
pub(super) fn camera_ntp(buffer: &gst::BufferRef) -> Option<u64> {
    let ntp = buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .find(|meta| meta.reference().structure(0).is_some_and(|structure| structure.name() == "timestamp/x-ntp"))?;
    Some(ntp.timestamp().nseconds())
}

/// The same, ns since 1970.
fn camera_time(buffer: &gst::BufferRef) -> Option<i64> {
    i64::try_from(camera_ntp(buffer)?.checked_sub(NTP_TO_UNIX_NS)?).ok()
}

fn is_implausible(timing: &FrameTiming) -> bool {
    timing.source_unix_ns.is_some_and(|source| source.abs_diff(timing.arrival_real_ns) >= PLAUSIBLE_NS)
}

fn layout(info: &VideoInfo) -> SourceLayout {
    match info.format() {
        VideoFormat::Gray8 => SourceLayout::Gray8,
        VideoFormat::I420 => SourceLayout::I420,
        VideoFormat::Y42b => SourceLayout::I422,
        VideoFormat::Y444 => SourceLayout::I444,
        VideoFormat::Nv12 => SourceLayout::Nv12,
        VideoFormat::I42010le => SourceLayout::I010,
        VideoFormat::I42210le => SourceLayout::I210,
        VideoFormat::P01010le => SourceLayout::P010,
        VideoFormat::Bgr => SourceLayout::Bgr,
        VideoFormat::Rgb => SourceLayout::Rgb,
        _ => SourceLayout::Other,
    }
}

fn aspect(par: gst::Fraction) -> (u16, u16) {
    match (u16::try_from(par.numer()), u16::try_from(par.denom())) {
        (Ok(x), Ok(y)) if x > 0 && y > 0 => (x, y),
        _ => (0, 0),
    }
}

/// The planes of a mapped picture and how many there are; none for a layout that only the fallback reads.
fn planes<'a>(picture: &'a VideoFrameRef<&gst::BufferRef>, layout: SourceLayout) -> ([Plane<'a>; 3], usize) {
    let mut planes = [Plane { bytes: &[], stride: 0 }; 3];
    if layout == SourceLayout::Other {
        return (planes, 0);
    }
    let count = (picture.n_planes() as usize).min(planes.len());
    for (number, plane) in planes.iter_mut().enumerate().take(count) {
        // A plane that cannot be read stays empty; the converter says so.
        let Ok(bytes) = picture.plane_data(number as u32) else { continue };
        let stride = picture.plane_stride().get(number).and_then(|stride| u32::try_from(*stride).ok());
        *plane = Plane { bytes, stride: stride.unwrap_or(0) };
    }
    (planes, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_looped_file_goes_on_in_time() {
        let (mut offset, mut last) = (0, None);
        let mut next = |pts| {
            let pts = onward(&mut offset, pts, last, 40);
            last = Some(pts);
            pts
        };
        assert_eq!([0, 40, 80, 0, 40, 80, 0].map(&mut next), [0, 40, 80, 120, 160, 200, 240]);
    }

    #[test]
    fn camera_time_counts_from_1970_and_nonsense_is_not_trusted() {
        gst::init().expect("GStreamer");
        let stamped = |reference: &str, ntp_ns: u64| {
            let mut buffer = gst::Buffer::new();
            let caps = gst::Caps::builder(reference).build();
            let writable = buffer.get_mut().expect("the only reference");
            gst::ReferenceTimestampMeta::add(writable, &caps, gst::ClockTime::from_nseconds(ntp_ns), None);
            camera_time(&buffer)
        };
        assert_eq!(stamped("timestamp/x-ntp", NTP_TO_UNIX_NS + 7), Some(7));
        assert_eq!(stamped("timestamp/x-ntp", 7), None);
        assert_eq!(stamped("timestamp/x-unix", NTP_TO_UNIX_NS + 7), None);
        let timing = |source, arrival| FrameTiming {
            source_unix_ns: source,
            arrival_real_ns: arrival,
            ..FrameTiming::default()
        };
        let second = 1_000_000_000;
        assert!(!is_implausible(&timing(None, 0)));
        assert!(!is_implausible(&timing(Some(-4 * second), 0)));
        assert!(is_implausible(&timing(Some(5 * second), 0)));
        assert!(is_implausible(&timing(Some(i64::MIN), i64::MAX)));
    }

    #[test]
    fn odd_pixel_aspects_become_unknown() {
        assert_eq!(aspect(gst::Fraction::new(4, 3)), (4, 3));
        assert_eq!(aspect(gst::Fraction::new(0, 1)), (0, 0));
        assert_eq!(aspect(gst::Fraction::new(-4, 3)), (0, 0));
        assert_eq!(aspect(gst::Fraction::new(100_000, 3)), (0, 0));
    }
}
