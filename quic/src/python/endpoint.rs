//! Many connections on one socket.

use std::sync::Mutex;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::connection::PyConnection;
use super::{address, bytes_of, framed};
use crate::connection::locked;
use crate::endpoint::Endpoint;

/// Many server connections on one socket.
#[pyclass(frozen, name = "Endpoint", module = "warren_quic")]
pub(super) struct PyEndpoint(pub(super) Mutex<Endpoint>);

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
