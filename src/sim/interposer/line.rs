//! The line that RTP packets take: some are lost, some come twice, some come behind later ones.

use super::super::script::Action;
use super::active::Active;

/// Packets that may be held back at once; further ones pass.
const HELD_BACK: usize = 64;

/// A packet that is held back until so many others have passed.
#[derive(Debug)]
struct HeldBack<T> {
    others: u8,
    packet: T,
}

/// What is on its way.
#[derive(Debug)]
pub struct Line<T> {
    held_back: Vec<HeldBack<T>>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { held_back: Vec::new() }
    }
}

impl<T: Clone> Line<T> {
    /// What arrives when `packet` is sent, in order; `mark` sets the marker bit of a packet.
    pub fn pass(&mut self, mut packet: T, active: &Active, mark: impl Fn(&mut T)) -> Vec<T> {
        let mut copies = 1;
        let mut behind = None;
        for running in &active.running {
            match running.action {
                Action::Loss { percent } if running.chooses(percent) => copies = 0,
                Action::Duplicate { percent } if copies > 0 && running.chooses(percent) => copies = 2,
                Action::Reorder { percent, by } if running.chooses(percent) => behind = Some(by),
                Action::Marker => {
                    running.look();
                    running.change();
                    mark(&mut packet);
                }
                _ => {}
            }
        }
        let mut out = Vec::new();
        // With all held back nothing would ever pass.
        match behind.filter(|_| copies > 0 && self.held_back.len() < HELD_BACK) {
            Some(others) => self.held_back.push(HeldBack { others, packet }),
            None => out.extend(std::iter::repeat_n(packet, copies)),
        }
        self.release(&mut out);
        out
    }

    /// Adds the packets whose turn has come.
    fn release(&mut self, out: &mut Vec<T>) {
        let passed = u8::from(!out.is_empty());
        for mut held in std::mem::take(&mut self.held_back) {
            held.others = held.others.saturating_sub(passed);
            match held.others {
                0 => out.push(held.packet),
                _ => self.held_back.push(held),
            }
        }
    }
}
