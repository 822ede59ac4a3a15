//! The rhythm of cuts: whether a camera ends its sessions at the same age each time.

use std::time::Duration;

use camring_ring::frame::Reason;

/// So many cuts make a rhythm.
const CUTS: usize = 3;
/// A session that ended sooner was no session to rely on.
const LEAST: Duration = Duration::from_secs(3);
/// Cuts may be so far apart, beside a tenth of their age.
const SPREAD: Duration = Duration::from_millis(500);

/// The ages of the newest sessions that the camera has cut.
#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    ages: Vec<Duration>,
}

impl Rhythm {
    /// A session that was live for `age` has ended; the age at which the camera ends each, if that is a rhythm. Any end
    /// but the camera's own breaks it.
    pub(crate) fn ended(&mut self, reason: Reason, age: Duration) -> Option<Duration> {
        if reason != Reason::ServerClosed || age < LEAST {
            self.ages.clear();
            return None;
        }
        if self.ages.len() == CUTS {
            self.ages.remove(0);
        }
        self.ages.push(age);
        self.age()
    }

    /// The age at which the camera ends each session, as far as that is known.
    pub(crate) fn age(&self) -> Option<Duration> {
        let (first, last) = (*self.ages.iter().min()?, *self.ages.iter().max()?);
        (self.ages.len() == CUTS && last - first <= SPREAD.max(first / 10)).then_some(first)
    }

    /// The age at which another session is to be begun, so that it can take over in time.
    pub(crate) fn relief_at(&self) -> Option<Duration> {
        self.age().map(|age| age / 5 * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(sessions: &[(Reason, u64)]) -> Vec<bool> {
        let mut rhythm = Rhythm::default();
        let ended = |(reason, ms): &(Reason, u64)| rhythm.ended(*reason, Duration::from_millis(*ms)).is_some();
        sessions.iter().map(ended).collect()
    }

    #[test]
    fn three_cuts_at_one_age_are_a_rhythm_until_something_else_happens() {
        use Reason::{NoPackets, ServerClosed as Cut};
        assert_eq!(heard(&[(Cut, 60_000), (Cut, 61_000), (Cut, 58_500), (Cut, 60_000)]), [false, false, true, true]);
        assert_eq!(heard(&[(Cut, 10_000), (Cut, 17_000), (Cut, 12_000), (Cut, 30_000)]), [false; 4]);
        assert_eq!(heard(&[(Cut, 500), (Cut, 500), (Cut, 500)]), [false; 3], "no session to rely on");
        let broken = [(Cut, 9000), (Cut, 9000), (NoPackets, 9000), (Cut, 9000), (Cut, 9000), (Cut, 9000)];
        assert_eq!(heard(&broken), [false, false, false, false, false, true]);
    }
}
