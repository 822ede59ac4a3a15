//! Leases against claims: the product's stamps, and the kernel's byte locks as [`ByteLocks`].

use std::sync::Arc;

use crate::cases::{Act, Shared, together};
use crate::head::{self, Head};
use crate::kernel::ByteLocks;
use crate::slot;
use crate::sync::{Ordering, fence};

/// What the writer does when a reader holds the only slot it could take.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Policy {
    Fresh,
    Protect,
}

/// When the writer gives the byte back.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Unlock {
    AfterStamp,
    /// Planted.
    BeforeStamp,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Valid,
    Revoked,
}

pub(crate) fn protected() {
    leases::<1>(Policy::Protect, Unlock::AfterStamp);
}

pub(crate) fn two_protected() {
    leases::<2>(Policy::Protect, Unlock::AfterStamp);
}

pub(crate) fn revocable() {
    leases::<1>(Policy::Fresh, Unlock::AfterStamp);
}

/// Two slots, the first holding the newest frame; the writer makes two more, `N` readers lease meanwhile.
pub(crate) fn leases<const N: usize>(policy: Policy, unlock: Unlock) {
    let (shared, locks) = (Shared::new(2), Arc::new(ByteLocks::new(2)));
    shared.map.put(0, 1);
    head::store_head(&*shared.map, Head { seq: 1, slot: 0 });
    let (writer, claims) = (shared.clone(), Arc::clone(&locks));
    let mut threads: Vec<Act> = vec![Box::new(move || {
        let (mut stamps, mut newest) = ([1 << 1, 0], Head { seq: 1, slot: 0 });
        for _ in 0..2 {
            let index = 1 - newest.slot;
            if claim(&writer, &claims, policy, unlock, index, stamps[index as usize]) {
                newest = Head { seq: newest.seq + 1, slot: index };
                writer.complete(index, newest.seq);
                stamps[index as usize] = newest.seq << 1;
                head::store_head(&*writer.map, newest);
            }
        }
    })];
    for _ in 0..N {
        let (reader, locks) = (shared.clone(), Arc::clone(&locks));
        threads.push(Box::new(move || {
            let end = lease(&reader, &locks);
            assert!(policy == Policy::Fresh || end != Some(End::Revoked), "a protected lease was revoked");
        }));
    }
    together(threads);
}

/// Writer: takes the slot that is not the newest frame's, as the claim does with its one candidate.
fn claim(shared: &Shared, locks: &ByteLocks, policy: Policy, unlock: Unlock, index: u32, stamp: u64) -> bool {
    let free = locks.try_exclusive(index);
    if !free && policy == Policy::Protect {
        return false;
    }
    if free && unlock == Unlock::BeforeStamp {
        locks.unlock_exclusive(index);
    }
    shared.begin(index, stamp);
    if free && unlock == Unlock::AfterStamp {
        locks.unlock_exclusive(index);
    }
    true
}

/// Reader: leases the newest frame once, reads it in place twice and releases it; `None` when the writer was faster.
fn lease(shared: &Shared, locks: &ByteLocks) -> Option<End> {
    let Head { seq, slot } = head::load_head(&*shared.map)?;
    if !locks.try_shared(slot) {
        return None;
    }
    // As `Ring::lease`; not a site of slot.rs, so no proof takes it away.
    fence(Ordering::SeqCst);
    let stamp = slot::load_stamp(&*shared.map, &shared.layout, slot);
    if stamp != seq << 1 {
        locks.unlock_shared(slot);
        return None;
    }
    // `copy` checks every byte it accepts.
    let constant = shared.copy(slot, stamp) && shared.copy(slot, stamp);
    let end = if slot::is_unchanged(&*shared.map, &shared.layout, slot, stamp) { End::Valid } else { End::Revoked };
    assert!(constant || end == End::Revoked, "a lease that ended valid has shown another frame's bytes");
    locks.unlock_shared(slot);
    Some(end)
}
