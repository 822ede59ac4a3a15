//! The shipped unit files, judged by systemd's own tools.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use camring::exit::Exit;
use tempfile::TempDir;

/// Most exposure that `systemd-analyze security` may find, of 10.
const EXPOSURE_MAX: f64 = 2.0;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn unit_text() -> String {
    text_of("camring@.service")
}

fn text_of(unit: &str) -> String {
    fs::read_to_string(shipped(unit)).expect("the unit is shipped")
}

/// Runs one of systemd's tools; a machine without it cannot judge the units, so the test fails there.
fn tool(command: &mut Command) -> Output {
    let output = command.env("SYSTEMD_COLORS", "0").env("SYSTEMD_EMOJI", "0").output();
    output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}; install the package systemd"))
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The units in a folder of their own, started from the binary under test instead of the installed one.
fn installed_units() -> TempDir {
    let folder = TempDir::new().expect("a folder for the units");
    for unit in ["camring@.service", "camring-serve.service"] {
        let text = text_of(unit);
        let under_test = concat!("ExecStart=", env!("CARGO_BIN_EXE_camring"), " ");
        let installed = text.replace("ExecStart=/usr/bin/camring ", under_test);
        assert_ne!(installed, text, "{unit} starts /usr/bin/camring");
        fs::write(folder.path().join(unit), installed).expect("write the unit");
    }
    fs::copy(shipped("camring.target"), folder.path().join("camring.target")).expect("copy the target");
    folder
}

/// Loads an instance of the units as systemd would; any complaint is a failure.
fn verify(folder: &Path) {
    let mut command = Command::new("systemd-analyze");
    // No manual pages: the check that `Documentation=` exists would need an installed package.
    command.args(["verify", "--man=no"]);
    command.args(["camring@front.service", "camring.target", "camring-serve.service"].map(|unit| folder.join(unit)));
    let output = tool(&mut command);
    assert!(output.status.success() && words(&output).is_empty(), "systemd complains:\n{}", words(&output));
}

/// Values of a key of the unit, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(found, _)| *found == key).map(|(_, value)| value).collect()
}

#[test]
fn the_units_load_without_a_complaint() {
    verify(installed_units().path());
}

#[test]
fn a_mistake_in_a_unit_is_noticed() {
    let folder = installed_units();
    let broken = fs::read_to_string(folder.path().join("camring@.service"))
        .unwrap()
        .replace("PrivateTmp=yes", "PrivateTmp=maybe");
    fs::write(folder.path().join("camring@.service"), broken).unwrap();
    let noticed = std::panic::catch_unwind(|| verify(folder.path()));
    assert!(noticed.is_err(), "systemd-analyze accepted PrivateTmp=maybe");
}

#[test]
fn the_unit_is_exposed_at_most_2_0() {
    is_exposed_at_most_2_0("camring@.service");
}

#[test]
fn the_unit_of_serve_is_exposed_at_most_2_0() {
    is_exposed_at_most_2_0("camring-serve.service");
}

fn is_exposed_at_most_2_0(unit: &str) {
    let folder = installed_units();
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=yes", "--no-pager"]).arg(folder.path().join(unit));
    let output = tool(&mut command);
    let report = words(&output);
    let (_, verdict) = report.rsplit_once("exposure level for").expect("a verdict");
    let (_, number) = verdict.split_once(": ").expect("a number in the verdict");
    let exposure: f64 = number.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number");
    assert!(exposure <= EXPOSURE_MAX, "exposure is {exposure}, expected at most {EXPOSURE_MAX}:\n{report}");
}

#[test]
fn the_unit_is_restarted_unless_a_person_must_act() {
    let unit = unit_text();
    assert_eq!(values(&unit, "Restart"), ["always"]);
    assert_eq!(values(&unit, "StartLimitIntervalSec"), ["0"]);
    let final_codes = [Exit::Permission, Exit::Config, Exit::AlreadyServed].map(|exit| (exit as u8).to_string());
    assert_eq!(values(&unit, "RestartPreventExitStatus"), [final_codes.join(" ")]);
}

#[test]
fn the_unit_of_serve_writes_nothing_and_outlives_the_cameras() {
    let unit = text_of("camring-serve.service");
    assert_eq!(values(&unit, "ExecStart"), ["/usr/bin/camring serve"]);
    assert_eq!(values(&unit, "ReadOnlyPaths"), ["/dev/shm"]);
    assert_eq!((values(&unit, "User"), values(&unit, "Group")), (vec!["camring"], vec!["camring"]));
    assert!(values(&unit, "PartOf").is_empty(), "it tells that the cameras are stopped");
    let final_codes = [Exit::Permission, Exit::Config].map(|exit| (exit as u8).to_string());
    assert_eq!(values(&unit, "RestartPreventExitStatus"), [final_codes.join(" ")]);
    let output = tool(Command::new(env!("CARGO_BIN_EXE_camring")).args(["serve", "--help"]));
    assert!(output.status.success(), "camring serve --help failed:\n{}", words(&output));
}

#[test]
fn the_rings_survive_the_unit() {
    let unit = unit_text();
    assert_eq!(values(&unit, "RemoveIPC"), ["no"]);
    assert!(values(&unit, "DynamicUser").is_empty(), "DynamicUser implies RemoveIPC");
}

#[test]
fn the_unit_starts_a_command_that_the_binary_has() {
    let unit = unit_text();
    let command = values(&unit, "ExecStart");
    assert_eq!(command, ["/usr/bin/camring run %i"]);
    let output = tool(Command::new(env!("CARGO_BIN_EXE_camring")).args(["run", "--help"]));
    assert!(output.status.success(), "camring run --help failed:\n{}", words(&output));
}

#[test]
fn the_service_writes_rings_and_readers_do_not() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let output =
        tool(Command::new("systemd-sysusers").arg("--root").arg(root.path()).arg(shipped("camring.sysusers.conf")));
    assert!(output.status.success(), "systemd-sysusers failed:\n{}", words(&output));
    let table = |name: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(root.path().join("etc").join(name)).expect("a table of users or groups");
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    };
    let groups = table("group");
    let group = |name: &str| groups.iter().find(|group| group[0] == name).unwrap_or_else(|| panic!("no group {name}"));
    let users = table("passwd");
    let user = users.iter().find(|user| user[0] == "camring").expect("a user camring");
    assert_eq!(user[3], group("camring-svc")[2], "the service's primary group may write to the anchor folder");
    assert_eq!(group("camring")[3], "camring", "the service may give rings to its readers");
    assert_eq!(group("camring-svc")[3], "", "nobody else is in the service's group");

    let line = fs::read_to_string(shipped("camring.tmpfiles.conf")).unwrap();
    assert!(line.contains("\nd /dev/shm/camring.d 1775 root camring-svc -"), "the anchor folder is root's");
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return; // only root can create it for another owner; the line itself was compared above
    }
    let output = tool(
        Command::new("systemd-tmpfiles")
            .arg("--create")
            .arg("--root")
            .arg(root.path())
            .arg(shipped("camring.tmpfiles.conf")),
    );
    assert!(output.status.success(), "systemd-tmpfiles failed:\n{}", words(&output));
    let folder = fs::metadata(root.path().join("dev/shm/camring.d")).expect("the anchor folder");
    assert_eq!((folder.mode() & 0o7777, folder.uid()), (0o1775, 0));
    assert_eq!(folder.gid().to_string(), group("camring-svc")[2]);
}

#[test]
fn every_drop_in_of_the_manual_loads() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let blocks: Vec<&str> = manual.split("```ini\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let mut checked = 0;
    for block in blocks {
        let drop_in: String = block.lines().map(|line| format!("{}\n", line.trim_start())).collect();
        let unit = match drop_in.strip_prefix("# /etc/systemd/system/camring") {
            Some(rest) if rest.starts_with('@') => "camring@front.service.d",
            Some(rest) if rest.starts_with("-serve.service.d/") => "camring-serve.service.d",
            _ => panic!("the block does not name its file:\n{drop_in}"),
        };
        let folder = installed_units();
        let place = folder.path().join(unit);
        fs::create_dir(&place).unwrap();
        fs::write(place.join("drop-in.conf"), drop_in).unwrap();
        verify(folder.path());
        checked += 1;
    }
    assert!(checked >= 3, "the manual shows {checked} drop-ins, expected at least three");
}
