//! The protocol step by step over the product's functions: publishing, copying, waiting, state, texts, retiring.
//!
//! The order of calls is that of `Writer::publish` and `Ring::read`; what every step does to memory is the product's own
//! code. A case panics when a promise is broken, and loom does when a thread sleeps for ever.

use std::sync::Arc;

use loom::thread;

use crate::frame::{Reason, State};
use crate::head::{self, Head, Retired, StateWord};
use crate::kernel::Futex;
use crate::layout::{Layout, at};
use crate::lease_cases;
use crate::segment::{Mapping, PAYLOAD_BYTES, assert_whole, words_of};
use crate::slot;

/// One set of threads over one small segment, explored by loom.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// How often loom may interrupt a thread that could go on, in the short and in the full form.
    pub(crate) preemptions: [usize; 2],
    pub(crate) run: fn(),
}

/// Everything that must hold.
pub(crate) const CASES: &[Case] = &[
    Case { name: "a state and its time", preemptions: [99, 99], run: state_with_its_time },
    Case { name: "a retired generation and its successor", preemptions: [99, 99], run: retired_with_its_successor },
    Case { name: "texts that change", preemptions: [3, 99], run: texts_while_they_change },
    Case {
        name: "the head leads to its frame",
        preemptions: [99, 99],
        run: || head_leads_to_its_frame(Order::Product),
    },
    Case { name: "a waiter gets every frame", preemptions: [2, 99], run: || wait_for_frames(Order::Product) },
    Case { name: "two waiters and another thread's news", preemptions: [1, 2], run: wait_beside_state_changes },
    Case { name: "a copy of a slot that is overwritten", preemptions: [3, 99], run: copy_while_overwritten },
    Case { name: "a copy of a slot that is abandoned", preemptions: [2, 4], run: copy_while_abandoned },
    Case { name: "a lease under protect", preemptions: [2, 4], run: lease_cases::protected },
    Case { name: "a lease under fresh", preemptions: [2, 4], run: lease_cases::revocable },
    Case { name: "a reader of two slots that reads twice", preemptions: [2, 3], run: || read_two_slots::<1>(2) },
    Case { name: "two readers of two slots", preemptions: [1, 2], run: || read_two_slots::<2>(1) },
    Case { name: "two leases under protect", preemptions: [1, 2], run: lease_cases::two_protected },
];

/// A segment of the model, shared by the threads of a case.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) map: Arc<Mapping>,
    pub(crate) layout: Arc<Layout>,
}

impl Shared {
    pub(crate) fn new(slots: u32) -> Self {
        let (map, layout) = Mapping::new(slots);
        Self { map: Arc::new(map), layout: Arc::new(layout) }
    }

    /// Writer: claims `index`, whose stamp was `stamp`.
    pub(crate) fn begin(&self, index: u32, stamp: u64) {
        slot::begin_write(&*self.map, &self.layout, index, stamp);
    }

    /// Writer: fills a claimed slot and completes it as frame `seq`.
    pub(crate) fn complete(&self, index: u32, seq: u64) {
        self.map.fill(index, seq);
        slot::write_words(&*self.map, &self.layout, index, &words_of(seq));
        slot::commit(&*self.map, &self.layout, index, seq);
    }

    /// Writer: the whole of a frame, up to the head.
    pub(crate) fn publish(&self, index: u32, stamp: u64, seq: u64) {
        self.begin(index, stamp);
        self.complete(index, seq);
        head::store_head(&*self.map, Head { seq, slot: index });
    }

    /// Reader: copies the frame behind `stamp` as `Ring::read` does; whether it is accepted.
    pub(crate) fn copy(&self, index: u32, stamp: u64) -> bool {
        let (map, layout) = (&*self.map, &*self.layout);
        let words = slot::load_words(map, layout, index);
        if !slot::is_unchanged(map, layout, index, stamp) {
            return false;
        }
        let mut payload = [0; PAYLOAD_BYTES];
        slot::copy_payload(map, layout.payload_off(index), &mut payload);
        if !slot::is_unchanged(map, layout, index, stamp) {
            return false;
        }
        assert_whole(stamp >> 1, &words, &payload);
        true
    }

    /// Reader: the newest frame's number, once its copy is accepted. The head leads to a stamp at least as new.
    pub(crate) fn latest(&self) -> Option<u64> {
        let Head { seq, slot } = head::load_head(&*self.map)?;
        let stamp = slot::load_stamp(&*self.map, &self.layout, slot);
        assert!(stamp >= seq << 1, "the head says frame {seq}, its slot's stamp is still {stamp:#x}");
        (stamp == seq << 1 && self.copy(slot, stamp)).then_some(seq)
    }
}

/// What one thread of a case does.
pub(crate) type Act = Box<dyn FnOnce()>;

/// Starts the threads of a case and waits for them.
pub(crate) fn together(threads: Vec<Act>) {
    let running: Vec<_> = threads.into_iter().map(thread::spawn).collect();
    for thread in running {
        thread.join().expect("a thread that fails ends the execution");
    }
}

/// A frame that an older head leads to is overwritten while a reader copies it.
fn copy_while_overwritten() {
    let shared = Shared::new(1);
    shared.map.put(0, 1);
    let reader = shared.clone();
    together(vec![
        Box::new(move || {
            shared.begin(0, 1 << 1);
            shared.complete(0, 2);
        }),
        Box::new(move || {
            let stamp = slot::load_stamp(&*reader.map, &reader.layout, 0);
            if stamp & 1 == 0 {
                reader.copy(0, stamp);
            }
        }),
    ]);
}

/// An abandoned slot is empty for every reader, and what is written there next is whole.
fn copy_while_abandoned() {
    let shared = Shared::new(1);
    shared.map.put(0, 1);
    let reader = shared.clone();
    together(vec![
        Box::new(move || {
            shared.begin(0, 1 << 1);
            shared.map.fill(0, 9);
            slot::abort(&*shared.map, &shared.layout, 0);
            shared.begin(0, 0);
            shared.complete(0, 2);
        }),
        Box::new(move || {
            let stamp = slot::load_stamp(&*reader.map, &reader.layout, 0);
            if stamp & 1 == 0 && stamp != 0 {
                reader.copy(0, stamp);
            }
        }),
    ]);
}

/// Whoever sees a head sees the stamp of its slot, and a frame that nobody overwrites is always accepted.
pub(crate) fn head_leads_to_its_frame(order: Order) {
    let shared = Shared::new(2);
    let reader = shared.clone();
    together(vec![
        Box::new(move || {
            shared.publish(0, 0, 1);
            if order == Order::HeadBeforeStamp {
                head::store_head(&*shared.map, Head { seq: 2, slot: 1 });
            }
            shared.publish(1, 0, 2);
        }),
        Box::new(move || {
            let seen = head::load_head(&*reader.map).is_some();
            let read = reader.latest().is_some();
            assert!(read || !seen, "the newest frame was refused although nobody overwrites it");
        }),
    ]);
}

/// The least ring there is: each frame goes where the last but one was, `READERS` readers copy meanwhile.
fn read_two_slots<const READERS: usize>(reads: u32) {
    let shared = Shared::new(2);
    shared.map.put(0, 1);
    head::store_head(&*shared.map, Head { seq: 1, slot: 0 });
    let writer = shared.clone();
    let writes = move || {
        writer.publish(1, 0, 2);
        writer.publish(0, 1 << 1, 3);
    };
    let readers = (0..READERS).map(|_| {
        let reader = shared.clone();
        Box::new(move || {
            let mut last = 1;
            for _ in 0..reads {
                let seq = reader.latest().unwrap_or(last);
                assert!(seq >= last, "frame {seq} after frame {last}");
                last = seq;
            }
        }) as Act
    });
    let writer = std::iter::once(Box::new(writes) as Act);
    together(writer.chain(readers).collect());
}

/// In which order the sides touch the words that lead from one to the next.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Order {
    Product,
    /// Planted: the writer stores the head, then the stamp.
    HeadBeforeStamp,
    /// Planted: the waiter looks at the head, then takes the word to sleep on.
    HeadBeforeNotify,
    /// Planted: the writer announces the frame, then stores the head.
    NotifyBeforeHead,
}

/// A waiter sleeps until each of the frames is there; sleeps have no time limit here, so that a lost wake-up shows.
pub(crate) fn wait_for_frames(order: Order) {
    let (shared, futex) = (Shared::new(2), Arc::new(Futex::new()));
    let (reader, sleep) = (shared.clone(), Arc::clone(&futex));
    together(vec![
        Box::new(move || {
            for seq in 1..=2 {
                announce(&shared, &futex, order, seq);
            }
        }),
        Box::new(move || {
            wait_newer(&reader, &sleep, order, 0);
            wait_newer(&reader, &sleep, order, 1);
        }),
    ]);
}

/// Writer: the end of a publication. The frame's contents are other cases'.
fn announce(shared: &Shared, futex: &Futex, order: Order, seq: u64) {
    let head = Head { seq, slot: 0 };
    if order == Order::NotifyBeforeHead {
        head::bump_notify(&*shared.map);
        futex.wake();
        head::store_head(&*shared.map, head);
    } else {
        head::store_head(&*shared.map, head);
        head::bump_notify(&*shared.map);
        futex.wake();
    }
}

/// Reader: as `Ring::wait_newer`.
fn wait_newer(shared: &Shared, futex: &Futex, order: Order, last: u64) {
    let is_newer = || head::load_head(&*shared.map).is_some_and(|head| head.seq > last);
    loop {
        if order == Order::HeadBeforeNotify {
            if is_newer() {
                return;
            }
            futex.wait(&*shared.map, head::load_notify(&*shared.map));
        } else {
            let seen = head::load_notify(&*shared.map);
            if is_newer() {
                return;
            }
            futex.wait(&*shared.map, seen);
        }
    }
}

/// Two waiters for one frame, while another thread of the daemon announces a change of state.
fn wait_beside_state_changes() {
    let (shared, futex) = (Shared::new(2), Arc::new(Futex::new()));
    let (supervisor, announces) = (shared.clone(), Arc::clone(&futex));
    let [first, second] = [0, 1].map(|_| {
        let (reader, sleep) = (shared.clone(), Arc::clone(&futex));
        Box::new(move || wait_newer(&reader, &sleep, Order::Product, 0)) as Act
    });
    let state = move || {
        head::store_state(&*supervisor.map, live(), 5, 0);
        head::bump_notify(&*supervisor.map);
        announces.wake();
    };
    let writer = move || announce(&shared, &futex, Order::Product, 1);
    together(vec![Box::new(writer), Box::new(state), first, second]);
}

fn live() -> StateWord {
    StateWord { state: State::Live, reason: Reason::None, attempt: 0 }
}

/// Whoever sees a state sees when it began.
fn state_with_its_time() {
    let shared = Shared::new(1);
    let reader = shared.clone();
    together(vec![
        Box::new(move || head::store_state(&*shared.map, live(), 5, 0)),
        Box::new(move || {
            if head::load_state(&*reader.map) == live() {
                let since = head::load_u64(&*reader.map, at::STATE_SINCE_MONO_NS);
                assert_eq!(since, 5, "the state is new, its time is not");
            }
        }),
    ]);
}

/// Whoever sees that a generation is retired sees its successor, and every frame it ever held.
fn retired_with_its_successor() {
    let shared = Shared::new(1);
    let reader = shared.clone();
    together(vec![
        Box::new(move || {
            head::store_u64(&*shared.map, at::SUCCESSOR_UUID, 7);
            head::store_retired(&*shared.map, Retired::Superseded);
        }),
        Box::new(move || {
            if head::load_retired(&*reader.map) == Retired::Superseded {
                let successor = head::load_u64(&*reader.map, at::SUCCESSOR_UUID);
                assert_eq!(successor, 7, "the generation is retired, its successor is not known");
            }
        }),
    ]);
}

/// Decoder and codec are of one moment.
fn texts_while_they_change() {
    let shared = Shared::new(1);
    let reader = shared.clone();
    together(vec![
        Box::new(move || {
            head::store_text(&*shared.map, &[1; 32], &[1; 32]);
            head::store_text(&*shared.map, &[2; 32], &[2; 32]);
        }),
        Box::new(move || {
            if let Some((decoder, codec)) = head::load_text(&*reader.map) {
                // The first word of one and the last of the other are explored; the rest is the same for all threads.
                assert_eq!(decoder[0], codec[31], "decoder and codec of two moments");
            }
        }),
    ]);
}
