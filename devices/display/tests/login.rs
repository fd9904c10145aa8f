//! Log-ins: versions of the protocol, passwords, TLS, and viewers that are refused.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::client::{Client, Stream, greet, pair, read, text, word};
use common::guest::Guest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use synthvm_display::protocol::response;
use synthvm_display::{
    DisplayOptions, DisplayServer, PasswordError, Passwords, Security, TlsConfig,
};

const V3: &[u8; 12] = b"RFB 003.003\n";
const V7: &[u8; 12] = b"RFB 003.007\n";
const V8: &[u8; 12] = b"RFB 003.008\n";

struct Rig {
    guest: Guest,
    server: DisplayServer,
}

impl Rig {
    fn new() -> Self {
        let guest = Guest::new(64, 48);
        let server = guest.server(DisplayOptions::default());
        Self { guest, server }
    }

    fn connect(&self, security: &Security) -> UnixStream {
        let (mine, theirs) = pair();
        self.server.add_viewer(theirs, security.clone());
        mine
    }

    /// Uses the connection of a viewer that has logged in.
    fn check(&mut self, stream: impl Stream + 'static) {
        let mut client = Client::start(Box::new(stream));
        assert_eq!(client.name, "SynthVM");
        self.guest.draw();
        client.await_picture(64, 48, &self.guest.pixels);
    }
}

fn passwords() -> Passwords {
    Passwords::new("secret", Some("look")).unwrap()
}

fn answer(stream: &mut dyn Stream, password: &str) -> u32 {
    let challenge = read(stream, 16).try_into().unwrap();
    stream.write_all(&response(password.as_bytes(), &challenge)).unwrap();
    word(stream)
}

/// Logs in with VNC authentication, and returns the result.
fn log_in(stream: &mut UnixStream, password: &str) -> u32 {
    assert_eq!(greet(stream, V8), [2]);
    stream.write_all(&[2]).unwrap();
    answer(stream, password)
}

#[test]
fn test_response_is_that_of_known_clients() {
    // libvncserver encrypts this challenge in the same way.
    let challenge: [u8; 16] = std::array::from_fn(|at| at as u8);
    let long = response(b"password-and-more", &challenge);
    assert_eq!(long, response(b"password", &challenge), "eight bytes matter");
    assert_ne!(long, response(b"passworD", &challenge));
}

#[test]
fn test_viewer_without_a_password_logs_in_by_each_version() {
    let mut rig = Rig::new();
    let mut old = rig.connect(&Security::none());
    assert_eq!(read(&mut old, 12), V8);
    old.write_all(V3).unwrap();
    assert_eq!(word(&mut old), 1);
    rig.check(old);
    let mut seven = rig.connect(&Security::none());
    assert_eq!(greet(&mut seven, V7), [1]);
    seven.write_all(&[1]).unwrap();
    rig.check(seven);
    // A later version, and that of macOS.
    for version in [V8, b"RFB 003.889\n", b"RFB 004.001\n"] {
        let mut new = rig.connect(&Security::none());
        assert_eq!(greet(&mut new, version), [1]);
        new.write_all(&[1]).unwrap();
        assert_eq!(word(&mut new), 0);
        rig.check(new);
    }
}

#[test]
fn test_right_password_logs_in_by_each_version() {
    let mut rig = Rig::new();
    let security = Security::passwords(passwords());
    let mut old = rig.connect(&security);
    assert_eq!(read(&mut old, 12), V8);
    old.write_all(V3).unwrap();
    assert_eq!(word(&mut old), 2);
    assert_eq!(answer(&mut old, "secret"), 0);
    rig.check(old);
    for version in [V7, V8] {
        let mut stream = rig.connect(&security);
        assert_eq!(greet(&mut stream, version), [2]);
        stream.write_all(&[2]).unwrap();
        assert_eq!(answer(&mut stream, "secret"), 0);
        rig.check(stream);
    }
    assert_eq!(rig.server.report().refused_logins, 0);
}

#[test]
fn test_five_wrong_passwords_refuse_the_right_one_for_a_time() {
    let mut rig = Rig::new();
    let security = Security::passwords(passwords());
    let mut early = rig.connect(&security);
    assert_eq!(greet(&mut early, V8), [2]);
    early.write_all(&[2]).unwrap();
    for _ in 0..5 {
        let mut stream = rig.connect(&security);
        assert_eq!(log_in(&mut stream, "Secret"), 1);
        assert_eq!(text(&mut stream), "the password is wrong");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the connection has ended");
    }
    let mut late = rig.connect(&security);
    assert!(greet(&mut late, V8).is_empty());
    let reason = text(&mut late);
    assert!(reason.starts_with("too many log-ins failed; try again in "), "{reason}");
    assert_eq!(answer(&mut early, "secret"), 1, "a log-in that began before is refused, too");
    assert!(text(&mut early).starts_with("too many"));
    assert_eq!(rig.server.report().refused_logins, 7);
    // Another server's passwords are not affected.
    let mut other = rig.connect(&Security::passwords(passwords()));
    assert_eq!(log_in(&mut other, "secret"), 0);
    rig.check(other);
}

#[test]
fn test_password_for_viewing_shows_the_screen_and_sends_no_input() {
    let mut rig = Rig::new();
    let security = Security::passwords(passwords());
    let mut viewing = rig.connect(&security);
    assert_eq!(log_in(&mut viewing, "look"), 0);
    let mut viewer = Client::start(Box::new(viewing));
    let mut full = rig.connect(&security);
    assert_eq!(log_in(&mut full, "secret"), 0);
    let mut user = Client::start(Box::new(full));
    viewer.key(u32::from(b'a'), true);
    viewer.pointer(1, 5, 5);
    rig.guest.draw();
    // The server has handled the messages before the request.
    viewer.await_picture(64, 48, &rig.guest.pixels);
    user.key(u32::from(b'b'), true);
    assert_eq!(rig.guest.keys(1), [[0x30, 0]]);
}

#[test]
fn test_passwords_are_checked_when_they_are_set() {
    let error = |full: &str, view| Passwords::new(full, view).unwrap_err();
    assert!(matches!(error("", None), PasswordError::Invalid));
    assert!(matches!(error(&"x".repeat(257), None), PasswordError::Invalid));
    assert!(matches!(error("a\tb", None), PasswordError::Invalid));
    assert!(matches!(error("a", Some("a")), PasswordError::Same));
    assert!(Passwords::new(&"x".repeat(256), None).unwrap().is_longer_than_vnc());
    let missing = Passwords::read(Path::new("/nonexistent/password"), None).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/password: "), "{missing}");
}

/// The files of a certificate, made for the name `localhost` by `openssl req -x509`.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

fn tls() -> TlsConfig {
    TlsConfig::load(&file("cert.pem"), &file("key.pem")).unwrap()
}

/// Chooses a way to log in of VeNCrypt, and begins TLS.
fn start_tls(
    mut stream: UnixStream,
    offered: &[u32],
    chosen: u32,
) -> StreamOwned<ClientConnection, UnixStream> {
    assert_eq!(greet(&mut stream, V8), [19]);
    stream.write_all(&[19]).unwrap();
    assert_eq!(read(&mut stream, 2), [0, 2]);
    stream.write_all(&[0, 2]).unwrap();
    assert_eq!(read(&mut stream, 2), [0, offered.len() as u8]);
    let types: Vec<u32> = offered.iter().map(|_| word(&mut stream)).collect();
    assert_eq!(types, offered);
    stream.write_all(&chosen.to_be_bytes()).unwrap();
    assert_eq!(read(&mut stream, 1), [1]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

#[test]
fn test_viewers_log_in_by_tls_in_each_way() {
    let mut rig = Rig::new();
    let security = Security::none().with_tls(tls());
    let mut none = start_tls(rig.connect(&security), &[260], 260);
    assert_eq!(word(&mut none), 0);
    rig.check(none);

    let security = Security::passwords(passwords()).with_tls(tls());
    let mut vnc = start_tls(rig.connect(&security), &[262, 261], 261);
    assert_eq!(answer(&mut vnc, "secret"), 0);
    rig.check(vnc);

    let mut plain = start_tls(rig.connect(&security), &[262, 261], 262);
    plain.write_all(b"\0\0\0\x04\0\0\0\x06usersecret").unwrap();
    assert_eq!(word(&mut plain), 0);
    rig.check(plain);

    let mut wrong = start_tls(rig.connect(&security), &[262, 261], 262);
    wrong.write_all(b"\0\0\0\x04\0\0\0\x06userSecret").unwrap();
    assert_eq!(word(&mut wrong), 1);
    assert_eq!(text(&mut wrong), "the password is wrong");
}

#[test]
fn test_long_password_with_tls_is_never_cut_to_eight_bytes() {
    let mut rig = Rig::new();
    let passwords = Passwords::new("correct horse", None).unwrap();
    let security = Security::passwords(passwords).with_tls(tls());
    let mut short = start_tls(rig.connect(&security), &[262], 262);
    short.write_all(b"\0\0\0\0\0\0\0\x08correct ").unwrap();
    assert_eq!(word(&mut short), 1);
    let mut full = start_tls(rig.connect(&security), &[262], 262);
    full.write_all(b"\0\0\0\0\0\0\0\x0Dcorrect horse").unwrap();
    assert_eq!(word(&mut full), 0);
    rig.check(full);
}

#[test]
fn test_server_with_tls_refuses_what_is_not_encrypted() {
    let rig = Rig::new();
    let security = Security::none().with_tls(tls());
    let mut old = rig.connect(&security);
    assert_eq!(read(&mut old, 12), V8);
    old.write_all(V3).unwrap();
    assert_eq!(word(&mut old), 0);
    assert!(text(&mut old).contains("TLS"));
    let mut other = rig.connect(&security);
    assert_eq!(greet(&mut other, V8), [19]);
    other.write_all(&[1]).unwrap();
    assert_eq!(other.read(&mut [0]).unwrap(), 0);
    let mut early = rig.connect(&security);
    assert_eq!(greet(&mut early, V8), [19]);
    early.write_all(&[19, 0, 2, 0, 0, 1, 4, 0x16]).unwrap();
    let mut rest = Vec::new();
    // The end of the connection, or an error as bytes were not read.
    let _ = early.read_to_end(&mut rest);
    assert!(!rest.contains(&0x16));
    let mut noise = start_tls(rig.connect(&security), &[260], 260).sock;
    noise.write_all(&[0xFF; 100]).unwrap();
    let _ = noise.read_to_end(&mut rest);
}

#[test]
fn test_certificate_that_cannot_be_used_is_refused_with_its_file() {
    let error =
        |certificate: &Path, key: &Path| TlsConfig::load(certificate, key).unwrap_err().to_string();
    assert!(error(Path::new("/nonexistent"), &file("key.pem")).starts_with("/nonexistent: "));
    assert!(error(&file("key.pem"), &file("key.pem")).contains("no certificate"));
    assert!(error(&file("cert.pem"), &file("cert.pem")).contains("cert.pem: "));
}
