//! `camring serve`: metrics, health, live pictures and one page about all rings; a reader of the rings like any other.
//!
//! ```text
//!  rings --- scene.rs: a thread that looks twice a second ---> metrics.rs, events.rs, /readyz, the page's numbers
//!    |                                                                 |
//!    +------ pictures.rs: a thread for each ring that is watched ------+--> route.rs --> access.rs --> connection.rs
//! ```
//!
//! It never opens a ring for writing and talks to no daemon, so all of it works when every daemon is dead.

pub mod access;
mod connection;
mod events;
pub mod metrics;
mod page;
mod pictures;
mod reply;
mod route;
mod scene;

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use camring_ring::{OwnerPolicy, ShmDir};
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::config::Switch;
use crate::health::Health;
use crate::report::Grade;
use access::Gate;
use route::Site;
use scene::{Scene, Watcher};

/// What the service manager's watchdog and status hear of us at least.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// For what still reads a ring when the process is to end.
const END_WITHIN: Duration = Duration::from_secs(1);

/// What to serve, where, and to whom.
#[derive(Debug)]
pub struct Options {
    /// Whose rings.
    pub shm: ShmDir,
    /// Rings of which owners.
    pub owner: OwnerPolicy,
    /// Whether pictures are shown.
    pub preview: Switch,
    /// What every request must know.
    pub token: Option<SecretString>,
    /// The rings that the configuration names.
    pub cameras: BTreeSet<String>,
}

/// Why it cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --listen or [serve] listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gives no thread, no handler or no timer.
    #[error("cannot set up {what}: {source}")]
    System {
        /// What was missing.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A service that listens and does not answer yet.
pub struct Service {
    listener: TcpListener,
    address: SocketAddr,
    options: Options,
}

impl Service {
    /// Takes the address.
    ///
    /// # Errors
    ///
    /// [`ServeError::Listen`].
    pub fn bind(address: SocketAddr, options: Options) -> Result<Self, ServeError> {
        let refused = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address, options })
    }

    /// Where it listens; with the port that the system chose when it was asked for 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until SIGTERM or SIGINT. SIGHUP asks `cameras` which rings the configuration names by now.
    ///
    /// # Errors
    ///
    /// [`ServeError::System`].
    pub fn run(self, cameras: impl Fn() -> Option<BTreeSet<String>>) -> Result<(), ServeError> {
        let system = |what| move |source| ServeError::System { what, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(route::READS_MAX)
            .thread_keep_alive(Duration::from_secs(2))
            .build()
            .map_err(system("the runtime"))?;
        let Options { shm, owner, preview, token, cameras: named } = self.options;
        let watcher = Watcher::start(shm.clone(), owner, named).map_err(system("the watcher's thread"))?;
        let site = Arc::new(Site::new(watcher.clone(), Gate::new(token), preview, shm, owner));
        let result = runtime.block_on(async {
            let signals = Signals::register().map_err(system("the signal handlers"))?;
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(system("the listener"))?;
            let (stop, stopped) = watch::channel(false);
            let serving = tokio::spawn(connection::accept(listener, site, stopped));
            oversee(&watcher, signals, self.address, cameras).await;
            // Nobody listens when accepting has ended by itself, which it does not.
            let _ = stop.send(true);
            let _ = tokio::time::timeout(END_WITHIN, serving).await;
            Ok(())
        });
        runtime.shutdown_timeout(END_WITHIN);
        result
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn register() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Talks to the service manager and listens for signals; returns when it is to end.
async fn oversee(
    watcher: &Watcher,
    mut signals: Signals,
    address: SocketAddr,
    cameras: impl Fn() -> Option<BTreeSet<String>>,
) {
    let mut health = Health::from_environment(Duration::ZERO);
    health.first_frame();
    let mut told = String::new();
    let mut tick = tokio::time::interval(STATUS_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                // A watcher that is stuck starves the watchdog, which is what it is for.
                if watcher.is_well() {
                    health.decided(SystemClock.now());
                }
                let text = status(&watcher.last(), address);
                if text != told {
                    health.status(&text);
                    told = text;
                }
            }
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => {
                if let Some(cameras) = cameras() {
                    watcher.set_cameras(cameras);
                }
            }
        }
    }
    tracing::info!("asked to stop");
    health.stopping();
}

fn status(scene: &Scene, address: SocketAddr) -> String {
    let (fine, all) = (scene.count(Grade::Fine), scene.entries.len());
    format!("{fine} of {all} rings are live; http://{address}/")
}
