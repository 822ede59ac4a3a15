//! Loom's atomics under the names of the product's `sync`, with orderings that can be taken away one at a time.

pub(crate) use std::sync::atomic::Ordering;

use std::panic::Location;

use crate::sites;

/// As the product's trait of the same name.
pub(crate) trait Region {
    fn u64_at(&self, offset: u64) -> &AtomicU64;
    fn u64s_at<const N: usize>(&self, offset: u64) -> &[AtomicU64; N];
    fn u32_at(&self, offset: u64) -> &AtomicU32;
}

/// A fence of the product, unless the proof at hand has taken it away.
#[track_caller]
pub(crate) fn fence(order: Ordering) {
    if sites::keep(Location::caller()) {
        loom::sync::atomic::fence(order);
    }
}

/// The ordering of an access of the product; Relaxed when the proof at hand has taken it away.
#[track_caller]
fn kept(order: Ordering) -> Ordering {
    if order == Ordering::Relaxed || sites::keep(Location::caller()) { order } else { Ordering::Relaxed }
}

/// Defines an atomic word: one that loom explores, or one that every thread sees at once.
///
/// Words that no case looks at are of the second kind, so that they do not multiply the executions.
macro_rules! words {
    ($($name:ident: $value:ty;)+) => { $(
        #[derive(Debug)]
        pub(crate) enum $name {
            Explored(loom::sync::atomic::$name),
            Plain(std::sync::atomic::$name),
        }

        impl $name {
            pub(crate) fn explored(value: $value) -> Self {
                Self::Explored(loom::sync::atomic::$name::new(value))
            }

            pub(crate) const fn plain(value: $value) -> Self {
                Self::Plain(std::sync::atomic::$name::new(value))
            }

            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $value {
                match self {
                    Self::Explored(word) => word.load(kept(order)),
                    Self::Plain(word) => word.load(order),
                }
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                match self {
                    Self::Explored(word) => word.store(value, kept(order)),
                    Self::Plain(word) => word.store(value, order),
                }
            }

            #[track_caller]
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                match self {
                    Self::Explored(word) => word.fetch_add(value, kept(order)),
                    Self::Plain(word) => word.fetch_add(value, order),
                }
            }
        }
    )+ };
}

words! {
    AtomicU32: u32;
    AtomicU64: u64;
}
