//! When the writer stops asking about leases: readers that hold thousands of locks make every lock call slow.
//!
//! The kernel keeps the locks of a file in one list and walks it at every call. Whoever may read the ring may lengthen
//! that list, and must not get at the writer's time with it.

/// A claim whose lock calls took longer is suspect.
const SLOW_CLAIM_NS: i64 = 200_000;
/// A query about one byte that takes longer confirms it: then it is the list, not a processor that was busy elsewhere.
const SLOW_QUERY_NS: i64 = 50_000;
/// Queries per suspect claim; the quickest one counts.
const QUERIES: u32 = 3;
/// Confirmed claims in a row that trip the guard.
const IN_A_ROW: u32 = 3;
/// The first pause, and what it doubles up to while it trips again and again.
const PAUSE_FIRST_NS: i64 = 10_000_000_000;
const PAUSE_MAX_NS: i64 = 600_000_000_000;
/// So long after a pause without tripping, the next pause is a first one again.
const CALM_NS: i64 = 60_000_000_000;

/// What a claim has shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing to say.
    Fine,
    /// The first claim after a pause that was not slow.
    FineAgain,
    /// Slow because of the list.
    Slow,
    /// Slow once too often: a pause begins now, so long.
    Tripped(i64),
}

/// Decides from the durations of lock calls whether to go on making them. All times are ns of one clock.
#[derive(Debug, Default)]
pub(crate) struct LockGuard {
    in_a_row: u32,
    pause_ns: i64,
    pause_ends_ns: i64,
    /// There was a pause, and no claim has been fine since.
    wary: bool,
}

impl LockGuard {
    /// Whether a pause is on.
    pub(crate) fn is_paused(&self, now_ns: i64) -> bool {
        now_ns < self.pause_ends_ns
    }

    /// Judges a claim made outside of a pause whose lock calls took `spent_ns`. `query` times one question to the kernel
    /// about a single byte and is asked only after a suspect claim.
    pub(crate) fn judge(&mut self, now_ns: i64, spent_ns: i64, mut query: impl FnMut() -> i64) -> Verdict {
        let slow = spent_ns > SLOW_CLAIM_NS && (0..QUERIES).all(|_| query() > SLOW_QUERY_NS);
        if !slow {
            self.in_a_row = 0;
            return if std::mem::take(&mut self.wary) { Verdict::FineAgain } else { Verdict::Fine };
        }
        self.in_a_row += 1;
        if self.in_a_row < IN_A_ROW {
            return Verdict::Slow;
        }
        let again = self.pause_ns > 0 && now_ns - self.pause_ends_ns <= CALM_NS;
        self.pause_ns = if again { (self.pause_ns * 2).min(PAUSE_MAX_NS) } else { PAUSE_FIRST_NS };
        self.pause_ends_ns = now_ns + self.pause_ns;
        self.in_a_row = 0;
        self.wary = true;
        Verdict::Tripped(self.pause_ns)
    }

    /// Ends the pause because the list is gone with its file; the next one is as long as if it had ended by itself.
    pub(crate) fn new_file(&mut self, now_ns: i64) {
        self.pause_ends_ns = self.pause_ends_ns.min(now_ns);
        self.in_a_row = 0;
        self.wary = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const S: i64 = 1_000 * MS;
    const SLOW: i64 = 300_000;
    const LONG_LIST: fn() -> i64 = || 70_000;

    /// Three slow claims at `now`.
    fn trip(guard: &mut LockGuard, now: i64) -> Verdict {
        assert_eq!(guard.judge(now, SLOW, LONG_LIST), Verdict::Slow);
        assert_eq!(guard.judge(now + MS, SLOW, LONG_LIST), Verdict::Slow);
        guard.judge(now + 2 * MS, SLOW, LONG_LIST)
    }

    #[test]
    fn three_confirmed_claims_in_a_row_pause_the_lock_calls_for_ten_seconds() {
        let mut guard = LockGuard::default();
        assert!(!guard.is_paused(S));
        assert_eq!(trip(&mut guard, S), Verdict::Tripped(10 * S));
        assert!(guard.is_paused(S + 2 * MS));
        assert!(guard.is_paused(11 * S));
        assert!(!guard.is_paused(11 * S + 2 * MS));
    }

    #[test]
    fn one_claim_that_is_not_slow_begins_the_count_anew() {
        let mut guard = LockGuard::default();
        for round in 0..100 {
            assert_eq!(guard.judge(round * MS, SLOW, LONG_LIST), Verdict::Slow);
            assert_eq!(guard.judge(round * MS, SLOW, LONG_LIST), Verdict::Slow);
            assert_eq!(guard.judge(round * MS, SLOW_CLAIM_NS, LONG_LIST), Verdict::Fine, "200 us are not slow");
        }
    }

    #[test]
    fn a_processor_that_was_busy_elsewhere_is_not_mistaken_for_a_long_list() {
        let mut guard = LockGuard::default();
        for round in 0..100 {
            // One quick query of the three shows that the list is short.
            let mut times = [90_000, 50_000, 90_000].into_iter();
            let query = || times.next().expect("three queries at most");
            assert_eq!(guard.judge(round * MS, 40 * MS, query), Verdict::Fine);
        }
    }

    #[test]
    fn the_kernel_is_asked_only_after_a_suspect_claim() {
        let mut guard = LockGuard::default();
        assert_eq!(guard.judge(0, SLOW_CLAIM_NS, || panic!("asked after a quick claim")), Verdict::Fine);
    }

    #[test]
    fn the_pause_doubles_to_ten_minutes_while_it_trips_again() {
        let mut guard = LockGuard::default();
        let mut now = S;
        for expected in [10, 20, 40, 80, 160, 320, 600, 600] {
            assert_eq!(trip(&mut guard, now), Verdict::Tripped(expected * S));
            now += 2 * MS + expected * S;
            assert!(!guard.is_paused(now));
        }
    }

    #[test]
    fn after_a_minute_of_calm_the_pause_is_ten_seconds_again() {
        let mut guard = LockGuard::default();
        trip(&mut guard, 0);
        assert_eq!(trip(&mut guard, 10 * S + 60 * S), Verdict::Tripped(20 * S), "just within the minute");
        let over = 70 * S + 2 * MS + 20 * S;
        assert_eq!(trip(&mut guard, over + 60 * S + 3 * MS), Verdict::Tripped(10 * S));
    }

    #[test]
    fn the_first_claim_that_is_fine_after_a_pause_is_told_once() {
        let mut guard = LockGuard::default();
        trip(&mut guard, 0);
        assert_eq!(guard.judge(11 * S, MS / 100, LONG_LIST), Verdict::FineAgain);
        assert_eq!(guard.judge(12 * S, MS / 100, LONG_LIST), Verdict::Fine);
    }

    #[test]
    fn a_new_file_has_no_list_and_ends_the_pause() {
        let mut guard = LockGuard::default();
        trip(&mut guard, 0);
        guard.new_file(S);
        assert!(!guard.is_paused(S));
        assert_eq!(guard.judge(2 * S, MS / 100, LONG_LIST), Verdict::Fine);
        assert_eq!(trip(&mut guard, 3 * S), Verdict::Tripped(20 * S), "whoever followed to the new file is not new");
    }
}
