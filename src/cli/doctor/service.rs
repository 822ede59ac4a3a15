//! What the service manager knows: units that failed, that are not enabled, and what a log-out removes.

use std::collections::BTreeMap;
use std::path::Path;

use super::Check;
use super::kernel::answer;
use crate::config::Config;
use crate::diagnosis::Finding;

/// Users from this number on are people: a log-out takes their shared memory with it.
const FIRST_PERSON: u32 = 1000;
const PERSON_MAX: u32 = 59_999;

/// Units and log-out.
pub(super) fn checks(config: Option<&Config>) -> Vec<Check> {
    let logind = ["/run/systemd/seats", "/run/systemd/users"].iter().any(|path| Path::new(path).exists());
    let settings = std::fs::read_to_string("/etc/systemd/logind.conf").unwrap_or_default();
    let owner = rustix::process::geteuid().as_raw();
    let mut checks = vec![Check::host("logout", logout(logind, &settings, owner))];
    if !Path::new("/run/systemd/system").exists() {
        let found = "no systemd here: nothing restarts cameras but camring up, or what runs the container";
        checks.push(Check::host("units", Finding::ok("no_systemd", found)));
        return checks;
    }
    let properties = "--property=Id,ActiveState,SubState,Result,UnitFileState,ExecMainStatus,NRestarts";
    let shown = answer("systemctl", &["show", "--all", properties, "camring@*.service"]).unwrap_or_default();
    let units = parse(&shown);
    let cameras: Vec<String> =
        config.into_iter().flat_map(|config| config.cameras.keys()).map(ToString::to_string).collect();
    let installed = answer("systemctl", &["cat", "camring@.service"]).is_some();
    checks.extend(judge(&units, &cameras, installed));
    checks
}

/// What systemd says of one unit.
type Unit = BTreeMap<String, String>;

fn parse(shown: &str) -> Vec<Unit> {
    let block = |block: &str| -> Unit {
        let pairs = block.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    shown.split("\n\n").map(block).filter(|unit| unit.contains_key("Id")).collect()
}

fn judge(units: &[Unit], cameras: &[String], installed: bool) -> Vec<Check> {
    if !installed {
        let found = "systemd is here and does not know camring@.service: nothing starts cameras after a boot";
        let cure = "install systemd/camring@.service and camring.target, then systemctl daemon-reload";
        return vec![Check::host("units", Finding::warn("units_missing", found, cure))];
    }
    let mut checks: Vec<Check> = units.iter().map(unit).collect();
    for camera in cameras {
        let id = format!("camring@{camera}.service");
        if !units.iter().any(|unit| unit.get("Id") == Some(&id)) {
            let cure = format!("systemctl enable --now camring@{camera}");
            let finding = Finding::warn("unit_not_started", "in the configuration and never started", cure);
            checks.push(Check { check: "units", subject: format!("camring@{camera}"), finding });
        }
    }
    if checks.is_empty() {
        checks.push(Check::host("units", Finding::ok("units", "the units are installed; none is started")));
    }
    checks
}

fn unit(unit: &Unit) -> Check {
    let of = |key: &str| unit.get(key).map_or("", String::as_str);
    let name = of("Id").trim_end_matches(".service").to_owned();
    let status = of("ExecMainStatus");
    let finding = match (of("ActiveState"), of("SubState")) {
        ("failed", _) => Finding::fail(
            "unit_failed",
            format!("failed: {}, exit status {status}", of("Result")),
            cure_of_exit(&name, status),
        ),
        ("activating", "auto-restart") => Finding::fail(
            "unit_restarting",
            format!("ends and is restarted over and over, {} times so far, exit status {status}", of("NRestarts")),
            cure_of_exit(&name, status),
        ),
        ("active", _) if !of("UnitFileState").starts_with("enabled") => Finding::warn(
            "unit_not_enabled",
            "runs, and does not start after a boot",
            format!("systemctl enable {name}"),
        ),
        ("inactive", _) => Finding::warn("unit_stopped", "is stopped", format!("systemctl start {name}")),
        (state, _) => Finding::ok("units", format!("{state}, {}", of("UnitFileState"))),
    };
    Check { check: "units", subject: name, finding }
}

fn cure_of_exit(unit: &str, status: &str) -> String {
    let first = match status {
        "73" => "enlarge the memory mount; ",
        "77" => "let the service's user read its files and write into /dev/shm/camring.d; ",
        "78" => "camring check, and correct what it says; ",
        "79" => "stop the other process that serves this camera; ",
        _ => "",
    };
    format!("{first}journalctl -u {unit}; then systemctl restart {unit}")
}

/// Whether a log-out of the rings' owner removes them.
fn logout(logind: bool, settings: &str, owner: u32) -> Finding {
    let said = settings.lines().map(str::trim).find_map(|line| line.strip_prefix("RemoveIPC=")).unwrap_or("yes");
    let removes = !matches!(said, "no" | "false" | "0" | "off");
    let is_person = (FIRST_PERSON..=PERSON_MAX).contains(&owner);
    if logind && removes && is_person {
        return Finding::warn(
            "logout_removes_rings",
            "rings that you make belong to a person, and logind removes a person's shared memory at log-out (RemoveIPC=yes)",
            "let the service make them (user camring), or RemoveIPC=no in /etc/systemd/logind.conf, or loginctl enable-linger",
        );
    }
    Finding::ok(
        "logout",
        if logind { "a log-out leaves the rings alone" } else { "no logind here: nobody removes rings at log-out" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Level;

    const SHOWN: &str = "Id=camring@front.service\nActiveState=active\nSubState=running\nResult=success\nUnitFileState=enabled\nExecMainStatus=0\nNRestarts=0\n\n\
        Id=camring@back.service\nActiveState=failed\nSubState=failed\nResult=exit-code\nUnitFileState=enabled\nExecMainStatus=78\nNRestarts=0\n\n\
        Id=camring@yard.service\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\nUnitFileState=disabled\nExecMainStatus=73\nNRestarts=41\n\n\
        Id=camring@lab.service\nActiveState=active\nSubState=running\nResult=success\nUnitFileState=disabled\nExecMainStatus=0\nNRestarts=0\n";

    #[test]
    fn every_unit_in_trouble_is_named_with_the_cure_for_its_exit_code() {
        let cameras = ["front", "new"].map(str::to_owned);
        let checks = judge(&parse(SHOWN), &cameras, true);
        let found: Vec<(&str, Level, &str)> =
            checks.iter().map(|check| (check.subject.as_str(), check.finding.level, check.finding.cause)).collect();
        assert_eq!(
            found,
            [
                ("camring@front", Level::Ok, "units"),
                ("camring@back", Level::Fail, "unit_failed"),
                ("camring@yard", Level::Fail, "unit_restarting"),
                ("camring@lab", Level::Warn, "unit_not_enabled"),
                ("camring@new", Level::Warn, "unit_not_started"),
            ]
        );
        assert!(checks[1].finding.cure.starts_with("camring check"), "{:?}", checks[1]);
        assert!(checks[2].finding.found.contains("41 times") && checks[2].finding.cure.starts_with("enlarge"));
        assert_eq!(judge(&[], &[], false)[0].finding.cause, "units_missing");
    }

    #[test]
    fn a_person_is_warned_of_log_out_and_the_service_is_not() {
        let level = |logind, settings, owner| logout(logind, settings, owner).level;
        assert_eq!(level(true, "", 1000), Level::Warn);
        assert_eq!(level(true, "[Login]\n#RemoveIPC=no\n", 1000), Level::Warn, "a comment");
        assert_eq!(level(true, "[Login]\nRemoveIPC=no\n", 1000), Level::Ok);
        assert_eq!(
            (level(true, "", 997), level(true, "", 0), level(false, "", 1000)),
            (Level::Ok, Level::Ok, Level::Ok)
        );
    }
}
