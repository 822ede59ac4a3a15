//! The limit on memory of a unit or container: a ring that exceeds it is refused with both numbers, not killed over and over.
#![cfg(feature = "sim")]

mod system;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use camring_ring::{Reason, State};
use system::{Daemon, Shm, ended, until};

/// The limit of the tests: a ring of 1920x1080 with 8 slots takes 49.5 MiB.
const LIMIT: u64 = 24 << 20;

/// A control group of its own with a limit on memory; removed at the end.
struct Group {
    folder: PathBuf,
}

impl Group {
    /// `None`, said on standard output, where this user or this machine cannot have one.
    fn new(name: &str, limit: u64) -> Option<Self> {
        let unified = PathBuf::from("/sys/fs/cgroup");
        let older = unified.join("memory");
        let (mount, file) = if older.join("memory.limit_in_bytes").exists() {
            (older, "memory.limit_in_bytes")
        } else {
            // Best effort: where the controller is not handed down, the limit below cannot be written.
            let _ = fs::write(unified.join("cgroup.subtree_control"), "+memory");
            (unified, "memory.max")
        };
        let group = Self { folder: mount.join(format!("camring-test-{name}-{}", std::process::id())) };
        let made = fs::create_dir(&group.folder).and_then(|()| fs::write(group.folder.join(file), limit.to_string()));
        match made {
            Ok(()) => Some(group),
            Err(error) => {
                println!("skipped: no control group of one's own with a limit on memory here ({error})");
                None
            }
        }
    }

    /// A command inside.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.folder);
        command.arg(env!("CARGO_BIN_EXE_camring")).args(arguments);
        command
    }

    fn kills(&self) -> u64 {
        let text = ["memory.oom_control", "memory.events"].map(|file| fs::read_to_string(self.folder.join(file)));
        let text = text.into_iter().flatten().next().expect("a count of kills");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a count of kills");
        line.trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes of a test that failed may be ending still.
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < deadline {
            system::pause();
        }
    }
}

#[test]
fn a_ring_above_the_limit_of_its_group_is_refused_with_both_numbers() {
    let Some(group) = Group::new("known", LIMIT) else { return };
    let (shm, folder) = (Shm::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("camring.toml");
    let run = |text: &str| {
        fs::write(&file, text).unwrap();
        let arguments = ["run", "cam", "--config", file.to_str().unwrap(), "--shm-dir", shm.path().to_str().unwrap()];
        group.command(&arguments)
    };
    let said = ended(run("[camera.cam]\ntest = { size = \"1920x1080\", fps = 5 }\n"));
    assert_eq!(said.code, Some(78), "{}", said.stderr);
    let both = "the ring needs 49.5 MiB, and this process may have 24.0 MiB of memory (";
    assert!(said.stderr.contains(both) && said.stderr.contains("MemoryMax="), "{}", said.stderr);
    assert_eq!(shm.files(), [""; 0], "nothing was made");
    let said = ended(run("[camera.cam]\nurl = \"rtsp://127.0.0.1:9/x\"\nmax_size = \"1920x1080\"\n"));
    assert_eq!(said.code, Some(78), "{}", said.stderr);
    let outputs = "[camera.cam.output.a]\nsize = \"1280x720\"\n[camera.cam.output.b]\nsize = \"1280x720\"\n";
    let said = ended(run(&format!("[camera.cam]\nslots = 4\ntest = {{ size = \"640x360\", fps = 5 }}\n{outputs}")));
    assert!(said.stderr.contains("its rings together need"), "{}", said.stderr);
    assert_eq!(group.kills(), 0, "nobody was killed for memory");
}

#[test]
fn a_camera_that_sends_too_much_for_the_limit_is_told_and_not_killed() {
    let Some(group) = Group::new("sent", 64 << 20) else { return };
    let (shm, folder) = (Shm::new(), tempfile::tempdir().unwrap());
    // What a camera sends is known with its first picture: here 96 slots of 640x360.
    let sim = system::Sim::spawn(&["--size", "640x360", "--fps", "5", "--gop", "200ms"]);
    let file = folder.path().join("camring.toml");
    fs::write(&file, format!("[camera.cam]\nurl = \"{}\"\nslots = 96\n", sim.url)).unwrap();
    let arguments = ["run", "cam", "--config", file.to_str().unwrap(), "--shm-dir", shm.path().to_str().unwrap()];
    let command = group.command(&arguments);
    let daemon = Daemon::spawn_command(command, None);
    let ring = shm.attach("cam");
    until("no room is said", || {
        let status = ring.status();
        status.state == State::Error && status.reason == Reason::NoRoom
    });
    let both = "the ring needs 68.0 MiB, and this process may have 64.0 MiB";
    until("both numbers are in the log", || daemon.log().contains(both));
    assert_eq!(group.kills(), 0, "nobody was killed for memory");
}
