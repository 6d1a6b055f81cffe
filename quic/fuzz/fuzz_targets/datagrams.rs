//! The door for datagrams: whatever comes in, nothing panics, and only its own connection may end.
//!
//! The input is a list of pieces: a byte that says what to do, one that says how many follow, and those. A piece is
//! given to one of the ends as it is, or laid over a real datagram of the other's, or the real one is given twice,
//! cut short, or not at all; or the whole is taken for several datagrams with a header.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "ends.rs"]
mod ends;

fuzz_target!(|data: &[u8]| {
    let mut ends = ends::ends();
    let (mut now, mut rest) = (0, data);
    if let [first, tail @ ..] = rest {
        // half of the inputs meet a connection that stands
        if first & 1 != 0 {
            ends::exchange(&mut ends, &mut now, 8);
        }
        rest = tail;
    }
    while let [what, many, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*many).min(tail.len()));
        rest = tail;
        now += 5_000_000;
        let side = usize::from(what & 1);
        let made = ends[1 - side].transmit(now, 0, 4).unwrap();
        let (real, stride) = made.map_or((Vec::new(), 0), |m| (m.bytes, m.stride));
        let datagram = match what >> 1 & 7 {
            0 => bytes.to_vec(),
            1 => [real.as_slice(), &real].concat(),
            2 => real[..real.len().min(bytes.len() * 8)].to_vec(),
            3 => Vec::new(),
            4 => bytes.repeat(6),
            _ => {
                let mut real = real;
                for (at, byte) in bytes.iter().enumerate() {
                    let place = (usize::from(what >> 4) * 4 + at) % real.len().max(1);
                    if let Some(target) = real.get_mut(place) {
                        *target ^= byte;
                    }
                }
                real
            }
        };
        let header = if what >> 4 == 15 { &bytes[..bytes.len().min(3)] } else { b"" };
        ends[side].receive(&datagram, stride, header, now).unwrap();
        ends::settle(&mut ends, now);
    }
});
