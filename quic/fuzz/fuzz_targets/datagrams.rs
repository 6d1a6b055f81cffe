//! The door for datagrams: whatever comes in, nothing panics, and only its own connection may end.
//!
//! The input is a list of pieces, each with a first byte that says what to do with it: give it to the client or to the
//! server as it is, or lay it over a real datagram of the other side's.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use warren_quic::connection::Connection;
use warren_quic::events::Event;
use warren_quic::settings::Settings;
use warren_quic::tls::{Client, Server};

fn certified() -> &'static (Client, Server) {
    static MADE: OnceLock<(Client, Server)> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".into()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let client = Client::new("a.test", certificate.as_bytes(), b"fuzz").unwrap();
        (client, Server::new(certificate.as_bytes(), key.as_bytes(), &[b"fuzz"]).unwrap())
    })
}

fuzz_target!(|data: &[u8]| {
    let (client, server) = certified();
    let settings = Settings { datagrams: true, seed: Some(1), ..Settings::default() };
    let mut ends = [
        Connection::connect(client, &settings, 0).unwrap(),
        Connection::accept(server, &settings, 0).unwrap(),
    ];
    let mut now = 0;
    for piece in data.chunks(64) {
        now += 5_000_000;
        let (what, bytes) = (piece[0], &piece[1..]);
        let side = usize::from(what & 1);
        let made = ends[1 - side].transmit(now, 0, 4).unwrap();
        let mut datagram = if what & 2 == 0 { bytes.to_vec() } else { made.map_or(Vec::new(), |m| m.bytes) };
        if what & 4 != 0 {
            for (at, byte) in bytes.iter().enumerate() {
                let place = (usize::from(what >> 3) * 40 + at) % datagram.len().max(1);
                if let Some(target) = datagram.get_mut(place) {
                    *target ^= byte;
                }
            }
        }
        ends[side].receive(&datagram, 1200, b"", now).unwrap();
        for end in &mut ends {
            end.handle_timer(now).unwrap();
            while let Some(event) = end.poll_event() {
                assert!(!matches!(event, Event::Closed { code: 1, ours: true, .. }), "a panic inside: {event:?}");
            }
        }
    }
});
