//! A second session that takes the place of the first, on scripted sources: nothing is missing, nothing is shown twice.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use camring::camera::{Outcome, Policy};
use camring::source::{Demand, RetryClass, SourceEvent};
use camring_ring::frame::{Reason, State};

use super::stage::{Actor, PATIENCE, Script, Setup, Stage, logged, ms, reason, secs};

/// A camera that has ended three sessions at the age of ten seconds, and the one that is live now, which is as old as `age`.
fn regular(name: &'static str, policy: Policy, age: u64) -> (Stage, Actor) {
    let stage = Stage::with(Setup { name, policy, twins: true, random: 1.0, ..Setup::default() }, []);
    for _ in 0..3 {
        let actor = stage.live();
        stage.stream(&actor, 100, ms(100));
        actor.end(Reason::ServerClosed, RetryClass::Transient);
        let wait = stage.backoff(Reason::ServerClosed);
        stage.advance(wait);
    }
    let actor = stage.live();
    stage.stream(&actor, age * 10, ms(100));
    (stage, actor)
}

/// The next picture, which both sessions have.
fn both(stage: &Stage, actors: [&Actor; 2]) {
    stage.pass(ms(100));
    actors.into_iter().for_each(Actor::frame);
}

/// The numbers of the sessions whose pictures were published since `from`; each picture must be later than the one before.
fn published(stage: &Stage, from: usize) -> Vec<u32> {
    let pictures = stage.pictures.lock().unwrap();
    assert!(pictures.windows(2).all(|pair| pair[0].1 < pair[1].1), "a picture twice, or an older one: {pictures:?}");
    pictures[from..].iter().map(|(session, _)| *session).collect()
}

/// Waits until the threads of all sessions but `left` are over.
fn threads_left(stage: &Stage, left: usize) {
    let deadline = Instant::now() + PATIENCE;
    while stage.threads.load(Ordering::SeqCst) > left {
        assert!(Instant::now() < deadline, "{} threads left", stage.threads.load(Ordering::SeqCst));
        std::thread::yield_now();
    }
}

fn reconnects(stage: &Stage) -> HashMap<Reason, u32> {
    stage.seen.change(|seen| seen.reconnects.clone())
}

#[test]
fn a_second_session_takes_over_before_the_camera_ends_the_first() {
    let (stage, first) = regular("relieved", Policy::default(), 7);
    assert!(stage.is_idle(), "a second session before its time");
    stage.stream(&first, 10, ms(100));
    let second = stage.actor();
    let (states, from) = (stage.seen.change(|seen| seen.shown.len()), stage.pictures.lock().unwrap().len());
    second.say(SourceEvent::FirstPacket);
    (0..20).for_each(|_| both(&stage, [&first, &second]));
    let sessions = published(&stage, from);
    assert_eq!(sessions.len(), 20, "each picture once");
    assert!(sessions.starts_with(&[4]) && sessions.ends_with(&[5, 5, 5]), "{sessions:?}");
    assert!(sessions.is_sorted(), "{sessions:?}");
    stage.seen.until("it is counted", |seen| seen.reconnects.get(&Reason::Planned) == Some(&1));
    assert_eq!(reconnects(&stage), HashMap::from([(Reason::ServerClosed, 3), (Reason::Planned, 1)]));
    // Live from the first to the last, whatever else was put on the board.
    let shown = stage.seen.change(|seen| seen.shown[states..].to_vec());
    assert!(shown.iter().all(|shown| shown.state == State::Live && shown.reason == Reason::None), "{shown:?}");
    assert_eq!(stage.seen.change(|seen| seen.sessions.clone()), [1, 2, 3, 4, 5]);
    stage.pass(ms(250));
    threads_left(&stage, 1);
    // The age of the second one counts from its own first picture: the third comes as long after that.
    stage.stream(&second, 50, ms(100));
    assert!(stage.is_idle());
    stage.stream(&second, 40, ms(100));
    let _third = stage.actor();
    let lines = logged("relieved");
    let told = |text: &str| lines.iter().filter(|line| line["message"].as_str().unwrap().contains(text)).count();
    assert_eq!((told("begun before that and takes over"), told("taken over without a gap")), (1, 1), "{lines:?}");
}

#[test]
fn a_second_session_that_is_ahead_or_behind_repeats_nothing_and_loses_nothing() {
    for behind in [30, 70] {
        let (stage, first) = regular("shifted", Policy::default(), 8);
        let second = stage.actor();
        let from = stage.pictures.lock().unwrap().len();
        second.say(SourceEvent::FirstPacket);
        // Each picture of one session comes after that of the other, by less or more than half of the time between two.
        for _ in 0..20 {
            stage.pass(ms(100 - behind));
            first.frame();
            stage.pass(ms(behind));
            second.frame();
        }
        let sessions = published(&stage, from);
        assert!(sessions.is_sorted() && sessions.ends_with(&[5, 5]), "{sessions:?}");
        assert!((20..=21).contains(&sessions.len()), "{behind} ms behind: {sessions:?}");
    }
}

#[test]
fn a_camera_that_refuses_a_second_session_keeps_its_first_and_is_not_asked_again() {
    let (stage, first) = regular("refusing", Policy::default(), 7);
    stage.script(Script::Fail(reason(Reason::ServerBusy, RetryClass::Busy)));
    stage.stream(&first, 10, ms(100));
    let _refused = stage.actor();
    let from = stage.pictures.lock().unwrap().len();
    stage.stream(&first, 15, ms(100));
    assert_eq!(published(&stage, from), [4; 15]);
    assert_eq!(stage.now().state, State::Live);
    assert_eq!(reconnects(&stage), HashMap::from([(Reason::ServerClosed, 3)]));
    first.end(Reason::ServerClosed, RetryClass::Transient);
    let wait = stage.backoff(Reason::ServerClosed);
    assert_eq!(wait, ms(250), "as soon as before");
    stage.advance(wait);
    let next = stage.live();
    stage.stream(&next, 95, ms(100));
    assert!(stage.is_idle(), "asked again");
    let lines = logged("refusing");
    let told = lines.iter().filter(|line| line["message"].as_str().unwrap().contains("no second session"));
    assert_eq!(told.count(), 1, "{lines:?}");
}

#[test]
fn a_second_session_that_never_comes_up_costs_the_first_nothing() {
    let (stage, first) = regular("silent", Policy { connect_timeout: secs(1), ..Policy::default() }, 8);
    let second = stage.actor();
    let from = stage.pictures.lock().unwrap().len();
    stage.stream(&first, 15, ms(100));
    assert_eq!(published(&stage, from), [4; 15]);
    assert_eq!(stage.now().state, State::Live);
    // Too late.
    second.frame();
    assert_eq!(published(&stage, from), [4; 15]);
    assert!(logged("silent").iter().any(|line| line["message"].as_str().unwrap().contains("no second session")));
}

#[test]
fn when_the_first_ends_too_early_the_second_goes_on_as_far_as_it_has_come() {
    for proven in [true, false] {
        let (stage, first) = regular("overtaken", Policy::default(), 8);
        let second = stage.actor();
        second.say(SourceEvent::FirstPacket);
        if proven {
            (0..3).for_each(|_| both(&stage, [&first, &second]));
        }
        let (states, from) = (stage.history().len(), stage.pictures.lock().unwrap().len());
        first.end(Reason::ServerClosed, RetryClass::Transient);
        stage.seen.until("the second is at work", |seen| seen.sessions.last() == Some(&5));
        threads_left(&stage, 1);
        for _ in 0..5 {
            stage.pass(ms(100));
            second.frame();
        }
        stage.pass(ms(250));
        assert_eq!(published(&stage, from), [5; 5]);
        let since: &[State] = if proven { &[] } else { &[State::Reconnecting, State::Live] };
        assert_eq!(&stage.history()[states..], since);
        assert!(stage.is_idle(), "no third session");
        assert_eq!(reconnects(&stage), HashMap::from([(Reason::ServerClosed, 4)]));
        // It was ended before its time, when the second began: this camera has room for one.
        stage.stream(&second, 95, ms(100));
        assert!(stage.is_idle(), "asked for two sessions again");
        let told = "the camera ended the first one when the second began";
        assert!(logged("overtaken").iter().any(|line| line["message"].as_str().unwrap().contains(told)));
    }
}

#[test]
fn requests_that_are_answered_are_given_the_chance_to_keep_the_session_alive() {
    for helps in [true, false] {
        let name = if helps { "kept" } else { "cut-all-the-same" };
        let (stage, first) = regular(name, Policy::default(), 3);
        assert_eq!(first.progress.request_every_ms.load(Ordering::Relaxed), 10_000 / 3);
        first.progress.answers.store(2, Ordering::Relaxed);
        stage.stream(&first, 50, ms(100));
        let second = stage.actor();
        assert_eq!(second.progress.request_every_ms.load(Ordering::Relaxed), 10_000 / 3);
        second.say(SourceEvent::FirstPacket);
        let (states, from) = (stage.history().len(), stage.pictures.lock().unwrap().len());
        (0..20).for_each(|_| both(&stage, [&first, &second]));
        assert_eq!(published(&stage, from), [4; 20], "the second one stands by");
        if !helps {
            first.end(Reason::ServerClosed, RetryClass::Transient);
            stage.seen.until("the second is at work", |seen| seen.sessions.last() == Some(&5));
            // Its end takes real time, of which the stage's clock knows nothing.
            threads_left(&stage, 1);
            (0..70).for_each(|_| {
                stage.pass(ms(100));
                second.frame();
            });
            assert_eq!(published(&stage, from)[20..], [5; 70]);
            let _third = stage.actor();
            assert_eq!(stage.history().len(), states);
            continue;
        }
        // Older than any session before by a quarter: the second one is not needed.
        (0..40).for_each(|_| both(&stage, [&first, &second]));
        threads_left(&stage, 1);
        stage.stream(&first, 300, ms(100));
        assert!(stage.is_idle(), "another session although the first lives on");
        let sessions = published(&stage, from);
        assert!(sessions.len() == 360 && sessions.iter().all(|session| *session == 4));
        let line = "the camera ends no session that hears an RTSP request; one is sent every 3s 300ms";
        assert_eq!(logged(name).iter().filter(|said| said["message"] == line).count(), 1, "{:?}", logged(name));
    }
}

#[test]
fn a_parked_camera_changes_sessions_without_waking_up() {
    let policy = Policy { idle: Demand::Nothing, idle_after: secs(3), ..Policy::default() };
    let (stage, first) = regular("parked-relief", policy, 1);
    stage.attended.store(false, Ordering::Relaxed);
    stage.stream(&first, 35, ms(100));
    stage.until(State::Parked, Reason::None);
    let (states, rested) = (stage.history().len(), |actor: &Actor| {
        stage.pass(ms(100));
        actor.packet();
    });
    (0..50).take_while(|_| stage.is_idle()).for_each(|_| rested(&first));
    let second = stage.actor();
    second.say(SourceEvent::FirstPacket);
    second.frame();
    (0..10).for_each(|_| rested(&second));
    stage.seen.until("the second is at work", |seen| seen.sessions.last() == Some(&5));
    (0..10).for_each(|_| rested(&second));
    assert_eq!(stage.history()[states..], []);
    assert_eq!(second.progress.demand(), Demand::Nothing);
    threads_left(&stage, 1);
}

#[test]
fn a_stop_ends_both_sessions() {
    let (mut stage, _first) = regular("stopped", Policy::default(), 8);
    let second = stage.actor();
    second.say(SourceEvent::FirstPacket);
    stage.stop();
    // The second one ends beside the first, looked after from time to time.
    while stage.is_running() {
        stage.advance(ms(20));
        std::thread::yield_now();
    }
    assert_eq!(stage.outcome(), Outcome::Stopped);
    threads_left(&stage, 0);
}

#[test]
fn another_source_takes_over_without_a_gap_where_there_may_be_two_sessions() {
    let stage = Stage::with(Setup { name: "renewed", twins: true, random: 1.0, ..Setup::default() }, []);
    let first = stage.live();
    stage.stream(&first, 20, ms(100));
    stage.renew(Policy::default(), Some(vec![]));
    let second = stage.actor();
    let (states, from) = (stage.history().len(), stage.pictures.lock().unwrap().len());
    second.say(SourceEvent::FirstPacket);
    (0..10).for_each(|_| both(&stage, [&first, &second]));
    let sessions = published(&stage, from);
    assert!(sessions.len() == 10 && sessions.is_sorted() && sessions.ends_with(&[2, 2, 2]), "{sessions:?}");
    stage.seen.until("it is counted", |seen| seen.reconnects.get(&Reason::Planned) == Some(&1));
    assert_eq!(stage.history()[states..], []);
    threads_left(&stage, 1);
}

#[test]
fn another_source_that_does_not_come_up_is_what_the_camera_has_from_then_on() {
    for (class, wait) in [(RetryClass::Auth, Some(secs(120))), (RetryClass::Transient, None)] {
        let stage = Stage::with(Setup { name: "wrong", twins: true, random: 1.0, ..Setup::default() }, []);
        let first = stage.live();
        stage.stream(&first, 20, ms(100));
        stage.renew(Policy::default(), Some(vec![Script::Fail(reason(Reason::Auth, class))]));
        let _refused = stage.actor();
        match wait {
            Some(wait) => assert_eq!(stage.backoff(Reason::Auth), wait, "an account is not asked twice"),
            None => drop(stage.live()),
        }
    }
}
