//! The bars of the ring: each promise about speed, measured beside its limit in the same run.
//!
//! `scripts/bench ring` builds and runs it: a table on standard output and `target/bench/ring.json`. Rounds of ours and of what stands beside
//! it take turns, so that a machine whose speed drifts does not decide. Readers are processes of their own: this same
//! program with the words `reader` or `holder`.

mod bare;
mod figures;
mod handover;
mod steps;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use camring_ring::{AttachOptions, Capacity, HugePages, RingName, ShmDir, WriterOptions};
use figures::Line;

/// Bytes of a 1920x1080 bgr picture.
const FULL_HD: u64 = 1920 * 1080 * 3;

/// A folder of its own on the memory mount; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = PathBuf::from(format!("/dev/shm/camring-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder on the memory mount");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// A ring of `slots` slots of `bytes`.
    fn options(&self, ring: &str, slots: u32, bytes: u64, huge_pages: HugePages) -> WriterOptions {
        let mut options = WriterOptions::new(RingName::new(ring).expect("a ring's name"));
        options.shm = ShmDir::new(&self.0);
        options.slots = slots;
        options.capacity = Capacity::Bytes(bytes);
        options.huge_pages = huge_pages;
        options
    }

    fn attach_options(&self) -> AttachOptions {
        attach_options(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn attach_options(dir: &Path) -> AttachOptions {
    AttachOptions { shm: ShmDir::new(dir), ..AttachOptions::default() }
}

/// Measures some lines of the table in rings of a folder.
type Measure = fn(&Folder) -> Vec<Line>;

/// What can be measured by itself.
const GROUPS: [(&str, Measure); 4] = [
    ("steps", steps::all),
    ("described", handover::described),
    ("leased", handover::leased),
    ("size", handover::by_size),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["reader", kind, view, dir, name, count, slot] => {
            handover::read(kind, view, Path::new(dir), name, count, slot);
        }
        ["holder", dir, name] => steps::hold(Path::new(dir), name),
        groups => {
            if let Some(unknown) = groups.iter().find(|group| GROUPS.iter().all(|(known, _)| known != *group)) {
                eprintln!(
                    "{unknown:?} is no group of measurements; there are {}",
                    GROUPS.map(|(name, _)| name).join(", ")
                );
                return ExitCode::FAILURE;
            }
            let folder = Folder::new();
            let wanted = GROUPS.iter().filter(|(name, _)| groups.is_empty() || groups.contains(name));
            let lines: Vec<Line> = wanted.flat_map(|(_, measure)| measure(&folder)).collect();
            let missed = figures::print(&lines);
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join("ring.json");
            if let Err(error) = figures::save(&file, &lines) {
                eprintln!("cannot write {}: {error}", file.display());
                return ExitCode::FAILURE;
            }
            println!("{missed} bars missed; also in {}", file.display());
        }
    }
    ExitCode::SUCCESS
}
