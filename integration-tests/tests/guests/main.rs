//! Real guests under SynthVM: stock kernels with their own drivers on a real KVM.
//!
//! Run outside a machine with such a KVM, this program gets everything that the tests need, starts a test host and runs
//! itself in there.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use guest_images::StockKernel;
use integration_tests::host::{self, HostError, HostOptions, INSIDE, OutputSink};
use integration_tests::program;
use integration_tests::runner::{self, Choice, Test};

mod boot;
mod common;
mod conformance;
mod crash;
mod disk;
mod echo;
mod hugepages;
mod modules;
mod online;
mod stall;
mod tools;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let choice = Choice::parse(arguments.iter().skip(1).cloned());
    let tests = tests();
    if choice.list || std::env::var_os(INSIDE).is_some() {
        return runner::run(&tests, &choice);
    }
    if !tests.iter().any(|test| choice.takes(&test.name)) {
        return runner::run(&tests, &choice);
    }
    match outside(arguments) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("real guests: {error}");
            ExitCode::from(125)
        }
    }
}

/// Prepares what cannot be fetched or built inside, and goes there.
fn outside(mut arguments: Vec<String>) -> Result<i32, String> {
    program::build()?;
    for kernel in StockKernel::ALL {
        common::guest(kernel).build().map_err(|e| e.to_string())?;
        common::storage_guest(kernel).build().map_err(|e| e.to_string())?;
        conformance::guest(kernel).build().map_err(|e| e.to_string())?;
        common::guest(kernel).with_kexec().build().map_err(|e| e.to_string())?;
    }
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    arguments[0] = own.display().to_string();
    let options = HostOptions { quiet_limit: QUIET_LIMIT, ..HostOptions::default() };
    let mut hosts = 1;
    let mut failed_before = false;
    loop {
        let mut finished = Finished::default();
        match host::run_with(&arguments, &options, &mut finished) {
            Ok(0) if failed_before => return Ok(101),
            Ok(code) => return Ok(code),
            // An emulated host that stands still says nothing about the test in it: what was finished counts, the rest has another host.
            Err(error @ (HostError::Hung { .. } | HostError::Died { .. })) if hosts < HOSTS => {
                eprintln!("real guests: {error}\nreal guests: going on in a new host");
                println!("{}", finished.result_line());
                for (name, passed) in finished.tests {
                    failed_before |= !passed;
                    arguments.extend([runner::DONE.to_owned(), name]);
                }
                hosts += 1;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Every wait in these tests ends long before, also on a machine that is half as fast: storage that stands still is watched for three minutes.
const QUIET_LIMIT: Duration = Duration::from_secs(600);

/// Hosts for one run at the most.
const HOSTS: u32 = 3;

/// Shows the output as it comes and remembers which tests it says have ended.
#[derive(Default)]
struct Finished {
    line: Vec<u8>,
    /// Names, and whether they passed.
    tests: Vec<(String, bool)>,
}

impl Finished {
    /// The line that the standard harness would close with.
    fn result_line(&self) -> String {
        let passed = self.tests.iter().filter(|(_, passed)| *passed).count();
        let failed = self.tests.len() - passed;
        let word = if failed == 0 { "ok" } else { "FAILED" };
        format!(
            "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; its host was lost\n"
        )
    }

    fn end_of_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        else {
            return;
        };
        if outcome.starts_with("ok") || outcome.starts_with("FAILED") {
            self.tests.push((name.to_owned(), outcome.starts_with("ok")));
        }
    }
}

impl OutputSink for Finished {
    fn stdout(&mut self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
        for byte in bytes {
            match byte {
                b'\n' => self.end_of_line(),
                other => self.line.push(*other),
            }
        }
    }

    fn stderr(&mut self, bytes: &[u8]) {
        let _ = std::io::stderr().lock().write_all(bytes);
    }
}

fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for kernel in StockKernel::ALL {
        boot::add(&mut tests, kernel);
        disk::add(&mut tests, kernel);
        hugepages::add(&mut tests, kernel);
        modules::add(&mut tests, kernel);
        online::add(&mut tests, kernel);
        stall::add(&mut tests, kernel);
        conformance::add(&mut tests, kernel);
        tools::add(&mut tests, kernel);
        echo::add(&mut tests, kernel);
        crash::add(&mut tests, kernel);
    }
    tests
}
