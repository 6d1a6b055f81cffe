//! A stream's bytes on their way in.
//!
//! The core ends the whole connection when more than 2,048 chunks of one stream wait in it, behind a gap or merely
//! unread ("too many gaps in stream buffer"): one loss with enough small packets behind it would do. So whatever
//! arrives is taken out of the core at once, in whatever order, and put in order here. What bounds it:
//!
//! * bytes behind a gap, per stream: twice `connection_window`; gaps, per stream: [`GAPS`]. Whoever exceeds them sends gaps on
//!   purpose, and loses his own connection;
//! * bytes unread, per connection: `connection_window`; the peer's credit shrinks as they grow (`connection.rs`);
//! * both, for the process: [`Memory`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

/// Gaps that one stream may have. Every other one of 16,000 small packets may be lost; each further gap would make
/// every insertion in the core dearer.
pub const GAPS: usize = 8192;
/// What keeping a chunk costs beside its bytes.
const OVERHEAD: u64 = 128;
/// A chunk smaller than this is copied, so that it does not keep the whole datagram that it came in.
const SMALL: usize = 512;

/// Bytes that all streams of this process hold unread, counted against a limit.
#[derive(Debug)]
pub struct Memory {
    used: AtomicU64,
    limit: AtomicU64,
}

/// The process's own.
pub static MEMORY: Memory = Memory { used: AtomicU64::new(0), limit: AtomicU64::new(256 << 20) };

impl Memory {
    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Sets the limit. Above it no peer gets further credit; at twice the limit, which credit already given may
    /// reach, a connection that brings more is closed.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Relaxed);
    }

    /// Whether no further credit should be given.
    pub fn scarce(&self) -> bool {
        self.used() > self.limit.load(Relaxed)
    }

    fn exhausted(&self) -> bool {
        self.used() > self.limit.load(Relaxed).saturating_mul(2)
    }
}

/// The peer sends gaps on purpose, or the process has no memory left for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow(pub &'static str);

/// How the peer's direction ended, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More may come.
    Open,
    /// Everything has arrived.
    Finished,
    /// The peer gave up, with this code.
    Reset(u64),
}

/// One stream's incoming bytes.
#[derive(Debug)]
pub struct Inbox {
    memory: &'static Memory,
    next: u64,
    behind: BTreeMap<u64, Bytes>,
    behind_bytes: u64,
    runs: usize,
    ready: VecDeque<Bytes>,
    ready_bytes: u64,
    charged: u64,
    /// How the peer's direction ended.
    pub end: End,
    /// Whether the owner has been told of what is there.
    pub told: bool,
}

impl Inbox {
    /// An empty one that counts against `memory`.
    pub fn new(memory: &'static Memory) -> Self {
        Self {
            memory,
            next: 0,
            behind: BTreeMap::new(),
            behind_bytes: 0,
            runs: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            charged: 0,
            end: End::Open,
            told: false,
        }
    }

    /// Bytes held, in order or not.
    pub fn held(&self) -> u64 {
        self.ready_bytes + self.behind_bytes
    }

    /// Whether something is missing in front of what has arrived.
    pub fn has_gap(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Bytes that `read` can give now.
    pub fn available(&self) -> u64 {
        self.ready_bytes
    }

    /// Whether everything that the peer wrote has been read.
    pub fn finished(&self) -> bool {
        self.end == End::Finished && self.ready_bytes == 0 && self.behind.is_empty()
    }

    /// Takes a chunk that the core has never given before. `window`: bytes that may be behind a gap.
    pub fn put(&mut self, offset: u64, bytes: Bytes, window: u64) -> Result<(), Overflow> {
        let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
        self.charge(bytes.len() as u64 + OVERHEAD);
        if offset == self.next {
            self.append(bytes);
            self.close_gap();
        } else {
            self.keep(offset, bytes);
        }
        if self.behind_bytes > window || self.runs > GAPS {
            return Err(Overflow("too many gaps in a stream"));
        }
        if self.memory.exhausted() {
            return Err(Overflow("no memory for unread streams"));
        }
        Ok(())
    }

    fn append(&mut self, bytes: Bytes) {
        self.next += bytes.len() as u64;
        self.ready_bytes += bytes.len() as u64;
        self.ready.push_back(bytes);
    }

    /// A *run* is a stretch of chunks without a gap between them.
    fn keep(&mut self, offset: u64, bytes: Bytes) {
        let end = offset + bytes.len() as u64;
        let before = self.behind.range(..offset).next_back().is_some_and(|(o, b)| o + b.len() as u64 == offset);
        let after = self.behind.contains_key(&end);
        self.runs = self.runs + 1 - usize::from(before) - usize::from(after);
        self.behind_bytes += bytes.len() as u64;
        self.behind.insert(offset, bytes);
    }

    fn close_gap(&mut self) {
        let mut closed = false;
        while let Some(entry) = self.behind.first_entry() {
            if *entry.key() != self.next {
                break;
            }
            let bytes = entry.remove();
            self.behind_bytes -= bytes.len() as u64;
            self.append(bytes);
            closed = true;
        }
        self.runs -= usize::from(closed);
    }

    /// At most `limit` bytes, in order, in the pieces that they arrived in.
    pub fn read(&mut self, limit: usize) -> Vec<Bytes> {
        let (mut parts, mut left) = (Vec::new(), limit);
        while left > 0 {
            let Some(front) = self.ready.front_mut() else { break };
            if front.len() > left {
                parts.push(front.split_to(left));
                left = 0;
            } else {
                left -= front.len();
                parts.extend(self.ready.pop_front());
                self.release(OVERHEAD);
            }
        }
        let taken = (limit - left) as u64;
        self.ready_bytes -= taken;
        self.release(taken);
        self.told = false;
        parts
    }

    /// Forgets what was not read.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.behind.clear();
        (self.ready_bytes, self.behind_bytes, self.runs) = (0, 0, 0);
        self.release(self.charged);
    }

    fn charge(&mut self, bytes: u64) {
        self.charged += bytes;
        self.memory.used.fetch_add(bytes, Relaxed);
    }

    fn release(&mut self, bytes: u64) {
        self.charged -= bytes;
        self.memory.used.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.release(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 1 << 20;

    fn memory(limit: u64) -> &'static Memory {
        Box::leak(Box::new(Memory { used: AtomicU64::new(0), limit: AtomicU64::new(limit) }))
    }

    fn text(parts: &[Bytes]) -> String {
        parts.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect()
    }

    fn put(inbox: &mut Inbox, offset: u64, bytes: &'static [u8]) {
        inbox.put(offset, Bytes::from_static(bytes), WINDOW).unwrap();
    }

    #[test]
    fn chunks_come_out_in_order_however_they_came() {
        let mut i = Inbox::new(memory(1 << 20));
        put(&mut i, 6, b"world");
        put(&mut i, 3, b"lo ");
        assert_eq!(i.available(), 0);
        assert_eq!(i.runs, 1);
        put(&mut i, 0, b"hel");
        assert_eq!((i.available(), i.runs, i.behind_bytes), (11, 0, 0));
        assert_eq!(text(&i.read(4)), "hell");
        assert_eq!(text(&i.read(100)), "o world");
        assert!(i.read(100).is_empty());
    }

    #[test]
    fn it_is_finished_when_all_was_read_and_not_before() {
        let mut i = Inbox::new(memory(1 << 20));
        put(&mut i, 0, b"x");
        i.end = End::Finished;
        assert!(!i.finished());
        i.read(1);
        assert!(i.finished());
    }

    #[test]
    fn five_thousand_small_chunks_behind_one_gap_are_one_run() {
        let mut i = Inbox::new(memory(1 << 24));
        for n in (1..5001u64).rev() {
            put(&mut i, n, b"x");
        }
        assert_eq!(i.runs, 1);
        put(&mut i, 0, b"y");
        assert_eq!((i.available(), i.runs), (5001, 0));
    }

    #[test]
    fn gaps_on_purpose_overflow() {
        let mut i = Inbox::new(memory(1 << 24));
        for n in 0..GAPS as u64 {
            put(&mut i, 1 + 2 * n, b"x");
        }
        assert!(i.put(1 + 2 * GAPS as u64, Bytes::from_static(b"x"), WINDOW).is_err());
    }

    #[test]
    fn more_than_the_window_behind_a_gap_overflows() {
        let mut i = Inbox::new(memory(1 << 24));
        assert!(i.put(1, Bytes::from(vec![0; 1000]), 1000).is_ok());
        assert!(i.put(1001, Bytes::from_static(b"x"), 1000).is_err());
    }

    #[test]
    fn memory_is_given_back_by_reading_by_clearing_and_by_dropping() {
        let m = memory(1 << 20);
        for how in 0..3 {
            let mut i = Inbox::new(m);
            put(&mut i, 0, b"abc");
            put(&mut i, 9, b"def");
            assert!(m.used() > 6);
            match how {
                0 => {
                    put(&mut i, 3, b"______");
                    i.read(100);
                    assert_eq!(m.used(), 0);
                }
                1 => {
                    i.clear();
                    assert_eq!(m.used(), 0);
                }
                _ => {}
            }
            drop(i);
            assert_eq!(m.used(), 0);
        }
    }

    #[test]
    fn a_process_without_memory_refuses_at_twice_its_limit() {
        let m = memory(1000);
        let mut i = Inbox::new(m);
        i.put(0, Bytes::from(vec![0; 1500]), WINDOW).unwrap();
        assert!(m.scarce());
        assert!(i.put(1500, Bytes::from(vec![0; 600]), WINDOW).is_err());
    }
}
