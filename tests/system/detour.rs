//! A way for a camera's datagrams on which each takes a time of its own: late, in the wrong order, some of them twice.
//!
//! It stands in the RTSP connection, where it proposes ports of its own in the place of the client's; needs no privilege.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// How long a socket may wait before its thread looks whether the test is over.
const LOOK: Duration = Duration::from_millis(100);

/// What the way does to the datagrams of a stream while it is bad.
#[derive(Clone, Copy, Debug)]
pub struct Bad {
    /// Each comes later by up to so much, whatever the others do.
    pub jitter: Duration,
    /// So many of a hundred come twice, each copy at a time of its own.
    pub doubled_percent: u64,
}

/// How many datagrams it has let through while it was bad, and what became of them.
#[derive(Debug)]
pub struct Done {
    pub passed: u64,
    pub doubled: u64,
    /// Those behind one that had come after them.
    pub overtaken: u64,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    bad: AtomicBool,
    passed: AtomicU64,
    doubled: AtomicU64,
    overtaken: AtomicU64,
    /// Both ends of every RTSP connection.
    open: Mutex<Vec<TcpStream>>,
}

/// Ends with the test.
pub struct Detour {
    /// The camera, by this way.
    pub url: String,
    own_port: u16,
    shared: Arc<Shared>,
}

impl Detour {
    /// A way to the camera with this URL and port; good until it is told otherwise.
    pub fn to(url: &str, port: u16, bad: Bad) -> Self {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if theirs.over.load(Ordering::Relaxed) {
                    break;
                }
                relay(&client, port, bad, &theirs);
            }
        });
        Self { url: url.replace(&format!(":{port}/"), &format!(":{own_port}/")), own_port, shared }
    }

    /// From now on the way is bad, or good.
    pub fn set_bad(&self, bad: bool) {
        self.shared.bad.store(bad, Ordering::Relaxed);
    }

    pub fn done(&self) -> Done {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let Shared { passed, doubled, overtaken, .. } = &*self.shared;
        Done { passed: count(passed), doubled: count(doubled), overtaken: count(overtaken) }
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for end in self.shared.open.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
        // Whoever waits for the next client looks whether it is over.
        let _ = TcpStream::connect((HERE, self.own_port));
    }
}

/// Relays one RTSP connection, both ways, on threads of their own.
fn relay(client: &TcpStream, port: u16, bad: Bad, shared: &Arc<Shared>) {
    let Ok(camera) = TcpStream::connect((HERE, port)) else { return };
    shared.open.lock().unwrap().extend([client.try_clone().unwrap(), camera.try_clone().unwrap()]);
    let (mut from, mut to) = (camera.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (client, shared) = (client.try_clone().unwrap(), Arc::clone(shared));
    std::thread::spawn(move || {
        let _ = requests(&client, &camera, bad, &shared);
        let _ = camera.shutdown(Shutdown::Both);
    });
}

/// Relays requests, which are lines of text as long as pictures come as datagrams.
fn requests(client: &TcpStream, mut camera: &TcpStream, bad: Bad, shared: &Arc<Shared>) -> std::io::Result<()> {
    let (mut reader, mut line) = (BufReader::new(client), String::new());
    while reader.read_line(&mut line)? > 0 {
        if let Some((head, ports)) = line.split_once("client_port=") {
            let end = ports.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(ports.len());
            let (ports, rest) = ports.split_at(end);
            let ports: Vec<u16> = ports.split('-').map(|port| port.parse().expect("a port of the client")).collect();
            // RTP and RTCP; only pictures are disturbed, so that what is said about them stays true.
            let own = [(ports[0], Some(bad)), (ports[1], None)].map(|(port, bad)| datagrams(port, bad, shared));
            line = format!("{head}client_port={}-{}{rest}", own[0], own[1]);
        }
        camera.write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// Takes datagrams at a port, which it returns, and sends them on to `client_port`.
fn datagrams(client_port: u16, bad: Option<Bad>, shared: &Arc<Shared>) -> u16 {
    let socket = UdpSocket::bind((HERE, 0)).unwrap();
    let (own, shared) = (socket.local_addr().unwrap().port(), Arc::clone(shared));
    std::thread::spawn(move || {
        let (mut waiting, mut bytes): (BTreeMap<(Instant, u64), Vec<u8>>, _) = (BTreeMap::new(), [0; 2048]);
        let (mut number, mut newest) = (0, 0);
        let mut random = fastrand::Rng::with_seed(1);
        while !shared.over.load(Ordering::Relaxed) {
            let next = waiting.keys().next().map_or(LOOK, |(due, _)| due.saturating_duration_since(Instant::now()));
            socket.set_read_timeout(Some(next.clamp(Duration::from_millis(1), LOOK))).unwrap();
            if let Ok(len) = socket.recv(&mut bytes) {
                number += 1;
                let bad = bad.filter(|_| shared.bad.load(Ordering::Relaxed));
                let copies = 1 + u64::from(bad.is_some_and(|bad| random.u64(..100) < bad.doubled_percent));
                for copy in 0..copies {
                    let jitter_us = bad.map_or(0, |bad| bad.jitter.as_micros() as u64);
                    let due = Instant::now() + Duration::from_micros(random.u64(..=jitter_us));
                    waiting.insert((due, number * 2 + copy), bytes[..len].to_vec());
                }
                shared.passed.fetch_add(u64::from(bad.is_some()), Ordering::Relaxed);
                shared.doubled.fetch_add(copies - 1, Ordering::Relaxed);
            }
            while let Some(first) = waiting.first_entry().filter(|first| first.key().0 <= Instant::now()) {
                let place = first.key().1 / 2;
                shared.overtaken.fetch_add(u64::from(place < newest), Ordering::Relaxed);
                newest = newest.max(place);
                // A client that has left is the end of the session, which is said in the RTSP connection.
                let _ = socket.send_to(&first.remove(), (HERE, client_port));
            }
        }
    });
    own
}
