//! Random guests against random devices: guest messages of any type, length and content at any
//! time, and a model of the messages that must follow and that must never follow. A failure prints
//! its seed and the shortest failing sequence found.
//!
//! `SYNTHVM_MESSAGES=10000000` raises the number of messages; `SYNTHVM_SEED=n` plays one seed
//! again.

#![allow(unreachable_pub, reason = "a test program")]

#[path = "../common/mod.rs"]
mod common;

mod model;
mod steps;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use steps::Step;
use tally::{MUST_HAPPEN, Tally};
use vmbus_gpadl::GuestRam;
use world::World;

/// Default number of messages.
const DEFAULT_MESSAGES: u64 = 400_000;
/// Steps of one case: several connections.
const STEPS: usize = 3000;

fn environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Plays a case. Returns its record, or the failure.
fn play(ram: &GuestRam, steps: &[Step]) -> Result<Tally, String> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(ram);
        for step in steps {
            world.step(step);
        }
        world.end();
        world.tally
    }));
    played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

/// Shrinks a failing case: removes ever smaller pieces while it still fails.
fn shrink(ram: &GuestRam, mut steps: Vec<Step>) -> Vec<Step> {
    let mut piece = steps.len() / 2;
    while piece > 0 {
        let mut start = 0;
        while start < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(start..(start + piece).min(steps.len()));
            if play(ram, &fewer).is_err() {
                steps = fewer;
            } else {
                start += piece;
            }
        }
        piece /= 2;
    }
    steps
}

fn fail(ram: &GuestRam, seed: u64, why: &str) -> ! {
    let steps = shrink(ram, steps::generate(seed, STEPS));
    let last = play(ram, &steps).unwrap_err();
    let _ = std::panic::take_hook();
    for step in &steps {
        eprintln!("{step:x?}");
    }
    panic!(
        "SYNTHVM_SEED={seed}: {why}\nafter shrinking to the {} steps above: {last}",
        steps.len()
    );
}

#[test]
fn test_messages_of_any_content_at_any_moment_never_break_the_bus() {
    let ram = common::test_ram();
    // Panics are not printed before the case is shrunk.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = environment("SYNTHVM_SEED") {
        if let Err(why) = play(&ram, &steps::generate(seed, STEPS)) {
            fail(&ram, seed, &why);
        }
        return;
    }
    let wanted = environment("SYNTHVM_MESSAGES").unwrap_or(DEFAULT_MESSAGES);
    let (next, done, total) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Tally::new()));
    let failed = std::thread::scope(|scope| {
        let work = || {
            while done.load(Ordering::Relaxed) < wanted {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                match play(&ram, &steps::generate(seed, STEPS)) {
                    Ok(tally) => {
                        done.fetch_add(tally["message"], Ordering::Relaxed);
                        let mut total = total.lock().unwrap();
                        tally
                            .into_iter()
                            .for_each(|(what, times)| *total.entry(what).or_default() += times);
                    }
                    Err(why) => return Some((seed, why)),
                };
            }
            None
        };
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().find_map(|thread| thread.join().unwrap())
    });
    if let Some((seed, why)) = failed {
        fail(&ram, seed, &why);
    }
    let _ = std::panic::take_hook();
    let total = total.into_inner().unwrap();
    eprintln!("{} cases: {total:?}", next.into_inner());
    // Without these events the generator has degenerated, and the test proves nothing.
    for what in MUST_HAPPEN {
        assert!(
            total.get(what).is_some_and(|times| *times >= 20),
            "{what} hardly ever happened: {total:?}"
        );
    }
}
