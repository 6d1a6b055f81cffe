//! What happens to a connection's path, and what is known of it.

use std::time::Instant;

use noq_proto as proto;
use proto::PathId;

use crate::connection::Connection;
use crate::settings::SMALLEST;
use crate::{invalid, Checked};

/// Losses apart of large packets, and some more than the core needs (four), should probes get lost.
const SIGNS: u8 = 6;
/// Datagrams that follow a wish to probe, each a batch of its own. The core fits a batch to its first datagram: behind one
/// as small as a PING what else there is to say has no room, and it fills the batch with empty packets.
const PROBES: u8 = 2;
/// Probe time-outs that time is moved forward for one of them to be over, and not two.
const HURRIED: f64 = 1.5;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathChange {
    /// Another path: what is in flight is lost without a congestion event; round trip and controller start anew.
    Moved,
    /// The same path through another port: no back-off, one probe.
    Rebound,
    /// The path works again after a silence: as `Rebound`.
    Resumed,
}

/// A connection's figures: seconds, bytes, bytes a second, counters since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    pub round_trip: f64,
    pub smallest_round_trip: f64,
    pub window: u64,
    pub in_flight: u64,
    pub rate: f64,
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub congestion_events: u64,
    pub phase: &'static str,
    pub size: u16,
    pub black_holes: u64,
    pub unread: u64,
}

impl Connection {
    /// Tells the connection what happened to its path, and probes.
    ///
    /// After a move the round trip of the core's own loss detection adapts from the old path's, sample by sample;
    /// the controller's, and what `pto` and `statistics` say, start anew.
    pub fn path_changed(&mut self, now: u64, kind: PathChange) -> Checked<()> {
        let now = self.at(now)?;
        if kind == PathChange::Moved {
            self.gauge.start_anew();
        }
        self.guarded((), |c| c.ask(now));
        Ok(())
    }

    /// Sends something that has to be acknowledged, now and past the window: new data or what is to be sent again,
    /// a PING if there is neither.
    pub fn probe(&mut self, now: u64) -> Checked<()> {
        let now = self.at(now)?;
        self.guarded((), |c| c.ask(now));
        Ok(())
    }

    fn ask(&mut self, now: Instant) {
        let Some(core) = self.core.as_mut() else { return };
        if core.is_closed() {
            return;
        }
        self.gauge.let_one_pass();
        self.probes = PROBES;
        // forgets the back-off and asks for a PING
        core.handle_network_change(None, now);
        // Then the timer, no longer backed off, may be due. At `now` the core would make up for every time-out since
        // the last packet, two probes each.
        if let Some(due) = core.poll_timeout().filter(|due| *due <= now) {
            core.handle_timeout(due);
        }
        self.pump();
    }

    /// Datagrams may have `size` bytes from now on, the header not counted.
    ///
    /// The core has no such call. Less: datagrams that are larger are not sent, and after a handful of losses, which
    /// [`Connection::hurry`] makes known within a round trip, the core falls back to 1200 bytes and searches upwards.
    /// More, up to `largest`: it finds out by itself, within two minutes.
    pub fn resize(&mut self, size: u16) -> Checked<()> {
        if !(SMALLEST..=self.settings.largest).contains(&size) {
            return invalid(format!("size is bytes of a datagram, from {SMALLEST} to {}", self.settings.largest));
        }
        self.allowed = usize::from(size);
        self.signs = SIGNS;
        self.gauge.forget_large_lost();
        Ok(())
    }

    /// A datagram that is too large has just been thrown away: probe as if the probe time-out were over.
    ///
    /// The core believes that the path takes less when it has seen several losses *apart* of large packets, and
    /// nothing but its probes is small enough to arrive between them: two with each time-out, so that a flow that
    /// sends little waits for four time-outs and round trips (0.4 to 0.7 s at 50 ms). Here they follow at once, large,
    /// probes, large, probes …, and all of it is known when the probes are acknowledged. Time that is moved forward
    /// also ends a connection that is idle, by that little too early.
    pub(crate) fn hurry(&mut self, now: Instant) {
        let ahead = self.gauge.pto().mul_f64(HURRIED);
        if let Some(core) = self.core.as_mut().filter(|c| !c.is_handshaking() && !c.is_closed()) {
            core.handle_network_change(None, now); // no back-off
            core.handle_timeout(now + ahead);
        }
    }

    /// The probe time-out without back-off, in seconds.
    pub fn pto(&self) -> f64 {
        self.gauge.pto().as_secs_f64()
    }

    /// Whether the path has given a round-trip sample since the start or the last move.
    pub fn sampled(&self) -> bool {
        self.gauge.sampled()
    }

    /// Whether anything ack-eliciting is unacknowledged.
    pub fn in_flight(&self) -> bool {
        self.gauge.in_flight() > 0
    }

    /// Packets above 1224 bytes lost since one was acknowledged, or the size was changed.
    pub fn large_lost(&self) -> u64 {
        self.gauge.large_lost()
    }

    pub fn statistics(&mut self) -> Statistics {
        let path = self.guarded(None, |c| c.core.as_mut()?.path_stats(PathId::ZERO));
        let path: proto::PathStats = path.unwrap_or_default();
        Statistics {
            round_trip: self.gauge.round_trip().as_secs_f64(),
            smallest_round_trip: self.gauge.smallest_round_trip().as_secs_f64(),
            window: self.gauge.window(),
            in_flight: self.gauge.in_flight(),
            rate: self.gauge.rate() as f64,
            sent: path.sent_packets,
            received: path.udp_rx.datagrams,
            lost: path.lost_packets,
            congestion_events: path.congestion_events,
            phase: self.gauge.phase(),
            size: path.current_mtu,
            black_holes: path.black_holes_detected,
            unread: self.unread,
        }
    }
}
