//! The machines: the same guest with a network card, in SynthVM, in QEMU, and in QEMU with vhost.

use guest_images::GuestImage;

use super::super::machine::{Machine, Size};
use super::tap::Tap;

/// Guest RAM of each machine in MiB.
const MEMORY_MIB: u32 = 512;

/// Number of machines: SynthVM first, then its peers.
pub(super) const COUNT: usize = 3;

/// The peers, by their names in rows.
pub(super) const PEERS: [&str; COUNT - 1] = ["virtio", "vhost"];

/// A machine with a network card.
#[derive(Debug)]
pub(super) struct Side {
    // Before the interface, which it uses.
    pub(super) machine: Machine,
    pub(super) tap: Tap,
}

impl Side {
    /// Boots all machines.
    pub(super) fn all(guest: &GuestImage, cpus: u32) -> Result<[Side; COUNT], String> {
        let size = Size { cpus, memory_mib: MEMORY_MIB };
        Ok([
            Side::synthvm(guest, size)?,
            Side::qemu("QEMU", guest, size, Tap::new(2)?, "off")?,
            Side::qemu("vhost", guest, size, Tap::new(3)?, "on")?,
        ])
    }

    fn synthvm(guest: &GuestImage, size: Size) -> Result<Side, String> {
        let tap = Tap::new(1)?;
        let card = format!("tap,name={},mac={}", tap.name, tap.mac());
        let machine = Machine::synthvm(guest, size, |options| options.argument("--net", &card))?;
        Side { machine, tap }.up()
    }

    fn qemu(
        name: &'static str,
        guest: &GuestImage,
        size: Size,
        tap: Tap,
        vhost: &str,
    ) -> Result<Side, String> {
        let net = format!("tap,id=net,ifname={},script=no,downscript=no,vhost={vhost}", tap.name);
        let card = format!("virtio-net-pci,netdev=net,romfile=,mac={}", tap.mac());
        let device = ["-netdev", &net, "-device", &card].map(str::to_owned);
        let machine = Machine::qemu(name, guest, size, &device)?;
        Side { machine, tap }.up()
    }

    /// Gives the guest its address, and waits until the host answers.
    fn up(mut self) -> Result<Side, String> {
        let (guest, host) = (self.tap.guest(), self.tap.host());
        self.machine.run(&[
            "sh",
            "-c",
            &format!(
                "ip addr add {guest}/24 dev eth0 && ip link set eth0 up && ip link set lo up && \
                 until busybox ping -c 1 -W 1 {host} > /dev/null; do :; done"
            ),
        ])?;
        Ok(self)
    }
}
