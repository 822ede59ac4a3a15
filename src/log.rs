//! The log: where lines go (journal, text or JSON on stderr) and which of them are written.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::journal::Journal;

/// The environment variable that overrides the configured level.
pub const LEVEL_VARIABLE: &str = "CAMRING_LOG";

/// How lines are written (`log.format`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// The journal's own protocol when stderr is the journal, else text.
    #[default]
    Auto,
    /// One JSON object per line on stderr.
    Json,
    /// Lines for people on stderr.
    Text,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is neither a level nor a list of directives.
    #[error(
        "{origin} is \"{value}\", which is no log level ({detail}); \
         write off, error, warn, info, debug or trace, or in {LEVEL_VARIABLE} directives such as camring=debug"
    )]
    Level {
        /// Where the value comes from.
        origin: &'static str,
        /// The value.
        value: String,
        /// What the parser says.
        detail: String,
    },
    /// Something in this process has set up a log before.
    #[error("the log is set up already; log::init may be called only once")]
    Twice,
}

/// Sets up the log for the whole process. `level` is the configured one; `CAMRING_LOG` wins over it.
///
/// Fields of events carry the prefix `CAMRING_` in the journal: `CAMRING_CAMERA`, `CAMRING_STATE`, `CAMRING_REASON`.
///
/// # Errors
///
/// [`LogError::Level`] for a level that cannot be read; [`LogError::Twice`] when called again.
pub fn init(level: &str, format: LogFormat) -> Result<(), LogError> {
    let filter = filter(level, std::env::var(LEVEL_VARIABLE).ok().as_deref())?;
    let output = match format {
        LogFormat::Auto => journal().unwrap_or_else(|| lines(LogFormat::Text, stderr_takes_color(), io::stderr)),
        chosen => lines(chosen, stderr_takes_color(), io::stderr),
    };
    tracing_subscriber::registry().with(output).with(filter).try_init().map_err(|_| LogError::Twice)
}

/// As [`init`], with plain lines into `writer` instead of standard error.
///
/// # Errors
///
/// As [`init`].
pub(crate) fn init_into<W>(level: &str, format: LogFormat, writer: W) -> Result<(), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(level, std::env::var(LEVEL_VARIABLE).ok().as_deref())?;
    let output = lines(format, false, writer);
    tracing_subscriber::registry().with(output).with(filter).try_init().map_err(|_| LogError::Twice)
}

/// The filter of the environment if it says anything, else of the configuration.
fn filter(configured: &str, environment: Option<&str>) -> Result<EnvFilter, LogError> {
    let (origin, value) = match environment {
        Some(value) if !value.trim().is_empty() => (LEVEL_VARIABLE, value.trim()),
        _ => ("log.level", configured),
    };
    let refuse = |detail: String| LogError::Level { origin, value: value.to_owned(), detail };
    // A lone word would be taken for the name of a module and silence everything else.
    if origin != LEVEL_VARIABLE || !value.contains(['=', ',']) {
        LevelFilter::from_str(value).map_err(|error| refuse(error.to_string()))?;
    }
    EnvFilter::try_new(value).map_err(|error| refuse(error.to_string()))
}

/// Texts of GLib that are remembered; beyond it every one counts as new.
const GLIB_TEXTS: usize = 256;

/// Takes over what GLib and the libraries on it would print on stderr: each text once as a warning, then as debug.
///
/// GStreamer 1.22 calls things critical that are not (a session that is stopped while it connects, for one), and an
/// unreachable camera would repeat them for ever.
pub fn adopt_glib() {
    let known = Mutex::new(HashSet::new());
    gst::glib::log_set_default_handler(move |domain, level, text| {
        let domain = domain.unwrap_or("glib");
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = known.len() >= GLIB_TEXTS || known.insert(text.to_owned());
        match level {
            gst::glib::LogLevel::Error | gst::glib::LogLevel::Critical | gst::glib::LogLevel::Warning if new => {
                tracing::warn!(library = domain, "{text}");
            }
            _ => tracing::debug!(library = domain, "{text}"),
        }
    });
}

/// The journal's socket, when stderr is a journal stream and journald answers.
fn journal() -> Option<Box<dyn Layer<Registry> + Send + Sync>> {
    let stream = std::env::var_os("JOURNAL_STREAM")?;
    let stderr = io::stderr().as_fd().try_clone_to_owned().ok()?;
    let stderr = File::from(stderr).metadata().ok()?;
    if !is_stream(&stream, stderr.dev(), stderr.ino()) {
        return None;
    }
    Some(Journal::open()?.boxed())
}

/// Whether `stream` ("device:inode", as systemd writes it) names this file.
fn is_stream(stream: &OsString, device: u64, inode: u64) -> bool {
    stream.to_str() == Some(format!("{device}:{inode}").as_str())
}

fn lines<W>(format: LogFormat, color: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(writer);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Auto | LogFormat::Text => layer.with_ansi(color).boxed(),
    }
}

/// Whether colours may be written to standard error.
pub(crate) fn stderr_takes_color() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    set("CLICOLOR_FORCE") || (io::stderr().is_terminal() && !set("NO_COLOR"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Book(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Book {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: &str, say: impl FnOnce()) -> String {
        let book = Book::default();
        let writer = book.clone();
        let subscriber = tracing_subscriber::registry()
            .with(lines(format, false, move || writer.clone()))
            .with(filter(level, None).unwrap());
        tracing::subscriber::with_default(subscriber, say);
        String::from_utf8(book.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_carry_the_fields_at_the_top() {
        let text = written(LogFormat::Json, "info", || tracing::warn!(camera = "yard", reason = "dns", "away"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["camera"], &line["reason"]), (&"yard".into(), &"dns".into()));
        assert_eq!((&line["message"], &line["level"]), (&"away".into(), &"WARN".into()));
    }

    #[test]
    fn text_lines_name_level_message_and_fields_without_escape_codes() {
        let text = written(LogFormat::Text, "info", || tracing::info!(camera = "yard", "live"));
        assert!(text.ends_with(" INFO live camera=\"yard\"\n"), "{text:?}");
    }

    #[test]
    fn lines_below_the_level_are_not_written() {
        assert_eq!(written(LogFormat::Text, "warn", || tracing::info!("live")), "");
    }

    #[test]
    fn the_environment_wins_over_the_configuration_unless_it_is_empty() {
        assert_eq!(filter("info", Some("debug")).unwrap().to_string(), "debug");
        assert_eq!(filter("warn", Some(" ")).unwrap().to_string(), "warn");
        assert_eq!(filter("info", Some("camring=trace,warn")).unwrap().to_string(), "camring=trace,warn");
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_the_words_that_are() {
        let error = filter("loud", None).unwrap_err().to_string();
        assert!(error.starts_with("log.level is \"loud\", which is no log level ("), "{error}");
        assert!(error.ends_with(
            "write off, error, warn, info, debug or trace, or in CAMRING_LOG directives such as camring=debug"
        ));
        assert!(filter("info", Some("loud")).is_err());
        assert!(filter("info", Some("camring=loud")).is_err());
    }

    #[test]
    fn only_the_stream_that_the_journal_names_is_the_journal() {
        assert!(is_stream(&"9:1234".into(), 9, 1234));
        assert!(!is_stream(&"9:1234".into(), 9, 123));
        assert!(!is_stream(&"9:1234x".into(), 9, 1234));
    }
}
