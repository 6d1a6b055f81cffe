//! The classes that Python sees. Arguments are taken apart here; nothing is decided.
//!
//! The GIL is given back while a whole buffer is taken in or made (`receive`, `transmit`): those calls encrypt. The
//! others are over in a microsecond.

mod connection;
mod endpoint;
mod setup;

use std::net::{IpAddr, SocketAddr};

use pyo3::buffer::PyBuffer;
use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use self::connection::{PyConnection, PyStatistics};
use self::endpoint::PyEndpoint;
use self::setup::{PyClient, PyServer, PySettings};
use crate::connection::Batch;
use crate::events::Event;
use crate::reassembly::MEMORY;
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
