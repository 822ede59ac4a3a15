//! One client's connection through the interposer: reads both ends, writes both ends, obeys the faults in force.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::script::{Ending, Transport};
use super::active::{Active, Cut};
use super::exchange::{Exchange, Reaction};
use super::queue::Queue;
use super::wire::{Message, PACKET_HEAD, Splitter, Unit, WireError};

/// Bytes that may wait for a client; then the camera has to wait.
const TO_CLIENT_BYTES: usize = 4 << 20;
/// Bytes that may wait for the camera; then the client has to wait.
const TO_CAMERA_BYTES: usize = 256 << 10;
/// How long the camera, on this host, may take to accept.
const DIAL: Duration = Duration::from_secs(5);
/// How long a client may take nothing of what waits for it.
const STUCK: Duration = Duration::from_secs(60);
/// How long the last bytes, and a packet to be cut in the middle, are waited for.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a connection shares with the rest of the interposer.
#[derive(Clone, Debug)]
pub struct Shared {
    pub active: watch::Receiver<Arc<Active>>,
    pub played: watch::Sender<bool>,
    /// Sessions of all connections.
    pub sessions: Arc<AtomicUsize>,
    pub transport: Transport,
}

/// Serves one client until one side ends, a fault ends it, or nothing moves any more.
pub async fn serve(mut client: TcpStream, camera: std::net::SocketAddr, shared: Shared) -> io::Result<()> {
    let mut camera = timeout(DIAL, TcpStream::connect(camera)).await??;
    // Small packets at once, as a camera sends them.
    client.set_nodelay(true)?;
    camera.set_nodelay(true)?;
    // The camera behind sends datagrams to where its own peer is, which is this host.
    let is_here = client.peer_addr()?.ip().to_canonical().is_loopback();
    let transport = Some(shared.transport).filter(|transport| *transport == Transport::Tcp || is_here);
    let ending = Relay::new(shared, transport).run(&mut client, &mut camera).await;
    drop(camera);
    match ending {
        Ending::Rst => client.set_zero_linger(),
        Ending::Fin => {
            client.shutdown().await?;
            // Closed with bytes unread, a socket resets the connection and takes back what was sent.
            let rest = async { while client.read(&mut [0; 4096]).await.is_ok_and(|len| len > 0) {} };
            drop(timeout(FAREWELL, rest).await);
            Ok(())
        }
    }
}

/// What happened next.
enum Step {
    Changed,
    FromClient(io::Result<usize>),
    FromCamera(io::Result<usize>),
    ToClient(io::Result<usize>),
    ToCamera(io::Result<usize>),
    Due,
    Over,
}

/// The end that is near: how, and by when at the latest.
#[derive(Clone, Copy)]
struct Leaving {
    by: Ending,
    deadline: Instant,
    /// The next packet is to be cut in the middle.
    mid_packet: bool,
}

struct Relay {
    shared: Shared,
    active: Arc<Active>,
    cuts_seen: u64,
    exchange: Exchange,
    requests: Splitter,
    answers: Splitter,
    to_client: Queue,
    to_camera: Queue,
    leaving: Option<Leaving>,
    /// When bytes last moved towards the client, or none waited.
    moved: Instant,
}

impl Relay {
    fn new(mut shared: Shared, transport: Option<Transport>) -> Self {
        let (active, now) = (Arc::clone(&shared.active.borrow_and_update()), Instant::now());
        Self {
            cuts_seen: active.cuts(),
            exchange: Exchange::new(now, transport, Arc::clone(&shared.sessions)),
            active,
            shared,
            requests: Splitter::default(),
            answers: Splitter::default(),
            to_client: Queue::new(TO_CLIENT_BYTES),
            to_camera: Queue::new(TO_CAMERA_BYTES),
            leaving: None,
            moved: now,
        }
    }

    async fn run(&mut self, client: &mut TcpStream, camera: &mut TcpStream) -> Ending {
        loop {
            let now = Instant::now();
            if let Some(ending) = self.is_over(now) {
                return ending;
            }
            let step = self.step(client, camera, now).await;
            if let Err(ending) = self.obey(step) {
                return ending;
            }
        }
    }

    /// Waits for the next thing to happen. Whatever is not chosen loses nothing: reads and writes are all or none.
    async fn step(&mut self, client: &mut TcpStream, camera: &mut TcpStream, now: Instant) -> Step {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_camera, mut to_camera) = camera.split();
        let is_stalled = self.active.is_stalled();
        let is_silent = is_stalled || self.active.is_half_open();
        self.to_client.set_rate(self.active.rate());
        let client_is_due = self.to_client.is_due(now) && !is_silent;
        let camera_is_due = self.to_camera.is_due(now) && !is_silent;
        let wake = self.wake(now, is_silent);
        let takes_answers =
            self.to_client.has_room() && !is_stalled && self.leaving.is_none_or(|leaving| leaving.mid_packet);
        tokio::select! {
            changed = self.shared.active.changed() => if changed.is_ok() { Step::Changed } else { Step::Over },
            // Also while nothing is forwarded: a client that leaves is noticed.
            read = from_client.read_buf(self.requests.buffer()), if self.to_camera.has_room() => Step::FromClient(read),
            read = from_camera.read_buf(self.answers.buffer()), if takes_answers => Step::FromCamera(read),
            wrote = to_client.write(self.to_client.front()), if client_is_due => Step::ToClient(wrote),
            wrote = to_camera.write(self.to_camera.front()), if camera_is_due => Step::ToCamera(wrote),
            () = until(wake) => Step::Due,
        }
    }

    /// When something is to be done by itself.
    fn wake(&self, now: Instant, is_silent: bool) -> Option<Instant> {
        let due = [self.to_client.due(), self.to_camera.due()].into_iter().flatten().filter(|due| *due > now);
        let due = due.min().filter(|_| !is_silent);
        let stuck = (!self.to_client.is_empty() && !is_silent).then(|| self.moved + STUCK);
        let leaving = self.leaving.map(|leaving| leaving.deadline);
        [due, stuck, leaving, self.exchange.deadline(&self.active)].into_iter().flatten().min()
    }

    /// Whether the connection is over, and how it ends.
    fn is_over(&mut self, now: Instant) -> Option<Ending> {
        if let Some(cut) = self.active.cut.filter(|cut| cut.number > self.cuts_seen) {
            self.cuts_seen = cut.number;
            self.leave(cut, now);
        }
        if self.exchange.deadline(&self.active).is_some_and(|deadline| deadline <= now) {
            self.exchange.expire(&self.active);
            return Some(Ending::Fin);
        }
        if self.to_client.is_empty() || self.active.is_stalled() || self.active.is_half_open() {
            self.moved = now;
        } else if self.moved + STUCK <= now {
            return Some(Ending::Rst);
        }
        let leaving = self.leaving?;
        let is_done = self.to_client.is_empty() && !leaving.mid_packet;
        (is_done || leaving.deadline <= now).then_some(leaving.by)
    }

    fn leave(&mut self, cut: Cut, now: Instant) {
        if cut.mid_packet {
            self.leaving = Some(Leaving { by: cut.by, deadline: now + FAREWELL, mid_packet: true });
        } else {
            // What waits is lost with the connection.
            self.leaving = Some(Leaving { by: cut.by, deadline: now, mid_packet: false });
        }
    }

    fn obey(&mut self, step: Step) -> Result<(), Ending> {
        let now = Instant::now();
        match step {
            Step::Changed => self.active = Arc::clone(&self.shared.active.borrow_and_update()),
            Step::Due => {}
            Step::Over => return Err(Ending::Fin),
            // The client has left, or is beyond understanding.
            Step::FromClient(Ok(0) | Err(_)) | Step::ToClient(Err(_)) | Step::ToCamera(Err(_)) => {
                return Err(Ending::Fin);
            }
            Step::FromClient(Ok(_)) => self.requests(now).map_err(|_| Ending::Fin)?,
            // The camera has left: what it sent before is still delivered.
            Step::FromCamera(Ok(0) | Err(_)) => {
                self.leaving = Some(Leaving { by: Ending::Fin, deadline: now + STUCK, mid_packet: false });
            }
            Step::FromCamera(Ok(_)) => self.answers(now).map_err(|_| Ending::Fin)?,
            Step::ToClient(Ok(len)) => {
                self.to_client.wrote(len, now);
                self.moved = now;
            }
            Step::ToCamera(Ok(len)) => self.to_camera.wrote(len, now),
        }
        Ok(())
    }

    fn requests(&mut self, now: Instant) -> Result<(), WireError> {
        while let Some(unit) = self.requests.next()? {
            if self.active.is_half_open() {
                continue;
            }
            match unit {
                Unit::Packet(packet) => self.to_camera.push(now, packet),
                Unit::Message(request) => match self.exchange.request(request, &self.active, now) {
                    Reaction::Forward(request, delay) => self.to_camera.push(now + delay, request.to_bytes()),
                    Reaction::Answer(bytes) => self.to_client.push(now, bytes),
                    Reaction::Swallow => {}
                },
            }
        }
        Ok(())
    }

    fn answers(&mut self, now: Instant) -> Result<(), WireError> {
        while let Some(unit) = self.answers.next()? {
            if self.active.is_half_open() {
                continue;
            }
            match unit {
                Unit::Packet(mut packet) if self.leaving.is_some() => {
                    packet.truncate(PACKET_HEAD + (packet.len() - PACKET_HEAD) / 2);
                    self.to_client.push(now, packet);
                    self.leaving = self.leaving.map(|leaving| Leaving { mid_packet: false, ..leaving });
                    return Ok(());
                }
                Unit::Message(answer) => self.answer(answer, now),
                Unit::Packet(packet) => {
                    for (delay, packet) in self.exchange.packet(packet, &self.active) {
                        self.to_client.push(now + delay, packet);
                    }
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, answer: Message, now: Instant) {
        let (answer, plays) = self.exchange.answer(answer, &self.active);
        self.to_client.push(now, answer.to_bytes());
        if plays {
            self.shared.played.send_if_modified(|played| !std::mem::replace(played, true));
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => pending().await,
    }
}
