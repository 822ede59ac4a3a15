//! Memory mounts that are small, full, or seen through a bind mount; each in a mount namespace of its own.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use camring_ring::{AttachOptions, Counter, ReadError, Ring, ShmDir};
use common::actors::{Actor, PATIENCE, example, until_within};
use common::{Shm, amount, assert_untorn, measured};

/// Whether a mount namespace of one's own is to be had; a test that needs one passes without it, and says so.
fn can_mount() -> bool {
    let said = Command::new("unshare").args(["-m", "true"]).output();
    let can = rustix::process::geteuid().is_root() && said.as_ref().is_ok_and(|said| said.status.success());
    if !can {
        println!("skipped: no mount of one's own here: {said:?}");
    }
    can
}

/// A mount namespace with one folder of its own; gone with its keeper.
struct Place {
    keeper: Actor,
    path: PathBuf,
}

impl Place {
    /// `mounts` are commands, with `$1` for the folder, which is not on the memory mount.
    fn new(mounts: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("camring-mount-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let mut keeper = Command::new("unshare");
        keeper.args(["-m", "sh", "-c", &format!("set -e; {mounts}; echo mounted; exec cat"), "sh"]).arg(&path);
        let keeper = Actor::start(keeper);
        assert_eq!(keeper.answer(), "mounted");
        Self { keeper, path }
    }

    /// A tmpfs of this size.
    fn tmpfs(size: &str) -> Self {
        Self::new(&format!("mount -t tmpfs -o size={size},mode=0755 none $1"))
    }

    /// The folder as it is seen from outside.
    fn seen_from_outside(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.keeper.pid(), self.path.display()))
    }

    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.keeper.pid().to_string(), "-m"]).arg(program.as_ref());
        command
    }

    fn writer(&self, options: &[&str]) -> Actor {
        let mut command = self.inside(example("stress_writer"));
        command.args(["cam", "--shm-dir"]).arg(&self.path).args(options);
        let writer = Actor::start(command);
        assert_eq!(writer.answer(), "ready");
        writer
    }

    fn reader(&self, mode: &str) -> Actor {
        let mut command = self.inside(example("stress_reader"));
        command.args([mode, "cam", "--shm-dir"]).arg(&self.path);
        Actor::start(command)
    }

    /// A handle of this process, by the name of the ring or of its segment.
    fn attach(&self, name: &str) -> Ring {
        let shm = ShmDir::new(self.seen_from_outside());
        Ring::attach(name, AttachOptions { shm, timeout: Some(PATIENCE), ..AttachOptions::default() }).unwrap()
    }

    fn resize(&self, size: &str) {
        let said = self.inside("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.path).output().unwrap();
        assert!(said.status.success(), "{said:?}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn read_on(ring: &Ring, frames: u64) {
    let mut pixels = Vec::new();
    let first = ring.next(&mut pixels, Some(PATIENCE)).unwrap().meta.seq.0;
    let mut last = first;
    while last < first + frames {
        last = ring.next(&mut pixels, Some(PATIENCE)).unwrap().meta.seq.0;
        assert_untorn(last, &pixels);
    }
}

#[test]
fn the_64_mib_of_a_container_hold_a_ring_of_1080p_and_a_larger_picture_waits_for_room() {
    if !can_mount() {
        return;
    }
    let place = Place::tmpfs("64m");
    let mut writer = place.writer(&["--size", "1920x1080", "--fps", "50"]);
    let ring = place.attach("cam");
    read_on(&ring, 20);
    let (generation, mut pixels) = (ring.status().generation, Vec::new());
    writer.order("size 3840x2160");
    until_within(PATIENCE, "the larger picture finds no room", || ring.status().counter(Counter::DroppedOverload) > 0);
    let last = ring.latest(&mut pixels).unwrap();
    assert_untorn(last.meta.seq.0, &pixels);
    assert_eq!((last.generation, last.meta.geometry.width), (generation, 1920));
    writer.order("size 1280x720");
    read_on(&ring, 20);
    assert_eq!(ring.status().generation, generation, "what fits goes into the ring that is there");
    place.resize("600m");
    writer.order("size 3840x2160");
    until_within(PATIENCE, "the larger picture has its ring", || {
        ring.latest(&mut pixels).is_ok_and(|frame| frame.meta.geometry.width == 3840)
    });
    read_on(&ring, 5);
    writer.stop();
}

#[test]
fn a_mount_that_somebody_else_has_filled_costs_no_frame_no_lease_and_no_restart() {
    if !can_mount() {
        return;
    }
    // Many slots and few frames: the mount is full long before each slot was written once.
    let (place, options) = (Place::tmpfs("24m"), ["--size", "320x240", "--fps", "20", "--slots", "32"]);
    let mut writer = place.writer(&options);
    let ring = place.attach("cam");
    read_on(&ring, 1);
    let generation = ring.status().generation;
    let mut filler = std::fs::File::create(place.seen_from_outside().join("filler")).unwrap();
    let full = loop {
        if let Err(error) = filler.write_all(&[0xA5; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    // A page that did not exist would end whoever touches it with SIGBUS: readers touch every byte, writers come and go.
    let mut readers = ["copy", "lease"].map(|mode| place.reader(mode));
    read_on(&ring, 33);
    let restarts = amount(4, 200);
    for _ in 0..restarts {
        read_on(&ring, 5);
        writer.kill();
        writer = place.writer(&options);
        assert_eq!(ring.status().generation, generation, "adopted on a full mount");
    }
    read_on(&ring, 5);
    readers.iter_mut().for_each(|reader| drop(reader.stop()));
    writer.stop();
    measured(format!("a full mount: {restarts} restarts adopted, {} frames, no SIGBUS", ring.status().seq));
}

#[test]
fn readers_behind_a_read_only_bind_mount_of_the_folder_follow_and_can_write_nothing() {
    if !can_mount() {
        return;
    }
    let shm = Shm::new();
    let mut writer = Actor::ready_writer(&shm, "cam", &["--fps", "100", "--slots", "4"]);
    let place = Place::new(&format!("mount --bind {} $1; mount -o remount,ro,bind $1", shm.path().display()));
    for attempt in [": >>$0/camring.cam", ": >$0/new", "rm $0/camring.cam", "mv $0/camring.cam $0/other"] {
        let said = place.inside("sh").args(["-c", attempt]).arg(&place.path).output().unwrap();
        let words = String::from_utf8_lossy(&said.stderr).to_lowercase();
        assert!(!said.status.success() && words.contains("read-only"), "{attempt}: {said:?}");
    }
    let mut readers = ["copy", "lease"].map(|mode| place.reader(mode));
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    for size in ["320x240", "1280x720", "64x48"] {
        let seq = ring.status().seq.0;
        writer.order(&format!("size {size}"));
        for reader in &mut readers {
            until_within(PATIENCE, "the reader follows", || {
                assert!(reader.ended().is_none(), "a reader has ended: {:?}", reader.stop());
                reader.count("last") > seq + 20
            });
        }
    }
    assert!(ring.status().counter(Counter::Generations) >= 3);
    readers.iter_mut().for_each(|reader| drop(reader.stop()));
    writer.stop();
}

#[test]
fn a_bind_mount_of_the_single_file_keeps_its_frames_and_says_to_mount_the_folder() {
    if !can_mount() {
        return;
    }
    let shm = Shm::new();
    let mut writer = Actor::ready_writer(&shm, "cam", &["--fps", "100"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    until_within(PATIENCE, "a frame", || ring.peek().is_ok());
    let file = shm.path().join("camring.cam");
    let place = Place::new(&format!("touch $1/camring.cam; mount --bind {} $1/camring.cam", file.display()));
    let inside = place.attach("camring.cam");
    let mut pixels = Vec::new();
    read_on(&inside, 10);
    writer.order("size 640x360");
    until_within(PATIENCE, "the ring has another file", || ring.status().counter(Counter::Generations) > 1);
    let mut last = inside.latest(&mut pixels).unwrap().meta;
    assert_untorn(last.seq.0, &pixels);
    // What was published before the change may still be read; what comes after it cannot, and in the end it is said why.
    let mut said = String::new();
    until_within(PATIENCE, "the handle says what is wrong with the mount", || {
        match inside.next(&mut pixels, Some(Duration::from_millis(200))) {
            Ok(frame) => last = frame.meta,
            Err(ReadError::Timeout { .. }) => {}
            Err(error) => {
                assert!(matches!(error, ReadError::Superseded { .. }), "{error}");
                said = error.to_string();
            }
        }
        !said.is_empty()
    });
    assert!(said.contains("folder"), "{said}");
    assert_eq!(inside.latest(&mut pixels).unwrap().meta, last, "the old frames stay readable");
    assert!(ring.status().seq > last.seq);
    writer.stop();
}
