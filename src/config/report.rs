//! Problems of a configuration: where they are, what they are, and how they are printed.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::keys;
use super::mask::Masked;
use crate::exit::{Exit, Failure};

/// A configuration file that was read; `Debug` shows its path only.
pub struct SourceFile {
    /// Where it was read from, as it is printed.
    pub path: PathBuf,
    text: String,
    /// Says of a key whether its value may be quoted.
    is_public: fn(&str) -> bool,
}

impl SourceFile {
    /// A file of this text.
    #[must_use]
    pub fn new(path: PathBuf, text: String) -> Arc<Self> {
        Arc::new(Self { path, text, is_public: keys::is_public })
    }

    /// A file of this text in which no key is a secret; an address with a password is masked all the same.
    #[must_use]
    pub fn without_secrets(path: PathBuf, text: String) -> Arc<Self> {
        Arc::new(Self { path, text, is_public: |_| true })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceFile({})", self.path.display())
    }
}

/// A stretch of a file; printed as `FILE:LINE:COLUMN`, counted from 1 in characters.
#[derive(Clone)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Bytes of its text.
    pub span: Range<usize>,
}

impl Place {
    /// Line and column of the first character, from 1.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.file.text[..self.file.text.floor_char_boundary(self.span.start)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The first stretch of this one that says `word`; all of it when none does.
    #[must_use]
    pub fn narrowed_to(&self, word: &str) -> Self {
        let found = self.file.text.get(self.span.clone()).and_then(|text| text.find(word));
        let span =
            found.map_or_else(|| self.span.clone(), |at| self.span.start + at..self.span.start + at + word.len());
        Self { file: Arc::clone(&self.file), span }
    }

    /// The part of this stretch that is on its first line.
    fn first_line(&self) -> Range<usize> {
        let text = &self.file.text;
        let start = text.floor_char_boundary(self.span.start);
        let end = text.ceil_char_boundary(self.span.end.min(text.len())).max(start);
        let end = text[start..end].find('\n').map_or(end, |at| start + at);
        start..end
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        write!(f, "{}:{line}:{column}", self.file.path.display())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// Nothing starts.
    Error,
    /// It starts, and somebody should look.
    Warning,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One thing that is wrong or worth knowing.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// What was found; one line, no full stop.
    pub title: String,
    /// Where, the most important place first, each with what is to be seen there. Empty for the command line.
    pub marks: Vec<(Place, String)>,
    /// What to do.
    pub hint: String,
}

impl Problem {
    /// An error without a place.
    pub fn error(title: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Error, title: title.into(), marks: Vec::new(), hint: hint.into() }
    }

    /// The same as a warning or note.
    #[must_use]
    pub fn as_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The same with a place, when there is one.
    #[must_use]
    pub fn at(mut self, place: Option<&Place>, label: impl Into<String>) -> Self {
        self.marks.extend(place.map(|place| (place.clone(), label.into())));
        self
    }

    /// File, line and column for sorting.
    fn order(&self) -> (Option<PathBuf>, usize) {
        let first = self.marks.first();
        (first.map(|(place, _)| place.file.path.clone()), first.map_or(0, |(place, _)| place.span.start))
    }

    /// The text for people, several lines without a final line end.
    #[must_use]
    pub fn render(&self, color: Color) -> String {
        let renderer = match color {
            Color::Plain => Renderer::plain(),
            Color::Styled => Renderer::styled(),
        };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let files: Vec<Quoted<'_>> = self.quoted();
        let mut group = Group::with_title(level.primary_title(self.title.as_str()));
        for (index, quoted) in files.iter().enumerate() {
            let snippet = quoted.snippet(index == 0);
            group = match quoted.origin() {
                None => group.element(snippet.path(quoted.path())),
                Some(origin) => group.element(origin).element(snippet),
            };
        }
        if files.is_empty() {
            let help = Group::with_title(Level::HELP.secondary_title(self.hint.as_str()));
            return format!("{}\n{}", renderer.render(&[group]), renderer.render(&[help]));
        }
        renderer.render(&[group.element(Level::HELP.message(self.hint.as_str()))])
    }

    /// The marks, one group for each file.
    fn quoted(&self) -> Vec<Quoted<'_>> {
        let mut files: Vec<Quoted<'_>> = Vec::new();
        for mark in &self.marks {
            match files.iter_mut().find(|quoted| Arc::ptr_eq(&quoted.marks[0].0.file, &mark.0.file)) {
                Some(quoted) => quoted.marks.push(mark),
                None => files.push(Quoted { masked: mask(&mark.0.file), marks: vec![mark] }),
            }
        }
        files
    }
}

fn mask(file: &SourceFile) -> Masked {
    Masked::new(&file.text, file.is_public)
}

/// The marked lines of one file, without its secrets.
struct Quoted<'a> {
    masked: Masked,
    marks: Vec<&'a (Place, String)>,
}

impl Quoted<'_> {
    fn path(&self) -> String {
        self.marks[0].0.file.path.display().to_string()
    }

    /// The true line and column, when a secret before them on the same line moves what is quoted.
    fn origin(&self) -> Option<Origin<'_>> {
        let place = &self.marks[0].0;
        let quoted = &self.masked.text[..self.masked.map(&place.first_line()).start];
        let (line, column) = place.line_column();
        let column_quoted = quoted.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (column != column_quoted).then(|| Origin::path(self.path()).line(line).char_column(column))
    }

    fn snippet(&self, holds_primary: bool) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
        let annotations = self.marks.iter().enumerate().map(|(index, (place, label))| {
            let kind = if holds_primary && index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            kind.span(self.masked.map(&place.first_line())).label(label.as_str())
        });
        Snippet::source(self.masked.text.as_str()).annotations(annotations.collect::<Vec<_>>())
    }
}

/// Whether output has colours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Color {
    /// Plain text.
    Plain,
    /// ANSI escapes.
    Styled,
}

impl Color {
    /// What stderr wants: colours on a terminal, unless `NO_COLOR` is set; always with `CLICOLOR_FORCE`.
    #[must_use]
    pub fn of_stderr() -> Self {
        use std::io::IsTerminal;
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        if set("CLICOLOR_FORCE") || (std::io::stderr().is_terminal() && !set("NO_COLOR")) {
            Self::Styled
        } else {
            Self::Plain
        }
    }
}

/// Everything that is wrong with a configuration, in the order of the files; never empty, never shows a secret.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    /// The errors.
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// Sorts problems by place, and keeps one of those that several cameras inherit from one line.
    #[must_use]
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_cached_key(|problem| (problem.order(), problem.title.clone()));
        problems.dedup_by(|a, b| !a.marks.is_empty() && a.title == b.title && a.order() == b.order());
        Self { problems }
    }

    /// Prints everything on stderr and gives the failure that ends the process with 78.
    #[must_use]
    pub fn report(&self) -> Failure {
        print_all(&self.problems);
        Failure::silent(Exit::Config)
    }
}

/// Prints problems on stderr, with an empty line between them.
pub fn print_all(problems: &[Problem]) {
    let color = Color::of_stderr();
    for (index, problem) in problems.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        eprintln!("{gap}{}", problem.render(color));
    }
}

impl From<Problem> for ConfigErrors {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.problems.iter().map(|problem| problem.render(Color::Plain)).collect();
        f.write_str(&texts.join("\n\n"))
    }
}

impl std::error::Error for ConfigErrors {}
