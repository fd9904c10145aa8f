//! Instruction counts by callgrind, which are exact even on a busy machine.
//!
//! A bench runs itself under valgrind, which counts only inside functions with `bench_counted` in
//! their names. Those functions must not be inlined.

use std::process::Command;

/// The environment variable with the path of valgrind.
const VALGRIND: &str = "SYNTHVM_VALGRIND";

/// Runs this program with the arguments `words` under callgrind. Returns the instructions inside
/// the counted functions. `None`: there is no valgrind.
///
/// # Errors
/// Valgrind or the program failed, or no instructions were counted.
pub(crate) fn instructions(words: &[String]) -> Result<Option<u64>, String> {
    let valgrind = std::env::var_os(VALGRIND).unwrap_or_else(|| "valgrind".into());
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.arg("--toggle-collect=*bench_counted*");
    let output = match command.arg(own).args(words).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("starting valgrind: {error}")),
    };
    let report = String::from_utf8_lossy(&output.stderr);
    // The line has the form `==pid== Collected : 123`.
    let mut lines = report.lines();
    let collected =
        lines.find_map(|line| line.split_once("Collected :")?.1.trim().parse::<u64>().ok());
    match collected {
        Some(count) if output.status.success() && count != 0 => Ok(Some(count)),
        _ => Err(format!("valgrind ended with {}:\n{report}", output.status)),
    }
}
