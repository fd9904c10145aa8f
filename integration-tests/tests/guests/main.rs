//! Real guests under SynthVM: stock kernels with their own drivers on a real KVM.
//!
//! Run outside a machine with such a KVM, this program gets everything that the tests need, starts a test host and runs
//! itself in there.

use std::process::ExitCode;

use guest_images::StockKernel;
use integration_tests::host::{self, HostOptions, INSIDE, Place};
use integration_tests::program;
use integration_tests::runner::{self, Choice, Test};

mod boot;
mod common;
mod crash;
mod disk;
mod modules;

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
        common::guest(kernel).with_kexec().build().map_err(|e| e.to_string())?;
    }
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    arguments[0] = own.display().to_string();
    let options = HostOptions { place: Place::Auto, ..HostOptions::default() };
    host::run(&arguments, &options).map_err(|e| e.to_string())
}

fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for kernel in StockKernel::ALL {
        boot::add(&mut tests, kernel);
        disk::add(&mut tests, kernel);
        modules::add(&mut tests, kernel);
        crash::add(&mut tests, kernel);
    }
    tests
}
