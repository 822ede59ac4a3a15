//! A running pipeline: set going, watched, and taken down in the one order that leaves nothing behind.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;

use camring_ring::frame::Reason;
use camring_ring::process::trim_heap;
use crossbeam_channel::{Sender, bounded};
use gst::prelude::*;

use super::bus::{self, Subject, Watcher};
use super::chain::LetGo;
use super::dial::Dial;
use super::knock::{Door, Knocker};
use super::report::Reporter;
use crate::source::{Progress, RetryClass, RetryReason, Session};

struct Running {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    let_go: LetGo,
    reporter: Arc<Reporter>,
    door: Door,
    /// The watcher runs as long as this is there.
    stop: Option<Sender<Infallible>>,
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
    let (stop, stopped) = bounded(0);
    let dial = Arc::new(Dial::new());
    let messages = bus::listen(&bus, dial.clone());
    let camera = if let Subject::Camera(camera) = &subject { Some(&**camera) } else { None };
    let knocker = Knocker::new(&pipeline, camera, &progress);
    let door = knocker.door();
    let watcher = Watcher { messages, stopped, subject, reporter: reporter.clone(), progress, dial, knocker };
    let mut running = Running { pipeline, bus, let_go, reporter, door, stop: Some(stop), watcher: None };
    let failed = |message: String| RetryReason { reason: Reason::Internal, class: RetryClass::Transient, message };
    let thread = watcher.spawn().map_err(|error| failed(format!("cannot start the bus thread: {error}")))?;
    running.watcher = Some(thread);
    if running.pipeline.set_state(gst::State::Playing).is_err() {
        // Behind what the elements have said of it, which the watcher may not have read yet.
        bus::refused(&running.bus);
    }
    Ok(Box::new(running))
}

impl Session for Running {
    fn stop(self: Box<Self>) {
        drop(self);
        // Pictures and packets leave the heap full of holes, and the next session makes others.
        trim_heap();
    }
}

impl Drop for Running {
    /// Nothing is said any more, callbacks cleared, pipeline to NULL (which may block for a request's timeout), thread
    /// ended, bus flushed.
    fn drop(&mut self) {
        self.reporter.close();
        self.stop.take();
        self.door.close();
        (self.let_go)();
        if let Err(error) = self.pipeline.set_state(gst::State::Null) {
            tracing::error!(%error, "the pipeline does not stop; what it holds may be lost until the process ends");
        }
        if self.watcher.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the bus thread panicked; the place is on standard error");
        }
        self.bus.unset_sync_handler();
        self.bus.set_flushing(true);
    }
}
