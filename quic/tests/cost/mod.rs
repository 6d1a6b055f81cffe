//! What the controller costs, beside the prototype that it grew out of, in the same run: nanoseconds a packet.
//!
//! Instructions instead of time, which no neighbour on the machine can falsify:
//! `ONLY=ours valgrind --tool=callgrind …/controller-… --ignored one_of_the_two`.

#[allow(dead_code)] // complete, and only driven
mod prototype;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use noq_proto::congestion::{Controller, ControllerFactory, CubicConfig};
use noq_proto::{DatagramEvent, RttEstimator};

/// Packets of one measurement, and how often it is repeated. The least counts: what is more was somebody else's.
const PACKETS: u64 = 200_000;
const TIMES: usize = 15;

/// A flow of 100 Mbit/s and 50 ms.
const BYTES: u16 = 1444;
const IN_FLIGHT: u64 = 431;
const APART: Duration = Duration::from_nanos(115_520);

/// Packets leave at an even pace and are acknowledged in twos, as QUIC's receivers do; one in a thousand is lost.
fn drive(c: &mut dyn Controller, sent: &[Instant], rtt: &RttEstimator) -> Duration {
    let measured = Instant::now();
    for (number, now) in (0..).zip(sent.iter().copied()) {
        std::hint::black_box((c.window(), c.metrics().pacing_rate));
        c.on_packet_sent(now, BYTES, number);
        if number < IN_FLIGHT || number % 2 == 0 {
            continue;
        }
        let newest = number - IN_FLIGHT;
        for number in newest.saturating_sub(1)..=newest {
            if number % 1000 == 999 {
                c.on_packet_lost(BYTES, number, now);
            } else {
                c.on_ack(now, sent[number as usize], BYTES.into(), number, false, rtt);
            }
        }
        c.on_end_acks(now, IN_FLIGHT * u64::from(BYTES), false, Some(newest));
    }
    measured.elapsed()
}

fn departures(start: Instant) -> Vec<Instant> {
    (0..PACKETS as u32).map(|n| start + APART * n).collect()
}

fn build(ours: bool, now: Instant) -> Box<dyn Controller> {
    match ours {
        true => Arc::new(warren_quic::controller::Config::default()).build(now, BYTES),
        false => Arc::new(prototype::Config::default()).build(now, BYTES),
    }
}

/// Nanoseconds a packet: ours, the prototype's. They take turns.
pub fn measure() -> (f64, f64) {
    let (start, rtt) = (Instant::now(), estimator());
    let sent = departures(start);
    let mut least = [f64::INFINITY; 2];
    for time in 0..2 * TIMES {
        let which = time % 2;
        let took = drive(&mut *build(which == 0, start), &sent, &rtt);
        least[which] = least[which].min(took.as_secs_f64() * 1e9 / PACKETS as f64);
    }
    (least[0], least[1])
}

/// Not a case: one of the two alone, for a profiler. `ONLY=ours` or anything else.
#[test]
#[ignore = "for a profiler"]
fn one_of_the_two() {
    let (start, rtt) = (Instant::now(), estimator());
    let ours = std::env::var("ONLY").is_ok_and(|v| v == "ours");
    std::hint::black_box(drive(&mut *build(ours, start), &departures(start), &rtt));
}

// ---- a round-trip estimator, which only the core can make: neither controller looks at it

#[derive(Debug, Default)]
struct Spy(Mutex<Option<RttEstimator>>);

#[derive(Debug)]
struct Spying(Arc<Spy>, Box<dyn Controller>);

impl ControllerFactory for Spy {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Spying(self, Arc::new(CubicConfig::default()).build(now, mtu)))
    }
}

impl Controller for Spying {
    fn on_ack(&mut self, _: Instant, _: Instant, _: u64, _: u64, _: bool, rtt: &RttEstimator) {
        *self.0 .0.lock().unwrap() = Some(*rtt);
    }
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: bool, _: u64, _: u64) {}
    fn on_mtu_update(&mut self, _: u16) {}
    fn window(&self) -> u64 {
        self.1.window()
    }
    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone(), self.1.clone_box()))
    }
    fn initial_window(&self) -> u64 {
        self.1.initial_window()
    }
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

/// Two of the core's own endpoints exchange their first packets.
fn estimator() -> RttEstimator {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = noq_proto::ServerConfig::with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = noq_proto::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    let spy = Arc::new(Spy::default());
    let mut transport = noq_proto::TransportConfig::default();
    transport.congestion_controller_factory(spy.clone());
    client.transport_config(Arc::new(transport));

    let endpoint = |server| noq_proto::Endpoint::new(Arc::default(), server, true);
    let mut ends = [endpoint(None), endpoint(Some(Arc::new(server)))];
    let address = SocketAddr::from(([192, 0, 2, 1], 4433));
    let mut now = Instant::now();
    let (handle, caller) = ends[0].connect(now, client, address, "a.test").unwrap();
    let mut connections = [Some((handle, caller)), None];
    while spy.0.lock().unwrap().is_none() {
        now += Duration::from_millis(5);
        for side in 0..2 {
            let mut bytes = Vec::new();
            let Some((_, connection)) = connections[side].as_mut() else { continue };
            if connection.poll_transmit(now, NonZeroUsize::MIN, &mut bytes).is_none() {
                connection.handle_timeout(now);
                continue;
            }
            let other = &mut ends[1 - side];
            match other.handle(now, address.into(), None, BytesMut::from(&bytes[..]), &mut Vec::new()) {
                Some(DatagramEvent::NewConnection(i)) => {
                    connections[1 - side] = other.accept(i, now, &mut Vec::new(), None).ok();
                }
                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                    connections[1 - side].as_mut().unwrap().1.handle_event(event);
                }
                _ => {}
            }
        }
    }
    let spied = *spy.0.lock().unwrap();
    spied.unwrap()
}
