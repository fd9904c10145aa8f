//! What process 1 of a guest and of the test host is made of.

pub mod agent;
pub mod blockdev;
pub mod checks;
pub mod cmdline;
pub mod echo;
pub mod fs_check;
pub mod kexec;
pub mod load;
pub mod modules;
pub mod port;
pub mod power_button;
pub mod process;
pub mod scsi;
pub mod sys;
pub mod uevent;
pub mod uio;
pub mod uio_ring;
pub mod vmbus;

/// What goes wrong in an action, in words that a test can show.
pub type Outcome<T> = Result<T, String>;

/// Puts what was being done before an error.
pub fn context<E: std::fmt::Display>(doing: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{doing}: {error}")
}
