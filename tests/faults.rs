//! Faults that an operator meets: wrong files, a full mount, names in the way, cameras that are none, no permission.
#![cfg(feature = "sim")]

mod system;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use camring_ring::{AttachOptions, Reason, Ring, ShmDir, State, Status};
use rustix::process::Signal;
use system::{Daemon, Ended, PATIENCE, Shm, Sim, camring, ended, free_port, stamp_of, until};

/// `camring run` with these arguments, which is expected to end by itself.
fn run(arguments: &[&str], shm: &Path) -> Ended {
    let mut command = camring();
    command.arg("run").args(arguments).arg("--shm-dir").arg(shm).env_remove("CREDENTIALS_DIRECTORY");
    ended(command)
}

/// A configuration file in a folder of its own.
struct Config {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Config {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("camring.toml");
        std::fs::write(&path, text).unwrap();
        Self { _folder: folder, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// Privileged parts are skipped, and say so, where the tests do not run as root.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {what} needs root");
    }
    root
}

/// A mount of one's own needs root and a root folder that is a mount point, which that of a plain chroot is not.
fn can_mount() -> bool {
    if !is_root("a mount of one's own") {
        return false;
    }
    let said = Command::new("unshare").args(["-m", "true"]).output().unwrap();
    if !said.status.success() {
        println!("skipped: no mount of one's own here: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    said.status.success()
}

// --- wrong files ---

#[test]
fn a_wrong_file_ends_run_with_78_and_is_shown_at_its_place() {
    // Text, then what stderr must contain.
    let table: [(&str, &[&str]); 5] = [
        (
            "[camera.front]\nurl = \"rtsp://127.0.0.1/x\"\ntranport = \"udp\"\n",
            &["unknown key `tranport`", ":3:1\n", "| ^^^^^^^^ not a key", "did you mean `transport`?"],
        ),
        (
            "[camera.front]\ntest = {}\nslots = \"8\"\n",
            &[
                "slots has the wrong type",
                ":3:9\n",
                "^^^ this is a string, expected an integer",
                "help: write an integer",
            ],
        ),
        (
            "[camera.front]\ntest = {}\nsegment = \"camring.b\"\n\n[camera.b]\ntest = {}\n",
            &[
                "the segment name camring.b is taken twice",
                ":5:9\n",
                "----------- camera front",
                "^ camera b",
                "help: ",
            ],
        ),
        (
            "[camera.front]\nurl = \"rtsp://127.0.0.1/x\"\nuser = \"viewer\"\npassword = \"${camring_no_such_secret}\"\n",
            &[
                "the secret `camring_no_such_secret` is nowhere to be found",
                ":4:12\n",
                "^^^^^ camera front needs it here",
                "help: looked for $CREDENTIALS_DIRECTORY/camring_no_such_secret (not set)",
            ],
        ),
        (
            "[camera.front]\nurl = \"rtsp://127.0.0.1/x\"\nslots = 2\nstall_after = \"5 parsecs\"\n",
            &["slots = 2 is out of range", ":3:9\n", "is not a duration", ":4:15\n"],
        ),
    ];
    let shm = Shm::new();
    for (text, expected) in table {
        let config = Config::new(text);
        let said = run(&["front", "--config", config.path()], shm.path());
        assert_eq!((said.code, said.stdout.as_str()), (Some(78), ""), "{}", said.stderr);
        for part in expected {
            assert!(said.stderr.contains(part), "no {part:?} in\n{}", said.stderr);
        }
        assert!(said.stderr.contains(config.path()), "the file is not named:\n{}", said.stderr);
        assert_eq!(shm.files(), [""; 0], "a refused configuration must leave nothing");
    }
}

#[test]
fn a_camera_that_is_not_in_the_file_is_refused_with_those_that_are() {
    let config = Config::new("[camera.front]\ntest = {}\n");
    let said = run(&["frnot", "--config", config.path()], Shm::new().path());
    assert_eq!(said.code, Some(78), "{said:#?}");
    assert!(said.stderr.contains("frnot") && said.stderr.contains("front"), "{}", said.stderr);
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let shm = Shm::new();
    let table: [&[&str]; 5] = [
        &[],
        &["cam", "--no-such-option"],
        &["cam", "--url"],
        &["cam", "--url", "rtsp://127.0.0.1/x", "--password-stdin"],
        &["cam", "--url", "rtsp://127.0.0.1/x", "--config", "x.toml"],
    ];
    for arguments in table {
        let said = run(arguments, shm.path());
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:#?}");
        assert!(said.stderr.starts_with("error: "), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains("try '--help'"), "{arguments:?}: {}", said.stderr);
    }
}

#[test]
fn without_a_file_run_says_what_it_looked_for() {
    if Path::new(camring::config::CONFIG_FOLDER).exists() {
        println!("skipped: this host has {}", camring::config::CONFIG_FOLDER);
        return;
    }
    let said = run(&["cam"], Shm::new().path());
    assert_eq!(said.code, Some(78), "{said:#?}");
    let looked = "looked for /etc/camring/camring.toml and /etc/camring/conf.d/*.toml";
    assert!(said.stderr.contains(looked) && said.stderr.contains("help: create"), "{}", said.stderr);
}

// --- a memory mount that is too small ---

/// A memory mount of its own in a mount namespace of its own; gone with the last process in it.
struct Mount {
    folder: tempfile::TempDir,
}

impl Mount {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// `camring run` with these arguments, on a mount of this size, after `first` has run there.
    fn command(&self, size: &str, first: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let script = format!(
            "mount -t tmpfs -o size={size},mode=0755 none '{0}' && cd '{0}' && {first} && \
             exec \"$0\" run \"$@\" --shm-dir '{0}'",
            self.path()
        );
        command.args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_camring")]).args(arguments);
        command
    }

    /// The mount as it is seen from outside of its namespace.
    fn seen_from_here(&self, daemon: &Daemon) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", daemon.process.pid(), self.path()))
    }

    /// A reader of a daemon in the namespace.
    fn attach(&self, daemon: &Daemon) -> Ring {
        let shm = ShmDir::new(self.seen_from_here(daemon));
        Ring::attach("cam", AttachOptions { shm, timeout: Some(PATIENCE), ..AttachOptions::default() }).unwrap()
    }

    fn resize(&self, daemon: &Daemon, size: &str) {
        let pid = daemon.process.pid().to_string();
        let option = format!("remount,size={size}");
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-m", "mount", "-o", &option, self.path()]);
        let said = ended(command);
        assert_eq!(said.code, Some(0), "{said:#?}");
    }
}

/// The two numbers that an operator needs are in the message.
fn assert_names_needed_and_free(text: &str, mount: &str) {
    let line = text.lines().find(|line| line.contains("needs ")).unwrap_or_else(|| panic!("no \"needs\" in\n{text}"));
    let needed = line.split("needs ").nth(1).unwrap();
    assert!(needed.contains(" MiB but ") && needed.contains(" MiB free"), "{line}");
    assert!(needed.contains(mount), "{line}");
}

#[test]
fn a_ring_of_known_size_that_cannot_fit_the_mount_is_a_configuration_error() {
    if !can_mount() {
        return;
    }
    let mount = Mount::new();
    let config = Config::new("[camera.cam]\nurl = \"rtsp://127.0.0.1:9/x\"\nmax_size = \"1920x1080\"\n");
    let said = ended(mount.command("8m", "true", &["cam", "--config", config.path()]));
    assert_eq!(said.code, Some(78), "{said:#?}");
    assert!(said.stderr.contains("a ring of 8 slots of 1920x1080 needs 49.5 MiB"), "{}", said.stderr);
    assert!(said.stderr.contains(&format!("{} has 8.0 MiB", mount.path())), "{}", said.stderr);
    assert!(said.stderr.contains(":3:12\n"), "{}", said.stderr);
}

#[test]
fn a_ring_of_known_size_on_a_full_mount_ends_with_73() {
    if !can_mount() {
        return;
    }
    let mount = Mount::new();
    let config = Config::new("[camera.cam]\nurl = \"rtsp://127.0.0.1:9/x\"\nmax_size = \"1920x1080\"\n");
    let said = ended(mount.command("64m", "fallocate -l 40M other", &["cam", "--config", config.path()]));
    assert_eq!(said.code, Some(73), "{said:#?}");
    assert_names_needed_and_free(&said.stderr, mount.path());
    assert!(said.stderr.contains("has 24.0 MiB free") || said.stderr.contains("has 23.9 MiB free"), "{}", said.stderr);
}

#[test]
fn a_ring_that_finds_no_room_waits_and_is_live_once_the_mount_is_larger() {
    if !can_mount() {
        return;
    }
    let (mount, sim) = (Mount::new(), Sim::spawn(&["--size", "1280x720", "--fps", "10"]));
    let mut daemon = Daemon::spawn_command(mount.command("8m", "true", &["cam", "--url", &sim.url]), None);
    let ring = mount.attach(&daemon);
    let waiting_room = ring.status().generation;
    until("readers see error, no_room", || {
        let status = ring.status();
        (status.state, status.reason) == (State::Error, Reason::NoRoom)
    });
    assert_names_needed_and_free(&daemon.log(), mount.path());
    assert!(ring.latest(&mut Vec::new()).is_err(), "there is no frame");
    assert_eq!(ring.status().generation, waiting_room);
    assert!(daemon.process.0.try_wait().unwrap().is_none(), "the daemon has ended:\n{}", daemon.log());
    mount.resize(&daemon, "200m");
    let mut pixels = Vec::new();
    let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    stamp_of(&frame, &pixels);
    assert_eq!((frame.meta.geometry.width, frame.meta.geometry.height), (1280, 720));
    until("the state is live", || ring.status().state == State::Live);
    assert_ne!(ring.status().generation, waiting_room);
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(log.matches("frames cannot be published").count(), 1, "one fault, one line:\n{log}");
}

#[test]
fn a_mount_that_somebody_else_fills_costs_no_frame() {
    if !can_mount() {
        return;
    }
    let (mount, sim) = (Mount::new(), Sim::spawn(&["--size", "640x360", "--fps", "25"]));
    let daemon = Daemon::spawn_command(mount.command("24m", "true", &["cam", "--url", &sim.url]), None);
    let ring = mount.attach(&daemon);
    let mut pixels = Vec::new();
    let first = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    let mut filler = std::fs::File::create(mount.seen_from_here(&daemon).join("filler")).unwrap();
    let block = vec![0xA5; 1 << 16];
    let full = loop {
        match filler.write_all(&block) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let mut last = first;
    // Three times around the ring.
    while last.meta.seq.0 < first.meta.seq.0 + 24 {
        last = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        stamp_of(&last, &pixels);
    }
    assert_eq!(last.generation, first.generation);
    assert_eq!(ring.status().state, State::Live);
    assert_eq!(ring.status().counter(camring_ring::Counter::DroppedOverload), 0);
}

// --- names and folders that are in the way ---

#[test]
fn a_mount_that_is_no_tmpfs_is_refused_with_78() {
    let said = run(&["cam", "--url", "rtsp://127.0.0.1:9/x"], Path::new("/proc"));
    assert_eq!(said.code, Some(78), "{said:#?}");
    assert!(said.stderr.contains("/proc is not on a tmpfs"), "{}", said.stderr);
    assert!(said.stderr.contains("choose another --shm-dir"), "{}", said.stderr);
}

#[test]
fn a_foreign_file_under_the_public_name_is_refused_and_left_alone() {
    let shm = Shm::new();
    let squatter = shm.path().join("camring.cam");
    std::fs::write(&squatter, "mine").unwrap();
    let said = run(&["cam", "--url", "rtsp://127.0.0.1:9/x"], shm.path());
    assert_eq!(said.code, Some(78), "{said:#?}");
    let named = format!("the name {} is taken by", squatter.display());
    assert!(said.stderr.contains(&named) && said.stderr.contains("`segment`"), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(&squatter).unwrap(), "mine");
    let left: Vec<String> = shm.files().into_iter().filter(|file| !file.contains("/.lock-")).collect();
    assert_eq!(left, ["camring.cam"], "nothing of the refused ring may stay");
}

#[test]
fn an_anchor_folder_that_others_control_is_refused_with_77() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let shm = Shm::new();
        let uid = rustix::process::geteuid().as_raw();
        let name = if uid == 0 { "camring.d".to_owned() } else { format!("camring-{uid}.d") };
        let folder = shm.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        prepare(&folder);
        let said = run(&["cam", "--url", "rtsp://127.0.0.1:9/x"], shm.path());
        assert_eq!(said.code, Some(77), "{said:#?}");
        let named = format!("the anchor folder {}", folder.display());
        assert!(said.stderr.contains(&named) && said.stderr.contains("remove it"), "{}", said.stderr);
        assert_eq!(shm.files(), [""; 0]);
        said.stderr
    };
    let set_mode =
        |mode| move |folder: &Path| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    assert!(refused(&set_mode(0o777)).contains("is writable by everybody (mode 0777), expected 1775"));
    assert!(refused(&set_mode(0o1777)).contains("is writable by everybody (mode 1777), expected 1775"));
    if is_root("a folder of another user") {
        let give_away = |folder: &Path| std::os::unix::fs::chown(folder, Some(65534), Some(65534)).unwrap();
        assert!(refused(&give_away).contains("belongs to user"));
    }
}

#[test]
fn a_second_daemon_ends_with_79_and_names_the_first() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--size", "320x240"]));
    let daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let ring = shm.attach("cam");
    let mut pixels = Vec::new();
    let before = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    let said = run(&["cam", "--url", &sim.url], shm.path());
    assert_eq!(said.code, Some(79), "{said:#?}");
    let pid = format!("process {}", daemon.process.pid());
    assert!(said.stderr.contains(&pid), "{}", said.stderr);
    let after = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
    assert_eq!((after.generation, after.meta.writer_epoch), (before.generation, before.meta.writer_epoch));
}

// --- cameras that are none ---

/// Something on a port that is no camera; counts who comes.
struct Impostor {
    url: String,
    visits: Arc<AtomicU32>,
}

impl Impostor {
    /// `answer` gets every connection; it is kept open until the other side closes it.
    fn new(answer: fn(&mut TcpStream)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("rtsp://{}/stream", listener.local_addr().unwrap());
        let visits = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&visits);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    answer(&mut stream);
                    let _ = stream.read_to_end(&mut Vec::new());
                });
            }
        });
        Self { url, visits }
    }
}

/// A daemon that shall become impatient soon.
fn impatient(shm: &Shm, url: &str) -> Daemon {
    let config = Config::new(&format!(
        "[camera.cam]\nurl = \"{url}\"\n\
         reconnect = {{ connect_timeout = \"2s\", request_timeout = \"1s\", max = \"300ms\", \
         permanent_retry = \"100ms..300ms\" }}\n"
    ));
    let daemon = Daemon::spawn_config(shm, "cam", &config.path);
    // The file has been read once the ring is there.
    drop(shm.attach("cam"));
    daemon
}

/// Waits until readers have seen this reason at the third try; the daemon lives on, and says when it tries again.
fn assert_tried_again(shm: &Shm, daemon: &mut Daemon, expected: Reason) -> Status {
    let ring = shm.attach("cam");
    let mut seen = ring.status();
    until("the reason at the third try", || {
        let status = ring.status();
        if status.state == State::Connecting && status.next_retry_mono_ns > 0 {
            seen = status;
        }
        seen.attempt >= 3
    });
    assert_eq!(seen.reason, expected, "{}", daemon.log());
    assert!(ring.latest(&mut Vec::new()).is_err(), "there is no frame");
    assert!(daemon.process.0.try_wait().unwrap().is_none(), "the daemon has ended:\n{}", daemon.log());
    let log = daemon.log();
    assert!(!log.contains("panicked") && log.contains(&expected.to_string()), "{log}");
    seen
}

#[test]
fn a_limit_on_open_files_is_raised_or_named() {
    let sim = Sim::spawn(&["--size", "320x240", "--fps", "10"]);
    let limited = |limit: &str, shm: &Shm| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_camring")]);
        command.args(["run", "cam", "--url", &sim.url, "--shm-dir"]).arg(shm.path());
        command
    };
    let shm = Shm::new();
    let said = ended(limited("-n 20", &shm));
    assert_eq!((said.code, said.stdout.as_str()), (Some(78), ""), "{}", said.stderr);
    assert!(said.stderr.contains("may open 20 files") && said.stderr.contains("LimitNOFILE="), "{}", said.stderr);
    assert_eq!(shm.files(), [""; 0], "nothing was made");
    let _daemon = Daemon::spawn_command(limited("-Sn 20", &shm), None);
    let ring = shm.attach("cam");
    until("the camera is live", || ring.status().state == State::Live);
}

#[test]
fn a_port_that_refuses_is_named_and_tried_again() {
    let shm = Shm::new();
    let mut daemon = impatient(&shm, &format!("rtsp://127.0.0.1:{}/stream", free_port()));
    assert_tried_again(&shm, &mut daemon, Reason::ConnectRefused);
    assert!(daemon.log().contains("refused the connection"), "{}", daemon.log());
}

#[test]
fn a_server_that_never_answers_is_left_and_tried_again() {
    let shm = Shm::new();
    let silent = Impostor::new(|_| {});
    let mut daemon = impatient(&shm, &silent.url);
    let status = assert_tried_again(&shm, &mut daemon, Reason::ConnectTimeout);
    assert_few_visits(&silent, &status);
    daemon.process.signal(Signal::TERM);
    assert_eq!(daemon.process.wait().code(), Some(0));
}

#[test]
fn a_server_that_speaks_no_rtsp_is_named_and_tried_again() {
    let shm = Shm::new();
    let garbage = Impostor::new(|stream| {
        let _ = stream.write_all(b"220 mail.example ESMTP ready\r\n220 \0\xff\xfe garbage\r\n\r\n");
    });
    let mut daemon = impatient(&shm, &garbage.url);
    let status = assert_tried_again(&shm, &mut daemon, Reason::NotRtsp);
    assert_few_visits(&garbage, &status);
}

/// No more connections than tries account for: one to ask, one to look why it failed.
fn assert_few_visits(impostor: &Impostor, status: &Status) {
    let visits = impostor.visits.load(Ordering::Relaxed);
    let most = 2 * (u32::from(status.attempt) + 1);
    assert!(visits >= 3 && visits <= most, "{visits} connections in {} tries", status.attempt);
}

// --- permission ---

/// The binary where another user can run it.
struct Elsewhere(tempfile::TempDir);

impl Elsewhere {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_camring"), folder.path().join("camring")).unwrap();
        Self(folder)
    }

    fn as_nobody(&self, arguments: &[&str], shm: &Shm) -> Ended {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(self.0.path().join("camring")).args(arguments).arg("--shm-dir").arg(shm.path());
        ended(command)
    }
}

#[test]
fn a_user_outside_of_the_group_is_told_which_group_may_read() {
    if !is_root("another user") {
        return;
    }
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--size", "320x240"]));
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    shm.attach("cam").next(&mut Vec::new(), Some(PATIENCE)).unwrap();
    let elsewhere = Elsewhere::new();
    for arguments in [&["watch", "cam"][..], &["show", "cam"], &["snap", "cam", "-o", "/dev/null", "--format", "png"]] {
        let said = elsewhere.as_nobody(arguments, &shm);
        assert_eq!(said.code, Some(77), "{arguments:?}: {said:#?}");
        assert!(said.stderr.contains("group"), "{arguments:?}: {}", said.stderr);
    }
    let said = elsewhere.as_nobody(&["list"], &shm);
    assert!(said.stdout.contains("cam") && format!("{}{}", said.stdout, said.stderr).contains("group"), "{said:#?}");
    let said = elsewhere.as_nobody(&["rm", "cam"], &shm);
    assert_ne!(said.code, Some(0), "{said:#?}");
    assert!(shm.files().contains(&"camring.d/cam".to_owned()));
}
