//! Which packet numbers authenticated.
//!
//! The core keeps packet numbers to itself, but it hands every one of them to the key that opens the packet. So the
//! keys are wrapped: each notes the number of what it has opened. Whether a packet was a duplicate the core's own
//! frame counters tell (a duplicate's frames are not looked at).

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use bytes::BytesMut;
use noq_proto as proto;
use proto::crypto::{
    CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session, UnsupportedVersion,
};
use proto::transport_parameters::TransportParameters;
use proto::{ConnectError, ConnectionId, PathId, Side, TransportError};

/// One packet number space: the largest number that was opened, plus one.
#[derive(Debug, Default)]
struct Space(AtomicU64);

/// What the keys of one connection have opened.
#[derive(Debug, Default)]
pub struct Opened {
    spaces: [Space; 3],
    newest: AtomicBool,
}

const INITIAL: usize = 0;
const HANDSHAKE: usize = 1;
const DATA: usize = 2;

impl Opened {
    /// Whether a packet was opened, since the last call, whose number was the largest of its space so far.
    pub fn take_newest(&self) -> bool {
        self.newest.swap(false, Relaxed)
    }

    fn note(&self, space: usize, number: u64) {
        if self.spaces[space].0.fetch_max(number + 1, Relaxed) < number + 1 {
            self.newest.store(true, Relaxed);
        }
    }
}

struct Key {
    inner: Box<dyn PacketKey>,
    opened: Arc<Opened>,
    space: usize,
}

impl PacketKey for Key {
    fn encrypt(&self, path: PathId, packet: u64, buf: &mut [u8], header_len: usize) {
        self.inner.encrypt(path, packet, buf, header_len);
    }

    fn decrypt(&self, path: PathId, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.inner.decrypt(path, packet, header, payload)?;
        #[cfg(any(test, fuzzing))]
        fuzzing::tamper(payload);
        self.opened.note(self.space, packet);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

/// What a peer may do who has the keys: for `fuzz/fuzz_targets/frames.rs` and tests, in no other build.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use std::cell::RefCell;

    use bytes::BytesMut;

    thread_local! {
        /// What the next packet's frames are overwritten with, from which byte on.
        pub static TAMPER: RefCell<Option<(usize, Vec<u8>)>> = const { RefCell::new(None) };
    }

    pub(super) fn tamper(payload: &mut BytesMut) {
        if let Some((at, bytes)) = TAMPER.take() {
            payload.truncate(at.min(payload.len()));
            payload.extend_from_slice(&bytes);
        }
    }
}

fn watched(keys: Keys, space: usize, opened: &Arc<Opened>) -> Keys {
    Keys { header: keys.header, packet: watched_pair(keys.packet, space, opened) }
}

fn watched_pair(pair: KeyPair<Box<dyn PacketKey>>, space: usize, opened: &Arc<Opened>) -> KeyPair<Box<dyn PacketKey>> {
    let remote = Key { inner: pair.remote, opened: opened.clone(), space };
    KeyPair { local: pair.local, remote: Box::new(remote) }
}

struct WatchedSession {
    inner: Box<dyn Session>,
    opened: Arc<Opened>,
    /// The space of the next keys that the handshake yields.
    next: usize,
}

impl Session for WatchedSession {
    fn initial_keys(&self, dst_cid: ConnectionId, side: Side) -> Keys {
        watched(self.inner.initial_keys(dst_cid, side), INITIAL, &self.opened)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    /// No 0-RTT: a replayed packet must never open anything.
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.inner.write_handshake(buf)?;
        let space = std::mem::replace(&mut self.next, DATA);
        Some(watched(keys, space, &self.opened))
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        Some(watched_pair(self.inner.next_1rtt_keys()?, DATA, &self.opened))
    }

    fn is_valid_retry(&self, orig_dst_cid: ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

/// A client's or a server's configuration for one connection, whose keys tell `opened` what they open.
pub(crate) struct Watched<C> {
    pub inner: C,
    pub opened: Arc<Opened>,
}

impl<C> Watched<C> {
    fn session(&self, inner: Box<dyn Session>) -> Box<dyn Session> {
        Box::new(WatchedSession { inner, opened: self.opened.clone(), next: HANDSHAKE })
    }
}

impl<C: proto::crypto::ClientConfig> proto::crypto::ClientConfig for Watched<C> {
    fn start_session(
        &self,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(self.session(self.inner.start_session(version, server_name, params)?))
    }
}

impl<C: proto::crypto::ServerConfig> proto::crypto::ServerConfig for Watched<C> {
    fn initial_keys(&self, version: u32, dst_cid: ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(watched(self.inner.initial_keys(version, dst_cid)?, INITIAL, &self.opened))
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.inner.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(&self, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        self.session(self.inner.start_session(version, params))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_largest_number_of_a_space_is_new() {
        let o = Opened::default();
        let newest = |space, number| {
            o.note(space, number);
            o.take_newest()
        };
        assert!(newest(DATA, 0));
        assert!(!newest(DATA, 0), "a duplicate");
        assert!(newest(DATA, 5));
        assert!(!newest(DATA, 3), "late");
        assert!(newest(HANDSHAKE, 0), "another space");
        assert!(!o.take_newest());
    }
}
