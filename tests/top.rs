//! `camring top` in a real terminal: what is on its screen, and what is left of it afterwards.
#![cfg(feature = "sim")]

mod system;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use camring_ring::{AttachOptions, Ring, ShmDir, State};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use system::{Daemon, Process, Shm, camring, ended, until};

/// A terminal with a program in it, and what its screen shows.
struct Terminal {
    master: File,
    screen: Arc<Mutex<vt100::Parser>>,
    process: Process,
}

impl Terminal {
    fn with(shm: &Shm, options: &[&str]) -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 40, ws_col: 170, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        // A session of its own, so that the terminal is its controlling one and a new size reaches it.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(env!("CARGO_BIN_EXE_camring"))
            .arg("top")
            .args(options)
            .arg("--shm-dir")
            .arg(shm.path())
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        drop(slave);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(40, 170, 0)));
        let master = File::from(master);
        let (shown, mut from) = (screen.clone(), master.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends when the program has closed the terminal.
            while let Ok(len @ 1..) = from.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..len]);
            }
        });
        Self { master, screen, process: Process(child) }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Whether a line of an opened ring names this process: the number alone may be a part of another one.
    fn names(&self, pid: u32) -> bool {
        let pid = pid.to_string();
        self.text().lines().any(|line| line.split_whitespace().any(|word| word == pid))
    }

    /// The number of the frame that an opened ring shows; another one comes with each look.
    fn shown_frame(&self) -> Option<u64> {
        let text = self.text();
        text.split_once(", frame ")?.1.split(',').next()?.parse().ok()
    }

    fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn shows(&self, words: &[&str]) {
        self.shows_within(system::PATIENCE, words);
    }

    fn shows_within(&self, patience: Duration, words: &[&str]) {
        let deadline = Instant::now() + patience;
        loop {
            let text = self.text();
            if words.iter().all(|word| text.contains(word)) {
                return;
            }
            assert!(Instant::now() < deadline, "no {words:?} within {patience:?} on\n{text}");
            system::pause();
        }
    }

    /// The terminal is what it was: main screen, cursor, and lines are edited by it again.
    fn is_restored(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.master).unwrap().local_modes;
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        let cooked = modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO);
        !screen.alternate_screen() && !screen.hide_cursor() && cooked
    }
}

/// A daemon that draws its own pictures.
fn drawn(shm: &Shm, name: &str) -> Daemon {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[camera.{name}]\ntest = {{ size = \"320x240\", fps = 10 }}\n")).unwrap();
    let daemon = Daemon::spawn_config(shm, name, file.path());
    let ring = shm.attach(name);
    until("it is live", || ring.status().state == State::Live);
    daemon
}

#[test]
fn the_screen_shows_a_live_ring_and_says_within_5_s_that_its_writer_was_killed() {
    let shm = Shm::new();
    let mut daemon = drawn(&shm, "front");
    let _back = drawn(&shm, "back");
    let mut terminal = Terminal::with(&shm, &[]);
    terminal.shows(&["CAMERA", "front", "back", "live", "320x240", "2 rings, 0 in trouble"]);
    daemon.process.kill();
    terminal.shows_within(Duration::from_secs(5), &["dead writer", "2 rings, 1 in trouble"]);
    terminal.type_keys("s");
    terminal.shows(&["sorted by state"]);
    // The one in trouble is the first, and chosen.
    terminal.type_keys("\r");
    terminal.shows(&[
        "camring top  front",
        "the capture process is gone",
        "systemctl start camring@front",
        "SLOT",
        "published",
    ]);
    terminal.type_keys("q");
    assert!(terminal.process.wait().success());
    until("the terminal is given back", || terminal.is_restored());
}

/// No test: the process that the next one kills.
#[test]
#[ignore = "a part of another test, which starts it"]
fn holds_a_lease_until_it_is_killed() {
    let Some(folder) = std::env::var_os("CAMRING_TEST_LEASE_IN") else { return };
    let options = AttachOptions { shm: ShmDir::new(folder), ..AttachOptions::default() };
    let ring = Ring::attach("front", options).unwrap();
    let _lease = ring.lease().unwrap();
    system::let_pass(Duration::from_secs(120));
}

#[test]
fn an_opened_ring_shows_who_leases_which_slot_and_a_killed_holder_is_gone_with_the_next_look() {
    let shm = Shm::new();
    let _daemon = drawn(&shm, "front");
    let holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "holds_a_lease_until_it_is_killed"])
        .env("CAMRING_TEST_LEASE_IN", shm.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut holder = Process(holder);
    // An opened ring is looked at more often than that; how often, the test beside `pause` in the code says.
    let mut terminal = Terminal::with(&shm, &["front", "--interval", "1h"]);
    terminal.shows(&["front", "live"]);
    terminal.type_keys("\r");
    let pid = holder.pid();
    terminal.shows(&["LEASED BY", "leased", &pid.to_string(), "slot "]);
    until("the holder has its line", || terminal.names(pid));
    holder.kill();
    // Numbers of the screen before the kill, of a look that had begun then, of the first one after it, and of its successor,
    // of which only the number may be drawn; perhaps one that was half drawn.
    let mut looks = BTreeSet::from([terminal.shown_frame()]);
    until("the killed holder is gone", || {
        let is_gone = !terminal.names(pid) && terminal.text().contains("no reader holds anything");
        looks.insert(terminal.shown_frame());
        assert!(is_gone || looks.len() <= 5, "still there two looks after the kill\n{}", terminal.text());
        is_gone
    });
    terminal.type_keys("\x1b");
    terminal.shows(&["arrows choose"]);
    terminal.type_keys("?");
    terminal.shows(&["sort by name, state, age"]);
}

#[test]
fn a_new_size_is_drawn_at_once_and_sigterm_gives_the_terminal_back() {
    let shm = Shm::new();
    let _daemon = drawn(&shm, "front");
    let mut terminal = Terminal::with(&shm, &["--interval", "1h"]);
    terminal.shows(&["front", "live", "q quit"]);
    terminal.screen.lock().unwrap().screen_mut().set_size(12, 60);
    tcsetwinsize(&terminal.master, Winsize { ws_row: 12, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let deadline = Instant::now() + system::PATIENCE;
    while !terminal.text().lines().nth(11).is_some_and(|line| line.contains("arrows choose")) {
        assert!(Instant::now() < deadline, "the last line is not the twelfth of\n{}", terminal.text());
        system::pause();
    }
    terminal.process.signal(Signal::TERM);
    assert!(terminal.process.wait().success());
    until("the terminal is given back", || terminal.is_restored());
}

#[test]
fn in_a_pipe_the_table_comes_as_often_as_asked_for_and_works_with_the_daemon_dead() {
    let shm = Shm::new();
    let mut daemon = drawn(&shm, "front");
    daemon.process.kill();
    let mut command = camring();
    command.args(["top", "--count", "2", "--interval", "100ms", "--shm-dir"]).arg(shm.path());
    let said = ended(command);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert_eq!(said.stdout.matches("CAMERA").count(), 2, "{}", said.stdout);
    assert_eq!(said.stdout.matches("dead writer").count(), 2, "{}", said.stdout);
    assert!(!said.stdout.contains('\x1b'), "colour in a pipe");
    let mut command = camring();
    command.args(["top", "nowhere", "--count", "1", "--shm-dir"]).arg(shm.path());
    let said = ended(command);
    assert!(said.code == Some(0) && said.stdout.contains("unreadable"), "{said:#?}");
}
