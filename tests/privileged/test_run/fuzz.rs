//! Generates malformed frames: valid ones with random changes.

use vm_metrics_testkit::frames::{BROADCAST, Frame, MULTICAST};
use vm_metrics_testkit::random::Random;

/// Numbers with a meaning in headers.
const WORDS: [[u8; 2]; 10] = [
    [0x08, 0x00],
    [0x08, 0x06],
    [0x86, 0xdd],
    [0x81, 0x00],
    [0x88, 0xa8],
    [0x88, 0xb5],
    [0xff, 0xff],
    [0x00, 0x00],
    [0x05, 0xdc],
    [0x91, 0x00],
];
const BYTES: [u8; 16] = [0, 1, 4, 5, 6, 8, 15, 17, 43, 44, 50, 51, 58, 60, 0x45, 0xff];

/// Makes a frame, cut to `longest` bytes.
pub fn frame(random: &mut Random, longest: usize) -> Vec<u8> {
    let mut frame = valid(random, longest);
    for _ in 0..random.below(6) {
        mutate(random, &mut frame);
    }
    frame.resize(frame.len().max(14), 0);
    frame.truncate(longest);
    frame
}

/// Returns 0 for most frames, which are no GSO frames.
pub fn gso_size(random: &mut Random) -> u16 {
    match random.below(8) {
        0 => random.number() as u16,
        1 => [1, 7, 536, 1448, 1460, 8948, 65_535][random.below(7)],
        _ => 0,
    }
}

fn valid(random: &mut Random, longest: usize) -> Vec<u8> {
    let mut frame = Frame::from_guest();
    match random.below(4) {
        0 => frame = frame.to(BROADCAST),
        1 => frame = frame.to(MULTICAST),
        _ => {}
    }
    match random.below(4) {
        0 => frame = frame.vlan(7),
        1 => frame = frame.service_vlan(9).vlan(7),
        _ => {}
    }
    let payload = if random.one_in(4) { random.below(longest) } else { random.below(100) };
    match random.below(9) {
        0 => frame.udp4(payload),
        1 => frame.tcp4(payload),
        2 => frame.icmp4(payload),
        3 => frame.udp6(payload),
        4 => frame.tcp6(payload),
        5 => frame.icmp6(payload),
        6 => frame.udp6_after_hop_by_hop(payload),
        7 => frame.arp(),
        _ => frame.other(random.number() as u16, payload),
    }
}

fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    // The programs read mostly the front of a frame.
    let at = if random.one_in(4) { random.below(frame.len()) } else { random.below(frame.len().min(70)) };
    match random.below(8) {
        0 => frame[at] = random.number() as u8,
        1 => frame[at] ^= 1 << random.below(8),
        2 => frame[at] = BYTES[random.below(BYTES.len())],
        3 => overwrite(frame, 12, &WORDS[random.below(WORDS.len())]),
        4 => overwrite(frame, at & !1, &WORDS[random.below(WORDS.len())]),
        5 => frame.truncate(at),
        6 => {
            // Inserts one more tag, or the beginning of one.
            let tag = [WORDS[3 + random.below(2)], [0, 7]].concat();
            let at = frame.len().min(12);
            frame.splice(at..at, tag);
        }
        _ => {
            // Inserts a chain of random extension headers.
            overwrite(frame, 20, &[BYTES[random.below(BYTES.len())]]);
            for at in (54..frame.len()).step_by(8).take(7) {
                frame[at] = [0, 6, 17, 43, 44, 58, 60][random.below(7)];
                overwrite(frame, at + 1, &[random.below(3) as u8]);
            }
        }
    }
    if frame.is_empty() {
        frame.push(0);
    }
}

fn overwrite(frame: &mut [u8], at: usize, with: &[u8]) {
    for (to, from) in frame.iter_mut().skip(at).zip(with) {
        *to = *from;
    }
}
