//! The classes that Python sees. Arguments are taken apart here; nothing is decided.
//!
//! The GIL is given back while a whole buffer is taken in or made (`receive`, `transmit`): those calls encrypt. The
//! others are over in a microsecond.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use pyo3::buffer::PyBuffer;
use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::connection::{locked, Batch, Connection};
use crate::endpoint::{Endpoint, Shared};
use crate::events::Event;
use crate::gauge::Kind;
use crate::paths::PathChange;
use crate::reassembly::MEMORY;
use crate::settings::Settings;
use crate::tls::{Client, Server};
use crate::InvalidInput;

create_exception!(
    warren_quic,
    InvalidInputError,
    PyValueError,
    "An argument or a setting is wrong. The text is one line that says what is allowed."
);

impl From<InvalidInput> for PyErr {
    fn from(error: InvalidInput) -> Self {
        InvalidInputError::new_err(error.0)
    }
}

fn wrong(text: &str) -> PyErr {
    InvalidInputError::new_err(text.to_owned())
}

/// The bytes of any object that exports them in one piece.
///
/// # Safety of the one `unsafe` of this crate
///
/// `PyBuffer` keeps the exporter from freeing or moving its memory for as long as it lives, and the slice borrows from
/// it. That nobody writes to the memory meanwhile is asked of the caller, in the documentation of every call that
/// takes a buffer, as CPython's own calls ask it that give the GIL back (`hashlib`, `zlib`, `socket`).
fn bytes_of(buffer: &PyBuffer<u8>) -> PyResult<&[u8]> {
    if !buffer.is_c_contiguous() {
        return Err(wrong("a buffer has to be contiguous"));
    }
    if buffer.len_bytes() == 0 {
        return Ok(&[]);
    }
    // SAFETY: see above; `buf_ptr` is not null, since there is at least one byte, and u8 has no alignment
    Ok(unsafe { std::slice::from_raw_parts(buffer.buf_ptr() as *const u8, buffer.len_bytes()) })
}

fn address(host: &str, port: u16) -> PyResult<SocketAddr> {
    let host = host.split('%').next().unwrap_or(host);
    let ip: IpAddr = host.parse().map_err(|_| wrong("an address is an IP address in text, and a port"))?;
    Ok(SocketAddr::new(ip, port))
}

/// A batch with the header in front of every datagram: `(bytes, stride, segments)`.
fn framed<'py>(py: Python<'py>, batch: &Batch, header: &[u8]) -> PyResult<(Bound<'py, PyBytes>, usize, usize)> {
    let (stride, segments) = (batch.stride.max(1), batch.bytes.len().div_ceil(batch.stride.max(1)));
    if header.is_empty() {
        return Ok((PyBytes::new(py, &batch.bytes), stride, segments));
    }
    let bytes = PyBytes::new_with(py, batch.bytes.len() + segments * header.len(), |out| {
        let mut rest = out;
        for datagram in batch.bytes.chunks(stride) {
            let (head, tail) = rest.split_at_mut(header.len());
            head.copy_from_slice(header);
            let (body, tail) = tail.split_at_mut(datagram.len());
            body.copy_from_slice(datagram);
            rest = tail;
        }
        Ok(())
    })?;
    Ok((bytes, stride + header.len(), segments))
}

fn event<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Connected { alpn, certificate, group } => {
            let certificate = certificate.map(|c| PyBytes::new(py, &c));
            ("connected", String::from_utf8_lossy(&alpn).into_owned(), certificate, group).into_pyobject(py)
        }
        Event::Opened { stream, bidirectional } => ("opened", stream, bidirectional).into_pyobject(py),
        Event::Readable { stream } => ("readable", stream).into_pyobject(py),
        Event::Writable { stream } => ("writable", stream).into_pyobject(py),
        Event::Reset { stream, code } => ("reset", stream, code).into_pyobject(py),
        Event::Stopped { stream, code } => ("stopped", stream, code).into_pyobject(py),
        Event::Available { bidirectional } => ("available", bidirectional).into_pyobject(py),
        Event::Datagrams => ("datagrams",).into_pyobject(py),
        Event::Closed { code, reason, ours } => ("closed", code, reason, ours).into_pyobject(py),
    }
}

/// Transport settings, checked once and frozen.
#[pyclass(frozen, name = "Settings", module = "warren_quic")]
struct PySettings(Settings);

#[pymethods]
impl PySettings {
    #[new]
    #[pyo3(signature = (*, idle_timeout=30.0, keep_alive=0.0, size=1224, largest=None, stream_window=16_777_216,
        connection_window=67_108_864, streams=128, datagrams=false, send_buffer=1_048_576, datagram_queue=65_536,
        drop="newest", controller="model", seed=None))]
    #[allow(clippy::too_many_arguments)] // keyword arguments: Python's way to write a structure
    fn new(
        idle_timeout: f64,
        keep_alive: f64,
        size: u16,
        largest: Option<u16>,
        stream_window: u64,
        connection_window: u64,
        streams: u32,
        datagrams: bool,
        send_buffer: usize,
        datagram_queue: usize,
        drop: &str,
        controller: &str,
        seed: Option<u64>,
    ) -> PyResult<Self> {
        let drop_oldest = match drop {
            "newest" => false,
            "oldest" => true,
            _ => return Err(wrong("drop is 'newest' or 'oldest'")),
        };
        let controller = match controller {
            "model" => Kind::Model,
            "cubic" => Kind::Cubic,
            _ => return Err(wrong("controller is 'model' or 'cubic'")),
        };
        let settings = Settings {
            idle_timeout,
            keep_alive,
            size,
            largest: largest.unwrap_or(size.max(1444)),
            stream_window,
            connection_window,
            streams,
            datagrams,
            send_buffer,
            datagram_queue,
            drop_oldest,
            controller,
            seed,
        };
        settings.check()?;
        Ok(Self(settings))
    }
}

/// Who is called and how it is verified: against one root, by one DNS name; a CA:TRUE leaf is refused.
#[pyclass(frozen, name = "Client", module = "warren_quic")]
struct PyClient {
    client: Client,
    settings: Settings,
}

#[pymethods]
impl PyClient {
    #[new]
    fn new(server_name: &str, root: &[u8], alpn: &str, settings: &PySettings) -> PyResult<Self> {
        Ok(Self { client: Client::new(server_name, root, alpn.as_bytes())?, settings: settings.0.clone() })
    }

    /// Calls; what to send comes out of `transmit`.
    fn connect(&self, now: u64) -> PyResult<PyConnection> {
        Ok(PyConnection::new(Connection::connect(&self.client, &self.settings, now)?))
    }
}

/// How we show ourselves: a chain (leaf first) and the leaf's key.
#[pyclass(frozen, name = "Server", module = "warren_quic")]
struct PyServer {
    server: Server,
    settings: Settings,
}

#[pymethods]
impl PyServer {
    #[new]
    fn new(chain: &[u8], key: &[u8], alpn: Vec<String>, settings: &PySettings) -> PyResult<Self> {
        Ok(Self { server: Server::new(chain, key, &alpn)?, settings: settings.0.clone() })
    }

    /// A connection for the one client whose packets will be given to `receive`.
    fn accept(&self, now: u64) -> PyResult<PyConnection> {
        Ok(PyConnection::new(Connection::accept(&self.server, &self.settings, now)?))
    }

    /// Many connections on one socket.
    #[pyo3(signature = (now, *, retry=false, half_open=256))]
    fn endpoint(&self, now: u64, retry: bool, half_open: usize) -> PyResult<PyEndpoint> {
        Ok(PyEndpoint(Mutex::new(Endpoint::new(&self.server, &self.settings, retry, half_open, now)?)))
    }
}

type Foreign = Vec<(usize, usize)>;

/// One QUIC connection.
#[pyclass(frozen, name = "Connection", module = "warren_quic")]
struct PyConnection(Shared);

impl PyConnection {
    fn new(connection: Connection) -> Self {
        Self(Arc::new(Mutex::new(connection)))
    }
}

#[pymethods]
impl PyConnection {
    /// Takes a buffer of datagrams of `stride` bytes (0: one), those of ours beginning with `header`. Returns whether a
    /// packet authenticated that was no duplicate, whether it was the newest, and the spans of runs of other datagrams.
    fn receive(
        &self,
        py: Python<'_>,
        buffer: PyBuffer<u8>,
        stride: usize,
        header: &[u8],
        now: u64,
    ) -> PyResult<(bool, bool, Foreign)> {
        let bytes = bytes_of(&buffer)?;
        let received = py.detach(|| locked(&self.0).receive(bytes, stride, header, now))?;
        Ok((received.authenticated, received.newest, received.foreign))
    }

    /// At most `segments` datagrams with `header` in front of each: bytes, stride, how many; or None.
    fn transmit<'py>(
        &self,
        py: Python<'py>,
        now: u64,
        header: &[u8],
        segments: usize,
    ) -> PyResult<Option<(Bound<'py, PyBytes>, usize, usize)>> {
        let Some(batch) = py.detach(|| locked(&self.0).transmit(now, header.len(), segments))? else {
            return Ok(None);
        };
        let made = framed(py, &batch, header)?;
        locked(&self.0).recycle(batch.bytes);
        Ok(Some(made))
    }

    /// When `handle_timer` wants to be called, in nanoseconds; or None.
    fn timer(&self) -> Option<u64> {
        locked(&self.0).timer()
    }

    /// Whatever was due by `now`.
    fn handle_timer(&self, now: u64) -> PyResult<()> {
        Ok(locked(&self.0).handle_timer(now)?)
    }

    /// What has happened since the last call, as tuples that begin with a word.
    fn poll_events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        // not under the lock: making objects may run somebody's finalizer, which may call us
        let happened: Vec<Event> = {
            let mut connection = locked(&self.0);
            std::iter::from_fn(|| connection.poll_event()).collect()
        };
        let list = PyList::empty(py);
        for one in happened {
            list.append(event(py, one)?)?;
        }
        Ok(list)
    }

    /// Ends the connection with a code (below 2**62) and a reason.
    fn close(&self, code: u64, reason: &str, now: u64) -> PyResult<()> {
        Ok(locked(&self.0).close(code, reason, now)?)
    }

    /// A new stream's id; None while the peer allows no more.
    fn open_stream(&self, bidirectional: bool) -> Option<u64> {
        locked(&self.0).open_stream(bidirectional)
    }

    /// How many of the bytes were taken; if not all, "writable" follows.
    fn write(&self, stream: u64, data: PyBuffer<u8>) -> PyResult<usize> {
        Ok(locked(&self.0).write(stream, bytes_of(&data)?)?)
    }

    /// No more will be written (FIN behind what still waits).
    fn finish(&self, stream: u64) -> PyResult<()> {
        Ok(locked(&self.0).finish(stream)?)
    }

    /// At most `limit` bytes in order; b"" if none are there now.
    fn read<'py>(&self, py: Python<'py>, stream: u64, limit: usize) -> PyResult<Bound<'py, PyBytes>> {
        let parts = locked(&self.0).read(stream, limit)?;
        if let [only] = parts.as_slice() {
            return Ok(PyBytes::new(py, only));
        }
        PyBytes::new_with(py, parts.iter().map(|p| p.len()).sum(), |out| {
            let mut rest = out;
            for part in &parts {
                let (here, tail) = rest.split_at_mut(part.len());
                here.copy_from_slice(part);
                rest = tail;
            }
            Ok(())
        })
    }

    /// Whether everything was read and the peer has finished the stream.
    fn finished(&self, stream: u64) -> PyResult<bool> {
        Ok(locked(&self.0).finished(stream)?)
    }

    /// Ends our direction early; what was not delivered is discarded.
    fn reset(&self, stream: u64, code: u64) -> PyResult<()> {
        Ok(locked(&self.0).reset(stream, code)?)
    }

    /// Asks the peer to stop writing; what arrives is discarded.
    fn stop(&self, stream: u64, code: u64) -> PyResult<()> {
        Ok(locked(&self.0).stop(stream, code)?)
    }

    /// Streams of a higher priority go first; all have 0 to begin with.
    fn set_priority(&self, stream: u64, priority: i32) -> PyResult<()> {
        Ok(locked(&self.0).set_priority(stream, priority)?)
    }

    /// Whether the datagram was queued.
    fn send_datagram(&self, data: PyBuffer<u8>) -> PyResult<bool> {
        Ok(locked(&self.0).send_datagram(bytes_of(&data)?))
    }

    /// The next datagram that arrived, or None.
    fn read_datagram<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        locked(&self.0).read_datagram().map(|d| PyBytes::new(py, &d))
    }

    /// Largest payload of a DATAGRAM frame that fits now; 0 if the peer takes none.
    fn datagram_room(&self) -> usize {
        locked(&self.0).datagram_room()
    }

    /// What happened to the path: "moved", "rebound" or "resumed".
    fn path_changed(&self, now: u64, kind: &str) -> PyResult<()> {
        let kind = match kind {
            "moved" => PathChange::Moved,
            "rebound" => PathChange::Rebound,
            "resumed" => PathChange::Resumed,
            _ => return Err(wrong("kind is 'moved', 'rebound' or 'resumed'")),
        };
        Ok(locked(&self.0).path_changed(now, kind)?)
    }

    /// Datagrams may have `size` bytes from now on, the header not counted.
    fn resize(&self, size: u16) -> PyResult<()> {
        Ok(locked(&self.0).resize(size)?)
    }

    /// Something that has to be acknowledged leaves in the next `transmit`, past window and pacer.
    fn probe(&self, now: u64) -> PyResult<()> {
        Ok(locked(&self.0).probe(now)?)
    }

    /// The probe time-out without back-off, in seconds.
    fn pto(&self) -> f64 {
        locked(&self.0).pto()
    }

    /// Whether the path has given a round-trip sample since the start or the last move.
    fn sampled(&self) -> bool {
        locked(&self.0).sampled()
    }

    /// Whether anything is unacknowledged that has to be acknowledged.
    fn in_flight(&self) -> bool {
        locked(&self.0).in_flight()
    }

    /// Packets above 1224 bytes lost since one was acknowledged, or the size was changed.
    fn large_lost(&self) -> u64 {
        locked(&self.0).large_lost()
    }

    /// Where the peer is now, as the connection sees it.
    fn address(&self) -> Option<(String, u16)> {
        locked(&self.0).address().map(|a| (a.ip().to_string(), a.port()))
    }

    /// The figures of the connection and its path.
    fn statistics(&self) -> PyStatistics {
        let s = locked(&self.0).statistics();
        PyStatistics {
            round_trip: s.round_trip,
            smallest_round_trip: s.smallest_round_trip,
            window: s.window,
            in_flight: s.in_flight,
            rate: s.rate,
            sent: s.sent,
            received: s.received,
            lost: s.lost,
            congestion_events: s.congestion_events,
            phase: s.phase,
            size: s.size,
            black_holes: s.black_holes,
            unread: s.unread,
        }
    }
}

/// A connection's figures: seconds, bytes, bytes a second; counters of packets since the start.
#[pyclass(frozen, get_all, name = "Statistics", module = "warren_quic")]
struct PyStatistics {
    round_trip: f64,
    smallest_round_trip: f64,
    window: u64,
    in_flight: u64,
    rate: f64,
    sent: u64,
    received: u64,
    lost: u64,
    congestion_events: u64,
    phase: &'static str,
    size: u16,
    black_holes: u64,
    unread: u64,
}

/// Many server connections on one socket.
#[pyclass(frozen, name = "Endpoint", module = "warren_quic")]
struct PyEndpoint(Mutex<Endpoint>);

type Addressed<'py> = (String, u16, Bound<'py, PyBytes>, usize, usize);

#[pymethods]
impl PyEndpoint {
    /// Takes a buffer of datagrams of `stride` bytes (0: one) that came from this address.
    fn receive(
        &self,
        py: Python<'_>,
        buffer: PyBuffer<u8>,
        stride: usize,
        host: &str,
        port: u16,
        now: u64,
    ) -> PyResult<()> {
        let (bytes, from) = (bytes_of(&buffer)?, address(host, port)?);
        Ok(py.detach(|| locked(&self.0).receive(bytes, stride, from, now))?)
    }

    /// The next new connection and its name here; its handshake may still be under way. Or None.
    fn accept(&self) -> Option<(u64, PyConnection)> {
        locked(&self.0).accept().map(|(name, connection)| (name, PyConnection(connection)))
    }

    /// Something was done with this connection: it is looked at in `transmit`.
    fn touch(&self, name: u64) {
        locked(&self.0).touch(name);
    }

    /// The next connection that has events since it was last named here, or None.
    fn active(&self) -> Option<u64> {
        locked(&self.0).active()
    }

    /// Host, port, bytes, stride and number of the next datagrams, or None.
    fn transmit<'py>(&self, py: Python<'py>, now: u64, segments: usize) -> PyResult<Option<Addressed<'py>>> {
        let Some(batch) = py.detach(|| locked(&self.0).transmit(now, segments))? else {
            return Ok(None);
        };
        let (bytes, stride, segments) = framed(py, &batch, b"")?;
        Ok(Some((batch.to.ip().to_string(), batch.to.port(), bytes, stride, segments)))
    }

    /// When `handle_timer` wants to be called, in nanoseconds; or None.
    fn timer(&self) -> Option<u64> {
        locked(&self.0).timer()
    }

    /// Whatever was due by `now`.
    fn handle_timer(&self, now: u64) -> PyResult<()> {
        Ok(locked(&self.0).handle_timer(now)?)
    }

    /// `(connections, handshakes under way, accepted, retried, dropped, given up, failed)`, the last five since the start.
    fn counters(&self) -> (usize, usize, u64, u64, u64, u64, u64) {
        let endpoint = locked(&self.0);
        let ((connections, handshaking), c) = (endpoint.sizes(), endpoint.counters);
        (connections, handshaking, c.accepted, c.retried, c.dropped, c.given_up, c.failed)
    }
}

/// Bytes that streams of this process hold unread.
#[pyfunction]
fn memory_used() -> u64 {
    MEMORY.used()
}

/// Sets how many bytes the streams of this process may hold unread before no peer gets further credit.
#[pyfunction]
fn set_memory_limit(limit: u64) -> PyResult<()> {
    if !(1 << 20..=1 << 50).contains(&limit) {
        return Err(wrong("the limit is bytes, from 2**20 to 2**50"));
    }
    MEMORY.set_limit(limit);
    Ok(())
}

#[pymodule]
fn warren_quic(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("InvalidInputError", m.py().get_type::<InvalidInputError>())?;
    m.add_class::<PySettings>()?;
    m.add_class::<PyClient>()?;
    m.add_class::<PyServer>()?;
    m.add_class::<PyConnection>()?;
    m.add_class::<PyEndpoint>()?;
    m.add_class::<PyStatistics>()?;
    m.add_function(wrap_pyfunction!(memory_used, m)?)?;
    m.add_function(wrap_pyfunction!(set_memory_limit, m)?)
}
