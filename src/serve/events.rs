//! `/events`: server-sent events about changes of state, and for the page the numbers each second.
//!
//! | event | data |
//! |---|---|
//! | `hello` | object: `version`, `preview` |
//! | `state` | object: `name`, `condition` (`removed` when the ring went away), `words`, `note`, `grade`, `before` (null at first), `unix_ms`; one for every ring at the beginning, then one at each change |
//! | `rings` | with `?numbers=1`, each second: list of all, as [`Entry::json`] |
//!
//! A comment comes when nothing else did for five seconds. A client that is slow gets the newest, not all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camring_ring::clock::real_ns;
use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::{Value as Json, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::reply::{Body, Reply, reply};
use super::scene::{Entry, Scene};

/// Whoever hears nothing for longer has lost the connection.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two lists of numbers; a little less than two looks, so that every second look is one.
const NUMBERS_EVERY: Duration = Duration::from_millis(900);

/// What a client hears besides changes of state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Numbers {
    /// Everything, each second.
    Wanted,
    /// Nothing.
    Unwanted,
}

/// The answer; its task ends with the client.
#[must_use]
pub fn stream(
    scenes: watch::Receiver<Arc<Scene>>,
    hello: &Json,
    numbers: Numbers,
    place: OwnedSemaphorePermit,
) -> Reply {
    let (sender, pieces) = mpsc::channel(1);
    let first = format!("retry: 2000\n\n{}", event("hello", hello));
    tokio::spawn(async move {
        tell(scenes, first, numbers, &sender).await;
        drop(place);
    });
    reply(StatusCode::OK, "text/event-stream", Body::Pieces(pieces))
}

async fn tell(
    mut scenes: watch::Receiver<Arc<Scene>>,
    mut text: String,
    numbers: Numbers,
    client: &mpsc::Sender<Bytes>,
) {
    let mut said = BTreeMap::new();
    let mut numbers_said: Option<Instant> = None;
    let mut spoken = Instant::now();
    loop {
        let scene = Arc::clone(&scenes.borrow_and_update());
        text.push_str(&changes(&scene, &mut said));
        if numbers == Numbers::Wanted && numbers_said.is_none_or(|at| at.elapsed() >= NUMBERS_EVERY) {
            numbers_said = Some(Instant::now());
            text.push_str(&event("rings", &scene.entries.iter().map(Entry::json).collect()));
        }
        if text.is_empty() && spoken.elapsed() >= HEARTBEAT {
            text.push_str(": still here\n\n");
        }
        if !text.is_empty() {
            spoken = Instant::now();
            if client.send(std::mem::take(&mut text).into()).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = client.closed() => return,
            changed = scenes.changed() => if changed.is_err() { return },
            // A watcher that is stuck is no reason to be silent.
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
    }
}

/// What was said of a ring last.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    condition: String,
    words: String,
    reason: Option<String>,
}

impl Said {
    fn of(entry: &Entry) -> Self {
        Self { condition: entry.condition(), words: entry.words(), reason: entry.reason() }
    }
}

/// An event for every ring whose state is another one than was said last.
fn changes(scene: &Scene, said: &mut BTreeMap<String, Said>) -> String {
    let mut text = String::new();
    for entry in &scene.entries {
        let now = Said::of(entry);
        let before = said.insert(entry.name.clone(), now.clone());
        if before.as_ref() != Some(&now) {
            text.push_str(&change(&entry.name, &now, &entry.note(), entry.grade().word(), before.as_ref()));
        }
    }
    said.retain(|name, before| {
        let is_there = scene.entry(name).is_some();
        if !is_there {
            let removed = Said { condition: "removed".into(), words: "removed".into(), reason: None };
            text.push_str(&change(name, &removed, "", "off", Some(before)));
        }
        is_there
    });
    text
}

fn change(name: &str, now: &Said, note: &str, grade: &str, before: Option<&Said>) -> String {
    let data = json!({
        "name": name,
        "condition": now.condition,
        "words": now.words,
        "note": note,
        "grade": grade,
        "before": before.map(|before| &before.words),
        "unix_ms": real_ns() / 1_000_000,
    });
    event("state", &data)
}

/// One event; JSON has no line ends.
fn event(kind: &str, data: &Json) -> String {
    let mut text = String::new();
    write!(text, "event: {kind}\ndata: {data}\n\n").expect("writing to a string cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Found, Mount};
    use super::*;

    fn scene(found: Vec<(&str, Found)>) -> Scene {
        let entries = found.into_iter().map(|(name, found)| Entry { name: name.to_owned(), found }).collect();
        let mount = Mount { path: "/dev/shm".into(), size_bytes: None, free_bytes: None };
        Scene { begun: Instant::now(), entries, mount, fault: None }
    }

    #[test]
    fn every_ring_is_said_at_first_and_then_only_what_changed() {
        let mut said = BTreeMap::new();
        let first = changes(&scene(vec![("a", Found::Absent), ("b", Found::Absent)]), &mut said);
        assert_eq!(first.matches("event: state\n").count(), 2, "{first}");
        assert!(first.contains(r#""before":null,"condition":"absent""#), "{first}");
        assert_eq!(changes(&scene(vec![("a", Found::Absent), ("b", Found::Absent)]), &mut said), "");
        let then = changes(&scene(vec![("a", Found::Unreadable("x".into()))]), &mut said);
        assert!(then.contains(r#""before":"absent","condition":"unreadable""#), "{then}");
        assert!(then.contains(r#""condition":"removed""#) && then.contains(r#""name":"b""#), "{then}");
        assert_eq!(said.len(), 1);
    }
}
