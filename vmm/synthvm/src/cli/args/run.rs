//! The grammar of `synthvm run`.

use std::path::PathBuf;

use crate::config::Flag;

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
#[command(after_help = [RUN_EXAMPLES, "\n\n", crate::cli::exit::TABLE].concat())]
pub(in crate::cli) struct RunArgs {
    /// TOML file that describes the machine; flags override it, --disk, --dvd and --net add to it
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: Option<PathBuf>,

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
    /// size=SIZE (creates the image if it does not exist), format=raw|vhdx|vhd|qcow2,
    /// readonly=on|off, controller=0..15, lun=0..63, id, serial, block-size=512|4096,
    /// cache=writeback|none, io=auto|uring|threads|sync, buffers=plain|fixed, parents=named|refuse,
    /// iops=N, bps=SIZE and the same with read- or write-
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
    /// pointer), vnc=unix:PATH, vnc=127.0.0.1:PORT with password-file=FILE, or web=127.0.0.1:PORT
    /// (a page for browsers, whose link is printed; port 0: any free port) [default: none];
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
    /// Action when firmware finds no system to boot: wait (it shows its message or its shell) or
    /// exit; for exit, OVMF needs the driver for VMBus [default: wait]
    #[arg(long, value_name = "ACTION", help_heading = "When the guest ends")]
    on_no_boot_device: Option<String>,
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
    /// Adds a TPM 2.0: swtpm[,state=FOLDER][,program=PATH][,presence=on], run by the program swtpm;
    /// without a state folder its state is lost when the machine ends; or none
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
    pub(in crate::cli) trace_bus: Option<PathBuf>,

    /// Prints the whole configuration as TOML, including defaults, and exits
    #[arg(long, help_heading = "Dry run")]
    pub(in crate::cli) print_config: bool,
}

impl RunArgs {
    /// Returns the given flags, for `config`.
    pub(in crate::cli) fn flags(&self) -> Vec<Flag> {
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
            ("on-no-boot-device", &self.on_no_boot_device),
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
