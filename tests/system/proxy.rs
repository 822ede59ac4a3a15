//! A connection that can be cut: a relay of bytes in front of a camera.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Relays connections to a port of this host; ends with the test.
pub struct Proxy {
    pub port: u16,
    /// Both ends of every connection; `None` when the relay is over.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A relay to `port`.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let (own_port, theirs) = (listener.local_addr().unwrap().port(), Arc::clone(&open));
        let thread = std::thread::spawn(move || relay(&listener, port, &theirs));
        Self { port: own_port, open, thread: Some(thread) }
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

fn relay(listener: &TcpListener, port: u16, open: &Mutex<Option<Vec<TcpStream>>>) {
    while let Ok((client, _)) = listener.accept() {
        let mut open = open.lock().unwrap();
        let Some(open) = open.as_mut() else { return };
        // A camera that is away refuses; so does the relay then.
        let Ok(camera) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        for (from, to) in [(&client, &camera), (&camera, &client)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            std::thread::spawn(move || copy(from, to));
        }
        open.extend([client, camera]);
    }
}

/// Copies until one end is gone, then cuts the other.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 65536];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
