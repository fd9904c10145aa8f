//! The programs of the host at the other end of the guest's connections: one for bytes from the
//! guest, one for bytes to it, and one that returns bytes.

use std::io::{self, Read, Write};
use std::thread;

/// Ports of the programs.
pub(super) const SINK: u32 = 5100;
pub(super) const SOURCE: u32 = 5101;
pub(super) const ECHO: u32 = 5102;

/// Bytes of each read and write, as in the guest.
const BLOCK: usize = 64 << 10;

/// Starts the program of `port` on a thread. It serves the connections that `accept` returns, each
/// on a thread, until the process ends.
pub(super) fn serve<S: Read + Write + Send + 'static>(
    port: u32,
    mut accept: impl FnMut() -> io::Result<S> + Send + 'static,
) {
    let program = match port {
        SINK => take,
        SOURCE => give,
        _ => echo,
    };
    thread::spawn(move || {
        while let Ok(stream) = accept() {
            // The guest notices an error: its bytes are missing.
            thread::spawn(move || program(stream));
        }
    });
}

/// Reads all bytes, and sends one when they have ended.
fn take<S: Read + Write>(mut stream: S) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while stream.read(&mut block)? > 0 {}
    stream.write_all(&[1])
}

/// Reads a number, and sends as many bytes.
fn give<S: Read + Write>(mut stream: S) -> io::Result<()> {
    let mut number = [0; 8];
    stream.read_exact(&mut number)?;
    let (block, mut left) = (vec![1; BLOCK], u64::from_le_bytes(number));
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        stream.write_all(&block[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// Returns all bytes.
fn echo<S: Read + Write>(mut stream: S) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(()),
            length => stream.write_all(&block[..length])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    /// Returns the guest's end of a connection to the program of `port`.
    fn connect(port: u32) -> UnixStream {
        let (guest, host) = UnixStream::pair().unwrap();
        let (sender, hosts) = mpsc::channel();
        sender.send(host).unwrap();
        serve(port, move || hosts.recv().map_err(io::Error::other));
        guest
    }

    #[test]
    fn test_sink_confirms_the_end_and_source_gives_what_was_asked() {
        let mut sink = connect(SINK);
        sink.write_all(&vec![0; 3 * BLOCK]).unwrap();
        sink.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        assert_eq!(sink.read_to_end(&mut all).unwrap(), 1);
        let mut source = connect(SOURCE);
        let length = 2 * BLOCK as u64 + 7;
        source.write_all(&length.to_le_bytes()).unwrap();
        all.clear();
        assert_eq!(source.read_to_end(&mut all).unwrap() as u64, length);
        let mut echo = connect(ECHO);
        echo.write_all(b"abc").unwrap();
        let mut back = [0; 3];
        echo.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"abc");
    }
}
