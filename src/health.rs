//! Health towards the service manager: READY, STATUS, WATCHDOG and STOPPING over sd_notify.

use std::fmt;
use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::Mono;

/// Carries messages to the service manager.
type Send = Box<dyn FnMut(&[NotifyState<'_>]) -> io::Result<()> + std::marker::Send>;

/// Tells the service manager how the process is.
///
/// An absent camera is no fault of the process: the watchdog is fed by decisions, never by frames.
pub struct Health {
    send: Option<Send>,
    ready_timeout: Duration,
    begun: Option<Mono>,
    ready_by: Option<Mono>,
    ready: bool,
    /// Time between two watchdog messages: half of what the manager allows.
    feed_every: Option<Duration>,
    fed: Option<Mono>,
    complained: bool,
}

impl Health {
    /// Speaks to the manager that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`); silent without one.
    ///
    /// READY is sent at the first frame, or `ready_timeout` after [`Health::begin`].
    #[must_use]
    pub fn from_environment(ready_timeout: Duration) -> Self {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(_) => Self::with(Box::new(sd_notify::notify), sd_notify::watchdog_enabled(), ready_timeout),
            None => Self::silent(),
        }
    }

    /// Speaks to nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            send: None,
            ready_timeout: Duration::ZERO,
            begun: None,
            ready_by: None,
            ready: false,
            feed_every: None,
            fed: None,
            complained: false,
        }
    }

    /// Speaks through `send`, feeding a watchdog that allows `watchdog` between two messages.
    #[must_use]
    pub fn with(send: Send, watchdog: Option<Duration>, ready_timeout: Duration) -> Self {
        Self { send: Some(send), feed_every: watchdog.map(|usec| usec / 2), ready_timeout, ..Self::silent() }
    }

    /// The supervisor begins its work.
    pub fn begin(&mut self, now: Mono) {
        if self.send.is_some() && !self.ready && self.ready_by.is_none() {
            self.begun = Some(now);
            self.ready_by = Some(now.after(self.ready_timeout));
        }
    }

    /// READY is sent so long after [`Health::begin`] from now on, if it was not sent yet.
    pub fn set_ready_timeout(&mut self, ready_timeout: Duration) {
        self.ready_timeout = ready_timeout;
        if self.ready_by.is_some() {
            self.ready_by = self.begun.map(|begun| begun.after(ready_timeout));
        }
    }

    /// The supervisor has taken a decision; sends what is due.
    pub fn decided(&mut self, now: Mono) {
        if self.ready_by.is_some_and(|by| now >= by) {
            self.become_ready();
        }
        let Some(every) = self.feed_every else { return };
        if self.fed.is_none_or(|fed| now.since(fed) >= every) {
            self.fed = Some(now);
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// When [`Health::decided`] has to be called again at the latest; `None` = nothing is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        let feed = self.feed_every.map(|every| self.fed.map_or(Mono(i64::MIN), |fed| fed.after(every)));
        [feed, self.ready_by].into_iter().flatten().min()
    }

    /// A frame was published: the service works.
    pub fn first_frame(&mut self) {
        if !self.ready {
            self.become_ready();
        }
    }

    /// The sentence that `systemctl status` shows.
    pub fn status(&mut self, text: &str) {
        self.tell(&[NotifyState::Status(text)]);
    }

    /// The process is about to end.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// The configuration was read again and is being applied; [`Health::reloaded`] is the end of it.
    ///
    /// Nothing is said before READY, which would otherwise be taken for the end of the start.
    pub fn reloading(&mut self) {
        if !self.ready {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the service manager is not told of the reload: no clock"),
        }
    }

    /// The end of [`Health::reloading`].
    pub fn reloaded(&mut self) {
        if self.ready {
            self.tell(&[NotifyState::Ready]);
        }
    }

    fn become_ready(&mut self) {
        self.ready = true;
        self.ready_by = None;
        self.tell(&[NotifyState::Ready]);
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        let Some(send) = &mut self.send else { return };
        match send(states) {
            Ok(()) => self.complained = false,
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(%error, "the service manager does not take messages from NOTIFY_SOCKET");
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("ready", &self.ready)
            .field("feed_every", &self.feed_every)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn spoken(watchdog: Option<u64>) -> (Health, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let book = said.clone();
        let send = move |states: &[NotifyState<'_>]| {
            book.lock().unwrap().extend(states.iter().map(ToString::to_string));
            Ok(())
        };
        (Health::with(Box::new(send), watchdog.map(Duration::from_secs), Duration::from_secs(20)), said)
    }

    fn second(n: u64) -> Mono {
        Mono(0).after(Duration::from_secs(n))
    }

    #[test]
    fn ready_is_said_once_at_the_first_frame() {
        let (mut health, said) = spoken(None);
        health.begin(second(0));
        health.decided(second(1));
        assert!(said.lock().unwrap().is_empty());
        health.first_frame();
        health.first_frame();
        health.decided(second(60));
        assert_eq!(*said.lock().unwrap(), ["READY=1"]);
        assert_eq!(health.next_due(), None);
    }

    #[test]
    fn ready_is_said_after_the_timeout_when_no_frame_comes() {
        let (mut health, said) = spoken(None);
        health.begin(second(0));
        assert_eq!(health.next_due(), Some(second(20)));
        health.decided(second(20));
        health.first_frame();
        assert_eq!(*said.lock().unwrap(), ["READY=1"]);
    }

    #[test]
    fn a_changed_timeout_counts_from_the_beginning_and_never_takes_ready_back() {
        let (mut health, said) = spoken(None);
        health.begin(second(0));
        health.set_ready_timeout(Duration::from_secs(60));
        health.decided(second(20));
        assert!(said.lock().unwrap().is_empty());
        health.set_ready_timeout(Duration::from_secs(30));
        assert_eq!(health.next_due(), Some(second(30)));
        health.decided(second(31));
        health.set_ready_timeout(Duration::from_secs(90));
        health.decided(second(91));
        assert_eq!((said.lock().unwrap().as_slice(), health.next_due()), (&["READY=1".to_owned()][..], None));
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_interval_and_only_by_decisions() {
        let (mut health, said) = spoken(Some(10));
        (0..=14).for_each(|n| health.decided(second(n)));
        assert_eq!(*said.lock().unwrap(), ["WATCHDOG=1"; 3]);
        assert_eq!(health.next_due(), Some(second(15)));
    }

    #[test]
    fn a_reload_is_framed_for_the_manager_and_never_takes_the_place_of_ready() {
        let (mut health, said) = spoken(None);
        health.reloading();
        health.reloaded();
        assert!(said.lock().unwrap().is_empty());
        health.first_frame();
        health.reloading();
        health.reloaded();
        let said = said.lock().unwrap();
        assert_eq!((said[0].as_str(), said[1].as_str(), said[3].as_str()), ("READY=1", "RELOADING=1", "READY=1"));
        assert!(said[2].starts_with("MONOTONIC_USEC="), "{said:?}");
    }

    #[test]
    fn a_manager_that_does_not_listen_stops_nothing() {
        let refuse = |_: &[NotifyState<'_>]| Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        let mut health = Health::with(Box::new(refuse), Some(Duration::from_secs(2)), Duration::from_secs(20));
        health.first_frame();
        health.decided(second(1));
        health.stopping();
        assert_eq!(health.next_due(), Some(second(2)));
    }
}
