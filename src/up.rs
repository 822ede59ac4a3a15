//! The cameras of one file as children of one process: what `camring up` does, for containers and laptops.
//!
//! ```text
//! SIGTERM, SIGHUP --> Up --Wish--> Child (one per camera) --> camring run NAME
//!                      ^------News----'        '-- its lines --> Lines --> standard error
//! ```
//!
//! One thread runs it all; a second one writes lines, because standard error may be stuck.

pub mod child;
pub mod lines;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::config::{self, Config, ConfigErrors, LoadOptions, MountRoom};
use child::{Ask, Child, Launch, News, Wish};
use lines::Lines;

/// What children have told and nobody has heard; more of them wait.
const NEWS: usize = 64;

/// What is to run.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The program of the children.
    pub program: PathBuf,
    /// The configuration; `None` = the usual files.
    pub config: Option<PathBuf>,
    /// The memory mount.
    pub shm_dir: PathBuf,
    /// The cameras; empty = all of the configuration.
    pub only: Vec<String>,
}

impl Orders {
    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, and the first camera that is asked for and not in it.
    pub fn read(&self) -> Result<Config, ConfigErrors> {
        let files = Config::find(self.config.as_deref(), config::CONFIG_FOLDER.as_ref())?;
        let config = Config::load(&files, &LoadOptions { mount: MountRoom::of(&self.shm_dir) })?;
        self.only.iter().try_for_each(|name| config.camera(name).map(drop))?;
        Ok(config)
    }

    /// The cameras that are to run.
    #[must_use]
    pub fn cameras(&self, config: &Config) -> BTreeSet<String> {
        let all = config.cameras.keys().map(|name| name.as_str().to_owned());
        all.filter(|name| self.only.is_empty() || self.only.contains(name)).collect()
    }

    fn launch(&self, camera: &str, number: usize) -> Launch {
        let mut arguments = vec!["run".to_owned(), camera.to_owned()];
        if let Some(config) = &self.config {
            arguments.extend(["--config".to_owned(), config.display().to_string()]);
        }
        arguments.extend(["--shm-dir".to_owned(), self.shm_dir.display().to_string()]);
        Launch { program: self.program.clone(), arguments, camera: camera.to_owned(), number }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The operator asked for it, and no child is left.
    Stopped,
    /// Every child has ended with a code that only a change cures; this is the last one.
    NoneLeft(i32),
}

struct Entry {
    id: u64,
    camera: String,
    wishes: watch::Sender<Wish>,
    /// The code it has ended with for good.
    rests: Option<i32>,
}

impl Entry {
    fn ask(&self, ask: Ask) {
        self.wishes.send_modify(|wish| wish.ask = wish.ask.max(ask));
    }

    fn is_leaving(&self) -> bool {
        self.wishes.borrow().ask != Ask::Run
    }
}

/// The children and their orders.
pub struct Up {
    orders: Orders,
    lines: Lines,
    entries: Vec<Entry>,
    next_id: u64,
    news: mpsc::Sender<(u64, News)>,
    heard: mpsc::Receiver<(u64, News)>,
}

impl Up {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(orders: Orders, lines: Lines) -> Self {
        let (news, heard) = mpsc::channel(NEWS);
        Self { orders, lines, entries: Vec::new(), next_id: 0, news, heard }
    }

    /// Runs `cameras` until the operator ends it or no child is left that could go on.
    ///
    /// SIGTERM and SIGINT end all children in order, a second one at once; SIGHUP reads the configuration again.
    ///
    /// # Errors
    ///
    /// A signal cannot be listened to.
    pub async fn run(mut self, cameras: &BTreeSet<String>) -> io::Result<Outcome> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        cameras.iter().for_each(|camera| self.begin(camera));
        let mut asked = Ask::Run;
        while !self.entries.is_empty() {
            tokio::select! {
                name = stop_signal(&mut terminate, &mut interrupt) => {
                    asked = if asked == Ask::Run { Ask::Stop } else { Ask::Now };
                    let cameras = self.entries.len();
                    tracing::info!(signal = name, cameras, at_once = asked == Ask::Now, "ending every camera");
                    self.entries.iter().for_each(|entry| entry.ask(asked));
                }
                _ = hangup.recv(), if asked == Ask::Run => self.reload(),
                Some((id, news)) = self.heard.recv() => self.hear(id, news),
            }
            if asked == Ask::Run
                && let Some(code) = self.none_left()
            {
                return Ok(Outcome::NoneLeft(code));
            }
        }
        Ok(Outcome::Stopped)
    }

    fn begin(&mut self, camera: &str) {
        let (wishes, wanted) = watch::channel(Wish::default());
        let id = self.next_id;
        self.next_id += 1;
        let launch = self.orders.launch(camera, usize::try_from(id).unwrap_or(0));
        let child = Child { launch, lines: self.lines.clone(), wishes: wanted, news: self.news.clone(), id };
        self.entries.push(Entry { id, camera: camera.to_owned(), wishes, rests: None });
        tokio::spawn(child.tend());
    }

    fn hear(&mut self, id: u64, news: News) {
        match news {
            News::Over => self.entries.retain(|entry| entry.id != id),
            News::Final(code) => self.set_rest(id, Some(code)),
            News::Again => self.set_rest(id, None),
        }
    }

    fn set_rest(&mut self, id: u64, rests: Option<i32>) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.rests = rests;
        }
    }

    /// The code of the last child, when none of them goes on by itself.
    fn none_left(&self) -> Option<i32> {
        let mut code = None;
        for entry in &self.entries {
            code = Some(entry.rests?);
        }
        code
    }

    /// Takes over what the configuration says now; a wrong one changes nothing.
    fn reload(&mut self) {
        let config = match self.orders.read() {
            Ok(config) => config,
            Err(errors) => {
                for problem in &errors.problems {
                    tracing::error!("the configuration is not taken over: {}", crate::reload::line(problem));
                }
                return;
            }
        };
        let wanted = self.orders.cameras(&config);
        if wanted.is_empty() {
            tracing::error!("the configuration is not taken over: there is no camera in it; end this process instead");
            return;
        }
        for entry in self.entries.iter().filter(|entry| !entry.is_leaving()) {
            if wanted.contains(&entry.camera) {
                entry.wishes.send_modify(|wish| wish.reloads += 1);
            } else {
                tracing::info!(camera = entry.camera, "it is no longer in the configuration; its process ends");
                entry.ask(Ask::Stop);
            }
        }
        let known = |camera: &&String| self.entries.iter().any(|entry| entry.camera == **camera && !entry.is_leaving());
        let new: Vec<String> = wanted.iter().filter(|camera| !known(camera)).cloned().collect();
        for camera in new {
            tracing::info!(camera, "it is new in the configuration; its process begins");
            self.begin(&camera);
        }
    }
}

async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
