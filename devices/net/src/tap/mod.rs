//! A TAP interface of the host: frames by one `readv` or `writev` each, with checksum and
//! segmentation offloads through the virtio-net header.

mod ioctl;
mod monitor;
#[cfg(test)]
mod offload_tests;
mod open;
mod queue;
#[cfg(test)]
mod tests;

use std::ffi::c_uint;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::claim::Claims;
use crate::link::Link;
use crate::readiness::{AnyReady, Readiness};
use crate::{Backend, LinkState, Mac, Offloads, Queue};
use ioctl::Name;
use monitor::Monitor;
pub use open::{MAX_QUEUES, TapError, check_name};
use queue::TapQueue;

/// The MTU of an interface that cannot be asked: one in another network namespace.
const DEFAULT_MTU: u32 = 1500;

/// A TAP interface, with one descriptor for each queue. The kernel spreads flows over the queues
/// that are open.
///
/// The link is down while the interface is deleted, is not up or has no carrier. One that was
/// opened by name is opened again by [`Backend::reconnect`] when it exists. An interface in another
/// network namespace cannot be asked: it counts as up.
#[derive(Debug)]
pub struct Tap {
    shared: Arc<Shared>,
    /// The kernel's notices of changed interfaces. `None`: changes show when a frame is sent.
    monitor: Option<Monitor>,
    /// Readable after a notice or a change of the link.
    changes: AnyReady,
}

#[derive(Debug)]
struct Shared {
    name: Name,
    /// The interface can be opened again.
    by_name: bool,
    ports: Vec<Port>,
    claims: Claims,
    /// The descriptors are attached to the interface: it is not deleted.
    attached: AtomicBool,
    link: Link,
    /// Answers for interfaces of the network namespace that the TAP was opened in.
    control: OwnedFd,
    offloads: Offloads,
    /// The receive offloads in use. Held while descriptors are attached or replaced.
    in_use: Mutex<Offloads>,
}

/// One descriptor of the interface. [`Shared::reconnect`] replaces its open file; the number
/// stays the same.
#[derive(Debug)]
struct Port {
    fd: OwnedFd,
    readiness: Readiness,
}

impl Tap {
    /// Opens the existing interface `name` with `queues` queues (1 to [`MAX_QUEUES`]).
    ///
    /// # Errors
    /// The reason and its remedy.
    pub fn open(name: &str, queues: usize) -> Result<Self, TapError> {
        let (name, fds) = open::open(name, queues)?;
        Self::over(name, fds, true)
    }

    /// Takes descriptors of one TAP interface that another process opened with `IFF_TAP`,
    /// `IFF_NO_PI` and `IFF_VNET_HDR`; one for each queue.
    ///
    /// # Errors
    /// A descriptor is of another kind, or cannot be set up.
    pub fn from_fds(fds: Vec<OwnedFd>) -> Result<Self, TapError> {
        let name = open::adopt(&fds)?;
        Self::over(name, fds, false)
    }

    /// Returns the interface's name.
    pub fn name(&self) -> String {
        open::decode(&self.shared.name)
    }

    /// Returns the address of the host's side of the interface.
    ///
    /// # Errors
    /// The interface is deleted.
    pub fn host_mac(&self) -> io::Result<Mac> {
        ioctl::mac(&self.shared.ports[0].fd)
    }

    /// Returns whether the host has brought the interface up.
    ///
    /// # Errors
    /// The interface is deleted, or in another network namespace.
    pub fn is_interface_up(&self) -> io::Result<bool> {
        ioctl::is_up(&self.shared.control, &self.shared.name)
    }

    fn over(name: Name, fds: Vec<OwnedFd>, by_name: bool) -> Result<Self, TapError> {
        let setup = |error| TapError::Setup(open::decode(&name), error);
        let offloads = probe(&fds[0]).map_err(setup)?;
        let ports = fds
            .into_iter()
            .map(|fd| Ok(Port { fd, readiness: Readiness::new()? }))
            .collect::<io::Result<Vec<_>>>()
            .map_err(setup)?;
        // Before the state is read, so that no change is missed.
        let monitor = Monitor::open().ok();
        let shared = Shared {
            name,
            by_name,
            claims: Claims::new(ports.len()),
            ports,
            attached: AtomicBool::new(true),
            link: Link::new(LinkState::Up).map_err(setup)?,
            control: open::control_socket().map_err(setup)?,
            offloads,
            in_use: Mutex::new(Offloads::empty()),
        };
        shared.detach_closed().map_err(setup)?;
        let fds = monitor.iter().map(Monitor::event).chain([shared.link.event()]);
        let changes = AnyReady::readable(fds).map_err(setup)?;
        shared.refresh();
        // The card asks for the first state.
        let _ = shared.link.take();
        Ok(Self { shared: Arc::new(shared), monitor, changes })
    }
}

impl Backend for Tap {
    fn queues(&self) -> usize {
        self.shared.ports.len()
    }

    fn offloads(&self) -> Offloads {
        self.shared.offloads
    }

    /// Returns the interface's MTU at this moment.
    fn mtu_limit(&self) -> u32 {
        ioctl::mtu(&self.shared.control, &self.shared.name).unwrap_or(DEFAULT_MTU)
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        TapQueue::open(&self.shared, index)
    }

    fn link(&self) -> LinkState {
        if self.monitor.as_ref().is_some_and(Monitor::take) {
            self.shared.refresh();
        }
        self.shared.link.take()
    }

    /// The descriptor is also readable after changes of other interfaces.
    fn link_event(&self) -> Option<RawFd> {
        Some(self.changes.event())
    }

    fn reconnect(&self) -> io::Result<()> {
        self.shared.reconnect()
    }

    fn set_receive_offloads(&self, offloads: Offloads) -> io::Result<()> {
        if !(self.shared.offloads & Offloads::RECEIVE).contains(offloads) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut in_use = self.shared.lock();
        // A deleted interface gets them when it is opened again.
        if self.shared.is_attached() {
            ioctl::set_offload(&self.shared.ports[0].fd, receive_flags(offloads))?;
        }
        *in_use = offloads;
        Ok(())
    }
}

impl Shared {
    fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// Notes that the interface is gone. Its descriptors stay readable, so nothing watches them.
    fn lost(&self) {
        self.attached.store(false, Ordering::Release);
        if self.link.set(LinkState::Down) {
            tracing::warn!(interface = open::decode(&self.name), "a TAP interface is gone");
        }
        for port in &self.ports {
            port.readiness.unwatch(port.fd.as_raw_fd());
        }
    }

    /// Reads the state of the interface, and sets that of the link by it.
    fn refresh(&self) {
        let _in_use = self.lock();
        self.refresh_locked();
    }

    fn refresh_locked(&self) {
        if !self.is_attached() {
            return;
        }
        if ioctl::interface(&self.ports[0].fd).is_err() {
            return self.lost();
        }
        let is_running = ioctl::is_running(&self.control, &self.name).unwrap_or(true);
        let state = if is_running { LinkState::Up } else { LinkState::Down };
        if self.link.set(state) {
            let interface = open::decode(&self.name);
            tracing::info!(interface, ?state, "a TAP interface has changed");
        }
        // A queue may have found the interface gone meanwhile.
        if !self.is_attached() {
            self.link.set(LinkState::Down);
        }
    }

    fn reconnect(&self) -> io::Result<()> {
        let in_use = self.lock();
        if !self.is_attached() {
            self.attach(*in_use)?;
        }
        self.refresh_locked();
        if self.link.is_up() {
            return Ok(());
        }
        let name = open::decode(&self.name);
        Err(io::Error::other(format!("`{name}` is down: bring it up by `ip link set {name} up`")))
    }

    fn attach(&self, in_use: Offloads) -> io::Result<()> {
        if !self.by_name {
            return Err(io::Error::other("a TAP interface that was passed cannot be opened again"));
        }
        // A queue may have noticed the loss after the interface was back.
        if ioctl::interface(&self.ports[0].fd).is_err() {
            self.open_again(&open::decode(&self.name), in_use)?;
        }
        for (index, port) in self.ports.iter().enumerate() {
            if self.claims.is_open(index) {
                port.readiness.watch(port.fd.as_raw_fd())?;
            }
        }
        self.attached.store(true, Ordering::Release);
        Ok(())
    }

    /// Opens the interface, and puts its files under the numbers of the descriptors in use.
    fn open_again(&self, name: &str, in_use: Offloads) -> io::Result<()> {
        let (_, fds) = open::open(name, self.ports.len()).map_err(io::Error::other)?;
        ioctl::set_offload(&fds[0], receive_flags(in_use))?;
        for (fd, port) in fds.iter().zip(&self.ports) {
            // SAFETY: both descriptors are owned here. Calls in progress keep the old file.
            let replaced =
                unsafe { libc::dup3(fd.as_raw_fd(), port.fd.as_raw_fd(), libc::O_CLOEXEC) };
            if replaced < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        drop(fds);
        self.detach_closed()
    }

    /// Detaches the queues that are not open, so that the kernel sends them no flows. Queue 0 stays
    /// attached: the interface has one at least.
    fn detach_closed(&self) -> io::Result<()> {
        for (index, port) in self.ports.iter().enumerate().skip(1) {
            if !self.claims.is_open(index) {
                ioctl::set_queue(&port.fd, false)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Offloads> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the offloads of this kernel; none is in use then.
fn probe(fd: &OwnedFd) -> io::Result<Offloads> {
    let mut offloads = Offloads::empty();
    let udp = libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    // Since Linux 6.2, with the kernel's support for frames of this kind.
    if ioctl::set_offload(fd, udp).is_ok() {
        offloads |= Offloads::USO;
    }
    ioctl::set_offload(fd, 0)?;
    Ok(offloads | Offloads::TRANSMIT_CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::RECEIVE)
}

fn receive_flags(offloads: Offloads) -> c_uint {
    let mut flags = 0;
    if !offloads.is_empty() {
        flags |= libc::TUN_F_CSUM;
    }
    if offloads.contains(Offloads::COALESCED_RECEIVE) {
        flags |= libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    }
    flags
}
