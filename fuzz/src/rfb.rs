//! The stream of bytes of a viewer: log-in and messages. Rules that must hold after every message
//! are checked, and that messages do not depend on how the stream is cut.

use synthvm_display::protocol::{
    Authenticator, CHALLENGE_BYTES, ClientMessage, ClientReader, Handshake, MAX_ENCODINGS,
    PixelWriter, Refusal, SecurityType, Step, response,
};

use crate::input::Input;

const PASSWORD: &[u8] = b"a";

/// Secrets whose ways to log in the input chooses.
struct Secrets(u8);

impl Authenticator for Secrets {
    type Permission = ();

    fn offered(&self) -> Result<Vec<SecurityType>, Refusal> {
        match self.0 % 6 {
            0 => Ok(vec![SecurityType::None]),
            1 => Ok(vec![SecurityType::Vnc]),
            2 => Ok(vec![SecurityType::TlsNone]),
            3 => Ok(vec![SecurityType::TlsPlain, SecurityType::TlsVnc]),
            4 => Ok(vec![SecurityType::TlsPlain]),
            _ => Err(Refusal("later".to_owned())),
        }
    }

    fn without_login(&self) {
        assert!(matches!(self.0 % 6, 0 | 2), "a password is needed");
    }

    fn check_response(
        &self,
        challenge: &[u8; CHALLENGE_BYTES],
        given: &[u8; CHALLENGE_BYTES],
    ) -> Result<(), Refusal> {
        check(response(PASSWORD, challenge) == *given)
    }

    fn check_password(&self, password: &[u8]) -> Result<(), Refusal> {
        assert!(password.len() <= 1024);
        check(password == PASSWORD)
    }
}

fn check(is_right: bool) -> Result<(), Refusal> {
    if is_right { Ok(()) } else { Err(Refusal("wrong".to_owned())) }
}

/// Layout: the ways to log in, flags, the size of pieces, and the stream. Flag 1: the viewer has
/// logged in already. Flag 2: it has nine buttons.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (ways, flags, piece) = (input.u8(), input.u8(), usize::from(input.u8()).max(1));
    let stream = input.bytes(usize::MAX);
    let rest = if flags & 1 == 0 { log_in(&Secrets(ways), stream) } else { Some(stream) };
    let Some(rest) = rest else { return };
    let whole = read(rest, flags & 2 != 0, rest.len().max(1));
    assert_eq!(read(rest, flags & 2 != 0, piece), whole, "pieces do not matter");
}

/// Returns the bytes after the log-in. `None`: the viewer has not logged in.
fn log_in<'a>(secrets: &Secrets, mut stream: &'a [u8]) -> Option<&'a [u8]> {
    let mut handshake = Handshake::new([7; CHALLENGE_BYTES]);
    let mut out = Vec::new();
    for _ in 0..10 {
        let before = out.len();
        let (step, length) = handshake.handle(stream, &mut out, secrets).ok()?;
        stream = &stream[length..];
        match step {
            Step::Wait => {
                assert_eq!((length, out.len()), (0, before), "no progress has no effect");
                return None;
            }
            Step::Continue | Step::StartTls => {}
            Step::LoggedIn(()) => return Some(stream),
            Step::Refused(_) => return None,
        }
    }
    panic!("a log-in has at most ten steps");
}

/// Returns all messages of a stream that arrives in pieces, and the error at its end.
fn read(stream: &[u8], has_nine_buttons: bool, piece: usize) -> (Vec<ClientMessage>, String) {
    let mut reader = ClientReader::default();
    reader.has_extended_buttons = has_nine_buttons;
    let (mut messages, mut arrived) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        arrived.extend_from_slice(piece);
        loop {
            match reader.read(&arrived) {
                Ok(Some((message, length))) => {
                    assert!((1..=arrived.len()).contains(&length));
                    arrived.drain(..length);
                    message.iter().for_each(check_message);
                    messages.extend(message);
                }
                Ok(None) => break,
                Err(error) => return (messages, error.to_string()),
            }
        }
    }
    (messages, String::new())
}

fn check_message(message: &ClientMessage) {
    match message {
        ClientMessage::SetPixelFormat(format) => {
            let writer = PixelWriter::new(*format);
            for pixel in [0, 0x00FF_FFFF, 0x0012_3456] {
                let value = writer.value(pixel);
                assert!(format.bytes() == 4 || value >> (8 * format.bytes()) == 0);
                let mut out = Vec::new();
                writer.put(value, &mut out);
                writer.put_compact(value, &mut out);
                writer.put_tight(value, &mut out);
                let sizes = format.bytes() + writer.compact_size() + writer.tight_size();
                assert_eq!(out.len(), sizes);
            }
        }
        ClientMessage::SetEncodings(encodings) => assert!(encodings.len() <= MAX_ENCODINGS),
        ClientMessage::Fence { payload, .. } => assert!(payload.len() <= 64),
        _ => {}
    }
}
