//! What pipelines that are built in one go share: joined elements, and an end that can be let go of.

use std::sync::{Arc, Mutex, PoisonError};

use camring_ring::frame::Reason;
use gst::prelude::*;

use super::deinterlace::Deinterlace;
use super::graph::{make, take_over};
use super::report::Reporter;
use super::sample::{Origin, Tail};
use crate::source::{FrameSink, Loan, Progress, RetryClass, RetryReason};

/// What gives the sink back; [`super::session::start`] calls it before the pipeline is stopped.
pub(super) type LetGo = Box<dyn Fn() + Send>;

/// Why a source cannot begin, where only a change helps.
pub(super) fn refused(reason: Reason, message: String) -> RetryReason {
    RetryReason { reason, class: RetryClass::Permanent, message }
}

/// Puts elements into a pipeline and links them.
///
/// # Errors
///
/// They do not fit.
pub(super) fn join(pipeline: &gst::Pipeline, chain: &[gst::Element]) -> Result<(), RetryReason> {
    pipeline
        .add_many(chain)
        .and_then(|()| gst::Element::link_many(chain))
        .map_err(|error| refused(Reason::Internal, format!("cannot build the pipeline: {error}")))
}

/// `source ! decodebin (video only) ! queue [! deinterlace] ! appsink`, for what GStreamer finds out by itself.
///
/// # Errors
///
/// An element that is missing.
pub(super) fn decoded(
    source: gst::Element,
    queue: gst::Element,
    deinterlace: Deinterlace,
    appsink: gst::Element,
    reporter: &Arc<Reporter>,
    unfit: &'static str,
) -> Result<gst::Pipeline, RetryReason> {
    let decode = make("decodebin")?;
    // Only video is decoded; without other streams nothing waits for a sink that is not there.
    // In any memory: with plain caps decodebin passes over libav's decoders, which also list interlaced memory.
    decode.set_property("caps", gst::Caps::builder("video/x-raw").any_features().build());
    decode.set_property("expose-all-streams", false);
    let pipeline = gst::Pipeline::new();
    join(&pipeline, &[source, decode.clone()])?;
    let tail: Vec<_> = [queue.clone()].into_iter().chain(deinterlace.element()?).chain([appsink]).collect();
    join(&pipeline, &tail)?;
    let entry = queue.static_pad("sink").expect("every queue has it");
    link_later(&decode, entry, reporter, unfit);
    Ok(pipeline)
}

/// Has every picture that comes to `appsink` delivered to `sink`.
pub(super) fn end(
    appsink: &gst_app::AppSink,
    origin: Origin,
    sink: Loan<Box<dyn FrameSink>>,
    reporter: &Arc<Reporter>,
    progress: &Arc<Progress>,
) -> LetGo {
    take_over(appsink, Tail::new(sink, origin, progress.clone(), reporter.clone()));
    let owner = Mutex::new(Some(appsink.clone()));
    Box::new(move || {
        if let Some(appsink) = owner.lock().unwrap_or_else(PoisonError::into_inner).take() {
            appsink.set_callbacks(gst_app::AppSinkCallbacks::builder().build());
        }
    })
}

/// Links the pad that an element makes when it knows its stream to `entry`; the first one counts.
pub(super) fn link_later(element: &gst::Element, entry: gst::Pad, reporter: &Arc<Reporter>, unfit: &'static str) {
    let reporter = reporter.clone();
    element.connect_pad_added(move |_, pad| {
        if !entry.is_linked() && pad.link(&entry).is_err() {
            reporter.ended(Reason::NoVideo, RetryClass::Permanent, unfit);
        }
    });
}
