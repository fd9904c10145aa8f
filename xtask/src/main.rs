//! The project's own commands: demo, test, host, bench, compare, deny, package,
//! architecture.

use std::error::Error;
use std::ops::RangeBounds;
use std::process::ExitCode;

use clap::builder::{RangedI64ValueParser, ValueParserFactory};
use clap::{Parser, Subcommand};

mod architecture;
mod bench;
mod compare;
mod demo;
mod deny;
mod firmware;
mod fuzz;
mod guest;
mod host;
mod inner;
mod package;
mod qemu;
mod stages;
mod style;
mod test;
mod threads;
mod web_libraries;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: XtaskCommand,
}

#[derive(Debug, Subcommand)]
enum XtaskCommand {
    /// Draw the crates and their dependencies, for docs/architecture.md.
    Architecture(architecture::Arguments),
    /// Measure the program, and write the numbers as JSON.
    #[command(subcommand)]
    Bench(bench::What),
    /// Compare with the usual alternative on KVM, in one run, and write the ratios as JSON.
    #[command(subcommand)]
    Compare(compare::What),
    /// Boot a stock Linux guest with a VMBus disk, and show the reports of both sides.
    Demo(demo::Arguments),
    /// Fetch Chromium into the cache and print its path, for tests that are run by hand.
    Chromium,
    /// Check the licences, versions and sources of all dependencies by deny.toml.
    Deny,
    /// Build the UEFI driver for VMBus as an option ROM, and print its path.
    Firmware,
    /// Search for inputs that break the bus, guided by coverage.
    Fuzz(fuzz::Arguments),
    /// Run a command on a KVM with Hyper-V support: on this machine, or in an emulated test host.
    Host(host::Arguments),
    /// Make a test guest and print the paths of its kernel and initial RAM disk.
    Guest(guest::Arguments),
    /// Package the crates of the SDK, build the packages, and make all documentation.
    Package,
    /// Fetch QEMU's programs into the cache and print their folder, for tests that are run by hand.
    Qemu,
    /// Run all tests, including real guests, and print one closing line.
    Test(test::Arguments),
    /// Fetch noVNC and xterm.js for the browser console, and print their folder.
    WebLibraries,
}

fn main() -> ExitCode {
    let (command, done) = match Arguments::parse().command {
        XtaskCommand::Architecture(arguments) => ("architecture", architecture::main(&arguments)),
        XtaskCommand::Bench(what) => ("bench", bench::main(&what)),
        XtaskCommand::Compare(what) => ("compare", compare::main(&what)),
        XtaskCommand::Demo(arguments) => ("demo", demo::main(&arguments)),
        XtaskCommand::Chromium => ("chromium", web_libraries::chromium()),
        XtaskCommand::Deny => ("deny", deny::main()),
        XtaskCommand::Guest(arguments) => ("guest", guest::main(&arguments)),
        XtaskCommand::Package => ("package", package::main()),
        XtaskCommand::Firmware => ("firmware", firmware::main()),
        XtaskCommand::Qemu => ("qemu", qemu::main()),
        XtaskCommand::WebLibraries => ("web-libraries", web_libraries::main()),
        // These have exit statuses of their own.
        XtaskCommand::Fuzz(arguments) => return fuzz::main(&arguments),
        XtaskCommand::Host(arguments) => return host::main(&arguments),
        XtaskCommand::Test(arguments) => return test::main(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns a parser of numbers in `range`.
fn number<T>(range: impl RangeBounds<i64>) -> RangedI64ValueParser<T>
where
    T: ValueParserFactory<Parser = RangedI64ValueParser<T>>
        + TryFrom<i64>
        + Clone
        + Send
        + Sync
        + 'static,
    <T as TryFrom<i64>>::Error: Error + Send + Sync + 'static,
{
    T::value_parser().range(range)
}
