//! The controller on the simulated link: one case for each behaviour, medians over five seeds.
//!
//! Minutes of a processor, so in release mode only: `cargo test --no-default-features --release --test controller`.
//! The link, where nothing else is said: 100 Mbit/s, 50 ms there and back, a queue of 50 ms.

mod link;

use link::{Link, Outcome, Plan, World};
use warren_quic::gauge::Kind::{self, Cubic, Model};
use warren_quic::paths::PathChange;

const SEEDS: u64 = 5;

fn alone(link: Link, seed: u64, seconds: f64) -> Outcome {
    World::new(link, &[Plan::of(Model)], seed).run(seconds).remove(0)
}

/// The median over all seeds of something.
fn median(what: impl Fn(u64) -> f64) -> f64 {
    let mut values: Vec<f64> = (1..=SEEDS).map(what).collect();
    values.sort_by(f64::total_cmp);
    println!("{}", values.iter().map(|v| format!("{v:.1}")).collect::<Vec<_>>().join(" "));
    values[values.len() / 2]
}

macro_rules! case {
    ($name:ident, $body:block) => {
        #[test]
        #[cfg_attr(debug_assertions, ignore = "in release mode")]
        fn $name() $body
    };
}

case!(one_per_cent_of_random_loss, {
    let link = Link { loss: 0.01, ..Link::default() };
    assert!(median(|seed| alone(link.clone(), seed, 20.0).goodput(0.0, 20.0)) >= 85.0);
});

case!(three_per_cent_of_random_loss, {
    let link = Link { loss: 0.03, ..Link::default() };
    assert!(median(|seed| alone(link.clone(), seed, 20.0).goodput(0.0, 20.0)) >= 75.0);
});

case!(a_clean_link_is_filled_and_hardly_overrun, {
    for queue in [5.0, 10.0, 25.0, 55.0] {
        let link = Link { queue, ..Link::default() };
        assert!(median(|seed| alone(link.clone(), seed, 20.0).goodput(0.0, 20.0)) >= 88.0, "queue {queue}");
        assert!(median(|seed| alone(link.clone(), seed, 20.0).own_drops(0.0, 20.0) * 100.0) <= 2.0, "queue {queue}");
    }
});

case!(a_deep_queue_is_not_filled, {
    let link = Link { rate: vec![(0.0, 20.0)], round_trip: vec![(0.0, 30.0)], queue: 300.0, ..Link::default() };
    assert!(median(|seed| alone(link.clone(), seed, 20.0).mean_queue()) <= 25.0);
});

case!(a_path_that_becomes_longer_is_not_taken_for_a_queue, {
    let link = Link { round_trip: vec![(0.0, 10.0), (10.0, 100.0)], queue: 25.0, ..Link::default() };
    assert!(median(|seed| alone(link.clone(), seed, 15.0).goodput(14.0, 15.0)) >= 70.0);
});

case!(the_rate_falls_and_rises_again, {
    let link = Link { rate: vec![(0.0, 100.0), (8.0, 20.0), (16.0, 100.0)], ..Link::default() };
    assert!(median(|seed| alone(link.clone(), seed, 16.0).goodput(10.0, 16.0)) >= 17.0);
    // probes for more are up to three seconds apart
    assert!(median(|seed| alone(link.clone(), seed, 24.0).goodput(19.0, 24.0)) >= 55.0);
});

case!(a_policer_is_recognised, {
    for depth in [100.0, 1000.0] {
        let link = Link { policer: Some((20.0, depth)), ..Link::default() };
        assert!(median(|seed| alone(link.clone(), seed, 15.0).goodput(0.0, 15.0)) >= 16.0);
        assert!(median(|seed| alone(link.clone(), seed, 15.0).own_drops(3.0, 15.0) * 100.0) <= 10.0);
    }
});

case!(half_a_gigabit, {
    let link = Link { rate: vec![(0.0, 500.0)], round_trip: vec![(0.0, 20.0)], queue: 20.0, ..Link::default() };
    assert!(median(|seed| alone(link.clone(), seed, 8.0).goodput(0.0, 8.0)) >= 440.0);
});

case!(an_application_that_sends_little_then_much, {
    let plan = Plan { modest: Some((6.0, 5.0)), ..Plan::of(Model) };
    let link = Link { queue: 25.0, ..Link::default() };
    let run = |seed| World::new(link.clone(), std::slice::from_ref(&plan), seed).run(12.0).remove(0);
    assert!(median(|seed| run(seed).goodput(1.0, 6.0)) >= 4.5);
    assert!(median(|seed| run(seed).goodput(8.0, 12.0)) >= 80.0);
});

case!(after_a_blackout_it_goes_on_within_a_round_trip_or_two, {
    let link = Link { cut: Some((5.0, 15.0)), ..Link::default() };
    for (kind, at_most) in [(PathChange::Resumed, 150.0), (PathChange::Moved, 250.0)] {
        let run = |seed| World::new(link.clone(), &[Plan::of(Model)], seed).tell(15.001, kind).run(20.0).remove(0);
        assert!(median(|seed| (run(seed).after_cut.unwrap_or(99.0) - 15.0) * 1e3) <= at_most, "{kind:?}");
        assert!(median(|seed| run(seed).goodput(17.0, 20.0)) >= 60.0, "{kind:?}");
    }
});

case!(two_of_ours_beside_two_of_cubic, {
    let fair = 23.5;
    let (mut within, mut runs) = (0, 0);
    for queue in [12.0, 50.0, 100.0] {
        for seed in 1..=3 {
            let plans = [Model, Model, Cubic, Cubic].map(Plan::of);
            let outcomes = World::new(Link { queue, ..Link::default() }, &plans, seed).run(40.0);
            let shares: Vec<f64> = outcomes.iter().map(|o| o.goodput(0.0, 40.0)).collect();
            println!("queue {queue}: {shares:.1?}");
            runs += 1;
            within += usize::from(shares.iter().all(|s| (fair / 2.0..=fair * 2.0).contains(s)));
        }
    }
    assert!(within >= runs - 1, "{within} of {runs}");
});

/// What a flow has, 25 to 30 seconds after it joined one of ours.
fn joins(second: Kind, queue: f64) -> f64 {
    let plans = [Plan::of(Model), Plan::from(second, 5.0)];
    median(|seed| World::new(Link { queue, ..Link::default() }, &plans, seed).run(35.0)[1].goodput(30.0, 35.0))
}

case!(a_flow_of_cubic_that_joins_finds_room, {
    for queue in [12.0, 50.0, 100.0] {
        assert!(joins(Cubic, queue) >= 0.4 * 47.0, "queue {queue}");
    }
});

case!(a_flow_of_ours_that_joins_finds_room, {
    for queue in [12.0, 50.0, 100.0] {
        assert!(joins(Model, queue) >= 0.4 * 47.0, "queue {queue}");
    }
});

/// Not a case: what a run looks like, for somebody who changes the controller. `SECOND=cubic QUEUE=50 SEED=1`.
#[test]
#[ignore = "prints"]
fn trace() {
    let get = |name: &str, otherwise: f64| std::env::var(name).map_or(otherwise, |v| v.parse().unwrap());
    let second = if std::env::var("SECOND").is_ok_and(|v| v == "cubic") { Cubic } else { Model };
    let link = Link { queue: get("QUEUE", 50.0), ..Link::default() };
    let outcomes = World::new(link, &[Plan::of(Model), Plan::from(second, 5.0)], get("SEED", 1.0) as u64).run(40.0);
    if get("DROPS", 0.0) > 0.0 {
        let o = alone(Link { queue: get("QUEUE", 25.0), ..Link::default() }, 1, 20.0);
        println!("drops: {:?}", (0..20).map(|s| o.dropped[s * 10 + 9]).collect::<Vec<_>>());
        println!("phases: {:?}", (0..60).map(|s| o.phases[s].0).collect::<Vec<_>>());
    }
    for tick in (5..400).step_by(5) {
        print!("{:5.1}", tick as f64 / 10.0);
        for o in &outcomes {
            let (phase, window, round_trip) = o.phases[tick];
            let goodput = o.goodput(tick as f64 / 10.0 - 0.5, tick as f64 / 10.0);
            print!(" | {goodput:5.1} Mbit/s {phase:16} {:5} KB {:4.0} ms", window / 1000, round_trip * 1e3);
        }
        println!();
    }
}
