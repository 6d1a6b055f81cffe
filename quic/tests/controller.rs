//! The controller on the simulated link: one case for each behaviour. In release mode: `cargo test --release`.

mod link;

use link::{Link, Outcome, Plan, World};
use warren_quic::gauge::Kind::{self, Cubic, Model};
use warren_quic::paths::PathChange;

fn alone(link: Link, kind: Kind, seed: u64, seconds: f64) -> Outcome {
    World::new(link, &[Plan::of(kind)], seed).run(seconds).remove(0)
}

fn print_table(kind: Kind) {
    for loss in [0.01, 0.03] {
        let o = alone(Link { loss, ..Link::default() }, kind, 1, 20.0);
        println!("loss {loss}: {:.1}", o.goodput(0.0, 20.0));
    }
    for queue in [5.0, 10.0, 25.0, 55.0] {
        let o = alone(Link { queue, ..Link::default() }, kind, 1, 20.0);
        println!("clean queue {queue}: {:.1}, drops {:.2} %, queue {:.1} ms", o.goodput(0.0, 20.0), o.own_drops(0.0, 20.0) * 100.0, o.mean_queue());
    }
    let o = alone(Link { round_trip: vec![(0.0, 10.0), (10.0, 100.0)], queue: 25.0, ..Link::default() }, kind, 1, 20.0);
    println!("rtt 10-100: 13 s {:.1} 15 s {:.1}", o.goodput(12.0, 13.0), o.goodput(14.0, 15.0));
    let o = alone(Link { rate: vec![(0.0, 100.0), (8.0, 20.0), (16.0, 100.0)], ..Link::default() }, kind, 1, 24.0);
    println!("rate 100-20-100: {:.1} {:.1} {:.1}", o.goodput(2.0, 8.0), o.goodput(9.0, 16.0), o.goodput(19.0, 24.0));
    for depth in [100.0, 1000.0] {
        let o = alone(Link { policer: Some((20.0, depth)), ..Link::default() }, kind, 1, 15.0);
        println!("policer {depth}: {:.1} drops {:.1} %", o.goodput(0.0, 15.0), o.own_drops(2.0, 15.0) * 100.0);
    }
    let o = alone(Link { rate: vec![(0.0, 500.0)], round_trip: vec![(0.0, 20.0)], queue: 20.0, ..Link::default() }, kind, 1, 8.0);
    println!("500 Mbit/s: {:.1}", o.goodput(0.0, 8.0));
    let plan = Plan { modest: Some((6.0, 5.0)), ..Plan::of(kind) };
    let o = World::new(Link { queue: 25.0, ..Link::default() }, &[plan], 1).run(12.0).remove(0);
    println!("little then much: {:.1} then {:.1}", o.goodput(1.0, 6.0), o.goodput(8.0, 12.0));
}

#[test]
#[ignore = "prints the table for somebody to look at"]
fn table() {
    print_table(Model);
}

#[test]
#[ignore = "prints"]
fn fairness() {
    for queue in [12.0, 50.0, 100.0] {
        for seed in 1..=3 {
            let plans = [Plan::of(Model), Plan::of(Model), Plan::of(Cubic), Plan::of(Cubic)];
            let o = World::new(Link { queue, ..Link::default() }, &plans, seed).run(40.0);
            let v: Vec<String> = o.iter().map(|o| format!("{:.1}", o.goodput(10.0, 40.0))).collect();
            println!("fair queue {queue} seed {seed}: {}", v.join(" "));
        }
        for (name, second) in [("cubic", Cubic), ("model", Model)] {
            let plans = [Plan::of(Model), Plan::from(second, 5.0)];
            let o = World::new(Link { queue, ..Link::default() }, &plans, 1).run(45.0);
            println!("{name} joins, queue {queue}: 10-20 s {:.1}, 25-35 s {:.1}, 35-45 s {:.1} | first {:.1}", o[1].goodput(10.0, 20.0), o[1].goodput(25.0, 35.0), o[1].goodput(35.0, 45.0), o[0].goodput(35.0, 45.0));
        }
    }
    let _ = PathChange::Moved;
}

#[test]
#[ignore]
fn modest() {
    let plan = Plan { modest: Some((6.0, 5.0)), ..Plan::of(Model) };
    let o = World::new(Link { queue: 25.0, ..Link::default() }, &[plan], 1).run(12.0).remove(0);
    println!("little then much: {:.1} then {:.1}", o.goodput(1.0, 6.0), o.goodput(8.0, 12.0));
}
