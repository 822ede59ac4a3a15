//! The bare ring, which hands over and does nothing else: how fast the machine allows it, beside the peers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;

use crate::{Reads, SLOTS, Taken, Writes};

// The same file that the ring's own benches measure against; not all of it is wanted here.
#[allow(dead_code)]
#[path = "../../../../ring/benches/ring/bare.rs"]
mod bare;

fn place(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CAMRING_SHM_DIR").unwrap_or_else(|| "/dev/shm".into())).join(name)
}

/// The writer; frame `n` is its sequence `n`.
pub struct Publisher(bare::BareRing);

impl Publisher {
    pub fn new(name: &str, bytes: usize) -> Self {
        Self(bare::BareRing::create(&place(name), SLOTS as usize, bytes))
    }
}

impl Writes for Publisher {
    fn fill(&mut self, pixels: &[u8]) {
        self.0.copy(pixels);
    }

    fn publish(&mut self, _number: u64, t0_ns: i64) {
        self.0.publish(t0_ns);
    }
}

/// A reader that knows where the frame lies.
pub struct Described {
    ring: bare::BareRing,
    last: u64,
}

impl Described {
    pub fn new(name: &str, bytes: usize) -> Self {
        Self { ring: bare::BareRing::open(&place(name), SLOTS as usize, bytes), last: 0 }
    }
}

impl Reads for Described {
    fn take(&mut self, limit: Duration) -> Option<Taken> {
        let begin = Instant::now();
        loop {
            if let Some((number, t0_ns)) = self.ring.next_within_a_second(self.last) {
                self.last = number;
                return Some(Taken { number, t0_ns, held_ns: mono_ns() });
            }
            if begin.elapsed() >= limit {
                return None;
            }
        }
    }
}
