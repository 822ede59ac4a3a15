//! A second thread for large pictures: two halves of one work at the same time.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use rayon_core::{ThreadPool, ThreadPoolBuilder};

/// Begins with the first large picture and lives as long as the process; `None` where there is one processor.
static SECOND: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    if available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        return None;
    }
    let built = ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "convert".into()).build();
    built.inspect_err(|error| tracing::warn!("no second thread for large pictures: {error}")).ok()
});

/// Whether there is a second thread.
pub(crate) fn is_there() -> bool {
    SECOND.is_some()
}

/// Runs `first` here and `second` at the same time on the second thread, and returns when both are done.
///
/// One after the other where there is no second thread.
pub(crate) fn both<A, B: Send>(first: impl FnOnce() -> A, second: impl FnOnce() -> B + Send) -> (A, B) {
    let Some(pool) = &*SECOND else { return (first(), second()) };
    let mut result = None;
    let there = &mut result;
    let here = pool.in_place_scope(|scope| {
        scope.spawn(move |_| *there = Some(second()));
        first()
    });
    (here, result.expect("the scope has waited for it"))
}
