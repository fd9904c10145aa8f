//! Real guests under SynthVM: stock kernels with their own drivers on a real KVM.
//!
//! On a machine without such a KVM, this program fetches and builds everything that the tests need,
//! starts test hosts and runs itself there, once per test.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use guest_images::StockKernel;
use guest_images::cache::Cache;
use integration_tests::host::{self, EmulatedHost, HostError, HostOptions, INSIDE, OutputSink};
use integration_tests::losses::Record;
use integration_tests::runner::{self, Choice, Test};
use integration_tests::shards::{self, TestHost};
use integration_tests::{order, program};

mod boot;
mod browser;
mod common;
mod conformance;
mod crash;
mod desktop;
mod disk;
mod display;
mod echo;
mod firmware;
mod firmware_disks;
mod hibernation;
mod hugepages;
mod memory;
mod modules;
mod msvm;
mod network;
mod network_options;
mod network_traffic;
mod online;
mod platform;
mod services;
mod sockets;
mod stall;
mod tools;
mod tpm;
mod vnc;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("real guests: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let choice = Choice::parse(std::env::args().skip(1))?;
    let mut tests = tests();
    let takes_any = tests.iter().any(|test| choice.takes(&test.name));
    let is_inside = std::env::var_os(INSIDE).is_some();
    if choice.list || !takes_any || is_inside {
        return Ok(runner::run(&tests, &choice));
    }
    prepare()?;
    let seed = choice.seed.unwrap_or_else(order::new_seed);
    order::shuffle(&mut tests, seed, LAST, |test| is_long(&test.name));
    println!("\ntests in the order of seed {seed} (--seed {seed} repeats it)");
    if host::is_usable_here() {
        return Ok(runner::run(&tests, &choice));
    }
    let names: Vec<String> =
        tests.into_iter().map(|test| test.name).filter(|name| choice.takes(name)).collect();
    run_in_hosts(&names, seed, choice.json)
}

/// Builds and fetches everything that is not available inside a test host.
fn prepare() -> Result<(), String> {
    program::build()?;
    guest_images::passt::program(&Cache::project()).map_err(|e| e.to_string())?;
    guest_images::chromium::program(&Cache::project()).map_err(|e| e.to_string())?;
    guest_images::gvnc::program(&Cache::project()).map_err(|e| e.to_string())?;
    guest_images::swtpm::program(&Cache::project()).map_err(|e| e.to_string())?;
    firmware::prepare(&Cache::project()).map_err(|e| e.to_string())?;
    firmware_disks::prepare(&Cache::project()).map_err(|e| e.to_string())?;
    desktop::prepare().map_err(|e| e.to_string())?;
    platform::prepare(&Cache::project()).map_err(|e| e.to_string())?;
    guest_images::msvm_stub(&Cache::project()).map_err(|e| e.to_string())?;
    for kernel in StockKernel::ALL {
        common::guest(kernel).build().map_err(|e| e.to_string())?;
        common::storage_guest(kernel).build().map_err(|e| e.to_string())?;
        common::network_guest(kernel).build().map_err(|e| e.to_string())?;
        conformance::guest(kernel).build().map_err(|e| e.to_string())?;
        display::guest(kernel).build().map_err(|e| e.to_string())?;
        services::guest(kernel).build().map_err(|e| e.to_string())?;
        hibernation::guest(kernel).build().map_err(|e| e.to_string())?;
        common::guest(kernel).with_kexec().build().map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Runs each test as a separate command in one of several test hosts, and records the run.
fn run_in_hosts(names: &[String], seed: u64, json: Option<PathBuf>) -> Result<ExitCode, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?.display().to_string();
    let options = HostOptions { quiet_limit: QUIET_LIMIT, cpus: 1, ..HostOptions::default() };
    std::fs::create_dir_all(&options.results)
        .map_err(|e| format!("{}: {e}", options.results.display()))?;
    let hosts =
        std::thread::available_parallelism().map_or(1, usize::from).min(MAX_HOSTS).min(names.len());
    println!("\nrunning {} tests in {hosts} test hosts", names.len());
    let begin = Instant::now();
    let start =
        || EmulatedHost::start(&options).map(|host| Host { host, program: program.clone() });
    let summary = shards::run(names, hosts, start).map_err(|error| error.to_string())?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", summary.text(seconds));
    let passed = summary.failed().next().is_none();
    let file = json.unwrap_or_else(Record::default_file);
    let record = Record::new(summary, seed, hosts, seconds);
    record.append(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(101) })
}

/// Timeout of a host's silence: the tests print a line every 30 s, so a silent host has stopped.
const QUIET_LIMIT: Duration = Duration::from_secs(150);

/// Limit of concurrent test hosts: each uses 8 GiB.
const MAX_HOSTS: usize = 2;

/// Number of tests at the end of the order that must be short, so that all hosts end at about the
/// same time.
const LAST: usize = 8;

/// Prefixes of the names of tests that take about a minute or more in an emulated host.
const LONG: [&str; 8] = [
    "test_disk_is_as_sg3_utils",
    "test_disk_that_stalls",
    "test_disks_added",
    "test_disks_under_fio",
    "test_machine_stopped",
    "test_network_cards_change",
    "test_network_traffic",
    "test_sockets_carry",
];

fn is_long(name: &str) -> bool {
    LONG.iter().any(|long| name.starts_with(long))
}

/// An emulated host in which this program runs one test.
struct Host {
    host: EmulatedHost,
    program: String,
}

impl TestHost for Host {
    fn run(&mut self, name: &str, sink: &mut dyn OutputSink) -> Result<i32, HostError> {
        let argv = [self.program.clone(), "--exact".to_owned(), name.to_owned()];
        self.host.run(&argv, &[], sink)
    }
}

fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    msvm::add(&mut tests);
    for kernel in StockKernel::ALL {
        boot::add(&mut tests, kernel);
        browser::add(&mut tests, kernel);
        desktop::add(&mut tests, kernel);
        disk::add(&mut tests, kernel);
        display::add(&mut tests, kernel);
        hugepages::add(&mut tests, kernel);
        memory::add(&mut tests, kernel);
        modules::add(&mut tests, kernel);
        network::add(&mut tests, kernel);
        network_options::add(&mut tests, kernel);
        network_traffic::add(&mut tests, kernel);
        online::add(&mut tests, kernel);
        sockets::add(&mut tests, kernel);
        services::add(&mut tests, kernel);
        hibernation::add(&mut tests, kernel);
        stall::add(&mut tests, kernel);
        conformance::add(&mut tests, kernel);
        tools::add(&mut tests, kernel);
        tpm::add(&mut tests, kernel);
        platform::add(&mut tests, kernel);
        vnc::add(&mut tests, kernel);
        echo::add(&mut tests, kernel);
        crash::add(&mut tests, kernel);
    }
    platform::add_once(&mut tests);
    firmware::add(&mut tests);
    firmware_disks::add(&mut tests);
    tests
}
