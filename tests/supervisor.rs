//! The supervisor on a scripted source and a clock that stands still: every state, deadline and way out.

#[path = "supervisor/relief.rs"]
mod relief;
#[path = "supervisor/stage.rs"]
mod stage;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camring::camera::{Counts, Outcome, Past, Policy};
use camring::health::Health;
use camring::shutdown::Stop;
use camring::source::{Demand, RetryClass, SourceEvent};
use camring_ring::frame::{Reason, State};
use crossbeam_channel::bounded;
use stage::{Script, Setup, Stage, logged, ms, reason, secs};

#[test]
fn a_camera_comes_up_through_starting_connecting_syncing_live() {
    let stage = Stage::new();
    let actor = stage.actor();
    actor.say(SourceEvent::FirstPacket);
    stage.until(State::Syncing, Reason::None);
    actor.frame();
    stage.advance(ms(20));
    stage.until(State::Live, Reason::None);
    assert_eq!(stage.history(), [State::Starting, State::Connecting, State::Syncing, State::Live]);
    let attempts: Vec<_> = stage.seen.change(|seen| seen.shown.iter().map(|shown| shown.attempt).collect());
    assert_eq!(attempts, [0, 1, 1, 0]);
}

#[test]
fn a_camera_with_frames_of_an_earlier_process_is_reconnecting_until_it_is_live() {
    let setup = Setup { past: Past::HadFrames, session_id: 7, ..Setup::default() };
    let stage = Stage::with(setup, []);
    stage.live();
    assert_eq!(stage.history(), [State::Starting, State::Reconnecting, State::Live]);
    assert_eq!(stage.seen.change(|seen| seen.sessions.clone()), [8]);
}

#[test]
fn a_source_that_forgets_to_announce_its_first_packet_is_noticed_by_its_counters() {
    let stage = Stage::new();
    let actor = stage.actor();
    actor.frame();
    stage.advance(ms(250));
    stage.until(State::Live, Reason::None);
}

#[test]
fn no_packet_within_ten_seconds_is_a_connect_timeout() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let _actor = stage.actor();
    stage.pass(ms(9_999));
    assert_eq!(stage.now().state, State::Connecting);
    stage.advance(ms(1));
    assert_eq!(stage.backoff(Reason::ConnectTimeout), ms(250));
    assert_eq!(stage.now().state, State::Connecting, "the camera was never reached");
}

#[test]
fn no_frame_within_fifteen_seconds_of_the_first_packet_is_a_missing_keyframe() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let actor = stage.actor();
    actor.progress.gate_closed.store(true, Ordering::Relaxed);
    actor.say(SourceEvent::FirstPacket);
    stage.until(State::Syncing, Reason::None);
    (0..14).for_each(|_| {
        stage.pass(secs(1));
        actor.packet();
    });
    stage.pass(ms(999));
    assert_eq!(stage.now().state, State::Syncing);
    stage.advance(ms(1));
    assert_eq!(stage.backoff(Reason::NoKeyframe), ms(250));
}

#[test]
fn a_decoder_that_never_gives_a_frame_is_told_apart_from_a_missing_keyframe() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let actor = stage.actor();
    actor.say(SourceEvent::FirstPacket);
    stage.until(State::Syncing, Reason::None);
    actor.packet();
    stage.advance(secs(15));
    stage.backoff(Reason::DecoderStuck);
}

#[test]
fn frames_that_are_decoded_but_never_published_are_a_fault_of_ours() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let actor = stage.actor();
    actor.say(SourceEvent::FirstPacket);
    stage.until(State::Syncing, Reason::None);
    actor.packet();
    actor.decode();
    stage.advance(secs(15));
    stage.backoff(Reason::Internal);
}

#[test]
fn a_fast_camera_that_falls_silent_is_stalled_after_two_seconds() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let actor = stage.live();
    stage.stream(&actor, 50, ms(40));
    stage.pass(ms(1_999));
    assert_eq!(stage.now().state, State::Live);
    stage.advance(ms(1));
    assert_eq!(stage.backoff(Reason::NoPackets), ms(250));
    assert_eq!(stage.history()[2..], [State::Syncing, State::Live, State::Stalled, State::Reconnecting]);
}

#[test]
fn a_slow_camera_is_given_three_of_its_frame_intervals() {
    for (step, limit) in [(ms(500), secs(5)), (secs(1), secs(5)), (secs(4), secs(12))] {
        let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
        let actor = stage.live();
        stage.stream(&actor, 30, step);
        stage.pass(limit - ms(1));
        assert!(!stage.history().contains(&State::Stalled), "{step:?}");
        stage.advance(ms(2));
        stage.backoff(Reason::NoPackets);
    }
}

#[test]
fn a_camera_whose_interval_is_not_known_yet_is_given_the_time_of_a_first_frame() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let _actor = stage.live();
    stage.pass(ms(14_979));
    assert_eq!(stage.now().state, State::Live);
    stage.advance(ms(1));
    stage.backoff(Reason::NoPackets);
}

#[test]
fn a_configured_stall_limit_wins_over_the_automatic_one() {
    let policy = Policy { stall_after: Some(secs(30)), ..Policy::default() };
    let stage = Stage::with(Setup { policy, random: 1.0, ..Setup::default() }, []);
    let actor = stage.live();
    stage.stream(&actor, 50, ms(40));
    stage.pass(ms(29_999));
    assert_eq!(stage.now().state, State::Live);
    stage.advance(ms(1));
    stage.backoff(Reason::NoPackets);
}

#[test]
fn the_state_is_stalled_until_the_teardown_is_done() {
    let (release, released) = bounded::<()>(0);
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, [Script::HangInStop(released)]);
    let actor = stage.live();
    stage.stream(&actor, 50, ms(40));
    stage.advance(secs(2));
    stage.until(State::Stalled, Reason::NoPackets);
    stage.pass(ms(2_500));
    assert_eq!(stage.now().state, State::Stalled);
    drop(release);
    stage.until(State::Reconnecting, Reason::NoPackets);
}

#[test]
fn packets_without_a_decoded_frame_for_five_seconds_are_a_stuck_decoder() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let actor = stage.live();
    stage.stream(&actor, 50, ms(40));
    for _ in 0..19 {
        stage.pass(ms(250));
        actor.packet();
    }
    assert!(!stage.history().contains(&State::Stalled), "4.75 s are not enough");
    stage.advance(ms(250));
    stage.until(State::Reconnecting, Reason::DecoderStuck);
    assert!(stage.history().contains(&State::Stalled));
}

#[test]
fn a_closed_gate_degrades_after_a_second_and_recovers_a_second_after_it_opens() {
    let stage = Stage::new();
    let actor = stage.live();
    stage.stream(&actor, 50, ms(40));
    actor.progress.gate_closed.store(true, Ordering::Relaxed);
    for step in 0..32 {
        stage.pass(ms(250));
        actor.packet();
        let expected = if step <= 4 { State::Live } else { State::Degraded };
        assert_eq!(stage.now().state, expected, "look {step}: a closed gate is no stuck decoder");
    }
    assert_eq!(stage.now().reason, Reason::LossGate);
    actor.progress.gate_closed.store(false, Ordering::Relaxed);
    actor.frame();
    stage.stream(&actor, 20, ms(40));
    assert_eq!(stage.now().state, State::Degraded);
    stage.stream(&actor, 20, ms(40));
    stage.until(State::Live, Reason::None);
}

#[test]
fn a_decoder_gets_five_seconds_from_the_moment_the_gate_opens() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let actor = stage.live();
    stage.stream(&actor, 50, ms(40));
    actor.progress.gate_closed.store(true, Ordering::Relaxed);
    let packets = |count| {
        (0..count).for_each(|_| {
            stage.pass(ms(250));
            actor.packet();
        });
    };
    packets(40);
    actor.progress.gate_closed.store(false, Ordering::Relaxed);
    packets(20);
    assert_ne!(stage.now().reason, Reason::DecoderStuck);
    stage.advance(ms(250));
    stage.until(State::Reconnecting, Reason::DecoderStuck);
}

#[test]
fn lag_degrades_and_forces_one_reconnect_in_five_minutes() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let lagging = |count| {
        let actor = stage.live();
        actor.progress.lag_ns.store(1_000_000_001, Ordering::Relaxed);
        for _ in 0..count {
            stage.pass(ms(250));
            actor.frame();
        }
        actor
    };
    let _first = lagging(80);
    assert_eq!((stage.now().state, stage.now().reason), (State::Degraded, Reason::Lag));
    stage.advance(ms(250));
    assert_eq!(stage.backoff(Reason::Lag), ms(250));
    assert!(!stage.history().contains(&State::Stalled), "frames never stopped");
    stage.advance(ms(250));
    let second = lagging(1_197);
    assert_eq!((stage.now().state, stage.now().reason), (State::Degraded, Reason::Lag));
    assert!(stage.is_idle());
    (0..4).for_each(|_| {
        stage.advance(ms(250));
        second.packet();
        second.decode();
    });
    stage.backoff(Reason::Lag);
}

#[test]
fn lag_that_goes_away_is_forgotten_after_a_second() {
    let stage = Stage::new();
    let actor = stage.live();
    actor.progress.lag_ns.store(2_000_000_000, Ordering::Relaxed);
    stage.stream(&actor, 10, ms(250));
    assert_eq!((stage.now().state, stage.now().reason), (State::Degraded, Reason::Lag));
    actor.progress.lag_ns.store(1_000_000, Ordering::Relaxed);
    stage.stream(&actor, 4, ms(250));
    assert_eq!(stage.now().state, State::Degraded);
    stage.stream(&actor, 2, ms(250));
    assert_eq!((stage.now().state, stage.now().reason), (State::Live, Reason::None));
}

#[test]
fn a_third_of_the_usual_frame_rate_is_degraded() {
    let stage = Stage::new();
    let actor = stage.live();
    stage.stream(&actor, 100, ms(100));
    assert_eq!(stage.now().state, State::Live);
    stage.stream(&actor, 20, ms(300));
    assert_eq!((stage.now().state, stage.now().reason), (State::Degraded, Reason::LowFps));
    stage.stream(&actor, 60, ms(100));
    assert_eq!(stage.now().state, State::Live);
}

#[test]
fn a_still_picture_is_frozen_without_a_new_session_and_live_at_the_next_look_after_it_moved() {
    let policy = Policy { frozen_after: Some(secs(30)), ..Policy::default() };
    let stage = Stage::with(Setup { policy, ..Setup::default() }, []);
    let actor = stage.live();
    stage.stream(&actor, 20, ms(250));
    assert!(actor.progress.compare.load(Ordering::Relaxed), "the session was asked to compare");
    actor.progress.unchanged_ns.store(29_999_999_999, Ordering::Relaxed);
    stage.stream(&actor, 4, ms(250));
    assert_eq!(stage.now().state, State::Live);
    actor.progress.unchanged_ns.store(30_000_000_000, Ordering::Relaxed);
    // Longer than after any other trouble a new session is tried.
    stage.stream(&actor, 400, ms(250));
    assert_eq!((stage.now().state, stage.now().reason), (State::Degraded, Reason::Frozen));
    actor.progress.lag_ns.store(2_000_000_000, Ordering::Relaxed);
    stage.stream(&actor, 10, ms(250));
    assert_eq!((stage.now().state, stage.now().reason), (State::Degraded, Reason::Lag), "counts from here on");
    actor.progress.lag_ns.store(0, Ordering::Relaxed);
    stage.stream(&actor, 2, ms(250));
    assert_eq!(stage.now().reason, Reason::Frozen);
    actor.progress.unchanged_ns.store(0, Ordering::Relaxed);
    stage.pass(ms(250));
    assert_eq!((stage.now().state, stage.now().reason), (State::Live, Reason::None));
    assert!(stage.is_idle(), "no other session was begun");
}

#[test]
fn nobody_compares_pictures_unless_asked_to() {
    let stage = Stage::new();
    let actor = stage.live();
    actor.progress.unchanged_ns.store(u64::MAX, Ordering::Relaxed);
    stage.stream(&actor, 20, ms(250));
    assert_eq!(stage.now().state, State::Live);
    assert!(!actor.progress.compare.load(Ordering::Relaxed));
}

fn until_told(heard: &Mutex<Vec<String>>, text: &str, times: usize) {
    let deadline = std::time::Instant::now() + stage::PATIENCE;
    while heard.lock().unwrap().iter().filter(|said| *said == text).count() < times {
        assert!(std::time::Instant::now() < deadline, "{text} was not said {times} times: {:?}", heard.lock().unwrap());
        std::thread::yield_now();
    }
}

#[test]
fn limits_change_in_place_and_another_source_begins_a_new_session_at_once() {
    let (health, said) = manager(None);
    let stage = Stage::with(Setup { health, random: 1.0, ..Setup::default() }, []);
    let actor = stage.live();
    stage.stream(&actor, 20, ms(40));
    let policy = Policy { stall_after: Some(secs(60)), ..Policy::default() };
    stage.renew(policy.clone(), None);
    until_told(&said, "READY=1", 2);
    for _ in 0..100 {
        stage.pass(ms(250));
        actor.packet();
    }
    assert_eq!(stage.now().state, State::Live, "25 s without a frame: the new limit counts");
    stage.renew(policy, Some(vec![]));
    let next = stage.actor();
    next.say(SourceEvent::FirstPacket);
    next.frame();
    stage.advance(ms(20));
    until_told(&said, "READY=1", 3);
    stage.seen.until("live again", |seen| seen.shown.last().is_some_and(|shown| shown.state == State::Live));
    assert!(stage.history().ends_with(&[State::Live, State::Reconnecting, State::Live]), "{:?}", stage.history());
    assert_eq!(stage.seen.change(|seen| seen.reconnects.clone()), HashMap::from([(Reason::Planned, 1)]));
    let said = said.lock().unwrap().clone();
    assert_eq!(said.iter().filter(|text| *text == "RELOADING=1").count(), 2, "{said:?}");
}

#[test]
fn a_reload_ends_the_wait_for_the_next_try_when_it_brings_another_source() {
    let stage = Stage::scripted([Script::Fail(reason(Reason::Auth, RetryClass::Auth))]);
    stage.actor();
    stage.backoff(Reason::Auth);
    stage.renew(Policy::default(), Some(vec![]));
    stage.live();
    assert_eq!(stage.now().attempt, 0);
}

#[test]
fn a_stop_during_a_reload_is_heard() {
    let (release, released) = bounded(0);
    let mut stage = Stage::scripted([Script::HangInStop(released)]);
    let _actor = stage.live();
    stage.renew(Policy::default(), Some(vec![]));
    stage.until(State::Reconnecting, Reason::Planned);
    stage.stop();
    stage.until(State::Stopped, Reason::Operator);
    drop::<crossbeam_channel::Sender<()>>(release);
    assert_eq!(stage.outcome(), Outcome::Stopped);
}

#[test]
fn changes_of_the_outputs_are_made_at_once_while_no_picture_comes() {
    let (stage, _actor) = parked();
    let before = stage.settled.load(Ordering::Relaxed);
    stage.renew(Policy { idle: Demand::Nothing, ..Policy::default() }, None);
    let deadline = std::time::Instant::now() + stage::PATIENCE;
    while stage.settled.load(Ordering::Relaxed) == before {
        assert!(std::time::Instant::now() < deadline, "the sink was not asked");
        std::thread::yield_now();
    }
    assert_eq!(stage.now().state, State::Parked);
}

/// A camera that is parked when nobody reads, after 10 s without a reader.
fn parked() -> (Stage, stage::Actor) {
    let policy = Policy { idle: Demand::Nothing, ..Policy::default() };
    let stage = Stage::with(Setup { policy, random: 1.0, ..Setup::default() }, []);
    let actor = stage.live();
    stage.attended.store(false, Ordering::Relaxed);
    stage.stream(&actor, 39, ms(250));
    assert_eq!(stage.now().state, State::Live, "not before 10 s");
    stage.stream(&actor, 4, ms(250));
    assert_eq!((stage.now().state, stage.now().reason), (State::Parked, Reason::None));
    assert_eq!(actor.progress.demand(), Demand::Nothing);
    actor.progress.gate_closed.store(true, Ordering::Relaxed);
    (stage, actor)
}

/// Packets for so many looks of 250 ms, none of which becomes a frame.
fn packets(stage: &Stage, actor: &stage::Actor, looks: u32) {
    (0..looks).for_each(|_| {
        stage.pass(ms(250));
        actor.packet();
    });
}

#[test]
fn a_parked_camera_raises_no_alarm_and_is_live_with_the_first_frame_of_its_first_reader() {
    let (stage, actor) = parked();
    packets(&stage, &actor, 400);
    assert_eq!(stage.now().state, State::Parked, "no stall, no stuck decoder, no closed gate");
    stage.attended.store(true, Ordering::Relaxed);
    stage.pass(ms(100));
    assert_eq!((stage.now().state, actor.progress.demand()), (State::Parked, Demand::All));
    packets(&stage, &actor, 12);
    assert_eq!(stage.now().state, State::Parked, "the next keyframe is still awaited");
    actor.progress.gate_closed.store(false, Ordering::Relaxed);
    actor.frame();
    stage.pass(ms(20));
    assert_eq!((stage.now().state, stage.now().reason), (State::Live, Reason::None));
    stage.stream(&actor, 400, ms(250));
    assert_eq!(stage.now().state, State::Live);
    assert!(stage.is_idle() && !stage.history().contains(&State::Degraded), "{:?}", stage.history());
}

#[test]
fn a_parked_camera_that_falls_silent_is_stalled_and_parked_again_after_a_fresh_frame() {
    let (stage, actor) = parked();
    packets(&stage, &actor, 8);
    stage.advance(secs(4));
    stage.until(State::Reconnecting, Reason::NoPackets);
    stage.advance(secs(5));
    let next = stage.actor();
    next.say(SourceEvent::FirstPacket);
    next.frame();
    stage.advance(ms(20));
    stage.until(State::Parked, Reason::None);
    assert!(stage.history().ends_with(&[State::Reconnecting, State::Live, State::Parked]), "{:?}", stage.history());
}

#[test]
fn a_parked_camera_that_gives_its_first_reader_no_keyframe_is_reconnected() {
    let (stage, actor) = parked();
    stage.attended.store(true, Ordering::Relaxed);
    packets(&stage, &actor, 58);
    assert_eq!(stage.now().state, State::Parked);
    packets(&stage, &actor, 2);
    stage.advance(ms(500));
    stage.until(State::Reconnecting, Reason::NoKeyframe);
}

#[test]
fn a_camera_whose_readers_come_and_go_is_not_parked_in_between() {
    let policy = Policy { idle: Demand::Keyframes, ..Policy::default() };
    let stage = Stage::with(Setup { policy, ..Setup::default() }, []);
    let actor = stage.live();
    for round in 0..8 {
        stage.attended.store(round % 2 == 0, Ordering::Relaxed);
        stage.stream(&actor, 36, ms(250));
        assert_eq!((stage.now().state, actor.progress.demand()), (State::Live, Demand::All), "round {round}");
    }
}

#[test]
fn a_ring_that_takes_no_frames_is_an_error_and_the_session_stays() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let actor = stage.actor();
    actor.say(SourceEvent::FirstPacket);
    stage.until(State::Syncing, Reason::None);
    *stage.refusal.lock().unwrap() = Some(Reason::NoRoom);
    for _ in 0..20 {
        actor.packet();
        actor.decode();
        stage.advance(secs(1));
        stage.until(State::Error, Reason::NoRoom);
    }
    *stage.refusal.lock().unwrap() = None;
    stage.stream(&actor, 3, ms(250));
    stage.until(State::Live, Reason::None);
    assert!(!stage.history().contains(&State::Reconnecting), "another session would not have helped");
}

#[test]
fn a_degraded_camera_that_falls_silent_is_stalled() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let actor = stage.live();
    actor.progress.lag_ns.store(2_000_000_000, Ordering::Relaxed);
    stage.stream(&actor, 50, ms(40));
    stage.until(State::Degraded, Reason::Lag);
    stage.advance(secs(2));
    stage.until(State::Reconnecting, Reason::NoPackets);
    assert!(stage.history().contains(&State::Stalled));
}

#[test]
fn a_teardown_that_does_not_end_says_restarting_and_gives_the_process_up() {
    let (release, released) = bounded::<()>(0);
    let mut stage = Stage::scripted([Script::HangInStop(released)]);
    let actor = stage.live();
    actor.end(Reason::ServerClosed, RetryClass::Transient);
    stage.until(State::Reconnecting, Reason::ServerClosed);
    stage.pass(ms(2_999));
    assert!(stage.is_running());
    stage.advance(ms(1));
    assert_eq!(stage.outcome(), Outcome::TeardownOverran);
    assert_eq!((stage.now().state, stage.now().reason), (State::Restarting, Reason::ServerClosed));
    drop(release);
}

#[test]
fn a_connect_that_does_not_return_is_given_its_deadline_and_the_teardown_s() {
    let (release, released) = bounded::<()>(0);
    let mut stage = Stage::scripted([Script::HangInStart(released)]);
    let _actor = stage.actor();
    stage.advance(secs(10));
    stage.until(State::Connecting, Reason::ConnectTimeout);
    stage.pass(ms(2_999));
    assert!(stage.is_running());
    stage.advance(ms(1));
    assert_eq!(stage.outcome(), Outcome::TeardownOverran);
    assert_eq!(stage.now().state, State::Restarting);
    drop(release);
}

#[test]
fn a_connect_that_returns_late_is_stopped_and_tried_again() {
    let (release, released) = bounded::<()>(0);
    let stage = Stage::scripted([Script::HangInStart(released)]);
    let _late = stage.actor();
    stage.advance(secs(10));
    stage.until(State::Connecting, Reason::ConnectTimeout);
    drop(release);
    let _next = stage.actor();
    assert_eq!(stage.now().attempt, 2);
}

#[test]
fn a_stop_during_a_hung_connect_ends_within_two_seconds() {
    let (release, released) = bounded::<()>(0);
    let mut stage = Stage::scripted([Script::HangInStart(released)]);
    let _actor = stage.actor();
    stage.stop();
    stage.until(State::Stopped, Reason::Operator);
    stage.advance(ms(1_500));
    assert_eq!(stage.outcome(), Outcome::StopOverran);
    assert_eq!(stage.now().state, State::Stopped);
    drop(release);
}

#[test]
fn a_stop_while_live_ends_the_session_and_says_stopped() {
    let mut stage = Stage::new();
    let _actor = stage.live();
    stage.stop();
    assert_eq!(stage.outcome(), Outcome::Stopped);
    assert_eq!((stage.now().state, stage.now().reason), (State::Stopped, Reason::Operator));
}

#[test]
fn a_stop_in_a_back_off_is_obeyed_at_once() {
    let mut stage = Stage::scripted([Script::Fail(reason(Reason::Auth, RetryClass::Auth))]);
    assert_eq!(stage.backoff(Reason::Auth), secs(60));
    stage.stop();
    assert_eq!(stage.outcome(), Outcome::Stopped);
    assert_eq!(stage.now().state, State::Stopped);
}

#[test]
fn a_stop_during_the_teardown_of_a_failed_session_shortens_it() {
    let (release, released) = bounded::<()>(0);
    let mut stage = Stage::scripted([Script::HangInStop(released)]);
    stage.live().end(Reason::ServerClosed, RetryClass::Transient);
    stage.until(State::Reconnecting, Reason::ServerClosed);
    stage.stop();
    stage.until(State::Stopped, Reason::Operator);
    stage.advance(ms(1_500));
    assert_eq!(stage.outcome(), Outcome::StopOverran);
    drop(release);
}

#[test]
fn a_second_request_to_stop_waits_for_nothing() {
    let (release, released) = bounded::<()>(0);
    let mut stage = Stage::scripted([Script::HangInStop(released)]);
    let _actor = stage.live();
    stage.stop();
    stage.stop.as_ref().unwrap().send(Stop::Now).unwrap();
    assert_eq!(stage.outcome(), Outcome::StopOverran);
    drop(release);
}

#[test]
fn a_closed_stop_channel_is_a_request_to_stop() {
    let mut stage = Stage::new();
    let _actor = stage.live();
    stage.stop = None;
    assert_eq!(stage.outcome(), Outcome::Stopped);
}

#[test]
fn the_next_session_waits_until_the_sink_is_home() {
    let stage = Stage::scripted([Script::KeepSink]);
    let actor = stage.live();
    actor.end(Reason::ServerClosed, RetryClass::Transient);
    stage.until(State::Reconnecting, Reason::ServerClosed);
    stage.pass(secs(2));
    assert!(stage.is_idle() && stage.now().retry_in.is_none());
    actor.drop_sink();
    let next = stage.actor();
    next.frame();
    assert_eq!(stage.published.load(Ordering::Relaxed), 2, "the same sink publishes");
}

#[test]
fn a_sink_that_never_comes_home_gives_the_process_up() {
    let mut stage = Stage::scripted([Script::KeepSink]);
    let actor = stage.live();
    actor.end(Reason::ServerClosed, RetryClass::Transient);
    stage.until(State::Reconnecting, Reason::ServerClosed);
    stage.advance(secs(3));
    assert_eq!(stage.outcome(), Outcome::TeardownOverran);
}

#[test]
fn a_session_that_talks_while_it_ends_is_listened_to() {
    let stage = Stage::with(Setup { name: "talker", ..Setup::default() }, [Script::ChatterInStop(1_000)]);
    stage.live().end(Reason::ServerClosed, RetryClass::Transient);
    let _next = stage.actor();
    assert!(logged("talker").iter().any(|line| line["message"] == "word 999"));
}

/// The delays before the first `count` retries, at the upper end of the jitter.
fn delays(class: RetryClass, count: usize) -> Vec<u128> {
    let why = reason(Reason::NotFound, class);
    let scripts = (0..count).map(|_| Script::Fail(why.clone()));
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, scripts);
    let wait = |_| {
        let _actor = stage.actor();
        let wait = stage.backoff(Reason::NotFound);
        stage.advance(wait);
        wait.as_millis()
    };
    (0..count).map(wait).collect()
}

#[test]
fn each_class_of_failure_has_its_own_pace() {
    assert_eq!(delays(RetryClass::Transient, 8), [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
    assert_eq!(delays(RetryClass::Busy, 3), [5250, 5500, 6000]);
    assert_eq!(delays(RetryClass::Permanent, 5), [10_000, 20_000, 40_000, 60_000, 60_000]);
    assert_eq!(delays(RetryClass::Auth, 5), [120_000, 240_000, 480_000, 900_000, 900_000]);
}

#[test]
fn a_camera_that_cuts_sessions_at_one_age_is_reconnected_at_once_each_time() {
    let pauses = |ages: [u64; 5]| {
        let stage = Stage::with(Setup { random: 1.0, name: "rhythm", ..Setup::default() }, []);
        ages.map(|age| {
            let actor = stage.live();
            stage.stream(&actor, age, secs(1));
            actor.end(Reason::ServerClosed, RetryClass::Transient);
            let wait = stage.backoff(Reason::ServerClosed);
            stage.advance(wait);
            wait.as_millis()
        })
    };
    assert_eq!(pauses([10, 10, 10, 10, 10]), [250, 500, 250, 250, 250]);
    let told = logged("rhythm");
    let notice = "the camera ends each session after about 10s; beginning the next one at once each time";
    assert_eq!(told.iter().filter(|line| line["message"] == notice).count(), 1, "{told:?}");
    assert_eq!(pauses([10, 17, 5, 20, 12]), [250, 500, 1000, 2000, 4000], "no rhythm, no favour");
}

#[test]
fn a_try_that_hung_is_followed_by_the_next_one_five_seconds_after_it_began() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    for wait in [250, 500, 1000, 2000, 4000] {
        stage.actor().end(Reason::ConnectRefused, RetryClass::Transient);
        assert_eq!(stage.backoff(Reason::ConnectRefused), ms(wait));
        stage.advance(ms(wait));
    }
    for (hung, wait) in [(secs(4), secs(1)), (ms(4_900), ms(250)), (secs(9), ms(250))] {
        let actor = stage.actor();
        stage.pass(hung);
        actor.end(Reason::ConnectTimeout, RetryClass::Transient);
        assert_eq!(stage.backoff(Reason::ConnectTimeout), wait, "after {hung:?}");
        stage.advance(wait);
    }
    let actor = stage.live();
    stage.stream(&actor, 10, ms(500));
    actor.end(Reason::ServerClosed, RetryClass::Transient);
    assert_eq!(stage.backoff(Reason::ServerClosed), secs(5), "a session with packets was no pause");
}

#[test]
fn the_classes_do_not_count_each_other_s_failures() {
    let refused = reason(Reason::ConnectRefused, RetryClass::Transient);
    let auth = reason(Reason::Auth, RetryClass::Auth);
    let order = [refused.clone(), refused.clone(), refused.clone(), auth, refused];
    let expected = [250, 500, 1000, 120_000, 250];
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, order.clone().map(Script::Fail));
    for (why, wait) in order.iter().zip(expected) {
        let _actor = stage.actor();
        assert_eq!(stage.backoff(why.reason), ms(wait));
        stage.advance(ms(wait));
    }
}

#[test]
fn attempts_are_counted_and_stay_at_255() {
    let stage = Stage::new();
    for n in 1..=300_u32 {
        let actor = stage.actor();
        assert_eq!(u32::from(stage.now().attempt), n.min(255));
        stage.script(Script::Usual);
        actor.end(Reason::ConnectRefused, RetryClass::Transient);
    }
}

#[test]
fn thirty_seconds_live_make_the_next_failure_the_first_one() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, []);
    let wait = |seconds: u64| {
        let actor = stage.live();
        stage.stream(&actor, seconds, secs(1));
        stage.pass(ms(250));
        actor.end(Reason::ServerClosed, RetryClass::Transient);
        let wait = stage.backoff(Reason::ServerClosed);
        let attempt = stage.now().attempt;
        stage.advance(wait);
        (wait.as_millis(), attempt)
    };
    assert_eq!([wait(3), wait(3), wait(28), wait(31), wait(3)], [(250, 1), (500, 2), (1000, 3), (250, 0), (500, 1)]);
}

#[test]
fn a_lost_camera_is_counted_by_reason_once_it_is_live_again() {
    let stage = Stage::new();
    stage.live().end(Reason::ServerClosed, RetryClass::Transient);
    stage.actor().end(Reason::ConnectRefused, RetryClass::Transient);
    let actor = stage.actor();
    assert!(stage.seen.change(|seen| seen.reconnects.is_empty()));
    actor.frame();
    stage.advance(ms(250));
    stage.until(State::Live, Reason::None);
    actor.progress.lag_ns.store(2_000_000_000, Ordering::Relaxed);
    stage.stream(&actor, 4, ms(250));
    actor.progress.lag_ns.store(0, Ordering::Relaxed);
    stage.stream(&actor, 8, ms(250));
    assert!(stage.history().ends_with(&[State::Live, State::Degraded, State::Live]));
    assert_eq!(stage.seen.change(|seen| seen.reconnects.clone()), HashMap::from([(Reason::ServerClosed, 1)]));
}

#[test]
fn only_sessions_with_a_packet_use_up_a_session_number() {
    let stage = Stage::new();
    stage.actor().end(Reason::ConnectRefused, RetryClass::Transient);
    stage.live().end(Reason::ServerClosed, RetryClass::Transient);
    stage.actor().end(Reason::ConnectRefused, RetryClass::Transient);
    let _fourth = stage.live();
    assert_eq!(stage.seen.change(|seen| seen.sessions.clone()), [1, 1, 2, 2]);
}

#[test]
fn counters_go_on_over_sessions() {
    let stage = Stage::new();
    for _ in 0..2 {
        let actor = stage.live();
        actor.frame();
        actor.progress.packets_lost.store(3, Ordering::Relaxed);
        actor.progress.dropped_gate.store(4, Ordering::Relaxed);
        actor.progress.dropped_leaky.store(5, Ordering::Relaxed);
        actor.progress.decode_errors.store(6, Ordering::Relaxed);
        actor.end(Reason::ServerClosed, RetryClass::Transient);
        stage.until(State::Reconnecting, Reason::ServerClosed);
    }
    let _third = stage.actor();
    let expected =
        Counts { packets: 4, packets_lost: 6, decoded: 4, dropped_gate: 8, dropped_leaky: 10, decode_errors: 12 };
    assert_eq!(stage.seen.change(|seen| seen.counts), expected);
}

#[test]
fn what_only_a_human_can_mend_is_shown_as_an_error_and_tried_again() {
    let stage = Stage::scripted([Script::Fail(reason(Reason::Config, RetryClass::Permanent))]);
    let _first = stage.actor();
    let wait = stage.backoff(Reason::Config);
    assert_eq!(stage.now().state, State::Error);
    stage.advance(wait);
    stage.live();
}

#[test]
fn a_session_that_panics_is_an_internal_fault_and_tried_again() {
    let stage = Stage::with(Setup { random: 1.0, ..Setup::default() }, [Script::Panic]);
    let _first = stage.actor();
    let wait = stage.backoff(Reason::Internal);
    stage.advance(wait);
    stage.live();
}

#[test]
fn codec_and_decoder_reach_the_board() {
    let stage = Stage::new();
    let actor = stage.actor();
    actor.say(SourceEvent::Decoder { codec: "h264".into(), decoder: "avdec_h264".into() });
    stage.seen.until("the words", |seen| seen.text == [("h264".into(), "avdec_h264".into())]);
}

#[test]
fn sessions_leave_no_thread_behind() {
    let stage = Stage::new();
    for _ in 0..200 {
        stage.actor().end(Reason::ConnectRefused, RetryClass::Transient);
    }
    let _last = stage.actor();
    // A thread counts until it is quite over, a moment after the session is; the present one stays.
    let deadline = std::time::Instant::now() + stage::PATIENCE;
    while stage.threads.load(Ordering::SeqCst) > 1 {
        assert!(std::time::Instant::now() < deadline, "{} threads", stage.threads.load(Ordering::SeqCst));
        std::thread::yield_now();
    }
}

#[test]
fn one_session_can_be_run_by_itself() {
    let mut stage = Stage::once([Script::Fail(reason(Reason::Dns, RetryClass::Transient))]);
    assert_eq!(stage.outcome(), Outcome::Stopped);
    assert_eq!((stage.now().state, stage.now().reason), (State::Connecting, Reason::Dns));
}

/// A manager's ear and what it has heard.
fn manager(watchdog: Option<Duration>) -> (Health, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = heard.clone();
    let hear = move |states: &[sd_notify::NotifyState<'_>]| {
        ear.lock().unwrap().extend(states.iter().map(ToString::to_string));
        Ok(())
    };
    (Health::with(Box::new(hear), watchdog, secs(20)), heard)
}

#[test]
fn the_service_manager_hears_of_states_readiness_and_the_stop() {
    let (health, heard) = manager(None);
    let mut stage = Stage::with(Setup { health, ..Setup::default() }, []);
    stage.live();
    stage.stop();
    stage.outcome();
    let expected = [
        "STATUS=starting",
        "STATUS=connecting",
        "STATUS=syncing",
        "STATUS=live",
        "READY=1",
        "STOPPING=1",
        "STATUS=stopping",
    ];
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[test]
fn the_watchdog_is_fed_while_an_absent_camera_is_waited_for() {
    let (health, heard) = manager(Some(secs(10)));
    let scripts = [Script::Fail(reason(Reason::Auth, RetryClass::Auth))];
    let stage = Stage::with(Setup { health, ..Setup::default() }, scripts);
    stage.backoff(Reason::Auth);
    (0..11).for_each(|_| stage.pass(secs(5)));
    let heard = heard.lock().unwrap();
    let feedings = heard.iter().filter(|message| *message == "WATCHDOG=1").count();
    assert!(feedings >= 11, "{heard:?}");
    assert!(heard.contains(&"STATUS=connecting: auth, next in 1m".to_owned()), "{heard:?}");
    assert!(heard.contains(&"READY=1".to_owned()), "ready after 20 s without a frame: {heard:?}");
}

#[test]
fn an_unreachable_camera_writes_a_line_a_minute() {
    let stage = Stage::with(Setup { random: 1.0, name: "unreachable", ..Setup::default() }, []);
    let mut minutes = Duration::ZERO;
    while minutes < secs(300) {
        stage.actor().end(Reason::ConnectRefused, RetryClass::Transient);
        let wait = stage.backoff(Reason::ConnectRefused);
        stage.advance(wait);
        minutes += wait;
    }
    let lines = logged("unreachable");
    assert_eq!(lines.len(), 5, "{lines:?}");
    let first = &lines[0];
    assert_eq!(first["message"], "scripted connect_refused; next try in 200ms");
    assert_eq!((&first["camera"], &first["reason"]), (&"unreachable".into(), &"connect_refused".into()));
    assert_eq!((&first["state"], &first["attempt"]), (&"connecting".into(), &1.into()));
    assert_eq!((&first["retry_in_ms"], &first["repeats"]), (&250.into(), &0.into()));
    assert_eq!((&lines[1]["repeats"], &lines[1]["level"]), (&15.into(), &"WARN".into()));
}

#[test]
fn a_camera_that_comes_and_goes_repeats_itself_once_a_minute_at_most() {
    let stage = Stage::with(Setup { random: 1.0, name: "flapping", ..Setup::default() }, []);
    for _ in 0..20 {
        let actor = stage.actor();
        actor.say(SourceEvent::Decoder { codec: "h264".into(), decoder: "avdec_h264".into() });
        actor.say(SourceEvent::Notice("the camera sends a marker per slice".into()));
        actor.frame();
        stage.advance(ms(250));
        stage.until(State::Live, Reason::None);
        actor.end(Reason::ServerClosed, RetryClass::Transient);
        stage.advance(stage.backoff(Reason::ServerClosed));
    }
    let messages: Vec<_> = logged("flapping").iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect();
    let count = |text: &str| messages.iter().filter(|message| message.contains(text)).count();
    // 20 rounds of at most 5.25 s: under two minutes.
    assert_eq!(count("decoder chosen"), 1, "{messages:?}");
    assert!((1..=2).contains(&count("marker per slice")), "{messages:?}");
    assert!((1..=2).contains(&count("next try in")), "{messages:?}");
    assert!((1..=2).contains(&count("live")), "{messages:?}");
}
