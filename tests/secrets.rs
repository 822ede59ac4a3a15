//! Passwords: a hard one gets in by every way there is, and is nowhere to be found afterwards.
#![cfg(feature = "sim")]

mod system;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use camring_ring::{Reason, State};
use system::{Daemon, PATIENCE, Shm, Sim, camring, ended, free_port, stamp_of, until};

const PASSWORD: &str = "p@ss:w/rd#%?";
/// The password as it stands in a URL.
const ENCODED: &str = "p%40ss%3Aw%2Frd%23%25%3F";
/// The password's beginning in Base64, behind `viewer:`: what basic authentication sends.
const BASIC: &str = "dmlld2VyOnBAc3M6dy9yZCMl";

/// How a password reaches the daemon.
#[derive(Clone, Copy, Debug)]
enum Way {
    Stdin,
    File,
    Credential,
    Url,
}

const WAYS: [Way; 4] = [Way::Stdin, Way::File, Way::Credential, Way::Url];

/// A folder with a configuration and its secrets.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes what this way needs: the configuration file, if it has one.
    fn prepare(&self, way: Way, url: &str, password: &str, encoded: &str) -> Option<PathBuf> {
        let camera = match way {
            Way::Stdin => return None,
            Way::File => {
                self.write("cam.pw", &format!("{password}\n"));
                format!("url = \"{url}\"\nuser = \"viewer\"\npassword_file = \"cam.pw\"\n")
            }
            Way::Credential => {
                self.write("cam_pw", password);
                format!("url = \"{url}\"\nuser = \"viewer\"\npassword = \"${{cam_pw}}\"\n")
            }
            Way::Url => format!("url = \"{}\"\n", url.replace("rtsp://", &format!("rtsp://viewer:{encoded}@"))),
        };
        Some(self.write("camring.toml", &format!("[camera.cam]\n{camera}")))
    }

    /// `camring` with the surroundings that this way needs, as talkative as it can be.
    fn command(&self, way: Way) -> Command {
        let mut command = camring();
        command.env("CAMRING_LOG", "trace");
        match way {
            Way::Credential => command.env("CREDENTIALS_DIRECTORY", self.folder.path()),
            _ => command.env_remove("CREDENTIALS_DIRECTORY"),
        };
        command
    }

    fn daemon(&self, way: Way, shm: &Shm, url: &str, password: &str, encoded: &str) -> Daemon {
        let mut command = self.command(way);
        command.args(["run", "cam", "--shm-dir"]).arg(shm.path());
        let Some(config) = self.prepare(way, url, password, encoded) else {
            command.args(["--url", url, "--user", "viewer", "--password-stdin"]);
            return Daemon::spawn_command(command, Some(password));
        };
        command.arg("--config").arg(config);
        Daemon::spawn_command(command, None)
    }
}

/// Fails when `bytes` hold the password in any of its spellings.
fn assert_clean(what: &str, bytes: &[u8]) {
    for secret in [PASSWORD, ENCODED, BASIC] {
        let found = bytes.windows(secret.len()).position(|window| window == secret.as_bytes());
        assert_eq!(found, None, "{what} holds the password as {secret}, at this byte");
    }
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Everything that others can see of a daemon.
fn assert_nothing_leaks(way: Way, desk: &Desk, shm: &Shm, daemon: &Daemon) {
    let log = daemon.log();
    assert!(log.len() > 100, "the log says nothing:\n{log}");
    assert_clean("the log", log.as_bytes());
    assert_clean("the command line", &read(format!("/proc/{}/cmdline", daemon.process.pid())));
    for file in shm.files() {
        assert_clean(&file, &read(shm.path().join(&file)));
    }
    let mut commands = vec![vec!["list"], vec!["list", "--json"], vec!["show", "cam"], vec!["show", "cam", "--json"]];
    let config = desk.folder.path().join("camring.toml");
    if config.exists() {
        let file = config.to_str().unwrap();
        commands.push(vec!["check", file, "--effective"]);
        commands.push(vec!["check", file, "--effective", "--json"]);
        commands.push(vec!["check", file, "--secrets"]);
    }
    for arguments in commands {
        let mut command = desk.command(way);
        command.args(&arguments).arg("--shm-dir").arg(shm.path());
        let said = ended(command);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:#?}");
        assert!(said.stdout.contains("cam"), "{arguments:?}: {said:#?}");
        assert_clean(&format!("camring {}", arguments.join(" ")), said.stdout.as_bytes());
        assert_clean(&format!("stderr of camring {}", arguments.join(" ")), said.stderr.as_bytes());
    }
}

fn camera(scheme: &str) -> Sim {
    let options = ["--size", "320x240", "--auth", scheme, "--user", "viewer", "--password-stdin"];
    Sim::spawn_on(free_port(), &options, Some(PASSWORD))
}

fn assert_gets_in_by_every_way(scheme: &str) {
    let sim = camera(scheme);
    for way in WAYS {
        let (desk, shm) = (Desk::new(), Shm::new());
        let daemon = desk.daemon(way, &shm, &sim.url, PASSWORD, ENCODED);
        let ring = shm.attach("cam");
        let mut pixels = Vec::new();
        let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        stamp_of(&frame, &pixels);
        until("the state is live", || ring.status().state == State::Live);
        assert_nothing_leaks(way, &desk, &shm, &daemon);
    }
}

#[test]
fn a_hard_password_gets_in_by_digest_and_leaks_nowhere() {
    assert_gets_in_by_every_way("digest");
}

#[test]
fn a_hard_password_gets_in_by_basic_and_leaks_nowhere() {
    assert_gets_in_by_every_way("basic");
}

#[test]
fn a_wrong_password_is_refused_and_leaks_nowhere() {
    let sim = camera("digest");
    for way in WAYS {
        let (desk, shm) = (Desk::new(), Shm::new());
        let (wrong, wrong_encoded) = (format!("{PASSWORD}X"), format!("{ENCODED}X"));
        let daemon = desk.daemon(way, &shm, &sim.url, &wrong, &wrong_encoded);
        let ring = shm.attach("cam");
        until("readers see that the password is wrong", || {
            let status = ring.status();
            status.reason == Reason::Auth && status.next_retry_mono_ns > 0
        });
        // The log line is written after the state.
        until("the log says so", || daemon.log().contains("auth"));
        let error = ring.latest(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("auth"), "{error}");
        assert_clean("the error", error.as_bytes());
        assert_nothing_leaks(way, &desk, &shm, &daemon);
    }
}

/// GStreamer's own log of RTSP at its highest useful level, which an operator turns on by a variable.
#[test]
fn the_password_is_not_in_gstreamers_log_either() {
    for scheme in ["digest", "basic"] {
        let sim = camera(scheme);
        let (desk, shm) = (Desk::new(), Shm::new());
        let log = desk.folder.path().join("gst.log");
        let mut command = desk.command(Way::Stdin);
        command.env("GST_DEBUG", "rtsp*:6").env("GST_DEBUG_FILE", &log).env("GST_DEBUG_NO_COLOR", "1");
        command.args(["run", "cam", "--url", &sim.url, "--user", "viewer", "--password-stdin", "--shm-dir"]);
        command.arg(shm.path());
        let daemon = Daemon::spawn_command(command, Some(PASSWORD));
        shm.attach("cam").next(&mut Vec::new(), Some(PATIENCE)).unwrap();
        let text = read(&log);
        assert!(String::from_utf8_lossy(&text).contains("DESCRIBE"), "GStreamer has logged no request");
        assert_clean("GStreamer's log", &text);
        assert_clean("the log", daemon.log().as_bytes());
    }
}

#[test]
fn a_password_in_a_wrong_file_is_not_in_the_message() {
    let desk = Desk::new();
    let texts = [
        format!("[camera.cam]\nurl = \"rtsp://viewer:{ENCODED}@127.0.0.1/x\"\nslots = 2\n"),
        format!("[camera.cam]\nurl = \"https://viewer:{ENCODED}@127.0.0.1/x\"\n"),
        format!("[camera.cam]\nurl = \"rtsp://viewer:{PASSWORD}@127.0.0.1/x\"\n"),
        format!("[camera.cam]\nurl = \"rtsp://127.0.0.1/x\"\nuser = \"viewer\"\npasword = \"{PASSWORD}\"\n"),
        format!("[camera.cam]\nurl = \"rtsp://127.0.0.1/x\"\nuser = \"viewer\"\npassword = [\"{PASSWORD}\"]\n"),
        format!("[camera.cam]\nurl = \"rtsp://viewer:{ENCODED}@127.0.0.1/x\nslots = 8\n"),
    ];
    for (number, text) in texts.iter().enumerate() {
        let config = desk.write(&format!("{number}.toml"), text);
        let mut command = desk.command(Way::File);
        let shm = Shm::new();
        command.args(["run", "cam", "--config"]).arg(&config).arg("--shm-dir").arg(shm.path());
        let said = ended(command);
        assert_eq!(said.code, Some(78), "{text}: {said:#?}");
        assert_clean(&format!("the message about\n{text}"), format!("{}{}", said.stdout, said.stderr).as_bytes());
    }
    let mut command = desk.command(Way::Stdin);
    let shm = Shm::new();
    command.args(["run", "cam", "--url", &format!("rtsp://viewer:{PASSWORD}@127.0.0.1/x"), "--shm-dir"]);
    let said = ended({
        command.arg(shm.path());
        command
    });
    assert_eq!(said.code, Some(78), "{said:#?}");
    assert_clean("the message about a URL on the command line", said.stderr.as_bytes());
}
