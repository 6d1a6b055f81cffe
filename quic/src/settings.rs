//! Transport settings: checked once, then frozen.

use std::sync::Arc;
use std::time::Duration;

use noq_proto as proto;
use proto::VarInt;

use crate::gauge::{Gauge, Kind, Order};
use crate::{invalid, Checked, InvalidInput};

/// No datagram is smaller than what QUIC demands of every path (RFC 9000, section 14).
pub const SMALLEST: u16 = 1200;
/// QUIC version 1, and no draft of it.
pub const VERSION: u32 = 1;
/// Above it there is no network; the bound keeps a batch of one datagram within 65,000 bytes.
pub const LARGEST: u16 = 9200;
/// One buffer of datagrams never has more bytes: what one `sendmsg` with segmentation takes.
pub const BATCH: usize = 65_000;
/// How often the core looks whether larger datagrams pass, when they are allowed and not in use.
const SEARCH: Duration = Duration::from_secs(120);
/// How long after a black hole it looks again.
const SEARCH_AFTER_BLACK_HOLE: Duration = Duration::from_secs(10);
/// Steps of that search: the difference of 1444 and 1392.
const SEARCH_STEP: u16 = 52;
/// DATAGRAM frames that arrived and were not read; the oldest are dropped beyond.
const DATAGRAMS_UNREAD: usize = 1 << 20;

/// How connections are set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Seconds without a packet after which the connection is closed; 0: never.
    pub idle_timeout: f64,
    /// Seconds of idleness after which a PING is sent; 0: never.
    pub keep_alive: f64,
    /// UDP payload of our datagrams, the caller's header not counted.
    pub size: u16,
    /// The largest `size` that `resize` may ever ask for.
    pub largest: u16,
    /// Bytes that the peer may send on one stream beyond what has arrived (RFC 9000's stream flow control).
    pub stream_window: u64,
    /// Bytes that may have arrived on all streams and not been read: the peer's credit follows the reading.
    pub connection_window: u64,
    /// Streams of each kind that the peer may have open at once.
    pub streams: u32,
    /// Whether DATAGRAM frames are offered and sent (RFC 9221).
    pub datagrams: bool,
    /// Bytes that `write` takes on one stream beyond what the core is sending.
    pub send_buffer: usize,
    /// Bytes of DATAGRAM frames that wait.
    pub datagram_queue: usize,
    /// What gives way when that queue is full: the oldest in it, or the new one.
    pub drop_oldest: bool,
    /// Which congestion controller.
    pub controller: Kind,
    /// Makes connection ids and packet numbers repeatable, for tests only.
    pub seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle_timeout: 30.0,
            keep_alive: 0.0,
            size: 1224,
            largest: 1444,
            stream_window: 16 << 20,
            connection_window: 64 << 20,
            streams: 128,
            datagrams: false,
            send_buffer: 1 << 20,
            datagram_queue: 65_536,
            drop_oldest: false,
            controller: Kind::Model,
            seed: None,
        }
    }
}

fn seconds(name: &str, value: f64) -> Checked<Option<Duration>> {
    if !(0.0..=1e9).contains(&value) {
        return invalid(format!("{name} is seconds, from 0 (never) to 1e9"));
    }
    Ok((value > 0.0).then(|| Duration::from_secs_f64(value)))
}

fn window(name: &str, value: u64) -> Checked<VarInt> {
    if !(65_536..=1 << 40).contains(&value) {
        return invalid(format!("{name} is bytes, from 65536 to {}", 1u64 << 40));
    }
    VarInt::from_u64(value).map_err(|e| InvalidInput(format!("{name}: {e}")))
}

impl Settings {
    /// Says what is wrong, if anything is.
    pub fn check(&self) -> Checked<()> {
        seconds("idle_timeout", self.idle_timeout)?;
        seconds("keep_alive", self.keep_alive)?;
        window("stream_window", self.stream_window)?;
        window("connection_window", self.connection_window)?;
        if !(SMALLEST..=LARGEST).contains(&self.size) {
            return invalid(format!("size is bytes of a datagram, from {SMALLEST} to {LARGEST}"));
        }
        if !(self.size..=LARGEST).contains(&self.largest) {
            return invalid(format!("largest is bytes of a datagram, from size ({}) to {LARGEST}", self.size));
        }
        if self.streams > 100_000 {
            return invalid("streams is at most 100000");
        }
        if !(4096..=1 << 30).contains(&self.send_buffer) {
            return invalid(format!("send_buffer is bytes, from 4096 to {}", 1 << 30));
        }
        if self.datagram_queue > 1 << 30 {
            return invalid(format!("datagram_queue is bytes, at most {}", 1 << 30));
        }
        Ok(())
    }

    /// What the core wants, with `gauge` as the only door to its congestion controller.
    ///
    /// Off, by the core's defaults or here: multipath, NAT traversal, reports of addresses, migration of the server
    /// during the handshake.
    pub(crate) fn transport(&self, gauge: Arc<Gauge>) -> Checked<proto::TransportConfig> {
        self.check()?;
        let mut t = proto::TransportConfig::default();
        let idle = seconds("idle_timeout", self.idle_timeout)?.map(proto::IdleTimeout::try_from).transpose();
        t.max_idle_timeout(idle.map_err(|e| InvalidInput(format!("idle_timeout: {e}")))?)
            .keep_alive_interval(seconds("keep_alive", self.keep_alive)?)
            .stream_receive_window(window("stream_window", self.stream_window)?)
            .receive_window(window("connection_window", self.connection_window)?)
            .max_concurrent_bidi_streams(self.streams.into())
            .max_concurrent_uni_streams(self.streams.into())
            .datagram_receive_buffer_size(self.datagrams.then_some(DATAGRAMS_UNREAD))
            .datagram_send_buffer_size(self.datagram_queue)
            .initial_mtu(self.size)
            .min_mtu(SMALLEST)
            .mtu_discovery_config(self.search())
            .server_handshake_migration(false)
            .send_observed_address_reports(false)
            .receive_observed_address_reports(false)
            .congestion_controller_factory(Arc::new(Order { kind: self.controller, gauge }));
        Ok(t)
    }

    fn search(&self) -> Option<proto::MtuDiscoveryConfig> {
        let mut search = proto::MtuDiscoveryConfig::default();
        search
            .upper_bound(self.largest)
            .interval(SEARCH)
            .black_hole_cooldown(SEARCH_AFTER_BLACK_HOLE)
            .minimum_change(SEARCH_STEP);
        Some(search)
    }

    /// The first byte of a datagram tells QUIC from the caller's packets: the QUIC bit is never greased (RFC 9287).
    pub(crate) fn endpoint(&self) -> Checked<proto::EndpointConfig> {
        let mut e = proto::EndpointConfig::default();
        e.grease_quic_bit(false).supported_versions(vec![VERSION]);
        e.max_udp_payload_size(self.largest.max(1472)).map_err(|e| InvalidInput(format!("largest: {e}")))?;
        if let Some(seed) = self.seed {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            e.rng_seed(Some(bytes));
        }
        Ok(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        Settings::default().check().unwrap();
    }

    #[test]
    fn what_the_core_would_stumble_over_is_refused() {
        let base = Settings::default;
        for (what, bad) in [
            ("idle_timeout", Settings { idle_timeout: -1.0, ..base() }),
            ("idle_timeout", Settings { idle_timeout: f64::NAN, ..base() }),
            ("idle_timeout", Settings { idle_timeout: f64::INFINITY, ..base() }),
            ("keep_alive", Settings { keep_alive: 1e30, ..base() }),
            ("size", Settings { size: 1199, ..base() }),
            ("largest", Settings { largest: 1223, ..base() }),
            ("stream_window", Settings { stream_window: 0, ..base() }),
            ("connection_window", Settings { connection_window: u64::MAX, ..base() }),
            ("streams", Settings { streams: u32::MAX, ..base() }),
            ("send_buffer", Settings { send_buffer: 0, ..base() }),
            ("datagram_queue", Settings { datagram_queue: usize::MAX, ..base() }),
        ] {
            let text = bad.check().unwrap_err().0;
            assert!(text.contains(what), "{text}");
            assert!(bad.transport(Gauge::new()).is_err());
        }
    }
}
