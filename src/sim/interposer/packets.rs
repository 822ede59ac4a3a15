//! What faults do to RTP and RTCP packets, in place.

use super::wire::PACKET_HEAD;

/// The type of a sender report (RFC 3550).
const SENDER_REPORT: u8 = 200;

/// Sets the marker bit of an RTP packet.
pub fn mark(packet: &mut [u8]) {
    if let Some(byte) = packet.get_mut(1) {
        *byte |= 0x80;
    }
}

/// The same for an interleaved one.
pub fn mark_interleaved(packet: &mut [u8]) {
    if let Some(packet) = packet.get_mut(PACKET_HEAD..) {
        mark(packet);
    }
}

/// Whether an interleaved RTCP packet holds a sender report.
pub fn has_sender_report(packet: &[u8]) -> bool {
    report_at(packet).is_some()
}

/// Moves the clock of the sender report in an interleaved RTCP packet; it wraps as the clock does.
pub fn shift_clock(packet: &mut [u8], seconds: i64) {
    let Some(at) = report_at(packet) else { return };
    let Some(field) = packet.get_mut(at + 8..at + 12) else { return };
    let old = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
    // The clock of a sender report counts seconds modulo 2^32.
    let new = (i64::from(old) + seconds).rem_euclid(1 << 32) as u32;
    field.copy_from_slice(&new.to_be_bytes());
}

/// Where the sender report of a compound packet begins.
fn report_at(packet: &[u8]) -> Option<usize> {
    let mut at = PACKET_HEAD;
    while let Some([_, kind, high, low]) = packet.get(at..at + 4) {
        if *kind == SENDER_REPORT {
            return Some(at);
        }
        at += 4 * (1 + usize::from(u16::from_be_bytes([*high, *low])));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receiver report, then a sender report at 1000 s.
    fn compound() -> Vec<u8> {
        let mut packet = vec![b'$', 1, 0, 36, 0x80, 201, 0, 1, 1, 2, 3, 4, 0x80, 200, 0, 6, 1, 2, 3, 4];
        packet.extend_from_slice(&1000u32.to_be_bytes());
        packet.extend_from_slice(&[0; 16]);
        packet
    }

    fn clock(packet: &[u8]) -> u32 {
        u32::from_be_bytes(packet[20..24].try_into().unwrap())
    }

    #[test]
    fn the_clock_of_a_sender_report_moves_and_nothing_else() {
        let mut packet = compound();
        shift_clock(&mut packet, 3600);
        assert_eq!(clock(&packet), 4600);
        shift_clock(&mut packet, -4601);
        assert_eq!(clock(&packet), u32::MAX);
        packet[20..24].copy_from_slice(&1000u32.to_be_bytes());
        assert_eq!(packet, compound());
    }

    #[test]
    fn packets_without_a_report_and_short_ones_are_left_alone() {
        for len in 0..compound().len() {
            let mut packet = compound()[..len].to_vec();
            shift_clock(&mut packet, 5);
            mark_interleaved(&mut packet);
        }
        let mut other = compound()[..12].to_vec();
        assert!(!has_sender_report(&other) && has_sender_report(&compound()));
        mark_interleaved(&mut other);
        assert_eq!(other[5], 201 | 0x80);
    }
}
