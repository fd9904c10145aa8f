//! The modules of process 1 in a guest and in the test host.

pub mod agent;
pub mod blockdev;
pub mod checks;
pub mod cmdline;
pub mod echo;
pub mod fs_check;
pub mod input_events;
pub mod kexec;
pub mod load;
pub mod memory_load;
pub mod modules;
pub mod port;
pub mod power_button;
pub mod process;
pub mod round_trips;
pub mod screen;
pub mod scsi;
pub mod sockets;
pub mod sys;
pub mod traffic;
pub mod uevent;
pub mod uio;
pub mod uio_ring;
pub mod vmbus;
pub mod vsock;

/// The result of an action. The error is a message that a test can show.
pub type Outcome<T> = Result<T, String>;

/// Returns a converter that prefixes an error with the failed operation.
pub fn context<E: std::fmt::Display>(doing: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{doing}: {error}")
}
