//! A VNC client for tests, and gvnccapture, a real one that captures the screen.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use des::Des;
use des::cipher::{Array, BlockCipherEncrypt, KeyInit};

use crate::picture::Picture;

/// Captures the screen at a port of this machine with gvnccapture. `None`: it was refused.
///
/// # Errors
/// The program cannot be started, or writes no picture.
pub fn capture(
    gvnccapture: &Path,
    port: u16,
    password: &str,
    to: &Path,
) -> io::Result<Option<Picture>> {
    let (mut terminal, end) = open_terminal()?;
    let mut client = Command::new(gvnccapture)
        .arg(format!("127.0.0.1:{}", i32::from(port) - 5900))
        .arg(to)
        .stdin(end)
        .stdout(Stdio::null())
        .spawn()?;
    // It reads a password from a terminal only, and discards what was typed before it asks, when it
    // switches the echo off. One that is refused does not ask.
    while client.try_wait()?.is_none() {
        if !has_echo(&terminal)? {
            terminal.write_all(format!("{password}\n").as_bytes())?;
            break;
        }
        std::thread::yield_now();
    }
    if client.wait()?.success() { Picture::read(to).map(Some) } else { Ok(None) }
}

/// A viewer that sends input, and reads the screen on request only.
#[derive(Debug)]
pub struct Viewer {
    connection: TcpStream,
    /// The size of the screen at the log-in.
    width: u16,
    height: u16,
}

impl Viewer {
    /// Logs in by VNC authentication at a port of this machine.
    ///
    /// # Errors
    /// The password is wrong, or the server does not speak the protocol.
    pub fn log_in(port: u16, password: &str) -> io::Result<Self> {
        let connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut stream = &connection;
        expect(&read_from(stream, 12)?, b"RFB 003.008\n")?;
        stream.write_all(b"RFB 003.008\n")?;
        expect(&read_from(stream, 2)?, &[1, 2])?;
        stream.write_all(&[2])?;
        let mut challenge = read_from(stream, 16)?;
        encrypt(password.as_bytes(), &mut challenge);
        stream.write_all(&challenge)?;
        expect(&read_from(stream, 4)?, &[0; 4])?;
        stream.write_all(&[1])?;
        let init = read_from(stream, 24)?;
        let length = u32::from_be_bytes([init[20], init[21], init[22], init[23]]);
        read_from(stream, length as usize)?;
        let [width, height] = [0, 2].map(|at| u16::from_be_bytes([init[at], init[at + 1]]));
        Ok(Self { connection, width, height })
    }

    /// Presses and releases the keys of each symbol (X11's keysymdef.h), which for ASCII is the
    /// character.
    ///
    /// # Errors
    /// The server has closed the connection.
    pub fn type_symbols(&mut self, symbols: &[u32]) -> io::Result<()> {
        for symbol in symbols {
            self.key(*symbol, true)?;
            self.key(*symbol, false)?;
        }
        Ok(())
    }

    /// Presses or releases a key.
    ///
    /// # Errors
    /// The server has closed the connection.
    pub fn key(&mut self, symbol: u32, is_pressed: bool) -> io::Result<()> {
        let [a, b, c, d] = symbol.to_be_bytes();
        self.connection.write_all(&[4, u8::from(is_pressed), 0, 0, a, b, c, d])
    }

    /// Moves the pointer to a pixel. Bits of `buttons`: left, middle, right, wheel up, wheel down.
    ///
    /// # Errors
    /// The server has closed the connection.
    pub fn point(&mut self, buttons: u8, x: u16, y: u16) -> io::Result<()> {
        let ([x1, x0], [y1, y0]) = (x.to_be_bytes(), y.to_be_bytes());
        self.connection.write_all(&[5, buttons, x1, x0, y1, y0])
    }
}

impl Viewer {
    /// Requests the whole screen, and does not read the answer.
    ///
    /// # Errors
    /// The server has closed the connection.
    pub fn request(&mut self) -> io::Result<()> {
        let ([w1, w0], [h1, h0]) = (self.width.to_be_bytes(), self.height.to_be_bytes());
        self.connection.write_all(&[3, 0, 0, 0, 0, 0, w1, w0, h1, h0])
    }

    /// Requests the whole screen, and reads it, uncompressed. The screen must have the size that it
    /// had at the log-in.
    ///
    /// # Errors
    /// The server has closed the connection, or sends something else.
    pub fn picture(&mut self) -> io::Result<Picture> {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        let mut pixels = vec![[0; 3]; width * height];
        let mut missing = pixels.len();
        self.request()?;
        let mut stream = BufReader::new(&self.connection);
        while missing > 0 {
            let head = read_from(&mut stream, 4)?;
            expect(&head[..2], &[0, 0])?;
            for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
                let head = read_from(&mut stream, 12)?;
                expect(&head[8..], &[0; 4])?;
                let [left, top, wide, high] = [0, 2, 4, 6]
                    .map(|at| usize::from(u16::from_be_bytes([head[at], head[at + 1]])));
                for row in top..top + high {
                    let bytes = read_from(&mut stream, wide * 4)?;
                    let line = pixels.get_mut(row * width + left..row * width + left + wide);
                    let line = line.ok_or(io::ErrorKind::InvalidData)?;
                    for (pixel, [blue, green, red, _]) in line.iter_mut().zip(bytes.as_chunks().0) {
                        *pixel = [*red, *green, *blue];
                    }
                }
                missing = missing.saturating_sub(wide * high);
            }
        }
        Ok(Picture { width: self.width.into(), height: self.height.into(), pixels })
    }
}

/// Opens a terminal, and returns its controlling end and the end for a program.
fn open_terminal() -> io::Result<(File, File)> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/ptmx")?;
    let mut name = [0; 64];
    // SAFETY: the descriptor is open, and `name` has as many bytes as its length says.
    let failed = unsafe {
        libc::grantpt(terminal.as_raw_fd()) != 0
            || libc::unlockpt(terminal.as_raw_fd()) != 0
            || libc::ptsname_r(terminal.as_raw_fd(), name.as_mut_ptr(), name.len()) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    let name: Vec<u8> =
        name.into_iter().take_while(|char| *char != 0).map(|char| char as u8).collect();
    let end = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(OsStr::from_bytes(&name))?;
    Ok((terminal, end))
}

/// Returns whether a terminal shows what is typed.
fn has_echo(terminal: &File) -> io::Result<bool> {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is open, and the call fills in the settings if it succeeds.
    unsafe {
        if libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(settings.assume_init().c_lflag & libc::ECHO != 0)
    }
}

fn read_from(mut stream: impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn expect(bytes: &[u8], expected: &[u8]) -> io::Result<()> {
    match bytes == expected {
        true => Ok(()),
        false => Err(io::Error::other(format!("{bytes:?} instead of {expected:?}"))),
    }
}

/// Encrypts a challenge with a password, whose bits have the reverse order in each byte.
fn encrypt(password: &[u8], challenge: &mut [u8]) {
    let mut key = [0; 8];
    key.iter_mut().zip(password).for_each(|(bits, byte)| *bits = byte.reverse_bits());
    let cipher = Des::new(&Array(key));
    let (blocks, _) = challenge.as_chunks_mut::<8>();
    for block in blocks {
        let mut encrypted = Array(*block);
        cipher.encrypt_block(&mut encrypted);
        *block = encrypted.0;
    }
}
