//! A visit: one short session with a camera, without a ring, to see what it sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use camring_ring::frame::Reason;
use crossbeam_channel::select;
use humantime::format_duration;

use super::policy::Policy;
use super::worker::{Home, Report, Worker};
use crate::clock::{Clock, Mono};
use crate::source::{FrameRef, FrameSink, FrameSource, RetryClass, RetryReason, SourceEvent};

/// How often the counts of the streaming thread are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// From the first picture on, for so long its successors are counted.
const COUNT_FOR: Duration = Duration::from_millis(1500);
/// So many pictures are enough to know their rate.
const PICTURES_ENOUGH: u32 = 26;
/// Sessions that may end by plan, because the source has learned how to go about this camera.
const SESSIONS: u32 = 3;

/// What a camera sends.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The codec's word.
    pub codec: String,
    /// The decoder that was chosen.
    pub decoder: String,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Pictures a second, by their own times; `None` = only one came.
    pub fps: Option<f64>,
    /// From the start of the visit to the first picture.
    pub first_frame: Duration,
}

/// Somebody who wants more of a visit than [`Found`].
pub trait Onlooker: Send + Sync {
    /// One decoded picture, on the streaming thread: must not block.
    fn picture(&self, frame: &FrameRef<'_>);

    /// How far the visit has come: packets arrive.
    fn connected(&self) {}

    /// Whether so many pictures in the time since the first one are enough.
    fn is_satisfied(&self, pictures: u32, since_first: Duration) -> bool;
}

/// Content with knowing the rate.
struct Hasty;

impl Onlooker for Hasty {
    fn picture(&self, _: &FrameRef<'_>) {}

    fn is_satisfied(&self, pictures: u32, since_first: Duration) -> bool {
        pictures >= PICTURES_ENOUGH || since_first >= COUNT_FOR
    }
}

/// What the streaming thread has seen.
#[derive(Debug, Default)]
struct Glance {
    pictures: AtomicU32,
    size: AtomicU64,
    first_pts_ns: AtomicI64,
    last_pts_ns: AtomicI64,
}

/// Looks at pictures and keeps none.
struct Looker(Arc<Glance>, Arc<dyn Onlooker>);

impl FrameSink for Looker {
    fn frame(&mut self, frame: &FrameRef<'_>) {
        let glance = &self.0;
        self.1.picture(frame);
        glance.size.store(u64::from(frame.width) << 32 | u64::from(frame.height), Relaxed);
        glance.last_pts_ns.store(frame.timing.pts_ns, Relaxed);
        if glance.pictures.load(Relaxed) == 0 {
            glance.first_pts_ns.store(frame.timing.pts_ns, Relaxed);
        }
        // Whoever sees the count sees what was stored before it only roughly, which is all that is needed of a rate.
        glance.pictures.fetch_add(1, Relaxed);
    }
}

impl Glance {
    fn size(&self) -> (u32, u32) {
        let size = self.size.load(Relaxed);
        ((size >> 32) as u32, size as u32)
    }

    fn fps(&self) -> Option<f64> {
        let intervals = self.pictures.load(Relaxed).checked_sub(1).filter(|intervals| *intervals > 0)?;
        let span_ns = self.last_pts_ns.load(Relaxed).saturating_sub(self.first_pts_ns.load(Relaxed));
        (span_ns > 0).then(|| f64::from(intervals) * 1e9 / span_ns as f64)
    }
}

/// Connects to a camera, waits for pictures, looks at them and leaves; within `connect_timeout`, `sync_timeout`, one and
/// a half seconds and `teardown` of `policy`, and again for a session that ends by plan.
///
/// # Errors
///
/// Why no picture came; the reason is the one that readers would see.
pub fn visit(
    name: &str,
    source: Box<dyn FrameSource>,
    policy: &Policy,
    clock: &dyn Clock,
) -> Result<Found, RetryReason> {
    visit_with(name, source, policy, clock, &(Arc::new(Hasty) as Arc<dyn Onlooker>))
}

/// As [`visit`], for as long as `onlooker` wants to see more pictures.
///
/// # Errors
///
/// As [`visit`]; also why the session ended before the onlooker had seen enough.
pub fn visit_with(
    name: &str,
    source: Box<dyn FrameSource>,
    policy: &Policy,
    clock: &dyn Clock,
    onlooker: &Arc<dyn Onlooker>,
) -> Result<Found, RetryReason> {
    let began = clock.now();
    let mut source = Home::new(source);
    let mut outcome = Err(lost());
    for _ in 0..SESSIONS {
        let glance = Arc::new(Glance::default());
        let mut sink = Home::new(Box::new(Looker(glance.clone(), onlooker.clone())) as Box<dyn FrameSink>);
        let (Some(lent), Some(looker)) = (source.lend(), sink.lend()) else { return Err(lost()) };
        let mut worker = Worker::launch(1, lent, looker, Arc::default(), name);
        outcome = attend(&worker, &glance, policy, clock, began, onlooker.as_ref());
        worker.request_stop();
        let deadline = clock.now().after(policy.teardown);
        let is_planned = outcome.as_ref().is_err_and(|why| why.reason == Reason::Planned);
        if !wait_for(&mut source, &mut sink, &worker, clock, deadline) || !is_planned {
            break;
        }
    }
    outcome
}

fn lost() -> RetryReason {
    failure(Reason::Internal, "an earlier session with the camera did not end; try again".to_owned())
}

fn failure(reason: Reason, message: String) -> RetryReason {
    RetryReason { reason, class: RetryClass::Transient, message }
}

fn attend(
    worker: &Worker,
    glance: &Glance,
    policy: &Policy,
    clock: &dyn Clock,
    began: Mono,
    onlooker: &dyn Onlooker,
) -> Result<Found, RetryReason> {
    let (mut codec, mut decoder) = (String::new(), String::new());
    let mut connected: Option<Mono> = None;
    let mut first: Option<Mono> = None;
    let session_began = clock.now();
    loop {
        let now = clock.now();
        if glance.pictures.load(Relaxed) > 0 {
            let since = *first.get_or_insert(now);
            if onlooker.is_satisfied(glance.pictures.load(Relaxed), now.since(since)) {
                let (width, height) = glance.size();
                let first_frame = since.since(began);
                return Ok(Found { codec, decoder, width, height, fps: glance.fps(), first_frame });
            }
        } else if let Some(why) = overdue(now, session_began, connected, worker, policy) {
            return Err(why);
        }
        let alarm = clock.alarm(now.after(LOOK_EVERY));
        select! {
            recv(worker.events) -> event => match event {
                Ok(SourceEvent::FirstPacket) => {
                    connected = Some(now);
                    onlooker.connected();
                }
                Ok(SourceEvent::Decoder { codec: word, decoder: name }) => (codec, decoder) = (word, name),
                Ok(SourceEvent::Ended(why)) => return Err(why),
                Ok(SourceEvent::Notice(_)) => {}
                Err(_) => return Err(lost()),
            },
            recv(worker.reports) -> report => match report {
                Ok(Report::Failed(why)) => return Err(why),
                Ok(Report::Started) => {}
                Err(_) => return Err(lost()),
            },
            recv(alarm) -> _ => {}
        }
    }
}

/// Why to wait no longer for the first picture.
fn overdue(now: Mono, began: Mono, connected: Option<Mono>, worker: &Worker, policy: &Policy) -> Option<RetryReason> {
    let (since, limit) = match connected {
        Some(since) => (since, policy.sync_timeout),
        None => (began, policy.connect_timeout),
    };
    if now.since(since) < limit {
        return None;
    }
    let limit = format_duration(limit);
    Some(match connected {
        None => failure(
            Reason::ConnectTimeout,
            format!("no packet within {limit}; is the camera on, and its address and port right?"),
        ),
        Some(_) if worker.progress().gate_closed.load(Relaxed) => failure(
            Reason::NoKeyframe,
            format!("no keyframe within {limit} of the first packet; shorten the camera's keyframe interval"),
        ),
        Some(_) => failure(
            Reason::DecoderStuck,
            format!("packets arrive but the decoder gave no frame within {limit}; try another decode.device"),
        ),
    })
}

/// Waits until the session has let go of everything; false when it has not by `deadline`.
fn wait_for(
    source: &mut Home<Box<dyn FrameSource>>,
    sink: &mut Home<Box<dyn FrameSink>>,
    worker: &Worker,
    clock: &dyn Clock,
    deadline: Mono,
) -> bool {
    loop {
        if source.is_home() && sink.is_home() {
            return true;
        }
        let now = clock.now();
        if now >= deadline {
            return false;
        }
        // Events are taken in, so that none of the session's threads waits for room.
        worker.events.try_iter().for_each(drop);
        let alarm = clock.alarm(now.after(LOOK_EVERY).min(deadline));
        select! {
            recv(source.road) -> value => value.into_iter().for_each(|value| source.keep(value)),
            recv(sink.road) -> value => value.into_iter().for_each(|value| sink.keep(value)),
            recv(alarm) -> _ => {}
        }
    }
}
