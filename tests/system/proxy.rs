//! A connection that can be cut, or frozen in the middle of a packet: a relay of bytes in front of a camera.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Relays connections to a port of this host; ends with the test.
pub struct Proxy {
    pub port: u16,
    /// Both ends of every connection; `None` when the relay is over.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
    ice: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

/// Bytes flow.
const FLOWING: u8 = 0;
/// The next packet that is half through is the last.
const FREEZING: u8 = 1;
/// It was.
const FROZEN: u8 = 2;

impl Proxy {
    /// A relay to `port`.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let ice = Arc::new(AtomicU8::new(FLOWING));
        let (own_port, theirs, same) = (listener.local_addr().unwrap().port(), Arc::clone(&open), Arc::clone(&ice));
        let thread = std::thread::spawn(move || relay(&listener, port, &theirs, &same));
        Self { port: own_port, open, ice, thread: Some(thread) }
    }

    /// Passes on half of a packet that comes from the camera, and nothing after it; connections stay open.
    pub fn freeze(&self) {
        self.ice.store(FREEZING, Ordering::Relaxed);
    }

    /// Whether half a packet was the last that passed.
    pub fn is_frozen_midway(&self) -> bool {
        self.ice.load(Ordering::Relaxed) == FROZEN
    }

    /// Cuts what is frozen; new connections are relayed as before.
    pub fn thaw(&self) {
        self.ice.store(FLOWING, Ordering::Relaxed);
        self.cut();
    }

    /// Cuts every connection; new ones are relayed as before.
    pub fn cut(&self) {
        if let Some(open) = self.open.lock().unwrap().as_mut() {
            cut(open);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut open) = self.open.lock().unwrap().take() {
            cut(&mut open);
        }
        // Wakes the thread, which then sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().unwrap().join();
    }
}

fn cut(open: &mut Vec<TcpStream>) {
    for stream in open.drain(..) {
        // One that has ended by itself is no longer connected.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn relay(listener: &TcpListener, port: u16, open: &Mutex<Option<Vec<TcpStream>>>, ice: &Arc<AtomicU8>) {
    while let Ok((client, _)) = listener.accept() {
        let mut open = open.lock().unwrap();
        let Some(open) = open.as_mut() else { return };
        // A camera that is away refuses; so does the relay then.
        let Ok(camera) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        for (from, to, packets) in [(&client, &camera, None), (&camera, &client, Some(Packets::default()))] {
            let (from, to, ice) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(ice));
            std::thread::spawn(move || copy(from, to, packets, &ice));
        }
        open.extend([client, camera]);
    }
}

/// Where in a packet a stream of RTSP is: `$`, a channel, two bytes of length, and so many bytes.
#[derive(Default)]
struct Packets {
    head: Vec<u8>,
    length: usize,
    left: usize,
}

impl Packets {
    fn pass(&mut self, byte: u8) {
        match (self.left, self.head.len()) {
            (0, 0) if byte != b'$' => {}
            (0, 0..3) => self.head.push(byte),
            (0, _) => {
                self.length = usize::from(self.head[2]) << 8 | usize::from(byte);
                (self.left, self.head) = (self.length, Vec::new());
            }
            _ => self.left -= 1,
        }
    }

    /// How many of these bytes may pass until one of the larger packets is half through; all of them when none is.
    fn until_midway(&mut self, bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|byte| {
            self.pass(*byte);
            self.length > 100 && self.left == self.length / 2
        })
    }
}

/// Copies until one end is gone, then cuts the other; of a stream that freezes, nothing more is passed on.
fn copy(mut from: TcpStream, mut to: TcpStream, mut packets: Option<Packets>, ice: &AtomicU8) {
    let mut bytes = [0; 65536];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let mut passed = len;
        match (&mut packets, ice.load(Ordering::Relaxed)) {
            (Some(packets), FREEZING) => {
                if let Some(midway) = packets.until_midway(&bytes[..len]) {
                    passed = midway + 1;
                    ice.store(FROZEN, Ordering::Relaxed);
                }
            }
            (_, FROZEN) => passed = 0,
            (Some(packets), _) => bytes[..len].iter().for_each(|byte| packets.pass(*byte)),
            (None, _) => {}
        }
        if to.write_all(&bytes[..passed]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
