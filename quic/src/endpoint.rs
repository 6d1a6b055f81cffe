//! Many server connections on one socket: ordinary QUIC, with migration and path validation.
//!
//! Limits on handshakes under way keep a flood from costing more than it pays for: from half of `half_open` on a Retry
//! asks for proof of the address (if so configured), from `half_open` on new ones are dropped and counted.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use noq_proto as proto;
use proto::{ConnectionHandle, DatagramEvent};

use crate::connection::{locked, Batch, Connection};
use crate::gauge::Gauge;
use crate::settings::{Settings, SMALLEST, VERSION};
use crate::tls::Server;
use crate::{clock, invalid, Checked};

/// Answers that belong to no connection (Retry, resets, version negotiation) and wait to be sent; more are dropped.
const REPLIES: usize = 256;
/// New connections that wait to be accepted by the owner; more are dropped.
const FRESH: usize = 4096;

/// How long a handshake may take, in nanoseconds.
const HANDSHAKE_TIME: u64 = 10_000_000_000;

/// A connection that its owner and the endpoint both hold.
pub type Shared = Arc<Mutex<Connection>>;

struct Slot {
    connection: Shared,
    name: u64,
    due: Option<u64>,
    /// In the list of those to be asked for datagrams.
    to_send: bool,
    /// In the list of those that may have events.
    active: bool,
    handshaking: bool,
}

/// What an endpoint counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were begun.
    pub accepted: u64,
    /// First packets that were answered by a Retry.
    pub retried: u64,
    /// First packets that were dropped: too many handshakes under way, or too many connections not yet accepted.
    pub dropped: u64,
    /// Handshakes that took too long.
    pub given_up: u64,
    /// Panics in the core outside any connection.
    pub failed: u64,
}

/// Many server connections on one socket.
pub struct Endpoint {
    core: Arc<Mutex<proto::Endpoint>>,
    server: Arc<proto::ServerConfig>,
    settings: Settings,
    retry: bool,
    half_open: usize,
    handshaking: usize,
    /// When each handshake began, oldest first; some may be over.
    begun: VecDeque<(u64, ConnectionHandle, u64)>,
    slots: HashMap<ConnectionHandle, Slot>,
    names: HashMap<u64, ConnectionHandle>,
    next_name: u64,
    fresh: VecDeque<(u64, Shared)>,
    to_send: VecDeque<ConnectionHandle>,
    active: VecDeque<u64>,
    timers: BTreeSet<(u64, ConnectionHandle)>,
    replies: VecDeque<(SocketAddr, Vec<u8>)>,
    scratch: Vec<u8>,
    now: u64,
    /// What was counted.
    pub counters: Counters,
}

/// RFC 9000, section 5.2.2: what could not begin a connection gets no version negotiation. The core does not look.
fn too_small_for_its_version(datagram: &[u8]) -> bool {
    let long = datagram.first().is_some_and(|first| first & 0x80 != 0);
    long && datagram.len() < usize::from(SMALLEST) && datagram.get(1..5) != Some(&VERSION.to_be_bytes()[..])
}

impl Endpoint {
    /// `half_open`: handshakes under way at once. `retry`: ask for a Retry from half of that on.
    pub fn new(server: &Server, settings: &Settings, retry: bool, half_open: usize, now: u64) -> Checked<Self> {
        if !(1..=1 << 20).contains(&half_open) {
            return invalid(format!("half_open is handshakes, from 1 to {}", 1 << 20));
        }
        let now = clock::checked(now)?;
        let mut config = proto::ServerConfig::with_crypto(Arc::new(server.quic()?));
        config.transport_config(Arc::new(settings.transport(Gauge::new())?)).migration(true);
        let config = Arc::new(config);
        let core = proto::Endpoint::new(Arc::new(settings.endpoint()?), Some(config.clone()), false);
        Ok(Self {
            core: Arc::new(Mutex::new(core)),
            server: config,
            settings: settings.clone(),
            retry,
            half_open,
            handshaking: 0,
            begun: VecDeque::new(),
            slots: HashMap::new(),
            names: HashMap::new(),
            next_name: 0,
            fresh: VecDeque::new(),
            to_send: VecDeque::new(),
            active: VecDeque::new(),
            timers: BTreeSet::new(),
            replies: VecDeque::new(),
            scratch: Vec::new(),
            now,
            counters: Counters::default(),
        })
    }

    /// Takes one buffer of datagrams, `stride` bytes each (0: one datagram), that came from `from`.
    pub fn receive(&mut self, buffer: &[u8], stride: usize, from: SocketAddr, now: u64) -> Checked<()> {
        self.now = clock::checked(now)?.max(self.now);
        let stride = if stride == 0 { buffer.len().max(1) } else { stride };
        for datagram in buffer.chunks(stride) {
            if catch_unwind(AssertUnwindSafe(|| self.datagram(datagram, from))).is_err() {
                self.counters.failed += 1;
            }
        }
        Ok(())
    }

    fn datagram(&mut self, datagram: &[u8], from: SocketAddr) {
        if too_small_for_its_version(datagram) {
            return;
        }
        self.scratch.clear();
        let now = clock::instant(self.now);
        let event = locked(&self.core).handle(now, from.into(), None, BytesMut::from(datagram), &mut self.scratch);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(slot) = self.slots.get(&handle) else { return };
                locked(&slot.connection).dispatched(event, self.now);
                self.stir(handle);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.incoming(incoming),
            Some(DatagramEvent::Response(response)) => self.reply(response),
            None => {}
        }
    }

    fn reply(&mut self, response: proto::Transmit) {
        if self.replies.len() < REPLIES {
            self.replies.push_back((response.destination, self.scratch[..response.size].to_vec()));
        }
    }

    fn incoming(&mut self, incoming: proto::Incoming) {
        let core = self.core.clone();
        if self.handshaking >= self.half_open || self.fresh.len() >= FRESH {
            self.counters.dropped += 1;
            return locked(&core).ignore(incoming);
        }
        let unproved = !incoming.remote_address_validated() && incoming.may_retry();
        if self.retry && unproved && self.handshaking >= self.half_open / 2 {
            self.counters.retried += 1;
            let retried = locked(&core).retry(incoming, &mut self.scratch);
            match retried {
                Ok(response) => self.reply(response),
                Err(refused) => locked(&core).ignore(refused.into_incoming()),
            }
            return;
        }
        self.begin(incoming);
    }

    fn begin(&mut self, incoming: proto::Incoming) {
        let (core, gauge) = (self.core.clone(), Gauge::new());
        let Ok(transport) = self.settings.transport(gauge.clone()) else {
            return locked(&core).ignore(incoming);
        };
        let mut config = (*self.server).clone();
        config.transport_config(Arc::new(transport));
        let now = clock::instant(self.now);
        let made = locked(&core).accept(incoming, now, &mut self.scratch, Some(Arc::new(config)));
        match made {
            Ok(made) => self.adopt(gauge, made),
            Err(error) => {
                if let Some(response) = error.response {
                    self.reply(response);
                }
            }
        }
    }

    fn adopt(&mut self, gauge: Arc<Gauge>, made: (ConnectionHandle, proto::Connection)) {
        let (handle, name) = (made.0, self.next_name);
        self.next_name += 1;
        self.counters.accepted += 1;
        self.handshaking += 1;
        let (core, settings) = (self.core.clone(), self.settings.clone());
        let connection = Connection::of_endpoint(core, settings, gauge, self.now, made);
        let connection = Arc::new(Mutex::new(connection));
        self.fresh.push_back((name, connection.clone()));
        self.names.insert(name, handle);
        let slot = Slot { connection, name, due: None, to_send: false, active: false, handshaking: true };
        self.slots.insert(handle, slot);
        self.begun.push_back((self.now + HANDSHAKE_TIME, handle, name));
        self.stir(handle);
    }

    /// Something happened to this connection: it may have datagrams and events.
    fn stir(&mut self, handle: ConnectionHandle) {
        let Some(slot) = self.slots.get_mut(&handle) else { return };
        if !slot.to_send {
            slot.to_send = true;
            self.to_send.push_back(handle);
        }
        if !slot.active {
            slot.active = true;
            self.active.push_back(slot.name);
        }
    }

    /// The next new connection and its name here. Its handshake may still be under way.
    pub fn accept(&mut self) -> Option<(u64, Shared)> {
        self.fresh.pop_front()
    }

    /// Something was written to or done with this connection: it will be looked at in `transmit`.
    pub fn touch(&mut self, name: u64) {
        if let Some(handle) = self.names.get(&name) {
            self.stir(*handle);
        }
    }

    /// The next connection that may have events since it was last named here.
    pub fn active(&mut self) -> Option<u64> {
        while let Some(name) = self.active.pop_front() {
            if let Some(slot) = self.names.get(&name).and_then(|handle| self.slots.get_mut(handle)) {
                slot.active = false;
                if locked(&slot.connection).has_events() {
                    return Some(name);
                }
            }
        }
        None
    }

    /// The next datagrams of any connection, and where to.
    pub fn transmit(&mut self, now: u64, segments: usize) -> Checked<Option<Batch>> {
        self.now = clock::checked(now)?.max(self.now);
        if let Some((to, bytes)) = self.replies.pop_front() {
            return Ok(Some(Batch { stride: bytes.len(), bytes, to }));
        }
        while let Some(handle) = self.to_send.pop_front() {
            let Some(slot) = self.slots.get_mut(&handle) else { continue };
            let made = locked(&slot.connection).transmit(self.now, 0, segments)?;
            if made.is_some() {
                self.to_send.push_back(handle);
                return Ok(made);
            }
            slot.to_send = false;
            self.settle(handle);
        }
        Ok(None)
    }

    /// Nothing more to send: its timer is set, or it is forgotten.
    fn settle(&mut self, handle: ConnectionHandle) {
        let Some(slot) = self.slots.get_mut(&handle) else { return };
        let mut connection = locked(&slot.connection);
        let (drained, handshaking, due) = (connection.is_drained(), connection.is_handshaking(), connection.timer());
        drop(connection);
        if slot.handshaking && !handshaking {
            slot.handshaking = false;
            self.handshaking -= 1;
        }
        if slot.due != due || drained {
            if let Some(old) = slot.due {
                self.timers.remove(&(old, handle));
            }
            slot.due = due.filter(|_| !drained);
            if let Some(due) = slot.due {
                self.timers.insert((due, handle));
            }
        }
        if drained {
            // whoever holds the connection has its last events
            if slot.handshaking {
                self.handshaking -= 1;
            }
            if let Some(slot) = self.slots.remove(&handle) {
                self.names.remove(&slot.name);
            }
        }
    }

    /// When `handle_timer` wants to be called, in nanoseconds.
    pub fn timer(&self) -> Option<u64> {
        let due = self.timers.first().map(|(due, _)| *due);
        due.into_iter().chain(self.begun.front().map(|b| b.0)).min()
    }

    pub fn handle_timer(&mut self, now: u64) -> Checked<()> {
        self.now = clock::checked(now)?.max(self.now);
        self.give_up_handshakes()?;
        while let Some((due, handle)) = self.timers.first().copied() {
            if due > self.now {
                break;
            }
            self.timers.pop_first();
            if let Some(slot) = self.slots.get_mut(&handle) {
                slot.due = None;
                locked(&slot.connection).handle_timer(self.now)?;
                self.stir(handle);
            }
        }
        Ok(())
    }

    fn give_up_handshakes(&mut self) -> Checked<()> {
        while let Some((until, handle, name)) = self.begun.front().copied() {
            let under_way = self.slots.get(&handle).is_some_and(|s| s.name == name && s.handshaking);
            if under_way && until > self.now {
                break;
            }
            self.begun.pop_front();
            if let Some(slot) = self.slots.get(&handle).filter(|_| under_way) {
                self.counters.given_up += 1;
                locked(&slot.connection).close(0, "the handshake took too long", self.now)?;
                self.stir(handle);
            }
        }
        Ok(())
    }

    /// Connections that are not yet forgotten, and handshakes under way.
    pub fn sizes(&self) -> (usize, usize) {
        (self.slots.len(), self.handshaking)
    }
}
