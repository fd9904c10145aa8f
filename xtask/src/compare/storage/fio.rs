//! fio in the guest: its job file, gates around the loads, and its results.
//!
//! A start of fio costs more than many requests, so one fio process runs all loads of a machine.
//! Before each load and after the last is a gate, where fio reports its arrival and waits. So
//! counters can be read directly before and after a load, and two machines can alternate.

use serde::{Deserialize, Serialize};

use super::cases::Case;

/// The job file and the gates' script, in the guest's memory, not on the measured disk.
pub(super) const JOB: &str = "/run/job.fio";
pub(super) const GATE: &str = "/run/gate";
pub(super) const GATE_SCRIPT: &str = "echo gate > /run/said; cat /run/go\n";

/// Starts fio and returns when it is at the first gate. Opening one end of a pipe waits for the
/// other.
pub(super) const START: [&str; 3] = [
    "sh",
    "-c",
    "mknod /run/said p; mknod /run/go p; (fio --eta=never --output-format=terse --terse-version=3 \
    --output=/run/result /run/job.fio > /run/out 2>&1; echo ended with $? > /run/said) > \
    /run/shell 2>&1 & head -n1 /run/said",
];

/// Opens the gate, and returns when fio is at the next one or has ended. The command is the same
/// for every load, because each character on the serial port is an exit.
pub(super) const THROUGH: [&str; 3] = ["sh", "-c", "echo > /run/go; head -n1 /run/said"];

/// The output of [`START`] and [`THROUGH`].
pub(super) const AT_GATE: &str = "gate";
pub(super) const ENDED_WELL: &str = "ended with 0";

/// Saves the input of [`Measured::parse`], a line for each load.
pub(super) const GATHER: [&str; 3] =
    ["sh", "-c", "grep ';load;' /run/result | cut '-d;' -f5,6,9,18,47,50,59 > /run/lines"];

/// Returns a command that prints one of these lines, counted from 0, or nothing after the last. One
/// line per command, and short output of [`super::super::machine::Machine::interrupts`], because
/// QEMU loses bytes of its serial port if hundreds arrive while no program reads.
pub(super) fn show(line: usize) -> [String; 4] {
    ["sed".to_owned(), "-n".to_owned(), format!("{}p", line + 1), "/run/lines".to_owned()]
}

/// Prints the reason why fio did not reach a gate.
pub(super) const EXPLAIN: [&str; 3] = ["sh", "-c", "cat /run/out /run/result"];

/// Returns fio's job file for these loads on a disk, with a gate before each and after the last.
pub(super) fn jobs<'a>(cases: impl Iterator<Item = &'a Case>, disk: &str) -> String {
    // Each job is a thread, so that no memory is copied for it.
    let mut text = String::from(
        "[global]\nstonewall\nthread\npercentile_list=99\nioengine=libaio\ndirect=1\n\
        group_reporting\nnorandommap\nrandrepeat=1\n",
    );
    let gate = format!("[gate]\nioengine=null\nsize=4k\nrw=read\nexec_prerun=sh {GATE}\n");
    for case in cases {
        text.push_str(&gate);
        text.push_str(&load(case, disk));
    }
    text.push_str(&gate);
    text
}

/// Returns a load's section of the job file. Every run has the same locations in the same order.
fn load(case: &Case, disk: &str) -> String {
    format!(
        "[load]\nfilename={disk}\nrw={}\nbs={}\niodepth={}\nnumjobs={}\nnumber_ios={}\n",
        case.pattern,
        case.block,
        case.depth,
        case.jobs,
        case.requests / case.jobs,
    )
}

/// fio's measurements of a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Requests finished.
    pub(super) requests: f64,
    /// The duration in seconds.
    pub(super) seconds: f64,
    /// The 99th percentile of latency, in microseconds.
    pub(super) p99_us: f64,
}

impl Measured {
    /// Reads the fields of a result line (terse version 3): the error, then KiB, milliseconds and
    /// the first percentile of reads, then those of writes.
    pub(super) fn parse(line: &str, case: &Case) -> Result<Measured, String> {
        let nonsense = || format!("fio's result makes no sense: {line:?}");
        let fields: Vec<&str> = line.trim().split(';').collect();
        let [error, read_kib, read_ms, read_p99, write_kib, write_ms, write_p99] = fields[..]
        else {
            return Err(nonsense());
        };
        if error != "0" {
            return Err(format!("fio reports error {error}"));
        }
        let reads = case.pattern.ends_with("read");
        let (kib, ms, p99) =
            if reads { (read_kib, read_ms, read_p99) } else { (write_kib, write_ms, write_p99) };
        let number = |text: &str| text.parse::<f64>().map_err(|_| nonsense());
        // The format is `99.000000%=1234`.
        let (percentile, p99) = p99.split_once("%=").ok_or_else(nonsense)?;
        if number(percentile)? != 99.0 {
            return Err(nonsense());
        }
        let requests = number(kib)? * 1024.0 / f64::from(case.block);
        if requests != f64::from(case.requests) {
            return Err(format!("fio did {requests} requests, {} were wanted", case.requests));
        }
        Ok(Measured { requests, seconds: number(ms)? / 1e3, p99_us: number(p99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case { pattern: "randwrite", block: 4096, depth: 1, jobs: 1, requests: 100 };

    #[test]
    fn test_result_of_writes_is_read_from_the_second_half() {
        let found = Measured::parse("0;0;0;0%=0;400;250;99.000000%=1500\n", &CASE).unwrap();
        assert_eq!(found, Measured { requests: 100.0, seconds: 0.25, p99_us: 1500.0 });
    }

    #[test]
    fn test_result_with_an_error_or_too_few_requests_is_refused() {
        assert!(
            Measured::parse("5;0;0;0%=0;400;250;99.000000%=1500", &CASE)
                .unwrap_err()
                .contains("error 5")
        );
        let error = Measured::parse("0;0;0;0%=0;396;250;99.000000%=1500", &CASE).unwrap_err();
        assert!(error.contains("99 requests"), "{error}");
        assert!(Measured::parse("0;0;0;0%=0;400;250;95.000000%=1500", &CASE).is_err());
        assert!(Measured::parse("", &CASE).is_err());
    }
}
