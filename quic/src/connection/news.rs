//! What the core has to say, and how a connection ends.

use bytes::Bytes;
use noq_proto as proto;
use proto::{ConnectionError, Dir, VarInt};

use super::{locked, number, Connection, INTERNAL_ERROR};
use crate::clock;
use crate::events::Event;
use crate::reassembly::Overflow;
use crate::tls::Agreed;

/// Code of a connection whose peer overran our memory (FLOW_CONTROL_ERROR, RFC 9000, section 20.1).
const OVERRUN: u64 = 3;

impl Connection {
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
            let mut drained = None;
            while let Some(event) = self.core.as_mut().and_then(proto::Connection::poll) {
                quiet = false;
                // one for every frame: the first has taken out what all of them brought
                if let proto::Event::Stream(proto::StreamEvent::Readable { id }) = event {
                    if drained.replace(id) == Some(id) {
                        continue;
                    }
                }
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

    pub(super) fn end(&mut self, code: u64, reason: String, ours: bool) {
        if !self.closed {
            self.closed = true;
            self.outboxes.clear();
            self.turns.clear();
            self.events.push_back(Event::Closed { code, reason, ours });
        }
    }
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
