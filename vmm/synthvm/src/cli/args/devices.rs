//! The grammar of the commands that change a running machine's devices.

use std::path::PathBuf;

use clap::Subcommand;

use crate::config::ByteSize;

const DISK_EXAMPLES: &str = "\
A disk is named by its id, or by CONTROLLER:LUN (synthvm inspect SOCK shows both).

Examples:
  synthvm disk add vm.sock data.img
  synthvm disk add vm.sock path=data.img,controller=1,id=data,readonly=on
  synthvm disk add vm.sock ram:1G,id=scratch
  synthvm disk add vm.sock --dvd tools.iso,id=dvd
  synthvm disk resize vm.sock data 20G
  synthvm disk remove vm.sock 0:1
  synthvm disk insert vm.sock dvd tools.iso

Exit status 0 if the command succeeded, 1 if the machine refused, 2 if the command line is wrong.";

#[derive(Debug, clap::Args)]
#[command(after_help = DISK_EXAMPLES)]
pub(in crate::cli) struct DiskArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: DiskVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DiskVerb {
    /// Adds a disk or a DVD drive to a controller, and prints its address
    Add {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// PATH, ram:SIZE, null:SIZE, or the keys of `synthvm run --disk`
        #[arg(value_name = "PATH[,KEY=VALUE]", required_unless_present = "dvd")]
        disk: Option<String>,
        /// Adds a DVD drive: PATH of an ISO image, or the keys of `synthvm run --dvd`; without a
        /// value the drive is empty
        #[arg(long, value_name = "PATH[,KEY=VALUE]", num_args = 0..=1, conflicts_with = "disk")]
        dvd: Option<Option<String>>,
    },
    /// Removes a disk or a DVD drive: requests in flight are finished, then the image is closed
    Remove(DiskAddress),
    /// Enlarges a disk and its image, and notifies the guest
    Resize {
        #[command(flatten)]
        disk: DiskAddress,
        /// The new size: 20G, 512M
        #[arg(value_name = "SIZE")]
        size: ByteSize,
    },
    /// Changes the limits of a disk that was added with limits
    Throttle {
        #[command(flatten)]
        disk: DiskAddress,
        /// iops=N, read-iops=N, write-iops=N, bps=SIZE, read-bps=SIZE, write-bps=SIZE; or none
        #[arg(value_name = "LIMITS")]
        limits: String,
    },
    /// Inserts a disc into a DVD drive, and replaces the disc in it
    Insert {
        #[command(flatten)]
        drive: DiskAddress,
        /// The disc: an ISO image
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Removes the disc from a DVD drive
    Eject {
        #[command(flatten)]
        drive: DiskAddress,
        /// Ejects the disc even if the guest uses it and has locked the tray
        #[arg(long)]
        force: bool,
    },
}

/// A disk or a DVD drive of a running machine.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DiskAddress {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// The id of the disk or DVD drive, or CONTROLLER:LUN
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
}

const NET_EXAMPLES: &str = "\
A card is named by its id (synthvm inspect SOCK shows all).

Examples:
  synthvm net vm.sock net0 down
  synthvm net vm.sock net0 up

Exit status 0 if the command succeeded, 1 if the machine refused, 2 if the command line is wrong.";

#[derive(Debug, clap::Args)]
#[command(after_help = NET_EXAMPLES)]
pub(in crate::cli) struct NetArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// The card's id
    #[arg(value_name = "CARD")]
    pub(in crate::cli) id: String,
    /// The state of the link: up or down
    #[arg(value_name = "up|down")]
    pub(in crate::cli) link: LinkArg,
}

/// The states of a link, for the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum LinkArg {
    Up,
    Down,
}

const MEMORY_EXAMPLES: &str = "\
The machine must have dynamic memory (synthvm run --memory 2G,min=512M,max=8G).

Examples:
  Show the sizes:
    synthvm memory status vm.sock
  Let the guest have 1 GiB, or what it needs if that is more:
    synthvm memory set vm.sock 1G
  Let its demand decide again:
    synthvm memory set vm.sock

Exit status 0 if the command succeeded, 1 if the machine refused, 2 if the command line is wrong.";

#[derive(Debug, clap::Args)]
#[command(after_help = MEMORY_EXAMPLES)]
pub(in crate::cli) struct MemoryArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: MemoryVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MemoryVerb {
    /// Shows assigned memory, demand, balloon and the host's memory
    Status {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Sets the size that the guest shall have, from min to max. It gets more if its demand is
    /// higher, and takes a while; `status` shows it
    Set {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// The size: 512M, 1G. Without it, the guest's demand decides
        #[arg(value_name = "SIZE")]
        size: Option<ByteSize>,
    },
}
