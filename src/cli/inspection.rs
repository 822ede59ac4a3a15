//! What can be said of a configuration without connecting to a camera; shared by `check` and `doctor`.

use std::path::Path;

use crate::assemble;
use crate::config::url::redacted;
use crate::config::{
    CONFIG_FOLDER, Camera, Config, ConfigErrors, LoadOptions, MountRoom, Problem, SecretStore, Setting, Severity,
};

/// Reads `file`, or what lies in `/etc/camring`, and everything that is wrong or worth knowing; secrets that cannot be
/// found are errors if `strict`, else notes.
///
/// # Errors
///
/// Everything that makes it no configuration.
pub(super) fn load(file: Option<&Path>, mount: &Path, strict: bool) -> Result<(Config, Vec<Problem>), ConfigErrors> {
    let paths = Config::find(file, Path::new(CONFIG_FOLDER))?;
    let options = LoadOptions { mount: MountRoom::of(mount) };
    let config = Config::load(&paths, &options)?;
    let mut findings = config.warnings.clone();
    if options.mount.is_none() {
        let title = format!("{} cannot be examined, so no ring was measured against it", mount.display());
        let hint = "name the memory mount with --shm-dir or CAMRING_SHM_DIR";
        findings.push(Problem::error(title, hint).as_severity(Severity::Warning));
    }
    if config.cameras.is_empty() {
        let problem = Problem::error("there is no camera in the configuration", "add a table [camera.NAME]");
        findings.push(problem.as_severity(Severity::Warning));
    }
    let store = SecretStore::of_process();
    let severity = if strict { Severity::Error } else { Severity::Note };
    for camera in config.cameras.values() {
        findings.extend(missing_files(camera));
        findings.extend(assemble::examine(camera).err().into_iter().flat_map(|errors| errors.problems));
        if let Err(errors) = camera.resolve_secrets(&store) {
            findings.extend(errors.problems.into_iter().map(|problem| problem.as_severity(severity)));
        }
    }
    Ok((config, ConfigErrors::new(findings).problems))
}

/// Warnings about files that a camera will want; password files are secrets and are looked at as such.
fn missing_files(camera: &Camera) -> Vec<Problem> {
    let missing = |setting: &Setting| {
        let is_there = |path: &Path| if setting.key.path == "device" { path.exists() } else { path.is_file() };
        let path = setting.path().filter(|path| setting.key.path != "password_file" && !is_there(path))?;
        if setting.key.path == "device" {
            let title = format!("{} is not there", path.display());
            let problem = Problem::error(title, "plug the camera in, or correct the path; v4l2-ctl --list-devices");
            return Some(problem.at(setting.origin.place(), "device").as_severity(Severity::Warning));
        }
        let title = format!("{} is no file on this machine", redacted(&path.display().to_string()));
        let problem = Problem::error(title, "put it there, or correct the path");
        Some(problem.at(setting.origin.place(), setting.key.path).as_severity(Severity::Warning))
    };
    camera.settings.iter().filter_map(missing).collect()
}
