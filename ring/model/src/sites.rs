//! The places of the product that order memory: found in its text, watched while a case runs, taken away one by one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::Location;

/// The files of the protocol, as compiled here.
const FILES: [(&str, &str); 2] =
    [("slot.rs", include_str!("../../src/slot.rs")), ("head.rs", include_str!("../../src/head.rs"))];

/// What a place does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Fence,
    /// A load, store or addition that is not Relaxed.
    Access,
}

/// A fence, or an access that is not Relaxed.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Site {
    pub(crate) file: &'static str,
    pub(crate) line: u32,
    pub(crate) function: &'static str,
    pub(crate) kind: Kind,
    /// Which of its kind in the function, from 1.
    pub(crate) nth: u32,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, function, kind, nth } = self;
        write!(f, "{file}:{line} {function} {kind:?} {nth}")
    }
}

/// Every site in the text of the product.
///
/// A function marked `#[track_caller]` is no place of its own: whoever calls it is.
pub(crate) fn all() -> Vec<Site> {
    let mut sites = Vec::new();
    for (file, text) in FILES {
        let (mut function, mut transparent, mut marked) = ("", false, false);
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            marked |= code.trim() == "#[track_caller]";
            if let Some((_, rest)) = code.split_once("fn ") {
                function = rest.split(['(', '<']).next().unwrap_or_default();
                transparent = std::mem::take(&mut marked);
                continue;
            }
            let orders = ["Release", "Acquire", "AcqRel", "SeqCst"];
            let kind = match () {
                () if code.contains("fence(") => Kind::Fence,
                () if orders.iter().any(|order| code.contains(&format!("Ordering::{order}"))) => Kind::Access,
                () => continue,
            };
            if !transparent {
                let same = |site: &&Site| (site.file, site.function, site.kind) == (file, function, kind);
                let nth = sites.iter().filter(same).count() as u32 + 1;
                sites.push(Site { file, line: index as u32 + 1, function, kind, nth });
            }
        }
    }
    sites
}

/// What the running proof has taken away, and what it has come by.
#[derive(Default)]
struct Proof {
    taken: BTreeSet<(String, u32)>,
    seen: BTreeSet<(String, u32)>,
}

thread_local! {
    // Loom runs all threads of a case on one thread of the system.
    static PROOF: RefCell<Proof> = RefCell::default();
}

/// Whether the ordering at a place of the source is to be kept; called by every such place.
pub(crate) fn keep(place: &Location<'_>) -> bool {
    let file = place.file().rsplit('/').next().unwrap_or_default();
    let key = (file.to_owned(), place.line());
    PROOF.with_borrow_mut(|proof| {
        let keep = !proof.taken.contains(&key);
        proof.seen.insert(key);
        keep
    })
}

/// Runs `act` with the orderings at `taken` away; returns what it returns and the sites it came by.
pub(crate) fn without<T>(taken: &[Site], act: impl FnOnce() -> T) -> (T, BTreeSet<Site>) {
    let keys = taken.iter().map(|site| (site.file.to_owned(), site.line)).collect();
    PROOF.replace(Proof { taken: keys, seen: BTreeSet::new() });
    let result = act();
    let seen = PROOF.take().seen;
    let known = all();
    let sites = seen.into_iter().filter(|(file, _)| FILES.iter().any(|(name, _)| name == file)).map(|(file, line)| {
        let found = known.iter().find(|site| site.file == file && site.line == line);
        *found.unwrap_or_else(|| panic!("{file}:{line} orders memory in a way that the list of sites does not see"))
    });
    (result, sites.collect())
}
