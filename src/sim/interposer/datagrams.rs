//! Faults of RTP datagrams: done behind the payloader, because datagrams do not pass by the interposer.

use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;

use super::active::Active;
use super::line::Line;
use super::packets;

/// What the packets of all streams of a camera that serves datagrams go through at the moment.
#[derive(Debug, Default)]
pub struct Datagrams {
    active: Mutex<Arc<Active>>,
}

impl Datagrams {
    pub(super) fn set(&self, active: Arc<Active>) {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = active;
    }

    fn get(&self) -> Arc<Active> {
        Arc::clone(&self.active.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does to the packets of a payloader's pad what is in force when each is sent.
    pub fn tap(self: &Arc<Self>, pad: &gst::Pad) {
        let (datagrams, line) = (Arc::clone(self), Mutex::new(Line::default()));
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |pad, info| {
            let packets: Vec<gst::Buffer> = match info.data.take() {
                Some(gst::PadProbeData::Buffer(packet)) => vec![packet],
                Some(gst::PadProbeData::BufferList(packets)) => packets.iter_owned().collect(),
                other => {
                    info.data = other;
                    return gst::PadProbeReturn::Ok;
                }
            };
            let active = datagrams.get();
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            let arriving = packets.into_iter().flat_map(|packet| through(&mut line, packet, &active));
            // Sent on one by one: a fault may have made one packet of several, or several of one.
            let sent = pad
                .peer()
                .ok_or(gst::FlowError::NotLinked)
                .and_then(|peer| arriving.into_iter().try_for_each(|packet| peer.chain(packet).map(|_| ())));
            info.flow_res = sent.map(|()| gst::FlowSuccess::Ok);
            gst::PadProbeReturn::Handled
        });
    }
}

fn through(line: &mut Line<gst::Buffer>, packet: gst::Buffer, active: &Active) -> Vec<gst::Buffer> {
    if active.is_stalled() || active.is_half_open() {
        return Vec::new();
    }
    line.pass(packet, active, |packet| {
        // A packet that cannot be mapped keeps its marker bit.
        if let Ok(mut bytes) = packet.make_mut().map_writable() {
            packets::mark(&mut bytes);
        }
    })
}
