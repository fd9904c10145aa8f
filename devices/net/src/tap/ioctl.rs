//! The calls of /dev/net/tun (Linux Documentation/networking/tuntap.rst, drivers/net/tun.c).

use std::ffi::{c_int, c_short, c_uint};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::ifreq;

/// The name and flags of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: Name,
    /// `IFF_*` of linux/if_tun.h.
    pub(super) flags: c_int,
}

/// An interface's name: up to 15 bytes and zeroes.
pub(super) type Name = [u8; libc::IFNAMSIZ];

/// From linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Attaches a descriptor to an interface.
pub(super) fn set_interface(fd: &OwnedFd, name: &Name, flags: c_int) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags as c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// Returns the interface that a descriptor is attached to.
pub(super) fn interface(fd: &OwnedFd) -> io::Result<Interface> {
    let mut request = request(&[0; libc::IFNAMSIZ]);
    // SAFETY: TUNGETIFF writes one ifreq.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: the call has set the flags.
    let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & 0xffff;
    Ok(Interface { name: request.ifr_name.map(|byte| byte as u8), flags })
}

/// Attaches or detaches a queue of an interface.
pub(super) fn set_queue(fd: &OwnedFd, attached: bool) -> io::Result<()> {
    let mut request = request(&[0; libc::IFNAMSIZ]);
    let flags = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    request.ifr_ifru.ifru_flags = flags as c_short;
    // SAFETY: TUNSETQUEUE reads one ifreq.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, &raw mut request) })
}

/// Selects the offloads (`TUN_F_*`) that the reader of the descriptor can take.
pub(super) fn set_offload(fd: &OwnedFd, offloads: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes a number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, u64::from(offloads)) })
}

/// Selects virtio-net headers of `bytes` bytes, little-endian.
pub(super) fn set_header(fd: &OwnedFd, bytes: usize) -> io::Result<()> {
    let (bytes, little_endian): (c_int, c_int) = (bytes as c_int, 1);
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) })?;
    // SAFETY: TUNSETVNETLE reads one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETLE, &raw const little_endian) })
}

/// Returns the MTU of an interface in the network namespace of `socket`.
pub(super) fn mtu(socket: &OwnedFd, name: &Name) -> io::Result<u32> {
    let mut request = request(name);
    // SAFETY: SIOCGIFMTU reads and writes one ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) })?;
    // SAFETY: the call has set the MTU.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(io::Error::other)
}

/// Returns whether an interface in the network namespace of `socket` is up.
pub(super) fn is_up(socket: &OwnedFd, name: &Name) -> io::Result<bool> {
    let mut request = request(name);
    // SAFETY: SIOCGIFFLAGS reads and writes one ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: the call has set the flags.
    let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    Ok(flags & libc::IFF_UP != 0)
}

/// Returns whether an interface in the network namespace of `socket` is up and has a carrier, which
/// `ip link set NAME carrier off` takes away.
pub(super) fn is_running(socket: &OwnedFd, name: &Name) -> io::Result<bool> {
    // ETHTOOL_GLINK and the answer (struct ethtool_value in linux/ethtool.h).
    let mut value: [u32; 2] = [0x0a, 1];
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    if !is_up(socket, name)? {
        return Ok(false);
    }
    // SAFETY: SIOCETHTOOL reads the command and writes the answer, which outlives the call.
    let asked = check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) });
    Ok(asked.is_err() || value[1] != 0)
}

/// Returns the interface's own address, which the host uses.
pub(super) fn mac(fd: &OwnedFd) -> io::Result<crate::Mac> {
    let mut request = request(&[0; libc::IFNAMSIZ]);
    // SAFETY: SIOCGIFHWADDR writes one ifreq.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) })?;
    // SAFETY: the call has set the address.
    let [a, b, c, d, e, f, ..] = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    Ok([a, b, c, d, e, f].map(|byte| byte as u8))
}

fn request(name: &Name) -> ifreq {
    // SAFETY: all zeroes is an empty request.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name.map(|byte| byte as libc::c_char);
    request
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
