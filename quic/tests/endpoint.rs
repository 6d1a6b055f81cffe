//! Many connections on one socket, in virtual time: Retry, limits, migration, resets.

mod link;

use std::net::SocketAddr;

use link::certified;
use warren_quic::connection::Connection;
use warren_quic::endpoint::{Endpoint, Shared};
use warren_quic::events::Event;
use warren_quic::settings::Settings;

const MS: u64 = 1_000_000;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], port))
}

struct World {
    endpoint: Endpoint,
    /// Each with the address that it has now.
    clients: Vec<(SocketAddr, Connection)>,
    served: Vec<Shared>,
    /// Where datagrams went that no client has.
    strays: Vec<SocketAddr>,
    now: u64,
}

impl World {
    fn new(retry: bool, half_open: usize, clients: u16) -> Self {
        let (client, server) = certified();
        let settings = Settings::default();
        let call = |n| (address(1000 + n), Connection::connect(client, &settings, 0).unwrap());
        Self {
            endpoint: Endpoint::new(server, &settings, retry, half_open, 0).unwrap(),
            clients: (0..clients).map(call).collect(),
            served: vec![],
            strays: vec![],
            now: 0,
        }
    }

    /// So many times 5 ms. `passes`: which of the endpoint's datagrams arrive.
    fn run(&mut self, steps: usize, passes: impl Fn(SocketAddr) -> bool) {
        for _ in 0..steps {
            self.now += 5 * MS;
            for (from, client) in &mut self.clients {
                client.handle_timer(self.now).unwrap();
                while let Some(made) = client.transmit(self.now, 0, 8).unwrap() {
                    self.endpoint.receive(&made.bytes, made.stride, *from, self.now).unwrap();
                }
            }
            self.served.extend(std::iter::from_fn(|| self.endpoint.accept()).map(|made| made.1));
            self.endpoint.handle_timer(self.now).unwrap();
            while let Some(made) = self.endpoint.transmit(self.now, 8).unwrap() {
                match self.clients.iter_mut().find(|c| c.0 == made.to) {
                    Some((_, client)) if passes(made.to) => {
                        client.receive(&made.bytes, made.stride, b"", self.now).unwrap();
                    }
                    _ => self.strays.push(made.to),
                }
            }
        }
    }

    fn connected(&mut self) -> usize {
        let mut count = 0;
        for (_, client) in &mut self.clients {
            let heard: Vec<Event> = std::iter::from_fn(|| client.poll_event()).collect();
            count += heard.iter().filter(|e| matches!(e, Event::Connected { .. })).count();
        }
        count
    }
}

#[test]
fn a_client_that_is_asked_to_retry_connects() {
    let mut world = World::new(true, 1, 1);
    world.run(40, |_| true);
    let counted = world.endpoint.counters;
    assert_eq!((counted.retried, counted.accepted, counted.dropped), (1, 1, 0));
    assert_eq!(world.connected(), 1);
}

#[test]
fn a_token_is_worth_nothing_at_another_address() {
    let mut world = World::new(true, 1, 1);
    // the Retry arrives; what the client answers with its token comes from elsewhere
    world.run(1, |_| true);
    world.clients[0].0 = address(2000);
    world.run(20, |_| true);
    assert_eq!(world.endpoint.counters.accepted, 0);
    assert_eq!(world.connected(), 0);
}

#[test]
fn handshakes_under_way_are_bounded_in_number_and_time() {
    let mut world = World::new(false, 8, 40);
    world.run(1, |_| false);
    assert_eq!(world.endpoint.counters.accepted, 8);
    assert!(world.endpoint.counters.dropped >= 32);
    assert_eq!(world.endpoint.sizes(), (8, 8));
    world.clients.clear();
    world.run(2100, |_| true);
    assert_eq!(world.endpoint.counters.given_up, 8);
    assert_eq!(world.endpoint.sizes().1, 0);
    // room again
    world.clients = World::new(false, 8, 1).clients;
    world.run(40, |_| true);
    assert_eq!(world.connected(), 1);
}

#[test]
fn a_client_that_moves_is_followed() {
    let mut world = World::new(false, 8, 1);
    world.run(20, |_| true);
    world.clients[0].0 = address(2000);
    let stream = world.clients[0].1.open_stream(true).unwrap();
    world.clients[0].1.write(stream, &[1; 50_000]).unwrap();
    world.run(40, |_| true);
    let mut served = world.served[0].lock().unwrap();
    assert_eq!(served.address(), Some(address(2000)));
    assert_eq!(served.read(stream, 100_000).unwrap().concat().len(), 50_000);
}

#[test]
fn who_replays_a_packet_from_another_address_gets_little_and_keeps_nothing() {
    let mut world = World::new(false, 8, 1);
    world.run(20, |_| true);
    let stream = world.clients[0].1.open_stream(true).unwrap();
    world.clients[0].1.write(stream, b"overtaken").unwrap();
    world.now += 5 * MS;
    let made = world.clients[0].1.transmit(world.now, 0, 1).unwrap().unwrap();
    // it arrives from elsewhere before the original does; and the server has much to say
    world.endpoint.receive(&made.bytes, made.stride, address(6666), world.now).unwrap();
    world.served[0].lock().unwrap().write(stream, &[1; 500_000]).unwrap();
    world.run(1, |_| true);
    let strays = world.strays.len();
    assert!(world.strays.iter().all(|to| *to == address(6666)));
    // nobody there answers the challenge, while the client goes on at its own address
    for _ in 0..400 {
        world.clients[0].1.write(stream, b"x").unwrap();
        world.run(1, |_| true);
        world.clients[0].1.read(stream, usize::MAX).unwrap();
    }
    assert_eq!(world.served[0].lock().unwrap().address(), Some(address(1000)));
    assert!(strays <= 8 && world.strays.len() <= 16, "{strays}, {}", world.strays.len());
}

#[test]
fn a_packet_of_a_connection_that_is_over_is_answered_by_a_stateless_reset() {
    let mut world = World::new(false, 8, 1);
    world.run(20, |_| true);
    let now = world.now;
    world.served[0].lock().unwrap().close(0, "", now).unwrap();
    let (from, mut client) = world.clients.pop().unwrap();
    // the client does not hear of it, and the server forgets it
    world.endpoint.touch(0);
    world.run(2000, |_| true);
    assert_eq!(world.endpoint.sizes(), (0, 0));
    let stream = client.open_stream(true).unwrap();
    client.write(stream, &[0; 1000]).unwrap();
    world.clients.push((from, client));
    world.run(10, |_| true);
    let heard: Vec<Event> = std::iter::from_fn(|| world.clients[0].1.poll_event()).collect();
    let reset = |e: &Event| matches!(e, Event::Closed { ours: false, reason, .. } if reason == "stateless reset");
    assert!(heard.iter().any(reset), "{heard:?}");
}

#[test]
fn unknown_versions_are_answered_and_junk_is_not() {
    let mut world = World::new(false, 8, 0);
    let mut hello = vec![0u8; 1200];
    hello[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
    world.endpoint.receive(&hello, 0, address(1), 0).unwrap();
    let answer = world.endpoint.transmit(0, 8).unwrap().unwrap();
    assert_eq!((answer.to, &answer.bytes[1..5]), (address(1), &[0; 4][..]), "version negotiation");
    assert!(answer.bytes.len() < hello.len());
    for junk in [&[][..], &[0x40], &[0xff; 30], &hello[..100]] {
        world.endpoint.receive(junk, 0, address(1), 0).unwrap();
    }
    assert_eq!(world.endpoint.transmit(0, 8).unwrap(), None);
    assert_eq!((world.endpoint.sizes(), world.endpoint.counters.failed), ((0, 0), 0));
}
