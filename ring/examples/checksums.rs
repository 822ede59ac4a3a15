//! A worker that prints what it reads: the number and the CRC-32 of every frame it gets.
//!
//! ```text
//! checksums RING SECONDS [--shm-dir DIR]
//! ```
//!
//! The CRC-32 is the one of zlib, so that readers in other languages can be compared with this one.

use std::io::Write;
use std::time::{Duration, Instant};

use camring_ring::{AttachOptions, ReadError, Ring, ShmDir};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (name, seconds, shm) = match words.as_slice() {
        [name, seconds] => (name, seconds, ShmDir::default()),
        [name, seconds, option, dir] if option == "--shm-dir" => (name, seconds, ShmDir::new(dir)),
        _ => return Err("usage: checksums RING SECONDS [--shm-dir DIR]".into()),
    };
    let ring = Ring::attach(name, AttachOptions { shm, ..AttachOptions::default() })?;
    let until = Instant::now() + Duration::try_from_secs_f64(seconds.parse()?)?;
    let mut out = std::io::stdout().lock();
    let mut pixels = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match ring.next(&mut pixels, Some(left)) {
            Ok(frame) => writeln!(out, "{} {:08x}", frame.meta.seq, crc32fast::hash(&pixels))?,
            Err(ReadError::Timeout { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if left == Duration::ZERO {
            return Ok(());
        }
    }
}
