//! Proofs of the ring's protocol; a package of tests only.
//!
//! The product's own `slot.rs` and `head.rs` are compiled a second time here, over the atomics of the model
//! checker loom ([`sync`]), a segment made of them ([`segment`]) and the two services of the kernel that the protocol
//! uses ([`kernel`]). What every part proves, and what it cannot, is said in `README.md` beside this package.

#[cfg(test)]
mod cases;
#[cfg(test)]
#[path = "../../src/head.rs"]
#[allow(dead_code)]
mod head;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod lease_cases;
/// What `slot.rs` needs of the product's `meta`.
#[cfg(test)]
mod meta {
    pub(crate) type SlotWords = [u64; crate::layout::SLOT_WORDS];
}
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod segment;
#[cfg(test)]
mod sites;
#[cfg(test)]
#[path = "../../src/slot.rs"]
#[allow(dead_code)]
mod slot;
#[cfg(test)]
mod sync;

// The files above name these as modules of their own crate.
#[cfg(test)]
pub(crate) use camring_ring::{frame, layout};
