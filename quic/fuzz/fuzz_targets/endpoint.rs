//! The door of many connections: whatever comes from whatever address, nothing panics, what is kept stays bounded,
//! and a client that stands is not disturbed.
//!
//! The input is a list of pieces: a byte that says what to do and from where, one that says how many follow, and those.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use warren_quic::connection::Connection;
use warren_quic::endpoint::Endpoint;
use warren_quic::events::Event;
use warren_quic::settings::Settings;

#[path = "ends.rs"]
mod ends;

const HALF_OPEN: usize = 4;

fuzz_target!(|data: &[u8]| {
    let (client, server) = ends::certified();
    let settings = Settings { seed: Some(1), ..Settings::default() };
    let retry = data.first().is_some_and(|first| first & 1 != 0);
    let mut endpoint = Endpoint::new(server, &settings, retry, HALF_OPEN, 0).unwrap();
    let mut caller = Connection::connect(client, &settings, 0).unwrap();
    let (mut now, mut rest, mut last) = (0, data.get(1..).unwrap_or(&[]), Vec::new());
    while let [what, many, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*many).min(tail.len()));
        rest = tail;
        now += 5_000_000 << (what >> 6);
        let from = SocketAddr::from(([192, 0, 2, 1], 1000 + u16::from(what >> 4 & 3)));
        let real = caller.transmit(now, 0, 1).unwrap().map(|made| made.bytes);
        if let Some(real) = &real {
            last = real.clone();
        }
        let datagram = match what & 7 {
            0 => bytes.to_vec(),
            // a long header of version 1, large enough to begin a connection
            1 => [&[0xc0, 0, 0, 0, 1], bytes, &[0; 1200]].concat(),
            2 | 3 => last.clone(),
            _ => {
                let mut changed = last.clone();
                for (at, byte) in bytes.iter().enumerate() {
                    let place = (usize::from(what & 3) * 20 + at) % changed.len().max(1);
                    if let Some(target) = changed.get_mut(place) {
                        *target ^= byte;
                    }
                }
                changed
            }
        };
        endpoint.receive(&datagram, 0, from, now).unwrap();
        endpoint.handle_timer(now).unwrap();
        while let Some((_, served)) = endpoint.accept() {
            let mut served = served.lock().unwrap();
            while let Some(event) = served.poll_event() {
                let panicked = matches!(&event, Event::Closed { code: 1, reason, .. } if reason == "internal error");
                assert!(!panicked, "a panic inside");
            }
        }
        while let Some(made) = endpoint.transmit(now, 4).unwrap() {
            if made.to.port() == 1000 {
                caller.receive(&made.bytes, made.stride, b"", now).unwrap();
            }
        }
        if caller.timer().is_some_and(|t| t <= now) {
            caller.handle_timer(now).unwrap();
        }
        assert_eq!(endpoint.counters.failed, 0, "a panic inside");
        assert!(endpoint.sizes().1 <= HALF_OPEN);
    }
});
