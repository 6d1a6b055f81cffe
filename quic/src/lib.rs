//! A sans-I/O QUIC engine: [noq-proto](https://docs.rs/noq-proto) made whole for somebody who owns the sockets, the
//! clock and the loop. Bytes and `now` go in; bytes, a timer and events come out. No sockets, no runtime, no threads,
//! no clock of its own (TLS alone asks the system what day it is).
//!
//! Where to read on:
//!
//! * [`connection`]: one connection, its bytes in and out; [`streams`] and [`paths`]: the rest of its calls.
//! * [`endpoint`]: many server connections on one socket.
//! * [`reassembly`], [`outbox`]: a stream's bytes on their way in and out, and what bounds them.
//! * [`controller`]: the congestion controller; [`gauge`]: what stands between a controller and the core.
//! * [`tls`], [`watch`]: keys, certificates, and which packet numbers authenticated.
//! * `python`: the classes that Python sees; nothing is decided there.

#![forbid(unsafe_op_in_unsafe_fn)]

pub mod clock;
pub mod connection;
pub mod controller;
pub mod endpoint;
pub mod events;
pub mod gauge;
pub mod outbox;
pub mod paths;
#[cfg(feature = "python")]
mod python;
pub mod reassembly;
pub mod settings;
pub mod streams;
pub mod tls;
pub mod watch;

/// Our input is wrong: an argument or a setting. The text is one line that says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidInput(pub String);

impl std::fmt::Display for InvalidInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidInput {}

/// Shorthand for what checks its arguments.
pub type Checked<T> = Result<T, InvalidInput>;

pub(crate) fn invalid<T>(text: impl Into<String>) -> Checked<T> {
    Err(InvalidInput(text.into()))
}
