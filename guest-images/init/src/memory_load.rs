//! The program `memory-load` of a guest: takes memory and gives it back, again and again, and
//! checks what it wrote.

use std::path::Path;
use std::time::Duration;

use crate::Outcome;

/// While this file does not exist, the program continues.
const STOP: &str = "/run/memory-load.stop";

/// Bytes that are taken at once.
const CHUNK: usize = 4 << 20;

/// Bytes of a page.
const PAGE: usize = 4096;

/// Pause between two chunks, in which others can run.
const PAUSE: Duration = Duration::from_millis(20);

/// Holds from a half of `mebibytes` to all of it, with random content, until the file
/// /run/memory-load.stop exists. Returns how often it had all.
///
/// # Errors
/// A page has another content than was written.
pub fn run(arguments: &[String]) -> Outcome<String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [mebibytes] = words[..] else { return Err("memory-load MEBIBYTES".to_owned()) };
    let mebibytes: usize = mebibytes.parse().map_err(|_| format!("no number: {mebibytes}"))?;
    let most = (mebibytes << 20) / CHUNK;
    let mut chunks: Vec<(u64, Vec<u8>)> = Vec::new();
    let (mut rounds, mut number) = (0_u64, 0_u64);
    while !Path::new(STOP).exists() {
        while chunks.len() < most {
            number += 1;
            chunks.push((number, chunk(number)));
            std::thread::sleep(PAUSE);
        }
        rounds += 1;
        for (number, bytes) in &chunks {
            check(*number, bytes)?;
        }
        // The older half, so that new pages come from all of memory.
        chunks.drain(..most.div_ceil(2));
    }
    Ok(format!("{rounds} rounds"))
}

fn word(number: u64, page: usize) -> u64 {
    (number << 32 | page as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Returns a chunk in which each page has words of its own.
fn chunk(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; CHUNK];
    for (page, bytes) in bytes.chunks_mut(PAGE).enumerate() {
        // Fresh memory is zero, wherever the kernel got it from.
        let word = word(number, page).to_le_bytes();
        bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&word));
    }
    bytes
}

fn check(number: u64, bytes: &[u8]) -> Outcome<()> {
    for (page, bytes) in bytes.chunks(PAGE).enumerate() {
        let word = word(number, page).to_le_bytes();
        if bytes.chunks(8).any(|part| part != word) {
            return Err(format!("page {page} of chunk {number} has changed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_check_finds_a_changed_word() {
        let mut bytes = chunk(7);
        assert_eq!(check(7, &bytes), Ok(()));
        bytes[5 * PAGE + 9] ^= 1;
        assert!(check(7, &bytes).unwrap_err().contains("page 5 of chunk 7"));
        assert!(check(8, &chunk(7)).is_err());
    }
}
