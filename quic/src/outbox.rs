//! A stream's bytes on their way out.
//!
//! The core keeps what was written until it is acknowledged, all streams in one window. That window is kept at about
//! twice what may be in flight, and what a stream was given beyond waits here, in a queue of its own: so no stream
//! that writes much fills what another one needs, and a small write never waits for more than its turn.

use std::collections::VecDeque;

use bytes::Bytes;

/// What one stream may pass to the core before it is the next one's turn.
pub const TURN: usize = 65_536;
/// Writes up to this size share a chunk.
const SHARED: usize = 16_384;

/// Whether, and how far, our direction was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fin {
    /// More may be written.
    No,
    /// As soon as the queue is empty.
    Wanted,
}

/// One stream's outgoing bytes.
#[derive(Debug)]
pub struct Outbox {
    chunks: VecDeque<Bytes>,
    tail: Vec<u8>,
    bytes: usize,
    /// Whether the stream is to be finished behind what waits.
    pub fin: Fin,
    /// The last write was not taken whole: its writer waits to be told.
    pub short: bool,
    /// It waits for its turn.
    pub queued: bool,
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Self {
        Self { chunks: VecDeque::new(), tail: Vec::new(), bytes: 0, fin: Fin::No, short: false, queued: false }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Keeps as much of `data` as fits below `limit`, and says how much that was.
    pub fn put(&mut self, data: &[u8], limit: usize) -> usize {
        let taken = data.len().min(limit.saturating_sub(self.bytes));
        let data = &data[..taken];
        self.bytes += taken;
        if self.tail.len() + taken <= SHARED {
            self.tail.extend_from_slice(data);
        } else {
            self.seal();
            self.chunks.push_back(Bytes::copy_from_slice(data));
        }
        taken
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).into());
        }
    }

    /// The next piece, of one turn at most; what is not used of it comes back by `put_back`.
    pub fn take(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        let front = self.chunks.front_mut()?;
        let piece = if front.len() > TURN { front.split_to(TURN) } else { self.chunks.pop_front()? };
        self.bytes -= piece.len();
        Some(piece)
    }

    /// The rest of what `take` gave.
    pub fn put_back(&mut self, rest: Bytes) {
        if !rest.is_empty() {
            self.bytes += rest.len();
            self.chunks.push_front(rest);
        }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(o: &mut Outbox) -> Vec<u8> {
        std::iter::from_fn(|| o.take()).flatten().collect()
    }

    #[test]
    fn it_takes_what_fits_and_gives_it_back_in_order() {
        let mut o = Outbox::new();
        assert_eq!(o.put(b"hello ", 100), 6);
        assert_eq!(o.put(&[b'x'; 200], 100), 94);
        assert_eq!(o.put(b"y", 100), 0);
        assert_eq!(o.len(), 100);
        assert_eq!(drain(&mut o), [b"hello ".to_vec(), vec![b'x'; 94]].concat());
        assert!(o.is_empty());
    }

    #[test]
    fn small_and_large_writes_keep_their_order() {
        let mut o = Outbox::new();
        let mut all = Vec::new();
        for (n, size) in [10, 20_000, 3, 70_000, 1, 16_384, 5].into_iter().enumerate() {
            let data = vec![n as u8; size];
            assert_eq!(o.put(&data, 1 << 20), size);
            all.extend(data);
        }
        assert_eq!(drain(&mut o), all);
    }

    #[test]
    fn a_turn_is_bounded_and_its_rest_comes_first() {
        let mut o = Outbox::new();
        o.put(&vec![1; TURN + 1], 1 << 20);
        let mut piece = o.take().unwrap();
        assert_eq!(piece.len(), TURN);
        let sent = piece.split_to(10);
        o.put_back(piece);
        assert_eq!((sent.len(), o.len()), (10, TURN - 9));
        assert_eq!(drain(&mut o).len(), TURN - 9);
    }
}
