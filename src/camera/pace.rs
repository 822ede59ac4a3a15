//! The pace of one session: how far apart its frames are, and whether they come much slower than usual.

use std::time::Duration;

use crate::clock::Mono;

/// Least length of a measuring window.
const WINDOW: Duration = Duration::from_secs(2);
/// Least time after which a window with too few frames is called slow: beyond the stall limit of a fast camera, which
/// is to be called stalled at once.
const OVERDUE: Duration = Duration::from_secs(3);
/// Frames that end a window.
const WINDOW_FRAMES: u64 = 4;
/// A session's first seconds are not "usual": many servers begin with a burst of old frames.
const SETTLING: Duration = Duration::from_secs(5);
/// Weight of the newest interval in the average that the stall limit follows.
const INTERVAL_WEIGHT: f64 = 0.25;
/// Weight of the newest window in what is usual.
const USUAL_WEIGHT: f64 = 0.125;
/// Intervals this many times the usual one are slow: under half the frame rate.
const SLOW: f64 = 2.0;

/// Measures the pace from the count of decoded frames and the time of the newest one.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    begun: Option<Mono>,
    newest: Option<Mark>,
    interval_ns: Option<f64>,
    window: Option<Mark>,
    usual_ns: Option<f64>,
    slow: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    decoded: u64,
    at: Mono,
}

impl Pace {
    /// Takes note of `decoded` frames so far, the newest of them decoded `at`.
    pub(crate) fn observe(&mut self, now: Mono, decoded: u64, at: Mono) {
        let mark = Mark { decoded, at };
        self.begun.get_or_insert(at);
        self.follow_interval(mark);
        let window = *self.window.get_or_insert(mark);
        if let Some((measured_ns, next)) = self.measure(window, mark, now) {
            self.settle(measured_ns, now);
            self.window = Some(next);
        }
    }

    /// Forgets the window under way, because frames are withheld on purpose.
    pub(crate) fn pause(&mut self) {
        self.newest = None;
        self.window = None;
        self.slow = false;
    }

    /// Average time between frames; `None` before the second one.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval_ns.and_then(|ns| Duration::try_from_secs_f64(ns / 1e9).ok())
    }

    /// Whether frames come at less than half their usual rate.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow
    }

    fn follow_interval(&mut self, mark: Mark) {
        let Some(newest) = self.newest.replace(mark) else { return };
        let frames = mark.decoded.saturating_sub(newest.decoded);
        if frames == 0 {
            return;
        }
        let each_ns = nanos(mark.at.since(newest.at)) / frames as f64;
        let interval_ns = self.interval_ns.get_or_insert(each_ns);
        *interval_ns += (each_ns - *interval_ns) * INTERVAL_WEIGHT;
    }

    /// Interval over the window and the start of the next one, when this one is over.
    fn measure(&self, window: Mark, mark: Mark, now: Mono) -> Option<(f64, Mark)> {
        let frames = mark.decoded.saturating_sub(window.decoded);
        let filled = mark.at.since(window.at);
        if frames >= WINDOW_FRAMES && filled >= WINDOW {
            return Some((nanos(filled) / frames as f64, mark));
        }
        // Too few frames in the time of twice as many: slow for certain, so do not wait for the rest of them.
        let open = now.since(window.at);
        let patience_ns = self.usual_ns? * SLOW * WINDOW_FRAMES as f64;
        let overdue = frames < WINDOW_FRAMES && open >= OVERDUE && nanos(open) > patience_ns;
        overdue.then(|| (nanos(open) / frames.max(1) as f64, Mark { decoded: mark.decoded, at: now }))
    }

    fn settle(&mut self, measured_ns: f64, now: Mono) {
        let settled = self.begun.is_some_and(|begun| now.since(begun) > SETTLING);
        match &mut self.usual_ns {
            // A slow window teaches nothing: otherwise the slowness would become usual.
            Some(usual_ns) if settled => {
                self.slow = measured_ns > *usual_ns * SLOW;
                if !self.slow {
                    *usual_ns += (measured_ns - *usual_ns) * USUAL_WEIGHT;
                }
            }
            usual_ns => *usual_ns = Some(measured_ns),
        }
    }
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Plays `count` frames `step_ms` apart, with a look every 250 ms, and returns the pace's word after each look.
    struct Player {
        pace: Pace,
        now: i64,
        newest: i64,
        decoded: u64,
    }

    impl Player {
        fn new() -> Self {
            Self { pace: Pace::default(), now: 1_000_000 * MS, newest: 0, decoded: 0 }
        }

        fn play(&mut self, count: u64, step_ms: i64) -> bool {
            for _ in 0..count {
                for _ in 0..step_ms / 10 {
                    self.now += 10 * MS;
                    if self.decoded > 0 && self.now % (250 * MS) == 0 {
                        self.look();
                    }
                }
                self.decoded += 1;
                self.newest = self.now;
                self.look();
            }
            self.pace.is_slow()
        }

        fn look(&mut self) {
            self.pace.observe(Mono(self.now), self.decoded, Mono(self.newest));
        }
    }

    #[test]
    fn the_interval_is_unknown_before_the_second_frame() {
        let mut player = Player::new();
        player.play(1, 40);
        assert_eq!(player.pace.interval(), None);
        player.play(1, 40);
        assert_eq!(player.pace.interval(), Some(Duration::from_millis(40)));
    }

    #[test]
    fn a_steady_camera_is_never_slow() {
        for step_ms in [20, 40, 100, 1000, 5000] {
            let mut player = Player::new();
            for _ in 0..60 {
                assert!(!player.play(1, step_ms), "{step_ms} ms");
            }
        }
    }

    #[test]
    fn a_third_of_the_usual_rate_is_slow_until_the_rate_is_back() {
        let mut player = Player::new();
        player.play(500, 40);
        assert!(player.play(50, 120));
        assert!(player.play(200, 120), "slowness must not become usual");
        assert!(!player.play(200, 40));
    }

    #[test]
    fn two_thirds_of_the_usual_rate_is_not_slow() {
        let mut player = Player::new();
        player.play(500, 40);
        assert!(!player.play(200, 60));
    }

    #[test]
    fn a_burst_at_the_start_does_not_make_the_usual_rate_look_slow() {
        let mut player = Player::new();
        player.play(100, 10);
        for _ in 0..300 {
            assert!(!player.play(1, 40));
        }
    }

    #[test]
    fn a_camera_that_nearly_stops_is_slow_before_its_next_frame() {
        let mut player = Player::new();
        player.play(500, 40);
        assert!(player.play(1, 3500));
    }

    #[test]
    fn a_pause_makes_nobody_slow() {
        let mut player = Player::new();
        player.play(500, 40);
        player.pace.pause();
        player.now += 9000 * MS;
        assert!(!player.play(100, 40));
    }
}
