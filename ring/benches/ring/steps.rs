//! The single steps: publish, copy, attach, adopt, a killed holder's slot, a removed name.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camring_ring::{ClaimError, FrameMeta, Geometry, Housekeeping, HugePages, LeasePolicy, PixelFormat, Ring, Writer};

use crate::figures::{Bar, Line, median, percentile};
use crate::{FULL_HD, Folder, attach_options};

const PATIENCE: Duration = Duration::from_secs(10);

fn full_hd() -> Geometry {
    Geometry::packed(1920, 1080, PixelFormat::Bgr).expect("a picture")
}

fn publish(writer: &mut Writer, value: u8) {
    let mut slot = writer.claim(FULL_HD).expect("a slot");
    slot.as_mut().fill(value);
    writer.publish(slot, FrameMeta::new(full_hd())).expect("published");
}

fn at_most(what: &str, samples: &[f64], percent: f64, unit: &'static str, limit: f64) -> Line {
    Line { what: what.into(), ours: percentile(samples, percent), unit, beside: None, bar: Bar::AtMost(limit) }
}

/// A process of this program that holds a lease of the newest frame until it is killed, and waits besides.
struct Holder(Child);

impl Holder {
    fn spawn(folder: &Folder, name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["holder"])
            .arg(folder.path())
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "leased\n");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The holder's process: ends when it is killed or its parent goes.
pub fn hold(dir: &Path, name: &str) {
    let ring = Ring::attach(name, attach_options(dir)).expect("a ring");
    let lease = ring.lease().expect("a frame");
    std::thread::spawn({
        let waiter = Ring::attach(name, attach_options(dir)).expect("a ring");
        move || loop {
            waiter.wait(waiter.last_seq(), Some(PATIENCE));
            let _ = waiter.lease();
        }
    });
    println!("leased");
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(lease);
}

/// All of them.
pub fn all(folder: &Folder) -> Vec<Line> {
    let steps = [publish_overhead, copies, attaching, adopting, slot_of_a_killed_holder, a_removed_name];
    steps.into_iter().flat_map(|step| step(folder)).collect()
}

/// Claim and publish without the pixels, one reader waiting: 500 times at 200 a second.
fn publish_overhead(folder: &Folder) -> Vec<Line> {
    let (mut writer, _) = Writer::start(folder.options("overhead", 8, FULL_HD, HugePages::Try)).expect("a ring");
    publish(&mut writer, 1);
    let _reader = Holder::spawn(folder, "overhead");
    let mut samples = Vec::new();
    for _ in 0..500 {
        std::thread::sleep(Duration::from_millis(5));
        let began = Instant::now();
        let slot = writer.claim(FULL_HD).expect("a slot");
        writer.publish(slot, FrameMeta::new(full_hd())).expect("published");
        samples.push(began.elapsed().as_secs_f64() * 1e6);
    }
    vec![
        at_most("claim and publish without the pixels, one waiter, median", &samples, 50.0, "us", 20.0),
        Line {
            what: "claim and publish without the pixels, one waiter, 99 %".into(),
            ours: percentile(&samples, 99.0),
            unit: "us",
            beside: None,
            bar: Bar::None,
        },
    ]
}

/// A 1080p frame into a reused buffer beside memcpy of as many bytes from rotating places, on both sizes of pages.
fn copies(folder: &Folder) -> Vec<Line> {
    let kinds = [("4 KiB pages", HugePages::Never, 1.15), ("huge pages", HugePages::Try, 1.3)];
    let measure = |(words, pages, limit)| {
        let name = if pages == HugePages::Never { "copy4k" } else { "copyhuge" };
        let (mut writer, _) = Writer::start(folder.options(name, 8, FULL_HD, pages)).expect("a ring");
        let ring = Ring::attach(name, folder.attach_options()).expect("a ring");
        let mut buffer = vec![0u8; FULL_HD as usize];
        let mut samples: [Vec<f64>; 2] = Default::default();
        for number in 0..400u32 {
            publish(&mut writer, number as u8);
            let lease = ring.lease().expect("a frame");
            let ours = |buffer: &mut [u8]| {
                black_box(ring.latest_into(buffer).expect("a frame"));
            };
            let plain = |buffer: &mut [u8]| memcpy(&lease, buffer);
            // In turn, so that the one that comes second is not always the one with warm caches: each has its own frame.
            let began = Instant::now();
            if number % 2 == 0 {
                ours(&mut buffer)
            } else {
                plain(&mut buffer)
            }
            black_box(&buffer);
            samples[(number % 2) as usize].push(began.elapsed().as_secs_f64() * 1e6);
        }
        let [ours, plain] = samples.map(|samples| median(&samples));
        Line {
            what: format!("copy of 1080p into a reused buffer, {words}, median"),
            ours,
            unit: "us",
            beside: Some((plain, "memcpy")),
            bar: Bar::Times(limit),
        }
    };
    kinds.into_iter().map(measure).collect()
}

fn memcpy(lease: &camring_ring::Lease, buffer: &mut [u8]) {
    // SAFETY: nobody publishes during the call: the only writer is this thread.
    let frame = unsafe { lease.bytes() };
    buffer.copy_from_slice(frame);
}

/// Attach to a ring of eight 1080p slots, and the first view of a frame.
fn attaching(folder: &Folder) -> Vec<Line> {
    let (mut writer, _) = Writer::start(folder.options("attach", 8, FULL_HD, HugePages::Try)).expect("a ring");
    publish(&mut writer, 1);
    let attach = || {
        let began = Instant::now();
        let ring = Ring::attach("attach", folder.attach_options()).expect("a ring");
        black_box(ring.lease().expect("a frame").as_ptr());
        began.elapsed().as_secs_f64() * 1e3
    };
    let samples: Vec<f64> = (0..100).map(|_| attach()).collect();
    vec![at_most("attach and first view, median", &samples, 50.0, "ms", 1.0)]
}

/// A ring of eight 1080p slots taken over by the next writer.
fn adopting(folder: &Folder) -> Vec<Line> {
    let options = || folder.options("adopt", 8, FULL_HD, HugePages::Try);
    let (mut writer, _) = Writer::start(options()).expect("a ring");
    publish(&mut writer, 1);
    let mut samples = Vec::new();
    for _ in 0..20 {
        drop(writer);
        let began = Instant::now();
        let (next, started) = Writer::start(options()).expect("a ring");
        samples.push(began.elapsed().as_secs_f64() * 1e3);
        assert!(started.adopted, "{started:?}");
        writer = next;
        publish(&mut writer, 2);
    }
    vec![at_most("adopt a ring of 8 x 6.2 MB, median", &samples, 50.0, "ms", 20.0)]
}

/// How long after `kill -9` of its holder a leased slot can be claimed: under `protect`, every other slot being taken.
fn slot_of_a_killed_holder(folder: &Folder) -> Vec<Line> {
    let mut options = folder.options("killed", 3, 64 * 64 * 3, HugePages::Never);
    options.lease_policy = LeasePolicy::Protect;
    let (mut writer, _) = Writer::start(options).expect("a ring");
    let geometry = Geometry::packed(64, 64, PixelFormat::Bgr).expect("a picture");
    let mut samples = Vec::new();
    let mut spare = Some(writer.claim(geometry.len).expect("a slot"));
    for _ in 0..30 {
        writer.publish(spare.take().expect("claimed"), FrameMeta::new(geometry)).expect("published");
        let mut holder = Holder::spawn(folder, "killed");
        let next = writer.claim(geometry.len).expect("a slot");
        writer.publish(next, FrameMeta::new(geometry)).expect("published");
        // The newest frame, this one, and the leased one: there is no fourth.
        let writing = writer.claim(geometry.len).expect("a slot");
        assert!(matches!(writer.claim(geometry.len), Err(ClaimError::Leased)), "the lease was meant to hold");
        let began = Instant::now();
        holder.0.kill().expect("killed");
        let free = loop {
            assert!(began.elapsed() < PATIENCE, "the slot never came back");
            if let Ok(slot) = writer.claim(geometry.len) {
                break slot;
            }
        };
        samples.push(began.elapsed().as_secs_f64() * 1e3);
        drop(writing);
        spare = Some(free);
    }
    vec![
        at_most("slot of a killed lease holder can be claimed, median", &samples, 50.0, "ms", 50.0),
        at_most("slot of a killed lease holder can be claimed, worst of 30", &samples, 100.0, "ms", 50.0),
    ]
}

/// How long a removed public name is away.
fn a_removed_name(folder: &Folder) -> Vec<Line> {
    let (mut writer, _) = Writer::start(folder.options("name", 3, FULL_HD, HugePages::Never)).expect("a ring");
    publish(&mut writer, 1);
    let _housekeeping = Housekeeping::spawn(writer.status(), |_| {}).expect("a thread");
    let public: PathBuf = folder.path().join("camring.name");
    let inode = || std::fs::metadata(&public).map(|found| found.ino()).ok();
    let expected = inode().expect("the public name");
    let mut samples = Vec::new();
    for _ in 0..30 {
        // Removals that follow each other closely are answered more slowly on purpose.
        std::thread::sleep(Duration::from_millis(1500));
        std::fs::remove_file(&public).expect("removed");
        let began = Instant::now();
        while inode() != Some(expected) {
            assert!(began.elapsed() < PATIENCE, "the name never came back");
            std::thread::yield_now();
        }
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    vec![
        at_most("removed public name back on the same inode, median", &samples, 50.0, "ms", 10.0),
        at_most("removed public name back on the same inode, worst of 30", &samples, 100.0, "ms", 10.0),
    ]
}
