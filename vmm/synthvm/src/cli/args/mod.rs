//! The grammar of the command line. `config` interprets the flags' values; these modules only
//! separate them.

mod devices;
mod image;
mod run;
mod screen;
mod services;

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

use crate::config::DEFAULT_KVM;

pub(in crate::cli) use devices::{
    DiskAddress, DiskArgs, DiskVerb, LinkArg, MemoryArgs, MemoryVerb, NetArgs,
};
pub(in crate::cli) use image::{
    CheckArgs, ConvertArgs, CreateArgs, ExistingImageArgs, ImageArgs, ImageVerb, NewImageArgs,
    TrustArgs,
};
pub(in crate::cli) use run::RunArgs;
pub(in crate::cli) use screen::{ConsoleArgs, PointerArgs, ScreenshotArgs, SendKeysArgs, TypeArgs};
pub(in crate::cli) use services::{
    CopyToArgs, FreezeArgs, IpArgs, IpVerb, KvpArgs, KvpVerb, ShutdownArgs, StatusArgs, ThawArgs,
    TimeSyncArgs,
};

/// Runs stock Linux and Windows guests on KVM with Hyper-V's synthetic devices.
#[derive(Debug, Parser)]
#[command(
    name = "synthvm",
    version,
    max_term_width = 100,
    subcommand_required = true,
    after_help = crate::cli::exit::TABLE
)]
#[command(disable_help_subcommand = true)]
pub(in crate::cli) struct Args {
    /// Prints more on standard error: -v events, -vv details, -vvv everything. SYNTHVM_LOG sets the
    /// level of each module
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(in crate::cli) verbose: u8,

    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Runs a machine until its guest powers off
    Run(Box<RunArgs>),
    /// Reports what this host's KVM offers, the cost of missing parts and how to add them
    Doctor(DoctorArgs),
    /// Shows the state of a running machine: connection, exits, channels, GPADLs, rings, disks
    Inspect(InspectArgs),
    /// Prints the metrics of a running machine in Prometheus' text format
    Metrics(MetricsArgs),
    /// Sends a command to a running machine
    Control(ControlArgs),
    /// Adds, removes and enlarges the disks of a running machine, and changes its discs
    Disk(DiskArgs),
    /// Takes the link of a running machine's network card down, or up again
    Net(NetArgs),
    /// Connects this terminal, or a browser, to a running machine's consoles
    Console(ConsoleArgs),
    /// Writes the picture of a running machine's screen to a PNG file
    Screenshot(ScreenshotArgs),
    /// Presses and releases keys of a running machine's keyboard
    SendKeys(SendKeysArgs),
    /// Types a text on a running machine's keyboard
    Type(TypeArgs),
    /// Moves the pointer of a running machine, and sets its buttons
    Pointer(PointerArgs),
    /// Asks a running machine's guest to shut down and power itself off
    Shutdown(ShutdownArgs),
    /// Asks a running machine's guest to restart
    Restart(ShutdownArgs),
    /// Asks a running machine's guest to save its memory to its disk and power itself off
    Hibernate(ShutdownArgs),
    /// Sets the clock of a running machine's guest
    TimeSync(TimeSyncArgs),
    /// Shows whether a running machine's guest is alive, its services and its addresses
    Status(StatusArgs),
    /// Gets, sets, deletes and lists key-value pairs of a running machine's guest
    Kvp(KvpArgs),
    /// Shows and sets the IP addresses of a running machine's guest
    Ip(IpArgs),
    /// Freezes the file systems of a running machine's guest for a backup
    Freeze(FreezeArgs),
    /// Thaws the file systems of a running machine's guest
    Thaw(ThawArgs),
    /// Copies a file to a running machine's guest
    CopyTo(CopyToArgs),
    /// Shows and sets the size of a running machine's dynamic memory
    Memory(MemoryArgs),
    /// Makes, converts, describes and checks image files: raw, vhdx, vhd, qcow2
    Image(ImageArgs),
    /// Prints a trace of a machine's VMBus (synthvm run --trace-bus)
    Trace(TraceArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status 0 if stock guests can run here, 3 if not.")]
pub(in crate::cli) struct DoctorArgs {
    /// Prints JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// KVM's device node
    #[arg(long, value_name = "PATH", default_value = DEFAULT_KVM)]
    pub(in crate::cli) kvm: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// Prints JSON; with --watch, one object a line
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Shows the report repeatedly, with rates, until the machine ends or you press Ctrl-C
    #[arg(long)]
    pub(in crate::cli) watch: bool,
    /// Seconds between two reports with --watch
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1,
        requires = "watch",
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    pub(in crate::cli) interval: u32,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TraceArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: TraceVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TraceVerb {
    /// Prints a trace as text, one line a message or packet
    Show {
        /// The trace
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MetricsArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ControlArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    #[command(subcommand)]
    pub(in crate::cli) verb: Verb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(in crate::cli) enum Verb {
    /// Presses the power button: the guest is asked to power down
    PowerButton,
    /// Starts the guest again from its kernel
    Reset,
    /// Stops the machine without asking the guest, and flushes its disks
    Stop,
    /// Gives the guest a new generation id, which tells it that its state was copied or taken back
    NewGeneration,
    /// Checks that the machine answers
    Ping,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::KEYS;

    #[test]
    fn test_grammar_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn test_every_key_of_the_file_is_a_flag_and_every_flag_a_key() {
        let command = Args::command();
        let run = command.find_subcommand("run").unwrap();
        // Old names are accepted but not shown.
        let shown = run.get_arguments().filter(|arg| !arg.is_hide_set());
        let mut flags: Vec<_> = shown.filter_map(|arg| arg.get_long()).collect();
        let others = ["hugepages", "trace-bus", "print-config", "verbose", "help"];
        flags.retain(|name| !others.contains(name));
        let mut keys = KEYS.to_vec();
        flags.sort_unstable();
        keys.sort_unstable();
        assert_eq!(flags, keys);
    }

    #[test]
    fn test_flags_given_all_reach_the_configuration() {
        let mut line = vec!["synthvm", "run", "--hugepages"]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        line.extend(KEYS.iter().flat_map(|key| [format!("--{key}"), "x".to_owned()]));
        let Command::Run(run) = Args::parse_from(line).command else { panic!("run was asked for") };
        let mut keys: Vec<_> = run.flags().iter().map(|flag| flag.key).collect();
        let mut expected = [KEYS, &["hugepages"]].concat();
        keys.sort_unstable();
        expected.sort_unstable();
        assert_eq!(keys, expected);
    }
}
