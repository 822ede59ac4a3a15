//! When packets arrive: fixed tables from a picture's PTS to what was known of it upstream, and the clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{SystemTime, UNIX_EPOCH};

use gst::prelude::*;

use super::report::Reporter;
use crate::source::{Progress, SourceEvent};

/// Nanoseconds of CLOCK_MONOTONIC; GStreamer must be initialised.
pub(super) fn mono_ns() -> i64 {
    i64::try_from(gst::get_timestamp().nseconds()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970; negative before.
pub(super) fn real_ns() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

/// Pictures a table remembers: 10 s at 25 fps, far more than any decoder holds back.
const ROWS: usize = 256;

/// What one thread knew of the newest pictures, by PTS, for one other thread; neither ever waits or allocates.
///
/// Only one thread may write. A reader that meets a row while it is written finds nothing there.
pub(super) struct PtsTable<const WORDS: usize> {
    rows: Box<[Row<WORDS>]>,
    /// Rows written so far; the newest one is the one before.
    written: AtomicU64,
}

struct Row<const WORDS: usize> {
    /// Odd while the row is written.
    version: AtomicU64,
    pts: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// PTS of a row that holds nothing (`GST_CLOCK_TIME_NONE`).
const EMPTY: u64 = u64::MAX;

impl<const WORDS: usize> PtsTable<WORDS> {
    pub(super) fn new() -> Self {
        let row = || Row {
            version: AtomicU64::new(0),
            pts: AtomicU64::new(EMPTY),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self { rows: (0..ROWS).map(|_| row()).collect(), written: AtomicU64::new(0) }
    }

    fn row(&self, number: u64) -> &Row<WORDS> {
        &self.rows[(number % ROWS as u64) as usize]
    }

    /// Remembers `words` for `pts`; the newest picture's row is overwritten in place, so that its last packet counts.
    pub(super) fn put(&self, pts: u64, words: [u64; WORDS]) {
        let written = self.written.load(Ordering::Relaxed);
        let again = written > 0 && self.row(written - 1).pts.load(Ordering::Relaxed) == pts;
        let number = if again { written - 1 } else { written };
        let row = self.row(number);
        let version = row.version.load(Ordering::Relaxed);
        row.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the Acquire fence in `get`: whoever sees one of the stores below sees the odd version.
        fence(Ordering::Release);
        row.pts.store(pts, Ordering::Relaxed);
        row.words.iter().zip(words).for_each(|(cell, word)| cell.store(word, Ordering::Relaxed));
        // Pairs with the Acquire load in `get`: whoever sees the even version sees the row.
        row.version.store(version.wrapping_add(2), Ordering::Release);
        self.written.store(number + 1, Ordering::Release);
    }

    /// What is remembered for `pts`, if it is among the newest rows.
    pub(super) fn get(&self, pts: u64) -> Option<[u64; WORDS]> {
        let written = self.written.load(Ordering::Acquire);
        (written.saturating_sub(ROWS as u64)..written).rev().find_map(|number| self.read(self.row(number), pts))
    }

    fn read(&self, row: &Row<WORDS>, pts: u64) -> Option<[u64; WORDS]> {
        let version = row.version.load(Ordering::Acquire);
        if version & 1 == 1 || row.pts.load(Ordering::Relaxed) != pts {
            return None;
        }
        let words = std::array::from_fn(|word| row.words[word].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (row.version.load(Ordering::Relaxed) == version).then_some(words)
    }
}

/// Arrival of a picture's last packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Arrival {
    pub mono_ns: i64,
    pub real_ns: i64,
    pub rtp_timestamp: u32,
}

/// Arrivals by PTS.
pub(super) struct Arrivals(PtsTable<3>);

impl Arrivals {
    pub(super) fn new() -> Self {
        Self(PtsTable::new())
    }

    pub(super) fn put(&self, pts: u64, arrival: Arrival) {
        self.0.put(pts, [arrival.mono_ns as u64, arrival.real_ns as u64, u64::from(arrival.rtp_timestamp)]);
    }

    pub(super) fn get(&self, pts: u64) -> Option<Arrival> {
        let [mono, real, rtp] = self.0.get(pts)?;
        Some(Arrival { mono_ns: mono as i64, real_ns: real as i64, rtp_timestamp: rtp as u32 })
    }
}

/// The three fields of an RTP header that matter here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct RtpHeader {
    sequence: u16,
    timestamp: u32,
}

impl RtpHeader {
    fn of(buffer: &gst::BufferRef) -> Option<Self> {
        let mut bytes = [0; 8];
        if buffer.size() < bytes.len() {
            return None;
        }
        buffer.copy_to_slice(0, &mut bytes).ok()?;
        (bytes[0] >> 6 == 2).then(|| Self {
            sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
            timestamp: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
    }
}

/// Counts the packets in front of the depayloader, which the jitter buffer has put in order.
pub(super) struct PacketCounter {
    arrivals: Arc<Arrivals>,
    progress: Arc<Progress>,
    reporter: Arc<Reporter>,
    /// Next expected sequence number, plus 1; 0 = not known yet. Only the streaming thread touches it.
    expected: AtomicU64,
}

/// A step in sequence numbers above this is a new stream, not a loss.
const LARGEST_GAP: u16 = 3000;

impl PacketCounter {
    pub(super) fn new(arrivals: Arc<Arrivals>, progress: Arc<Progress>, reporter: Arc<Reporter>) -> Self {
        Self { arrivals, progress, reporter, expected: AtomicU64::new(0) }
    }

    /// Counts every packet that passes `pad`.
    pub(super) fn watch(self, pad: &gst::Pad) {
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            let (mono_ns, real_ns) = (mono_ns(), real_ns());
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => self.count(buffer, mono_ns, real_ns),
                Some(gst::PadProbeData::BufferList(list)) => {
                    list.iter().for_each(|buffer| self.count(buffer, mono_ns, real_ns));
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn count(&self, buffer: &gst::BufferRef, mono_ns: i64, real_ns: i64) {
        if self.progress.packets.fetch_add(1, Ordering::Relaxed) == 0 {
            self.reporter.event(SourceEvent::FirstPacket);
        }
        self.progress.last_packet_mono_ns.store(mono_ns, Ordering::Relaxed);
        let Some(header) = RtpHeader::of(buffer) else { return };
        self.count_gap(header.sequence);
        if let Some(pts) = buffer.pts() {
            self.arrivals.put(pts.nseconds(), Arrival { mono_ns, real_ns, rtp_timestamp: header.timestamp });
        }
    }

    fn count_gap(&self, sequence: u16) {
        let expected = self.expected.load(Ordering::Relaxed);
        self.expected.store(u64::from(sequence.wrapping_add(1)) + 1, Ordering::Relaxed);
        if expected == 0 {
            return;
        }
        let gap = sequence.wrapping_sub((expected - 1) as u16);
        if gap <= LARGEST_GAP {
            self.progress.packets_lost.fetch_add(u64::from(gap), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_finds_the_newest_pictures_and_forgets_the_oldest() {
        let table = PtsTable::<1>::new();
        assert_eq!(table.get(0), None);
        (0..1000).for_each(|pts| table.put(pts, [pts * 7]));
        assert_eq!(table.get(999), Some([6993]));
        assert_eq!(table.get(1000 - ROWS as u64), Some([(1000 - ROWS as u64) * 7]));
        assert_eq!(table.get(999 - ROWS as u64), None);
        assert_eq!(table.get(EMPTY), None);
    }

    #[test]
    fn the_last_packet_of_a_picture_counts() {
        let arrivals = Arrivals::new();
        let arrival = |mono_ns| Arrival { mono_ns, real_ns: -5, rtp_timestamp: u32::MAX };
        (1..=4).for_each(|packet| arrivals.put(40, arrival(packet)));
        arrivals.put(80, arrival(5));
        assert_eq!(arrivals.get(40), Some(arrival(4)));
        assert_eq!(arrivals.0.written.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_reader_never_sees_half_a_row() {
        let table = PtsTable::<3>::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200_000u64).for_each(|pts| table.put(pts / 3, [pts, pts ^ 0xff, !pts])));
            scope.spawn(|| {
                for pts in (0..200_000u64).map(|pts| pts / 3) {
                    if let Some([a, b, c]) = table.get(pts) {
                        assert!(a / 3 == pts && b == a ^ 0xff && c == !a, "{pts}: {a} {b} {c}");
                    }
                }
            });
        });
    }

    #[test]
    fn lost_packets_are_counted_across_the_wrap_and_restarts_are_not() {
        let (events, _receiver) = crossbeam_channel::bounded(4);
        let progress = Arc::new(Progress::default());
        let counter =
            PacketCounter::new(Arc::new(Arrivals::new()), progress.clone(), Arc::new(Reporter::new(events, vec![])));
        for sequence in [65530, 65531, 65535, 0, 1, 40000, 40001] {
            counter.count_gap(sequence);
        }
        assert_eq!(progress.packets_lost.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn rtp_headers_are_read_and_other_bytes_are_not() {
        gst::init().expect("GStreamer");
        let packet = gst::Buffer::from_slice([0x80, 0xe0, 0x12, 0x34, 0, 1, 0, 2, 9, 9, 9, 9]);
        assert_eq!(RtpHeader::of(&packet), Some(RtpHeader { sequence: 0x1234, timestamp: 65538 }));
        assert_eq!(RtpHeader::of(&gst::Buffer::from_slice([0x80, 0, 0])), None);
        assert_eq!(RtpHeader::of(&gst::Buffer::from_slice([0u8; 12])), None);
    }
}
