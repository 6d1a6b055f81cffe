//! One QUIC connection.
//!
//! Contract of every call, as in the core: mutate, then drain `poll_event` and `transmit` until each gives nothing,
//! then arm one timer from `timer`. `now` is nanoseconds and never decreases; one that does is taken as the last.
//!
//! A panic in the core ends this connection (`Closed`, code 1) and nothing else: every entry goes through
//! [`Connection::guarded`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use noq_proto as proto;
use proto::{ConnectionError, ConnectionHandle, DatagramEvent, Dir, PathId, Side, StreamId, VarInt};

use crate::events::Event;
use crate::gauge::Gauge;
use crate::outbox::Outbox;
use crate::reassembly::{Inbox, Overflow};
use crate::settings::{Settings, BATCH};
use crate::tls::{Agreed, Client, Server};
use crate::watch::{Opened, Watched};
use crate::{clock, invalid, Checked, InvalidInput};

/// The other end of a connection whose paths are the caller's: migration is off, the address never changes.
pub const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 4433);
/// Answers of the endpoint's own (resets, refusals) that wait to be sent.
const REPLIES: usize = 16;
/// Datagrams above the allowed size that one call of `transmit` throws away before it gives up.
const OVERSIZED: usize = 64;
/// How soon a connection that gets no credit for want of memory is looked at again, in nanoseconds.
const LOOK_AGAIN: u64 = 100_000_000;
/// Code of a connection that a panic in the core ended (INTERNAL_ERROR, RFC 9000, section 20.1).
const INTERNAL_ERROR: u64 = 1;
/// Code of a connection whose peer overran our memory (FLOW_CONTROL_ERROR, likewise).
const OVERRUN: u64 = 3;

/// What became of a buffer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Received {
    /// A packet authenticated that was no duplicate.
    pub authenticated: bool,
    /// Its number was the largest so far.
    pub newest: bool,
    /// Runs of segments that carried another header, each run one and the same: (start, end), bytes of the buffer.
    pub foreign: Vec<(usize, usize)>,
}

/// Datagrams for one send with segmentation: all but the last have `stride` bytes. No header in front yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The datagrams, one behind the other.
    pub bytes: Vec<u8>,
    /// Bytes of each.
    pub stride: usize,
    /// Where to.
    pub to: SocketAddr,
}

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

    // ---- bytes in ----

    /// Takes one buffer of datagrams, `stride` bytes each (0: one datagram), those of ours beginning with `header`.
    /// Any bytes are allowed.
    pub fn receive(&mut self, buffer: &[u8], stride: usize, header: &[u8], now: u64) -> Checked<Received> {
        let now = self.at(now)?;
        let stride = if stride == 0 { buffer.len().max(1) } else { stride };
        Ok(self.guarded(Received::default(), |c| c.take_in(buffer, stride, header, now)))
    }

    fn take_in(&mut self, buffer: &[u8], stride: usize, header: &[u8], now: Instant) -> Received {
        let before = self.frames_received();
        let mut foreign: Vec<(usize, usize)> = Vec::new();
        let mut other: &[u8] = &[];
        for (index, segment) in buffer.chunks(stride).enumerate() {
            if let Some(packet) = segment.strip_prefix(header) {
                self.packet(packet, now);
                continue;
            }
            let (start, end) = (index * stride, index * stride + segment.len());
            let found = &segment[..header.len().min(segment.len())];
            match foreign.last_mut() {
                Some(run) if run.1 == start && found == other => run.1 = end,
                _ => foreign.push((start, end)),
            }
            other = found;
        }
        self.pump();
        let newest = self.opened.take_newest();
        let authenticated = self.frames_received() != before;
        Received { authenticated, newest: newest && authenticated, foreign }
    }

    fn frames_received(&mut self) -> Option<proto::FrameStats> {
        Some(self.core.as_mut()?.path_stats(PathId::ZERO)?.frame_rx)
    }

    fn packet(&mut self, packet: &[u8], now: Instant) {
        if self.drained {
            return;
        }
        self.scratch.clear();
        let shared = self.endpoint.clone();
        let mut endpoint = locked(&shared);
        match endpoint.handle(now, PEER.into(), None, BytesMut::from(packet), &mut self.scratch) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                drop(endpoint);
                if let Some(core) = self.core.as_mut() {
                    core.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) if self.core.is_none() && !self.closed => {
                match endpoint.accept(incoming, now, &mut self.scratch, None) {
                    Ok((handle, core)) => {
                        self.handle = Some(handle);
                        self.core = Some(core);
                    }
                    Err(error) => self.reply(error.response.map_or(0, |r| r.size)),
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => endpoint.ignore(incoming),
            Some(DatagramEvent::Response(response)) => {
                drop(endpoint);
                self.reply(response.size);
            }
            None => {}
        }
    }

    fn reply(&mut self, size: usize) {
        if size > 0 && self.replies.len() < REPLIES {
            self.replies.push_back(self.scratch[..size].to_vec());
        }
    }

    /// What the endpoint dispatched to this connection.
    pub(crate) fn dispatched(&mut self, event: proto::ConnectionEvent, now: u64) {
        self.now = now.max(self.now);
        self.guarded((), |c| {
            if let Some(core) = c.core.as_mut() {
                core.handle_event(event);
            }
            c.pump();
        });
    }

    // ---- bytes out ----

    /// The next datagrams, at most `segments` of them, each to get a header of `header` bytes.
    pub fn transmit(&mut self, now: u64, header: usize, segments: usize) -> Checked<Option<Batch>> {
        let now = self.at(now)?;
        if header > 256 {
            return invalid("header is at most 256 bytes");
        }
        let Some(segments) = NonZeroUsize::new(segments) else {
            return invalid("segments is at least 1");
        };
        Ok(self.guarded(None, |c| c.give_out(now, header, segments)))
    }

    fn give_out(&mut self, now: Instant, header: usize, segments: NonZeroUsize) -> Option<Batch> {
        if let Some(bytes) = self.replies.pop_front() {
            return Some(Batch { stride: bytes.len(), bytes, to: PEER });
        }
        self.feed();
        let size = self.core.as_ref()?.current_mtu();
        let fit = (BATCH / (usize::from(size) + header)).max(1);
        let segments = segments.min(NonZeroUsize::new(fit).unwrap_or(NonZeroUsize::MIN));
        for _ in 0..OVERSIZED {
            let core = self.core.as_mut()?;
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            let made = core.poll_transmit(now, segments, &mut bytes);
            self.pump();
            let Some(made) = made else {
                self.scratch = bytes;
                return None;
            };
            bytes.truncate(made.size);
            let stride = made.segment_size.unwrap_or(made.size);
            if stride <= self.allowed {
                return Some(Batch { bytes, stride, to: made.destination });
            }
            // Larger than allowed: a search for a larger size, or what was already on its way to be sent when
            // `resize` asked for less. It counts as lost, from which the core draws its conclusion.
            self.scratch = bytes;
        }
        None
    }

    /// Gives a batch's memory back, to be used again.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() > self.scratch.capacity() {
            self.scratch = bytes;
        }
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

    fn end(&mut self, code: u64, reason: String, ours: bool) {
        if !self.closed {
            self.closed = true;
            self.outboxes.clear();
            self.turns.clear();
            self.events.push_back(Event::Closed { code, reason, ours });
        }
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

    // ---- what the core has to say ----

    /// Passes on what the core tells its endpoint and its owner, until it has nothing more to say.
    pub(crate) fn pump(&mut self) {
        let mut ended = None;
        while let (Some(core), Some(handle)) = (self.core.as_mut(), self.handle) {
            let mut quiet = true;
            while let Some(event) = core.poll_endpoint_events() {
                quiet = false;
                self.drained |= event.is_drained();
                let answer = locked(&self.endpoint).handle_event(handle, event);
                if let Some(answer) = answer {
                    core.handle_event(answer);
                }
            }
            while let Some(event) = self.core.as_mut().and_then(proto::Connection::poll) {
                quiet = false;
                ended = self.heard(event).err().or(ended);
            }
            if quiet {
                break;
            }
        }
        self.credit();
        if let Some(Overflow(reason)) = ended {
            self.overrun(reason);
        }
        self.feed();
    }

    pub(crate) fn overrun(&mut self, reason: &'static str) {
        let now = clock::instant(self.now);
        self.inboxes.clear();
        self.unread = 0;
        if let Some(core) = self.core.as_mut() {
            core.close(now, VarInt::from_u32(OVERRUN as u32), Bytes::from_static(reason.as_bytes()));
        }
        self.end(OVERRUN, reason.into(), true);
    }

    fn heard(&mut self, event: proto::Event) -> Result<(), Overflow> {
        use proto::{Event as E, StreamEvent as S};
        match event {
            E::Connected => {
                if let Some(core) = &self.core {
                    let Agreed { alpn, certificate, group } = Agreed::of(core.crypto_session());
                    self.events.push_back(Event::Connected { alpn, certificate, group });
                }
            }
            E::ConnectionLost { reason } => self.lost(reason),
            E::Stream(S::Opened { dir }) => return self.accept_streams(dir),
            E::Stream(S::Readable { id }) => return self.drain(id),
            E::Stream(S::Writable { id }) => self.wake(number(id)),
            E::Stream(S::Finished { id }) => drop(self.outboxes.remove(&number(id))),
            E::Stream(S::Stopped { id, error_code }) => {
                let stream = number(id);
                self.outboxes.remove(&stream);
                if let Some(core) = self.core.as_mut() {
                    // RFC 9000, section 3.5: STOP_SENDING asks for a RESET_STREAM
                    let _ = core.send_stream(id).reset(error_code);
                }
                self.events.push_back(Event::Stopped { stream, code: error_code.into_inner() });
            }
            E::Stream(S::Available { dir }) => {
                self.events.push_back(Event::Available { bidirectional: dir == Dir::Bi });
            }
            E::DatagramReceived => self.events.push_back(Event::Datagrams),
            _ => {}
        }
        Ok(())
    }

    fn lost(&mut self, reason: ConnectionError) {
        let text = reason.to_string();
        let (code, reason, ours) = match reason {
            ConnectionError::TransportError(e) => {
                (u64::from(e.code), if e.reason.is_empty() { text } else { e.reason }, true)
            }
            ConnectionError::ConnectionClosed(c) => (c.error_code.into(), words(&c.reason), false),
            ConnectionError::ApplicationClosed(c) => (c.error_code.into(), words(&c.reason), false),
            ConnectionError::Reset => (0, "stateless reset".into(), false),
            ConnectionError::TimedOut => (0, "idle time-out".into(), true),
            ConnectionError::VersionMismatch => (INTERNAL_ERROR, text, false),
            ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => (INTERNAL_ERROR, text, true),
        };
        self.end(code, reason, ours);
    }
}

/// The stream's id as it is on the wire.
pub(crate) fn number(id: StreamId) -> u64 {
    VarInt::from(id).into_inner()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
