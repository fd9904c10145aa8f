//! The log-in of a viewer. Source: RFC 6143, 7.1 to 7.3; VeNCrypt: rfbproto.

use super::client::ProtocolError;
use super::vnc_auth::CHALLENGE_BYTES;

/// The server's version, which is the first message.
pub const VERSION: [u8; 12] = *b"RFB 003.008\n";

/// The security type of VeNCrypt, which has types of its own.
const VENCRYPT: u8 = 19;
/// The version of VeNCrypt.
const VENCRYPT_VERSION: [u8; 2] = [0, 2];
/// Maximum number of bytes of a user's name or password.
const MAX_CREDENTIAL: u32 = 1024;

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityType {
    /// No log-in.
    None = 1,
    /// VNC authentication.
    Vnc = 2,
    /// TLS with a certificate, and no log-in.
    TlsNone = 260,
    /// VNC authentication within TLS.
    TlsVnc = 261,
    /// A user's name and a password within TLS.
    TlsPlain = 262,
}

/// The reason to refuse a viewer, which it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// The secrets of a server.
pub trait Authenticator {
    /// What a viewer may do that has logged in.
    type Permission;

    /// Returns the ways to log in: all with TLS, or all without.
    ///
    /// # Errors
    /// No log-in is possible now.
    fn offered(&self) -> Result<Vec<SecurityType>, Refusal>;

    /// Returns what a viewer may do without a log-in.
    fn without_login(&self) -> Self::Permission;

    /// Checks the response to a challenge.
    ///
    /// # Errors
    /// It is wrong, or no log-in is possible now.
    fn check_response(
        &self,
        challenge: &[u8; CHALLENGE_BYTES],
        response: &[u8; CHALLENGE_BYTES],
    ) -> Result<Self::Permission, Refusal>;

    /// Checks a password.
    ///
    /// # Errors
    /// It is wrong, or no log-in is possible now.
    fn check_password(&self, password: &[u8]) -> Result<Self::Permission, Refusal>;
}

/// What is next in a log-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<P> {
    /// More bytes are needed.
    Wait,
    /// The next message may be read.
    Continue,
    /// TLS begins after the bytes that were written so far. No byte of it may have arrived.
    StartTls,
    /// The viewer has logged in. The next message of the server is its first.
    LoggedIn(P),
    /// The viewer is refused. The connection ends when it has read the reason.
    Refused(String),
}

/// The log-in of a viewer. The server has sent [`VERSION`].
#[derive(Debug)]
pub struct Handshake<P> {
    state: State<P>,
    /// The minor version: 3, 7 or 8.
    minor: u8,
    offered: Vec<SecurityType>,
    challenge: [u8; CHALLENGE_BYTES],
}

#[derive(Debug)]
enum State<P> {
    Version,
    Type,
    VencryptVersion,
    VencryptType,
    Secured(SecurityType),
    Response,
    Plain,
    Init(Option<P>),
}

impl<P> Handshake<P> {
    /// Returns a log-in with a challenge of random bytes.
    pub fn new(challenge: [u8; CHALLENGE_BYTES]) -> Self {
        Self { state: State::Version, minor: 8, offered: Vec::new(), challenge }
    }

    /// Reads a message at the start of `bytes`, and appends the answer to `out`. Returns the
    /// length of the message.
    ///
    /// # Errors
    /// [`ProtocolError`]: the viewer does not speak the protocol.
    pub fn handle<A: Authenticator<Permission = P>>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        authenticator: &A,
    ) -> Result<(Step<P>, usize), ProtocolError> {
        match &mut self.state {
            State::Version => match bytes.first_chunk::<12>() {
                Some(version) => Ok((self.version(version, out, authenticator)?, 12)),
                // A client of another protocol gets no time to guess.
                None if !VERSION.starts_with(&bytes[..bytes.len().min(4)]) => {
                    Err(ProtocolError::Version)
                }
                None => Ok((Step::Wait, 0)),
            },
            State::Type => match bytes {
                [VENCRYPT, ..] if self.has_tls() => {
                    out.extend(VENCRYPT_VERSION);
                    self.state = State::VencryptVersion;
                    Ok((Step::Continue, 1))
                }
                [kind, ..] => {
                    let chosen = self.choose(u32::from(*kind))?;
                    Ok((self.secure(chosen, out, authenticator), 1))
                }
                [] => Ok((Step::Wait, 0)),
            },
            State::VencryptVersion => match bytes {
                [major, minor, ..] => Ok((self.vencrypt([*major, *minor], out), 2)),
                _ => Ok((Step::Wait, 0)),
            },
            State::VencryptType => match bytes.first_chunk() {
                Some(kind) => {
                    let chosen = self.choose(u32::from_be_bytes(*kind))?;
                    out.push(1);
                    self.state = State::Secured(chosen);
                    Ok((Step::StartTls, 4))
                }
                None => Ok((Step::Wait, 0)),
            },
            State::Secured(chosen) => {
                let chosen = *chosen;
                Ok((self.secure(chosen, out, authenticator), 0))
            }
            State::Response => match bytes.first_chunk() {
                Some(response) => {
                    let checked = authenticator.check_response(&self.challenge, response);
                    Ok((self.result(checked, out), CHALLENGE_BYTES))
                }
                None => Ok((Step::Wait, 0)),
            },
            State::Plain => match plain(bytes)? {
                Some((password, length)) => {
                    let checked = authenticator.check_password(password);
                    Ok((self.result(checked, out), length))
                }
                None => Ok((Step::Wait, 0)),
            },
            State::Init(permission) => match (bytes, permission.take()) {
                // The flag that others may stay is ignored: no viewer ends another one.
                ([_, ..], Some(permission)) => Ok((Step::LoggedIn(permission), 1)),
                (_, permission) => {
                    self.state = State::Init(permission);
                    Ok((Step::Wait, 0))
                }
            },
        }
    }

    fn version<A: Authenticator<Permission = P>>(
        &mut self,
        version: &[u8; 12],
        out: &mut Vec<u8>,
        authenticator: &A,
    ) -> Result<Step<P>, ProtocolError> {
        let minor = minor_version(version).ok_or(ProtocolError::Version)?;
        self.minor = match minor {
            7 => 7,
            8.. => 8,
            _ => 3,
        };
        self.offered = match authenticator.offered() {
            Ok(offered) => offered,
            Err(refusal) => return Ok(self.refuse_all(refusal, out)),
        };
        if self.minor == 3 {
            let Some(chosen) = self.offered.iter().find(|one| (**one as u16) < 256).copied() else {
                let refusal = Refusal("this server needs TLS, which RFB 3.3 does not have".into());
                return Ok(self.refuse_all(refusal, out));
            };
            out.extend((chosen as u32).to_be_bytes());
            return Ok(self.secure(chosen, out, authenticator));
        }
        match self.has_tls() {
            true => out.extend([1, VENCRYPT]),
            false => {
                out.push(u8::try_from(self.offered.len()).unwrap_or(0));
                out.extend(self.offered.iter().map(|one| *one as u8));
            }
        }
        self.state = State::Type;
        Ok(Step::Continue)
    }

    fn vencrypt(&mut self, version: [u8; 2], out: &mut Vec<u8>) -> Step<P> {
        if version != VENCRYPT_VERSION {
            out.push(0xFF);
            let [major, minor] = version;
            return Step::Refused(format!("version {major}.{minor} of VeNCrypt"));
        }
        out.push(0);
        out.push(u8::try_from(self.offered.len()).unwrap_or(0));
        out.extend(self.offered.iter().flat_map(|one| (*one as u32).to_be_bytes()));
        self.state = State::VencryptType;
        Step::Continue
    }

    /// Begins the chosen way to log in. TLS has begun, if it is part of it.
    fn secure<A: Authenticator<Permission = P>>(
        &mut self,
        chosen: SecurityType,
        out: &mut Vec<u8>,
        authenticator: &A,
    ) -> Step<P> {
        match chosen {
            SecurityType::None | SecurityType::TlsNone => {
                if self.minor == 8 {
                    out.extend(0_u32.to_be_bytes());
                }
                self.state = State::Init(Some(authenticator.without_login()));
            }
            SecurityType::Vnc | SecurityType::TlsVnc => {
                out.extend(self.challenge);
                self.state = State::Response;
            }
            SecurityType::TlsPlain => self.state = State::Plain,
        }
        Step::Continue
    }

    fn result(&mut self, checked: Result<P, Refusal>, out: &mut Vec<u8>) -> Step<P> {
        match checked {
            Ok(permission) => {
                out.extend(0_u32.to_be_bytes());
                self.state = State::Init(Some(permission));
                Step::Continue
            }
            Err(Refusal(reason)) => {
                out.extend(1_u32.to_be_bytes());
                if self.minor == 8 {
                    put_text(&reason, out);
                }
                Step::Refused(reason)
            }
        }
    }

    /// Refuses the viewer in place of the ways to log in.
    fn refuse_all(&mut self, Refusal(reason): Refusal, out: &mut Vec<u8>) -> Step<P> {
        match self.minor {
            3 => out.extend(0_u32.to_be_bytes()),
            _ => out.push(0),
        }
        put_text(&reason, out);
        Step::Refused(reason)
    }

    fn choose(&self, kind: u32) -> Result<SecurityType, ProtocolError> {
        let known = self.offered.iter().find(|one| **one as u32 == kind);
        known.copied().ok_or(ProtocolError::Security(kind))
    }

    fn has_tls(&self) -> bool {
        self.offered.iter().any(|one| *one as u16 >= 256)
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Returns the minor version of `RFB 003.MINOR`, or 8 for a later major version.
fn minor_version(version: &[u8; 12]) -> Option<u32> {
    let text = std::str::from_utf8(version).ok()?;
    let (major, minor) = text.strip_prefix("RFB ")?.strip_suffix('\n')?.split_once('.')?;
    let number = |text: &str| -> Option<u32> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    match (number(major)?, number(minor)?) {
        (..3, _) => None,
        (3, minor) => Some(minor),
        (4.., _) => Some(8),
    }
}

/// Returns the password and the length of a message with name and password. The name is ignored.
fn plain(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let Some((lengths, rest)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
    let [n3, n2, n1, n0, p3, p2, p1, p0] = *lengths;
    let lengths = [[n3, n2, n1, n0], [p3, p2, p1, p0]].map(u32::from_be_bytes);
    if let Some(length) = lengths.iter().find(|length| **length > MAX_CREDENTIAL) {
        return Err(ProtocolError::TooLong(u64::from(*length)));
    }
    let [name, password] = lengths.map(|length| length as usize);
    Ok(rest.get(name..name + password).map(|text| (text, 8 + name + password)))
}
