//! A running pipeline: set going, watched, and taken down in the one order that leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use camring_ring::frame::Reason;
use gst::prelude::*;

use super::bus::{self, Subject, Watcher};
use super::report::Reporter;
use crate::source::{Progress, RetryClass, RetryReason, Session};

/// Gives the sink back: called once, before the pipeline is stopped.
type LetGo = Box<dyn Fn() + Send>;

struct Running {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    let_go: LetGo,
    reporter: Arc<Reporter>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

/// Sets `pipeline` going.
///
/// # Errors
///
/// It does not start; everything is taken down again.
pub(super) fn start(
    pipeline: gst::Pipeline,
    subject: Subject,
    let_go: LetGo,
    reporter: Arc<Reporter>,
    progress: Arc<Progress>,
) -> Result<Box<dyn Session>, RetryReason> {
    let bus = pipeline.bus().expect("every pipeline has a bus");
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = Running { pipeline, bus, let_go, reporter, stop, watcher: None };
    let watcher = Watcher {
        bus: running.bus.clone(),
        subject,
        reporter: running.reporter.clone(),
        progress,
        stop: running.stop.clone(),
    };
    let failed = |message: String| RetryReason { reason: Reason::Internal, class: RetryClass::Transient, message };
    let thread = watcher.spawn().map_err(|error| failed(format!("cannot start the bus thread: {error}")))?;
    running.watcher = Some(thread);
    if running.pipeline.set_state(gst::State::Playing).is_err() && !running.reporter.is_closed() {
        // The bus says why in most cases; this is for elements that refuse without a word.
        running.reporter.ended(Reason::Internal, RetryClass::Transient, "the pipeline does not start");
    }
    Ok(Box::new(running))
}

impl Session for Running {
    fn stop(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for Running {
    /// Callbacks cleared, pipeline to NULL (which may block for a request's timeout), bus flushed, thread ended.
    fn drop(&mut self) {
        self.reporter.close();
        self.stop.store(true, Ordering::Release);
        (self.let_go)();
        if let Err(error) = self.pipeline.set_state(gst::State::Null) {
            tracing::error!(%error, "the pipeline does not stop; what it holds may be lost until the process ends");
        }
        bus::wake(&self.bus);
        if self.watcher.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the bus thread panicked; the place is on standard error");
        }
        self.bus.set_flushing(true);
    }
}
