//! What waits to be written to one end of a connection: each piece at its time, at no more than a given rate.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A paced writer writes so much at a time: fine steps instead of bursts.
const PACED_CHUNK: usize = 1024;

/// Pieces in the order of their times; of equal times, in the order in which they came.
#[derive(Debug)]
pub struct Queue {
    waiting: BTreeMap<(Instant, u64), Vec<u8>>,
    /// The piece being written, and how much of it is.
    current: Vec<u8>,
    written: usize,
    waiting_bytes: usize,
    limit_bytes: usize,
    order: u64,
    /// Bytes per second; `None` = as fast as they are taken.
    rate: Option<u32>,
    not_before: Instant,
}

impl Queue {
    /// An empty queue; above `limit_bytes` it has no room.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            current: Vec::new(),
            written: 0,
            waiting_bytes: 0,
            limit_bytes,
            order: 0,
            rate: None,
            not_before: Instant::now(),
        }
    }

    /// Adds a piece that is to be written at `due` or later.
    pub fn push(&mut self, due: Instant, bytes: Vec<u8>) {
        self.waiting_bytes += bytes.len();
        self.waiting.insert((due, self.order), bytes);
        self.order += 1;
    }

    /// Whether more may be read for it.
    pub fn has_room(&self) -> bool {
        self.waiting_bytes < self.limit_bytes
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.written == self.current.len()
    }

    /// Sets the rate, bytes per second.
    pub fn set_rate(&mut self, rate: Option<u32>) {
        self.rate = rate;
    }

    /// Whether something may be written now; then [`Queue::front`] is not empty.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.written == self.current.len()
            && let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)
        {
            self.current = entry.remove();
            self.waiting_bytes -= self.current.len();
            self.written = 0;
        }
        self.written < self.current.len() && (self.rate.is_none() || self.not_before <= now)
    }

    /// What may be written now, if it is due.
    pub fn front(&self) -> &[u8] {
        let rest = &self.current[self.written..];
        &rest[..self.rate.map_or(rest.len(), |_| rest.len().min(PACED_CHUNK))]
    }

    /// Notes that so many bytes of the front are written.
    pub fn wrote(&mut self, len: usize, now: Instant) {
        self.written += len;
        if let Some(rate) = self.rate {
            let takes = Duration::from_secs_f64(len as f64 / f64::from(rate.max(1)));
            self.not_before = self.not_before.max(now) + takes;
        }
    }

    /// When to look again; `None` = not before something is added.
    pub fn due(&self) -> Option<Instant> {
        if self.written < self.current.len() {
            return Some(self.not_before);
        }
        let first = self.waiting.first_key_value().map(|((due, _), _)| *due)?;
        Some(if self.rate.is_some() { first.max(self.not_before) } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_at_their_time_and_whole() {
        let (mut queue, now) = (Queue::new(10), Instant::now());
        let later = now + Duration::from_secs(1);
        queue.push(later, b"second".to_vec());
        queue.push(now, b"first".to_vec());
        assert!(!queue.has_room(), "11 bytes of 10");
        assert!(queue.is_due(now) && queue.front() == b"first");
        queue.wrote(2, now);
        queue.push(now, b"x".to_vec());
        assert!(queue.is_due(now) && queue.front() == b"rst", "a piece that was begun is finished first");
        queue.wrote(3, now);
        assert!(queue.is_due(now) && queue.front() == b"x");
        queue.wrote(1, now);
        assert!(!queue.is_due(now) && !queue.is_empty());
        assert_eq!(queue.due(), Some(later));
        assert!(queue.is_due(later) && queue.front() == b"second");
        queue.wrote(6, later);
        assert!(queue.is_empty() && queue.due().is_none() && queue.has_room());
    }

    #[test]
    fn a_rate_spaces_what_is_written() {
        let (mut queue, now) = (Queue::new(1 << 20), Instant::now());
        queue.set_rate(Some(1000));
        queue.push(now, vec![0; 2000]);
        let later = now + Duration::from_millis(1);
        assert!(queue.is_due(later));
        let len = queue.front().len();
        assert_eq!(len, PACED_CHUNK);
        queue.wrote(len, later);
        assert!(!queue.is_due(later + Duration::from_millis(1000)));
        assert!(queue.is_due(later + Duration::from_millis(1025)));
    }
}
