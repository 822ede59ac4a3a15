//! When packets arrive: fixed tables from a picture's PTS to what was known of it upstream, and the clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::{SystemTime, UNIX_EPOCH};

use atomic_refcell::AtomicRefCell;
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

/// What one thread knew of the newest pictures, by PTS, for others; nobody ever waits or allocates.
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
    /// Packets are missing inside the picture, or may be.
    pub torn: bool,
}

/// Arrivals by PTS.
pub(super) struct Arrivals(PtsTable<4>);

impl Arrivals {
    pub(super) fn new() -> Self {
        Self(PtsTable::new())
    }

    pub(super) fn put(&self, pts: u64, arrival: Arrival) {
        let rtp = u64::from(arrival.rtp_timestamp);
        self.0.put(pts, [arrival.mono_ns as u64, arrival.real_ns as u64, rtp, u64::from(arrival.torn)]);
    }

    pub(super) fn get(&self, pts: u64) -> Option<Arrival> {
        let [mono, real, rtp, torn] = self.0.get(pts)?;
        Some(Arrival { mono_ns: mono as i64, real_ns: real as i64, rtp_timestamp: rtp as u32, torn: torn != 0 })
    }
}

/// The start of an RTP packet, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Packet {
    sequence: u16,
    timestamp: u32,
    /// The last packet of its picture, or of a slice.
    marker: bool,
    /// The first bytes of the payload; zeros where it is shorter or behind an unusually long header.
    payload: [u8; 4],
}

/// Bytes read of each packet: the longest fixed header (15 sources) and a little more.
const LOOK: usize = 12 + 15 * 4 + 16;

impl Packet {
    fn of(buffer: &gst::BufferRef) -> Option<Self> {
        let mut bytes = [0; LOOK];
        let len = buffer.size().min(LOOK);
        buffer.copy_to_slice(0, &mut bytes[..len]).ok()?;
        if len < 12 || bytes[0] >> 6 != 2 {
            return None;
        }
        let fixed = 12 + usize::from(bytes[0] & 0x0f) * 4;
        let extension = match bytes[0] & 0x10 {
            0 => 0,
            _ => 4 + usize::from(u16::from_be_bytes([bytes[fixed + 2], bytes[fixed + 3]])) * 4,
        };
        let payload = bytes.get(fixed + extension..).and_then(|payload| payload.first_chunk());
        Some(Self {
            sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
            timestamp: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            marker: bytes[1] & 0x80 != 0,
            payload: payload.copied().unwrap_or([0; 4]),
        })
    }
}

/// How to see that a packet is the first one of a picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PictureStart {
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// The depayloader drops torn pictures itself.
    Any,
}

impl PictureStart {
    fn is_start(self, payload: [u8; 4]) -> bool {
        // The first bit of a slice header says that the slice is the picture's first one.
        let first = |byte: u8| byte & 0x80 != 0;
        match self {
            Self::Any => true,
            Self::H264 => match payload[0] & 0x1f {
                1..=5 => first(payload[1]),
                6..=9 => true,
                // Aggregated: the first unit decides, behind its two bytes of length.
                24 => matches!(payload[3] & 0x1f, 6..=9),
                28 => payload[1] & 0x80 != 0 && first(payload[2]),
                _ => false,
            },
            Self::H265 => match payload[0] >> 1 & 0x3f {
                0..=31 => first(payload[2]),
                32..=35 | 39 => true,
                49 => payload[2] & 0x80 != 0 && first(payload[3]),
                _ => false,
            },
        }
    }
}

/// A step in sequence numbers above this is a new stream, not a loss.
const LARGEST_GAP: u16 = 3000;

/// The order of packets: what is missing, and which pictures it was missing from.
struct Order {
    start: PictureStart,
    last: Option<Last>,
}

/// The newest packet.
struct Last {
    sequence: u16,
    marker: bool,
    pts: u64,
    arrival: Arrival,
}

/// What a packet tells.
#[derive(Debug, Default, Eq, PartialEq)]
struct News {
    /// Packets missing before it.
    lost: u16,
    /// The picture before is torn: its end is missing.
    before: Option<(u64, Arrival)>,
    torn: bool,
}

impl Order {
    /// Takes the next packet, which arrived as `arrival` says but for `torn`.
    fn next(&mut self, packet: &Packet, pts: u64, mut arrival: Arrival) -> News {
        let mut news = News::default();
        if let Some(last) = &self.last {
            let gap = packet.sequence.wrapping_sub(last.sequence.wrapping_add(1));
            news.lost = if gap <= LARGEST_GAP { gap } else { 0 };
            let same = last.arrival.rtp_timestamp == packet.timestamp;
            news.torn = same && last.arrival.torn || gap != 0 && (same || !self.start.is_start(packet.payload));
            let end_is_missing = gap != 0 && !same && !last.marker && self.start != PictureStart::Any;
            news.before = end_is_missing.then_some((last.pts, Arrival { torn: true, ..last.arrival }));
        }
        arrival.torn = news.torn;
        self.last = Some(Last { sequence: packet.sequence, marker: packet.marker, pts, arrival });
        news
    }
}

/// Counts the packets in front of the depayloader, which the jitter buffer has put in order.
pub(super) struct PacketCounter {
    arrivals: Arc<Arrivals>,
    progress: Arc<Progress>,
    reporter: Arc<Reporter>,
    begun: AtomicBool,
    /// Only the streaming thread touches it: never contended.
    order: AtomicRefCell<Order>,
}

impl PacketCounter {
    pub(super) fn new(
        arrivals: Arc<Arrivals>,
        progress: Arc<Progress>,
        reporter: Arc<Reporter>,
        start: PictureStart,
    ) -> Self {
        let order = AtomicRefCell::new(Order { start, last: None });
        Self { arrivals, progress, reporter, begun: AtomicBool::new(false), order }
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
        self.progress.packets.fetch_add(1, Ordering::Relaxed);
        if !self.begun.swap(true, Ordering::Relaxed) {
            self.reporter.event(SourceEvent::FirstPacket);
        }
        self.progress.last_packet_mono_ns.store(mono_ns, Ordering::Relaxed);
        let (Some(packet), Some(pts)) = (Packet::of(buffer), buffer.pts()) else { return };
        let Ok(mut order) = self.order.try_borrow_mut() else { return };
        let arrival = Arrival { mono_ns, real_ns, rtp_timestamp: packet.timestamp, torn: false };
        let news = order.next(&packet, pts.nseconds(), arrival);
        self.progress.packets_lost.fetch_add(u64::from(news.lost), Ordering::Relaxed);
        if let Some((pts, torn)) = news.before {
            self.arrivals.put(pts, torn);
        }
        self.arrivals.put(pts.nseconds(), Arrival { torn: news.torn, ..arrival });
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
        let arrival = |mono_ns| Arrival { mono_ns, real_ns: -5, rtp_timestamp: u32::MAX, torn: mono_ns == 4 };
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

    fn packet(sequence: u16, timestamp: u32, marker: bool, payload: [u8; 4]) -> Packet {
        Packet { sequence, timestamp, marker, payload }
    }

    /// Feeds packets whose PTS is their RTP time; what each of them told.
    fn feed(start: PictureStart, packets: &[Packet]) -> Vec<News> {
        let mut order = Order { start, last: None };
        let arrival =
            |packet: &Packet| Arrival { mono_ns: 0, real_ns: 0, rtp_timestamp: packet.timestamp, torn: false };
        packets.iter().map(|packet| order.next(packet, u64::from(packet.timestamp), arrival(packet))).collect()
    }

    #[test]
    fn lost_packets_are_counted_across_the_wrap_and_restarts_are_not() {
        let packets = [65530, 65531, 65535, 0, 1, 40000, 40001].map(|sequence| packet(sequence, 1, true, [0; 4]));
        let lost: Vec<u16> = feed(PictureStart::H264, &packets).iter().map(|news| news.lost).collect();
        assert_eq!(lost, [0, 0, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn a_gap_tears_exactly_the_pictures_it_lies_in() {
        // FU-A of an IDR slice: first fragment of the first slice, and a later one.
        let (first, later) = ([0x7c, 0x85, 0x88, 0x84], [0x7c, 0x05, 0x88, 0x84]);
        let check = |packets: &[Packet], torn: &[bool], before: Option<u64>| {
            let news = feed(PictureStart::H264, packets);
            assert_eq!(news.iter().map(|news| news.torn).collect::<Vec<_>>(), torn, "{packets:?}");
            let found = news.iter().find_map(|news| news.before);
            assert_eq!(found.map(|(pts, arrival)| (pts, arrival.torn)), before.map(|pts| (pts, true)), "{packets:?}");
        };
        let (begin, middle) = (packet(1, 10, false, first), packet(2, 10, false, later));
        check(&[begin, middle, packet(3, 10, true, later)], &[false; 3], None);
        check(&[begin, packet(3, 10, false, later), packet(4, 10, true, later)], &[false, true, true], None);
        check(&[begin, packet(2, 10, true, later), packet(4, 20, false, first)], &[false; 3], None);
        check(&[begin, middle, packet(4, 20, false, first)], &[false; 3], Some(10));
        check(&[begin, packet(2, 10, true, later), packet(4, 20, false, later)], &[false, false, true], None);
        check(&[begin, middle, packet(6, 20, false, later)], &[false, false, true], Some(10));
    }

    #[test]
    fn codecs_whose_depayloader_drops_torn_pictures_are_left_to_it() {
        let packets = [packet(1, 10, false, [0; 4]), packet(3, 20, false, [0; 4])];
        assert_eq!(feed(PictureStart::Any, &packets)[1], News { lost: 1, ..News::default() });
    }

    #[test]
    fn the_first_packet_of_a_picture_is_known_in_both_codecs() {
        let h264 = |payload| PictureStart::H264.is_start(payload);
        assert!(h264([0x67, 0x64, 0, 0]) && h264([0x65, 0x88, 0, 0]) && h264([0x78, 0, 20, 0x67]));
        assert!(!h264([0x65, 0x08, 0, 0]) && !h264([0x78, 0, 20, 0x41]) && !h264([0, 0, 0, 0]));
        assert!(!h264([0x7c, 0x85, 0x08, 0]), "the first fragment of a later slice");
        let h265 = |payload| PictureStart::H265.is_start(payload);
        assert!(h265([0x40, 1, 0, 0]) && h265([0x26, 1, 0xaf, 0]) && h265([0x62, 1, 0x93, 0xaf]));
        assert!(!h265([0x26, 1, 0x2f, 0]) && !h265([0x62, 1, 0x13, 0xaf]) && !h265([0x62, 1, 0x93, 0x2f]));
    }

    #[test]
    fn rtp_headers_are_read_and_other_bytes_are_not() {
        gst::init().expect("GStreamer");
        let read_from = |bytes: &[u8]| Packet::of(&gst::Buffer::from_slice(bytes.to_vec()));
        let plain = [0x80, 0xe0, 0x12, 0x34, 0, 1, 0, 2, 9, 9, 9, 9, 1, 2];
        let read = packet(0x1234, 65538, true, [1, 2, 0, 0]);
        assert_eq!(read_from(&plain), Some(read));
        let mut with_source = plain.to_vec();
        with_source[0] = 0x81;
        with_source.splice(12..12, [7, 7, 7, 7]);
        assert_eq!(read_from(&with_source), Some(read));
        let mut with_extension = plain.to_vec();
        with_extension[0] = 0x90;
        with_extension.splice(12..12, [0xbe, 0xde, 0, 1, 7, 7, 7, 7]);
        assert_eq!(read_from(&with_extension), Some(read));
        with_extension[14] = 0xff;
        assert_eq!(read_from(&with_extension), Some(Packet { payload: [0; 4], ..read }));
        assert_eq!(read_from(&[0x8f; 12]), Some(packet(0x8f8f, 0x8f8f_8f8f, true, [0; 4])));
        assert_eq!((read_from(&[0x80, 0, 0]), read_from(&[0; 12]), read_from(&[])), (None, None, None));
    }
}
