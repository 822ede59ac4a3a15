//! The course of a script: which fault begins or ends when, every choice made by the seed.

use std::time::Duration;

use crate::config::duration::DurationRange;

use super::{Action, Fault, Script};

/// A choice for each packet that depends on the seed and the packet's number alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chance(u64);

impl Chance {
    /// Whether packet `number` is one of `percent` in a hundred.
    pub fn hits(self, number: u64, percent: u8) -> bool {
        mix(self.0, number) % 10_000 < u64::from(percent) * 100
    }

    /// A number below `limit` for packet `number`; 0 when the limit is 0.
    pub fn below(self, number: u64, limit: u64) -> u64 {
        mix(self.0 ^ 0x5bd1_e995, number).checked_rem(limit).unwrap_or(0)
    }

    /// The first packets that are chosen, at most 16 of the first 10 000.
    pub fn first_hits(self, percent: u8) -> Vec<u64> {
        (0..10_000).filter(|&number| self.hits(number, percent)).take(16).collect()
    }
}

/// Two numbers become one that looks like neither.
fn mix(one: u64, other: u64) -> u64 {
    fastrand::Rng::with_seed(one ^ other.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
}

/// What happens to a fault.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Edge {
    /// It ends; at the same time as a beginning, first.
    End,
    /// It begins.
    Begin,
}

/// One step of the course.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// When, counted from the script's origin.
    pub at: Duration,
    /// Which fault, counted from 1 in the order of the script.
    pub fault: usize,
    /// Its how-manieth time, from 1.
    pub occurrence: u64,
    /// What happens to it.
    pub edge: Edge,
    /// How long it is to last; `None` = it is over at once, or lasts until the camera stops.
    pub lasts: Option<Duration>,
    /// What it does.
    pub action: Action,
    /// Its choices.
    pub chance: Chance,
}

/// The steps in their order; endless when a fault repeats without a number.
#[derive(Debug)]
pub struct Plan {
    courses: Vec<Course>,
}

#[derive(Debug)]
struct Course {
    fault: Fault,
    number: usize,
    seed: u64,
    random: fastrand::Rng,
    next: Option<Planned>,
}

impl Plan {
    /// The same script and seed give the same plan.
    pub fn new(script: &Script, seed: u64) -> Self {
        let course = |(index, fault): (usize, &Fault)| Course::new(fault.clone(), index + 1, seed);
        Self { courses: script.faults.iter().enumerate().map(course).collect() }
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let order = |course: &&mut Course| course.next.as_ref().map(|next| (next.at, next.edge, course.number));
        let first = self.courses.iter_mut().filter(|course| course.next.is_some()).min_by_key(order)?;
        first.advance()
    }
}

impl Course {
    fn new(fault: Fault, number: usize, seed: u64) -> Self {
        let seed = mix(seed, number as u64);
        let mut course = Self { random: fastrand::Rng::with_seed(seed), fault, number, seed, next: None };
        let at = pick(&mut course.random, course.fault.at);
        course.next = Some(course.begin(1, at));
        course
    }

    fn begin(&mut self, occurrence: u64, at: Duration) -> Planned {
        let lasts = self.fault.lasts.map(|lasts| pick(&mut self.random, lasts));
        let chance = Chance(mix(self.seed, occurrence));
        let (fault, action) = (self.number, self.fault.action);
        Planned { at, fault, occurrence, edge: Edge::Begin, lasts, action, chance }
    }

    /// Gives the next step and prepares the one after it.
    fn advance(&mut self) -> Option<Planned> {
        let now = self.next.take()?;
        let began = match now.edge {
            Edge::Begin => now.at,
            Edge::End => now.at.saturating_sub(now.lasts.unwrap_or_default()),
        };
        self.next = match (now.edge, now.lasts) {
            (Edge::Begin, Some(lasts)) => Some(Planned { at: now.at + lasts, edge: Edge::End, ..now.clone() }),
            _ => self.again(now.occurrence, began),
        };
        Some(now)
    }

    fn again(&mut self, occurrence: u64, began: Duration) -> Option<Planned> {
        let repeat = self.fault.repeat.filter(|_| self.fault.times.is_none_or(|times| occurrence < times))?;
        let at = began.checked_add(pick(&mut self.random, repeat))?;
        Some(self.begin(occurrence + 1, at))
    }
}

/// A time within a range, to the millisecond.
fn pick(random: &mut fastrand::Rng, range: DurationRange) -> Duration {
    let width = u64::try_from((range.max - range.first).as_millis()).unwrap_or(u64::MAX);
    range.first + Duration::from_millis(random.u64(0..=width))
}

impl Action {
    /// How scripts spell it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stall => "stall",
            Self::HalfOpen => "half-open",
            Self::Refuse(_) => "refuse",
            Self::Cut { .. } => "cut",
            Self::Slow { .. } => "slow",
            Self::NoAnswer { .. } => "no-answer",
            Self::Status { .. } => "status",
            Self::Garbage => "garbage",
            Self::Sdp(_) => "sdp",
            Self::Sessions { .. } => "sessions",
            Self::SessionTimeout { .. } => "session-timeout",
            Self::Reports { .. } => "sender-reports",
            Self::Loss { .. } => "loss",
            Self::Duplicate { .. } => "duplicate",
            Self::Reorder { .. } => "reorder",
            Self::Delay { .. } => "delay",
            Self::Marker => "marker",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Picture(super::PictureFault::Frozen) => "frozen",
            Self::Picture(super::PictureFault::Black) => "black",
            Self::Picture(super::PictureFault::Green) => "green",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::known_actions;
    use super::*;
    use crate::config::SourceFile;

    fn plan(text: &str, seed: u64) -> Vec<Planned> {
        let file = SourceFile::without_secrets(PathBuf::from("plan.toml"), text.to_owned());
        Plan::new(&Script::parse(&file).unwrap(), seed).take(50).collect()
    }

    const RANDOM: &str =
        "[[fault]]\nat = \"1s..9s\"\nfor = \"1s..2s\"\nrepeat = \"3s..5s\"\ntimes = 4\ndo = \"loss\"\n";

    #[test]
    fn the_seed_makes_every_choice() {
        assert_eq!(plan(RANDOM, 1), plan(RANDOM, 1));
        assert_ne!(plan(RANDOM, 1), plan(RANDOM, 2));
        let (one, two) = (plan(RANDOM, 1)[0].chance, plan(RANDOM, 2)[0].chance);
        assert_ne!(one.first_hits(2), two.first_hits(2));
        let hits = (0..100_000).filter(|&number| one.hits(number, 2)).count();
        assert!((1_800..2_200).contains(&hits), "{hits} of 100 000 packets at 2 percent");
        assert!((0..1000).all(|number| one.below(number, 7) < 7) && one.below(0, 0) == 0);
    }

    #[test]
    fn steps_come_in_order_and_an_end_before_a_beginning() {
        let steps = plan(RANDOM, 3);
        assert_eq!(steps.len(), 8, "four times, begin and end");
        assert!(steps.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!((1..=9).contains(&steps[0].at.as_secs()));
        for pair in steps.chunks(2) {
            assert_eq!((pair[0].edge, pair[1].edge), (Edge::Begin, Edge::End));
            assert_eq!(pair[1].at - pair[0].at, pair[0].lasts.unwrap());
        }
        let text = "[[fault]]\nfor = \"2s\"\nrepeat = \"2s\"\ndo = \"stall\"\n[[fault]]\nat = \"2s\"\ndo = \"cut\"\n";
        let steps: Vec<_> = plan(text, 1).iter().map(|s| (s.at.as_secs(), s.edge, s.fault)).take(5).collect();
        use Edge::{Begin, End};
        assert_eq!(steps, [(0, Begin, 1), (2, End, 1), (2, Begin, 1), (2, Begin, 2), (4, End, 1)]);
        assert_eq!(plan(text, 1).len(), 50, "without `times` it goes on");
    }

    #[test]
    fn every_action_has_the_word_that_scripts_know() {
        for known in known_actions() {
            let text = format!("[[fault]]\ndo = \"{}\"\n", known.word);
            assert_eq!(plan(&text, 1)[0].action.word(), known.word);
        }
    }
}
