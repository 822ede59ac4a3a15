//! The journal: entries with fields of their own, and a MESSAGE_ID for each kind of event.

use std::sync::OnceLock;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// A kind of event that programs may wait for: `journalctl MESSAGE_ID=...`.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name in the code: `tracing::info!(name: "live", ...)`.
    pub name: &'static str,
    /// Its MESSAGE_ID, which never changes.
    pub id: &'static str,
    /// What has happened, for the manual.
    pub meaning: &'static str,
}

const fn kind(name: &'static str, id: &'static str, meaning: &'static str) -> Kind {
    Kind { name, id, meaning }
}

/// Every kind of event that has a MESSAGE_ID, in the order of the manual.
pub static KINDS: &[Kind] = &[
    kind("ring_ready", "8059bbbbbc4f4fd4a7235fa35c063aac", "a daemon has made or adopted its ring"),
    kind("live", "7a6e79204ada405f838fb5069a68796c", "frames are published"),
    kind("degraded", "d8447b3215f44ce891a27b39381f50ae", "frames are missing, late or all alike"),
    kind("parked", "b4c5e73a40264c4a8da1e7452f547cfe", "nobody reads; decoding rests"),
    kind("session_failed", "3bb6514670504eb0a3d4dae260135488", "a session ended or did not begin; another try follows"),
    kind(
        "decoder_chosen",
        "08c7d964f84542209d73d23584f288b5",
        "codec and decoder are known, or are others than before",
    ),
    kind("stopped", "9429a63d339346f8a61e4813aef780f6", "the daemon has ended in order"),
    kind("process_replaced", "44bf7a78cb3a4cbeab6ccd97a668b5d5", "a session did not end; the process ends with 75"),
    kind("key_changed", "77d369228c894712bd79b9cefff23dea", "a reload changed a key"),
    kind("reload_refused", "4c067aa93a384fa7abd4e1aad6ed4886", "a reload found a mistake and changed nothing"),
    kind("ring_remade", "e70efeca5cce4ad2af27c6f1826a8995", "a new generation of the ring; readers follow"),
    kind("ring_kept", "de3b95e2a4e84d27ad9d8d9a11344998", "a new generation was asked for and cannot be made yet"),
    kind("ring_replaced", "ae795166c5cf471aadf3eae0548db80d", "an older ring could not be adopted"),
    kind("frames_refused", "9c9868cd1b264e38aaa89221e772dd26", "frames come and cannot be published"),
    kind("frames_resumed", "7e511d60283d46ccb999d054da884a52", "frames are published again"),
    kind("names_restored", "9864fde438f24da39af10a5c295c9f9e", "somebody removed names of the ring; they are back"),
    kind("names_lost", "a000de2a8cd14e238383143ae678d03f", "both names of the ring are gone"),
    kind("locks_slow", "cbd0118186af48f281db28f6994790e6", "readers' locks make claims slow"),
];

/// Writes events to the journal; those of a [`Kind`] with its MESSAGE_ID.
pub(crate) struct Journal {
    plain: tracing_journald::Layer,
    /// One for each kind, made with its first event: the crate takes fixed fields per layer only, and each has a socket.
    marked: Vec<OnceLock<Option<tracing_journald::Layer>>>,
}

impl Journal {
    /// A way to the journal; `None` when nobody listens there.
    pub(crate) fn open() -> Option<Self> {
        Some(Self { plain: layer()?, marked: KINDS.iter().map(|_| OnceLock::new()).collect() })
    }

    fn layer_for(&self, name: &str) -> &tracing_journald::Layer {
        let kind = KINDS.iter().position(|kind| kind.name == name);
        let marked = kind.and_then(|kind| {
            let make = || layer().map(|layer| layer.with_custom_fields([("MESSAGE_ID", KINDS[kind].id)]));
            // Where no socket is to be had, the entry comes without its mark rather than not at all.
            self.marked[kind].get_or_init(make).as_ref()
        });
        marked.unwrap_or(&self.plain)
    }
}

fn layer() -> Option<tracing_journald::Layer> {
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(Some("CAMRING".into())).with_syslog_identifier("camring".into()))
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.plain.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.plain.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.layer_for(event.metadata().name()).on_event(event, context);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, found),
                false => found.push(path),
            }
        }
    }

    #[test]
    fn every_kind_is_written_somewhere_and_every_named_event_is_a_kind() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let mut named = BTreeSet::new();
        for level in ["error", "warn", "info", "debug"] {
            for call in text.split(&format!("{level}!(")).skip(1) {
                if let Some(rest) = call.trim_start().strip_prefix("name: \"") {
                    named.insert(rest.split('"').next().unwrap());
                }
            }
        }
        assert_eq!(named, KINDS.iter().map(|kind| kind.name).collect());
    }

    #[test]
    fn ids_are_128_bits_in_hexadecimal_and_each_its_own() {
        let ids: BTreeSet<_> = KINDS.iter().map(|kind| kind.id).collect();
        assert_eq!(ids.len(), KINDS.len());
        assert!(ids.iter().all(|id| id.len() == 32 && u128::from_str_radix(id, 16).is_ok()));
    }
}
