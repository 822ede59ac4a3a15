//! The configuration: every key parsed, merged and checked; all mistakes reported at once, at their places.
//!
//! ```text
//! files -> document (TOML -> layers of values, by the table in keys) -> validate -> resolve -> Config
//! ```

mod camera;
pub(crate) mod document;
pub mod duration;
pub mod effective;
pub mod keys;
mod mask;
pub mod name;
pub mod report;
mod resolve;
pub mod schema;
pub mod secret;
pub mod size;
pub mod url;
mod validate;
pub mod value;
pub mod words;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use camera::{
    Access, Camera, CameraAddress, Decode, DecodeDevice, Group, MaxSize, Origin, Output, Password, Reconnect,
    RingSettings, Setting, Source, TestPicture, Tls,
};
pub use name::CameraName;
pub use report::{ConfigErrors, Place, Problem, Severity, SourceFile};
pub use secret::SecretStore;
pub use size::{FrameSize, MountRoom};
pub use url::CameraUrl;
pub use words::{
    AccessUnits, AutoOr, Deinterlace, Fit, HugePages, Idle, LeasePolicy, LogFormat, LogLevel, OnCorrupt, Switch,
    TestPattern, Transport,
};

use document::{CameraTable, Document, Layer};
use name::did_you_mean;
use resolve::Merged;
use value::Value;
use words::Word;

/// The folder of the configuration when the command line names no file.
pub const CONFIG_FOLDER: &str = "/etc/camring";

const FILE_MAX: u64 = 1 << 20;

/// A whole configuration, checked and resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Version of the format: 1.
    pub version: u32,
    /// The cameras by name.
    pub cameras: BTreeMap<CameraName, Camera>,
    /// How to log.
    pub log: LogSettings,
    /// What `camring serve` does.
    pub serve: ServeSettings,
    /// What works and deserves a look.
    pub warnings: Vec<Problem>,
    /// The files it was read from, in their order.
    pub files: Vec<PathBuf>,
}

/// How to log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogSettings {
    /// The least important line that is logged.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
}

/// What `camring serve` does.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it shows pictures.
    pub preview: Switch,
    /// What every request must know.
    pub token: Option<secret::Template>,
}

/// What validation may know about the host.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The memory mount; `None` = sizes of rings are not checked.
    pub mount: Option<MountRoom>,
}

impl Config {
    /// The files of a configuration: `chosen`, or `camring.toml` and `conf.d/*.toml` (sorted) of `folder`.
    ///
    /// # Errors
    ///
    /// None of them exists; the message lists what was looked for.
    pub fn find(chosen: Option<&Path>, folder: &Path) -> Result<Vec<PathBuf>, ConfigErrors> {
        if let Some(chosen) = chosen {
            return Ok(vec![chosen.to_owned()]);
        }
        let (main, parts) = (folder.join("camring.toml"), folder.join("conf.d"));
        let mut files = list(&parts)?;
        // What cannot be examined is there: reading it says why it cannot be read.
        if main.try_exists().unwrap_or(true) {
            files.insert(0, main.clone());
        }
        if files.is_empty() {
            let title = format!("no configuration: looked for {} and {}/*.toml", main.display(), parts.display());
            return Err(Problem::error(title, "create one of them, or name a file on the command line").into());
        }
        Ok(files)
    }

    /// Reads and checks files.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in any of them, sorted by place.
    pub fn load(paths: &[PathBuf], options: &LoadOptions) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let files: Vec<Arc<SourceFile>> =
            paths.iter().filter_map(|path| read(path).map_err(|problem| problems.push(problem)).ok()).collect();
        Self::parse(&files, options, problems)
    }

    /// Checks texts that were read already.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn from_files(files: &[Arc<SourceFile>], options: &LoadOptions) -> Result<Self, ConfigErrors> {
        Self::parse(files, options, Vec::new())
    }

    fn parse(
        files: &[Arc<SourceFile>],
        options: &LoadOptions,
        mut problems: Vec<Problem>,
    ) -> Result<Self, ConfigErrors> {
        let documents: Vec<Document> = files.iter().filter_map(|file| Document::read(file, &mut problems)).collect();
        let file = join(documents, &mut problems);
        let merged: Vec<Merged<'_>> =
            file.cameras.iter().map(|table| Merged::camera(&table.layer, &file.defaults)).collect();
        let mut segments = Vec::new();
        for (table, merged) in file.cameras.iter().zip(&merged) {
            validate::camera(merged, options.mount.as_ref(), &mut problems);
            for (name, layer) in &table.outputs {
                validate::output(name, layer, merged, options.mount.as_ref(), &mut problems);
            }
            segments.extend(validate::segments(&table.name, merged, table));
        }
        validate::unique_segments(&segments, &mut problems);
        validate::serve(&file.serve, &mut problems);
        if let Some(mount) = &options.mount {
            validate::rings_together(&file.cameras, &merged, mount, &mut problems);
        }
        let (errors, warnings): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|problem| problem.severity == Severity::Error);
        if !errors.is_empty() {
            return Err(ConfigErrors::new(errors));
        }
        let camera =
            |(table, merged): (&CameraTable, &Merged<'_>)| resolve::camera(&table.name, merged, &table.outputs);
        let cameras = file.cameras.iter().zip(&merged).filter_map(camera);
        Ok(Self {
            version: 1,
            cameras: cameras.map(|camera| (camera.name.clone(), camera)).collect(),
            log: log_settings(&file.log),
            serve: serve_settings(&file.serve),
            warnings: ConfigErrors::new(warnings).problems,
            files: files.iter().map(|file| file.path.clone()).collect(),
        })
    }

    /// The camera of this name.
    ///
    /// # Errors
    ///
    /// There is none; the message names the one that was probably meant, or all.
    pub fn camera(&self, name: &str) -> Result<&Camera, ConfigErrors> {
        self.cameras.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.cameras.keys().map(CameraName::as_str).collect();
            let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
            let hint = match did_you_mean(name, names.iter().copied()) {
                Some(name) => format!("did you mean {name}?"),
                None if names.is_empty() => "there is no camera in it: add a table [camera.NAME]".to_owned(),
                None => format!("cameras there: {}", names.join(", ")),
            };
            Problem::error(format!("no camera {name:?} in {}", files.join(", ")), hint).into()
        })
    }
}

/// The `*.toml` of a folder that need not exist, sorted; hidden ones are left out.
fn list(folder: &Path) -> Result<Vec<PathBuf>, ConfigErrors> {
    let unreadable = |error: io::Error| {
        let title = format!("{} cannot be listed: {error}", folder.display());
        ConfigErrors::from(Problem::error(title, "let the user of the service read it"))
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "toml") && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Arc<SourceFile>, Problem> {
    read_text(path).map(|text| SourceFile::new(path.to_owned(), text))
}

/// The text of a file of at most 1 MiB.
pub(crate) fn read_text(path: &Path) -> Result<String, Problem> {
    use std::io::Read;
    let shown = path.display();
    let unreadable = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "let the user or group of the service read it (chmod 0640, chgrp)",
            _ => "name a readable file",
        };
        Problem::error(format!("{shown} cannot be read: {error}"), hint)
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Problem::error(format!("{shown} is larger than 1 MiB"), "name a configuration file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::error(format!("{shown}:{line} is not UTF-8"), "save the file as UTF-8")
    })
}

/// Puts files together: cameras side by side, single tables key by key; nothing may be said twice.
fn join(documents: Vec<Document>, problems: &mut Vec<Problem>) -> Document {
    let mut all = Document::default();
    for document in documents {
        all.root.entries.extend(document.root.entries);
        for (into, from) in
            [(&mut all.defaults, document.defaults), (&mut all.serve, document.serve), (&mut all.log, document.log)]
        {
            join_layer(into, from, problems);
        }
        for camera in document.cameras {
            match all.cameras.iter().find(|known| known.name == camera.name) {
                None => all.cameras.push(camera),
                Some(known) => {
                    let title = format!("camera {} is defined in two files", camera.name);
                    let problem = Problem::error(title, "rename one of them, or put its keys into one file");
                    let problem = problem.at(camera.layer.place.as_ref(), "here");
                    problems.push(problem.at(known.layer.place.as_ref(), "and here"));
                }
            }
        }
    }
    all
}

fn join_layer(into: &mut Layer, from: Layer, problems: &mut Vec<Problem>) {
    for (path, entry) in from.entries {
        match into.entries.get(path) {
            None => drop(into.entries.insert(path, entry)),
            Some(known) => {
                let problem = Problem::error(format!("{path} is set in two files"), "keep one of them");
                let problem = problem.at(entry.place.as_ref(), "here");
                problems.push(problem.at(known.place.as_ref(), "and here"));
            }
        }
    }
}

const IN_TABLE: &str = "the table of keys gives this key this kind, and a default";

fn single<'a>(layer: &'a Layer, table: keys::Table, path: &str) -> &'a Value {
    let said = layer.entries.get(path).and_then(|entry| entry.value.as_ref());
    said.or_else(|| keys::find(table, path)?.builtin()).expect(IN_TABLE)
}

fn log_settings(layer: &Layer) -> LogSettings {
    let text = |path| single(layer, keys::Table::Log, path).text();
    LogSettings {
        level: LogLevel::from_word(&text("level")).expect(IN_TABLE),
        format: LogFormat::from_word(&text("format")).expect(IN_TABLE),
    }
}

fn serve_settings(layer: &Layer) -> ServeSettings {
    let value = |path| single(layer, keys::Table::Serve, path);
    ServeSettings {
        listen: value("listen").text().parse().expect("an address was parsed when the file was read"),
        preview: Switch::from(*value("preview") == Value::Flag(true)),
        token: match layer.entries.get("token").and_then(|entry| entry.value.as_ref()) {
            Some(Value::Password(token)) => Some(token.clone()),
            _ => None,
        },
    }
}
