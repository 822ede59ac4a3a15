//! The rate: which pictures an output with `max_fps` takes, evenly spaced by the camera's own time.

use crate::source::FrameTiming;

/// A step of the camera's time beyond this is a jump of its clock; the arrival tells the time then.
const JUMP_NS: i64 = 10_000_000_000;

/// Chooses the pictures that lie nearest to an even grid.
///
/// Pictures are not counted: a camera that sends 24.8 a second, or 15 at night, still gives the rate that was asked for.
#[derive(Debug, Default)]
pub struct Rate {
    /// Time between two pictures; 0 = every one is taken.
    period_ns: i64,
    /// The camera's time since the first picture, across its sessions.
    now_ns: i64,
    /// When the next picture is due.
    due_ns: i64,
    /// Average time between two pictures of the camera.
    interval_ns: i64,
    last: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    session: u32,
    pts_ns: i64,
    arrival_ns: i64,
}

impl Rate {
    /// At most `max_fps` pictures a second; 0 = all.
    #[must_use]
    pub fn new(max_fps: u32) -> Self {
        let period_ns = if max_fps == 0 { 0 } else { 1_000_000_000 / i64::from(max_fps) };
        Self { period_ns, ..Self::default() }
    }

    /// Whether the picture of this session and time is to be taken; [`Rate::took`] says that it was.
    pub fn is_due(&mut self, session: u32, timing: &FrameTiming) -> bool {
        if self.period_ns == 0 {
            return true;
        }
        let moment = Moment { session, pts_ns: timing.pts_ns, arrival_ns: timing.arrival_mono_ns };
        if let Some(last) = self.last.replace(moment) {
            let step = last.step_to(&moment);
            self.now_ns = self.now_ns.saturating_add(step);
            let usual = if self.interval_ns == 0 { step } else { self.interval_ns };
            self.interval_ns = usual + (step.min(self.period_ns) - usual) / 8;
        }
        // The next picture would be further from the moment that is due than this one.
        self.now_ns.saturating_add(self.interval_ns / 2) >= self.due_ns
    }

    /// The picture that was due is published.
    pub fn took(&mut self) {
        let behind = self.now_ns.saturating_sub(self.due_ns) > self.period_ns / 2;
        let base = if behind { self.now_ns } else { self.due_ns };
        self.due_ns = base.saturating_add(self.period_ns);
    }
}

impl Moment {
    /// Time to a later picture, ns; never negative.
    fn step_to(&self, next: &Self) -> i64 {
        let told = next.pts_ns.saturating_sub(self.pts_ns);
        if next.session == self.session && (1..JUMP_NS).contains(&told) {
            return told;
        }
        next.arrival_ns.saturating_sub(self.arrival_ns).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn at(pts_ns: i64, arrival_mono_ns: i64) -> FrameTiming {
        FrameTiming { pts_ns, arrival_mono_ns, ..FrameTiming::default() }
    }

    /// Times, in ms, of what is taken of pictures at `times`.
    fn taken(max_fps: u32, times: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut rate = Rate::new(max_fps);
        let mut take = |ns: &i64| {
            let due = rate.is_due(1, &at(*ns, 7 * ns));
            if due {
                rate.took();
            }
            due
        };
        times.into_iter().filter(|ns| take(ns)).map(|ns| ns / MS).collect()
    }

    /// Pictures of a camera of `millihertz` for `seconds`.
    fn camera(millihertz: i64, seconds: i64) -> impl Iterator<Item = i64> {
        (0..seconds * millihertz / 1000).map(move |number| number * 1_000_000_000_000 / millihertz)
    }

    #[test]
    fn every_picture_is_taken_without_a_limit_or_below_it() {
        assert_eq!(taken(0, camera(25_000, 4)).len(), 100);
        for millihertz in [1000, 4900, 3000, 333] {
            assert_eq!(taken(5, camera(millihertz, 100)).len() as i64, millihertz / 10, "{millihertz} mHz");
        }
    }

    #[test]
    fn five_of_twenty_five_are_exactly_every_fifth() {
        let times = taken(5, camera(25_000, 10));
        assert_eq!(times, (0..50).map(|number| number * 200).collect::<Vec<_>>());
    }

    #[test]
    fn the_rate_holds_and_is_even_at_rates_that_do_not_divide() {
        for (millihertz, max_fps) in [(25_000, 10), (30_000, 25), (29_970, 5), (24_800, 5), (15_000, 7), (5_100, 5)] {
            let times = taken(max_fps, camera(millihertz, 60));
            let rate = (times.len() - 1) as f64 * 1000.0 / (times[times.len() - 1] - times[0]) as f64;
            assert!((rate - f64::from(max_fps)).abs() < 0.02 * f64::from(max_fps), "{millihertz}: {rate} of {max_fps}");
            let period = 1000.0 / f64::from(max_fps);
            let source = 1_000_000.0 / millihertz as f64;
            for pair in times.windows(2) {
                let off = ((pair[1] - pair[0]) as f64 - period).abs();
                assert!(off < source + 1.0, "{millihertz} to {max_fps}: {pair:?}");
            }
        }
    }

    #[test]
    fn jitter_of_half_an_interval_does_not_change_the_rate() {
        let mut random = fastrand::Rng::with_seed(3);
        let times: Vec<i64> = camera(25_000, 60).map(|ns| ns + random.i64(0..19) * MS).collect();
        assert!((299..=301).contains(&taken(5, times).len()));
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let times = taken(5, camera(25_000, 2).chain(camera(25_000, 2).map(|ns| ns + 9_000 * MS)));
        assert_eq!(times, (0..10).chain(45..55).map(|number| number * 200).collect::<Vec<_>>());
    }

    #[test]
    fn a_new_session_and_a_clock_that_stands_go_by_the_arrival() {
        let mut rate = Rate::new(5);
        let mut take = |session, pts, arrival| {
            let due = rate.is_due(session, &at(pts, arrival));
            if due {
                rate.took();
            }
            due
        };
        assert!(take(1, 5_000 * MS, 100 * MS));
        assert!(!take(2, 0, 140 * MS), "40 ms later, whatever the new session's clock says");
        assert!(!take(2, 40 * MS, 180 * MS));
        assert!(take(2, 160 * MS, 300 * MS));
        let standing: Vec<bool> = (1..=5).map(|n| take(2, 160 * MS, (300 + n * 40) * MS)).collect();
        assert_eq!(standing, [false, false, false, false, true]);
    }

    #[test]
    fn what_was_not_published_is_due_again_with_the_next_picture() {
        let mut rate = Rate::new(5);
        assert!(rate.is_due(1, &at(0, 0)));
        assert!(rate.is_due(1, &at(40 * MS, 40 * MS)));
        rate.took();
        assert!(!rate.is_due(1, &at(80 * MS, 80 * MS)));
    }
}
