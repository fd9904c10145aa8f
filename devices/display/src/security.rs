//! Passwords, and the ways to log in.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use subtle::{Choice, ConstantTimeEq};

use crate::protocol::{Authenticator, CHALLENGE_BYTES, Refusal, SecurityType, response};
use crate::throttle::Throttle;
use crate::tls::TlsConfig;

/// Maximum number of bytes of a password.
const MAX_PASSWORD: usize = 256;

/// The bytes of a password that VNC authentication uses.
const VNC_PASSWORD: usize = 8;

/// What a viewer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It sees the screen, and sends keys and the pointer.
    Full,
    /// It sees the screen.
    ViewOnly,
}

/// The passwords of a server. Clones share the count of failed log-ins.
#[derive(Clone)]
pub struct Passwords {
    full: Arc<[u8]>,
    view: Option<Arc<[u8]>>,
    throttle: Arc<Mutex<Throttle>>,
}

/// The error of an invalid password, or of a file without one.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be read.
    #[error("{}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// The password is empty, too long, or no text of one line.
    #[error("a password is the first line of its file and has 1 to {MAX_PASSWORD} bytes")]
    Invalid,
    /// Both passwords are the same.
    #[error("the passwords for full access and for viewing are the same")]
    Same,
}

/// The error of a log-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The password is wrong.
    #[error("the password is wrong")]
    Wrong,
    /// Log-ins are refused for a time.
    #[error("too many log-ins failed; try again in {} s", .0.as_secs() + 1)]
    Throttled(Duration),
}

impl Passwords {
    /// Returns the passwords for full access and for viewing.
    ///
    /// # Errors
    /// [`PasswordError::Invalid`], [`PasswordError::Same`].
    pub fn new(full: &str, view: Option<&str>) -> Result<Self, PasswordError> {
        let check = |password: &str| {
            let is_valid = (1..=MAX_PASSWORD).contains(&password.len())
                && !password.contains(char::is_control);
            if is_valid { Ok(Arc::from(password.as_bytes())) } else { Err(PasswordError::Invalid) }
        };
        let passwords = Self {
            full: check(full)?,
            view: view.map(check).transpose()?,
            throttle: Arc::default(),
        };
        match passwords.view.as_ref() == Some(&passwords.full) {
            true => Err(PasswordError::Same),
            false => Ok(passwords),
        }
    }

    /// Reads the passwords from the first lines of files.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn read(full: &Path, view: Option<&Path>) -> Result<Self, PasswordError> {
        let view = view.map(first_line).transpose()?;
        Self::new(&first_line(full)?, view.as_deref())
    }

    /// Returns whether VNC authentication, which uses eight bytes, would weaken a password.
    pub fn is_longer_than_vnc(&self) -> bool {
        let mut all = std::iter::once(&self.full).chain(&self.view);
        all.any(|one| one.len() > VNC_PASSWORD)
    }

    /// Checks a password. The time that it takes does not depend on where it differs.
    ///
    /// # Errors
    /// [`LoginError`]. Five failures in a row refuse all log-ins for a time.
    pub fn check(&self, password: &[u8]) -> Result<Permission, LoginError> {
        self.check_with(|known| known.ct_eq(password))
    }

    /// Checks the response to a challenge.
    fn check_response(
        &self,
        challenge: &[u8; CHALLENGE_BYTES],
        given: &[u8; CHALLENGE_BYTES],
    ) -> Result<Permission, LoginError> {
        self.check_with(|known| response(known, challenge).ct_eq(given))
    }

    fn check_with(&self, is_right: impl Fn(&[u8]) -> Choice) -> Result<Permission, LoginError> {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(left) = throttle.locked_for(now) {
            return Err(LoginError::Throttled(left));
        }
        let is_full = is_right(&self.full);
        let is_view = self.view.as_ref().map_or(Choice::from(0), |view| is_right(view));
        throttle.note(bool::from(is_full | is_view), now);
        match (bool::from(is_full), bool::from(is_view)) {
            (true, _) => Ok(Permission::Full),
            (false, true) => Ok(Permission::ViewOnly),
            (false, false) => Err(LoginError::Wrong),
        }
    }

    fn check_throttle(&self) -> Result<(), LoginError> {
        let throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.locked_for(Instant::now()).map_or(Ok(()), |left| Err(LoginError::Throttled(left)))
    }
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

fn first_line(path: &Path) -> Result<String, PasswordError> {
    let mut text = String::new();
    // More than a password and its line end is too long in any case.
    let limit = 2 * MAX_PASSWORD as u64;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|error| PasswordError::Read { path: path.to_owned(), error })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// How viewers log in.
#[derive(Clone, Debug)]
pub struct Security {
    passwords: Option<Passwords>,
    without_login: Permission,
    tls: Option<TlsConfig>,
}

impl Security {
    /// Returns the security of viewers that are authenticated already, by the rights of a socket's
    /// file or by another server.
    pub fn none() -> Self {
        Self { passwords: None, without_login: Permission::Full, tls: None }
    }

    /// Returns the security of viewers that log in with a password.
    pub fn passwords(passwords: Passwords) -> Self {
        Self { passwords: Some(passwords), ..Self::none() }
    }

    /// Lets viewers that need no password see the screen only.
    #[must_use]
    pub fn view_only(self) -> Self {
        Self { without_login: Permission::ViewOnly, ..self }
    }

    /// Demands TLS.
    #[must_use]
    pub fn with_tls(self, tls: TlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    pub(crate) fn tls(&self) -> Option<&TlsConfig> {
        self.tls.as_ref()
    }
}

impl Authenticator for Security {
    type Permission = Permission;

    fn offered(&self) -> Result<Vec<SecurityType>, Refusal> {
        let Some(passwords) = &self.passwords else {
            return Ok(vec![match self.tls {
                Some(_) => SecurityType::TlsNone,
                None => SecurityType::None,
            }]);
        };
        passwords.check_throttle().map_err(refusal)?;
        Ok(match (&self.tls, passwords.is_longer_than_vnc()) {
            (Some(_), true) => vec![SecurityType::TlsPlain],
            (Some(_), false) => vec![SecurityType::TlsPlain, SecurityType::TlsVnc],
            (None, _) => vec![SecurityType::Vnc],
        })
    }

    fn without_login(&self) -> Permission {
        self.without_login
    }

    fn check_response(
        &self,
        challenge: &[u8; CHALLENGE_BYTES],
        response: &[u8; CHALLENGE_BYTES],
    ) -> Result<Permission, Refusal> {
        self.check(|passwords| passwords.check_response(challenge, response))
    }

    fn check_password(&self, password: &[u8]) -> Result<Permission, Refusal> {
        self.check(|passwords| passwords.check(password))
    }
}

impl Security {
    fn check(
        &self,
        check: impl Fn(&Passwords) -> Result<Permission, LoginError>,
    ) -> Result<Permission, Refusal> {
        let passwords = self.passwords.as_ref().ok_or(LoginError::Wrong);
        passwords.and_then(check).map_err(refusal)
    }
}

fn refusal(error: LoginError) -> Refusal {
    Refusal(error.to_string())
}
