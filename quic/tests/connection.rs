//! Two connections face to face, in virtual time, without a link between them.

mod link;

use std::collections::VecDeque;

use link::certified;
use warren_quic::connection::{Batch, Connection, Received};
use warren_quic::events::Event;
use warren_quic::paths::PathChange;
use warren_quic::settings::Settings;
use warren_quic::tls::{Client, Server};

const MS: u64 = 1_000_000;
const HEADER: &[u8] = b"\x01CIRCUIT";

struct Pair {
    ends: [Connection; 2],
    now: u64,
    events: [Vec<Event>; 2],
}

fn settings() -> Settings {
    Settings { size: 1444, datagrams: true, ..Settings::default() }
}

fn framed(batch: &Batch) -> Vec<u8> {
    batch.bytes.chunks(batch.stride).flat_map(|d| [HEADER, d].concat()).collect()
}

impl Pair {
    fn new(settings: &Settings) -> Self {
        let (client, server) = certified();
        Self {
            ends: [Connection::connect(client, settings, 0).unwrap(), Connection::accept(server, settings, 0).unwrap()],
            now: 0,
            events: [vec![], vec![]],
        }
    }

    fn connected(settings: &Settings) -> Self {
        let mut pair = Self::new(settings);
        pair.settle();
        for side in 0..2 {
            assert!(matches!(pair.events[side][0], Event::Connected { .. }), "{:?}", pair.events[side]);
            pair.events[side].clear();
        }
        pair
    }

    fn out(&mut self, side: usize) -> Option<Batch> {
        self.ends[side].transmit(self.now, HEADER.len(), 44).unwrap()
    }

    fn give(&mut self, side: usize, batch: &Batch) -> Received {
        let received = self.ends[side].receive(&framed(batch), batch.stride + HEADER.len(), HEADER, self.now).unwrap();
        while let Some(event) = self.ends[side].poll_event() {
            self.events[side].push(event);
        }
        received
    }

    /// Exchanges everything there is, in steps of 5 ms, until both are quiet.
    fn settle(&mut self) {
        for _ in 0..400 {
            self.step(|_, _| true);
        }
    }

    /// 5 ms in which those datagrams pass that `passes` lets pass.
    fn step(&mut self, mut passes: impl FnMut(usize, &[u8]) -> bool) {
        self.now += 5 * MS;
        for side in 0..2 {
            if self.ends[side].timer().is_some_and(|t| t <= self.now) {
                self.ends[side].handle_timer(self.now).unwrap();
            }
            while let Some(batch) = self.out(side) {
                for datagram in batch.bytes.chunks(batch.stride).filter(|d| passes(side, d)) {
                    let one = Batch { bytes: datagram.to_vec(), stride: datagram.len(), to: batch.to };
                    self.give(1 - side, &one);
                }
            }
            while let Some(event) = self.ends[side].poll_event() {
                self.events[side].push(event);
            }
        }
    }

    fn read(&mut self, side: usize, stream: u64) -> usize {
        self.ends[side].read(stream, usize::MAX).unwrap().iter().map(|p| p.len()).sum()
    }
}

#[test]
fn the_handshake_agrees_and_is_post_quantum() {
    let mut pair = Pair::new(&settings());
    pair.settle();
    let Event::Connected { alpn, certificate, group } = &pair.events[0][0] else { panic!() };
    assert_eq!((alpn.as_slice(), group.as_str()), (&b"test"[..], "X25519MLKEM768"));
    assert!(certificate.as_ref().is_some_and(|c| c.len() > 100));
    let Event::Connected { certificate: None, .. } = &pair.events[1][0] else { panic!() };
}

#[test]
fn a_server_under_another_root_or_name_is_refused() {
    let (_, server) = certified();
    let other = rcgen::generate_simple_self_signed(vec!["a.test".into()]).unwrap().cert.pem();
    let client = Client::new("a.test", other.as_bytes(), b"test").unwrap();
    let mut pair = Pair::new(&settings());
    pair.ends =
        [Connection::connect(&client, &settings(), 0).unwrap(), Connection::accept(server, &settings(), 0).unwrap()];
    pair.settle();
    let closed = |e: &Event| matches!(e, Event::Closed { code: 0x100..=0x1ff, .. });
    assert!(pair.events[0].iter().any(closed), "{:?}", pair.events[0]);
    assert!(pair.events[1].is_empty(), "the core keeps this to itself: README, what is not there");
}

#[test]
fn no_datagram_clears_the_quic_bit() {
    let mut pair = Pair::new(&settings());
    let (mut seen, mut stream) = (0, None);
    let mut look = |datagram: &[u8]| {
        assert_eq!(datagram[0] & 0x40, 0x40, "the QUIC bit (RFC 9000, section 17)");
        assert!(datagram[0] & 0x80 == 0 || datagram[1..5] == [0, 0, 0, 1], "a long header of version 1");
        assert_ne!(datagram[0] & 0xb0, 0x90, "0-RTT");
        seen += 1;
    };
    for n in 0..400 {
        stream = stream.or_else(|| pair.ends[0].open_stream(true));
        if let Some(stream) = stream {
            pair.ends[0].write(stream, &[0; 3000]).unwrap();
            pair.ends[0].send_datagram(b"beside");
        }
        if n == 300 {
            pair.ends[0].close(7, "", pair.now).unwrap();
        }
        // one in nine is lost, so that there are probes and repetitions too
        let mut number = n;
        pair.step(|_, datagram| {
            look(datagram);
            number += 1;
            number % 9 != 0
        });
    }
    assert!(seen > 1000, "{seen}");
}

#[test]
fn duplicates_and_late_packets_are_told_from_new_ones() {
    let mut pair = Pair::connected(&settings());
    let stream = pair.ends[0].open_stream(false).unwrap();
    let write = |pair: &mut Pair| {
        pair.ends[0].write(stream, b"some bytes").unwrap();
        pair.now += 5 * MS;
        pair.out(0).unwrap()
    };
    let (first, second) = (write(&mut pair), write(&mut pair));
    let got = pair.give(1, &second);
    assert!(got.authenticated && got.newest);
    let got = pair.give(1, &first);
    assert!(got.authenticated && !got.newest, "late");
    let got = pair.give(1, &second);
    assert!(!got.authenticated && !got.newest, "a duplicate");
    let mut forged = write(&mut pair);
    let last = forged.bytes.len() - 1;
    forged.bytes[last] ^= 1;
    assert_eq!(pair.give(1, &forged), Received::default());
}

#[test]
fn runs_of_other_headers_come_back() {
    let mut pair = Pair::connected(&settings());
    let segments: [&[u8]; 6] = [b"AAAAAAAA1", b"AAAAAAAA2", b"BBBBBBBB3", b"\x01CIRCUIT4", b"BBBBBBBB5", b"short"];
    let got = pair.ends[1].receive(&segments.concat(), 9, HEADER, pair.now).unwrap();
    assert_eq!(got.foreign, [(0, 18), (18, 27), (36, 45), (45, 50)]);
}

#[test]
fn any_bytes_are_taken() {
    let mut pair = Pair::connected(&settings());
    let mut noise = 1u32;
    for size in 0..1500 {
        let junk: Vec<u8> = (0..size)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        for stride in [0, 1, 7, 1444] {
            pair.ends[1].receive(&junk, stride, b"", pair.now).unwrap();
        }
    }
    assert!(!pair.ends[1].has_events());
}

#[test]
fn arguments_are_checked_before_the_core_can_assert() {
    let mut pair = Pair::connected(&settings());
    let unidirectional = pair.ends[0].open_stream(false).unwrap();
    pair.ends[0].write(unidirectional, b"x").unwrap();
    pair.settle();
    let c = &mut pair.ends[0];
    for stream in [1 << 62, u64::MAX, 400, 1, 3] {
        assert!(c.write(stream, b"x").is_err(), "{stream}");
        assert!(c.read(stream, 1).is_err());
        assert!(c.finished(stream).is_err());
        assert!(c.finish(stream).is_err());
        assert!(c.reset(stream, 0).is_err());
        assert!(c.stop(stream, 0).is_err());
        assert!(c.set_priority(stream, 0).is_err());
    }
    assert!(c.read(unidirectional, 1).is_err());
    assert!(c.stop(unidirectional, 1).is_err());
    assert!(c.reset(unidirectional, u64::MAX).is_err());
    assert!(c.close(1 << 62, "", pair.now).is_err());
    assert!(c.resize(1199).is_err() && c.resize(1445).is_err());
    assert!(c.transmit(pair.now, 8, 0).is_err());
    assert!(c.transmit(u64::MAX, 8, 1).is_err());
    assert!(c.receive(b"", 0, b"", u64::MAX).is_err());
    assert!(pair.ends[1].write(unidirectional, b"x").is_err());
    assert_eq!(pair.read(1, unidirectional), 1);
}

#[test]
fn five_thousand_small_packets_behind_a_gap_arrive() {
    let mut pair = Pair::connected(&settings());
    let stream = pair.ends[0].open_stream(false).unwrap();
    let mut number = 0;
    for n in 0..5000u32 {
        pair.ends[0].write(stream, &n.to_be_bytes()).unwrap();
        pair.step(|side, _| {
            number += u32::from(side == 0);
            side != 0 || number != 5
        });
    }
    pair.settle();
    assert_eq!(pair.read(1, stream), 20_000);
}

#[test]
fn credit_follows_the_reading() {
    let small = Settings { connection_window: 256 << 10, ..settings() };
    let mut pair = Pair::connected(&small);
    let stream = pair.ends[0].open_stream(false).unwrap();
    let mut written = 0;
    for _ in 0..200 {
        written += pair.ends[0].write(stream, &[1; 100_000]).unwrap();
        pair.step(|_, _| true);
    }
    let unread = pair.ends[1].statistics().unread;
    assert!((200 << 10..400 << 10).contains(&unread), "{unread} unread, {written} written");
    let mut read = 0;
    for _ in 0..2000 {
        read += pair.read(1, stream);
        pair.step(|_, _| true);
    }
    assert_eq!(read, written, "it goes on as soon as there is room");
}

#[test]
fn a_stream_that_waits_does_not_take_anothers_room() {
    let mut pair = Pair::connected(&settings());
    let (bulk, small) = (pair.ends[0].open_stream(false).unwrap(), pair.ends[0].open_stream(false).unwrap());
    while pair.ends[0].write(bulk, &[0; 200_000]).unwrap() == 200_000 {}
    assert_eq!(pair.ends[0].write(small, b"in between").unwrap(), 10);
    for _ in 0..400 {
        pair.step(|_, _| true);
    }
    assert_eq!(pair.read(1, small), 10);
    assert!(pair.events[0].contains(&Event::Writable { stream: bulk }));
}

#[test]
fn streams_end_are_reset_and_stopped() {
    let mut pair = Pair::connected(&settings());
    let [ended, reset, stopped] = [0; 3].map(|_| pair.ends[0].open_stream(true).unwrap());
    for stream in [ended, reset, stopped] {
        pair.ends[0].write(stream, b"abc").unwrap();
    }
    pair.ends[0].finish(ended).unwrap();
    pair.settle();
    assert!(!pair.ends[1].finished(ended).unwrap(), "not all is read");
    assert_eq!(pair.read(1, ended), 3);
    assert!(pair.ends[1].finished(ended).unwrap());
    pair.ends[0].reset(reset, 7).unwrap();
    pair.ends[1].stop(stopped, 9).unwrap();
    pair.settle();
    assert!(pair.events[1].contains(&Event::Reset { stream: reset, code: 7 }));
    assert!(!pair.ends[1].finished(reset).unwrap());
    assert!(pair.events[0].contains(&Event::Stopped { stream: stopped, code: 9 }));
    assert_eq!(pair.ends[0].write(stopped, b"x").unwrap(), 0);
    assert_eq!(pair.ends[0].write(reset, b"x").unwrap(), 0);
    assert_eq!(pair.ends[0].write(ended, b"x").unwrap(), 0);
}

#[test]
fn datagrams_are_bounded_in_queue_and_size() {
    let mut pair = Pair::connected(&settings());
    let room = pair.ends[0].datagram_room();
    assert!((1380..1444).contains(&room), "{room}");
    assert!(!pair.ends[0].send_datagram(&vec![0; room + 1]));
    let mut queued = 0;
    while pair.ends[0].send_datagram(&[1; 1000]) {
        queued += 1;
    }
    assert!((50..=65).contains(&queued), "{queued}");
    pair.settle();
    let mut read = 0;
    while pair.ends[1].read_datagram().is_some() {
        read += 1;
    }
    assert_eq!(read, queued);
    pair.ends[0].resize(1224).unwrap();
    assert_eq!(pair.ends[0].datagram_room(), room - 220);
}

#[test]
fn a_full_queue_of_datagrams_drops_what_the_settings_say() {
    for drop_oldest in [false, true] {
        let mut pair = Pair::connected(&Settings { drop_oldest, datagram_queue: 5000, ..settings() });
        let queued: Vec<bool> = (0..20u8).map(|n| pair.ends[0].send_datagram(&[n; 1000])).collect();
        pair.settle();
        let read: Vec<u8> = std::iter::from_fn(|| pair.ends[1].read_datagram()).map(|d| d[0]).collect();
        let many = read.len() as u8;
        assert!((4..=5).contains(&many), "{read:?}");
        if drop_oldest {
            assert!(queued.iter().all(|q| *q));
            assert_eq!(read, (20 - many..20).collect::<Vec<_>>());
        } else {
            assert_eq!(read, (0..many).collect::<Vec<_>>());
            assert_eq!(queued.iter().filter(|q| **q).count(), read.len());
        }
    }
}

#[test]
fn streams_of_a_higher_priority_go_first() {
    let mut pair = Pair::connected(&settings());
    let [low, high] = [0; 2].map(|_| pair.ends[0].open_stream(false).unwrap());
    pair.ends[0].set_priority(high, 5).unwrap();
    for stream in [low, high] {
        assert!(pair.ends[0].write(stream, &[0; 60_000]).unwrap() > 0);
    }
    pair.step(|_, _| true);
    pair.step(|_, _| true);
    let (behind, ahead) = (pair.read(1, low), pair.read(1, high));
    assert!(ahead > 2 * behind, "{ahead} bytes of the high one, {behind} of the other");
}

#[test]
fn after_a_silence_a_path_that_is_back_is_used_at_once() {
    for kind in [PathChange::Resumed, PathChange::Rebound, PathChange::Moved] {
        let mut pair = Pair::connected(&settings());
        let stream = pair.ends[0].open_stream(false).unwrap();
        for _ in 0..2000 {
            pair.ends[0].write(stream, &[0; 10_000]).unwrap();
            pair.step(|_, _| false);
        }
        assert!(pair.ends[0].in_flight());
        pair.ends[0].path_changed(pair.now, kind).unwrap();
        assert_eq!(pair.ends[0].sampled(), kind != PathChange::Moved);
        let probe = pair.out(0).expect("past the window");
        assert!(pair.give(1, &probe).authenticated);
        for _ in 0..40 {
            pair.step(|_, _| true);
        }
        assert!(pair.read(1, stream) > 10_000, "{kind:?}");
        assert!(pair.ends[0].sampled());
    }
}

#[test]
fn a_probe_after_a_silence_is_no_burst() {
    let mut pair = Pair::connected(&settings());
    let stream = pair.ends[0].open_stream(false).unwrap();
    pair.ends[0].write(stream, b"lost").unwrap();
    while pair.out(0).is_some() {}
    pair.now += 20_000 * MS; // asleep: nobody calls the timer
    pair.ends[0].probe(pair.now).unwrap();
    let sent: usize = std::iter::from_fn(|| pair.out(0)).map(|b| b.bytes.len().div_ceil(b.stride)).sum();
    assert!((1..=3).contains(&sent), "{sent} datagrams");
}

#[test]
fn a_smaller_size_is_kept_and_a_larger_one_found() {
    let mut pair = Pair::connected(&Settings { size: 1392, ..settings() });
    let stream = pair.ends[0].open_stream(false).unwrap();
    let mut largest = [0; 2];
    let run = |pair: &mut Pair, steps: usize, bound: usize| {
        let mut seen = 0;
        for _ in 0..steps {
            pair.ends[0].write(stream, &[0; 20_000]).unwrap();
            pair.step(|side, datagram| {
                assert!(side == 1 || datagram.len() <= bound);
                seen = seen.max(if side == 0 { datagram.len() } else { 0 });
                true
            });
            pair.read(1, stream);
        }
        seen
    };
    largest[0] = run(&mut pair, 100, 1392);
    pair.ends[0].resize(1224).unwrap();
    run(&mut pair, 1000, 1224);
    assert!(pair.ends[0].statistics().size <= 1224, "{}", pair.ends[0].statistics().size);
    pair.ends[0].resize(1444).unwrap();
    largest[1] = run(&mut pair, 30_000, 1444);
    assert_eq!(largest, [1392, 1444]);
}

/// At 50 ms, 20 kB written every so many ms, the path begins to take less; `told` ms later the sender is told so. How
/// long from then until 10 kB have arrived, with every `lost`th datagram lost (0: none).
fn time_to_shrink(lost: usize, told: u64, every: u64) -> u64 {
    let mut pair = Pair::connected(&settings());
    let stream = pair.ends[0].open_stream(false).unwrap();
    let mut way: VecDeque<(u64, usize, Batch)> = VecDeque::new();
    let (mut count, mut shrunk, mut read) = (0, None, 0);
    for tick in 0..8000u64 {
        pair.now += MS;
        if tick == 2000 + told {
            shrunk = Some(pair.now);
            pair.ends[0].resize(1224).unwrap();
            read = 0;
        }
        if tick >= 2000 {
            way.retain(|sent| sent.2.bytes.len() <= 1224);
        }
        while way.front().is_some_and(|sent| sent.0 <= pair.now) {
            let (_, to, datagram) = way.pop_front().unwrap();
            pair.give(to, &datagram);
        }
        if tick % every == 0 {
            pair.ends[0].write(stream, &[7; 20_000]).unwrap();
        }
        for side in 0..2 {
            if pair.ends[side].timer().is_some_and(|t| t <= pair.now) {
                pair.ends[side].handle_timer(pair.now).unwrap();
            }
            while let Some(batch) = pair.out(side) {
                for datagram in batch.bytes.chunks(batch.stride) {
                    count += 1;
                    assert!(side == 1 || shrunk.is_none() || datagram.len() <= 1224);
                    if lost == 0 || count % lost != 0 {
                        let one = Batch { bytes: datagram.to_vec(), stride: datagram.len(), to: batch.to };
                        way.push_back((pair.now + 25 * MS, 1 - side, one));
                    }
                }
            }
        }
        read += if tick > 100 { pair.read(1, stream) } else { 0 }; // it has to be there first
        if let Some(at) = shrunk.filter(|_| read > 10_000) {
            return (pair.now - at) / MS;
        }
    }
    panic!("{read} bytes in six seconds");
}

#[test]
fn a_smaller_size_is_in_effect_within_round_trips() {
    for (lost, told, every) in
        [(0, 0, 1), (0, 0, 100), (0, 300, 100), (0, 0, 400), (0, 100, 400), (0, 300, 400), (31, 300, 100)]
    {
        let took = time_to_shrink(lost, told, every);
        assert!(took <= 300, "{took} ms: one in {lost} lost, told after {told}, 20 kB every {every}");
    }
}

#[test]
fn closing_is_told_to_both() {
    let mut pair = Pair::connected(&settings());
    pair.ends[0].close(5, "enough", pair.now).unwrap();
    pair.settle();
    let closed = |ours| Event::Closed { code: 5, reason: "enough".into(), ours };
    assert_eq!(pair.events[0].last(), Some(&closed(true)));
    assert_eq!(pair.events[1].last(), Some(&closed(false)));
    let stream = pair.ends[0].open_stream(true);
    assert_eq!(stream, None);
    assert!(pair.ends[0].is_drained());
    assert_eq!(pair.ends[0].timer(), None);
}

#[test]
fn idleness_ends_and_keeping_alive_prevents_it() {
    for (keep_alive, over) in [(0.0, true), (3.0, false)] {
        let mut pair = Pair::connected(&Settings { idle_timeout: 10.0, keep_alive, ..settings() });
        for _ in 0..4000 {
            pair.step(|_, _| true);
        }
        assert_eq!(pair.events[0].iter().any(|e| matches!(e, Event::Closed { .. })), over);
    }
}

#[test]
fn a_leaf_that_may_sign_others_is_refused() {
    let root_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut root = rcgen::CertificateParams::new(vec![]).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(root, root_key);
    for is_ca in [false, true] {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap();
        if is_ca {
            leaf.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let client = Client::new("a.test", root_pem.as_bytes(), b"test").unwrap();
        let server = Server::new(leaf.pem().as_bytes(), key.serialize_pem().as_bytes(), &[b"test"]).unwrap();
        let mut pair = Pair::new(&settings());
        pair.ends = [
            Connection::connect(&client, &settings(), 0).unwrap(),
            Connection::accept(&server, &settings(), 0).unwrap(),
        ];
        pair.settle();
        let refused = matches!(pair.events[0][0], Event::Closed { code: 0x100..=0x1ff, .. });
        assert_eq!(refused, is_ca, "{:?}", pair.events[0]);
    }
}
