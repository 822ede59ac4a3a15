//! iceoryx2: a service of byte slices beside an event service that wakes its subscribers.

use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use iceoryx2::node::NodeBuilder;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::{LogLevel, ServiceName, ipc, set_log_level};
use iceoryx2::sample_mut::SampleMut;
use iceoryx2::service::port_factory::{event, publish_subscribe};

use crate::{Reads, Taken, Writes};

/// Readers, and as many listeners and nodes, that a service takes.
const MANY: usize = 32;
/// Samples in a subscriber's buffer, which drops its oldest: as few as there can be, so that a slow one is fresh.
const BUFFER: usize = 1;

type Publishing = publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type Waking = event::PortFactory<ipc::Service>;

fn services(name: &str) -> (Publishing, Waking) {
    set_log_level(LogLevel::Error);
    let node = NodeBuilder::new().create::<ipc::Service>().expect("a node");
    let name = ServiceName::new(name).expect("a service's name");
    let frames = node.service_builder(&name).publish_subscribe::<[u8]>().enable_safe_overflow(true);
    let frames = frames.subscriber_max_buffer_size(BUFFER).subscriber_max_borrowed_samples(2).history_size(0);
    let frames = frames.max_subscribers(MANY).max_nodes(MANY + 4).open_or_create().expect("a service");
    let event = node.service_builder(&name).event().max_listeners(MANY).max_notifiers(4).max_nodes(MANY + 4);
    (frames, event.open_or_create().expect("an event service"))
}

/// The writer.
pub struct Publisher {
    publisher: iceoryx2::port::publisher::Publisher<ipc::Service, [u8], ()>,
    notifier: Notifier<ipc::Service>,
    sample: Option<SampleMut<ipc::Service, [u8], ()>>,
    bytes: usize,
}

impl Publisher {
    pub fn new(name: &str, bytes: usize) -> Self {
        let (frames, event) = services(name);
        let publisher = frames.publisher_builder().initial_max_slice_len(bytes).create().expect("a publisher");
        Self { publisher, notifier: event.notifier_builder().create().expect("a notifier"), sample: None, bytes }
    }
}

impl Writes for Publisher {
    fn fill(&mut self, pixels: &[u8]) {
        let sample = self.publisher.loan_slice_uninit(self.bytes).expect("a sample");
        self.sample = Some(sample.write_from_slice(pixels));
    }

    fn publish(&mut self, number: u64, t0_ns: i64) {
        let mut sample = self.sample.take().expect("a filled sample");
        let head = sample.payload_mut();
        head[..8].copy_from_slice(&t0_ns.to_le_bytes());
        head[8..16].copy_from_slice(&number.to_le_bytes());
        sample.send().expect("sent");
        self.notifier.notify().expect("notified");
    }
}

/// The reader: woken by the event, it takes what is newest.
pub struct Subscriber {
    subscriber: iceoryx2::port::subscriber::Subscriber<ipc::Service, [u8], ()>,
    listener: Listener<ipc::Service>,
}

impl Subscriber {
    pub fn new(name: &str) -> Self {
        let (frames, event) = services(name);
        let subscriber = frames.subscriber_builder().buffer_size(BUFFER).create().expect("a subscriber");
        Self { subscriber, listener: event.listener_builder().create().expect("a listener") }
    }
}

impl Reads for Subscriber {
    fn take(&mut self, limit: Duration) -> Option<Taken> {
        let until = Instant::now() + limit;
        loop {
            let mut newest = None;
            while let Some(sample) = self.subscriber.receive().expect("received") {
                newest = Some(sample);
            }
            if let Some(sample) = newest {
                let held_ns = mono_ns();
                let head = |at: usize| <[u8; 8]>::try_from(&sample[at..at + 8]).expect("eight bytes");
                return Some(Taken {
                    number: u64::from_le_bytes(head(8)),
                    t0_ns: i64::from_le_bytes(head(0)),
                    held_ns,
                });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.listener.timed_wait(|_| {}, left).expect("waited");
        }
    }
}
