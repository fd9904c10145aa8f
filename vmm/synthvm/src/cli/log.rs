//! The program's log, on standard error, so that standard output has only the console.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that sets levels by module, for example `synthvm_machine::hyperv=debug,info`. It
/// overrides `-v`.
const VARIABLE: &str = "SYNTHVM_LOG";

/// Starts logging. A filter with a syntax error is reported and ignored.
pub(super) fn start(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let wanted = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let (filter, mistake) = match wanted.as_deref().map(EnvFilter::try_new) {
        None => (EnvFilter::new(level), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(level), Some(error)),
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    // A program that uses this library may have its own logger.
    let _ = subscriber.with_target(verbose > 1).try_init();
    if let Some(error) = mistake {
        tracing::warn!("{VARIABLE} is invalid and ignored: {error}");
    }
}
