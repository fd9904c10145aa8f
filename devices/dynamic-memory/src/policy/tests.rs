//! The policy against simulated guests.

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1024 * MIB;

fn bounds() -> Bounds {
    Bounds {
        min: 512 * MIB,
        start: 2 * GIB,
        max: 4 * GIB,
        buffer_percent: 20,
        start_delay: Duration::from_secs(50),
    }
}

/// A guest that does what it is asked, as far as it can.
#[derive(Debug)]
struct Simulated {
    guest: Guest,
    bounds: Bounds,
    policy: Policy,
    /// Pages that its programs use.
    used: u64,
    seconds: u64,
}

impl Simulated {
    fn new(bounds: Bounds, used: u64) -> Self {
        let guest = Guest {
            present: bounds.start,
            ballooned: 0,
            hot_add_alignment: Some(128 * MIB),
            window: u64::MAX,
            has_balloon: true,
        };
        Self { guest, bounds, policy: Policy::new(None), used, seconds: 0 }
    }

    fn assigned(&self) -> u64 {
        self.guest.present - self.guest.ballooned
    }

    /// Reports, then carries out requests until there are none, at most `most`.
    fn second(&mut self, most: usize) {
        self.seconds += 1;
        let pressure = Pressure {
            available: self.assigned().saturating_sub(self.used),
            committed: self.used + self.guest.ballooned,
        };
        self.policy.report(pressure, &self.bounds, &self.guest);
        for _ in 0..most {
            let age = Duration::from_secs(self.seconds);
            match self.policy.step(&self.bounds, &self.guest, age) {
                Step::Nothing => return,
                Step::Balloon(pages) => self.give(pages),
                Step::Unballoon(pages) => {
                    assert!(pages > 0 && pages <= self.guest.ballooned);
                    self.guest.ballooned -= pages;
                }
                Step::HotAdd(pages) => {
                    assert!(pages > 0 && pages.is_multiple_of(128 * MIB));
                    self.guest.present += pages;
                }
            }
            assert!(self.assigned() <= self.bounds.max);
        }
    }

    fn give(&mut self, pages: u64) {
        assert!(pages > 0 && pages <= MAX_BALLOON);
        let given = pages.min(self.assigned().saturating_sub(self.used));
        self.guest.ballooned += given;
        self.policy.gave(given);
        if given < pages {
            self.policy.fell_short();
        }
    }

    fn seconds(&mut self, count: u64) {
        for _ in 0..count {
            self.second(64);
        }
    }
}

#[test]
fn test_policy_leaves_a_booting_guest_alone_and_then_follows_its_demand() {
    let mut guest = Simulated::new(bounds(), GIB);
    guest.seconds(49);
    assert_eq!(guest.assigned(), 2 * GIB, "the start delay");
    guest.seconds(1);
    let target = GIB * 6 / 5;
    assert_eq!(guest.assigned(), target);
    // A little less demand changes nothing, far less does after ten reports.
    guest.used = GIB - 8 * MIB;
    guest.seconds(20);
    assert_eq!(guest.assigned(), target);
    guest.used = 100 * MIB;
    guest.seconds(9);
    assert_eq!(guest.assigned(), target);
    guest.seconds(1);
    assert_eq!(guest.assigned(), 512 * MIB, "never below the least");
    // More demand is met immediately, by the balloon first and by added memory then.
    guest.used = 2 * GIB;
    guest.seconds(1);
    assert_eq!((guest.assigned(), guest.guest.ballooned), (2 * GIB + 512 * MIB, 0));
    guest.used = 10 * GIB;
    guest.seconds(1);
    assert_eq!(guest.assigned(), 4 * GIB, "never above the most");
}

#[test]
fn test_policy_of_a_user_needs_no_delay_and_never_goes_below_the_demand() {
    let mut guest = Simulated::new(bounds(), 300 * MIB);
    guest.policy.set_wanted(Some(GIB));
    guest.seconds(1);
    assert_eq!(guest.assigned(), GIB);
    guest.used = GIB;
    guest.seconds(1);
    assert_eq!(guest.assigned(), GIB * 6 / 5, "the demand and its buffer");
    guest.used = 300 * MIB;
    guest.seconds(1);
    assert_eq!(guest.assigned(), GIB, "the wanted size again");
    guest.policy.set_wanted(Some(2 * GIB));
    guest.seconds(1);
    assert_eq!((guest.assigned(), guest.guest.ballooned), (2 * GIB, 0));
    guest.policy.set_wanted(None);
    guest.seconds(9);
    assert_eq!(guest.assigned(), 2 * GIB);
    guest.seconds(41);
    assert_eq!(guest.assigned(), 512 * MIB);
}

#[test]
fn test_policy_does_nothing_without_a_report() {
    let guest = Simulated::new(bounds(), GIB);
    let mut policy = Policy::new(Some(512 * MIB));
    let age = Duration::from_secs(100);
    assert_eq!(policy.step(&guest.bounds, &guest.guest, age), Step::Nothing);
    policy.report(Pressure { available: GIB, committed: MIB }, &guest.bounds, &guest.guest);
    assert!(matches!(policy.step(&guest.bounds, &guest.guest, age), Step::Balloon(_)));
    policy.forget_guest();
    assert_eq!(policy.step(&guest.bounds, &guest.guest, age), Step::Nothing);
    assert_eq!(policy.wanted(), Some(512 * MIB), "the user's wish outlives the driver");
}

#[test]
fn test_policy_asks_a_guest_that_gave_less_only_after_its_next_report() {
    let mut guest = Simulated::new(bounds(), 0);
    guest.policy.set_wanted(Some(512 * MIB));
    let pressure = Pressure { available: 2 * GIB, committed: 0 };
    guest.policy.report(pressure, &guest.bounds, &guest.guest);
    assert_eq!(
        guest.policy.step(&guest.bounds, &guest.guest, Duration::ZERO),
        Step::Balloon(256 * MIB)
    );
    guest.policy.fell_short();
    assert_eq!(guest.policy.step(&guest.bounds, &guest.guest, Duration::ZERO), Step::Nothing);
    guest.policy.report(pressure, &guest.bounds, &guest.guest);
    assert_eq!(
        guest.policy.step(&guest.bounds, &guest.guest, Duration::ZERO),
        Step::Balloon(256 * MIB)
    );
}

#[test]
fn test_policy_adds_no_memory_to_a_guest_that_cannot_take_it() {
    let mut guest = Simulated::new(bounds(), 3 * GIB);
    guest.guest.hot_add_alignment = None;
    guest.seconds(3);
    assert_eq!(guest.assigned(), 2 * GIB);
    // An alignment of 1 GiB, and space for less than two of them.
    guest.guest.hot_add_alignment = Some(GIB);
    guest.bounds.max = 4 * GIB - 128 * MIB;
    guest.seconds(3);
    assert_eq!(guest.assigned(), 3 * GIB);
    // The host has no more addresses.
    guest.bounds.max = 5 * GIB;
    guest.guest.window = GIB - 1;
    guest.seconds(3);
    assert_eq!(guest.assigned(), 3 * GIB);
}

proptest! {
    /// Reports of any content, and answers of any kind, never lead out of the bounds.
    #[test]
    fn test_policy_with_any_guest_stays_in_its_bounds(
        (min, start, max) in (1_u64..5000, 0_u64..5000, 0_u64..5000)
            .prop_map(|(min, more, most)| (min, min + more, min + more + most)),
        buffer_percent in 0_u32..500,
        steps in prop::collection::vec(
            (any::<u64>(), any::<u64>(), 0_u64..200, prop::option::of(any::<u64>()), any::<bool>()),
            1..60,
        ),
    ) {
        let (min, start, max) = (min * MIB, start * MIB, max * MIB);
        let start_delay = Duration::from_secs(5);
        let bounds = Bounds { min, start, max, buffer_percent, start_delay };
        let mut guest = Simulated::new(bounds, 0);
        for (available, committed, percent, wanted, is_small) in steps {
            let scale = |number| if is_small { number % (2 * max) } else { number };
            let pressure = Pressure { available: scale(available), committed: scale(committed) };
            guest.seconds += 1;
            guest.policy.set_wanted(wanted.map(|wanted| min + wanted % (max - min + 1)));
            guest.policy.report(pressure, &bounds, &guest.guest);
            let age = Duration::from_secs(guest.seconds);
            match guest.policy.step(&bounds, &guest.guest, age) {
                Step::Nothing => {}
                Step::Balloon(pages) => {
                    prop_assert!(pages > 0 && pages <= MAX_BALLOON);
                    prop_assert!(guest.assigned() - pages >= min);
                    prop_assert!(pages <= pressure.available);
                    let given = pages * percent.min(100) / 100;
                    guest.guest.ballooned += given;
                    guest.policy.gave(given);
                }
                Step::Unballoon(pages) => {
                    prop_assert!(pages > 0 && pages <= guest.guest.ballooned);
                    guest.guest.ballooned -= pages;
                }
                Step::HotAdd(pages) => {
                    prop_assert!(pages > 0 && guest.guest.present + pages <= max);
                    guest.guest.present += pages;
                }
            }
            prop_assert!(guest.assigned() <= max);
        }
    }

    /// A guest whose demand stays gets to its target, and no request follows.
    #[test]
    fn test_policy_with_a_steady_guest_comes_to_rest(
        used in 0_u64..5 * GIB,
        wanted in prop::option::of(512 * MIB..4 * GIB),
    ) {
        let mut guest = Simulated::new(bounds(), used.min(2 * GIB));
        guest.policy.set_wanted(wanted);
        guest.seconds(60);
        guest.used = used.min(guest.assigned());
        guest.seconds(80);
        let target = guest.policy.target(&guest.bounds).unwrap();
        let assigned = guest.assigned();
        // A dead band, and added memory in steps of 128 MiB.
        prop_assert!(assigned + MIB > target.min(assigned + MIB));
        prop_assert!(assigned < target + DEAD_BAND + 128 * MIB, "{} {}", assigned, target);
        prop_assert!(assigned >= target, "{} {}", assigned, target);
        guest.second(1);
        prop_assert_eq!(guest.assigned(), assigned);
    }
}
