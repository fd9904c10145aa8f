//! A process that is killed while it writes loses no data that it acknowledged.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::super::*;
use super::image;
use crate::conformance::{one, run};
use crate::{IoBuffer, Operation, Request};

const CAPACITY: u64 = 4 << 20;
const SECTORS: u64 = CAPACITY / 512;
const ENV: &str = "SYNTHVM_STORAGE_TEST_CRASH";

/// A record in the form in which the writer acknowledges it: sector and stamp.
const RECORD: usize = 16;

fn content(sector: u64, stamp: u64) -> Vec<u8> {
    (0..32).flat_map(|_| [sector.to_le_bytes(), stamp.to_le_bytes()].concat()).collect()
}

fn options(words: &str) -> RawOptions {
    let (io, cache) = words.split_once(' ').unwrap();
    let options = serde_json::json!([cache, io]);
    let (cache, io) = serde_json::from_value(options).unwrap();
    RawOptions { read_only: false, cache, io }
}

/// The process that is killed, and no test of its own. It writes batches of distinct sectors, each
/// with a higher stamp, and reports each batch on its standard output immediately after it is done.
#[test]
fn test_crash_helper_process() {
    let Some(what) = std::env::var_os(ENV) else { return };
    let what = what.into_string().unwrap();
    let (path, words) = what.split_once(':').unwrap();
    let raw = RawFile::open_with(Path::new(path), &options(words)).unwrap();
    let mut queue = raw.queue().unwrap();
    let mut random = 0x5EED_u64;
    let mut out = std::io::stdout();
    for stamp in 1.. {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let sector = |at: u64| ((random >> 33) + at * 37) % SECTORS;
        let batch = (0..16).map(|at| {
            Request::new(
                at,
                Operation::Write { fua: at == 15 },
                sector(at) * 512,
                512,
                IoBuffer::from_vec(content(sector(at), stamp)),
            )
        });
        let batch = run(&mut *queue, batch.collect());
        assert!(batch.iter().all(|done| done.result.is_ok()));
        let records: Vec<u8> = (0..16)
            .flat_map(|at| [sector(at).to_le_bytes(), stamp.to_le_bytes()].concat())
            .collect();
        // The test harness has printed lines before, so this word marks the first record.
        let word = if stamp == 1 { &b"\0RECORDS"[..] } else { &[] };
        if out.write_all(&[word, &records].concat()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn nothing_acknowledged_is_lost(words: &str) {
    for acknowledged in [1, 5, 60, 300] {
        let file = image(CAPACITY);
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "raw::tests::crash::test_crash_helper_process"])
            .env(ENV, format!("{}:{words}", file.as_path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = writer.stdout.take().unwrap();
        let mut seen = Vec::new();
        let mut chunk = [0; 4096];
        let mut start = None;
        while start.is_none_or(|start| seen.len() - start < acknowledged * 16 * RECORD) {
            let count = output.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the writer ended by itself");
            seen.extend_from_slice(&chunk[..count]);
            start = start
                .or_else(|| seen.windows(8).position(|word| word == b"\0RECORDS").map(|at| at + 8));
        }
        // SIGKILL, at an arbitrary point of its work.
        writer.kill().unwrap();
        output.read_to_end(&mut seen).unwrap();
        writer.wait().unwrap();
        let mut last = HashMap::new();
        for record in seen[start.unwrap()..].chunks_exact(RECORD) {
            let number = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
            last.insert(number(0), number(8));
        }
        assert!(last.len() >= 16);
        // The lock ended with the process.
        let raw = RawFile::open_with(file.as_path(), &options(words)).unwrap();
        let mut queue = raw.queue().unwrap();
        for (sector, stamp) in last {
            let bytes = one(&mut *queue, Operation::Read, sector * 512, vec![0; 512]).unwrap();
            let found = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
            // A later batch may have begun.
            assert!(found >= stamp, "{words}: sector {sector} was {stamp}, and is {found} again");
            assert_eq!(bytes, content(sector, found), "{words}: sector {sector} is torn");
        }
    }
}

#[test]
fn test_killed_writer_loses_nothing_acknowledged_by_sync() {
    nothing_acknowledged_is_lost("sync writeback");
    nothing_acknowledged_is_lost("sync none");
}

#[test]
fn test_killed_writer_loses_nothing_acknowledged_by_threads() {
    nothing_acknowledged_is_lost("threads writeback");
    nothing_acknowledged_is_lost("threads none");
}

#[test]
fn test_killed_writer_loses_nothing_acknowledged_by_uring() {
    nothing_acknowledged_is_lost("auto writeback");
    nothing_acknowledged_is_lost("auto none");
}
