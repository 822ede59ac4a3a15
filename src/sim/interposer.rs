//! Stands between the clients and the simulated camera and does what the fault script says.
//!
//! ```text
//!  client == public port == connection.rs == port of 127.0.0.1 == gst-rtsp-server
//!                               ^ watches
//!  script -> plan -> course() -> active.rs        one thread, one event loop
//! ```

mod active;
mod connection;
mod datagrams;
mod exchange;
mod line;
mod packets;
mod queue;
mod sdp;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::SimError;
use super::events::{EventLog, Measured};
use super::feed::Pictures;
use super::script::{Action, Connections, Edge, Ending, Origin, Plan, Planned, Script};
use active::{Active, Cut, Running};
use connection::Shared;
pub(super) use datagrams::Datagrams;

/// Clients at a time; more are turned away.
const CONNECTIONS: usize = 64;
/// Clients that the kernel keeps until they are accepted.
const BACKLOG: u32 = 128;
/// How long a stop may take.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// The pause after a connection that could not be accepted, or a port that could not be taken back.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a port that was given up is tried to be had back.
const REOPEN: Duration = Duration::from_secs(30);

/// What goes wrong with a camera.
pub struct Faults {
    /// What happens.
    pub script: Script,
    /// Makes every random choice.
    pub seed: u64,
    /// Where the event log goes; `None` = nowhere.
    pub events: Option<Box<dyn io::Write + Send>>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").field("script", &self.script).field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// What a script changes inside the camera.
#[derive(Clone, Debug, Default)]
pub(super) struct Taps {
    /// What is painted.
    pub pictures: Arc<Pictures>,
    /// What is sent as datagrams; only for scripts of that transport.
    pub datagrams: Option<Arc<Datagrams>>,
}

/// A running interposer; ends when dropped.
#[derive(Debug)]
pub(super) struct Interposer {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    stopped: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Interposer {
    /// Listens on `address` for clients of the camera behind `camera`.
    pub(super) fn start(address: SocketAddr, camera: SocketAddr, faults: Faults, taps: Taps) -> Result<Self, SimError> {
        let refused = |error: io::Error| SimError::listen(address, &error);
        let listener = std::net::TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopping) = oneshot::channel();
        let (ended, stopped) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new().name("sim-interposer".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = run(listener, bound, camera, faults, &taps) => {
                        if let Err(error) = served {
                            tracing::error!(%error, "the simulated camera accepts no connections any more");
                        }
                    }
                    // Dropped without a word: the same.
                    _ = stopping => {}
                }
            });
            drop(runtime);
            drop(ended);
        })?;
        Ok(Self { port: bound.port(), stop: Some(stop), stopped, thread: Some(thread) })
    }

    /// The port that clients connect to.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Closes everything; waits at most 5 s.
    pub(super) fn shut_down(&mut self) -> Result<(), SimError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        drop(self.stop.take());
        match self.stopped.recv_timeout(STOP_DEADLINE) {
            Err(RecvTimeoutError::Timeout) => Err(SimError::Stop(STOP_DEADLINE)),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => thread.join().map_err(|_| SimError::Panicked),
        }
    }
}

impl Drop for Interposer {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "the simulated camera's interposer did not stop cleanly");
        }
    }
}

async fn run(
    listener: std::net::TcpListener,
    address: SocketAddr,
    camera: SocketAddr,
    faults: Faults,
    taps: &Taps,
) -> io::Result<()> {
    let (control, active) = watch::channel(Arc::new(Active::default()));
    let (played, has_played) = watch::channel(false);
    let connections = Arc::new(AtomicUsize::new(0));
    let shared = Shared { active, played, sessions: Arc::default(), transport: faults.script.transport };
    let door = Door { address, camera, shared, connections: Arc::clone(&connections) };
    let course = Course { control, taps, connections, log: EventLog::new(faults.events) };
    let ((), accepted) = tokio::join!(
        course.run(&faults.script, faults.seed, has_played),
        door.accept(TcpListener::from_std(listener)?)
    );
    accepted
}

/// Lets clients in.
struct Door {
    address: SocketAddr,
    camera: SocketAddr,
    shared: Shared,
    connections: Arc<AtomicUsize>,
}

impl Door {
    async fn accept(mut self, listener: TcpListener) -> io::Result<()> {
        let mut listener = Some(listener);
        let mut clients = JoinSet::new();
        loop {
            let refuses = self.shared.active.borrow_and_update().is_refusing();
            if refuses {
                drop(listener.take());
                self.refuse().await?;
            }
            let open = match listener.take() {
                Some(open) => open,
                None => self.open().await?,
            };
            tokio::select! {
                _ = self.shared.active.changed() => {}
                accepted = open.accept() => match accepted {
                    Ok((client, _)) if clients.len() < CONNECTIONS => {
                        clients.spawn(serve(client, self.camera, self.shared.clone(), Arc::clone(&self.connections)));
                    }
                    Ok(_) => tracing::warn!(limit = CONNECTIONS, "too many clients; one is turned away"),
                    // Such as too many open files: passes, or says so again.
                    Err(error) => {
                        tracing::warn!(%error, "a client could not be let in");
                        sleep(PAUSE).await;
                    }
                },
                Some(ended) = clients.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection of the simulated camera ended badly");
                    }
                }
            }
            listener = Some(open);
        }
    }

    /// Keeps the port without listening on it, so that nobody else gets it, until clients are let in again.
    async fn refuse(&mut self) -> io::Result<()> {
        let holder = self.bind().await?;
        while self.shared.active.borrow_and_update().is_refusing() {
            if self.shared.active.changed().await.is_err() {
                // The course is over with this fault in force: for good.
                std::future::pending::<()>().await;
            }
        }
        drop(holder);
        Ok(())
    }

    async fn open(&self) -> io::Result<TcpListener> {
        self.bind().await?.listen(BACKLOG)
    }

    /// Takes the port back; in the moment in between somebody else may have it.
    async fn bind(&self) -> io::Result<TcpSocket> {
        let deadline = Instant::now() + REOPEN;
        loop {
            let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            match socket.bind(self.address) {
                Ok(()) => return Ok(socket),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

async fn serve(client: TcpStream, camera: SocketAddr, shared: Shared, connections: Arc<AtomicUsize>) {
    connections.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = connection::serve(client, camera, shared).await {
        tracing::debug!(%error, "a connection of the simulated camera broke off");
    }
    connections.fetch_sub(1, Ordering::Relaxed);
}

/// Takes the steps of the script at their times.
struct Course<'a> {
    control: watch::Sender<Arc<Active>>,
    taps: &'a Taps,
    connections: Arc<AtomicUsize>,
    log: EventLog,
}

/// A fault in force: which one, and its how-manieth time.
type Key = (usize, u64);

impl Course<'_> {
    async fn run(mut self, script: &Script, seed: u64, mut has_played: watch::Receiver<bool>) {
        // An error means that nobody can play any more.
        if script.origin == Origin::Play && has_played.wait_for(|played| *played).await.is_err() {
            return;
        }
        let origin = Instant::now();
        self.log.begin(script, seed);
        let mut in_force: Vec<(Key, Arc<Running>)> = Vec::new();
        for step in Plan::new(script, seed) {
            // What is in force from the beginning is in force before the first client is let in.
            if origin + step.at > Instant::now() {
                sleep_until(origin + step.at).await;
            }
            let connections = self.connections.load(Ordering::Relaxed);
            let counts = self.take(&step, &mut in_force);
            self.log.step(&step, Measured { at: origin.elapsed(), connections, counts });
        }
        // What is in force now stays in force.
        std::future::pending::<()>().await;
    }

    /// Takes one step; at the end of a fault, what it looked at and what it changed.
    fn take(&mut self, step: &Planned, in_force: &mut Vec<(Key, Arc<Running>)>) -> Option<(u64, u64)> {
        let key = (step.fault, step.occurrence);
        let mut counts = None;
        let cut = match (step.edge, step.action) {
            (Edge::Begin, Action::Cut { by, mid_packet }) => Some((by, mid_packet)),
            (Edge::Begin, action) => {
                in_force.push((key, Arc::new(Running::new(action, step.chance))));
                (action == Action::Refuse(Connections::Cut)).then_some((Ending::Rst, false))
            }
            (Edge::End, _) => {
                let at = in_force.iter().position(|(known, _)| *known == key);
                counts = at.map(|at| in_force.remove(at).1.counts());
                None
            }
        };
        let pictures = in_force.iter().rev().find_map(|(_, running)| match running.action {
            Action::Picture(fault) => Some(fault),
            _ => None,
        });
        self.taps.pictures.set(pictures);
        self.control.send_modify(|active| {
            let number = active.cuts() + 1;
            let cut = cut.map_or(active.cut, |(by, mid_packet)| Some(Cut { number, by, mid_packet }));
            *active = Arc::new(Active { running: in_force.iter().map(|(_, running)| running.clone()).collect(), cut });
            if let Some(datagrams) = &self.taps.datagrams {
                datagrams.set(Arc::clone(active));
            }
        });
        counts
    }
}
