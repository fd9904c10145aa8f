//! Streams bytes between two ports of a backend and checks each of them at the far end.
//!
//! ```text
//! cargo run --release -p synthvm-net --example soak -- 10G            # a switch of this process
//! cargo run --release -p synthvm-net --example soak -- 10G link       # a cable by a Unix socket
//! unshare -Urn sh -c 'soak 10G tap'                                   # two TAPs on a bridge
//! ```
//!
//! Frames are TCP segments of random sizes up to 64 KiB that the backend splits; the checksums and
//! the payload of what arrives are checked. The exit status is 1 if a byte was lost or wrong.

mod ports;
mod stream;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ports::Ports;
use stream::{Progress, receive, send};

const USAGE: &str = "usage: soak BYTES[K|M|G] [switch|link|tap]";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let bytes = arguments.next().and_then(|text| parse(&text));
    let kind = arguments.next().unwrap_or_else(|| "switch".to_owned());
    let Some(bytes) = bytes else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(bytes, &kind) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the closing line.
fn run(bytes: u64, kind: &str) -> Result<String, String> {
    let Ports { mut from, mut to } = Ports::open(kind)?;
    let progress = Progress::default();
    let start = Instant::now();
    let frames = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&mut *from, bytes, &progress));
        let receiver = scope.spawn(|| receive(&mut *to, bytes, &progress));
        let mut shown = Instant::now();
        while !receiver.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            if shown.elapsed() >= Duration::from_secs(5) {
                shown = Instant::now();
                println!("{}", report(progress.received(), bytes, start.elapsed()));
            }
        }
        let received = receiver.join().unwrap_or_else(|_| Err("the receiver panicked".into()));
        progress.end();
        let sent = sender.join().unwrap_or_else(|_| Err("the sender panicked".into()));
        received.and_then(|received| sent.map(|sent| (sent, received)))
    });
    let (sent, received) = frames?;
    let rate = report(bytes, bytes, start.elapsed());
    Ok(format!("{kind}: {rate}; {sent} frames sent, {received} received, every byte right"))
}

fn report(done: u64, all: u64, elapsed: Duration) -> String {
    let (done, all) = (done as f64 / 1e9, all as f64 / 1e9);
    let seconds = elapsed.as_secs_f64();
    format!("{done:.2} of {all:.2} GB in {seconds:.1} s, {:.2} Gbit/s", done * 8.0 / seconds)
}

/// Reads a number of bytes with a decimal suffix.
fn parse(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        b'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes != 0)
}
