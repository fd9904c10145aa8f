//! Raw mode of the terminal, which every path out of the program undoes.

use std::io;
use std::mem::MaybeUninit;
use std::sync::{Mutex, Once, PoisonError};

/// The terminal's former mode, while it is in raw mode.
static SAVED: Mutex<Option<libc::termios>> = Mutex::new(None);
static HOOKS: Once = Once::new();

/// Standard input in raw mode; dropping it, a panic and `exit` restore the old mode.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Returns whether standard input is a terminal.
    pub fn available() -> bool {
        // SAFETY: isatty takes a descriptor and accesses no memory.
        unsafe { libc::isatty(libc::STDIN_FILENO) == 1 }
    }

    /// Enters raw mode. Output processing stays on, so that the program's own messages keep their
    /// line ends.
    ///
    /// # Errors
    /// Standard input is no terminal, or the terminal refuses.
    pub fn enter() -> io::Result<RawTerminal> {
        let mut old = MaybeUninit::uninit();
        // SAFETY: tcgetattr fills the structure or fails.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, old.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: tcgetattr succeeded.
        let old: libc::termios = unsafe { old.assume_init() };
        let mut raw = old;
        // SAFETY: changes the structure only.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        raw.c_oflag |= libc::OPOST;
        HOOKS.call_once(|| {
            extern "C" fn at_exit() {
                restore();
            }
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                previous(panic);
            }));
            // SAFETY: the function has no arguments and does not unwind.
            unsafe { libc::atexit(at_exit) };
        });
        SAVED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(old);
        // SAFETY: the structure is live.
        if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const raw) } != 0 {
            let error = io::Error::last_os_error();
            restore();
            return Err(error);
        }
        Ok(RawTerminal(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal if it is in raw mode. For exit paths that run no destructors.
pub(crate) fn restore() {
    // A panic while this thread holds the lock must not deadlock.
    if let Ok(mut saved) = SAVED.try_lock()
        && let Some(old) = saved.take()
    {
        // SAFETY: the structure is live.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const old) };
    }
}
