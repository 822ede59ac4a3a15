//! Writers and readers of camring, of iceoryx2 and of the bare ring, each in a process of its own, for `scripts/bench-peers`.
//!
//! ```text
//! camring-peers writer WAY NAME BYTES FPS FRAMES          "ready", then a line on stdin begins, and a second one ends
//! camring-peers reader WAY NAME BYTES FRAMES WORK_MS      "ready", then reads until frame FRAMES or a quiet second
//! ```
//!
//! Both end with one JSON object: times in microseconds, processor time of the whole process while frames went by.

mod bare;
mod camring;
mod iceoryx;

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use rustix::time::{ClockId, clock_gettime};

/// Slots of our ring; as many samples the others may have on their way.
pub const SLOTS: u32 = 8;
/// Without a frame for so long a reader is at its end.
pub const QUIET: Duration = Duration::from_secs(1);
/// Until the first frame.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Pictures that are copied into the slots in turn, so that caches stay cold.
const SOURCES: usize = 4;

/// A way to publish.
pub trait Writes {
    /// Puts `pixels` into the next frame's place.
    fn fill(&mut self, pixels: &[u8]);
    /// Publishes it as frame `number`, with the time at which publishing began.
    fn publish(&mut self, number: u64, t0_ns: i64);
}

/// A frame in a reader's hands: its number, when its publishing began, when the reader had it.
#[derive(Clone, Copy)]
pub struct Taken {
    pub number: u64,
    pub t0_ns: i64,
    pub held_ns: i64,
}

/// A way to read: the newest frame not yet seen.
pub trait Reads {
    /// `None` after `limit` without one.
    fn take(&mut self, limit: Duration) -> Option<Taken>;
}

fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Noise over gradients: neither flat nor compressible, as a camera's picture.
fn sources(bytes: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut pixel = move |at: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((at / 64) as u8).wrapping_add(state as u8 & 15)
    };
    (0..SOURCES).map(|_| (0..bytes).map(&mut pixel).collect()).collect()
}

fn wait_for_line() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("standard input");
}

fn say_ready() {
    println!("ready");
    std::io::stdout().flush().expect("standard output");
}

fn list(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(",")
}

fn write(mut way: Box<dyn Writes>, bytes: usize, fps: u32, frames: u64) {
    let sources = sources(bytes);
    // The first frame is out before any reader is there: it pays for what is done once.
    way.fill(&sources[0]);
    way.publish(1, mono_ns());
    say_ready();
    wait_for_line();
    let before = cpu_us();
    let mut publish_us = Vec::with_capacity(frames as usize);
    let mut due = Instant::now();
    for number in 2..2 + frames {
        due += Duration::from_secs(1) / fps;
        way.fill(&sources[number as usize % SOURCES]);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let t0_ns = mono_ns();
        way.publish(number, t0_ns);
        publish_us.push((mono_ns() - t0_ns) as f64 / 1e3);
    }
    let cpu = cpu_us() - before;
    println!("{{\"frames\": {frames}, \"cpu_us\": {cpu:.1}, \"publish_us\": [{}]}}", list(&publish_us));
    std::io::stdout().flush().expect("standard output");
    wait_for_line();
}

fn read(mut way: Box<dyn Reads>, frames: u64, work: Duration) {
    // What was published before is not measured.
    let _ = way.take(Duration::from_millis(100));
    let mut before = cpu_us();
    say_ready();
    let (mut us, mut numbers) = (Vec::with_capacity(frames as usize), Vec::with_capacity(frames as usize));
    let mut limit = PATIENCE;
    while let Some(taken) = way.take(limit) {
        if numbers.is_empty() {
            before = cpu_us();
        }
        limit = QUIET;
        us.push((taken.held_ns - taken.t0_ns) as f64 / 1e3);
        numbers.push(taken.number);
        if taken.number > frames {
            break;
        }
        std::thread::sleep(work);
    }
    let cpu = cpu_us() - before;
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    println!("{{\"cpu_us\": {cpu:.1}, \"numbers\": [{}], \"us\": [{}]}}", numbers.join(","), list(&us));
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| fail(&format!("{word:?} is no number")))
}

fn fail(why: &str) -> ! {
    eprintln!("camring-peers: {why}; see the first lines of src/main.rs");
    std::process::exit(2);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["writer", way, name, bytes, fps, frames] => {
            let bytes = number(bytes);
            let way: Box<dyn Writes> = match *way {
                "camring" => Box::new(camring::Publisher::new(name, bytes)),
                "iceoryx2" => Box::new(iceoryx::Publisher::new(name, bytes)),
                "bare" => Box::new(bare::Publisher::new(name, bytes)),
                _ => fail(&format!("no way {way:?}; expected camring, iceoryx2 or bare")),
            };
            write(way, bytes, number(fps), number(frames));
        }
        ["reader", way, name, bytes, frames, work_ms] => {
            let way: Box<dyn Reads> = match *way {
                "camring" => Box::new(camring::Described::new(name)),
                "camring-lease" => Box::new(camring::Leased::new(name)),
                "iceoryx2" => Box::new(iceoryx::Subscriber::new(name)),
                "bare" => Box::new(bare::Described::new(name, number(bytes))),
                _ => fail(&format!("no way {way:?}; expected camring, camring-lease, iceoryx2 or bare")),
            };
            read(way, number(frames), Duration::from_millis(number(work_ms)));
        }
        _ => fail("expected writer or reader, and their words"),
    }
}
