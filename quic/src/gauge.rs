//! What stands between the core and a congestion controller, whichever one it is.
//!
//! The core tells its controller of every packet sent, acknowledged and lost, and tells nobody else. So the gauge is
//! the controller that the core sees; it keeps what the owner of the connection asks for (round trip, in flight,
//! large packets lost), passes the news on to the controller inside, and takes two orders that the core has no call
//! for: *start anew* (another path: what is in flight counts as lost without being anybody's fault) and *let one
//! packet past the window*.
//!
//! Everything runs under the connection's lock; the fields are atomic only because a controller has to be `Sync`.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use noq_proto::RttEstimator;

use crate::controller;

/// Which controller sits inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours: see [`crate::controller`].
    Model,
    /// The core's CUBIC (RFC 9438).
    Cubic,
}

/// Packets above this many bytes are *large*: smaller ones pass wherever QUIC does.
pub const LARGE: u16 = 1224;

/// What is assumed of a path before its first sample (RFC 9002, section 6.2.2).
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(333);
/// What the peer may wait before it acknowledges: QUIC's default, which both engines use.
const ACK_DELAY: Duration = Duration::from_millis(25);
/// The least variation that a probe time-out allows for (RFC 9002, section 6.1.2).
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);
/// A rate that nothing is paced by.
const UNPACED: u64 = 1 << 40;

/// What a connection knows of its path.
#[derive(Debug)]
pub struct Gauge {
    start_anew: AtomicBool,
    let_one_pass: AtomicBool,
    in_flight: AtomicU64,
    large_lost: AtomicU64,
    sampled: AtomicBool,
    smoothed: AtomicU64,
    variation: AtomicU64,
    smallest: AtomicU64,
    window: AtomicU64,
    rate: AtomicU64,
    phase: Arc<AtomicU8>,
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Gauge {
    /// A path of which nothing is known.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start_anew: AtomicBool::new(false),
            let_one_pass: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            large_lost: AtomicU64::new(0),
            sampled: AtomicBool::new(false),
            smoothed: AtomicU64::new(nanos(FIRST_ROUND_TRIP)),
            variation: AtomicU64::new(nanos(FIRST_ROUND_TRIP) / 2),
            smallest: AtomicU64::new(u64::MAX),
            window: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            phase: Arc::default(),
        })
    }

    /// Another path: before the next packet the controller starts anew.
    pub fn start_anew(&self) {
        self.start_anew.store(true, Relaxed);
        self.sampled.store(false, Relaxed);
        self.smallest.store(u64::MAX, Relaxed);
        self.large_lost.store(0, Relaxed);
    }

    /// The next packet may leave past window and pacer.
    pub fn let_one_pass(&self) {
        self.let_one_pass.store(true, Relaxed);
    }

    /// There was none that wanted to.
    pub fn let_none_pass(&self) {
        self.let_one_pass.store(false, Relaxed);
    }

    /// Ack-eliciting bytes that are unacknowledged.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Large packets lost since one was acknowledged.
    pub fn large_lost(&self) -> u64 {
        self.large_lost.load(Relaxed)
    }

    /// What large packets do has to show itself anew.
    pub fn forget_large_lost(&self) {
        self.large_lost.store(0, Relaxed);
    }

    /// Whether this path has given a round-trip sample.
    pub fn sampled(&self) -> bool {
        self.sampled.load(Relaxed)
    }

    /// Smoothed round trip.
    pub fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.smoothed.load(Relaxed))
    }

    /// Smallest round trip of this path; the smoothed one before there is any.
    pub fn smallest_round_trip(&self) -> Duration {
        match self.smallest.load(Relaxed) {
            u64::MAX => self.round_trip(),
            smallest => Duration::from_nanos(smallest),
        }
    }

    /// The probe time-out without back-off (RFC 9002, section 6.2.1).
    pub fn pto(&self) -> Duration {
        let variation = Duration::from_nanos(self.variation.load(Relaxed));
        self.round_trip() + (variation * 4).max(TIMER_GRANULARITY) + ACK_DELAY
    }

    /// Bytes that may be in flight.
    pub fn window(&self) -> u64 {
        self.window.load(Relaxed)
    }

    /// Estimated rate of delivery, bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate.load(Relaxed)
    }

    /// The controller's phase, in a word.
    pub fn phase(&self) -> &'static str {
        controller::PHASES.get(usize::from(self.phase.load(Relaxed))).copied().unwrap_or("cubic")
    }

    fn sample(&self, round_trip: Duration) {
        let sample = nanos(round_trip);
        self.smallest.fetch_min(sample, Relaxed);
        if !self.sampled.swap(true, Relaxed) {
            self.smoothed.store(sample, Relaxed);
            self.variation.store(sample / 2, Relaxed);
            return;
        }
        let (smoothed, variation) = (self.smoothed.load(Relaxed), self.variation.load(Relaxed));
        self.variation.store((3 * variation + smoothed.abs_diff(sample)) / 4, Relaxed);
        self.smoothed.store((7 * smoothed + sample) / 8, Relaxed);
    }
}

/// Builds gauged controllers for one connection; the core asks for one at the start and at a migration.
#[derive(Debug)]
pub(crate) struct Order {
    pub kind: Kind,
    pub gauge: Arc<Gauge>,
}

impl Kind {
    fn build(self, now: Instant, mtu: u16, gauge: &Gauge) -> Box<dyn Controller> {
        match self {
            Self::Model => Arc::new(controller::Config { phase: gauge.phase.clone() }).build(now, mtu),
            Self::Cubic => {
                gauge.phase.store(u8::MAX, Relaxed);
                Arc::new(CubicConfig::default()).build(now, mtu)
            }
        }
    }
}

impl ControllerFactory for Order {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let inner = self.kind.build(now, mtu, &self.gauge);
        self.gauge.sampled.store(false, Relaxed);
        let mut gauged = Gauged {
            inner,
            kind: self.kind,
            gauge: self.gauge.clone(),
            mtu,
            last: None,
            first: 0,
            stale: 0,
            newest: None,
        };
        gauged.publish();
        Box::new(gauged)
    }
}

/// The controller that the core sees.
#[derive(Debug)]
struct Gauged {
    inner: Box<dyn Controller>,
    kind: Kind,
    gauge: Arc<Gauge>,
    mtu: u16,
    /// Number of the last packet sent.
    last: Option<u64>,
    /// The first packet sent on this path; what has a smaller number was sent on the path before.
    first: u64,
    /// Bytes of those before that the core still counts as in flight. They take none of the new path's window.
    stale: u64,
    /// When the newest packet was sent that this batch of acknowledgements covers.
    newest: Option<Instant>,
}

impl Gauged {
    fn start_anew(&mut self, now: Instant, number: u64) {
        self.inner = self.kind.build(now, self.mtu, &self.gauge);
        self.first = number;
        self.stale = self.gauge.in_flight();
        self.newest = None;
    }

    /// Whether this packet was sent on the path before; if so it is off the books.
    fn was_before(&mut self, number: u64, bytes: u64) -> bool {
        if number < self.first {
            self.stale = self.stale.saturating_sub(bytes);
            return true;
        }
        false
    }

    fn left(&self, bytes: u64) {
        let flying = self.gauge.in_flight();
        self.gauge.in_flight.store(flying.saturating_sub(bytes), Relaxed);
    }

    fn publish(&mut self) {
        let metrics = self.inner.metrics();
        let window = self.inner.window();
        let round_trip = self.gauge.round_trip().as_secs_f64().max(1e-6);
        let rate = metrics.bandwidth_estimate.map_or(window as f64 / round_trip, |bits| bits as f64 / 8.0);
        self.gauge.window.store(window, Relaxed);
        self.gauge.rate.store(rate as u64, Relaxed);
    }
}

impl Controller for Gauged {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.inner.on_sent(now, bytes, largest_pn);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, number: u64) {
        if self.gauge.start_anew.swap(false, Relaxed) {
            self.start_anew(now, number);
        }
        if self.last.is_some_and(|last| number <= last) {
            // a later packet number space starts at 0 again: nothing of the new one was sent before
            self.first = 0;
        }
        self.last = Some(number);
        self.gauge.let_one_pass.store(false, Relaxed);
        self.gauge.in_flight.fetch_add(u64::from(bytes), Relaxed);
        self.inner.on_packet_sent(now, bytes, number);
    }

    fn on_cwnd_limited(&mut self) {
        self.inner.on_cwnd_limited();
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, number: u64, app_limited: bool, rtt: &RttEstimator) {
        self.left(bytes);
        if self.was_before(number, bytes) {
            return;
        }
        if bytes > u64::from(LARGE) {
            self.gauge.large_lost.store(0, Relaxed);
        }
        self.newest = self.newest.max(Some(sent));
        self.inner.on_ack(now, sent, bytes, number, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.gauge.in_flight.store(in_flight, Relaxed);
        self.stale = self.stale.min(in_flight);
        if let Some(sent) = self.newest.take() {
            self.gauge.sample(now.saturating_duration_since(sent));
        }
        self.inner.on_end_acks(now, in_flight - self.stale, app_limited, largest);
        self.publish();
    }

    fn on_packet_lost(&mut self, bytes: u16, number: u64, now: Instant) {
        self.left(u64::from(bytes));
        if self.was_before(number, u64::from(bytes)) {
            return;
        }
        if bytes > LARGE {
            self.gauge.large_lost.fetch_add(1, Relaxed);
        }
        self.inner.on_packet_lost(bytes, number, now);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        persistent: bool,
        ecn: bool,
        lost: u64,
        number: u64,
    ) {
        if number >= self.first {
            self.inner.on_congestion_event(now, sent, persistent, ecn, lost, number);
            self.publish();
        }
    }

    fn on_spurious_congestion_event(&mut self) {
        self.inner.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.inner.on_mtu_update(mtu);
    }

    fn on_ack_frequency_update(&mut self, threshold: u64, delay: Duration) {
        self.inner.on_ack_frequency_update(threshold, delay);
    }

    fn window(&self) -> u64 {
        let own = if self.gauge.let_one_pass.load(Relaxed) {
            self.gauge.in_flight() + 2 * u64::from(self.mtu)
        } else {
            self.inner.window()
        };
        if self.gauge.start_anew.load(Relaxed) {
            return self.gauge.in_flight() + self.inner.initial_window();
        }
        own + self.stale
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        if self.gauge.let_one_pass.load(Relaxed) || self.gauge.start_anew.load(Relaxed) {
            metrics.pacing_rate = Some(UNPACED);
        }
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            kind: self.kind,
            gauge: self.gauge.clone(),
            mtu: self.mtu,
            last: self.last,
            first: self.first,
            stale: self.stale,
            newest: self.newest,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}
