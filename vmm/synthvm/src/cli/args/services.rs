//! The grammar of the commands that ask the guest's integration services.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;
use synthvm_services::protocol::kvp::Pool;

const EXIT: &str = "\
Exit status 0 if the guest did it, 1 if the machine refused, 2 if the command line is wrong, 8 if
the guest has no driver for it, refused it, or did not answer in time.";

const SHUTDOWN_EXAMPLES: &str = "\
The command returns when the guest has agreed; with --wait, when the machine has ended. A guest
without a driver (Linux: hv_utils) may react to `synthvm control SOCK power-button`.

Examples:
  synthvm shutdown vm.sock
  synthvm shutdown vm.sock --reason 'host maintenance' --wait 300
  synthvm restart vm.sock";

#[derive(Debug, clap::Args)]
#[command(after_help = [SHUTDOWN_EXAMPLES, "\n\n", EXIT].concat())]
pub(in crate::cli) struct ShutdownArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// The reason, which the guest may show and log; at most 1,023 characters
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(in crate::cli) reason: String,
    /// Does not wait for programs in the guest that refuse to end
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Waits until the machine has ended, at most this number of seconds. A restart does not end it
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    pub(in crate::cli) wait: Option<u32>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT)]
pub(in crate::cli) struct TimeSyncArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatusArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

const KVP_EXAMPLES: &str = "\
Pools: external (written by the host for programs in the guest), guest (written by programs in the
guest), auto (facts of the guest: names, versions, addresses), auto-external, auto-internal. Linux
keeps them in /var/lib/hyperv/.kvp_pool_N, and needs its daemon hv_kvp_daemon.

Examples:
  synthvm kvp set vm.sock role webserver
  synthvm kvp get vm.sock FullyQualifiedDomainName --pool auto
  synthvm kvp list vm.sock --pool auto --json";

#[derive(Debug, clap::Args)]
#[command(after_help = [KVP_EXAMPLES, "\n\n", EXIT].concat())]
pub(in crate::cli) struct KvpArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: KvpVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KvpVerb {
    /// Prints the value of a key
    Get {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// The key
        #[arg(value_name = "KEY")]
        key: String,
        /// The pool
        #[arg(long, value_name = "POOL", default_value = "guest")]
        pool: PoolArg,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Sets the value of a key
    Set {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// The key, at most 255 characters
        #[arg(value_name = "KEY")]
        key: String,
        /// The value, at most 1,023 characters
        #[arg(value_name = "VALUE", allow_hyphen_values = true)]
        value: String,
        /// The pool
        #[arg(long, value_name = "POOL", default_value = "external")]
        pool: PoolArg,
    },
    /// Deletes a key
    Delete {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// The key
        #[arg(value_name = "KEY")]
        key: String,
        /// The pool
        #[arg(long, value_name = "POOL", default_value = "external")]
        pool: PoolArg,
    },
    /// Lists the pairs of a pool
    List {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// The pool
        #[arg(long, value_name = "POOL", default_value = "guest")]
        pool: PoolArg,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
}

/// The pools, for the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum PoolArg {
    External,
    Guest,
    Auto,
    AutoExternal,
    AutoInternal,
}

impl From<PoolArg> for Pool {
    fn from(pool: PoolArg) -> Self {
        match pool {
            PoolArg::External => Self::External,
            PoolArg::Guest => Self::Guest,
            PoolArg::Auto => Self::Auto,
            PoolArg::AutoExternal => Self::AutoExternal,
            PoolArg::AutoInternal => Self::AutoInternal,
        }
    }
}

const IP_EXAMPLES: &str = "\
Linux sets addresses by a program of the distribution, hv_set_ifconfig, which not every distribution
has.

Examples:
  synthvm ip get vm.sock
  synthvm ip set vm.sock --address 10.0.0.7 --subnet 255.255.255.0 --gateway 10.0.0.1
  synthvm ip set vm.sock --card net1 --dhcp";

#[derive(Debug, clap::Args)]
#[command(after_help = [IP_EXAMPLES, "\n\n", EXIT].concat())]
pub(in crate::cli) struct IpArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: IpVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum IpVerb {
    /// Prints the addresses of a network card
    Get {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// The card's id; not needed if the machine has one card
        #[arg(long, value_name = "CARD")]
        card: Option<String>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Sets the addresses of a network card
    Set {
        /// The machine's control socket (its --control)
        #[arg(value_name = "SOCK")]
        socket: PathBuf,
        /// The card's id; not needed if the machine has one card
        #[arg(long, value_name = "CARD")]
        card: Option<String>,
        /// Lets the guest get its addresses by DHCP
        #[arg(long, conflicts_with_all = ["addresses", "subnets", "gateways"])]
        dhcp: bool,
        /// An address, IPv4 or IPv6; once for each
        #[arg(long = "address", value_name = "ADDRESS", required_unless_present = "dhcp")]
        addresses: Vec<std::net::IpAddr>,
        /// The mask of an IPv4 address, or the prefix length of an IPv6 address; one for each
        /// address, in their order
        #[arg(long = "subnet", value_name = "MASK")]
        subnets: Vec<String>,
        /// A gateway
        #[arg(long = "gateway", value_name = "ADDRESS")]
        gateways: Vec<std::net::IpAddr>,
        /// A DNS server
        #[arg(long, value_name = "ADDRESS")]
        dns: Vec<std::net::IpAddr>,
    },
}

const FREEZE_EXAMPLES: &str = "\
All writes in the guest wait until the guest is thawed: by `synthvm thaw`, at the latest after
--timeout, and with a COMMAND when it has ended, or when this program ends for any reason.

Examples:
  synthvm freeze vm.sock -- cp --reflink=auto disk.img backup.img
  synthvm freeze vm.sock --timeout 30; cp disk.img backup.img; synthvm thaw vm.sock

Exit status: that of COMMAND if the guest was frozen until it ended. Else 1 if the machine refused,
2 if the command line is wrong, 8 if the guest could not be frozen, or was thawed too early.";

#[derive(Debug, clap::Args)]
#[command(after_help = FREEZE_EXAMPLES)]
pub(in crate::cli) struct FreezeArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// Seconds after which the guest is thawed in any case
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=900)
    )]
    pub(in crate::cli) timeout: u32,
    /// A program to run while the guest is frozen
    #[arg(value_name = "COMMAND", last = true)]
    pub(in crate::cli) command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT)]
pub(in crate::cli) struct ThawArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
}

const COPY_EXAMPLES: &str = "\
The machine must be started with --services that has copy. Linux up to 6.9 needs its daemon
hv_fcopy_daemon, and later versions hv_fcopy_uio_daemon. If this program ends early, the guest
removes the file.

Examples:
  synthvm copy-to vm.sock config.toml /etc/service/
  synthvm copy-to vm.sock image.iso /srv/images/new.iso --overwrite --create-path";

#[derive(Debug, clap::Args)]
#[command(after_help = [COPY_EXAMPLES, "\n\n", EXIT].concat())]
pub(in crate::cli) struct CopyToArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// The file
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// Its path in the guest; a folder if it ends with / or \
    #[arg(value_name = "GUEST-PATH")]
    pub(in crate::cli) to: String,
    /// Replaces a file that exists
    #[arg(long)]
    pub(in crate::cli) overwrite: bool,
    /// Makes missing folders
    #[arg(long)]
    pub(in crate::cli) create_path: bool,
    /// Prints the progress as JSON, one object a line
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
