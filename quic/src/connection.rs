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
#[cfg(test)]
mod tests;

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
    /// How many datagrams that are too large for a new `allowed` are yet to be made known to the core one by one.
    pub(crate) signs: u8,
    /// How many of the next datagrams leave one by one.
    pub(crate) probes: u8,
    /// Since when something that has to be acknowledged has come, with nothing sent since.
    pub(crate) owed: Option<u64>,
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
            signs: 0,
            probes: 0,
            owed: None,
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
        due.into_iter().chain(again).chain(self.overdue()).min()
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
