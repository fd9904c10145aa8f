//! Runs tests one after another in this process, with the standard harness's output format.
//!
//! Real guests need the whole machine, without the threads of the standard harness.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::host::is_emulated;
use crate::traces::Traces;

/// The result of a test. Any error is a failure.
pub type TestResult = Result<(), Box<dyn std::error::Error>>;

/// A test.
pub struct Test {
    /// The name, by which the test can be chosen.
    pub name: String,
    /// The test's function.
    pub run: Box<dyn Fn() -> TestResult>,
}

impl Test {
    /// Returns a test with this name.
    pub fn new(name: impl Into<String>, run: impl Fn() -> TestResult + 'static) -> Test {
        Test { name: name.into(), run: Box::new(run) }
    }
}

/// The options of the command line, which are those of the standard harness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Only list the names.
    pub list: bool,
    /// The seed of the order of tests, to repeat an order.
    pub seed: Option<u64>,
    /// The file to which a record of the run is appended.
    pub json: Option<PathBuf>,
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
}

impl Choice {
    /// Parses arguments. Other options of the standard harness are accepted and ignored.
    ///
    /// # Errors
    /// A message: a seed that is no number.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Choice, String> {
        let mut choice = Choice::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => choice.list = true,
                "--exact" => choice.exact = true,
                "--seed" => {
                    let seed = arguments.next().unwrap_or_default();
                    choice.seed =
                        Some(seed.parse().map_err(|_| format!("--seed {seed}: no number"))?);
                }
                "--json" => choice.json = arguments.next().map(PathBuf::from),
                "--skip" => choice.skips.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" => drop(arguments.next()),
                other if other.starts_with('-') => {}
                filter => choice.filters.push(filter.to_owned()),
            }
        }
        Ok(choice)
    }

    /// Returns whether a test is chosen.
    pub fn takes(&self, name: &str) -> bool {
        let fits =
            |word: &String| if self.exact { word == name } else { name.contains(word.as_str()) };
        let wanted = self.filters.is_empty() || self.filters.iter().any(fits);
        wanted && !self.skips.iter().any(fits)
    }
}

/// Runs the chosen tests.
pub fn run(tests: &[Test], choice: &Choice) -> ExitCode {
    let chosen: Vec<&Test> = tests.iter().filter(|test| choice.takes(&test.name)).collect();
    if choice.list {
        for test in &chosen {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let emulated = is_emulated();
    if emulated {
        show_life();
    }
    let start = Instant::now();
    let mut failures = Vec::new();
    for test in &chosen {
        let begin = Instant::now();
        let before = emulated.then(Traces::now);
        let mut outcome =
            run_again_where_the_emulator_failed(&test.name, emulated, || run_one(test));
        if outcome.is_ok() {
            outcome = before.map_or(Ok(()), |before| leaves_nothing(&before));
        }
        let seconds = begin.elapsed().as_secs_f64();
        match &outcome {
            Ok(()) => println!("test {} ... ok <{seconds:.1}s>", test.name),
            Err(why) => println!("test {} ... FAILED <{seconds:.1}s>\n{why}\n", test.name),
        }
        if outcome.is_err() {
            failures.push(test.name.as_str());
        }
    }
    if !failures.is_empty() {
        println!("\nfailures:\n    {}", failures.join("\n    "));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished \
        in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failures.len(),
        failures.len(),
        tests.len() - chosen.len(),
        start.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// Interval of the messages that an emulated host is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Prints a line at intervals as long as this process runs, to distinguish a stopped host from a
/// long test without output.
fn show_life() {
    std::thread::spawn(|| {
        for seconds in (0..).map(|count| count * SIGN_OF_LIFE.as_secs()) {
            eprintln!("  .. the test host lives ({seconds} s)");
            std::thread::sleep(SIGN_OF_LIFE);
        }
    });
}

/// Number of attempts of a test whose guest was lost by the emulated host's CPU.
const ATTEMPTS: u32 = 3;

/// The message about a guest that the emulator lost.
pub const LOST_GUEST: &str = "the emulated CPU lost the guest";

/// SynthVM's message about a triple fault of the guest.
pub(crate) const TRIPLE_FAULT: &str = "triple fault, the machine resets";

/// Runs a test again after a loss. Emulated CPUs sometimes lose a guest (about one in sixty boots):
/// it has a triple fault without a cause, like the emulated host itself when it starts. No guest of
/// these tests causes one, so such a run has no result: it is reported and repeated, and never
/// counts as a pass. On a real KVM a triple fault is a failure.
fn run_again_where_the_emulator_failed(
    name: &str,
    emulated: bool,
    mut run: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    for attempt in 1..ATTEMPTS {
        match run() {
            Err(why) if emulated && why.contains(TRIPLE_FAULT) => {
                println!("test {name}: {LOST_GUEST} in attempt {attempt} (triple fault); again");
            }
            other => return other,
        }
    }
    run()
}

/// Fails if the test left traces: the next test in this host must find it unchanged. On other
/// machines the check does not apply.
fn leaves_nothing(before: &Traces) -> Result<(), String> {
    let now = Traces::now();
    let left = now.new_since(before);
    if left.is_empty() { Ok(()) } else { Err(format!("the test left behind: {}", left.join(", "))) }
}

fn run_one(test: &Test) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| (test.run)())) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        // The panic's message has already been written to standard error.
        Err(payload) => Err(payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "the test panicked".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn choice(words: &[&str]) -> Choice {
        Choice::parse(words.iter().map(|word| (*word).to_owned())).unwrap()
    }

    #[test]
    fn test_choice_takes_by_part_by_whole_name_and_skips() {
        assert!(choice(&[]).takes("boot_6.1"));
        assert!(choice(&["6.1"]).takes("boot_6.1"));
        assert!(!choice(&["--exact", "6.1"]).takes("boot_6.1"));
        assert!(!choice(&["boot", "--skip", "6.1"]).takes("boot_6.1"));
        assert!(choice(&["--test-threads", "1", "--nocapture"]).takes("x"));
    }

    #[test]
    fn test_choice_of_an_order_is_a_number_and_no_filter() {
        let chosen = choice(&["--seed", "17", "--json", "a/b"]);
        assert_eq!((chosen.seed, chosen.json.as_deref()), (Some(17), Some(Path::new("a/b"))));
        assert!(chosen.takes("any"));
        assert!(Choice::parse(["--seed", "x"].map(str::to_owned).into_iter()).is_err());
    }

    #[test]
    fn test_run_again_is_only_for_triple_faults_of_an_emulated_cpu() {
        let attempts = |emulated: bool, outcomes: &[Result<(), &str>]| {
            let mut runs = outcomes.iter();
            let mut next = || runs.next().copied().unwrap_or(Ok(())).map_err(str::to_owned);
            let outcome = run_again_where_the_emulator_failed("x", emulated, &mut next);
            (outcome.is_ok(), outcomes.len() - runs.len())
        };
        let fault = Err("WARN vCPU 0: triple fault, the machine resets");
        assert_eq!(attempts(true, &[fault, Ok(())]), (true, 2));
        assert_eq!(attempts(true, &[fault, fault, fault, Ok(())]), (false, 3));
        assert_eq!(attempts(false, &[fault, Ok(())]), (false, 1));
        assert_eq!(attempts(true, &[Err("no"), Ok(())]), (false, 1));
    }

    #[test]
    fn test_run_one_of_a_test_that_panics_or_errs_is_a_failure_in_words() {
        let panics = Test::new("a", || panic!("went {}", "wrong"));
        assert_eq!(run_one(&panics), Err("went wrong".to_owned()));
        let errs = Test::new("b", || Err("no".into()));
        assert_eq!(run_one(&errs), Err("no".to_owned()));
        assert_eq!(run_one(&Test::new("c", || Ok(()))), Ok(()));
    }
}
