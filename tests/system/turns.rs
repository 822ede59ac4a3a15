//! Turns: how many tests of one program may use the machine at the same time.

use std::sync::{Condvar, Mutex, PoisonError};

/// So many at a time; whoever comes later waits for one that is over.
pub struct Turns {
    free: Mutex<usize>,
    given_back: Condvar,
}

impl Turns {
    pub const fn of(count: usize) -> Self {
        Self { free: Mutex::new(count), given_back: Condvar::new() }
    }

    pub fn take(&'static self) -> Turn {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.given_back.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

/// Over when it is dropped.
pub struct Turn(&'static Turns);

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given_back.notify_one();
    }
}
