//! What loom says about the cases: they hold as the product is written, and with no ordering of it missing.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::cases::{CASES, Case, Order, head_leads_to_its_frame, wait_for_frames};
use crate::lease_cases::{self, Policy, Unlock};
use crate::sites::{self, Kind, Site};

/// Executions that loom tried, and the violation it found.
struct Verdict {
    executions: u64,
    violation: Option<String>,
}

/// Explores every execution of `run` until one breaks a promise.
fn explore(preemptions: usize, run: impl Fn() + Send + Sync + 'static) -> Verdict {
    quiet_panics();
    let executions = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            count.fetch_add(1, Ordering::Relaxed);
            run();
        });
    }));
    let violation = outcome.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    });
    Verdict { executions: executions.load(Ordering::Relaxed), violation }
}

/// A violation is an expected end here: its message is in the verdict, not on the terminal.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |location| location.file());
            if file.ends_with("proofs.rs") || file.ends_with("sites.rs") {
                loud(info);
            }
        }));
    });
}

/// 0 in `scripts/test`, 1 in the full form.
fn form() -> usize {
    usize::from(std::env::var("CAMRING_SOAK").as_deref() == Ok("full"))
}

#[test]
fn every_case_holds_as_the_product_is_written() {
    let mut seen = BTreeSet::new();
    for Case { name, preemptions, run } in CASES {
        let began = Instant::now();
        let (verdict, sites) = sites::without(&[], || explore(preemptions[form()], run));
        println!("soak: {name}: {} executions, {} ms", verdict.executions, began.elapsed().as_millis());
        assert_eq!(verdict.violation, None, "{name}");
        seen.extend(sites);
    }
    let missed: Vec<Site> = sites::all().into_iter().filter(|site| !seen.contains(site)).collect();
    assert!(missed.is_empty(), "no case comes by {missed:?}");
}

/// Orderings that may be taken away without a consequence in this model, and why they are there all the same.
const SPARE: &[(&str, &str, Kind, u32, &str)] = &[
    (
        "slot.rs",
        "commit",
        Kind::Fence,
        1,
        "the Release store after it suffices for atomic stores; non-temporal ones and those of foreign code need the fence",
    ),
    (
        "slot.rs",
        "commit",
        Kind::Access,
        1,
        "the full fence before it suffices; it says what the store means where the fence is not needed",
    ),
    ("slot.rs", "abort", Kind::Access, 1, "nothing of an empty slot is read"),
];

/// What is spare only because the others are there.
const TOGETHER: &[&[usize]] = &[&[0, 1]];

fn spare(index: usize) -> Site {
    let (file, function, kind, nth, _) = SPARE[index];
    let same = |site: &Site| (site.file, site.function, site.kind, site.nth) == (file, function, kind, nth);
    sites::all().into_iter().find(same).unwrap_or_else(|| panic!("{file} has no {kind:?} {nth} in {function} any more"))
}

/// The first case that breaks a promise with `taken` away; only those that come by a site of it can.
fn violated(taken: &[Site]) -> Option<(&'static str, String)> {
    let comes_by = |run: fn()| {
        let (_, sites) = sites::without(&[], || explore(0, run));
        taken.iter().any(|site| sites.contains(site))
    };
    CASES.iter().filter(|case| comes_by(case.run)).find_map(|Case { name, preemptions, run }| {
        let (verdict, _) = sites::without(taken, || explore(preemptions[form()], run));
        verdict.violation.map(|violation| (*name, violation))
    })
}

#[test]
fn every_fence_and_every_ordering_of_slot_and_head_is_needed_or_explained() {
    let spares: Vec<Site> = (0..SPARE.len()).map(spare).collect();
    for site in sites::all() {
        match violated(&[site]) {
            Some((case, how)) => {
                println!("without {site:?}: {case}: {how}");
                assert!(!spares.contains(&site), "{site:?} is needed ({case}: {how}), but it is listed as spare");
            }
            None => {
                assert!(spares.contains(&site), "nothing breaks without {site:?}, and nothing says why it is there")
            }
        }
    }
}

#[test]
fn what_is_spare_alone_is_needed_together() {
    for group in TOGETHER {
        let taken: Vec<Site> = group.iter().map(|index| spare(*index)).collect();
        let (case, how) = violated(&taken).unwrap_or_else(|| panic!("nothing breaks without {taken:?}"));
        println!("without {taken:?}: {case}: {how}");
    }
}

/// Runs a case with a planted fault; the violation it must show.
fn planted(what: &str, run: fn()) -> String {
    let verdict = explore(2, run);
    let how = verdict.violation.unwrap_or_else(|| panic!("{what}: not found in {} executions", verdict.executions));
    println!("{what}: {how}");
    how
}

#[test]
fn a_waiter_that_looks_at_the_head_before_it_takes_the_word_sleeps_for_ever() {
    let how = planted("head before notify", || wait_for_frames(Order::HeadBeforeNotify));
    assert!(how.contains("deadlock"), "{how}");
}

#[test]
fn a_writer_that_announces_before_it_stores_the_head_leaves_a_sleeper() {
    let how = planted("notify before head", || wait_for_frames(Order::NotifyBeforeHead));
    assert!(how.contains("deadlock"), "{how}");
}

#[test]
fn a_head_stored_before_its_stamp_leads_to_an_older_frame() {
    let how = planted("head before stamp", || head_leads_to_its_frame(Order::HeadBeforeStamp));
    assert!(how.contains("its slot's stamp is still"), "{how}");
}

#[test]
fn a_claim_that_unlocks_before_the_stamp_is_odd_breaks_a_protected_lease() {
    let how = planted("unlock before stamp", || lease_cases::leases::<1>(Policy::Protect, Unlock::BeforeStamp));
    assert!(how.contains("a protected lease was revoked"), "{how}");
}
