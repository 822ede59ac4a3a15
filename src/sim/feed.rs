//! Feeds one RTSP media with pictures, at their times, for as long as the media lives.
//!
//! The camera's clock runs from the start of the server: frame `n` is due `n` intervals later whether or not anybody
//! watches, and every media of a stream gets the same frames. A frame that cannot be handed over in time is skipped,
//! which shows as a gap in the numbers; there is no burst to catch up.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::config::{Size, StreamConfig, SwitchTo};
use super::encoder::{PROFILE, ParameterSets, Scan};
use super::picture::{I420Mut, Painter};
use super::script::PictureFault;
use super::stamp::{self, Stamp};

/// Pictures that may be on their way through the encoder at once, besides those that it holds back.
const BUFFERS: u32 = 6;

/// Black in limited range; in JPEG's full range a very dark grey.
const BLACK: [u8; 3] = [16, 128, 128];
/// What a decoder shows whose memory is all zeros: the green of a lost reference.
const GREEN: [u8; 3] = [0, 0, 0];
/// Looks at two clocks of which the closest counts.
const LOOKS: usize = 5;

/// Pictures of all streams of one server.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) pushed: AtomicU64,
    pub(super) skipped: AtomicU64,
}

/// What is wrong with the pictures of all streams of one server at the moment.
#[derive(Debug, Default)]
pub(super) struct Pictures(AtomicU8);

impl Pictures {
    pub(super) fn set(&self, fault: Option<PictureFault>) {
        let number = match fault {
            None => 0,
            Some(PictureFault::Frozen) => 1,
            Some(PictureFault::Black) => 2,
            Some(PictureFault::Green) => 3,
        };
        self.0.store(number, Ordering::Relaxed);
    }

    fn get(&self) -> Option<PictureFault> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(PictureFault::Frozen),
            2 => Some(PictureFault::Black),
            3 => Some(PictureFault::Green),
            _ => None,
        }
    }
}

/// One stream: what it shows and since when.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) config: StreamConfig,
    run_id: u16,
    start_us: i64,
    first: View,
    /// What it shows from these times of a session on.
    later: Vec<(Duration, View)>,
    counts: Arc<Counts>,
    pictures: Arc<Pictures>,
}

/// Everything that depends on the size and the parameter sets.
#[derive(Debug)]
struct View {
    size: Size,
    sets: ParameterSets,
    info: gst_video::VideoInfo,
    caps: gst::Caps,
    painter: Arc<Painter>,
    /// Pictures that may be in use at once.
    buffers: u32,
}

impl Stream {
    /// Prepares the pictures; takes as long as [`Painter::new`] for each size.
    pub(super) fn new(
        config: StreamConfig,
        run_id: u16,
        counts: Arc<Counts>,
        pictures: Arc<Pictures>,
    ) -> Result<Self, glib::BoolError> {
        let first = View::new(&config, config.size, ParameterSets::First, None)?;
        let mut later: Vec<(Duration, View)> = Vec::new();
        for switch in &config.switches {
            let before = later.last().map_or(&first, |(_, view)| view);
            let (size, sets) = match switch.to {
                SwitchTo::Size(size) => (size, before.sets),
                SwitchTo::Encoder => (before.size, before.sets.other()),
            };
            let alike =
                std::iter::once(&first).chain(later.iter().map(|(_, view)| view)).find(|view| view.size == size);
            let view = View::new(&config, size, sets, alike.map(|view| Arc::clone(&view.painter)))?;
            later.push((switch.after, view));
        }
        Ok(Self { config, run_id, start_us: glib::monotonic_time(), first, later, counts, pictures })
    }

    pub(super) fn caps(&self) -> &gst::Caps {
        &self.first.caps
    }

    /// What a session shows `since` its first picture.
    fn view(&self, since: Duration) -> &View {
        self.later.iter().rev().find(|(after, _)| since >= *after).map_or(&self.first, |(_, view)| view)
    }

    /// Has the encoder of a media take other parameter sets, in the moment in which pictures for them come.
    pub(super) fn change_parameters(self: &Arc<Self>, source: &gst_app::AppSrc, media: &gst::Bin) {
        let (Some(filter), Some(pad)) = (media.by_name(PROFILE), source.static_pad("src")) else { return };
        let (stream, filter) = (Arc::clone(self), filter.downgrade());
        // On the thread that encodes: no picture of the former sets can meet the filter of the new ones.
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, probe| {
            if let Some(event) = probe.event()
                && let gst::EventView::Caps(caps) = event.view()
                && let Some((_, view)) = stream.later.iter().find(|(_, view)| *view.caps == *caps.caps())
                && let Some(filter) = filter.upgrade()
            {
                filter.set_property_from_str("caps", view.sets.profile());
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Nanoseconds from the first frame of the run until now.
    fn now_ns(&self) -> u64 {
        u64::try_from(glib::monotonic_time() - self.start_us).unwrap_or(0) * 1000
    }
}

impl View {
    fn new(
        config: &StreamConfig,
        size: Size,
        sets: ParameterSets,
        painter: Option<Arc<Painter>>,
    ) -> Result<Self, glib::BoolError> {
        let color = size.color(config.codec);
        let frames = config.rate.frames.saturating_add(sets.frames_more() * config.rate.seconds);
        let rate = gst::Fraction::new(frames.cast_signed(), config.rate.seconds.cast_signed());
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", size.width.cast_signed())
            .field("height", size.height.cast_signed())
            .field("framerate", rate)
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .field("interlace-mode", config.encoding.interlacing())
            .field("colorimetry", color.caps_field())
            .field_if("field-order", "top-field-first", config.encoding.scan == Scan::Interlaced)
            .build();
        let info = gst_video::VideoInfo::from_caps(&caps)?;
        let paint = || Arc::new(Painter::new(config.pattern, size.width, size.height, color, config.seed));
        let painter = painter.unwrap_or_else(paint);
        let buffers = BUFFERS + config.encoding.held();
        Ok(Self { size, sets, info, caps, painter, buffers })
    }

    fn pool(&self) -> Result<Pool, glib::BoolError> {
        let bytes = u32::try_from(self.info.size()).map_err(|_| glib::bool_error!("a picture of 4 GiB"))?;
        let pool = gst::BufferPool::new();
        let mut config = pool.config();
        config.set_params(Some(&self.caps), bytes, 2, self.buffers);
        pool.set_config(config)?;
        pool.set_active(true)?;
        Ok(Pool(pool))
    }

    /// Splits a mapped picture into its planes.
    fn planes<'a>(&self, bytes: &'a mut [u8]) -> I420Mut<'a> {
        let (offsets, strides) = (self.info.offset(), self.info.stride());
        let (y, chroma) = bytes.split_at_mut(offsets[1]);
        let (u, v) = chroma.split_at_mut(offsets[2] - offsets[1]);
        let stride = |plane: usize| strides[plane].unsigned_abs() as usize;
        I420Mut { y, u, v, y_stride: stride(0), chroma_stride: stride(1) }
    }

    fn stamp(&self, bytes: &mut [u8], stamp: &Stamp) -> Result<(), stamp::StampError> {
        let planes = self.planes(bytes);
        let (width, height) = (self.info.width(), self.info.height());
        stamp::blank_chroma(planes.u, planes.chroma_stride, width, height)?;
        stamp::blank_chroma(planes.v, planes.chroma_stride, width, height)?;
        stamp::paint(planes.y, planes.y_stride, width, height, stamp)
    }
}

/// Recycles picture memory; inactive when dropped, so that the last buffer to come home frees it.
struct Pool(gst::BufferPool);

impl Pool {
    fn acquire(&self) -> Option<gst::Buffer> {
        let at_once = gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT);
        self.0.acquire_buffer(Some(&at_once)).ok()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(error) = self.0.set_active(false) {
            tracing::warn!(%error, "the picture memory of a simulated stream was not freed");
        }
    }
}

/// Ends a feed from outside.
#[derive(Debug, Default)]
pub(super) struct Stop {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(super) fn request(&self) {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits `duration` or until the end is requested; says whether it is.
    pub(super) fn wait(&self, duration: Duration) -> bool {
        let requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(requested, duration, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The pictures of one media.
pub(super) struct Feed {
    stream: Arc<Stream>,
    source: gst_app::AppSrc,
    stop: Arc<Stop>,
    last_pts: Option<gst::ClockTime>,
    /// What the newest picture shows.
    last_stamp: Option<Stamp>,
    /// When the first picture was handed over, nanoseconds on the stream's clock.
    first_ns: Option<u64>,
    /// When this feed began, which is before its media plays: no running time can be longer.
    began_ns: u64,
}

/// What became of one frame.
enum Outcome {
    Pushed,
    Skipped,
    /// The media takes no more pictures.
    Ended,
}

impl Feed {
    pub(super) fn new(stream: Arc<Stream>, source: gst_app::AppSrc, stop: Arc<Stop>) -> Self {
        let began_ns = stream.now_ns();
        Self { stream, source, stop, last_pts: None, last_stamp: None, first_ns: None, began_ns }
    }

    /// Feeds the media until it or the server ends; an error is logged, and the client sees the stream end.
    pub(super) fn run(mut self) {
        if let Err(error) = self.feed() {
            tracing::error!(mount = self.stream.config.mount, %error, "a simulated stream ended");
        }
    }

    fn feed(&mut self) -> Result<(), glib::BoolError> {
        let stream = Arc::clone(&self.stream);
        let mut view = &stream.first;
        let mut pool = view.pool()?;
        let mut number = stream.config.rate.number_at(stream.now_ns()) + 1;
        loop {
            let wanted = stream.view(self.since_first(number).unwrap_or_default());
            if !std::ptr::eq(view, wanted) {
                (view, pool) = (wanted, wanted.pool()?);
                self.source.set_caps(Some(&view.caps));
            }
            match self.frame(view, &pool, number)? {
                Outcome::Pushed => stream.counts.pushed.fetch_add(1, Ordering::Relaxed),
                Outcome::Skipped => stream.counts.skipped.fetch_add(1, Ordering::Relaxed),
                Outcome::Ended => return Ok(()),
            };
            let newest = stream.config.rate.number_at(stream.now_ns());
            stream.counts.skipped.fetch_add(newest.saturating_sub(number), Ordering::Relaxed);
            number = newest.max(number) + 1;
        }
    }

    /// How long after the first picture of the session this one is due; `None` before there is one.
    fn since_first(&self, number: u64) -> Option<Duration> {
        let due_ns = self.stream.config.rate.offset_ns(number);
        self.first_ns.map(|first_ns| Duration::from_nanos(due_ns.saturating_sub(first_ns)))
    }

    fn is_still(&self, number: u64) -> bool {
        self.stream.config.freeze.zip(self.since_first(number)).is_some_and(|(freeze, since)| freeze.covers(since))
    }

    /// Paints frame `number`, waits for its time, stamps it and hands it over.
    fn frame(&mut self, view: &View, pool: &Pool, number: u64) -> Result<Outcome, glib::BoolError> {
        // The number in the stamp wraps after 5 years of 25 frames per second.
        let stamped_number = number as u32;
        let fault = self.stream.pictures.get();
        let still = fault == Some(PictureFault::Frozen) || self.is_still(number);
        let frozen = self.last_stamp.filter(|_| still);
        let shown_number = frozen.map_or(stamped_number, |stamp| stamp.number);
        let painted = pool.acquire().map(|mut buffer| {
            let picture = buffer.get_mut().expect("a buffer fresh from the pool has no other owner");
            let mut bytes = picture.map_writable()?;
            match fault {
                None | Some(PictureFault::Frozen) => view.painter.paint(shown_number, &mut view.planes(&mut bytes)),
                Some(PictureFault::Black) => view.planes(&mut bytes).fill(BLACK),
                Some(PictureFault::Green) => view.planes(&mut bytes).fill(GREEN),
            }
            drop(bytes);
            Ok::<_, glib::BoolError>(buffer)
        });
        let due_ns = self.stream.config.rate.offset_ns(number);
        if self.stop.wait(Duration::from_nanos(due_ns.saturating_sub(self.stream.now_ns()))) {
            return Ok(Outcome::Ended);
        }
        let Some(mut buffer) = painted.transpose()?.filter(|_| self.source.current_level_buffers() == 0) else {
            return Ok(Outcome::Skipped);
        };
        let mono_us = glib::monotonic_time();
        let stamp = Stamp { run_id: self.stream.run_id, number: stamped_number, mono_us: mono_us.unsigned_abs() };
        let stamp = frozen.unwrap_or(stamp);
        self.last_stamp = Some(stamp);
        let picture = buffer.get_mut().expect("nobody else has seen this buffer");
        view.stamp(&mut picture.map_writable()?, &stamp).map_err(|error| glib::bool_error!("{error}"))?;
        let pts = self.pts(due_ns);
        picture.set_pts(pts);
        picture.set_duration(gst::ClockTime::from_nseconds(self.stream.config.rate.offset_ns(1)));
        self.first_ns.get_or_insert(due_ns);
        Ok(self.source.push_buffer(buffer).map_or(Outcome::Ended, |_| Outcome::Pushed))
    }

    /// The running time at which the frame was due: exact intervals, on the media's own clock.
    fn pts(&mut self, due_ns: u64) -> gst::ClockTime {
        // Both clocks are CLOCK_MONOTONIC. Before the media plays it has no running time: that is its zero. While it
        // starts, it has the clock for a moment but not yet its zero, and calls the host's uptime its running time.
        let (now_ns, running) = self.clocks();
        let late = gst::ClockTime::from_nseconds(now_ns.saturating_sub(due_ns));
        let longest = gst::ClockTime::from_nseconds(now_ns.saturating_sub(self.began_ns));
        let running = running.filter(|time| *time <= longest).unwrap_or(gst::ClockTime::ZERO);
        let earliest = self.last_pts.map_or(gst::ClockTime::ZERO, |last| last + gst::ClockTime::NSECOND);
        let pts = running.saturating_sub(late).max(earliest);
        self.last_pts = Some(pts);
        pts
    }

    /// Our time, ns, and the media's at the same moment: of some looks the one that took the least time, for a thread that
    /// loses its processor between the two would take its wait for a difference of the clocks.
    fn clocks(&self) -> (u64, Option<gst::ClockTime>) {
        let look = |_| {
            let now_ns = self.stream.now_ns();
            let running = self.source.current_running_time();
            (self.stream.now_ns().saturating_sub(now_ns), now_ns, running)
        };
        let best = (0..LOOKS).map(look).min_by_key(|(took_ns, ..)| *took_ns);
        best.map_or((self.stream.now_ns(), None), |(_, now_ns, running)| (now_ns, running))
    }
}
