//! A connection's streams and datagrams.
//!
//! In: everything is taken out of the core as it arrives and put in order in an [`Inbox`]. The core takes that for
//! reading and gives credit for it; the connection's window shrinks by as much, so that in sum credit follows the
//! owner's reading. Out: what the core does not take at once waits in an [`Outbox`], streams taking turns.

use bytes::Bytes;
use noq_proto as proto;
use proto::{Dir, StreamId, VarInt, WriteError};

use crate::connection::{number, Connection};
use crate::events::Event;
use crate::outbox::{Fin, Outbox};
use crate::reassembly::{End, Inbox, Overflow, MEMORY};
use crate::{invalid, Checked, InvalidInput};

/// Streams whose reset is remembered, so that `finished` stays false for them.
const RESETS: usize = 1024;
/// The least that the core may hold unacknowledged; otherwise twice what may be in flight.
const SEND_WINDOW: u64 = 512 << 10;
/// Connection's windows that may arrive behind a gap. A peer that keeps to its credit needs one and a little.
const BEHIND_A_GAP: u64 = 2;
/// Shares of the connection's window in which its credit is corrected, while there is plenty.
const CREDIT_STEPS: u64 = 16;

impl Connection {
    // ---- checks ----

    /// A stream that exists or has existed, and that is ours to write (or to read).
    fn stream(&self, id: u64, to_write: bool) -> Checked<StreamId> {
        let Ok(wire) = VarInt::from_u64(id) else {
            return invalid("a stream's id is below 2**62");
        };
        let id = StreamId::from(wire);
        let ours = id.initiator() == self.side;
        if id.dir() == Dir::Uni && ours != to_write {
            return invalid(format!("stream {wire} is not one to {}", if to_write { "write to" } else { "read from" }));
        }
        let count = if ours { self.opened_by_us } else { self.opened_by_peer }[id.dir() as usize];
        if id.index() >= count {
            return invalid(format!("stream {wire} was never opened"));
        }
        Ok(id)
    }

    fn code(code: u64) -> Checked<VarInt> {
        VarInt::from_u64(code).map_err(|_| InvalidInput("code is below 2**62".into()))
    }

    // ---- in ----

    pub(crate) fn accept_streams(&mut self, dir: Dir) -> Result<(), Overflow> {
        while let Some(id) = self.core.as_mut().and_then(|c| c.streams().accept(dir)) {
            let stream = number(id);
            let count = &mut self.opened_by_peer[dir as usize];
            *count = (*count).max(id.index() + 1);
            self.inboxes.insert(stream, Inbox::new(&MEMORY));
            self.events.push_back(Event::Opened { stream, bidirectional: dir == Dir::Bi });
            self.drain(id)?;
        }
        Ok(())
    }

    /// Takes out of the core whatever it has of this stream.
    pub(crate) fn drain(&mut self, id: StreamId) -> Result<(), Overflow> {
        let stream = number(id);
        let (Some(core), Some(inbox)) = (self.core.as_mut(), self.inboxes.get_mut(&stream)) else {
            return Ok(());
        };
        if self.unread >= self.settings.connection_window && !inbox.has_gap() {
            // What the peer has credit for still is little: it may stay in the core. (Not so where there is a gap:
            // what fills it may be among it, and nothing can be read before.)
            self.stalled.insert(id);
            return Ok(());
        }
        let (held, available) = (inbox.held(), inbox.available());
        let result = take_out(core, id, inbox, BEHIND_A_GAP * self.settings.connection_window);
        self.unread = self.unread + inbox.held() - held;
        if let End::Reset(code) = inbox.end {
            self.forget(stream);
            self.events.push_back(Event::Reset { stream, code });
        } else if (inbox.available() > available || inbox.end == End::Finished) && !inbox.told {
            inbox.told = true;
            self.events.push_back(Event::Readable { stream });
        }
        result
    }

    /// Drops a stream that nothing more will be read from.
    fn forget(&mut self, stream: u64) {
        if let Some(inbox) = self.inboxes.remove(&stream) {
            self.unread -= inbox.held();
            self.resets.push_back(stream);
            if self.resets.len() > RESETS {
                self.resets.pop_front();
            }
        }
    }

    /// Keeps the credit that the peer has in step with what the owner has read.
    pub(crate) fn credit(&mut self) {
        let whole = self.settings.connection_window;
        self.held_back = MEMORY.scarce();
        let wanted = if self.held_back { 0 } else { whole.saturating_sub(self.unread) };
        let step = if wanted < whole / 4 { 1 } else { whole / CREDIT_STEPS };
        if wanted.abs_diff(self.window) < step && wanted != whole || wanted == self.window {
            return;
        }
        if let (Some(core), Ok(window)) = (self.core.as_mut(), VarInt::from_u64(wanted)) {
            core.set_receive_window(window);
            self.window = wanted;
        }
    }

    /// At most `limit` bytes in order, in pieces.
    pub fn read(&mut self, stream: u64, limit: usize) -> Checked<Vec<Bytes>> {
        self.stream(stream, false)?;
        let Some(inbox) = self.inboxes.get_mut(&stream) else {
            return Ok(Vec::new());
        };
        let parts = inbox.read(limit);
        self.unread -= parts.iter().map(|p| p.len() as u64).sum::<u64>();
        if inbox.finished() {
            self.inboxes.remove(&stream);
        }
        self.guarded((), |c| {
            if !c.stalled.is_empty() && c.unread < c.settings.connection_window {
                for id in std::mem::take(&mut c.stalled) {
                    if let Err(Overflow(reason)) = c.drain(id) {
                        c.overrun(reason);
                    }
                }
                c.pump();
            } else {
                c.credit();
            }
        });
        Ok(parts)
    }

    /// Whether everything was read and the peer has finished the stream. Not so for one that was reset.
    pub fn finished(&self, stream: u64) -> Checked<bool> {
        self.stream(stream, false)?;
        let gone = !self.closed && !self.resets.contains(&stream);
        Ok(self.inboxes.get(&stream).map_or(gone, Inbox::finished))
    }

    /// Asks the peer to stop writing; what arrives is discarded.
    pub fn stop(&mut self, stream: u64, code: u64) -> Checked<()> {
        let (id, code) = (self.stream(stream, false)?, Self::code(code)?);
        self.guarded((), |c| {
            if let Some(core) = c.core.as_mut() {
                let _ = core.recv_stream(id).stop(code);
            }
            c.forget(stream);
            c.pump();
        });
        Ok(())
    }

    // ---- out ----

    /// Opens a stream; `None` while the peer allows no more, or before it has said how many it allows.
    pub fn open_stream(&mut self, bidirectional: bool) -> Option<u64> {
        let dir = if bidirectional { Dir::Bi } else { Dir::Uni };
        self.guarded(None, |c| {
            if c.closed {
                return None;
            }
            let id = c.core.as_mut()?.streams().open(dir)?;
            c.opened_by_us[dir as usize] = id.index() + 1;
            if bidirectional {
                c.inboxes.insert(number(id), Inbox::new(&MEMORY));
            }
            Some(number(id))
        })
    }

    /// How many of the bytes were taken. 0 on a stream that was reset, stopped or finished.
    pub fn write(&mut self, stream: u64, data: &[u8]) -> Checked<usize> {
        let id = self.stream(stream, true)?;
        Ok(self.guarded(0, |c| c.take_writing(id, data)))
    }

    fn take_writing(&mut self, id: StreamId, data: &[u8]) -> usize {
        let stream = number(id);
        if self.closed || data.is_empty() {
            return 0;
        }
        let mut direct = 0;
        if self.turns.is_empty() && !self.outboxes.contains_key(&stream) {
            self.widen();
            match self.pass(id, data) {
                Ok(taken) if taken == data.len() => return taken,
                Ok(taken) => direct = taken,
                Err(_) => return 0,
            }
        } else if self.core.as_mut().is_none_or(|c| !matches!(c.send_stream(id).stopped(), Ok(None))) {
            return 0;
        }
        let outbox = self.outboxes.entry(stream).or_default();
        if outbox.fin == Fin::Wanted {
            return 0;
        }
        let taken = direct + outbox.put(&data[direct..], self.settings.send_buffer);
        outbox.short = taken < data.len();
        // until its turn, or the core's word that there is room (which it gives only after a write that took nothing)
        self.wake(stream);
        taken
    }

    /// Gives the core what it takes: less than all means that it promises to say when there is room.
    fn pass(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let Some(core) = self.core.as_mut() else { return Err(WriteError::Blocked) };
        let mut taken = 0;
        while taken < data.len() {
            match core.send_stream(id).write(&data[taken..]) {
                Ok(more) => taken += more,
                Err(WriteError::Blocked) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// As `pass`, without copying: what is left of `piece` the core does not take now.
    fn pass_on(&mut self, id: StreamId, piece: &mut Bytes) -> Result<(), WriteError> {
        let Some(core) = self.core.as_mut() else { return Ok(()) };
        while !piece.is_empty() {
            match core.send_stream(id).write_chunks(&mut std::slice::from_mut(piece)) {
                Ok(_) => {}
                Err(WriteError::Blocked) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn widen(&mut self) {
        let window = (2 * self.gauge.window()).max(SEND_WINDOW);
        if let Some(core) = self.core.as_mut() {
            core.set_send_window(window);
        }
    }

    /// The stream may have its turn.
    pub(crate) fn wake(&mut self, stream: u64) {
        if let Some(outbox) = self.outboxes.get_mut(&stream) {
            if !outbox.queued {
                outbox.queued = true;
                self.turns.push_back(stream);
            }
        }
    }

    /// Passes to the core what it takes now, a turn each.
    pub(crate) fn feed(&mut self) {
        if self.turns.is_empty() {
            return;
        }
        self.widen();
        while let Some(stream) = self.turns.pop_front() {
            let Some(mut outbox) = self.outboxes.remove(&stream) else { continue };
            outbox.queued = false;
            let Ok(wire) = VarInt::from_u64(stream) else { continue };
            if self.one_turn(StreamId::from(wire), &mut outbox) {
                self.keep(stream, outbox);
            }
        }
    }

    /// Whether the stream's outbox is still needed.
    fn one_turn(&mut self, id: StreamId, outbox: &mut Outbox) -> bool {
        while let Some(mut piece) = outbox.take() {
            if self.pass_on(id, &mut piece).is_err() {
                return false;
            }
            if !piece.is_empty() {
                outbox.put_back(piece);
                return true;
            }
            if !outbox.is_empty() && !self.turns.is_empty() {
                outbox.queued = true;
                return true;
            }
        }
        if outbox.fin == Fin::Wanted {
            if let Some(core) = self.core.as_mut() {
                let _ = core.send_stream(id).finish();
            }
            return false;
        }
        outbox.short
    }

    fn keep(&mut self, stream: u64, mut outbox: Outbox) {
        if outbox.short && outbox.len() <= self.settings.send_buffer / 2 {
            outbox.short = false;
            self.events.push_back(Event::Writable { stream });
        }
        if outbox.queued {
            self.turns.push_back(stream);
        }
        if !outbox.is_empty() || outbox.fin != Fin::No {
            self.outboxes.insert(stream, outbox);
        }
    }

    /// No more will be written.
    pub fn finish(&mut self, stream: u64) -> Checked<()> {
        let id = self.stream(stream, true)?;
        self.guarded((), |c| {
            if let Some(outbox) = c.outboxes.get_mut(&stream) {
                outbox.fin = Fin::Wanted;
                c.wake(stream);
            } else if let Some(core) = c.core.as_mut() {
                let _ = core.send_stream(id).finish();
            }
        });
        Ok(())
    }

    /// Ends our direction early; what was not delivered is discarded.
    pub fn reset(&mut self, stream: u64, code: u64) -> Checked<()> {
        let (id, code) = (self.stream(stream, true)?, Self::code(code)?);
        self.guarded((), |c| {
            c.outboxes.remove(&stream);
            if let Some(core) = c.core.as_mut() {
                let _ = core.send_stream(id).reset(code);
            }
        });
        Ok(())
    }

    /// Streams of a higher priority go first; all have 0 to begin with.
    pub fn set_priority(&mut self, stream: u64, priority: i32) -> Checked<()> {
        let id = self.stream(stream, true)?;
        self.guarded((), |c| {
            if let Some(core) = c.core.as_mut() {
                let _ = core.send_stream(id).set_priority(priority);
            }
        });
        Ok(())
    }

    // ---- datagrams ----

    /// Whether the datagram was queued.
    pub fn send_datagram(&mut self, data: &[u8]) -> bool {
        if self.closed || data.len() > self.datagram_room() {
            return false;
        }
        let (data, oldest) = (Bytes::copy_from_slice(data), self.settings.drop_oldest);
        self.guarded(false, |c| c.core.as_mut().is_some_and(|core| core.datagrams().send(data, oldest).is_ok()))
    }

    /// The next datagram that arrived.
    pub fn read_datagram(&mut self) -> Option<Bytes> {
        self.guarded(None, |c| c.core.as_mut()?.datagrams().recv())
    }

    /// The largest payload of a DATAGRAM frame that fits now; 0 if the peer takes none.
    pub fn datagram_room(&mut self) -> usize {
        let allowed = self.allowed;
        self.guarded(0, |c| {
            let Some(core) = c.core.as_mut() else { return 0 };
            let beyond = usize::from(core.current_mtu()).saturating_sub(allowed);
            core.datagrams().max_size().unwrap_or(0).saturating_sub(beyond)
        })
    }
}

fn take_out(core: &mut proto::Connection, id: StreamId, inbox: &mut Inbox, window: u64) -> Result<(), Overflow> {
    let mut stream = core.recv_stream(id);
    let Ok(mut chunks) = stream.read(false) else {
        return Ok(());
    };
    let result = loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => {
                if let Err(overflow) = inbox.put(chunk.offset, chunk.bytes, window) {
                    break Err(overflow);
                }
            }
            Ok(None) => {
                inbox.end = End::Finished;
                break Ok(());
            }
            Err(proto::ReadError::Reset(code)) => {
                inbox.end = End::Reset(code.into_inner());
                break Ok(());
            }
            Err(proto::ReadError::Blocked) => break Ok(()),
        }
    };
    let _ = chunks.finalize();
    result
}
