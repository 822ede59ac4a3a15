//! The seqlock of one slot, and the one racing copy.
//!
//! A stamp is 0 (empty), odd (being written) or `seq << 1` (published). Stamps never repeat, so a reader that sees
//! the same even stamp before and after its copy has copied exactly that frame.

use std::collections::TryReserveError;
use std::ptr::NonNull;

use crate::layout::{Layout, SLOT_WORDS};
use crate::meta::SlotWords;
use crate::segment::Mapping;
use crate::sync::{AtomicU64, Ordering, Region, fence};

/// Orders every earlier store, non-temporal ones included, before every later one.
///
/// `fence(SeqCst)` alone orders ordinary accesses; a `memcpy` inside a decoder or converter may use non-temporal
/// stores on x86-64, and only `sfence` orders those. A panic or a proof names the caller, whose fence it is.
#[inline]
#[track_caller]
fn full_fence() {
    fence(Ordering::SeqCst);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `sfence` needs SSE, which every x86-64 processor has; it touches no memory.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Writer: the slot, whose stamp was `stamp`, is being written from here on; whoever reads it now will notice.
pub(crate) fn begin_write(region: &impl Region, layout: &Layout, slot: u32, stamp: u64) {
    region.u64_at(layout.slot_header_off(slot)).store(stamp | 1, Ordering::Relaxed);
    // Pairs with the Acquire fence in `is_unchanged`: a reader that has seen any byte written after this fence sees
    // the odd stamp when it checks.
    full_fence();
}

/// The words of a slot's header.
#[inline]
fn header<'a>(region: &'a impl Region, layout: &Layout, slot: u32) -> &'a [AtomicU64; SLOT_WORDS] {
    region.u64s_at(layout.slot_header_off(slot))
}

/// Writer: the metadata, between `begin_write` and `commit`.
#[inline]
pub(crate) fn write_words(region: &impl Region, layout: &Layout, slot: u32, words: &SlotWords) {
    for (place, word) in header(region, layout, slot).iter().zip(words).skip(1) {
        place.store(*word, Ordering::Relaxed);
    }
}

/// Writer: the slot holds frame `seq`, complete.
pub(crate) fn commit(region: &impl Region, layout: &Layout, slot: u32, seq: u64) {
    full_fence();
    // Pairs with the Acquire fence in `load_stamp`: whoever sees the even value sees the whole frame.
    region.u64_at(layout.slot_header_off(slot)).store(seq << 1, Ordering::Release);
}

/// Writer: the slot holds nothing.
pub(crate) fn abort(region: &impl Region, layout: &Layout, slot: u32) {
    region.u64_at(layout.slot_header_off(slot)).store(0, Ordering::Release);
}

/// Reader: the slot's stamp, before anything else of it is read.
pub(crate) fn load_stamp(region: &impl Region, layout: &Layout, slot: u32) -> u64 {
    let stamp = region.u64_at(layout.slot_header_off(slot)).load(Ordering::Relaxed);
    // Pairs with the Release store in `commit`.
    fence(Ordering::Acquire);
    stamp
}

/// Reader: whether everything read since `load_stamp` returned `stamp` belongs to that frame.
pub(crate) fn is_unchanged(region: &impl Region, layout: &Layout, slot: u32, stamp: u64) -> bool {
    // Pairs with the fence in `begin_write`.
    fence(Ordering::Acquire);
    region.u64_at(layout.slot_header_off(slot)).load(Ordering::Relaxed) == stamp
}

/// Reader: a private copy of the slot header; worthless until `is_unchanged` says otherwise.
#[inline]
pub(crate) fn load_words(region: &impl Region, layout: &Layout, slot: u32) -> SlotWords {
    let mut words = [0; SLOT_WORDS];
    for (word, place) in words.iter_mut().zip(header(region, layout, slot)) {
        *word = place.load(Ordering::Relaxed);
    }
    words
}

/// Reader: copies `out.len()` bytes of the payload; worthless until `is_unchanged` says otherwise.
///
/// The one copy that races with the writer: blocks by instructions that may, and what they leave (everything, on other
/// processors) by Relaxed 64-bit loads, never by a plain `memcpy`, so that it is defined whatever the writer does
/// meanwhile.
pub(crate) fn copy_payload(map: &Mapping, offset: u64, out: &mut [u8]) {
    let done = map.copy_blocks(offset, out);
    copy_words(map, offset + done as u64, &mut out[done..]);
}

/// [`copy_payload`] by words, four to a round.
fn copy_words(map: &Mapping, offset: u64, out: &mut [u8]) {
    let whole = out.len() as u64;
    // Rounded up: the tail of the last word is always mapped, because a slot's stride is a multiple of 64 KiB.
    let words = map.ptr(offset, whole.next_multiple_of(8)).cast::<AtomicU64>();
    assert!(words.is_aligned(), "payloads begin at multiples of 64 KiB");
    let load = |index: usize| -> [u8; 8] {
        // SAFETY: `index * 8 < out.len()` rounded up to 8, the length that `Mapping::ptr` has checked above.
        let word = unsafe { words.add(index) };
        // SAFETY: inside the mapping and aligned (checked above), alive as long as `map`; Relaxed loads are allowed on
        // read-only pages and may race with the writer's stores.
        let word = unsafe { word.as_ref() };
        word.load(Ordering::Relaxed).to_ne_bytes()
    };
    let mut index = 0;
    let mut quads = out.chunks_exact_mut(32);
    for quad in &mut quads {
        let (a, b, c, d) = (load(index), load(index + 1), load(index + 2), load(index + 3));
        quad[0..8].copy_from_slice(&a);
        quad[8..16].copy_from_slice(&b);
        quad[16..24].copy_from_slice(&c);
        quad[24..32].copy_from_slice(&d);
        index += 4;
    }
    for chunk in quads.into_remainder().chunks_mut(8) {
        let word = load(index);
        chunk.copy_from_slice(&word[..chunk.len()]);
        index += 1;
    }
}

/// Writer: where the payload of a slot begins; `len` bytes from there are inside the slot.
pub(crate) fn payload_ptr(map: &Mapping, layout: &Layout, slot: u32, len: u64) -> NonNull<u8> {
    assert!(map.is_writable() && len <= layout.slot_capacity, "a claim never exceeds a slot of a writable segment");
    map.ptr(layout.payload_off(slot), len)
}

/// Makes `out` `len` bytes long without touching those it already has; refuses what there is no memory for.
pub(crate) fn resize(out: &mut Vec<u8>, len: usize) -> Result<(), TryReserveError> {
    out.try_reserve_exact(len.saturating_sub(out.len()))?;
    out.resize(len, 0);
    Ok(())
}
