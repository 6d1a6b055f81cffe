//! What a connection tells its owner.

/// One thing that happened. Nothing follows [`Event::Closed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete; on the client's side the certificate (DER of the leaf) is verified.
    Connected { alpn: Vec<u8>, certificate: Option<Vec<u8>>, group: String },
    /// The peer opened a stream.
    Opened { stream: u64, bidirectional: bool },
    /// There is something to read, or the stream has ended.
    Readable { stream: u64 },
    /// A write that was not taken whole may be tried again.
    Writable { stream: u64 },
    /// The peer ended its direction early (RESET_STREAM).
    Reset { stream: u64, code: u64 },
    /// The peer no longer reads (STOP_SENDING); our direction was reset in answer.
    Stopped { stream: u64, code: u64 },
    /// More streams of this kind may be opened.
    Available { bidirectional: bool },
    /// There are datagrams to read.
    Datagrams,
    /// The connection is over. `ours`: this side ended it.
    Closed { code: u64, reason: String, ours: bool },
}
