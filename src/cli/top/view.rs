//! How the screen looks: the table, a ring opened, the help; draws what the board knows and asks nobody.

use camring_ring::clock::mono_ns;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as TextLine, Span as TextSpan};
use ratatui::widgets::{Paragraph, Row, Table, TableState, Wrap};

use super::board::{Board, Line, Opened};
use super::plain::memory;
use crate::diagnosis::Level;
use crate::report::{Grade, RingReport, Span, milliseconds};
use crate::slots::{Holder, SlotState, by_slot};

/// The table's heads; the last column is the note.
pub(super) const COLUMNS: [&str; 13] =
    ["CAMERA", "STATE", "SIZE", "FPS", "AGE", "LAG", "PUBLISH", "DROPS", "RECONN", "READERS", "CPU", "RSS", ""];

/// What is on the screen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Page {
    /// All rings.
    All,
    /// One of them.
    Ring(String),
    /// The keys.
    Help,
}

/// What the screen remembers beside the board.
pub(super) struct Shown {
    pub page: Page,
    pub chosen: TableState,
    /// First line of the opened ring that is shown.
    pub scrolled: u16,
    pub colour: bool,
}

/// One line of the table as texts.
pub(super) fn cells(line: &Line) -> Vec<String> {
    let of = |text: fn(&RingReport) -> String| line.report.as_ref().map_or_else(|_| "-".into(), text);
    let ms = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.1} ms"));
    let drops = if line.drop_rate >= 0.05 {
        format!("{} (+{:.1}/s)", line.drops, line.drop_rate)
    } else {
        line.drops.to_string()
    };
    vec![
        line.name.clone(),
        line.state(),
        of(RingReport::size_text),
        of(|report| format!("{:.1}", report.fps)),
        of(RingReport::age_text),
        ms(line.lag_ms),
        ms(line.publish_ms),
        drops,
        line.reconnects.to_string(),
        of(|report| report.readers.to_string()),
        line.cpu_percent.map_or_else(|| "-".into(), |percent| format!("{percent:.0} %")),
        memory(line.rss_bytes),
        line.note(),
    ]
}

impl Shown {
    pub(super) fn new(colour: bool) -> Self {
        Self { page: Page::All, chosen: TableState::default().with_selected(0), scrolled: 0, colour }
    }

    fn style(&self, color: Color) -> Style {
        if self.colour { Style::default().fg(color) } else { Style::default() }
    }

    fn of_grade(&self, grade: Grade) -> Style {
        self.style(match grade {
            Grade::Fine => Color::Green,
            Grade::Waiting => Color::Yellow,
            Grade::Broken => Color::Red,
            Grade::Off => Color::DarkGray,
        })
    }
}

/// Draws the page.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board, opened: Option<&Opened>, shown: &mut Shown) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    let bold = Style::default().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(TextLine::styled(title(board, opened, shown), bold)), head);
    let keys = match (&shown.page, opened) {
        (Page::Help, _) => help(frame, body),
        (Page::Ring(_), Some(opened)) => ring(frame, body, opened, shown),
        (Page::Ring(name), None) => gone(frame, body, name),
        (Page::All, _) => all(frame, body, board, shown),
    };
    frame.render_widget(Paragraph::new(keys), foot);
}

fn title(board: &Board, opened: Option<&Opened>, shown: &Shown) -> String {
    let bad = board.lines().iter().filter(|line| line.grade() == Grade::Broken).count();
    let rings = board.lines().len();
    match (&shown.page, opened) {
        (Page::Ring(name), Some(opened)) => format!("camring top  {name}  {}", opened.line.state()),
        _ => format!("camring top  {rings} rings, {bad} in trouble, sorted by {}", board.order.word()),
    }
}

fn all(frame: &mut Frame<'_>, area: Rect, board: &Board, shown: &mut Shown) -> &'static str {
    if board.lines().is_empty() {
        frame.render_widget(Paragraph::new("no rings"), area);
        return "q quit   ? help";
    }
    let rows: Vec<Vec<String>> = board.lines().iter().map(cells).collect();
    let width = |column: usize| {
        let texts = rows.iter().map(|row| row[column].chars().count());
        texts.chain([COLUMNS[column].len()]).max().unwrap_or(0) as u16
    };
    let widths: Vec<Constraint> = (0..COLUMNS.len())
        .map(|column| if column + 1 == COLUMNS.len() { Constraint::Min(0) } else { Constraint::Length(width(column)) })
        .collect();
    let styled = rows.iter().zip(board.lines()).map(|(row, line)| {
        let cell = |(column, text): (usize, &String)| {
            let style = if column == 1 { shown.of_grade(line.grade()) } else { Style::default() };
            TextLine::styled(text.clone(), style)
        };
        Row::new(row.iter().enumerate().map(cell))
    });
    let table = Table::new(styled, widths)
        .header(Row::new(COLUMNS).style(Style::default().add_modifier(Modifier::BOLD)))
        .column_spacing(2)
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    let last = board.lines().len() - 1;
    shown.chosen.select(Some(shown.chosen.selected().unwrap_or(0).min(last)));
    frame.render_stateful_widget(table, area, &mut shown.chosen);
    "arrows choose   Enter open   s sort   ? help   q quit"
}

fn gone(frame: &mut Frame<'_>, area: Rect, name: &str) -> &'static str {
    frame.render_widget(Paragraph::new(format!("ring {name} is gone")), area);
    "Esc back   q quit"
}

fn help(frame: &mut Frame<'_>, area: Rect) -> &'static str {
    let text = "up, down       choose a ring; in an opened one, scroll\n\
        Enter          open it: slots, leases, readers, what ails it\n\
        Esc            back\n\
        s              sort by name, state, age, drops, cpu\n\
        q, Ctrl-C      quit\n\n\
        LAG      from a picture's last packet to the converter\n\
        PUBLISH  from the decoder to the ring\n\
        DROPS    frames that did not reach the ring, and how many a second now\n\
        RECONN   sessions after the first\n\
        READERS  counted readers; CPU and RSS are those of the capture process";
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), area);
    "Esc back   q quit"
}

fn ring(frame: &mut Frame<'_>, area: Rect, opened: &Opened, shown: &mut Shown) -> &'static str {
    let mut lines = facts(opened, shown);
    lines.push(TextLine::default());
    lines.extend(slots(opened));
    lines.push(TextLine::default());
    lines.extend(readers(opened));
    let most = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(area.height);
    shown.scrolled = shown.scrolled.min(most);
    frame.render_widget(Paragraph::new(lines).scroll((shown.scrolled, 0)), area);
    "up, down scroll   Esc back   ? help   q quit"
}

fn facts(opened: &Opened, shown: &Shown) -> Vec<TextLine<'static>> {
    let line = &opened.line;
    let mut lines = vec![TextLine::from(vec![
        TextSpan::styled(line.state(), shown.of_grade(line.grade())),
        TextSpan::raw(format!("  {}", line.note())),
    ])];
    let report = match &line.report {
        Ok(report) => report,
        Err(error) => return vec![TextLine::raw(error.clone())],
    };
    let frame = format!(
        "{} {}, {:.1} fps, frame {}, {} old",
        report.size_text(),
        report.format_text(),
        report.fps,
        report.seq,
        report.age_text()
    );
    lines.push(TextLine::raw(frame));
    if !report.codec.is_empty() {
        lines
            .push(TextLine::raw(format!("{} decoded by {}, session {}", report.codec, report.decoder, report.session)));
    }
    let [_, _, _, _, _, lag, publish, drops, reconnects, _, cpu, rss, _] = cells(line).try_into().unwrap_or_default();
    lines.push(TextLine::raw(format!(
        "lag {lag}, publish {publish}, drops {drops}, reconnects {reconnects}, CPU {cpu}, RSS {rss}"
    )));
    let pid = report.writer_pid.map_or_else(|| "none".to_owned(), |pid| format!("pid {pid}"));
    let word = crate::report::liveness_word(report.liveness);
    lines.push(TextLine::raw(format!("daemon {pid}, {word}, writer epoch {}", report.writer_epoch)));
    for finding in &opened.findings {
        let color = if finding.level == Level::Fail { Color::Red } else { Color::Yellow };
        lines.push(TextLine::styled(format!("{}: {}", finding.level, finding.found), shown.style(color)));
        lines.push(TextLine::raw(format!("  -> {}", finding.cure)));
    }
    lines
}

fn slots(opened: &Opened) -> Vec<TextLine<'static>> {
    let held = by_slot(&opened.holders);
    let head = format!("{:<5}{:>12}  {:<10}{:>9}  {}", "SLOT", "SEQ", "STATE", "AGE", "LEASED BY");
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let mut lines = vec![TextLine::styled(head, bold)];
    for (index, slot) in (0u32..).zip(&opened.slots) {
        let leased = opened.leased.as_ref().is_some_and(|leased| leased.contains(&index));
        let age = || Span(milliseconds(mono_ns().saturating_sub(slot.arrival_mono_ns))).to_string();
        let (seq, state, age) = match slot.state {
            SlotState::Empty => ("-".into(), "empty", "-".into()),
            SlotState::Writing => ("-".into(), "writing", "-".into()),
            SlotState::Published(seq) => (seq.to_string(), if leased { "leased" } else { "published" }, age()),
        };
        let who: Vec<String> = held.get(&index).into_iter().flatten().map(|holder| named(holder)).collect();
        let who =
            if leased && who.is_empty() { "a process that may not be looked at".to_owned() } else { who.join(", ") };
        lines.push(TextLine::raw(format!("{index:<5}{seq:>12}  {state:<10}{age:>9}  {who}")));
    }
    lines
}

fn named(holder: &Holder) -> String {
    format!("{} {}", holder.pid, holder.program)
}

fn readers(opened: &Opened) -> Vec<TextLine<'static>> {
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let mut lines =
        vec![TextLine::styled(format!("{:>8}  {:<18}{:<10}{}", "PID", "PROGRAM", "COUNTED", "LEASES"), bold)];
    for holder in opened.holders.iter().filter(|holder| holder.presences > 0 || !holder.leases.is_empty()) {
        let counted = if holder.presences > 0 { holder.presences.to_string() } else { "no".into() };
        let leases: Vec<String> = holder.leases.iter().map(|slot| format!("slot {slot}")).collect();
        let leases = if leases.is_empty() { "-".to_owned() } else { leases.join(", ") };
        lines.push(TextLine::raw(format!("{:>8}  {:<18}{counted:<10}{leases}", holder.pid, holder.program)));
    }
    for pid in &opened.strangers {
        lines.push(TextLine::raw(format!(
            "{pid:>8}  {:<18}{:<10}{}",
            "?", "1", "in another namespace, or of another user"
        )));
    }
    if lines.len() == 1 {
        lines.push(TextLine::raw("no reader holds anything"));
    }
    lines
}
