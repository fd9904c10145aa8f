//! Opening of the cards' networks, before the machine exists.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use synthvm_net::passt::{Forward, Passt, PasstOptions};
use synthvm_net::software::SoftwareOffload;
use synthvm_net::tap::Tap;
use synthvm_net::{Backend, NullNet, Offloads, Switch, SwitchPort, UnixLink};

use super::capture::CaptureFile;
use super::{NetworkError, OpenError};
use crate::config::{Descriptors, NetworkBackend, NetworkConfig};

/// The networks of all cards, open. Dropping this before the machine starts leaves nothing behind.
#[derive(Debug)]
pub struct OpenNetworks {
    pub(super) cards: Vec<OpenCard>,
}

/// A card's network.
#[derive(Debug)]
pub(super) struct OpenCard {
    pub(super) config: NetworkConfig,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) capture: Option<CaptureFile>,
}

impl OpenNetworks {
    /// Opens the network of each card, and starts the programs that serve them. Starts no thread.
    ///
    /// # Errors
    /// The card at fault, and the reason.
    pub fn open(cards: &[NetworkConfig]) -> Result<Self, OpenError> {
        let mut ports = switch_ports(cards);
        let open = |card: &NetworkConfig| {
            open(card, &mut ports)
                .map_err(|error| OpenError { card: card.backend.to_string(), error })
        };
        Ok(OpenNetworks { cards: cards.iter().map(open).collect::<Result<_, _>>()? })
    }
}

/// The ports of all switches that no card has yet, by the switches' names.
type Ports = BTreeMap<String, Vec<SwitchPort>>;

/// Returns the ports of a switch for each name. A switch that cannot be made has none.
fn switch_ports(cards: &[NetworkConfig]) -> Ports {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for card in cards {
        if let NetworkBackend::Switch(name) = &card.backend {
            *counts.entry(name).or_default() += 1;
        }
    }
    let ports = |(name, count): (&str, usize)| {
        let switch = Switch::new(count).ok()?;
        Some((name.to_owned(), (0..count).filter_map(|index| switch.port(index)).collect()))
    };
    counts.into_iter().filter_map(ports).collect()
}

fn open(card: &NetworkConfig, ports: &mut Ports) -> Result<OpenCard, NetworkError> {
    let backend: Arc<dyn Backend> = match &card.backend {
        NetworkBackend::Tap { name } => Arc::new(Tap::open(name, card.queues.into())?),
        NetworkBackend::TapDescriptors(descriptors) => {
            Arc::new(Tap::from_fds(duplicates(descriptors)?)?)
        }
        NetworkBackend::User { forward, program } => {
            Arc::new(start_passt(forward, program.as_deref())?)
        }
        NetworkBackend::Switch(name) => {
            let port = ports.get_mut(name).and_then(Vec::pop);
            Arc::new(port.ok_or_else(|| io::Error::other("out of file descriptors"))?)
        }
        NetworkBackend::Listen(path) => {
            Arc::new(UnixLink::listen(path).map_err(NetworkError::Listen)?)
        }
        NetworkBackend::Connect(path) => {
            Arc::new(UnixLink::connect(path).map_err(NetworkError::Connect)?)
        }
        NetworkBackend::Null => Arc::new(NullNet::new(1)),
    };
    check_mtu(card, &*backend)?;
    let backend = if backend.offloads().contains(Offloads::TRANSMIT) {
        backend
    } else {
        Arc::new(SoftwareOffload::new(backend))
    };
    // Created last, as an error after it would have to remove it.
    let capture = card.pcap.as_deref().map(CaptureFile::create).transpose()?;
    Ok(OpenCard { config: card.clone(), backend, capture })
}

fn start_passt(forward: &[Forward], program: Option<&Path>) -> Result<Passt, NetworkError> {
    let mut options = PasstOptions { forwards: forward.to_vec(), ..PasstOptions::default() };
    if let Some(program) = program {
        // A name without a folder would be searched for in `PATH`.
        options.program = std::path::absolute(program)?;
    }
    let name = options.program.display().to_string();
    Passt::spawn(options).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NetworkError::NoPasst(name),
        _ => NetworkError::Passt(error),
    })
}

fn check_mtu(card: &NetworkConfig, backend: &dyn Backend) -> Result<(), NetworkError> {
    let limit = backend.mtu_limit();
    match card.mtu {
        Some(wanted) if wanted > limit => {
            let remedy = match &card.backend {
                NetworkBackend::Tap { name } => {
                    format!("raise it by `ip link set {name} mtu {wanted}`, or lower mtu=")
                }
                _ => "lower mtu=".to_owned(),
            };
            Err(NetworkError::Mtu { wanted, limit, remedy })
        }
        _ => Ok(()),
    }
}

/// Duplicates the descriptors that were passed. The originals stay, as this program cannot know
/// that nothing else in it uses the numbers; the programs that it starts do not get them.
fn duplicates(descriptors: &Descriptors) -> Result<Vec<OwnedFd>, NetworkError> {
    descriptors.numbers().iter().map(|number| duplicate(*number)).collect()
}

fn duplicate(number: RawFd) -> Result<OwnedFd, NetworkError> {
    // SAFETY: the call takes a number and accesses no memory.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EBADF) => NetworkError::Descriptor(number),
            error => NetworkError::System(error),
        });
    }
    // SAFETY: a new descriptor that nothing else owns.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    // SAFETY: the call takes a number and accesses no memory.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(copy)
}
