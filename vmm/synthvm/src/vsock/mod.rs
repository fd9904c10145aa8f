//! Host sockets of a machine: from the configuration to the sockets, and their report.

use std::io;

use synthvm_machine::unix_socket::ListeningSocket;
use synthvm_sockets::{Services, SocketOptions, SocketReport, Sockets};
use tracing::warn;
use vmbus_host::VmBus;

use crate::config::VsockConfig;

/// Descriptors of the process that all connections can use: four each, and some for the machine.
const DESCRIPTORS: libc::rlim_t = 16_384;

/// The sockets of a running machine.
#[derive(Debug)]
pub struct Vsock {
    sockets: Sockets,
    /// Removes the file at the end.
    _listener: ListeningSocket,
}

impl Vsock {
    /// Serves the guest's connections, and those of programs that connect to `listener`.
    ///
    /// # Errors
    /// The host has too few file descriptors, threads or memory.
    pub fn start(config: &VsockConfig, listener: ListeningSocket, bus: &VmBus) -> io::Result<Self> {
        raise_descriptor_limit();
        let mut services = Services::at(&config.socket);
        for service in &config.services {
            services.add(service.service, &service.path);
        }
        let listener_clone = listener.listener().try_clone()?;
        let options =
            SocketOptions { listener: Some(listener_clone), services, ..SocketOptions::default() };
        Ok(Self { sockets: Sockets::start(options, bus)?, _listener: listener })
    }

    /// Returns the sockets' part of the machine's report.
    #[must_use]
    pub fn report(&self) -> SocketReport {
        self.sockets.report()
    }
}

/// Raises the soft limit of descriptors, as far as the hard limit permits. Most systems start
/// programs with 1,024, which is enough for some 250 connections.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    if !known || limit.rlim_cur >= DESCRIPTORS {
        return;
    }
    limit.rlim_cur = DESCRIPTORS.min(limit.rlim_max);
    // SAFETY: the call reads one rlimit.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    if !raised || limit.rlim_cur < DESCRIPTORS {
        let limit = limit.rlim_cur;
        warn!(limit, "the limit of file descriptors (ulimit -Hn) is low for many sockets");
    }
}
