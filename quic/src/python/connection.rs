//! One connection.

use std::sync::{Arc, Mutex};

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::{bytes_of, event, framed, wrong};
use crate::connection::{locked, Connection};
use crate::endpoint::Shared;
use crate::events::Event;
use crate::paths::PathChange;

type Foreign = Vec<(usize, usize)>;

/// One QUIC connection.
#[pyclass(frozen, name = "Connection", module = "warren_quic")]
pub(super) struct PyConnection(pub(super) Shared);

impl PyConnection {
    pub(super) fn new(connection: Connection) -> Self {
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
pub(super) struct PyStatistics {
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
