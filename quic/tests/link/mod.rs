//! A bottleneck in virtual time, shared by any number of flows; real connections at both ends of each.
//!
//! ```text
//! writers ─► random loss ─► policer ─► queue ─► rate ─► half a round trip ─► readers
//!    ▲                                                                         │
//!    └───────────── half a round trip ◄── random loss ◄── acknowledgements ◄───┘
//! ```
//!
//! The driver behaves as an event loop does: it wakes for arrivals and for timers, which the connections round up to
//! a millisecond. All randomness of the link comes from the seed.

#![allow(dead_code)] // each test binary uses its own part

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::OnceLock;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use warren_quic::connection::Connection;
use warren_quic::events::Event;
use warren_quic::gauge::Kind;
use warren_quic::paths::PathChange;
use warren_quic::settings::Settings;
use warren_quic::tls::{Client, Server};

/// IPv4 and UDP headers, and the caller's header.
const OVERHEAD: f64 = 36.0;
const SECOND: f64 = 1e9;

/// Client and server that know each other.
pub fn certified() -> &'static (Client, Server) {
    static MADE: OnceLock<(Client, Server)> = OnceLock::new();
    MADE.get_or_init(|| {
        let root_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut root = rcgen::CertificateParams::new(vec![]).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(root, root_key);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let client = Client::new("a.test", root_pem.as_bytes(), b"test").unwrap();
        let server = Server::new(leaf.pem().as_bytes(), key.serialize_pem().as_bytes(), &[b"test"]).unwrap();
        (client, server)
    })
}

/// What a value is from which second on.
pub type Schedule = Vec<(f64, f64)>;

fn value(schedule: &Schedule, at: f64) -> f64 {
    schedule.iter().rev().find(|s| s.0 <= at).unwrap_or(&schedule[0]).1
}

/// The bottleneck.
#[derive(Clone)]
pub struct Link {
    /// Mbit/s.
    pub rate: Schedule,
    /// Milliseconds there and back.
    pub round_trip: Schedule,
    /// Milliseconds at the first rate.
    pub queue: f64,
    /// Share of packets lost at random, each way.
    pub loss: f64,
    /// Mbit/s and kilobytes of a token bucket.
    pub policer: Option<(f64, f64)>,
    /// From when to when nothing passes.
    pub cut: Option<(f64, f64)>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            rate: vec![(0.0, 100.0)],
            round_trip: vec![(0.0, 50.0)],
            queue: 50.0,
            loss: 0.0,
            policer: None,
            cut: None,
        }
    }
}

/// A transfer without end.
#[derive(Clone)]
pub struct Plan {
    pub controller: Kind,
    /// When it starts, seconds.
    pub start: f64,
    /// From when until when the application writes no more than this: (seconds, seconds, Mbit/s).
    pub modest: Option<(f64, f64, f64)>,
}

impl Plan {
    pub fn of(controller: Kind) -> Self {
        Self { controller, start: 0.0, modest: None }
    }

    pub fn from(controller: Kind, start: f64) -> Self {
        Self { start, ..Self::of(controller) }
    }
}

/// What became of a transfer: totals up to the end of each tenth of a second.
#[derive(Clone, Default)]
pub struct Outcome {
    pub delivered: Vec<u64>,
    pub sent: Vec<u64>,
    pub dropped: Vec<u64>,
    /// The sender's phase, window and round trip.
    pub phases: Vec<(&'static str, u64, f64)>,
    /// Sum of what each packet waited in the queue, seconds, and of packets.
    pub waited: f64,
    pub passed: u64,
    /// When bytes first arrived after the cut.
    pub after_cut: Option<f64>,
}

const TICKS: f64 = 10.0;

impl Outcome {
    fn between(totals: &[u64], from: f64, to: f64) -> f64 {
        let at = |t: f64| {
            let tick = (t * TICKS).round() as usize;
            if tick == 0 {
                0.0
            } else {
                totals[(tick - 1).min(totals.len() - 1)] as f64
            }
        };
        at(to) - at(from)
    }

    /// Mbit/s of payload.
    pub fn goodput(&self, from: f64, to: f64) -> f64 {
        Self::between(&self.delivered, from, to) * 8e-6 / (to - from)
    }

    /// Share of its packets that the queue or the policer dropped.
    pub fn own_drops(&self, from: f64, to: f64) -> f64 {
        Self::between(&self.dropped, from, to) / Self::between(&self.sent, from, to).max(1.0)
    }

    /// What a packet waited in the queue, milliseconds.
    pub fn mean_queue(&self) -> f64 {
        self.waited * 1e3 / self.passed.max(1) as f64
    }
}

struct Flow {
    plan: Plan,
    ends: Option<[Connection; 2]>,
    stream: Option<u64>,
    /// Bytes: before it was modest, and since.
    written: [u64; 2],
    delivered: u64,
    sent: u64,
    dropped: u64,
    outcome: Outcome,
    last_back: u64,
    seed: u64,
}

type Arrival = Reverse<(u64, u64, usize, usize, Vec<u8>)>;

/// The world.
pub struct World {
    link: Link,
    flows: Vec<Flow>,
    now: u64,
    arrivals: BinaryHeap<Arrival>,
    order: u64,
    random: Pcg64,
    busy_until: f64,
    last_forth: u64,
    tokens: f64,
    tokens_at: f64,
    told: Vec<(f64, PathChange)>,
}

impl World {
    pub fn new(link: Link, plans: &[Plan], seed: u64) -> Self {
        let flow = |(i, plan): (usize, &Plan)| Flow {
            plan: Plan { start: plan.start + 0.01 * i as f64, ..plan.clone() },
            ends: None,
            stream: None,
            written: [0; 2],
            delivered: 0,
            sent: 0,
            dropped: 0,
            outcome: Outcome::default(),
            last_back: 0,
            seed: seed * 100 + i as u64,
        };
        Self {
            tokens: link.policer.map_or(0.0, |p| p.1 * 1000.0),
            link,
            flows: plans.iter().enumerate().map(flow).collect(),
            now: 0,
            arrivals: BinaryHeap::new(),
            order: 0,
            random: Pcg64::seed_from_u64(seed),
            busy_until: 0.0,
            last_forth: 0,
            tokens_at: 0.0,
            told: Vec::new(),
        }
    }

    /// Both ends of every flow are told of a change of path at that second.
    pub fn tell(mut self, at: f64, kind: PathChange) -> Self {
        self.told.push((at, kind));
        self
    }

    /// Runs for so many seconds.
    pub fn run(mut self, seconds: f64) -> Vec<Outcome> {
        let end = (seconds * SECOND) as u64;
        let mut tick = (SECOND / TICKS) as u64;
        while self.now < end {
            let next = self.next().min(tick);
            self.now = next.max(self.now);
            if self.now >= tick {
                tick += (SECOND / TICKS) as u64;
                for f in &mut self.flows {
                    f.outcome.delivered.push(f.delivered);
                    f.outcome.sent.push(f.sent);
                    f.outcome.dropped.push(f.dropped);
                    let s = f.ends.as_mut().map(|e| e[0].statistics()).unwrap_or_default();
                    f.outcome.phases.push((s.phase, s.window, s.round_trip));
                }
            }
            self.step();
        }
        self.flows.into_iter().map(|f| f.outcome).collect()
    }

    fn next(&mut self) -> u64 {
        let mut next = self.arrivals.peek().map_or(u64::MAX, |Reverse(a)| a.0);
        for f in &mut self.flows {
            next = next.min(match f.ends.as_mut() {
                None => (f.plan.start * SECOND) as u64,
                Some(ends) => ends.iter_mut().filter_map(Connection::timer).min().unwrap_or(u64::MAX),
            });
            if f.ends.is_some() && f.plan.modest.is_some_and(|m| (self.now as f64) < m.1 * SECOND) {
                next = next.min(self.now + 5_000_000);
            }
        }
        next.min(self.told.first().map_or(u64::MAX, |t| (t.0 * SECOND) as u64))
    }

    fn step(&mut self) {
        let mut touched = vec![false; self.flows.len()];
        while self.arrivals.peek().is_some_and(|Reverse(a)| a.0 <= self.now) {
            let Some(Reverse((_, _, i, side, data))) = self.arrivals.pop() else { break };
            if let Some(ends) = self.flows[i].ends.as_mut() {
                ends[side].receive(&data, 0, b"", self.now).unwrap();
            }
            touched[i] = true;
        }
        if self.told.first().is_some_and(|t| t.0 * SECOND <= self.now as f64) {
            let (_, kind) = self.told.remove(0);
            for ends in self.flows.iter_mut().filter_map(|f| f.ends.as_mut()) {
                ends.iter_mut().for_each(|e| e.path_changed(self.now, kind).unwrap());
            }
            touched.fill(true);
        }
        for (i, touched) in touched.iter_mut().enumerate() {
            self.begin(i, touched);
            let f = &mut self.flows[i];
            for end in f.ends.iter_mut().flatten() {
                if end.timer().is_some_and(|t| t <= self.now) {
                    end.handle_timer(self.now).unwrap();
                    *touched = true;
                }
            }
            if *touched || f.plan.modest.is_some() {
                self.serve(i);
            }
        }
    }

    fn begin(&mut self, i: usize, touched: &mut bool) {
        let f = &mut self.flows[i];
        if f.ends.is_some() || (f.plan.start * SECOND) as u64 > self.now {
            return;
        }
        let (client, server) = certified();
        let settings = Settings {
            controller: f.plan.controller,
            size: 1444,
            idle_timeout: 120.0,
            seed: Some(f.seed),
            ..Settings::default()
        };
        let other = Settings { seed: Some(f.seed + 50), ..settings.clone() };
        f.ends = Some([
            Connection::connect(client, &settings, self.now).unwrap(),
            Connection::accept(server, &other, self.now).unwrap(),
        ]);
        *touched = true;
    }

    fn serve(&mut self, i: usize) {
        let f = &mut self.flows[i];
        let Some(ends) = f.ends.as_mut() else { return };
        write(&mut ends[0], &mut f.stream, &mut f.written, &f.plan, self.now);
        let delivered = read(&mut ends[1]);
        f.delivered += delivered;
        if delivered > 0 && self.link.cut.is_some_and(|c| self.now as f64 > c.1 * SECOND) {
            f.outcome.after_cut.get_or_insert(self.now as f64 / SECOND);
        }
        for side in 0..2 {
            while let Some(batch) = self.flows[i].ends.as_mut().and_then(|e| e[side].transmit(self.now, 0, 40).unwrap())
            {
                for packet in batch.bytes.chunks(batch.stride) {
                    if side == 0 {
                        self.forth(i, packet)
                    } else {
                        self.back(i, packet)
                    }
                }
            }
        }
    }

    fn lost(&mut self) -> bool {
        let at = self.now as f64 / SECOND;
        self.link.cut.is_some_and(|c| at >= c.0 && at < c.1)
            || self.link.loss > 0.0 && self.random.random::<f64>() < self.link.loss
    }

    fn forth(&mut self, i: usize, packet: &[u8]) {
        let (now, size) = (self.now as f64 / SECOND, packet.len() as f64 + OVERHEAD);
        self.flows[i].sent += 1;
        if self.lost() {
            return;
        }
        let rate = value(&self.link.rate, now) * 1e6 / 8.0;
        let waiting = (self.busy_until - now).max(0.0);
        if !self.policed(now, size)
            || waiting * rate + size > self.link.queue * 1e-3 * self.link.rate[0].1 * 125_000.0 + 1500.0
        {
            self.flows[i].dropped += 1;
            return;
        }
        self.busy_until = now + waiting + size / rate;
        let outcome = &mut self.flows[i].outcome;
        outcome.waited += waiting;
        outcome.passed += 1;
        let arrival = ((self.busy_until + value(&self.link.round_trip, now) / 2e3) * SECOND) as u64;
        self.last_forth = arrival.max(self.last_forth);
        self.arrive(self.last_forth, i, 1, packet);
    }

    fn policed(&mut self, now: f64, size: f64) -> bool {
        let Some((rate, depth)) = self.link.policer else { return true };
        self.tokens = (self.tokens + rate * 125_000.0 * (now - self.tokens_at)).min(depth * 1000.0);
        self.tokens_at = now;
        let passes = self.tokens >= size;
        if passes {
            self.tokens -= size;
        }
        passes
    }

    fn back(&mut self, i: usize, packet: &[u8]) {
        if self.lost() {
            return;
        }
        let now = self.now as f64 / SECOND;
        let arrival = ((now + value(&self.link.round_trip, now) / 2e3) * SECOND) as u64;
        let arrival = arrival.max(self.flows[i].last_back);
        self.flows[i].last_back = arrival;
        self.arrive(arrival, i, 0, packet);
    }

    fn arrive(&mut self, at: u64, flow: usize, side: usize, packet: &[u8]) {
        self.order += 1;
        self.arrivals.push(Reverse((at, self.order, flow, side, packet.to_vec())));
    }
}

fn write(client: &mut Connection, stream: &mut Option<u64>, written: &mut [u64; 2], plan: &Plan, now: u64) {
    while let Some(event) = client.poll_event() {
        assert!(!matches!(event, Event::Closed { .. }), "{event:?}");
    }
    *stream = stream.or_else(|| client.open_stream(false));
    let Some(stream) = *stream else { return };
    let at = now as f64 / SECOND;
    let (from, until, rate) = plan.modest.unwrap_or_default();
    let modest = from <= at && at < until;
    let due = if modest { ((rate * 125_000.0 * (at - from)) as u64).saturating_sub(written[1]) } else { u64::MAX };
    let mut budget = if due < (rate * 600.0) as u64 { 0 } else { due };
    while budget > 0 {
        let taken = client.write(stream, &[7; 65_536][..budget.min(65_536) as usize]).unwrap() as u64;
        written[usize::from(modest)] += taken;
        budget -= taken;
        if taken == 0 {
            break;
        }
    }
}

fn read(server: &mut Connection) -> u64 {
    let mut got = 0;
    while let Some(event) = server.poll_event() {
        match event {
            Event::Readable { stream } => {
                got += server.read(stream, usize::MAX).unwrap().iter().map(|p| p.len() as u64).sum::<u64>();
            }
            Event::Closed { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    got
}
