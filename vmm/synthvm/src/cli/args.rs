//! The grammar of the command line. `config` interprets the flags' values; this module only
//! separates them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

use synthvm_images::Format;

use super::console::DetachKey;
use super::service_args::{
    CopyToArgs, FreezeArgs, IpArgs, KvpArgs, ShutdownArgs, StatusArgs, ThawArgs, TimeSyncArgs,
};
use crate::config::{ByteSize, DEFAULT_KVM, Flag};
use crate::display::ButtonName;

/// Runs stock Linux and Windows guests on KVM with Hyper-V's synthetic devices.
#[derive(Debug, Parser)]
#[command(
    name = "synthvm",
    version,
    max_term_width = 100,
    subcommand_required = true,
    after_help = super::exit::TABLE
)]
#[command(disable_help_subcommand = true)]
pub(super) struct Args {
    /// Prints more on standard error: -v events, -vv details, -vvv everything. SYNTHVM_LOG sets the
    /// level of each module
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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

const RUN_EXAMPLES: &str = "\
Options with several keys are written KEY=VALUE,KEY=VALUE; a comma inside a value is written twice.
The TOML file has the same keys: see docs/command-line.md, or let --print-config write one.

Examples:
  Boot a kernel with two vCPUs and a disk, console in this terminal:
    synthvm run --kernel bzImage --initrd initrd.img --cmdline 'console=ttyS0 root=/dev/sda1' \\
      --memory 2G --cpus 2 --disk disk.img
  Two controllers, one read-only disk, console in a file, a socket to look into the machine:
    synthvm run --kernel bzImage --disk a.img --disk path=b.img,controller=1,readonly=on \\
      --serial file=console.log --control vm.sock
  A network without privilege, in which the host's port 2222 is the guest's port 22:
    synthvm run --kernel bzImage --disk a.img --net user,forward=tcp:2222:22
  Install a system from a disc to a new disk, then start it by the same line:
    synthvm run --install debian.iso --disk debian.vhdx,size=20G --memory 2G
  Write all that down, then start it from there with more memory:
    synthvm run --kernel bzImage --disk a.img --print-config > vm.toml
    synthvm run vm.toml --memory 4G";

#[derive(Debug, clap::Args)]
#[command(after_help = [RUN_EXAMPLES, "\n\n", super::exit::TABLE].concat())]
pub(super) struct RunArgs {
    /// TOML file that describes the machine; flags override it, --disk, --dvd and --net add to it
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,

    /// Defaults for a kind of guest, which every other option overrides: windows (UEFI firmware, 4
    /// GiB, 2 vCPUs, Hyper-V's features for Windows, local time, screen, and if they are installed
    /// a TPM by swtpm and a network by passt)
    #[arg(long, value_name = "windows", help_heading = "Boot")]
    profile: Option<String>,
    /// Installs a system from an ISO image to the first disk: adds a DVD drive with the disc, and
    /// firmware that keeps its boot entries in DISK.vars; combine it with --disk NEW.vhdx,size=64G
    #[arg(long, value_name = "ISO", help_heading = "Boot")]
    install: Option<String>,
    /// Kernel: bzImage or ELF vmlinux
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    kernel: Option<String>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    initrd: Option<String>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT", help_heading = "Boot", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// UEFI firmware that boots from the disks: ovmf (the one that is installed) or a FILE such as
    /// OVMF_CODE_4M.fd; with --kernel, it starts that EFI application. msvm:FILE is Hyper-V's
    /// generation 2 firmware, which reads VMBus disks. Keys: path, ovmf, msvm, option-rom=FILE (a
    /// driver that the firmware loads)
    #[arg(long, value_name = "ovmf|FILE|msvm:FILE[,KEY=VALUE]", help_heading = "Boot")]
    firmware: Option<String>,
    /// File of the firmware's variables, created if it does not exist; without it, variables are
    /// lost when the machine ends. Keys: path, template=FILE (content of a new file, for example
    /// OVMF_VARS_4M.ms.fd for Secure Boot)
    #[arg(long, value_name = "FILE[,KEY=VALUE]", help_heading = "Boot")]
    firmware_vars: Option<String>,

    /// RAM: 512M, 1G, 5GiB [default: 1G]; keys: size, hugepages=on|off. With min=SIZE or max=SIZE
    /// the guest's RAM follows its demand (dynamic memory): see docs/memory.md for the keys buffer,
    /// start-delay, free-page-reporting and dynamic
    #[arg(long, value_name = "SIZE[,KEY=VALUE]", help_heading = "Memory and processors")]
    memory: Option<String>,
    /// Backs RAM with the host's hugepages (the same as --memory SIZE,hugepages=on)
    #[arg(long, help_heading = "Memory and processors")]
    hugepages: bool,
    /// Virtual CPUs, 1 to 64 [default: 1]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Memory and processors",
        allow_negative_numbers = true
    )]
    cpus: Option<String>,

    /// Adds a VMBus disk: PATH, ram:SIZE (in the host's memory, lost when the machine ends),
    /// null:SIZE (drops writes, reads as zero); or keys: path, ram, null,
    /// size=SIZE (creates the image if it does not exist), format=raw|vhdx|vhd|qcow2, readonly=on|off, controller=0..15, lun=0..63, id, serial,
    /// block-size=512|4096, cache=writeback|none, io=auto|uring|threads|sync, buffers=plain|fixed,
    /// parents=named|refuse, iops=N, bps=SIZE and the same with read- or write-
    #[arg(long, value_name = "PATH|ram:SIZE|null:SIZE[,KEY=VALUE]", help_heading = "Disks")]
    disk: Vec<String>,
    /// Adds a VMBus DVD drive: PATH of an ISO image, or keys: path, controller, lun, id; without a
    /// path the drive is empty
    #[arg(long, value_name = "PATH[,KEY=VALUE]", help_heading = "Disks")]
    dvd: Vec<String>,

    /// Longest time that a disk controller's thread polls before it sleeps, in microseconds, 0
    /// (never) to 50 [default: 50]
    #[arg(
        long,
        value_name = "MICROSECONDS",
        help_heading = "Disks",
        allow_negative_numbers = true
    )]
    disk_busy_poll: Option<String>,
    /// The old name of `disk_busy_poll`.
    #[arg(long, hide = true, allow_negative_numbers = true)]
    disk_poll: Option<String>,

    /// Channels of each disk controller, 1 to 64 [default: one for every four vCPUs]
    #[arg(long, value_name = "COUNT", help_heading = "Disks", allow_negative_numbers = true)]
    disk_channels: Option<String>,

    /// Interrupt moderation: delays the interrupt for finished disk requests while many are in
    /// flight, if more requests finish because of the delay; on or off [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Disks")]
    disk_moderation: Option<String>,
    /// The old name of `disk_moderation`.
    #[arg(long, hide = true)]
    disk_hold: Option<String>,

    /// Adds a VMBus network card: tap,name=INTERFACE or tap,fd=N[:M] (a TAP interface),
    /// user[,forward=tcp:PORT:GUEST-PORT] (by passt, without privilege), switch,name=NAME (between
    /// cards of this machine), socket,listen=PATH or socket,connect=PATH (to another machine), null
    /// (drops all frames); each with id, queues=1..64, mac, mtu, pcap=NEW-FILE, link=up|down,
    /// moderation=on|off
    #[arg(long, value_name = "BACKEND[,KEY=VALUE]", help_heading = "Network")]
    net: Vec<String>,

    /// Screen, keyboard and mouse: none, headless (for synthvm screenshot, send-keys, type and
    /// pointer), vnc=unix:PATH, vnc=127.0.0.1:PORT with password-file=FILE, or web=127.0.0.1:PORT (a page
    /// for browsers, whose link is printed; port 0: any free port) [default: none];
    /// keys: mode, resolution=WIDTHxHEIGHT [default: 1024x768], vnc, password-file,
    /// view-password-file, tls-cert, tls-key, web. May be given several times
    #[arg(
        long,
        value_name = "none|headless|vnc=ADDRESS|web=ADDRESS",
        help_heading = "Consoles and control"
    )]
    display: Vec<String>,
    /// Integration services for the guest: default (all but copy), all, none, or a list of
    /// shutdown, time-sync, heartbeat, kvp, vss, copy [default: default]
    #[arg(long, value_name = "default|all|none|LIST", help_heading = "Consoles and control")]
    services: Option<String>,
    /// First serial port: stdio, file=PATH, socket=PATH or null [default: stdio]
    #[arg(long, value_name = "WHERE", help_heading = "Consoles and control")]
    serial: Option<String>,
    /// Second serial port, with the same values [default: null]
    #[arg(long, value_name = "WHERE", help_heading = "Consoles and control")]
    serial2: Option<String>,
    /// AF_VSOCK of the guest: programs of the host connect to SOCK and write `CONNECT PORT`, and
    /// listen at SOCK_PORT for the guest; keys: socket, service=GUID:PATH (a service's own socket)
    #[arg(long, value_name = "SOCK", help_heading = "Consoles and control")]
    vsock: Option<String>,
    /// Socket for `synthvm inspect` and `synthvm control`
    #[arg(long, value_name = "SOCK", help_heading = "Consoles and control")]
    control: Option<String>,

    /// Action on a guest's reset: reboot or exit [default: reboot]
    #[arg(long, value_name = "ACTION", help_heading = "When the guest ends")]
    on_reset: Option<String>,
    /// Action on a guest's panic: exit, reboot or continue [default: exit]
    #[arg(long, value_name = "ACTION", help_heading = "When the guest ends")]
    on_panic: Option<String>,
    /// Seconds that the guest has to power down after SIGTERM, SIGINT or SIGHUP; then, or at a
    /// second signal, the machine is stopped [default: 30]
    #[arg(
        long,
        value_name = "SECONDS",
        help_heading = "When the guest ends",
        allow_negative_numbers = true
    )]
    stop_timeout: Option<String>,

    /// Hyper-V enlightenments: preset linux or windows, and single options on or off, for example
    /// windows,stimer=off [default: linux]
    #[arg(long, value_name = "PRESET[,OPTION=on|off]", help_heading = "Virtual hardware")]
    hyperv: Vec<String>,
    /// Interrupt controllers: full (in the kernel) or split (IOAPIC in SynthVM) [default: full]
    #[arg(long, value_name = "MODE", help_heading = "Virtual hardware")]
    irqchip: Option<String>,
    /// Time zone of the battery-backed clock: utc, or local for Windows [default: utc]
    #[arg(long, value_name = "ZONE", help_heading = "Virtual hardware")]
    rtc: Option<String>,
    /// Hibernation (ACPI S4): the guest may save its memory to its disk and power off, by itself or
    /// by `synthvm hibernate`; on or off; not with dynamic memory [default: off]
    #[arg(long, value_name = "on|off", help_heading = "Virtual hardware")]
    hibernation: Option<String>,
    /// Adds a TPM 2.0: swtpm[,state=FOLDER][,program=PATH], run by the program swtpm; without a
    /// state folder its state is lost when the machine ends; or none
    #[arg(long, value_name = "BACKEND[,KEY=VALUE]", help_heading = "Virtual hardware")]
    tpm: Option<String>,
    /// The machine's UUID, which SMBIOS shows [default: follows from the path of the firmware's
    /// variables, else of the first disk]
    #[arg(long, value_name = "UUID", help_heading = "Virtual hardware")]
    uuid: Option<String>,
    /// The machine's generation id: new (the guest's state was copied or taken back), or a GUID
    /// [default: follows from the machine's name, like the UUID]
    #[arg(long, value_name = "new|GUID", help_heading = "Virtual hardware")]
    generation_id: Option<String>,
    /// Texts of the SMBIOS tables: hyperv (those of a Hyper-V machine), or keys: manufacturer,
    /// product, version, serial, sku, family, asset-tag
    #[arg(long, value_name = "[hyperv][,KEY=TEXT]", help_heading = "Virtual hardware")]
    smbios: Option<String>,
    /// Adds a device for tests of the bus and of drivers: echo, the backend of
    /// docs/writing-a-backend.md
    #[arg(long, value_name = "DEVICE", help_heading = "Virtual hardware")]
    test_device: Option<String>,
    /// KVM's device node [default: /dev/kvm]
    #[arg(long, value_name = "PATH", help_heading = "Virtual hardware")]
    kvm: Option<String>,

    /// Writes every VMBus message and the first bytes of each packet to a new file, for
    /// `synthvm trace show`
    #[arg(long, value_name = "NEW-FILE", help_heading = "Diagnostics")]
    pub(super) trace_bus: Option<PathBuf>,

    /// Prints the whole configuration as TOML, including defaults, and exits
    #[arg(long, help_heading = "Dry run")]
    pub(super) print_config: bool,
}

impl RunArgs {
    /// Returns the given flags, for `config`.
    pub(super) fn flags(&self) -> Vec<Flag> {
        let single = [
            ("profile", &self.profile),
            ("install", &self.install),
            ("kernel", &self.kernel),
            ("initrd", &self.initrd),
            ("cmdline", &self.cmdline),
            ("firmware", &self.firmware),
            ("firmware-vars", &self.firmware_vars),
            ("memory", &self.memory),
            ("cpus", &self.cpus),
            ("disk-busy-poll", &self.disk_busy_poll),
            ("disk-poll", &self.disk_poll),
            ("disk-moderation", &self.disk_moderation),
            ("disk-hold", &self.disk_hold),
            ("disk-channels", &self.disk_channels),
            ("services", &self.services),
            ("serial", &self.serial),
            ("serial2", &self.serial2),
            ("control", &self.control),
            ("irqchip", &self.irqchip),
            ("rtc", &self.rtc),
            ("hibernation", &self.hibernation),
            ("tpm", &self.tpm),
            ("uuid", &self.uuid),
            ("generation-id", &self.generation_id),
            ("smbios", &self.smbios),
            ("vsock", &self.vsock),
            ("on-reset", &self.on_reset),
            ("on-panic", &self.on_panic),
            ("stop-timeout", &self.stop_timeout),
            ("test-device", &self.test_device),
            ("kvm", &self.kvm),
        ];
        let single = single.into_iter().filter_map(|(key, text)| Some((key, text.clone()?)));
        let disks = self.disk.iter().map(|text| ("disk", text.clone()));
        let dvds = self.dvd.iter().map(|text| ("dvd", text.clone()));
        let cards = self.net.iter().map(|text| ("net", text.clone()));
        let displays = self.display.iter().map(|text| ("display", text.clone()));
        let hyperv = self.hyperv.iter().map(|text| ("hyperv", text.clone()));
        let switch = self.hugepages.then(|| ("hugepages", String::new()));
        single
            .chain(disks)
            .chain(dvds)
            .chain(cards)
            .chain(displays)
            .chain(hyperv)
            .chain(switch)
            .map(|(key, text)| Flag { key, text })
            .collect()
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status 0 if stock guests can run here, 3 if not.")]
pub(super) struct DoctorArgs {
    /// Prints JSON
    #[arg(long)]
    pub(super) json: bool,
    /// KVM's device node
    #[arg(long, value_name = "PATH", default_value = DEFAULT_KVM)]
    pub(super) kvm: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    /// Prints JSON; with --watch, one object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Shows the report repeatedly, with rates, until the machine ends or you press Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
    /// Seconds between two reports with --watch
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1,
        requires = "watch",
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    pub(super) interval: u32,
}

#[derive(Debug, clap::Args)]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    pub(super) verb: TraceVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum TraceVerb {
    /// Prints a trace as text, one line a message or packet
    Show {
        /// The trace
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct MetricsArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct ControlArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum Verb {
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
pub(super) struct DiskArgs {
    #[command(subcommand)]
    pub(super) verb: DiskVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum DiskVerb {
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
pub(super) struct DiskAddress {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    /// The id of the disk or DVD drive, or CONTROLLER:LUN
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

const NET_EXAMPLES: &str = "\
A card is named by its id (synthvm inspect SOCK shows all).

Examples:
  synthvm net vm.sock net0 down
  synthvm net vm.sock net0 up

Exit status 0 if the command succeeded, 1 if the machine refused, 2 if the command line is wrong.";

#[derive(Debug, clap::Args)]
#[command(after_help = NET_EXAMPLES)]
pub(super) struct NetArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    /// The card's id
    #[arg(value_name = "CARD")]
    pub(super) id: String,
    /// The state of the link: up or down
    #[arg(value_name = "up|down")]
    pub(super) link: LinkArg,
}

/// The states of a link, for the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LinkArg {
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
pub(super) struct MemoryArgs {
    #[command(subcommand)]
    pub(super) verb: MemoryVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum MemoryVerb {
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

#[derive(Debug, clap::Args)]
pub(super) struct ScreenshotArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    /// The PNG file, which is created or replaced
    #[arg(value_name = "FILE")]
    pub(super) path: PathBuf,
}

const KEYS_EXAMPLES: &str = "\
Keys of a combination are joined by `-`, pressed in their order and released in the reverse order.
Keys are named as on a US keyboard: a to z, 0 to 9, f1 to f15, ctrl, shift, alt, meta, altgr, enter,
esc, tab, space, backspace, minus, insert, delete, home, end, pageup, pagedown, up, down, left,
right, print, pause, menu, kp0 to kp9 and others.

Examples:
  synthvm send-keys vm.sock ctrl-alt-del
  synthvm send-keys vm.sock meta-r down down enter

Exit status 0 if the guest will get the keys, 1 if the machine refused, 2 if the command line is wrong.";

#[derive(Debug, clap::Args)]
#[command(after_help = KEYS_EXAMPLES)]
pub(super) struct SendKeysArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    /// Combinations of keys, one after the other: ctrl-alt-del
    #[arg(value_name = "KEYS", required = true)]
    pub(super) keys: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct TypeArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    /// The text: characters of a US keyboard, of which about a thousand fit at once; line feeds are
    /// Enter
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) text: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct PointerArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    /// The column of the pixel, from 0
    #[arg(value_name = "X")]
    pub(super) x: u32,
    /// The row of the pixel, from 0
    #[arg(value_name = "Y")]
    pub(super) y: u32,
    /// Buttons that are pressed from now on, separated by commas [default: none]
    #[arg(long, value_name = "left|right|middle", value_delimiter = ',')]
    pub(super) buttons: Vec<ButtonName>,
    /// Steps of the wheel; positive away from the user
    #[arg(long, value_name = "STEPS", default_value_t = 0, allow_negative_numbers = true)]
    pub(super) wheel: i16,
}

const CONSOLE_EXAMPLES: &str = "\
Examples:
  The serial console in this terminal; Ctrl-] leaves:
    synthvm console vm.sock
  Screen and serial console in a browser, by the link that is printed:
    synthvm console --web vm.sock
  The same from another machine:
    ssh -L 8006:127.0.0.1:8006 HOST synthvm console --web=127.0.0.1:8006 vm.sock";

#[derive(Debug, clap::Args)]
#[command(after_help = CONSOLE_EXAMPLES)]
pub(super) struct ConsoleArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(super) socket: PathBuf,
    /// The serial port: 1 or 2
    #[arg(
        long,
        value_name = "1|2",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=2)
    )]
    pub(super) port: u8,
    /// The key that leaves the console: ^A to ^Z, ^[, ^\, ^], ^^, ^_, ^@, or none
    #[arg(long, value_name = "KEY", default_value = "^]")]
    pub(super) detach_key: DetachKey,
    /// Serves a page with screen and serial console, prints its link, and runs until the machine
    /// ends or you press Ctrl-C; ADDRESS is a loopback address, port 0 any free port
    #[arg(
        long,
        value_name = "ADDRESS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "127.0.0.1:0",
        conflicts_with_all = ["port", "detach_key"]
    )]
    pub(super) web: Option<SocketAddr>,
    /// Folder with noVNC and xterm.js, in place of those in this program (`cargo xtask
    /// web-libraries` makes one)
    #[arg(long, value_name = "FOLDER", requires = "web")]
    pub(super) web_libraries: Option<PathBuf>,
    /// Prints a new link to the page of a machine that has --display web=ADDRESS
    #[arg(long, conflicts_with_all = ["web", "port", "detach_key"])]
    pub(super) link: bool,
}

const IMAGE_EXAMPLES: &str = "\
Sizes are 512M, 20G or bytes, in powers of 1024. An image is created completely or not at all.

Examples:
  synthvm image create disk.vhdx --size 20G
  synthvm image create snapshot.vhdx --parent disk.vhdx
  synthvm image convert disk.qcow2 disk.vhdx
  synthvm image info disk.vhdx
  synthvm image check disk.vhdx --repair

Exit status 0 if the command succeeded, 1 if `check` found damage, 2 if the command line is wrong, 4 if a file cannot be used.";

#[derive(Debug, clap::Args)]
#[command(after_help = IMAGE_EXAMPLES)]
pub(super) struct ImageArgs {
    #[command(subcommand)]
    pub(super) verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImageVerb {
    /// Makes a new image
    Create(CreateArgs),
    /// Copies an image to a new one of any format; zeros take no space
    Convert(ConvertArgs),
    /// Describes an image and its parents
    Info(ExistingImageArgs),
    /// Checks the structures of an image, which no program may use meanwhile
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// The image to make
    #[arg(value_name = "FILE")]
    pub(super) path: PathBuf,
    #[command(flatten)]
    pub(super) new: NewImageArgs,
    /// Size of the disk; not needed with --parent
    #[arg(long, value_name = "SIZE")]
    pub(super) size: Option<ByteSize>,
    /// Logical sector size in bytes, 512 or 4096 [default: 512]
    #[arg(long, value_name = "BYTES")]
    pub(super) sector_size: Option<u32>,
    /// Parent of the new image, which then holds only the differences; the parent must not change
    /// again
    #[arg(long, value_name = "FILE")]
    pub(super) parent: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ConvertArgs {
    /// The image to read
    #[arg(value_name = "FILE")]
    pub(super) source: PathBuf,
    /// The image to make
    #[arg(value_name = "NEW")]
    pub(super) target: PathBuf,
    #[command(flatten)]
    pub(super) new: NewImageArgs,
    /// Format of the image to read [default: from its name and content]
    #[arg(long, value_name = "FORMAT")]
    pub(super) source_format: Option<Format>,
    /// Path of the parent of the image to read, if the parent was moved
    #[arg(long, value_name = "FILE")]
    pub(super) parent: Option<PathBuf>,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) image: ExistingImageArgs,
    /// Repairs all errors that can be repaired without loss of data
    #[arg(long)]
    pub(super) repair: bool,
}

/// The options of a new image.
#[derive(Debug, clap::Args)]
pub(super) struct NewImageArgs {
    /// Format of the new image: raw, vhdx, vhd or qcow2 [default: from its name]
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<Format>,
    /// Allocates all space of the new image immediately
    #[arg(long)]
    pub(super) fixed: bool,
    /// Unit of allocation [default: 32M in vhdx, 64K in qcow2]
    #[arg(long, value_name = "SIZE")]
    pub(super) block_size: Option<ByteSize>,
}

/// An image that a command describes.
#[derive(Debug, clap::Args)]
pub(super) struct ExistingImageArgs {
    /// The image
    #[arg(value_name = "FILE")]
    pub(super) path: PathBuf,
    /// The image's format [default: from its name and content]
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<Format>,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// Prints JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Whether the files that an image names are opened.
#[derive(Debug, clap::Args)]
pub(super) struct TrustArgs {
    /// Opens no file that the image names (parents, backing files): for untrusted images
    #[arg(long)]
    pub(super) no_parents: bool,
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
