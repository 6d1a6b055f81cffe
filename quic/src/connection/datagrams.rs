//! A connection's datagrams, in and out.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Instant;

use bytes::BytesMut;
use noq_proto as proto;
use proto::{DatagramEvent, PathId};

use super::{locked, Connection, PEER};
use crate::settings::BATCH;
use crate::{invalid, Checked};

/// Answers of the endpoint's own (resets, refusals) that wait to be sent.
const REPLIES: usize = 16;
/// Datagrams above the allowed size that one call of `transmit` throws away before it gives up.
const OVERSIZED: usize = 64;
/// How long an acknowledgement waits behind a full window, in nanoseconds: the delay that a peer reckons with
/// (max_ack_delay; RFC 9000, section 18.2).
const OWED: u64 = 25_000_000;
/// The longest header of the caller's.
const LONGEST_HEADER: usize = 256;

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

/// Frames that have to be acknowledged, with those that came once more in other packets (RFC 9000, section 13.2).
fn eliciting(frames: Option<proto::FrameStats>) -> Option<proto::FrameStats> {
    frames.map(|mut frames| {
        (frames.acks, frames.connection_close) = (0, 0);
        frames
    })
}

impl Connection {
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
        let after = self.frames_received();
        let authenticated = after != before;
        if authenticated && self.owed.is_none() && eliciting(after) != eliciting(before) {
            self.owed = Some(self.now);
        }
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
        if header > LONGEST_HEADER {
            return invalid(format!("header is at most {LONGEST_HEADER} bytes"));
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
            let shrinks = self.signs > 0 && usize::from(core.current_mtu()) > self.allowed;
            let segments = if shrinks || self.probes > 0 { NonZeroUsize::MIN } else { segments };
            self.probes = self.probes.saturating_sub(1);
            if shrinks {
                self.gauge.let_one_pass();
            }
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            let mut made = core.poll_transmit(now, segments, &mut bytes);
            if made.is_some() {
                self.owed = None;
            } else if self.overdue().is_some_and(|due| due <= self.now) {
                made = self.answer(now, &mut bytes);
            }
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
            if shrinks {
                self.signs -= 1;
                self.hurry(now);
            }
        }
        None
    }

    /// When what came has to be acknowledged although the window is full.
    pub(super) fn overdue(&self) -> Option<u64> {
        self.owed.filter(|_| self.gauge.in_flight() > 0).map(|since| since + OWED)
    }

    /// A datagram past the window, with what is owed. Where there is data that the window holds back, the core holds
    /// back acknowledgements, too; two ends whose windows are full, of packets that are lost, would both wait for a
    /// probe time-out. (While the core's datagrams are larger than allowed they do: this one would be thrown away, and
    /// the acknowledgement with it.)
    fn answer(&mut self, now: Instant, bytes: &mut Vec<u8>) -> Option<proto::Transmit> {
        self.owed = None;
        let core = self.core.as_mut()?;
        if usize::from(core.current_mtu()) > self.allowed {
            return None;
        }
        self.gauge.let_one_pass();
        let made = core.poll_transmit(now, NonZeroUsize::MIN, bytes);
        self.gauge.let_none_pass();
        made
    }

    /// Gives a batch's memory back, to be used again.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() > self.scratch.capacity() {
            self.scratch = bytes;
        }
    }
}
