//! A peer who has the keys and means harm: whatever frames its packets carry, nothing panics, memory stays bounded,
//! and at worst this connection ends.
//!
//! The input is a list of pieces: a byte that says to whom and when, one that says how many bytes follow, and those:
//! they take the place of the frames of the next packet, behind as many of its own as the first byte says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_quic::watch::fuzzing::TAMPER;

#[path = "ends.rs"]
mod ends;

fuzz_target!(|data: &[u8]| {
    let mut ends = ends::ends();
    let (mut now, mut rest) = (0, data);
    TAMPER.set(None);
    if let [first, tail @ ..] = rest {
        // the later, the more of the handshake is over
        ends::exchange(&mut ends, &mut now, usize::from(first & 7));
        rest = tail;
    }
    for end in &mut ends {
        if let Some(stream) = end.open_stream(true) {
            end.write(stream, &[7; 3000]).unwrap();
        }
    }
    while let [what, many, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*many).min(tail.len()));
        rest = tail;
        now += 5_000_000 << (what >> 5 & 3);
        let side = usize::from(what & 1);
        ends[1 - side].probe(now).unwrap();
        let made = ends[1 - side].transmit(now, 0, 1).unwrap();
        if let Some(made) = made {
            TAMPER.set(Some((usize::from(what >> 1 & 15), bytes.to_vec())));
            ends[side].receive(&made.bytes, made.stride, b"", now).unwrap();
            TAMPER.set(None);
        }
        if what & 128 != 0 {
            ends::exchange(&mut ends, &mut now, 1);
        }
        ends::settle(&mut ends, now);
    }
});
