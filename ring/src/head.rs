//! The hot line: which frame is newest, the word that readers sleep on, and the camera's state.

use crate::frame::{Reason, State};
use crate::layout::at;
use crate::sync::{Ordering, Region, fence};

/// The newest frame's number and place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) slot: u32,
}

impl Head {
    pub(crate) const fn word(self) -> u64 {
        self.seq << 16 | self.slot as u64
    }

    /// `None` for the zero word: nothing published yet.
    pub(crate) const fn from_word(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self { seq: word >> 16, slot: (word & 0xFFFF) as u32 }) }
    }
}

/// Reader: the newest frame.
pub(crate) fn load_head(region: &impl Region) -> Option<Head> {
    let word = region.u64_at(at::HEAD).load(Ordering::Relaxed);
    // Pairs with the Release store in `store_head`: whoever sees this head sees its slot's stamp.
    fence(Ordering::Acquire);
    Head::from_word(word)
}

/// Publisher: makes a finished slot the newest frame.
pub(crate) fn store_head(region: &impl Region, head: Head) {
    // Pairs with the Acquire fence in `load_head`.
    region.u64_at(at::HEAD).store(head.word(), Ordering::Release);
}

/// Reader: the word to sleep on; must be taken before `load_head`, or a wake-up can be lost.
pub(crate) fn load_notify(region: &impl Region) -> u32 {
    let value = region.u32_at(at::NOTIFY).load(Ordering::Relaxed);
    // Pairs with the Release add in `bump_notify`: whoever sees the new value sees the head and state before it.
    fence(Ordering::Acquire);
    value
}

/// Any daemon thread: announces that head or state changed; the wake-up call follows.
pub(crate) fn bump_notify(region: &impl Region) {
    // Pairs with the Acquire fence in `load_notify`.
    region.u32_at(at::NOTIFY).fetch_add(1, Ordering::Release);
}

/// The camera's state as one word, so that readers never see a mixture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct StateWord {
    pub(crate) state: State,
    pub(crate) reason: Reason,
    pub(crate) attempt: u8,
}

impl StateWord {
    pub(crate) fn word(self) -> u32 {
        u32::from(self.state.code()) | u32::from(self.reason.code()) << 8 | u32::from(self.attempt) << 24
    }

    pub(crate) fn from_word(word: u32) -> Self {
        Self {
            state: State::from_code(word as u8),
            reason: Reason::from_code((word >> 8) as u16),
            attempt: (word >> 24) as u8,
        }
    }
}

pub(crate) fn load_state(region: &impl Region) -> StateWord {
    let word = region.u32_at(at::STATE_WORD).load(Ordering::Relaxed);
    // Pairs with the Release store in `store_state`: the time of the change is visible with it.
    fence(Ordering::Acquire);
    StateWord::from_word(word)
}

pub(crate) fn store_state(region: &impl Region, state: StateWord, since_mono_ns: u64, next_retry_mono_ns: u64) {
    region.u64_at(at::STATE_SINCE_MONO_NS).store(since_mono_ns, Ordering::Relaxed);
    region.u64_at(at::NEXT_RETRY_MONO_NS).store(next_retry_mono_ns, Ordering::Relaxed);
    // Pairs with the Acquire fence in `load_state`.
    region.u32_at(at::STATE_WORD).store(state.word(), Ordering::Release);
}

/// What has become of a generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Retired {
    No,
    /// Another generation has taken its name.
    Superseded,
    /// Removed by the operator.
    Removed,
}

pub(crate) fn load_retired(region: &impl Region) -> Retired {
    let code = region.u32_at(at::RETIRED).load(Ordering::Relaxed);
    if code == 0 {
        return Retired::No;
    }
    // Pairs with the Release store in `store_retired`; a generation that goes on pays nothing for it.
    fence(Ordering::Acquire);
    if code == 2 { Retired::Removed } else { Retired::Superseded }
}

/// Final: a retired inode is never written again.
pub(crate) fn store_retired(region: &impl Region, retired: Retired) {
    let code = match retired {
        Retired::No => 0,
        Retired::Superseded => 1,
        Retired::Removed => 2,
    };
    // Pairs with the Acquire fence in `load_retired`: whoever sees the flag sees the successor and the last frame.
    region.u32_at(at::RETIRED).store(code, Ordering::Release);
}

/// A plain value of the header, for one writer thread and any readers.
pub(crate) fn load_u64(region: &impl Region, offset: u64) -> u64 {
    region.u64_at(offset).load(Ordering::Relaxed)
}

/// A plain value of the header.
pub(crate) fn store_u64(region: &impl Region, offset: u64, value: u64) {
    region.u64_at(offset).store(value, Ordering::Relaxed);
}

/// A plain value of the hot or liveness line.
pub(crate) fn load_u32(region: &impl Region, offset: u64) -> u32 {
    region.u32_at(offset).load(Ordering::Relaxed)
}

/// A plain value of the hot or liveness line.
pub(crate) fn store_u32(region: &impl Region, offset: u64, value: u32) {
    region.u32_at(offset).store(value, Ordering::Relaxed);
}

/// Adds to a counter that several threads of the daemon may touch.
pub(crate) fn add_u64(region: &impl Region, offset: u64, value: u64) {
    region.u64_at(offset).fetch_add(value, Ordering::Relaxed);
}

/// Stores a text field of whole words under its guard, which is odd meanwhile.
pub(crate) fn store_text(region: &impl Region, decoder: &[u8; 32], codec: &[u8; 32]) {
    let guard = region.u64_at(at::TEXT_SEQ);
    let seq = guard.load(Ordering::Relaxed) & !1;
    guard.store(seq.wrapping_add(1), Ordering::Relaxed);
    // Pairs with the Acquire fence before the second load in `load_text`.
    fence(Ordering::SeqCst);
    for (offset, bytes) in [(at::DECODER, decoder), (at::CODEC, codec)] {
        for (index, chunk) in bytes.chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes"));
            region.u64_at(offset + index as u64 * 8).store(word, Ordering::Relaxed);
        }
    }
    // Pairs with the Acquire fence after the first load in `load_text`.
    guard.store(seq.wrapping_add(2), Ordering::Release);
}

/// Reads decoder and codec; `None` while they are being written.
pub(crate) fn load_text(region: &impl Region) -> Option<([u8; 32], [u8; 32])> {
    let guard = region.u64_at(at::TEXT_SEQ);
    let before = guard.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    let mut texts = [[0u8; 32]; 2];
    for (text, offset) in texts.iter_mut().zip([at::DECODER, at::CODEC]) {
        for (index, chunk) in text.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&region.u64_at(offset + index as u64 * 8).load(Ordering::Relaxed).to_le_bytes());
        }
    }
    fence(Ordering::Acquire);
    let [decoder, codec] = texts;
    (before & 1 == 0 && guard.load(Ordering::Relaxed) == before).then_some((decoder, codec))
}
