//! Shutdown: SIGTERM and SIGINT become messages; the second one ends the process at once.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the operator asks of the supervisor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// End the session, tell readers, return.
    Orderly,
    /// Return without waiting for anything.
    Now,
}

/// Listens for signals on a thread of its own until the process ends.
///
/// The first SIGTERM or SIGINT is delivered as [`Stop::Orderly`]. The second one is delivered as [`Stop::Now`] and
/// then calls `end_now`, which is to end the process without running destructors: whoever should have stopped may be
/// stuck. SIGHUP asks for a reload, through `hangup`, which is to have room for one: several before the first is taken
/// are one. Without `hangup` it is as SIGTERM: the terminal is gone.
///
/// # Errors
///
/// When the runtime, a handler or the thread cannot be made; the text says which.
pub fn listen(hangup: Option<Sender<()>>, end_now: impl FnOnce() + Send + 'static) -> io::Result<Receiver<Stop>> {
    let runtime = Builder::new_current_thread().enable_io().build().map_err(|e| because("the signal runtime", &e))?;
    let signals = Signals::register(&runtime)?;
    let (sender, receiver) = bounded(2);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(signals.deliver(&sender, hangup.as_ref()));
            end_now();
        })
        .map_err(|e| because("the signal thread", &e))?;
    Ok(receiver)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Handlers are in place when this returns, so no later signal takes its default action.
    fn register(runtime: &Runtime) -> io::Result<Self> {
        let _entered = runtime.enter();
        let handler = |kind, name: &str| signal(kind).map_err(|e| because(&format!("the {name} handler"), &e));
        Ok(Self {
            terminate: handler(SignalKind::terminate(), "SIGTERM")?,
            interrupt: handler(SignalKind::interrupt(), "SIGINT")?,
            hangup: handler(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// Returns at the second request to stop.
    async fn deliver(mut self, sender: &Sender<Stop>, hangup: Option<&Sender<()>>) {
        for stop in [Stop::Orderly, Stop::Now] {
            let name = self.next_stop(hangup).await;
            tracing::info!(signal = name, "asked to stop");
            // Two fit; a supervisor that has returned needs no message.
            let _ = sender.try_send(stop);
        }
    }

    async fn next_stop(&mut self, hangup: Option<&Sender<()>>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => match hangup {
                    // One that is waiting already does for both.
                    Some(hangup) => drop(hangup.try_send(())),
                    None => return "SIGHUP",
                },
            }
        }
    }
}

fn because(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot set up {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_signal_asks_to_stop_and_the_second_ends_the_process() {
        let (ended, end) = bounded(1);
        let (hangup, hangups) = bounded(1);
        let stop = listen(Some(hangup), move || ended.send(()).unwrap()).unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        assert_eq!(hangups.recv_timeout(PATIENCE), Ok(()));
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(stop.recv_timeout(PATIENCE), Ok(Stop::Orderly));
        assert!(stop.is_empty() && end.is_empty());
        kill_process(getpid(), Signal::INT).unwrap();
        assert_eq!(stop.recv_timeout(PATIENCE), Ok(Stop::Now));
        assert_eq!(end.recv_timeout(PATIENCE), Ok(()));
    }
}
