//! A segment made of loom's atomics, in the product's layout.

use std::ptr::NonNull;

use crate::layout::{HEADER_BYTES, Layout, SLOT_WORDS, at};
use crate::meta::SlotWords;
use crate::slot;
use crate::sync::{AtomicU32, AtomicU64, Ordering, Region};

/// Payload bytes of a frame: one round of the copy loop, one whole word after it, and half a word.
pub(crate) const PAYLOAD_BYTES: usize = 44;
const PAYLOAD_WORDS: usize = PAYLOAD_BYTES.div_ceil(8);
/// Words of the payload that loom explores: the first, and the one of which only half belongs to the frame.
const PAYLOAD_EXPLORED: [usize; 2] = [0, PAYLOAD_WORDS - 1];
/// Words of a slot header that loom explores: the stamp and the sequence.
const HEADER_EXPLORED: [usize; 2] = [0, 1];
/// Header words that loom explores, by width.
const EXPLORED_U64: [u64; 7] = [
    at::HEAD,
    at::STATE_SINCE_MONO_NS,
    at::SUCCESSOR_UUID,
    at::TEXT_SEQ,
    at::DECODER,
    at::CODEC + 24,
    at::LAST_PUBLISH_MONO_NS,
];
const EXPLORED_U32: [u64; 3] = [at::NOTIFY, at::STATE_WORD, at::RETIRED];

/// Stands for the product's mapping of a file; the payload's words lie side by side as they do there, each as large as
/// one of this crate's atomics.
#[derive(Debug)]
pub(crate) struct Mapping {
    layout: Layout,
    u64s: Box<[AtomicU64]>,
    u32s: Box<[AtomicU32]>,
    payloads: Box<[Box<[AtomicU64]>]>,
}

impl Mapping {
    /// An empty segment of `slots` slots; call inside a loom execution.
    pub(crate) fn new(slots: u32) -> (Self, Layout) {
        let mut layout = Layout::plan(slots.max(3), PAYLOAD_BYTES as u64).expect("a small ring");
        // A model may have fewer slots than a product's ring: the protocol does not depend on the number.
        layout.slot_count = slots;
        let words = layout.slot_header_off(slots) / 8;
        let slot_word = |index: u64| (index * 8).checked_sub(u64::from(HEADER_BYTES)).map(|at| at as usize / 8);
        let is_explored = |index: u64| match slot_word(index) {
            Some(word) => HEADER_EXPLORED.contains(&(word % SLOT_WORDS)),
            None => EXPLORED_U64.contains(&(index * 8)),
        };
        let u64s = (0..words).map(|i| if is_explored(i) { AtomicU64::explored(0) } else { AtomicU64::plain(0) });
        let is_explored = |index: u64| EXPLORED_U32.contains(&(index * 4));
        let u32s = (0..u64::from(HEADER_BYTES) / 4)
            .map(|i| if is_explored(i) { AtomicU32::explored(0) } else { AtomicU32::plain(0) });
        let is_explored = |index: usize| PAYLOAD_EXPLORED.contains(&index);
        let payload = |_| {
            let words =
                (0..PAYLOAD_WORDS).map(|i| if is_explored(i) { AtomicU64::explored(0) } else { AtomicU64::plain(0) });
            words.collect()
        };
        let payloads = (0..slots).map(payload).collect();
        (Self { u64s: u64s.collect(), u32s: u32s.collect(), payloads, layout: layout.clone() }, layout)
    }

    /// As in the product: where the payload bytes at `offset` begin, `len` of them being there.
    pub(crate) fn ptr(&self, offset: u64, len: u64) -> NonNull<u8> {
        let slot = (offset - self.layout.data_off) / self.layout.slot_stride;
        assert_eq!(offset, self.layout.payload_off(slot as u32), "the model copies whole payloads");
        let words = &self.payloads[slot as usize];
        assert!(len <= words.len() as u64 * 8, "{len} bytes of a payload of {} words", words.len());
        NonNull::from(&**words).cast()
    }

    /// The model's words are no memory that instructions could copy: all of it goes by words.
    pub(crate) fn copy_blocks(&self, _offset: u64, _out: &mut [u8]) -> usize {
        0
    }

    pub(crate) fn is_writable(&self) -> bool {
        true
    }

    /// Writes the whole payload, as a writer in another process looks to a reader: Relaxed stores of words.
    pub(crate) fn fill(&self, slot: u32, seq: u64) {
        for word in &self.payloads[slot as usize] {
            word.store(pattern(seq), Ordering::Relaxed);
        }
    }

    /// Publishes a frame before the threads of a case begin.
    pub(crate) fn put(&self, slot: u32, seq: u64) {
        slot::begin_write(self, &self.layout, slot, 0);
        slot::write_words(self, &self.layout, slot, &words_of(seq));
        self.fill(slot, seq);
        slot::commit(self, &self.layout, slot, seq);
    }
}

impl Region for Mapping {
    fn u64_at(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "a 64-bit word at the unaligned offset {offset}");
        &self.u64s[offset as usize / 8]
    }

    fn u64s_at<const N: usize>(&self, offset: u64) -> &[AtomicU64; N] {
        assert!(offset.is_multiple_of(8), "64-bit words at the unaligned offset {offset}");
        let first = offset as usize / 8;
        self.u64s[first..first + N].try_into().expect("as many words as were asked for")
    }

    fn u32_at(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "a 32-bit word at the unaligned offset {offset}");
        &self.u32s[offset as usize / 4]
    }
}

/// The metadata of frame `seq`: every word says the number.
pub(crate) fn words_of(seq: u64) -> SlotWords {
    [seq; SLOT_WORDS]
}

fn pattern(seq: u64) -> u64 {
    seq * 0x0101_0101_0101_0101
}

/// Checks that what loom explores of everything read belongs to frame `seq`.
pub(crate) fn assert_whole(seq: u64, words: &SlotWords, payload: &[u8; PAYLOAD_BYTES]) {
    assert_eq!(words[HEADER_EXPLORED[1]], seq, "torn: metadata of frame {seq}");
    for word in PAYLOAD_EXPLORED {
        let bytes = &payload[word * 8..PAYLOAD_BYTES.min(word * 8 + 8)];
        assert!(bytes.iter().all(|byte| u64::from(*byte) == seq), "torn: word {word} of frame {seq}: {bytes:?}");
    }
}
