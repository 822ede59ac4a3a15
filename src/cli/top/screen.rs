//! The screen: takes the terminal, gives it back whatever happens, and turns keys into pages.

use std::io::{self, Stdout};
use std::sync::Once;
use std::time::{Duration, Instant};

use anyhow::Context;
use camring_ring::process::exit_now;
use crossbeam_channel::Receiver;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::Args;
use super::board::{Board, Opened};
use super::view::{Page, Shown, draw};
use crate::cli::Global;
use crate::cli::output::use_colour;
use crate::exit::Failure;
use crate::shutdown::{self, Stop};

/// An opened ring is looked at at least this often: whoever holds a lease and dies is to vanish within a second.
const OPENED: Duration = Duration::from_millis(400);
/// Longest wait for a key before a signal is looked for.
const SLICE: Duration = Duration::from_millis(100);

/// The terminal while it is ours.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn take() -> io::Result<Self> {
        restore_on_panic();
        enable_raw_mode()?;
        // From here on it is given back by `drop`, or by what runs instead of it.
        let terminal = execute!(io::stdout(), EnterAlternateScreen, Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        terminal.map(Self).inspect_err(|_| restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was. Whatever fails here has nobody to be told: the terminal is gone.
fn restore() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// A panic's text belongs on a terminal that can show it.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Quit,
    Redraw,
    Nothing,
}

/// Shows the screen until q or a signal.
///
/// # Errors
///
/// As [`super::run`].
pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let mut board = Board::new(args, global);
    // Said before the terminal changes, where it can be read.
    board.refresh()?;
    let stop = shutdown::listen(None, || {
        restore();
        exit_now(0);
    });
    let stop = stop.context("cannot listen for signals").map_err(Failure::from)?;
    let mut screen = Screen::take()
        .context("the terminal refuses to show a screen; camring top | cat prints tables")
        .map_err(Failure::from)?;
    let outcome = show(args, &mut board, &mut screen, &stop);
    drop(screen);
    outcome
}

fn show(args: &Args, board: &mut Board, screen: &mut Screen, stop: &Receiver<Stop>) -> Result<(), Failure> {
    let mut shown = Shown::new(use_colour());
    // From its first call on crossterm hears of new sizes: before the first picture, which is drawn for the size that there is.
    event::poll(Duration::ZERO).context("cannot wait for keys").map_err(Failure::from)?;
    loop {
        board.refresh()?;
        let opened = open(board, &shown);
        paint(screen, board, opened.as_ref(), &mut shown)?;
        let looked = Instant::now();
        // A key may open a ring, which is looked at sooner than the table was to be.
        while let Some(left) = pause(&shown.page, args.interval).checked_sub(looked.elapsed()) {
            if !stop.is_empty() {
                return Ok(());
            }
            let ready = event::poll(left.min(SLICE)).context("cannot wait for keys").map_err(Failure::from)?;
            if !ready {
                continue;
            }
            let asked = match event::read().context("cannot read keys").map_err(Failure::from)? {
                Event::Key(key) if key.kind != KeyEventKind::Release => press(key, board, &mut shown),
                Event::Resize(..) => Asked::Redraw,
                _ => Asked::Nothing,
            };
            match asked {
                Asked::Quit => return Ok(()),
                Asked::Redraw => {
                    let opened = open(board, &shown);
                    paint(screen, board, opened.as_ref(), &mut shown)?;
                }
                Asked::Nothing => {}
            }
        }
    }
}

/// Time from one look to the next.
fn pause(page: &Page, interval: Duration) -> Duration {
    if matches!(page, Page::Ring(_)) { interval.min(OPENED) } else { interval }
}

fn open(board: &Board, shown: &Shown) -> Option<Opened> {
    match &shown.page {
        Page::Ring(name) => board.open(name),
        Page::All | Page::Help => None,
    }
}

fn paint(screen: &mut Screen, board: &Board, opened: Option<&Opened>, shown: &mut Shown) -> Result<(), Failure> {
    let drawn = screen.0.draw(|frame| draw(frame, board, opened, shown));
    drawn.map(drop).context("cannot draw on the terminal").map_err(Failure::from)
}

fn press(key: KeyEvent, board: &mut Board, shown: &mut Shown) -> Asked {
    let last = board.lines().len().saturating_sub(1);
    let chosen = shown.chosen.selected().unwrap_or(0);
    match key.code {
        KeyCode::Char('q') => return Asked::Quit,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Asked::Quit,
        KeyCode::Char('?') => shown.page = Page::Help,
        KeyCode::Char('s') => {
            board.order = board.order.next();
            board.sort();
        }
        KeyCode::Esc | KeyCode::Backspace => shown.page = Page::All,
        KeyCode::Enter if shown.page == Page::All => {
            if let Some(line) = board.lines().get(chosen) {
                (shown.page, shown.scrolled) = (Page::Ring(line.name.clone()), 0);
            }
        }
        KeyCode::Up if shown.page == Page::All => shown.chosen.select(Some(chosen.saturating_sub(1))),
        KeyCode::Down if shown.page == Page::All => shown.chosen.select(Some((chosen + 1).min(last))),
        KeyCode::Up => shown.scrolled = shown.scrolled.saturating_sub(1),
        KeyCode::Down => shown.scrolled = shown.scrolled.saturating_add(1),
        KeyCode::PageUp => shown.scrolled = shown.scrolled.saturating_sub(10),
        KeyCode::PageDown => shown.scrolled = shown.scrolled.saturating_add(10),
        _ => return Asked::Nothing,
    }
    Asked::Redraw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_ring_is_looked_at_twice_a_second_at_least() {
        let opened = Page::Ring("front".into());
        let hour = Duration::from_secs(3600);
        assert!(pause(&opened, hour) < Duration::from_millis(500));
        assert_eq!(pause(&opened, Duration::from_millis(50)), Duration::from_millis(50));
        assert_eq!((pause(&Page::All, hour), pause(&Page::Help, hour)), (hour, hour));
    }
}
