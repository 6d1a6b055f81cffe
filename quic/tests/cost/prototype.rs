//! The controller that ours grew out of, kept as the yardstick of what a controller may cost: `tests/cost.rs`.
//!
//! Two filters (delivery rate, least round trip) set the pacing rate and bound the data in flight, as in BBR.
//! What differs: loss counts as congestion only where it comes with a standing queue, or where it is far above
//! the loss seen while sending *below* the estimated rate; probing for more backs off while probes end in loss.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};
use noq_proto::RttEstimator;

/// What the owner of the connection shares with the controller: one order, and gauges.
#[derive(Debug, Default)]
pub struct Shared {
    pub path_changed: AtomicBool,
    pub bandwidth: AtomicU64,
    pub min_rtt_us: AtomicU64,
    pub state: AtomicU64,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub shared: Arc<Shared>,
    pub initial_window: u64,
    pub loss_round: f64, // tolerated loss in a round with a queue, above the background loss
    pub loss_any: f64,   // tolerated loss in a round without a queue
    pub beta: f64,
    pub up_gain: f64,
    pub cruise_gain: f64,
    pub max_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shared: Arc::default(),
            initial_window: 14 * 1200,
            loss_round: 0.01,
            loss_any: 0.08,
            beta: 0.7,
            up_gain: 1.25,
            cruise_gain: 1.0,
            max_interval: Duration::from_millis(2500),
        }
    }
}

impl ControllerFactory for Config {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Model::new((*self).clone(), now, mtu))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Startup,
    Drain,
    Down,
    Cruise,
    Up,
    Compete,
    ProbeRtt,
}

#[derive(Debug, Clone)]
struct Sent {
    pn: u64,
    at: Instant,
    bytes: u32,
    live: bool,
    app_limited: bool,
    modest: bool, // sent at or below the estimated rate
    up: bool,     // sent while probing for more
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    flight: u64,
}

#[derive(Debug, Clone)]
struct Model {
    c: Config,
    mtu: u64,
    phase: Phase,
    phase_at: Instant,
    phase_round: u64,
    sent: VecDeque<Sent>,
    flight: u64,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    app_limited_until: u64,
    // rounds
    round: u64,
    round_end: u64,
    round_delivered: u64,
    round_lost: u64,
    round_lost_up: u64,
    round_queue_lost: u64,
    round_flight: u64,
    round_rtt: Duration,
    round_bw: f64,
    round_start_delivered: u64,
    round_limited: bool,
    // model
    bw: VecDeque<(u64, f64)>, // (round, rate), decreasing
    bw_rounds: u64,
    bw_short: f64,
    flight_short: f64,
    flight_long: f64,
    min_rtt: Duration,
    min_rtt_at: Instant,
    last_rtt: Duration,
    recent: [Duration; 2], // least round trips of the last two quarters of a round trip: robust against jitter
    recent_at: Instant,
    rtt_sum: f64,
    rtt_count: u32,
    jitter: f64, // mean less least round trip within a round, seconds
    cruise_queue: u32,
    cruise_rounds: u32,
    queue_since: Option<Instant>,
    checked_at: Instant,
    probe_rtt_min: Duration,
    // background loss
    back_lost: f64,
    back_all: f64,
    // startup
    full_bw: f64,
    full_rounds: u32,
    // probing
    interval: u32,
    probe_at: Instant,
    up_bw: f64,
    up_stall: u32,
    up_loss: bool,
    undo: Option<(f64, f64, f64)>,
    down_rtt: Duration, // least round trip in the last drain
    srtt: Duration,
    // competing with loss-based flows: a CUBIC window
    w_max: f64,
    w_cut: f64,
    epoch: Instant,
    after_rtt: Phase,
    up_bw0: f64,
    compete_at: Instant,
    left_at: Instant,
    exit_wait: Duration,
    sample: Option<(u64, Instant, Instant, Instant, bool)>, // of the newest packet in this batch
    rate: f64,
    window: u64,
}

const INF: f64 = f64::INFINITY;
const FOREVER: Duration = Duration::from_secs(3600);

impl Model {
    fn new(c: Config, now: Instant, mtu: u16) -> Self {
        let mut m = Self {
            mtu: mtu as u64,
            phase: Phase::Startup,
            phase_at: now,
            phase_round: 0,
            sent: VecDeque::new(),
            flight: 0,
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            app_limited_until: 0,
            round: 0,
            round_end: 0,
            round_delivered: 0,
            round_lost: 0,
            round_lost_up: 0,
            round_queue_lost: 0,
            round_flight: 0,
            round_rtt: FOREVER,
            round_bw: 0.0,
            round_start_delivered: 0,
            round_limited: false,
            bw: VecDeque::new(),
            bw_rounds: 0,
            bw_short: INF,
            flight_short: INF,
            flight_long: INF,
            min_rtt: FOREVER,
            min_rtt_at: now,
            last_rtt: Duration::ZERO,
            recent: [FOREVER; 2],
            recent_at: now,
            rtt_sum: 0.0,
            rtt_count: 0,
            jitter: 0.0,
            cruise_queue: 0,
            cruise_rounds: 0,
            queue_since: None,
            checked_at: now,
            probe_rtt_min: FOREVER,
            back_lost: 0.0,
            back_all: 0.0,
            full_bw: 0.0,
            full_rounds: 0,
            interval: 8,
            probe_at: now,
            up_bw: 0.0,
            up_stall: 0,
            up_loss: false,
            undo: None,
            down_rtt: FOREVER,
            srtt: Duration::ZERO,
            w_max: 0.0,
            w_cut: 0.0,
            epoch: now,
            after_rtt: Phase::Cruise,
            up_bw0: 0.0,
            compete_at: now,
            left_at: now,
            exit_wait: Duration::from_secs(4),
            sample: None,
            rate: 0.0,
            window: c.initial_window,
            c,
        };
        m.update(now);
        m
    }

    fn max_bw(&self) -> f64 {
        self.bw.front().map_or(0.0, |x| x.1)
    }
    fn bandwidth(&self) -> f64 {
        self.max_bw().min(self.bw_short)
    }
    fn known(&self) -> bool {
        self.min_rtt != FOREVER && !self.bw.is_empty()
    }
    fn bdp_of(&self, bw: f64) -> f64 {
        bw * self.min_rtt.as_secs_f64()
    }
    fn background(&self) -> f64 {
        if self.back_all < 100.0 {
            0.0
        } else {
            (self.back_lost / self.back_all).min(0.12)
        }
    }
    /// Room for the bursts that pacing, delayed acknowledgements and the driver's timer make.
    fn slack(&self) -> f64 {
        (self.bandwidth() * 0.002).clamp(4.0 * self.mtu as f64, 256.0 * self.mtu as f64)
    }
    fn queue_mark(&self) -> Duration {
        if self.min_rtt == FOREVER {
            return FOREVER;
        }
        self.min_rtt
            + (self.min_rtt / 16)
                .max(Duration::from_micros(1500))
                .max(Duration::from_secs_f64(self.jitter * 1.5).min(self.min_rtt / 4))
    }

    fn queued(&self) -> bool {
        let r = self.recent[0].min(self.recent[1]);
        r != FOREVER && r > self.queue_mark()
    }

    fn push_bw(&mut self, rate: f64) {
        while self.bw.back().is_some_and(|x| x.1 <= rate) {
            self.bw.pop_back();
        }
        self.bw.push_back((self.bw_rounds, rate));
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.phase_at = now;
        self.phase_round = self.round;
        match phase {
            Phase::Up => {
                if self.cruise_queue > 0 {
                    self.cruise_queue -= 1;
                }
                self.up_bw = self.max_bw();
                self.up_bw0 = self.up_bw;
                self.up_stall = 0;
                self.up_loss = false;
                self.bw_short = INF;
                self.flight_short = INF;
            }
            Phase::ProbeRtt => self.probe_rtt_min = FOREVER,
            Phase::Down => self.down_rtt = FOREVER,
            Phase::Cruise => self.cruise_rounds = 0,
            _ => {}
        }
    }

    fn cubic(&self, now: Instant) -> f64 {
        let (mss, t) = (self.mtu as f64, now.duration_since(self.epoch).as_secs_f64());
        let k = ((self.w_max - self.w_cut).max(0.0) / mss / 0.4).cbrt();
        let cubic = 0.4 * (t - k).powi(3) * mss + self.w_max;
        let reno = self.w_cut + 0.53 * mss * t / self.srtt.as_secs_f64().max(1e-3);
        cubic.max(reno).max(self.w_cut)
    }

    /// The queue does not empty when we hold back, or our share grows as the queue does: others are there.
    fn sharing(&self, round_bw: f64) -> bool {
        self.down_rtt != FOREVER && self.down_rtt > self.queue_mark()
            || self.round <= self.phase_round + 2 && round_bw > self.up_bw0 * 1.05
    }

    fn compete(&mut self, now: Instant, flight: f64) {
        let again = self.phase != Phase::Compete
            && self.w_max > 0.0
            && now.duration_since(self.left_at) < Duration::from_secs(5);
        let flight = if again { flight.min(self.w_max) } else { flight }.max(4.0 * self.mtu as f64);
        self.w_max = if self.phase == Phase::Compete && flight < self.w_max {
            flight * (1.0 + self.c.beta) / 2.0
        } else {
            flight
        };
        self.w_cut = flight * self.c.beta;
        self.epoch = now;
        self.flight_long = INF;
        self.flight_short = INF;
        self.bw_short = INF;
        if self.phase != Phase::Compete {
            // back again soon after an attempt to leave: wait longer before the next
            self.exit_wait =
                if again { (self.exit_wait * 2).min(Duration::from_secs(60)) } else { Duration::from_secs(8) };
            self.compete_at = now;
            self.enter(Phase::Compete, now);
        }
    }

    fn update(&mut self, now: Instant) {
        let mtu = self.mtu as f64;
        if !self.known() {
            self.rate = 0.0; // nothing known yet: the pacer goes by the window
            return;
        }
        let bw = self.bandwidth();
        let bdp = self.bdp_of(bw);
        let compensate = 1.0 / (1.0 - self.background().min(0.1));
        let (pace, cwnd) = match self.phase {
            Phase::Startup => (if self.queued() { 1.25 } else { 2.77 }, 2.0),
            Phase::Drain => (0.5, 2.0),
            Phase::Down => (if self.queued() { 0.75 } else { 0.9 }, 2.0),
            Phase::Cruise => (self.c.cruise_gain * compensate, 2.0),
            Phase::Up => (if self.round >= self.phase_round + 3 { 2.0 } else { self.c.up_gain } * compensate, 2.25),
            Phase::ProbeRtt => (1.0, 0.5),
            Phase::Compete => (1.0, 2.0),
        };
        self.rate = (bw * pace).max(mtu * 10.0);
        let mut w = bdp * cwnd + if self.phase == Phase::ProbeRtt { 0.0 } else { self.slack() };
        if self.phase == Phase::Startup {
            w = w.max(self.window as f64).min(self.c.initial_window as f64 * 3.0 + self.delivered as f64 * 2.0);
        }
        w = w.min(self.flight_short);
        let long = match self.phase {
            Phase::Up => self.flight_long * (1.0 + 0.05 * 2f64.powi((self.round - self.phase_round).min(10) as i32)),
            _ => self.flight_long,
        };
        w = w.min(long).max(4.0 * mtu);
        if self.phase == Phase::Compete {
            w = self.cubic(now).min(self.max_bw() * self.srtt.as_secs_f64() * 2.0 + self.slack()).max(4.0 * mtu);
            self.rate = w / self.srtt.as_secs_f64().max(1e-4) * 1.25;
        }
        self.window = w as u64;
        self.c.shared.bandwidth.store((bw * 8.0) as u64, Ordering::Relaxed);
        self.c.shared.min_rtt_us.store(self.min_rtt.as_micros() as u64, Ordering::Relaxed);
        self.c.shared.state.store(self.phase as u64, Ordering::Relaxed);
    }

    fn end_round(&mut self, now: Instant) {
        let all = self.round_lost + self.round_delivered;
        let loss = if all == 0 { 0.0 } else { self.round_lost as f64 / all as f64 };
        let queue_loss = if all == 0 { 0.0 } else { self.round_queue_lost as f64 / all as f64 };
        let back = self.background();
        let few = self.round_lost < 2 * self.mtu;
        let flood = !few && loss > back * 2.0 + self.c.loss_any;
        let startup = if self.phase == Phase::Startup { 0.04 } else { 0.0 };
        let congested = flood
            || if self.phase == Phase::Compete {
                queue_loss > back * 2.0 + 0.001
            } else {
                !few && queue_loss > back * 1.5 + self.c.loss_round + startup
            };
        let round_bw = self.round_bw;
        if congested {
            self.react(now, flood && queue_loss < loss * 0.5);
        }
        match self.phase {
            Phase::Startup => {
                if round_bw > self.full_bw * 1.25 {
                    self.full_bw = round_bw;
                    self.full_rounds = 0;
                } else if !self.round_limited {
                    self.full_rounds += 1;
                    // a plateau with a queue is one; without a queue wait for three
                    if self.full_rounds >= 3
                        || (self.full_rounds >= 2 && self.round_rtt > self.min_rtt + self.min_rtt / 4)
                    {
                        self.enter(Phase::Drain, now);
                    }
                }
            }
            Phase::Compete => {
                // from time to time see whether anybody is still there
                if !congested
                    && self.window as f64 >= self.w_max * 0.95
                    && now.duration_since(self.compete_at) > self.exit_wait
                {
                    self.interval = 4;
                    self.left_at = now;
                    self.queue_since = None;
                    self.enter(Phase::Down, now);
                }
            }
            Phase::Cruise => {
                // a queue that is not ours: drain, and if it comes back, share
                self.cruise_rounds += 1;
                if self.round_rtt > self.queue_mark() && self.cruise_rounds > 2 {
                    self.cruise_queue += 1;
                }
                if self.cruise_queue >= 6 && !congested {
                    self.cruise_queue = 0;
                    let f = self.round_flight as f64;
                    if now.duration_since(self.min_rtt_at) > Duration::from_secs(1) {
                        self.down_rtt = FOREVER;
                        self.after_rtt = Phase::Cruise;
                        self.enter(Phase::ProbeRtt, now);
                    } else {
                        self.compete(now, f);
                    }
                }
            }
            Phase::Drain | Phase::Down | Phase::ProbeRtt => {}
            Phase::Up => {
                if round_bw > self.up_bw * 1.05 {
                    self.up_bw = round_bw;
                    self.up_stall = 0;
                } else {
                    self.up_stall += 1;
                }
                if self.flight_long.is_finite() && !congested {
                    self.flight_long = self.flight_long.max(self.round_flight as f64);
                }
                if !congested && self.round > self.phase_round && self.round_rtt > self.queue_mark() {
                    // a standing queue: either all there is, or others who keep it filled
                    if self.sharing(round_bw) && now.duration_since(self.min_rtt_at) > Duration::from_secs(1) {
                        // or the path itself has become longer: look first
                        self.down_rtt = FOREVER;
                        self.after_rtt = Phase::Cruise;
                        self.enter(Phase::ProbeRtt, now);
                    } else if self.sharing(round_bw) {
                        let f = self.round_flight as f64;
                        self.compete(now, f);
                    } else {
                        if !self.up_loss {
                            self.interval = 8;
                        }
                        self.enter(Phase::Down, now);
                    }
                } else if self.up_stall >= 2
                    || (self.up_stall >= 1 && self.round_rtt > self.queue_mark() && self.round > self.phase_round + 1)
                {
                    // up to capacity without loss: come back soon
                    if !self.up_loss {
                        self.interval = 8;
                    }
                    self.enter(Phase::Down, now);
                }
            }
        }
        if matches!(self.phase, Phase::Cruise | Phase::Compete) && self.rtt_count >= 8 {
            let spread = self.rtt_sum / self.rtt_count as f64 - self.round_rtt.as_secs_f64();
            self.jitter += (spread - self.jitter) / 4.0;
        }
        self.rtt_sum = 0.0;
        self.rtt_count = 0;
        self.round += 1;
        if !self.round_limited {
            self.bw_rounds += 1;
        }
        while self.bw.len() > 1 && self.bw[0].0 + 10 < self.bw_rounds {
            self.bw.pop_front();
        }
        self.round_end = self.delivered + self.flight;
        self.round_delivered = 0;
        self.round_lost = 0;
        self.round_lost_up = 0;
        self.round_queue_lost = 0;
        self.round_flight = 0;
        self.round_rtt = FOREVER;
        self.round_bw = 0.0;
        self.round_limited = false;
        self.round_start_delivered = self.delivered;
    }

    /// A round with congestive loss has ended.
    fn react(&mut self, now: Instant, no_queue: bool) {
        self.undo = Some((self.flight_long, self.flight_short, self.bw_short));
        let bdp = self.bdp_of(self.max_bw());
        let flight = (self.round_flight as f64).max(self.mtu as f64 * 4.0);
        if no_queue && self.phase != Phase::Startup {
            // much loss and no queue: a policer. What came through is what there is.
            let rate = if self.round_bw > 0.0 { self.round_bw } else { self.bandwidth() * self.c.beta };
            self.bw.clear();
            self.push_bw(rate);
            self.back_all = 0.0;
            self.back_lost = 0.0; // seen at too high a rate
            self.flight_long = (self.bdp_of(rate) * 1.25).max(4.0 * self.mtu as f64);
            self.interval = (self.interval * 2).min(64);
            if self.phase == Phase::Up || self.phase == Phase::Compete {
                self.enter(Phase::Down, now);
            }
            return;
        }
        match self.phase {
            Phase::Compete => self.compete(now, flight),
            Phase::Startup => {
                self.flight_long = flight.max(bdp);
                self.interval = 16;
                self.enter(Phase::Drain, now);
            }
            Phase::Up if self.sharing(self.round_bw) => self.compete(now, flight),
            Phase::Up => {
                self.flight_long = (flight * 0.9).max(bdp);
                self.interval = (self.interval * 2).min(64);
                self.up_loss = true;
                self.enter(Phase::Down, now);
            }
            _ if self.round_lost_up * 2 > self.round_lost => {} // the tail of our own probe: answered already
            // loss at or below our rate: others push. Do as they do.
            Phase::Cruise => self.compete(now, flight),
            _ => {
                self.bw_short = self.round_bw.max(self.bandwidth() * self.c.beta);
                self.flight_short = (flight * self.c.beta).max(self.round_delivered as f64 * self.c.beta);
            }
        }
    }

    fn advance(&mut self, now: Instant, in_flight: u64) {
        let bdp = self.bdp_of(self.bandwidth());
        let rounds = self.round - self.phase_round;
        match self.phase {
            Phase::Drain if (in_flight as f64) <= bdp || rounds > 6 => self.enter(Phase::Down, now),
            Phase::Down if rounds >= 2 && ((in_flight as f64) <= bdp && !self.queued() || rounds > 4) => {
                self.probe_at = now;
                self.enter(Phase::Cruise, now)
            }
            Phase::Cruise => {
                let wait = (self.min_rtt * self.interval).min(self.c.max_interval);
                if now.duration_since(self.probe_at) > wait {
                    self.enter(Phase::Up, now);
                }
            }
            Phase::ProbeRtt if rounds >= 2 && now.duration_since(self.phase_at) > Duration::from_millis(100) => {
                if self.probe_rtt_min != FOREVER {
                    self.min_rtt = self.probe_rtt_min;
                    self.min_rtt_at = now;
                    self.queue_since = None;
                }
                self.bw_short = INF;
                self.flight_short = INF;
                self.enter(self.after_rtt, now);
            }
            _ => {}
        }
        // the least round trip: refreshed by any sample near it; doubted when all samples have long been far above it
        if self.known() && self.phase != Phase::Startup && self.phase != Phase::ProbeRtt {
            let stale = now.duration_since(self.min_rtt_at) > Duration::from_secs(10);
            let doubtful = self.phase != Phase::Compete
                && self
                    .queue_since
                    .is_some_and(|t| now.duration_since(t) > (self.last_rtt * 8).max(Duration::from_millis(500)))
                && now.duration_since(self.min_rtt_at) > Duration::from_millis(1500);
            if stale || doubtful {
                self.after_rtt = if self.phase == Phase::Compete { Phase::Compete } else { Phase::Cruise };
                self.enter(Phase::ProbeRtt, now);
            }
        }
    }
}

impl Controller for Model {
    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        if self.c.shared.path_changed.swap(false, Ordering::Relaxed) {
            *self = Self::new(self.c.clone(), now, self.mtu as u16);
        }
        if self.sent.back().is_some_and(|x| pn <= x.pn) {
            self.sent.clear();
            self.flight = 0;
        } // a later packet number space
        if self.flight == 0 {
            self.first_sent = now;
            self.delivered_at = now;
        }
        self.flight += bytes as u64;
        let modest = matches!(self.phase, Phase::Down);
        self.sent.push_back(Sent {
            pn,
            at: now,
            bytes: bytes as u32,
            live: true,
            app_limited: self.app_limited_until > self.delivered,
            modest,
            up: self.phase == Phase::Up,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            flight: self.flight,
        });
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, pn: u64, _app_limited: bool, _rtt: &RttEstimator) {
        let Ok(i) = self.sent.binary_search_by(|x| x.pn.cmp(&pn)) else { return };
        if self.sent[i].at != sent || !self.sent[i].live {
            return;
        }
        self.sent[i].live = false;
        let p = self.sent[i].clone();
        self.delivered += bytes;
        self.delivered_at = now;
        self.round_delivered += bytes;
        self.flight = self.flight.saturating_sub(bytes);
        self.round_flight = self.round_flight.max(p.flight);
        let rtt = now - sent;
        self.last_rtt = rtt;
        if now.duration_since(self.recent_at) > self.min_rtt / 4 || self.min_rtt == FOREVER {
            self.recent = [rtt, self.recent[0]];
            self.recent_at = now;
        } else {
            self.recent[0] = self.recent[0].min(rtt);
        }
        if p.modest && !self.queued() {
            self.back_all += 1.0;
        }
        self.round_rtt = self.round_rtt.min(rtt);
        self.rtt_sum += rtt.as_secs_f64();
        self.rtt_count += 1;
        self.probe_rtt_min = self.probe_rtt_min.min(rtt);
        if self.phase == Phase::Down && self.round > self.phase_round {
            self.down_rtt = self.down_rtt.min(rtt);
        }
        self.srtt = if self.srtt.is_zero() { rtt } else { self.srtt - self.srtt / 8 + rtt / 8 };
        if rtt <= self.min_rtt + self.min_rtt / 32 {
            self.min_rtt_at = now;
        }
        if rtt < self.min_rtt {
            self.min_rtt = rtt;
            self.min_rtt_at = now;
        }
        if rtt > self.min_rtt + (self.min_rtt / 3).max(Duration::from_millis(3)) {
            self.queue_since.get_or_insert(now);
        } else {
            self.queue_since = None;
        }
        if self.sample.is_none_or(|s| p.delivered >= s.0) {
            self.sample = Some((p.delivered, p.delivered_at, p.first_sent, p.at, p.app_limited));
        }
        while self.sent.front().is_some_and(|x| !x.live) {
            self.sent.pop_front();
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        if app_limited {
            self.app_limited_until = self.delivered + in_flight;
            self.round_limited = true;
        }
        let Some((delivered, delivered_at, first_sent, at, limited)) = self.sample.take() else { return };
        self.first_sent = at;
        let over = (at - first_sent).max(now - delivered_at);
        if over >= self.min_rtt.min(Duration::from_millis(200)) / 2 && !over.is_zero() {
            let rate = (self.delivered - delivered) as f64 / over.as_secs_f64();
            if !limited {
                self.round_bw = self.round_bw.max(rate);
            }
            if !limited || rate > self.max_bw() {
                self.push_bw(rate);
            }
        }
        if delivered >= self.round_end {
            self.end_round(now);
        }
        self.advance(now, in_flight);
        if self.back_all > 2000.0 {
            self.back_all *= 0.5;
            self.back_lost *= 0.5;
        }
        self.update(now);
    }

    fn on_packet_lost(&mut self, bytes: u16, pn: u64, _now: Instant) {
        self.flight = self.flight.saturating_sub(bytes as u64);
        let Ok(i) = self.sent.binary_search_by(|x| x.pn.cmp(&pn)) else { return };
        if !self.sent[i].live {
            return;
        }
        self.sent[i].live = false;
        self.round_lost += bytes as u64;
        if self.sent[i].up {
            self.round_lost_up += bytes as u64;
        }
        self.round_flight = self.round_flight.max(self.sent[i].flight);
        if self.sent[i].modest && !self.queued() {
            self.back_all += 1.0;
            self.back_lost += 1.0;
        }
        if self.queued() {
            self.round_queue_lost += bytes as u64;
        }
        while self.sent.front().is_some_and(|x| !x.live) {
            self.sent.pop_front();
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        persistent: bool,
        _ecn: bool,
        _lost: u64,
        _pn: u64,
    ) {
        if persistent && self.known() {
            self.flight_short = 4.0 * self.mtu as f64;
            self.probe_at = now;
            if self.phase != Phase::Startup {
                self.interval = 2;
                self.enter(Phase::Cruise, now);
            }
            self.update(now);
        }
    }

    fn on_spurious_congestion_event(&mut self) {
        if let Some((long, short, bw)) = self.undo.take() {
            self.flight_long = long;
            self.flight_short = short;
            self.bw_short = bw;
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu as u64;
    }
    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut m = ControllerMetrics::default();
        m.congestion_window = self.window;
        if self.rate > 0.0 {
            m.pacing_rate = Some(self.rate as u64);
        }
        m.bandwidth_estimate = Some((self.bandwidth() * 8.0) as u64);
        m
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }
    fn initial_window(&self) -> u64 {
        self.c.initial_window
    }
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}
