//! Searches every state of `ring.pml` with Spin: the promises hold, and each planted fault is found.

use std::path::PathBuf;
use std::process::{Command, Output};

/// One size of the model; the names are those at the head of `ring.pml`.
#[derive(Clone, Copy)]
struct Size {
    slots: u32,
    frames: u32,
    policy: Policy,
    ends: u32,
    generations: u32,
    /// Readers by copy, and how often each of them reads.
    copies: (u32, u32),
    /// Readers by lease, likewise.
    leases: (u32, u32),
    history: bool,
}

#[derive(Clone, Copy)]
enum Policy {
    Protect,
    Fresh,
}

impl Size {
    fn definitions(&self) -> Vec<String> {
        let revoke = matches!(self.policy, Policy::Fresh);
        [
            ("N", self.slots),
            ("MAXSEQ", self.frames),
            ("REVOKE", u32::from(revoke)),
            ("CRASHES", self.ends),
            ("CHANGES", self.generations - 1),
            ("NC", self.copies.0),
            ("KC", self.copies.1),
            ("NL", self.leases.0),
            ("KL", self.leases.1),
            ("HISTORY", u32::from(self.history)),
        ]
        .map(|(name, value)| format!("-D{name}={value}"))
        .into()
    }
}

const SMALL: Size = Size {
    slots: 2,
    frames: 3,
    policy: Policy::Fresh,
    ends: 1,
    generations: 1,
    copies: (1, 1),
    leases: (1, 1),
    history: false,
};

/// What `scripts/test` searches: seconds.
const SHORT: [Size; 4] = [
    Size { slots: 3, policy: Policy::Protect, copies: (0, 0), leases: (2, 1), ..SMALL },
    Size { history: true, ..SMALL },
    Size { generations: 2, ..SMALL },
    Size {
        slots: 3,
        policy: Policy::Protect,
        ends: 2,
        generations: 2,
        copies: (1, 2),
        leases: (0, 0),
        history: true,
        ..SMALL
    },
];

/// What the full form searches, one a part: minutes, and gigabytes of memory.
const FULL: [Size; 6] = [
    Size { slots: 3, policy: Policy::Protect, ends: 2, leases: (2, 1), ..SMALL },
    Size { slots: 3, frames: 4, policy: Policy::Protect, ends: 2, copies: (1, 2), leases: (1, 2), ..SMALL },
    Size { leases: (2, 1), ..SMALL },
    Size { slots: 3, leases: (2, 1), ..SMALL },
    Size { ends: 2, generations: 2, ..SMALL },
    Size { slots: 3, policy: Policy::Protect, ends: 2, generations: 2, copies: (1, 2), history: true, ..SMALL },
];

/// The faults that `ring.pml` can plant, the policy under which each shows, and what then says so.
const PLANTED: [(&str, Policy, &str); 10] = [
    ("UNLOCK_BEFORE_STAMP", Policy::Protect, "stamp["),
    ("HEAD_BEFORE_STAMP", Policy::Fresh, "assertion violated 0 "),
    ("CLAIM_TAKES_HEAD", Policy::Fresh, "assertion violated 0 "),
    ("ADOPT_REPAIRS_NOTHING", Policy::Fresh, "head_seq[g]==3"),
    ("ADOPT_KEEPS_HEAD", Policy::Fresh, "(a==b)"),
    ("NAME_BEFORE_FRAME", Policy::Fresh, "(a==picture)"),
    ("WRITE_AFTER_RETIRE", Policy::Fresh, "retired["),
    ("SETTLE_FORGETS_PUBLIC", Policy::Fresh, "(public_name==anchor)"),
    ("NUMBERS_BEGIN_ANEW", Policy::Fresh, "seq"),
    ("STAMP_BEFORE_PAYLOAD", Policy::Fresh, "assertion violated 0 "),
];

/// What a search has said.
struct Search {
    states: u64,
    violation: Option<String>,
}

fn model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("ring.pml")
}

/// Whether Spin and a C compiler are here; says so where they are not.
fn tools_are_here() -> bool {
    let missing: Vec<&str> = [("spin", "-V"), ("cc", "--version")]
        .into_iter()
        .filter(|(tool, argument)| Command::new(tool).arg(argument).output().is_err())
        .map(|(tool, _)| tool)
        .collect();
    if !missing.is_empty() {
        println!("skipped: {} is not installed; scripts/test installs it", missing.join(" and "));
    }
    missing.is_empty()
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    output
}

/// Searches every state of the model in this size, until the first violation.
fn search(name: &str, size: &Size, fault: u32, optimise: &str) -> Search {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("promela-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    let definitions = size.definitions();
    run(Command::new("spin")
        .arg("-a")
        .args(&definitions)
        .arg(format!("-DBUG={fault}"))
        .arg(model())
        .current_dir(&folder));
    let compile = ["-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=12000", optimise, "-o", "pan", "pan.c"];
    run(Command::new("cc").args(compile).current_dir(&folder));
    // Deeper than any path of these sizes; Spin says so if it is not, and the search is not complete then.
    let output = run(Command::new(folder.join("pan")).args(["-m1000000", "-w25"]).current_dir(&folder));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    std::fs::remove_dir_all(&folder).unwrap();
    let number = |before: &str| {
        let line = said.lines().find(|line| line.contains(before))?;
        line.split(before).next()?.split_whitespace().last()?.parse().ok()
    };
    let states = number(" states, stored").unwrap_or_else(|| panic!("no count of states in {said}"));
    let violation = said.lines().find(|line| line.starts_with("pan:1:")).map(str::to_owned);
    let errors: u64 =
        said.split("errors: ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap();
    assert_eq!(errors > 0, violation.is_some(), "{said}");
    if violation.is_none() {
        let complete = ["Search not completed", "max search depth too small", "out of memory", "MEMLIM"];
        assert!(!complete.iter().any(|problem| said.contains(problem)), "{definitions:?}: {said}");
    }
    Search { states, violation }
}

fn holds(name: &str, size: &Size) {
    let Search { states, violation } = search(name, size, 0, "-O2");
    println!("soak: {}: {states} states", size.definitions().join(" "));
    assert_eq!(violation, None, "{:?}", size.definitions());
}

#[test]
fn no_end_by_kill_9_tears_a_frame_breaks_a_lease_or_takes_a_number_back() {
    if !tools_are_here() {
        return;
    }
    if std::env::var("CAMRING_SOAK").as_deref() != Ok("full") {
        for (index, size) in SHORT.iter().enumerate() {
            holds(&format!("short-{index}"), size);
        }
        return;
    }
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<usize>().ok());
    let (part, parts) = (variable("CAMRING_SOAK_PART").unwrap_or(1), variable("CAMRING_SOAK_PARTS").unwrap_or(1));
    for (index, size) in FULL.iter().enumerate().filter(|(index, _)| index % parts == part - 1) {
        holds(&format!("full-{index}"), size);
    }
}

#[test]
fn every_fault_that_can_be_planted_is_found() {
    let text = std::fs::read_to_string(model()).unwrap();
    let faults: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_once(" (BUG =="))
        .map(|(name, _)| name.trim())
        .collect();
    assert_eq!(faults, PLANTED.map(|(name, ..)| name), "ring.pml plants other faults than this test searches for");
    if !tools_are_here() {
        return;
    }
    let size = Size { generations: 2, copies: (1, 2), history: true, ..SMALL };
    for ((name, policy, expected), fault) in PLANTED.into_iter().zip(1..) {
        let found = search(&format!("planted-{fault}"), &Size { policy, ..size }, fault, "-O0");
        let violation = found.violation.unwrap_or_else(|| panic!("{name} is not found in {} states", found.states));
        println!("{name}: {violation}, after {} states", found.states);
        assert!(violation.contains(expected), "{name} is found for another reason: {violation}");
    }
}
