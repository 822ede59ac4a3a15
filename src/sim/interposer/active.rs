//! The faults that are in force: set by the course of the script, looked at by every connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::script::{Action, Chance, Ending};

/// A fault in force, and what it has done so far.
#[derive(Debug)]
pub struct Running {
    pub action: Action,
    chance: Chance,
    /// Packets or requests that it looked at.
    seen: AtomicU64,
    /// Those that it changed.
    changed: AtomicU64,
}

impl Running {
    pub fn new(action: Action, chance: Chance) -> Self {
        Self { action, chance, seen: AtomicU64::new(0), changed: AtomicU64::new(0) }
    }

    /// Counts what it looks at; the number of this one, from 0.
    pub fn look(&self) -> u64 {
        self.seen.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts what it changes.
    pub fn change(&self) {
        self.changed.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at one packet and says whether it is one of `percent` in a hundred, which it then changes.
    pub fn chooses(&self, percent: u8) -> bool {
        let chosen = self.chance.hits(self.look(), percent);
        if chosen {
            self.change();
        }
        chosen
    }

    /// A number below `limit` for what was looked at as `number`.
    pub fn below(&self, number: u64, limit: u64) -> u64 {
        self.chance.below(number, limit)
    }

    /// What it looked at and what it changed.
    pub fn counts(&self) -> (u64, u64) {
        (self.seen.load(Ordering::Relaxed), self.changed.load(Ordering::Relaxed))
    }
}

/// An order to every connection to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cut {
    /// Counts the orders; a connection obeys those that it has not seen.
    pub number: u64,
    pub by: Ending,
    pub mid_packet: bool,
}

/// Everything in force at one time.
#[derive(Clone, Debug, Default)]
pub struct Active {
    pub running: Vec<Arc<Running>>,
    pub cut: Option<Cut>,
}

impl Active {
    fn any(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.running.iter().any(|running| wanted(&running.action))
    }

    /// Nothing is forwarded.
    pub fn is_stalled(&self) -> bool {
        self.any(|action| *action == Action::Stall)
    }

    /// Everything is swallowed.
    pub fn is_half_open(&self) -> bool {
        self.any(|action| *action == Action::HalfOpen)
    }

    /// New connections are refused.
    pub fn is_refusing(&self) -> bool {
        self.any(|action| matches!(action, Action::Refuse(_)))
    }

    /// The lowest rate in force, bytes per second.
    pub fn rate(&self) -> Option<u32> {
        let rate = |running: &Arc<Running>| match running.action {
            Action::Bandwidth { kbit } => Some(kbit.saturating_mul(125)),
            _ => None,
        };
        self.running.iter().filter_map(rate).min()
    }

    /// How many orders to end there were.
    pub fn cuts(&self) -> u64 {
        self.cut.map_or(0, |cut| cut.number)
    }
}
