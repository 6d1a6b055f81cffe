//! Two ends that know each other, for the targets.

use std::sync::OnceLock;

use warren_quic::connection::Connection;
use warren_quic::events::Event;
use warren_quic::settings::Settings;
use warren_quic::tls::{Client, Server};

#[allow(dead_code)]
pub fn certified() -> &'static (Client, Server) {
    static MADE: OnceLock<(Client, Server)> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".into()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let client = Client::new("a.test", certificate.as_bytes(), b"fuzz").unwrap();
        (client, Server::new(certificate.as_bytes(), key.as_bytes(), &[b"fuzz"]).unwrap())
    })
}

#[allow(dead_code)]
pub fn ends() -> [Connection; 2] {
    let (client, server) = certified();
    let settings = Settings { datagrams: true, seed: Some(1), connection_window: 1 << 20, ..Settings::default() };
    [Connection::connect(client, &settings, 0).unwrap(), Connection::accept(server, &settings, 0).unwrap()]
}

/// Timers and events of both; what comes in is read. Only a panic inside closes with this code.
#[allow(dead_code)]
pub fn settle(ends: &mut [Connection; 2], now: u64) {
    for end in ends {
        if end.timer().is_some_and(|t| t <= now) {
            end.handle_timer(now).unwrap();
        }
        while let Some(event) = end.poll_event() {
            match event {
                Event::Closed { code: 1, ours: true, reason } if reason == "internal error" => {
                    panic!("a panic inside")
                }
                Event::Readable { stream } => drop(end.read(stream, 1000).unwrap()),
                Event::Datagrams => while end.read_datagram().is_some() {},
                _ => {}
            }
        }
        let used = warren_quic::reassembly::MEMORY.used();
        assert!(used < 64 << 20, "{used} bytes unread");
    }
}

/// Everything that both have to say, undisturbed.
#[allow(dead_code)]
pub fn exchange(ends: &mut [Connection; 2], now: &mut u64, rounds: usize) {
    for _ in 0..rounds {
        *now += 5_000_000;
        for side in 0..2 {
            while let Some(made) = ends[side].transmit(*now, 0, 8).unwrap() {
                ends[1 - side].receive(&made.bytes, made.stride, b"", *now).unwrap();
            }
        }
        settle(ends, *now);
    }
}
