//! One QUIC connection.
//!
//! Contract of every call, as in the core: mutate, then drain `poll_event` and `transmit` until each gives nothing,
//! then arm one timer from `timer`. `now` is nanoseconds and never decreases; one that does is taken as the last.
//!
//! A panic in the core ends this connection (`Closed`, code 1) and nothing else: every entry goes through
//! [`Connection::guarded`].
//!
//! Here: how it is made, guarded, timed and closed. `datagrams`: its bytes in and out; `news`: what the core says.
//! Its streams are in [`crate::streams`], its path in [`crate::paths`].

mod datagrams;
mod news;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use noq_proto as proto;
use proto::{ConnectionHandle, PathId, Side, StreamId, VarInt};

use crate::events::Event;
use crate::gauge::Gauge;
use crate::outbox::Outbox;
use crate::reassembly::Inbox;
use crate::settings::Settings;
use crate::tls::{Client, Server};
use crate::watch::{Opened, Watched};
use crate::{clock, invalid, Checked, InvalidInput};

/// The other end of a connection whose paths are the caller's: migration is off, the address never changes.
pub const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 4433);
/// How soon a connection that gets no credit for want of memory is looked at again, in nanoseconds.
const LOOK_AGAIN: u64 = 100_000_000;
/// Code of a connection that a panic in the core ended (INTERNAL_ERROR, RFC 9000, section 20.1).
const INTERNAL_ERROR: u64 = 1;

pub use datagrams::{Batch, Received};

type SharedEndpoint = Arc<Mutex<proto::Endpoint>>;

/// A lock that a panic elsewhere does not take from us.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// One connection, client's or server's.
pub struct Connection {
    pub(crate) endpoint: SharedEndpoint,
    pub(crate) handle: Option<ConnectionHandle>,
    pub(crate) core: Option<proto::Connection>,
    pub(crate) settings: Settings,
    pub(crate) side: Side,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) opened: Arc<Opened>,
    pub(crate) now: u64,
    /// Bytes that a datagram may have, as the last `resize` said.
    pub(crate) allowed: usize,
    pub(crate) events: VecDeque<Event>,
    pub(crate) inboxes: BTreeMap<u64, Inbox>,
    pub(crate) outboxes: BTreeMap<u64, Outbox>,
    pub(crate) turns: VecDeque<u64>,
    pub(crate) resets: VecDeque<u64>,
    pub(crate) stalled: BTreeSet<StreamId>,
    pub(crate) opened_by_us: [u64; 2],
    pub(crate) opened_by_peer: [u64; 2],
    pub(crate) unread: u64,
    pub(crate) window: u64,
    /// No credit is given because the process has no memory left: look again soon.
    pub(crate) held_back: bool,
    pub(crate) replies: VecDeque<Vec<u8>>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) closed: bool,
    pub(crate) drained: bool,
}

impl Connection {
    /// Calls a server whose packets all come through the caller.
    pub fn connect(client: &Client, settings: &Settings, now: u64) -> Checked<Self> {
        let now = clock::checked(now)?;
        let (gauge, opened) = (Gauge::new(), Arc::new(Opened::default()));
        let tls = Watched { inner: client.quic()?, opened: opened.clone() };
        let mut config = proto::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(settings.transport(gauge.clone())?));
        let mut endpoint = proto::Endpoint::new(Arc::new(settings.endpoint()?), None, true);
        let (handle, core) = endpoint
            .connect(clock::instant(now), config, PEER, &client.server_name)
            .map_err(|e| InvalidInput(e.to_string()))?;
        let endpoint = Arc::new(Mutex::new(endpoint));
        let mut connection = Self::new(endpoint, Side::Client, settings.clone(), gauge, opened, now);
        connection.adopt(handle, core);
        Ok(connection)
    }

    /// Waits for the one client whose packets will be given to `receive`.
    pub fn accept(server: &Server, settings: &Settings, now: u64) -> Checked<Self> {
        let now = clock::checked(now)?;
        let (gauge, opened) = (Gauge::new(), Arc::new(Opened::default()));
        let tls = Watched { inner: server.quic()?, opened: opened.clone() };
        let mut config = proto::ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::new(settings.transport(gauge.clone())?)).migration(false).max_incoming(1);
        let endpoint = proto::Endpoint::new(Arc::new(settings.endpoint()?), Some(Arc::new(config)), true);
        Ok(Self::new(Arc::new(Mutex::new(endpoint)), Side::Server, settings.clone(), gauge, opened, now))
    }

    /// One of many on an endpoint's socket.
    pub(crate) fn of_endpoint(
        endpoint: SharedEndpoint,
        settings: Settings,
        gauge: Arc<Gauge>,
        now: u64,
        core: (ConnectionHandle, proto::Connection),
    ) -> Self {
        let mut connection = Self::new(endpoint, Side::Server, settings, gauge, Arc::default(), now);
        connection.adopt(core.0, core.1);
        connection
    }

    fn new(
        endpoint: SharedEndpoint,
        side: Side,
        settings: Settings,
        gauge: Arc<Gauge>,
        opened: Arc<Opened>,
        now: u64,
    ) -> Self {
        Self {
            endpoint,
            handle: None,
            core: None,
            side,
            gauge,
            opened,
            now,
            allowed: usize::from(settings.size),
            events: VecDeque::new(),
            inboxes: BTreeMap::new(),
            outboxes: BTreeMap::new(),
            turns: VecDeque::new(),
            resets: VecDeque::new(),
            stalled: BTreeSet::new(),
            opened_by_us: [0; 2],
            opened_by_peer: [0; 2],
            unread: 0,
            window: settings.connection_window,
            held_back: false,
            replies: VecDeque::new(),
            scratch: Vec::new(),
            closed: false,
            drained: false,
            settings,
        }
    }

    fn adopt(&mut self, handle: ConnectionHandle, core: proto::Connection) {
        self.handle = Some(handle);
        self.core = Some(core);
        self.guarded((), Self::pump);
    }

    // ---- guarding ----

    /// Every entry into the core. A panic there ends this connection; `otherwise` is what the call gives then.
    pub(crate) fn guarded<R>(&mut self, otherwise: R, f: impl FnOnce(&mut Self) -> R) -> R {
        match catch_unwind(AssertUnwindSafe(|| f(self))) {
            Ok(value) => value,
            Err(_) => {
                self.fail();
                otherwise
            }
        }
    }

    fn fail(&mut self) {
        if let Some(core) = self.core.take() {
            // its destructor runs on the state that the panic left behind
            drop(catch_unwind(AssertUnwindSafe(|| drop(core))));
        }
        if let Some(handle) = self.handle.take() {
            let endpoint = self.endpoint.clone();
            let forget = move || locked(&endpoint).handle_event(handle, proto::EndpointEvent::drained());
            drop(catch_unwind(AssertUnwindSafe(forget)));
        }
        self.end(INTERNAL_ERROR, "internal error".into(), true);
        self.drained = true;
    }

    pub(crate) fn at(&mut self, now: u64) -> Checked<Instant> {
        self.now = clock::checked(now)?.max(self.now);
        Ok(clock::instant(self.now))
    }

    /// When `handle_timer` wants to be called, in nanoseconds.
    pub fn timer(&mut self) -> Option<u64> {
        if self.drained {
            return None;
        }
        let due = self.guarded(None, |c| c.core.as_ref()?.poll_timeout().map(clock::deadline));
        let again = self.held_back.then_some(self.now + LOOK_AGAIN);
        due.into_iter().chain(again).min()
    }

    pub fn handle_timer(&mut self, now: u64) -> Checked<()> {
        let now = self.at(now)?;
        self.guarded((), |c| {
            if let Some(core) = c.core.as_mut() {
                core.handle_timeout(now);
            }
            c.pump();
        });
        Ok(())
    }

    /// What happened next, if anything did.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Ends the connection.
    pub fn close(&mut self, code: u64, reason: &str, now: u64) -> Checked<()> {
        let now = self.at(now)?;
        let Ok(code) = VarInt::from_u64(code) else {
            return invalid("code is below 2**62");
        };
        self.guarded((), |c| {
            if let Some(core) = c.core.as_mut() {
                core.close(now, code, Bytes::copy_from_slice(reason.as_bytes()));
            }
            c.end(code.into_inner(), reason.into(), true);
            c.pump();
        });
        Ok(())
    }

    /// Whether nothing will come of it any more, not even an answer to a late packet.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether its handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        !self.closed && self.core.as_ref().is_none_or(proto::Connection::is_handshaking)
    }

    /// Where its peer is now.
    pub fn address(&self) -> Option<SocketAddr> {
        Some(self.core.as_ref()?.network_path(PathId::ZERO).ok()?.remote())
    }
}

/// The stream's id as it is on the wire.
pub(crate) fn number(id: StreamId) -> u64 {
    VarInt::from(id).into_inner()
}

#[cfg(test)]
mod tests {
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
            let [Event::Closed { code: INTERNAL_ERROR, ours: true, .. }] = &events(&mut connection)[..] else {
                panic!()
            };
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
}
