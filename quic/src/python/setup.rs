//! What is made before there is a connection: settings, client, server.

use std::sync::Mutex;

use pyo3::prelude::*;

use super::connection::PyConnection;
use super::endpoint::PyEndpoint;
use super::wrong;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::gauge::Kind;
use crate::settings::Settings;
use crate::tls::{Client, Server};

/// Transport settings, checked once and frozen.
#[pyclass(frozen, name = "Settings", module = "warren_quic")]
pub(super) struct PySettings(Settings);

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
pub(super) struct PyClient {
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
pub(super) struct PyServer {
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
