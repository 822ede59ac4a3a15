//! What `top` knows of every ring, kept between two looks: that is what rates are made of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::{AttachError, Counter, Ring, ShmDir, Status, rings};

use super::Args;
use crate::cli::Global;
use crate::cli::output::{Reading, mount_failure};
use crate::diagnosis::{Finding, Level, Looks, Sight, diagnose};
use crate::exit::Failure;
use crate::report::{Grade, RingReport, milliseconds};
use crate::slots::{self, Holder, SlotLine};

/// Counters of frames and pictures that did not reach readers, by fault of somebody.
const DROPS: [Counter; 5] = [
    Counter::DroppedNoSlot,
    Counter::DroppedLeaky,
    Counter::DroppedGate,
    Counter::DroppedOverload,
    Counter::DroppedCorrupt,
];

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub name: String,
    /// What the ring says, or why it cannot be read.
    pub report: Result<RingReport, String>,
    /// From the last packet to the converter, of the newest frame.
    pub lag_ms: Option<f64>,
    /// From the decoder to publication, mean since the last look (or ever).
    pub publish_ms: Option<f64>,
    pub drops: u64,
    /// Drops a second since the last look.
    pub drop_rate: f64,
    pub reconnects: u64,
    /// Of one core, since the last look.
    pub cpu_percent: Option<f64>,
    pub rss_bytes: u64,
}

impl Line {
    /// The state in words, as `list` has it.
    pub(super) fn state(&self) -> String {
        self.report.as_ref().map_or_else(|_| "unreadable".into(), RingReport::state_words)
    }

    pub(super) fn grade(&self) -> Grade {
        self.report.as_ref().map_or(Grade::Broken, RingReport::grade)
    }

    /// Why, as `list` has it.
    pub(super) fn note(&self) -> String {
        let note = self.report.as_ref().map_or_else(Clone::clone, RingReport::note);
        note.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

/// A ring opened: everything that lies in it and everybody who holds something of it.
#[derive(Debug)]
pub(super) struct Opened {
    pub line: Line,
    pub slots: Vec<SlotLine>,
    /// Slots that somebody holds; `None` where the kernel hides it.
    pub leased: Option<Vec<u32>>,
    pub holders: Vec<Holder>,
    /// Readers that are counted and may not be looked at, by their own numbers.
    pub strangers: Vec<u32>,
    pub findings: Vec<Finding>,
}

/// By what the table is sorted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Order {
    #[default]
    Name,
    State,
    Age,
    Drops,
    Cpu,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Name => Self::State,
            Self::State => Self::Age,
            Self::Age => Self::Drops,
            Self::Drops => Self::Cpu,
            Self::Cpu => Self::Name,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Age => "age",
            Self::Drops => "drops",
            Self::Cpu => "cpu",
        }
    }
}

/// A ring that stays attached, with what the last look found.
struct Watched {
    ring: Ring,
    before: Option<(Instant, Status)>,
    first: Option<RingReport>,
}

/// All rings.
pub(super) struct Board {
    shm: ShmDir,
    global: Global,
    reading: Reading,
    only: Vec<String>,
    watched: BTreeMap<String, Watched>,
    lines: Vec<Line>,
    pub order: Order,
}

impl Board {
    pub(super) fn new(args: &Args, global: &Global) -> Self {
        Self {
            shm: ShmDir::new(&global.shm_dir),
            global: global.clone(),
            reading: args.reading.clone(),
            only: args.ring.clone(),
            watched: BTreeMap::new(),
            lines: Vec::new(),
            order: Order::default(),
        }
    }

    /// Looks at every ring once.
    ///
    /// # Errors
    ///
    /// The memory mount cannot be read.
    pub(super) fn refresh(&mut self) -> Result<(), Failure> {
        let names = if self.only.is_empty() {
            let found = rings(&self.shm).map_err(|error| mount_failure(self.shm.root(), error))?;
            found.iter().map(ToString::to_string).collect()
        } else {
            self.only.clone()
        };
        self.watched.retain(|name, _| names.contains(name));
        self.lines = names.iter().filter_map(|name| self.look(name)).collect();
        self.sort();
        Ok(())
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(super) fn sort(&mut self) {
        let number = |value: Option<f64>| (value.unwrap_or(-1.0) * 1000.0) as i64;
        let age = |line: &Line| number(line.report.as_ref().ok().and_then(|report| report.age_ms));
        match self.order {
            Order::Name => self.lines.sort_by(|a, b| a.name.cmp(&b.name)),
            Order::State => self.lines.sort_by_key(|line| (line.grade(), line.name.clone())),
            Order::Age => self.lines.sort_by_key(|line| (-age(line), line.name.clone())),
            Order::Drops => self.lines.sort_by_key(|line| (std::cmp::Reverse(line.drops), line.name.clone())),
            Order::Cpu => self.lines.sort_by_key(|line| (-number(line.cpu_percent), line.name.clone())),
        }
    }

    /// `None` for a ring that is not there, unless it was asked for by name.
    fn look(&mut self, name: &str) -> Option<Line> {
        // What has been replaced or removed is looked for anew under its name.
        if self.watched.get(name).is_some_and(|watched| watched.ring.is_removed() || watched.ring.status().retired) {
            self.watched.remove(name);
        }
        if !self.watched.contains_key(name) {
            match self.reading.look(&self.global, name) {
                Ok(ring) => drop(self.watched.insert(name.to_owned(), Watched { ring, before: None, first: None })),
                Err(AttachError::NotFound { .. } | AttachError::Removed(_)) if self.only.is_empty() => return None,
                Err(error) => return Some(unreadable(name, &error)),
            }
        }
        self.watched.get_mut(name).map(|watched| watched.line(name))
    }

    /// The same ring, opened; `None` when it is gone.
    pub(super) fn open(&self, name: &str) -> Option<Opened> {
        let line = self.lines.iter().find(|line| line.name == name)?.clone();
        let Some(watched) = self.watched.get(name) else {
            return Some(Opened {
                line,
                slots: vec![],
                leased: None,
                holders: vec![],
                strangers: vec![],
                findings: vec![],
            });
        };
        let layout = watched.ring.layout();
        let file = slots::open_same(name, &self.shm, &layout).map(|(_, file)| file);
        let holders = file.as_ref().map(|file| slots::holders(file, &layout)).unwrap_or_default();
        let leased = file.as_ref().and_then(|file| slots::leased(file, &layout));
        let slots = file.as_ref().and_then(|file| slots::read(file, &layout)).unwrap_or_default();
        let seen: u32 = holders.iter().map(|holder| holder.presences).sum();
        let counted = watched.ring.readers();
        // A reader in another pid namespace announces another number: only when some are missing they are named so.
        let strangers = if counted.len() as u32 > seen {
            counted
                .into_iter()
                .filter(|pid| holders.iter().all(|holder| holder.pid != *pid || holder.presences == 0))
                .collect()
        } else {
            vec![]
        };
        let findings = watched.findings(&line);
        Some(Opened {
            line,
            slots,
            leased: leased.map(|slots| slots.into_iter().collect()),
            holders,
            strangers,
            findings,
        })
    }
}

fn unreadable(name: &str, error: &AttachError) -> Line {
    Line {
        name: name.to_owned(),
        report: Err(error.to_string()),
        lag_ms: None,
        publish_ms: None,
        drops: 0,
        drop_rate: 0.0,
        reconnects: 0,
        cpu_percent: None,
        rss_bytes: 0,
    }
}

impl Watched {
    fn line(&mut self, name: &str) -> Line {
        let (status, now) = (self.ring.status(), Instant::now());
        let report = RingReport::new(&self.ring, name, &status);
        let drops = |status: &Status| DROPS.iter().map(|counter| status.counter(*counter)).sum::<u64>();
        let before = self.before.as_ref().map(|(at, status)| (now.duration_since(*at), status));
        let lag_ms = self.ring.peek().ok().map(|meta| milliseconds(meta.lag_ns.cast_signed()));
        let rate = |(time, before): &(Duration, &Status)| {
            drops(&status).saturating_sub(drops(before)) as f64 / time.as_secs_f64().max(0.001)
        };
        let line = Line {
            name: name.to_owned(),
            lag_ms,
            publish_ms: publish_ms(before.map(|(_, before)| before), &status),
            drops: drops(&status),
            drop_rate: before.as_ref().map_or(0.0, rate),
            reconnects: status.counter(Counter::Reconnects),
            cpu_percent: cpu_percent(before, &status).filter(|_| report.writer_alive),
            rss_bytes: if report.writer_alive { status.process.rss_bytes } else { 0 },
            report: Ok(report.clone()),
        };
        self.first.get_or_insert(report);
        // Processor time is written down once a second: a shorter distance would show stairs.
        let due = self.before.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= Duration::from_millis(950));
        if due {
            self.before = Some((now, status));
        }
        line
    }

    /// What ails it, as `doctor` says it, by what can be seen without the pictures.
    fn findings(&self, line: &Line) -> Vec<Finding> {
        let (Ok(now), Some(before)) = (&line.report, &self.first) else { return Vec::new() };
        let status = self.ring.status();
        let mut frames = self.ring.held();
        frames.sort_by_key(|frame| frame.seq);
        let lived = mono_ns().saturating_sub(status.heartbeat_mono_ns.cast_signed()).max(0);
        let exists = camring_ring::clock::real_ns().saturating_sub(self.ring.layout().created_real_ns).max(lived);
        let looks = Looks {
            before: before.clone(),
            now: now.clone(),
            reconnects: status.reconnects,
            exists_ms: milliseconds(exists),
            frames,
            sight: Sight::default(),
        };
        diagnose(&looks).into_iter().filter(|finding| finding.level != Level::Ok).collect()
    }
}

/// Mean since the last look, or over all when nothing has come since.
fn publish_ms(before: Option<&Status>, now: &Status) -> Option<f64> {
    let all = now.decode_to_publish;
    let (sum, count) =
        before.map_or((0, 0), |before| (before.decode_to_publish.sum_ns, before.decode_to_publish.count));
    let recent = (all.sum_ns.saturating_sub(sum), all.count.saturating_sub(count));
    let (sum, count) = if recent.1 > 0 { recent } else { (all.sum_ns, all.count) };
    (count > 0).then(|| milliseconds((sum / count).cast_signed()))
}

/// By the daemon's own account of its processor time, between two of its signs of life.
fn cpu_percent(before: Option<(Duration, &Status)>, now: &Status) -> Option<f64> {
    let (_, before) = before?;
    let busy = |status: &Status| status.process.cpu_user_ns.saturating_add(status.process.cpu_sys_ns);
    let time = now.heartbeat_mono_ns.checked_sub(before.heartbeat_mono_ns).filter(|time| *time > 0)?;
    Some(busy(now).saturating_sub(busy(before)) as f64 * 100.0 / time as f64)
}
