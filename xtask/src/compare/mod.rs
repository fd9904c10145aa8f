//! `cargo xtask compare WHAT --json FILE`: compares SynthVM with the usual alternative on KVM, in
//! one run.

mod boot;
mod comparison;
mod cost;
mod display;
mod load;
mod machine;
mod memory;
mod network;
mod options;
mod plot;
mod progress;
mod rounds;
mod rows;
mod sockets;
mod storage;

/// The comparison to make.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    /// Compare a VMBus disk with QEMU's virtio-blk: the same guest and the same fio on both
    /// machines, in alternation.
    Storage(options::Arguments),
    /// Compare a VMBus network card with QEMU's virtio-net, with and without vhost: the same guest
    /// and the same iperf3 on all machines, in alternation.
    Network(options::Arguments),
    /// Compare the screen by VNC with QEMU's: the same animations and the same viewer on both
    /// machines, in alternation.
    Display(options::Arguments),
    /// Compare the time from power on to GRUB and to the login prompt with QEMU's: the same
    /// firmware and the same installed system, on a VMBus disk and on virtio-blk.
    Boot(options::Arguments),
    /// Compare host sockets with QEMU's vhost-vsock: the same guest and the same programs on both
    /// machines, in alternation.
    Sockets(options::Arguments),
    /// Compare the speed of the dynamic memory's balloon with QEMU's virtio-balloon: the same guest
    /// gives half of its memory to the host and gets it back.
    Memory(options::Arguments),
}

pub(crate) fn main(what: &What) -> Result<(), String> {
    match what {
        What::Storage(arguments) => storage::main(arguments),
        What::Network(arguments) => network::main(arguments),
        What::Display(arguments) => display::main(arguments),
        What::Boot(arguments) => boot::main(arguments),
        What::Sockets(arguments) => sockets::main(arguments),
        What::Memory(arguments) => memory::main(arguments),
    }
}
