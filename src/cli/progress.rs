//! Progress of long work, on standard error and only for people: a spinner, or a bar with a number of steps.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(120);

/// What is shown; nothing at all where standard error is no terminal. Gone when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Something whose end is not known.
    pub(super) fn spinner(what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template above is one");
        Self::shown(ProgressBar::no_length().with_style(style), what)
    }

    /// So many steps.
    pub(super) fn bar(what: &str, steps: u64) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} [{bar:24}] {pos}/{len} ({elapsed})")
            .expect("the template above is one");
        Self::shown(ProgressBar::new(steps).with_style(style.progress_chars("=> ")), what)
    }

    fn shown(bar: ProgressBar, what: &str) -> Self {
        // Hides itself where standard error is no terminal.
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TURN);
        Self(bar)
    }

    /// What is being done now.
    pub(super) fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    /// One more step is done.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    /// Prints something else without mixing the two on one terminal.
    pub(super) fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Takes it off the screen.
    pub(super) fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}
