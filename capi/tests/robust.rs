//! What a C program can do wrong, and what it may do at the same time: misuse, threads, forks, older headers.

mod common;

use common::{Asked, Source, amount, command, mount, program, run};

#[test]
fn every_misuse_is_refused_with_a_sentence() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    source.lap(1);
    let said = run(&mut command(&program("tests/programs/misuse.c"), shm.path()));
    let lines: Vec<&str> = said.lines().collect();
    let misuses = std::fs::read_to_string(common::root().join("tests/programs/misuse.c")).unwrap();
    assert_eq!(lines.len(), misuses.matches("\n    refused(").count(), "{said}");
    for wanted in [
        "-1 name is NULL; expected a pointer",
        "-1 timeout_ns is -2; expected 0 or more, or CAMRING_FOREVER",
        "-1 name \u{fffd} is no UTF-8; expected UTF-8",
        "-1 name has no end within 4096 bytes",
        "-3 name \"a/yard\" contains a slash or a zero byte; expected one file name, not a path",
        "-1 camring_options.owner is 9, expected 0 to 2",
        "-1 camring_options.presence is 9, expected 0 to 1",
        "-1 the camring_options says struct_size 0, expected 4 to 4096; set it to sizeof the struct before the call",
        "-1 the ring is NULL; expected what camring_attach has given",
        "-2 the ring 0x1234567 is no handle: never given out by camring_attach, or given back already",
        "-1 the buffer is NULL; expected a pointer",
        "-1 no buffer has 18446744073709551615 bytes; expected its size in bytes",
        "-1 camring_frame is NULL; expected a pointer",
        "-1 camring_frame is not aligned; expected an address that is a multiple of 8",
        "-1 the camring_frame says struct_size 1073741824, expected 88 to 4096; set it to sizeof the struct before the call",
        "-1 count is 0; expected 1 to 1024",
    ] {
        assert!(lines.contains(&wanted), "nobody said {wanted:?}:\n{said}");
    }
}

#[test]
fn programs_with_older_and_newer_structs_are_served() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    source.lap(1);
    assert_eq!(
        run(&mut command(&program("tests/programs/older.c"), shm.path())),
        "the camring_options has a setting that this libcamring does not know; upgrade libcamring\n"
    );
}

#[test]
fn threads_share_a_handle_and_a_detach_ends_their_waits() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 8);
    let wanted = amount(300, 20_000);
    let mut c = Asked::start(&program("tests/programs/threads.c"), shm.path(), &["yard", &wanted.to_string()]);
    let mut published = 0;
    // Publishes until the program has had enough; what it does not see in time it skips.
    let line = loop {
        published = source.lap(1).max(published);
        assert!(published < 99_000, "the program does not keep up");
        match c.try_line() {
            Some(line) => break line,
            None => std::thread::park_timeout(std::time::Duration::from_micros(300)),
        }
    };
    assert_eq!(line, "detaching");
    c.send("");
    let taken: u64 = c.line().strip_suffix(" frames").expect("the count").parse().unwrap();
    assert!((wanted..=published).contains(&taken), "{taken} of {published} frames, {wanted} wanted");
    assert!(c.ends().success());
}

#[test]
fn a_forked_child_reads_on_its_own_and_leaves_its_parents_lease_alone() {
    let shm = mount();
    let mut source = Source::new(shm.path(), "yard", 4);
    source.lap(1);
    let forks = amount(60, 2_000);
    let mut c = Asked::start(&program("tests/programs/forks.c"), shm.path(), &[&forks.to_string()]);
    assert_eq!(c.line(), "forked");
    source.lap(50);
    c.send("");
    assert!(c.ends().success());
}
