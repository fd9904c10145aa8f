//! The command line: parsing, execution, and the exit status.

mod advice;
mod args;
mod backup;
mod commands;
mod console;
mod copy;
mod disk;
mod display;
mod exit;
mod image;
mod launch;
mod log;
mod memory;
mod network;
mod run;
mod services;
mod target;
mod test_device;
mod tpm;
mod trace;
mod usage;
mod watchdog;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

use args::{Args, Command};
use synthvm_services::protocol::shutdown::ShutdownMode;

pub use exit::{Exit, Failure};

/// Runs the program with these arguments, starting with the program's name, and returns its exit
/// status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let words: Vec<String> =
        arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = Args::command();
    let parsed = command
        .try_get_matches_from_mut(arguments)
        .and_then(|matches| Args::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => return usage::report(&error, &command, &words),
    };
    log::start(args.verbose);
    let result = match args.command {
        Command::Run(run) => run::run(&run),
        Command::Doctor(doctor) => commands::doctor(&doctor),
        Command::Inspect(inspect) => commands::inspect(&inspect),
        Command::Metrics(metrics) => commands::metrics(&metrics),
        Command::Control(control) => commands::control(&control),
        Command::Disk(disk) => disk::disk(disk.verb),
        Command::Net(net) => network::net(&net),
        Command::Console(args) => console::console(&args),
        Command::Screenshot(args) => display::screenshot(&args),
        Command::SendKeys(args) => display::send_keys(&args),
        Command::Type(args) => display::type_text(&args),
        Command::Pointer(args) => display::pointer(&args),
        Command::Shutdown(args) => services::shutdown(&args, ShutdownMode::PowerOff),
        Command::Restart(args) => services::shutdown(&args, ShutdownMode::Restart),
        Command::Hibernate(args) => services::shutdown(&args, ShutdownMode::Hibernate),
        Command::TimeSync(args) => services::time_sync(&args),
        Command::Status(args) => services::status(&args),
        Command::Kvp(args) => services::kvp(args.verb),
        Command::Ip(args) => services::ip(args.verb),
        Command::Freeze(args) => backup::freeze(&args),
        Command::Thaw(args) => backup::thaw(&args),
        Command::CopyTo(args) => copy::copy_to(&args),
        Command::Memory(args) => memory::memory(&args.verb),
        Command::Image(image) => image::image(&image.verb),
        Command::Trace(trace) => trace::trace(&trace.verb),
    };
    result.unwrap_or_else(|failure| {
        failure.print();
        failure.exit()
    })
}
