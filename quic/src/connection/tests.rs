//! What only the inside can do: a panic, and a peer who has the keys and means harm.

use super::*;
use crate::endpoint::Endpoint;

const MS: u64 = 1_000_000;

fn certified() -> (Client, Server) {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".into()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let client = Client::new("a.test", certificate.as_bytes(), b"test").unwrap();
    (client, Server::new(certificate.as_bytes(), key.as_bytes(), &[b"test"]).unwrap())
}

/// 5 ms at a time between clients and the endpoint; `from` tells the clients apart.
fn exchange(clients: &mut [Connection], endpoint: &mut Endpoint, start: u64) -> u64 {
    let from = |i: usize| SocketAddr::from(([192, 0, 2, 9], 1000 + i as u16));
    let mut now = start;
    for _ in 0..40 {
        now += 5 * MS;
        for (i, client) in clients.iter_mut().enumerate() {
            client.handle_timer(now).unwrap();
            while let Some(made) = client.transmit(now, 0, 8).unwrap() {
                endpoint.receive(&made.bytes, made.stride, from(i), now).unwrap();
            }
        }
        endpoint.handle_timer(now).unwrap();
        while let Some(made) = endpoint.transmit(now, 8).unwrap() {
            let to = usize::from(made.to.port() - 1000);
            clients[to].receive(&made.bytes, made.stride, b"", now).unwrap();
        }
    }
    now
}

/// Two ends that are connected.
fn pair(settings: &Settings) -> ([Connection; 2], u64) {
    let (client, server) = certified();
    let mut ends =
        [Connection::connect(&client, settings, 0).unwrap(), Connection::accept(&server, settings, 0).unwrap()];
    for now in (0..20).map(|n| n * 5 * MS) {
        for side in 0..2 {
            ends[side].handle_timer(now).unwrap();
            while let Some(made) = ends[side].transmit(now, 0, 8).unwrap() {
                ends[1 - side].receive(&made.bytes, made.stride, b"", now).unwrap();
            }
        }
    }
    ends.iter_mut().for_each(|e| drop(events(e)));
    (ends, 100 * MS)
}

/// A STREAM frame with offset and length (RFC 9000, section 19.8) on the client's first stream.
fn stream_frame(offset: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x0e, 0x00];
    frame.extend((offset | 0x8000_0000).to_be_bytes());
    frame.extend((bytes.len() as u16 | 0x4000).to_be_bytes());
    frame.extend(bytes);
    frame
}

/// Has the server believe that the client's next packet carried these frames.
fn forge(ends: &mut [Connection; 2], now: u64, frames: Vec<u8>) {
    ends[0].probe(now).unwrap();
    let made = ends[0].transmit(now, 0, 1).unwrap().unwrap();
    crate::watch::fuzzing::TAMPER.set(Some((0, frames)));
    ends[1].receive(&made.bytes, made.stride, b"", now).unwrap();
    crate::watch::fuzzing::TAMPER.set(None);
    // what the server answers stays on the way: the client would not know what it acknowledges
    while ends[1].transmit(now, 0, 8).unwrap().is_some() {}
}

#[test]
fn ten_megabytes_behind_one_loss_arrive() {
    let (mut ends, mut now) = pair(&Settings::default());
    let mut offset = 1;
    while offset < 10 << 20 {
        now += MS / 10;
        forge(&mut ends, now, stream_frame(offset, &[1; 1100]));
        offset += 1100;
    }
    assert_eq!(ends[1].read(0, usize::MAX).unwrap().len(), 0);
    assert_eq!(ends[1].unread, u64::from(offset) - 1);
    forge(&mut ends, now, stream_frame(0, b"x"));
    let read: usize = ends[1].read(0, usize::MAX).unwrap().iter().map(|p| p.len()).sum();
    assert_eq!(read, offset as usize);
    assert!(!ends[1].closed);
}

#[test]
fn gaps_on_purpose_cost_the_peer_its_own_connection() {
    let (mut ends, mut now) = pair(&Settings::default());
    let mut packets = 0;
    while !ends[1].closed {
        let frames = (0..100u32).flat_map(|n| stream_frame(2 * (100 * packets + n) + 1, b"x")).collect();
        packets += 1;
        now += MS;
        forge(&mut ends, now, frames);
        assert!(packets <= 83, "8,200 gaps");
    }
    assert!(packets > 80);
    let closed = |e: &Event| matches!(e, Event::Closed { code: 3, ours: true, .. });
    assert!(events(&mut ends[1]).iter().any(closed));
    assert!(ends[1].inboxes.is_empty() && ends[1].unread == 0, "what it held is given back");
}

#[test]
fn bytes_behind_a_gap_are_bounded_by_the_credit() {
    let settings = Settings { connection_window: 256 << 10, ..Settings::default() };
    let (mut ends, mut now) = pair(&settings);
    let mut offset = 1;
    while !ends[1].closed {
        now += MS;
        forge(&mut ends, now, stream_frame(offset, &[0; 1100]));
        offset += 1100;
        assert!(offset < 1 << 20, "the credit was 256 KiB");
    }
    assert!(offset > 200 << 10);
}

fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

#[test]
fn a_panic_ends_its_own_connection_and_nothing_else() {
    let (client, server) = certified();
    let settings = Settings::default();
    let mut clients = [0, 1].map(|_| Connection::connect(&client, &settings, 0).unwrap());
    let mut endpoint = Endpoint::new(&server, &settings, false, 8, 0).unwrap();
    let now = exchange(&mut clients, &mut endpoint, 0);
    let [poisoned, sound] = [0, 1].map(|_| endpoint.accept().unwrap());
    {
        let mut connection = locked(&poisoned.1);
        assert!(matches!(events(&mut connection)[0], Event::Connected { .. }));
        connection.guarded((), |_| panic!("on purpose: a test"));
        let [Event::Closed { code: INTERNAL_ERROR, ours: true, .. }] = &events(&mut connection)[..] else { panic!() };
        assert!(connection.is_drained() && connection.timer().is_none());
        // every call goes on being answered
        assert_eq!(connection.open_stream(true), None);
        assert!(!connection.send_datagram(b"x"));
        assert_eq!(connection.transmit(now, 0, 1).unwrap(), None);
        assert_eq!(connection.receive(&[0x40; 50], 0, b"", now).unwrap(), Received::default());
        connection.close(0, "", now).unwrap();
    }
    endpoint.touch(poisoned.0);
    let stream = clients[1].open_stream(true).unwrap();
    clients[1].write(stream, b"still here").unwrap();
    let now = exchange(&mut clients, &mut endpoint, now);
    assert_eq!(endpoint.sizes(), (1, 0), "the poisoned one is forgotten");
    assert_eq!(locked(&sound.1).read(stream, 100).unwrap().concat(), b"still here");
    // its peer is told by a stateless reset, as soon as it says something
    let stream = clients[0].open_stream(true);
    assert!(stream.is_none() || clients[0].write(stream.unwrap(), &[0; 2000]).is_ok());
    exchange(&mut clients, &mut endpoint, now);
    let told = |e: &Event| matches!(e, Event::Closed { ours: false, reason, .. } if reason == "stateless reset");
    let heard = events(&mut clients[0]);
    assert!(heard.iter().any(told), "{heard:?}");
}

#[test]
fn a_panic_within_the_endpoints_lock_does_not_take_the_endpoint_along() {
    let (client, server) = certified();
    let settings = Settings::default();
    let mut clients = [0, 1].map(|_| Connection::connect(&client, &settings, 0).unwrap());
    let mut endpoint = Endpoint::new(&server, &settings, false, 8, 0).unwrap();
    let now = exchange(&mut clients, &mut endpoint, 0);
    let [poisoned, sound] = [0, 1].map(|_| endpoint.accept().unwrap().1);
    locked(&poisoned).guarded((), |c| {
        let _held = locked(&c.endpoint);
        panic!("on purpose: a test");
    });
    let stream = clients[1].open_stream(false).unwrap();
    clients[1].write(stream, b"still here").unwrap();
    exchange(&mut clients, &mut endpoint, now);
    assert_eq!(locked(&sound).read(stream, 100).unwrap().concat(), b"still here");
}

#[test]
fn a_full_window_holds_no_acknowledgement_back() {
    let (mut ends, now) = pair(&Settings::default());
    let mut sent: [Vec<Batch>; 2] = Default::default();
    for side in 0..2 {
        let stream = ends[side].open_stream(false).unwrap();
        while ends[side].write(stream, &[0; 65_536]).unwrap() > 0 {}
        // all of it, the pacer's share too; nothing arrives
        for tick in 0..40 {
            while let Some(made) = ends[side].transmit(now + tick * MS / 20, 0, 8).unwrap() {
                sent[side].push(made);
            }
        }
    }
    let [first, second] = &mut ends;
    let arrives = now + 3 * MS;
    for made in &sent[0] {
        assert!(second.receive(&made.bytes, made.stride, b"", arrives).unwrap().authenticated);
    }
    assert!(second.transmit(arrives, 0, 8).unwrap().is_none(), "its window is full");
    let (mut due, mut answer) = (arrives, None);
    while answer.is_none() {
        due = second.timer().unwrap();
        assert!(due <= arrives + 25 * MS, "{} ms", (due - arrives) / MS);
        second.handle_timer(due).unwrap();
        answer = second.transmit(due, 0, 8).unwrap();
    }
    let answer = answer.unwrap();
    assert!(answer.bytes.len() <= answer.stride, "one datagram, no probe");
    assert!(second.transmit(due, 0, 8).unwrap().is_none(), "and no more");
    let before = first.statistics().in_flight;
    first.receive(&answer.bytes, answer.stride, b"", due).unwrap();
    assert!(first.statistics().in_flight < before / 2, "{before} {}", first.statistics().in_flight);
}
