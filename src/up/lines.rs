//! The lines of the children: marked with their camera and written to standard error, which may be slow or stuck.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Map, Value as Json};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for standard error; those beyond are lost and counted, because no camera may wait for a terminal.
const WAITING_MAX: usize = 4096;
/// How long the end waits for lines that are still to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Colours of the cameras' names, in turn: cyan, yellow, green, magenta, blue, bright cyan.
const COLORS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];
/// The name in front of lines that are no child's.
const OWN: &str = "camring";

/// How lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// `camera | line`, the names padded to `width`; in colours on a terminal.
    Text {
        /// Characters of the longest name.
        width: usize,
        /// Whether names have colours.
        color: bool,
    },
    /// One JSON object per line, with the key `camera`.
    Json,
}

/// What the writing thread is told.
#[derive(Debug)]
enum Message {
    Line(String),
    End,
}

/// The way to standard error. Writing into it never blocks.
#[derive(Clone, Debug)]
pub struct Lines {
    sender: Sender<Message>,
    lost: Arc<AtomicU64>,
    style: Style,
}

/// The end of [`Lines`].
#[derive(Debug)]
pub struct LinesEnd {
    sender: Sender<Message>,
    over: Receiver<()>,
}

impl Lines {
    /// Begins to write to `out`, which is standard error outside of tests.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(style: Style, out: impl Write + Send + 'static) -> io::Result<(Self, LinesEnd)> {
        let (sender, waiting) = bounded(WAITING_MAX);
        let (told, over) = bounded(1);
        let lost = Arc::new(AtomicU64::new(0));
        let end = LinesEnd { sender: sender.clone(), over };
        let lines = Self { sender, lost: Arc::clone(&lost), style };
        thread::Builder::new().name("lines".into()).spawn(move || {
            write_all(&waiting, out, style, &lost);
            // Nobody may be waiting any more.
            let _ = told.send(());
        })?;
        Ok((lines, end))
    }

    /// Writes a line of a camera; `number` chooses its colour.
    pub fn say(&self, camera: &str, number: usize, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\r', '\n']);
        let text = match self.style {
            Style::Text { width, color: false } => format!("{camera:width$} | {line}\n"),
            Style::Text { width, color: true } => {
                format!("\x1b[{}m{camera:width$} |\x1b[0m {line}\n", COLORS[number % COLORS.len()])
            }
            Style::Json => json(camera, line),
        };
        self.send(text);
    }

    fn send(&self, text: String) {
        if self.sender.try_send(Message::Line(text)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl LinesEnd {
    /// Waits until every line so far is written, for two seconds at most.
    pub fn wait(self) {
        // Whoever does not read standard error gets no last words.
        if self.sender.send_timeout(Message::End, LAST_WORDS).is_ok() {
            let _ = self.over.recv_timeout(LAST_WORDS);
        }
    }
}

fn write_all(waiting: &Receiver<Message>, mut out: impl Write, style: Style, lost: &AtomicU64) {
    for message in waiting {
        let Message::Line(line) = message else { return };
        // A standard error that is closed takes nothing more; the cameras go on.
        let _ = out.write_all(line.as_bytes());
        let lost = lost.swap(0, Relaxed);
        if lost > 0 {
            let text = format!("{lost} lines are lost: whoever reads standard error is too slow");
            let line = match style {
                Style::Text { width, .. } => format!("{OWN:width$} | {text}\n"),
                Style::Json => json(OWN, &text),
            };
            let _ = out.write_all(line.as_bytes());
        }
    }
}

/// A line of a child as one JSON object: its own with the camera's name, or a text that is none, wrapped.
fn json(camera: &str, line: &str) -> String {
    let mut object: Map<String, Json> = serde_json::from_str(line).unwrap_or_else(|_| {
        [("level", "WARN"), ("message", line)].map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect()
    });
    object.entry("camera").or_insert_with(|| camera.into());
    format!("{}\n", Json::Object(object))
}

/// One line of this process's own log.
pub struct OwnLine(Lines);

impl Write for OwnLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.style {
            Style::Text { .. } => self.0.say(OWN, 0, line),
            Style::Json => self.0.send(String::from_utf8_lossy(line).into_owned()),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = OwnLine;

    fn make_writer(&self) -> OwnLine {
        OwnLine(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Book(Arc<Mutex<Vec<u8>>>);

    impl Write for Book {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(style: Style, say: impl FnOnce(&Lines)) -> String {
        let book = Book::default();
        let (lines, end) = Lines::start(style, book.clone()).unwrap();
        say(&lines);
        end.wait();
        let bytes = book.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_lines_carry_the_name_of_their_camera_in_a_colour_of_its_own() {
        let text = written(Style::Text { width: 6, color: false }, |lines| lines.say("yard", 1, b"live\n"));
        assert_eq!(text, "yard   | live\n");
        let text = written(Style::Text { width: 4, color: true }, |lines| {
            lines.say("yard", 0, b"live\n");
            lines.say("door", 1, b"live\n");
        });
        assert_eq!(text, "\x1b[36myard |\x1b[0m live\n\x1b[33mdoor |\x1b[0m live\n");
    }

    #[test]
    fn json_lines_are_objects_whatever_the_child_has_written() {
        let text = written(Style::Json, |lines| {
            lines.say("yard", 0, br#"{"level":"INFO","message":"live","camera":"front"}"#);
            lines.say("yard", 0, br#"{"message":"ready"}"#);
            lines.say("yard", 0, b"thread panicked at \"x\"\xff\n");
        });
        let objects: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects[0]["camera"], "front");
        assert_eq!((&objects[1]["camera"], &objects[1]["message"]), (&"yard".into(), &"ready".into()));
        assert_eq!((&objects[2]["level"], &objects[2]["camera"]), (&"WARN".into(), &"yard".into()));
        assert_eq!(objects[2]["message"], "thread panicked at \"x\"\u{fffd}");
    }

    /// Takes nothing until it is released.
    struct Stuck(Receiver<()>, Book);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_stuck_and_what_is_lost_is_counted() {
        let (release, stuck) = bounded::<()>(0);
        let book = Book::default();
        let style = Style::Text { width: 7, color: false };
        let (lines, end) = Lines::start(style, Stuck(stuck, book.clone())).unwrap();
        (0..WAITING_MAX + 101).for_each(|_| lines.say("yard", 0, b"live\n"));
        let lost = lines.lost.load(Relaxed);
        assert!((100..=101).contains(&lost), "{lost} lost; one may be in the writer's hand");
        drop(release);
        end.wait();
        let text = String::from_utf8(book.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains(&format!("camring | {lost} lines are lost")), "{}", text.lines().nth(1).unwrap());
        assert_eq!(text.lines().count(), WAITING_MAX + 101 - lost as usize + 1);
    }
}
