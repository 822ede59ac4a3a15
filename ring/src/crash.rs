//! Points at which a test can have the writing process killed: one between every two steps whose order matters.
//!
//! `CAMRING_CRASH_AT=WORD` in the environment ends the process by SIGKILL when it passes that point,
//! `CAMRING_CRASH_AT=WORD:N` at the N-th passage. A test aid: unarmed, a point costs one relaxed load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};

use crate::error::CreateError;

/// The variable that arms a point.
const VARIABLE: &str = "CAMRING_CRASH_AT";

/// Defines the points and their words.
macro_rules! points {
    ($($(#[$meta:meta])* $point:ident $word:literal,)+) => {
        /// A step of the writer after which a test can have its process killed; see `CAMRING_CRASH_AT`.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum CrashPoint { $($(#[$meta])* $point,)+ }

        impl CrashPoint {
            /// Every point, in the order of a ring's life.
            pub const ALL: &'static [Self] = &[$(Self::$point),+];

            /// What `CAMRING_CRASH_AT` calls it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$point => $word),+ }
            }
        }
    };
}

points! {
    /// Start: the writer's lock is taken, leftovers are not removed yet.
    LockTaken "lock-taken",
    /// Create: the file has all its pages, no header and no name.
    CreateAllocated "create-allocated",
    /// Create: the header is complete, there is no name.
    CreateFormatted "create-formatted",
    /// Adopt: the alive byte is taken, no slot has been looked at.
    AdoptLocked "adopt-locked",
    /// Adopt: a half-written slot has been emptied, others may follow.
    AdoptEmptied "adopt-emptied",
    /// Adopt: the head names the newest complete frame, repairs are not counted.
    AdoptHead "adopt-head",
    /// Adopt: repairs are counted, the epoch is still the old one.
    AdoptCounted "adopt-counted",
    /// Adopt: the ring says whose it is, the names have not been looked at.
    AdoptEntered "adopt-entered",
    /// Names: the temporary link is there, the name does not lead to the file yet.
    NameLinked "name-linked",
    /// Names: the anchor leads to the new file, the public name does not.
    AnchorNamed "anchor-named",
    /// Names: both lead to the new file.
    PublicNamed "public-named",
    /// Claim: the slot's lease byte is locked, the stamp is still the old one.
    ClaimLocked "claim-locked",
    /// Claim: the stamp is odd, the lease byte is still locked.
    ClaimStamped "claim-stamped",
    /// Claim: the lease byte is free again, nothing has been written.
    ClaimUnlocked "claim-unlocked",
    /// Claim: a leased slot is about to be taken, its stamp is still the old one.
    ClaimRevoking "claim-revoking",
    /// Abandon: a claimed slot is being given back, the stamp is odd.
    AbandonBegun "abandon-begun",
    /// Abandon: the slot is empty.
    AbandonEmptied "abandon-emptied",
    /// Publish: the payload is written, the metadata are the old ones.
    PublishFilled "publish-filled",
    /// Publish: the metadata are written, the stamp is odd.
    PublishDescribed "publish-described",
    /// Publish: the stamp names the frame, the head does not.
    PublishStamped "publish-stamped",
    /// Publish: the head names the frame, nobody has been told.
    PublishHead "publish-head",
    /// Publish: the word that readers sleep on has changed, nobody has been woken.
    PublishNotified "publish-notified",
    /// Publish: readers are awake, nothing has been counted.
    PublishWoken "publish-woken",
    /// New generation: state and counters are copied, it has no name.
    GenerationCarried "generation-carried",
    /// New generation: it has both names, the old one does not say that it has ended.
    GenerationNamed "generation-named",
    /// Retire: the successor is named, the flag is not up.
    RetireSuccessor "retire-successor",
    /// Retire: the flag is up, nobody has been told.
    RetireFlagged "retire-flagged",
    /// Retire: readers are awake.
    RetireWoken "retire-woken",
    /// Stop: the ring has no writer's pid any more, the state is the old one.
    StopPid "stop-pid",
    /// Stop: the state says stopped, nobody has been woken.
    StopState "stop-state",
    /// Remove: readers are told, both names are there.
    RemoveRetired "remove-retired",
    /// Remove: the public name is gone.
    RemovePublic "remove-public",
    /// Remove: both names are gone, the lock file is there.
    RemoveAnchor "remove-anchor",
}

/// The armed point's place in [`CrashPoint::ALL`] plus one; 0 = none.
static ARMED: AtomicU32 = AtomicU32::new(0);
/// Passages left until the process is killed.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// Passes a point; does not return if it is armed and this is its passage.
#[inline]
pub(crate) fn at(point: CrashPoint) {
    if ARMED.load(Ordering::Relaxed) == point as u32 + 1 {
        pass();
    }
}

#[cold]
fn pass() {
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        // SIGKILL to the own process cannot be refused, and it acts before the call returns.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Reads the environment, once per process, and arms what it names.
///
/// # Errors
///
/// [`CreateError::CrashPoint`], which lists the words, when it names no point.
pub(crate) fn arm() -> Result<(), CreateError> {
    static READ: OnceLock<Result<(), String>> = OnceLock::new();
    let read = || {
        let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
        let text = text.to_string_lossy().into_owned();
        let (point, passage) = parse(&text).ok_or(text)?;
        LEFT.store(passage, Ordering::Relaxed);
        ARMED.store(point as u32 + 1, Ordering::Relaxed);
        Ok(())
    };
    READ.get_or_init(read).clone().map_err(|found| CreateError::CrashPoint { found })
}

/// `WORD` or `WORD:N`, N from 1.
fn parse(text: &str) -> Option<(CrashPoint, u32)> {
    let (word, passage) = text.split_once(':').unwrap_or((text, "1"));
    let point = CrashPoint::ALL.iter().find(|point| point.word() == word)?;
    let passage = passage.parse().ok().filter(|passage| *passage > 0)?;
    Some((*point, passage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_word_of_its_own_and_is_found_by_it() {
        for (place, point) in CrashPoint::ALL.iter().enumerate() {
            assert_eq!(*point as usize, place);
            assert_eq!(parse(point.word()), Some((*point, 1)), "{point:?}");
            assert_eq!(parse(&format!("{}:17", point.word())), Some((*point, 17)), "{point:?}");
        }
    }

    #[test]
    fn what_names_no_passage_of_a_point_is_refused() {
        for bad in ["", "claim", "claim-locked:", "claim-locked:0", "claim-locked:-1", "claim-locked:x", "Claim-Locked"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
