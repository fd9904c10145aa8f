//! The VNC server's socket, passwords and certificate, opened before the machine exists.

use std::io;
use std::net::{SocketAddr, TcpListener};

use synthvm_display::{DisplayServer, PasswordError, Passwords, Security, TlsConfig, TlsError};
use synthvm_machine::unix_socket::{ListeningSocket, SocketError};

use crate::config::{DisplayConfig, VncAddress};

/// The VNC server's socket and how viewers log in. Dropping it removes the file of a Unix socket.
#[derive(Debug)]
pub struct Vnc {
    socket: Socket,
    security: Security,
}

#[derive(Debug)]
enum Socket {
    Unix(ListeningSocket),
    Tcp(TcpListener),
}

/// The error of a VNC server that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum VncError {
    /// The Unix socket.
    #[error("--display vnc=unix:{0}")]
    Unix(#[from] SocketError),
    /// The TCP address.
    #[error("--display vnc={address}: {}", explain(.error, *.address))]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The cause.
        error: io::Error,
    },
    /// A file with a password.
    #[error("--display password-file: {0}")]
    Password(#[from] PasswordError),
    /// A password of which a part would be ignored.
    #[error(
        "--display password-file: VNC authentication ignores all but the first 8 characters of a \
         password; give one of at most 8, or add tls-cert=FILE and tls-key=FILE"
    )]
    PasswordTooLong,
    /// The certificate or its key.
    #[error("--display tls-cert: {0}")]
    Tls(#[from] TlsError),
}

impl Vnc {
    /// Opens what `config` says. `None`: it has no VNC server.
    ///
    /// # Errors
    /// [`VncError`]: nothing was made.
    pub fn open(config: &DisplayConfig) -> Result<Option<Self>, VncError> {
        let Some(address) = &config.vnc else { return Ok(None) };
        let mut security = Security::none();
        if let Some(full) = &config.password_file {
            let passwords = Passwords::read(full, config.view_password_file.as_deref())?;
            if passwords.is_longer_than_vnc() && config.tls_cert.is_none() {
                return Err(VncError::PasswordTooLong);
            }
            security = Security::passwords(passwords);
        }
        if let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) {
            security = security.with_tls(TlsConfig::load(certificate, key)?);
        }
        let socket = match address {
            VncAddress::Unix(path) => Socket::Unix(ListeningSocket::bind(path)?),
            VncAddress::Tcp(address) => {
                let address = *address;
                let listener =
                    TcpListener::bind(address).map_err(|error| VncError::Tcp { address, error })?;
                if address.port() == 0 {
                    report_port(&listener);
                }
                Socket::Tcp(listener)
            }
        };
        Ok(Some(Self { socket, security }))
    }

    /// Lets the server accept viewers.
    pub(super) fn serve(&self, server: &DisplayServer) -> io::Result<()> {
        let security = self.security.clone();
        match &self.socket {
            Socket::Unix(socket) => server.listen(socket.listener().try_clone()?, security),
            Socket::Tcp(listener) => server.listen(listener.try_clone()?, security),
        }
        Ok(())
    }
}

/// Tells the port that the system has chosen.
fn report_port(listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        tracing::warn!("the VNC server listens on {address}");
    }
}

/// Returns the cause and the remedy.
fn explain(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("port {} is for privileged programs; choose one from 1024 on", address.port())
        }
        io::ErrorKind::AddrNotAvailable => {
            "this computer does not have the address; choose 127.0.0.1 or one of its own".to_owned()
        }
        _ => format!("cannot listen: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use super::*;

    /// A folder that is removed with its files.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("synthvm-vnc-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self, name: &str, text: &str) -> Option<PathBuf> {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn tcp(port: u16) -> DisplayConfig {
        let vnc = Some(VncAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
        DisplayConfig { vnc, ..Default::default() }
    }

    fn error(config: &DisplayConfig) -> String {
        Vnc::open(config).unwrap_err().to_string()
    }

    #[test]
    fn test_display_without_a_server_opens_nothing() {
        assert!(Vnc::open(&DisplayConfig::default()).unwrap().is_none());
    }

    #[test]
    fn test_unix_socket_is_private_and_removed_at_the_end() {
        let folder = Folder::new("socket");
        let path = folder.0.join("vnc.sock");
        let vnc = Some(VncAddress::Unix(path.clone()));
        let open = Vnc::open(&DisplayConfig { vnc, ..Default::default() }).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(open);
        assert!(!path.exists());
    }

    #[test]
    fn test_file_without_a_password_is_refused_with_its_name() {
        let folder = Folder::new("password");
        let mut config = tcp(0);
        config.password_file = Some("/nonexistent/password".into());
        let missing = error(&config);
        assert!(missing.contains("--display password-file: /nonexistent/password"), "{missing}");
        config.password_file = folder.file("empty", "\n");
        assert!(error(&config).contains("1 to 256"));
        config.password_file = folder.file("long", "123456789\n");
        assert!(error(&config).contains("first 8"));
        config.password_file = folder.file("right", "12345678\nmore\n");
        assert!(Vnc::open(&config).is_ok());
        config.view_password_file = config.password_file.clone();
        assert!(error(&config).contains("the same"));
        config.view_password_file = folder.file("view", "look");
        assert!(Vnc::open(&config).is_ok());
    }

    #[test]
    fn test_busy_port_and_foreign_address_are_refused_with_the_remedy() {
        let folder = Folder::new("port");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut config = tcp(port);
        config.password_file = folder.file("password", "secret");
        assert!(error(&config).contains("another program listens"));
        // An address for documentation, which no computer has.
        config.vnc = Some(VncAddress::Tcp(SocketAddr::from(([192, 0, 2, 1], 5900))));
        assert!(error(&config).contains("does not have the address"));
        let denied = explain(&io::ErrorKind::PermissionDenied.into(), ([127, 0, 0, 1], 80).into());
        assert!(denied.contains("port 80") && denied.contains("1024"));
    }

    #[test]
    fn test_certificate_that_cannot_be_read_is_refused() {
        let mut config = tcp(0);
        config.tls_cert = Some(Path::new("/nonexistent/cert").to_owned());
        config.tls_key = config.tls_cert.clone();
        assert!(error(&config).contains("--display tls-cert: /nonexistent/cert"));
    }
}
