//! The worker: one thread per session that may block where the supervisor must not.

use std::sync::Arc;
use std::thread;

use camring_ring::frame::Reason;
use crossbeam_channel::{Receiver, Sender, bounded, never};

use super::board::Counts;
use crate::source::{FrameSink, FrameSource, Loan, Progress, RetryClass, RetryReason, SourceEvent};

/// Events that may wait for the supervisor; a source that sends more waits until they are read.
pub(crate) const EVENTS: usize = 64;

/// Something that is lent to a session and must be home again before the next one.
#[derive(Debug)]
pub(crate) struct Home<T> {
    value: Option<T>,
    door: Sender<T>,
    /// Gets the value when the loan ends; hand it to [`Home::keep`].
    pub(crate) road: Receiver<T>,
}

impl<T> Home<T> {
    pub(crate) fn new(value: T) -> Self {
        let (door, road) = bounded(1);
        Self { value: Some(value), door, road }
    }

    /// Lends the value; `None` while it is lent already.
    pub(crate) fn lend(&mut self) -> Option<Loan<T>> {
        self.value.take().map(|value| Loan::new(value, self.door.clone()))
    }

    /// The value, unless it is lent.
    pub(crate) fn into_value(self) -> Option<T> {
        self.value
    }

    /// Takes in what came down the road.
    pub(crate) fn keep(&mut self, value: T) {
        self.value = Some(value);
    }

    /// Whether the value is here, after a look down the road.
    pub(crate) fn is_home(&mut self) -> bool {
        if let Ok(value) = self.road.try_recv() {
            self.keep(value);
        }
        self.value.is_some()
    }
}

/// What the worker says of itself.
#[derive(Debug)]
pub(crate) enum Report {
    /// `start` has returned a session.
    Started,
    /// `start` has failed.
    Failed(RetryReason),
}

/// The supervisor's end of a session. The thread is over when the source has come home.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) events: Receiver<SourceEvent>,
    pub(crate) reports: Receiver<Report>,
    stop: Option<Sender<()>>,
    progress: Arc<Progress>,
    counted: Counts,
}

impl Worker {
    /// Begins a session on a thread of its own, which counts in `progress`; a thread that cannot be made is reported as a
    /// failed start.
    pub(crate) fn launch(
        session: u32,
        source: Loan<Box<dyn FrameSource>>,
        sink: Loan<Box<dyn FrameSink>>,
        progress: Arc<Progress>,
        camera: &str,
    ) -> Self {
        let (event_sender, events) = bounded(EVENTS);
        let (report_sender, reports) = bounded(2);
        let (stop, stopped) = bounded(1);
        let given = progress.clone();
        let failed = report_sender.clone();
        let spawned = thread::Builder::new().name(format!("session-{session}")).spawn(move || {
            serve(source, sink, event_sender, given, &report_sender, &stopped);
        });
        match spawned {
            Ok(_) => tracing::debug!(camera, session, "session begun"),
            // Two fit in and none was sent before; the loans came home when the closure was dropped.
            Err(error) => drop(failed.try_send(Report::Failed(no_thread(&error)))),
        }
        Self { events, reports, stop: Some(stop), progress, counted: Counts::default() }
    }

    /// Tells the session to end; returns at once.
    pub(crate) fn request_stop(&mut self) {
        self.stop = None;
    }

    /// The counters that the streaming threads write.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// What was counted since the previous call.
    pub(crate) fn take_counts(&mut self) -> Counts {
        let totals = Counts::of(&self.progress);
        let counts = totals.since(&self.counted);
        self.counted = totals;
        counts
    }

    /// No more events will come; stop selecting on them.
    pub(crate) fn events_over(&mut self) {
        self.events = never();
    }
}

fn serve(
    mut source: Loan<Box<dyn FrameSource>>,
    sink: Loan<Box<dyn FrameSink>>,
    events: Sender<SourceEvent>,
    progress: Arc<Progress>,
    reports: &Sender<Report>,
    stopped: &Receiver<()>,
) {
    // Reports are never refused: two fit and at most one is sent. The supervisor may have stopped listening.
    match source.start(sink, events, progress) {
        Err(why) => drop(reports.try_send(Report::Failed(why))),
        Ok(session) => {
            drop(reports.try_send(Report::Started));
            // Ends, as an error, when the supervisor drops its end: at the session's deadlines, or with itself.
            let _ = stopped.recv();
            session.stop();
        }
    }
}

fn no_thread(error: &std::io::Error) -> RetryReason {
    let message = format!("cannot start a thread for the session: {error}; raise TasksMax or the process limit");
    RetryReason { reason: Reason::Internal, class: RetryClass::Transient, message }
}

/// Why a session ends whose thread ended by itself.
pub(crate) fn died() -> RetryReason {
    let message = "the session's thread ended by itself, which is a fault of this program".to_owned();
    RetryReason { reason: Reason::Internal, class: RetryClass::Transient, message }
}
