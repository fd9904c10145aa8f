//! Opens TAP interfaces. Each error names its remedy.

use std::ffi::c_int;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::ioctl::{self, Name};
use crate::VnetHeader;

/// The most queues of an interface (`MAX_TAP_QUEUES` in Linux drivers/net/tun.c).
pub const MAX_QUEUES: usize = 256;

const DEVICE: &str = "/dev/net/tun";

/// The reason why a TAP interface could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name is empty, longer than 15 bytes, or has a byte that names cannot have.
    #[error("`{0}` cannot be an interface's name: 1 to 15 bytes without `/` and spaces")]
    Name(String),
    /// The number of queues or descriptors is 0 or above [`MAX_QUEUES`].
    #[error("a TAP interface has 1 to {MAX_QUEUES} queues, not {0}")]
    Queues(usize),
    /// There is no interface of this name.
    #[error(
        "there is no interface `{0}`: create it by `ip tuntap add dev {0} mode tap user $USER \
             vnet_hdr` (and `multi_queue` for several queues), and bring it up"
    )]
    NoInterface(String),
    /// /dev/net/tun cannot be opened.
    #[error("cannot open {DEVICE}: {0} (load the module `tun`, and give this user access to it)")]
    Device(#[source] io::Error),
    /// The interface belongs to another user or group.
    #[error(
        "not permitted to use `{0}`: create it with `user` or `group` of this process (`ip \
             tuntap add ... user $USER`), or run with CAP_NET_ADMIN"
    )]
    NotPermitted(String),
    /// The interface is in use.
    #[error("`{0}` is in use by another process")]
    Busy(String),
    /// The interface has one queue, is no TAP, or has another mode.
    #[error(
        "`{0}` is no TAP interface with so many queues: create it by `ip tuntap add dev {0} \
             mode tap multi_queue`"
    )]
    Kind(String),
    /// A descriptor that was passed is none of a TAP interface with virtio-net headers.
    #[error("descriptor {0} is no TAP interface with IFF_NO_PI and IFF_VNET_HDR")]
    Descriptor(i32),
    /// The descriptors that were passed are of different interfaces.
    #[error("the descriptors belong to different interfaces, `{0}` and `{1}`")]
    Mixed(String, String),
    /// Another error of the system.
    #[error("cannot set up `{0}`: {1}")]
    Setup(String, #[source] io::Error),
}

/// Checks that `name` can be the name of an interface.
///
/// # Errors
/// [`TapError::Name`].
pub fn check_name(name: &str) -> Result<(), TapError> {
    encode(name).map(|_| ())
}

/// Opens `queues` descriptors of an existing interface.
pub(super) fn open(name: &str, queues: usize) -> Result<(Name, Vec<OwnedFd>), TapError> {
    let bytes = encode(name)?;
    check_count(queues)?;
    let terminated: Vec<_> = bytes.iter().map(|byte| *byte as libc::c_char).collect();
    // SAFETY: a name of at most 15 bytes with a zero behind it.
    if unsafe { libc::if_nametoindex(terminated.as_ptr()) } == 0 {
        return Err(TapError::NoInterface(name.into()));
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut fds = Vec::new();
    for _ in 0..queues {
        let fd = match attach(&bytes, flags | libc::IFF_MULTI_QUEUE) {
            // The interface may have been made for one queue.
            Err(Attach::Interface(error))
                if queues == 1 && error.raw_os_error() == Some(libc::EINVAL) =>
            {
                attach(&bytes, flags)
            }
            result => result,
        };
        let fd = fd.map_err(|error| explain(name, error))?;
        ioctl::set_header(&fd, VnetHeader::LENGTH)
            .map_err(|error| TapError::Setup(name.into(), error))?;
        fds.push(fd);
    }
    Ok((bytes, fds))
}

/// Checks descriptors that another process opened, and prepares them.
pub(super) fn adopt(fds: &[OwnedFd]) -> Result<Name, TapError> {
    check_count(fds.len())?;
    let mut first = None;
    for fd in fds {
        let unusable = TapError::Descriptor(fd.as_raw_fd());
        let Ok(interface) = ioctl::interface(fd) else { return Err(unusable) };
        let needed = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if interface.flags & needed != needed {
            return Err(unusable);
        }
        let name = interface.name;
        let known = *first.get_or_insert(name);
        if known != name {
            return Err(TapError::Mixed(decode(&known), decode(&name)));
        }
        let setup = |error| TapError::Setup(decode(&name), error);
        set_nonblocking(fd).map_err(setup)?;
        ioctl::set_header(fd, VnetHeader::LENGTH).map_err(setup)?;
    }
    first.ok_or(TapError::Queues(0))
}

/// Returns an interface's name as text.
pub(super) fn decode(name: &Name) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// Returns a socket of this thread's network namespace, for questions about interfaces.
pub(super) fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

enum Attach {
    Device(io::Error),
    Interface(io::Error),
}

fn attach(name: &Name, flags: c_int) -> Result<OwnedFd, Attach> {
    let fd: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(DEVICE)
        .map_err(Attach::Device)?
        .into();
    ioctl::set_interface(&fd, name, flags).map_err(Attach::Interface)?;
    Ok(fd)
}

fn explain(name: &str, error: Attach) -> TapError {
    let name = name.into();
    match error {
        Attach::Device(error) => TapError::Device(error),
        Attach::Interface(error) => match error.raw_os_error() {
            Some(libc::EPERM) => TapError::NotPermitted(name),
            Some(libc::EBUSY) => TapError::Busy(name),
            Some(libc::EINVAL | libc::E2BIG) => TapError::Kind(name),
            _ => TapError::Setup(name, error),
        },
    }
}

fn encode(name: &str) -> Result<Name, TapError> {
    let wrong = |byte: u8| byte == b'/' || byte == 0 || byte == b'%' || byte.is_ascii_whitespace();
    let mut bytes = [0; libc::IFNAMSIZ];
    match bytes.get_mut(..name.len()) {
        Some(start) if (1..libc::IFNAMSIZ).contains(&name.len()) && !name.bytes().any(wrong) => {
            start.copy_from_slice(name.as_bytes());
            Ok(bytes)
        }
        _ => Err(TapError::Name(name.into())),
    }
}

fn check_count(queues: usize) -> Result<(), TapError> {
    if (1..=MAX_QUEUES).contains(&queues) { Ok(()) } else { Err(TapError::Queues(queues)) }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: FIONBIO reads one int.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const on) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
