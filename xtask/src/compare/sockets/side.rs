//! The two machines: the same guest with a transport of AF_VSOCK, in SynthVM and in QEMU.

use std::os::unix::net::UnixListener;

use guest_images::GuestImage;
use guest_init::vsock::Socket;
use guest_report::agent::Action;
use integration_tests::image::WorkDir;

use super::super::machine::{Machine, Size};
use super::host_program::{self, ECHO, SINK, SOURCE};

/// Guest RAM of each machine in MiB.
const MEMORY_MIB: u32 = 512;

/// The peer's address. SynthVM's guest needs none.
const PEER_CID: u32 = 3;

/// Boots both machines, and starts the programs of the host for each.
pub(super) fn all(guest: &GuestImage, cpus: u32, dir: &WorkDir) -> Result<[Machine; 2], String> {
    let size = Size { cpus, memory_mib: MEMORY_MIB };
    let socket = dir.path().join("vm.sock");
    let mut synthvm = Machine::synthvm(guest, size, |options| {
        options.argument("--vsock", &socket.display().to_string())
    })?;
    load(&mut synthvm, "hv_sock")?;
    let device = ["-device".to_owned(), format!("vhost-vsock-pci,guest-cid={PEER_CID}")];
    let mut qemu = Machine::qemu("QEMU", guest, size, &device)?;
    load(&mut qemu, "vmw_vsock_virtio_transport")?;
    for port in [SINK, SOURCE, ECHO] {
        let path = dir.path().join(format!("vm.sock_{port}"));
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let listener = UnixListener::bind(&path).map_err(failed)?;
        host_program::serve(port, move || listener.accept().map(|(stream, _)| stream));
    }
    Ok([synthvm, qemu])
}

/// Starts the programs of the host for all of QEMU's guests, until this process ends.
pub(super) fn serve_peer() -> Result<(), String> {
    for port in [SINK, SOURCE, ECHO] {
        let failed = |error| format!("listening at port {port} of AF_VSOCK: {error}");
        let listener = Socket::listen(port).map_err(failed)?;
        host_program::serve(port, move || listener.accept().map(|socket| socket.0));
    }
    Ok(())
}

/// Loads the guest's driver. The kernel has one transport to the host: the first that is loaded.
fn load(machine: &mut Machine, name: &str) -> Result<(), String> {
    let action = Action::LoadModule { name: name.to_owned(), parameters: String::new() };
    machine.ask::<serde_json::Value>(action).map(drop)
}
