//! The knock: requests that tell a camera that somebody watches, where rtspsrc sends none by itself.
//!
//! Before 1.26.7 rtspsrc sends keep-alives inside an RTSP connection only when nothing arrives. A request of ours interrupts
//! its receiving, which it allows between two packets only, and takes in packets until the answer is there. Not sent through
//! TLS or an HTTP tunnel, where nobody has tried it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, tick};
use gst::prelude::*;

use super::graph::{Camera, SOURCE};
use crate::source::Progress;

/// The first version that keeps sessions alive by itself.
const KEEPS_ALIVE: (u32, u32, u32, u32) = (1, 26, 7, 0);
/// The parameter that is asked for; an example of RFC 2326. A camera that does not know it has heard a request all the same.
const PARAMETER: &str = "packets_received";

/// Open while requests may be sent: rtspsrc is to get none while it is stopped.
#[derive(Clone)]
pub(super) struct Door(Arc<Mutex<bool>>);

impl Door {
    /// From now on nothing is sent.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// Sends requests at even times.
pub(super) struct Knocker {
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    progress: Arc<Progress>,
    due: Receiver<Instant>,
    door: Door,
}

impl Knocker {
    /// As often as the supervisor asks for, if that is to be done for `camera` at all.
    pub(super) fn new(pipeline: &gst::Pipeline, camera: Option<&Camera>, progress: &Arc<Progress>) -> Self {
        let every_ms = progress.request_every_ms.load(Relaxed);
        let needed = every_ms > 0 && gst::version() < KEEPS_ALIVE && camera.is_some_and(Camera::is_plain_tcp);
        let due = if needed { tick(Duration::from_millis(every_ms)) } else { never() };
        let door = Door(Arc::new(Mutex::new(true)));
        Self { pipeline: pipeline.downgrade(), progress: progress.clone(), due, door }
    }

    /// What stops it.
    pub(super) fn door(&self) -> Door {
        self.door.clone()
    }

    /// When the next request is due.
    pub(super) fn due(&self) -> &Receiver<Instant> {
        &self.due
    }

    /// Sends one, once pictures come; its answer is counted.
    pub(super) fn knock(&self) {
        // Held while the request is handed over, which waits for nothing.
        let open = self.door.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !*open {
            return;
        }
        let source = self.pipeline.upgrade().and_then(|pipeline| pipeline.by_name(SOURCE));
        let Some(source) = source.filter(|_| self.progress.packets.load(Relaxed) > 0) else { return };
        let progress = self.progress.clone();
        let promise = gst::Promise::with_change_func(move |reply| {
            let reply = reply.ok().flatten();
            if reply.is_some_and(|reply| reply.get::<i32>("rtsp-result") == Ok(0)) {
                progress.answers.fetch_add(1, Relaxed);
            }
        });
        if !source.emit_by_name::<bool>("get-parameter", &[&PARAMETER, &None::<&str>, &promise]) {
            tracing::debug!("rtspsrc takes no request");
        }
    }
}
