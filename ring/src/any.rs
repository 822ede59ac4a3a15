//! Waiting for the first of many rings.

use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::{Duration, Instant};

use crate::layout::at;
use crate::reader::{Look, Ring, Waited};
use crate::sync::{Ordering, Region};
use crate::wait::{self, WAITV_MAX, Woken};

/// Waits until at least one ring has a frame newer than the last one its handle returned.
///
/// Returns the indices of all such rings, in their order; nothing when `timeout` is over, when `rings` is empty, or
/// when every one of them was removed by its operator. One system call waits for up to 128 rings, and one thread more
/// for every 128 further ones, for as long as the call takes. Where the kernel or a sandbox knows no such call (Linux
/// before 5.16) it looks at all rings every 2 ms. Follows new generations, as [`Ring::next`] does.
#[must_use]
pub fn wait_any(rings: &[&Ring], timeout: Option<Duration>) -> Vec<usize> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut turn = 0;
    loop {
        let looks: Vec<Look> = rings.iter().map(|ring| look(ring)).collect();
        let is = |waited| move |look: &&Look| look.waited == Some(waited);
        if looks.iter().all(|look| is(Waited::Removed)(&look)) {
            return Vec::new();
        }
        let newer = looks.iter().enumerate().filter(|(_, look)| is(Waited::Newer)(look));
        let ready: Vec<usize> = newer.map(|(index, _)| index).collect();
        if !ready.is_empty() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return ready;
        }
        let sleeps = rings.iter().zip(&looks).map(|(ring, look)| ring.next_sleep(&look.attachment, deadline));
        let limit = sleeps.min().unwrap_or_default();
        let slept = sleep(&looks, limit, turn);
        turn = turn.wrapping_add(1);
        for (index, (ring, look)) in rings.iter().zip(&looks).enumerate() {
            match slept {
                Slept::Woken(woken) if woken == index => ring.learn(look, Woken::Called),
                Slept::Timeout => ring.learn(look, Woken::Timeout),
                Slept::Woken(_) | Slept::Otherwise => {}
            }
        }
    }
}

fn look(ring: &Ring) -> Look {
    let (last, resets) = ring.horizon();
    ring.look(last, resets)
}

/// What ended a sleep on many rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Slept {
    /// The wake-up call of one of them.
    Woken(usize),
    /// The time.
    Timeout,
    /// A signal, a word that had changed already, or one of many turns: nothing to learn from.
    Otherwise,
}

/// Sleeps until one of the words changes, at most `limit`.
fn sleep(looks: &[Look], limit: Duration, turn: usize) -> Slept {
    let words: Vec<(&AtomicU32, u32)> =
        looks.iter().map(|look| (look.attachment.segment.map.u32_at(at::NOTIFY), look.notify)).collect();
    if let [look] = looks {
        return match wait::sleep(&look.attachment.segment.map, look.notify, limit) {
            Woken::Called => Slept::Woken(0),
            Woken::Timeout => Slept::Timeout,
            Woken::Otherwise => Slept::Otherwise,
        };
    }
    let slept = if words.len() <= WAITV_MAX {
        wait::sleep_on_any(&words, limit).map(slept)
    } else {
        sleep_in_groups(&words, limit)
    };
    slept.unwrap_or_else(|_| {
        // One after the other gets a short turn, and all are looked at in between: bounded delay, no spinning.
        let look = &looks[turn % looks.len()];
        wait::sleep(&look.attachment.segment.map, look.notify, limit.min(wait::SLICE_SHORT));
        Slept::Otherwise
    })
}

fn slept(woken: wait::WokenOf) -> Slept {
    match woken {
        wait::WokenOf::One(index) => Slept::Woken(index),
        wait::WokenOf::Timeout => Slept::Timeout,
        wait::WokenOf::Otherwise => Slept::Otherwise,
    }
}

/// As [`wait::sleep_on_any`], for more words than one call takes: one thread per group, which all end together.
fn sleep_in_groups(words: &[(&AtomicU32, u32)], limit: Duration) -> Result<Slept, rustix::io::Errno> {
    // Before any thread is made: whether there is such a call at all.
    wait::sleep_on_any(&words[..1], Duration::ZERO)?;
    let over = AtomicU32::new(0);
    let group = |words: &[(&AtomicU32, u32)], limit: Duration| {
        let mut words = words.to_vec();
        words.push((&over, 0));
        let slept = wait::sleep_on_any(&words, limit);
        over.store(1, Ordering::Release);
        wait::wake_word(&over);
        slept
    };
    // One word of each call is the one that ends them all.
    let (first, others) = words.split_at(WAITV_MAX - 1);
    let results = thread::scope(|scope| {
        let group = &group;
        let named = || thread::Builder::new().name("ring-wait".into());
        let helpers: Vec<_> = others
            .chunks(WAITV_MAX - 1)
            .map(|words| named().spawn_scoped(scope, move || group(words, limit)))
            .collect();
        // Without a thread for every group, look at the rest soon.
        let all = helpers.iter().all(Result::is_ok);
        let mut results = vec![group(first, if all { limit } else { limit.min(wait::SLICE_SHORT) })];
        for helper in helpers {
            results.push(match helper {
                Ok(helper) => helper.join().expect("sleeping does not panic"),
                Err(_) => Ok(wait::WokenOf::Otherwise),
            });
        }
        results
    });
    let mut ended = Slept::Timeout;
    for (number, result) in results.into_iter().enumerate() {
        let base = number * (WAITV_MAX - 1);
        match result? {
            wait::WokenOf::One(index) if base + index < words.len() && index < WAITV_MAX - 1 => {
                return Ok(Slept::Woken(base + index));
            }
            wait::WokenOf::Timeout => {}
            wait::WokenOf::One(_) | wait::WokenOf::Otherwise => ended = Slept::Otherwise,
        }
    }
    Ok(ended)
}
