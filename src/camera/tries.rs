//! The tries since the camera was last well: how many, and how many failures of one kind in a row.

use crate::source::RetryClass;

/// Counts tries and failures; all counters stay at their greatest value.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    begun: u8,
    class: Option<RetryClass>,
    in_a_row: u32,
}

impl Tries {
    /// A try begins.
    pub(crate) fn begin(&mut self) {
        self.begun = self.begun.saturating_add(1);
    }

    /// Tries begun since the last reset.
    pub(crate) fn count(&self) -> u8 {
        self.begun
    }

    /// A try failed; returns how many of this class have failed in a row. A busy camera counts as a transient one.
    pub(crate) fn failed(&mut self, class: RetryClass) -> u32 {
        let class = if class == RetryClass::Busy { RetryClass::Transient } else { class };
        self.in_a_row = if self.class == Some(class) { self.in_a_row.saturating_add(1) } else { 1 };
        self.class = Some(class);
        self.in_a_row
    }

    /// The camera is well; `false` when nothing was counted.
    pub(crate) fn reset(&mut self) -> bool {
        let counted = self.begun > 0;
        *self = Self::default();
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_class() {
        use RetryClass::{Auth, Busy, Permanent, Transient};
        let mut tries = Tries::default();
        let counts = [Transient, Busy, Transient, Auth, Auth, Permanent, Transient].map(|class| tries.failed(class));
        assert_eq!(counts, [1, 2, 3, 1, 2, 1, 1]);
    }

    #[test]
    fn tries_stop_counting_at_255() {
        let mut tries = Tries::default();
        (0..300).for_each(|_| tries.begin());
        assert_eq!(tries.count(), 255);
        assert!(tries.reset() && !tries.reset());
    }
}
