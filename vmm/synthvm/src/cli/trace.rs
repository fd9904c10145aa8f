//! `--trace-bus`, and `synthvm trace`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use vmbus_host::VmBus;

use super::args::TraceVerb;
use super::exit::{Exit, Failure};
use crate::trace::{self, ShowError, TraceFile, TraceGuard};

/// Creates the file of a trace.
pub(super) fn create_trace(path: &Path) -> Result<TraceFile, Failure> {
    TraceFile::create(path).map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                "the file exists and is left alone; choose another name, or remove it".to_owned()
            }
            _ => format!("cannot create: {error}"),
        };
        Failure::text(Exit::Input, format!("--trace-bus {}: {text}", path.display()))
    })
}

/// Starts the trace of a bus.
pub(super) fn start_trace(file: TraceFile, bus: &VmBus) -> Result<TraceGuard, Failure> {
    let failed = |error: io::Error| Failure::text(Exit::Internal, format!("trace: {error}"));
    let (trace, guard) = file.start().map_err(failed)?;
    bus.set_trace(trace);
    Ok(guard)
}

pub(super) fn trace(verb: &TraceVerb) -> Result<Exit, Failure> {
    let TraceVerb::Show { file } = verb;
    let refuse = |text: String| Failure::text(Exit::Input, format!("{}: {text}", file.display()));
    let opened = File::open(file).map_err(|error| refuse(format!("cannot open: {error}")))?;
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = trace::show(BufReader::new(opened), &mut out);
    let flushed = out.flush().map_err(ShowError::Output);
    match shown.and(flushed) {
        Ok(()) => Ok(Exit::Success),
        // The reader closed the pipe: no error.
        Err(ShowError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(Exit::Success)
        }
        Err(ShowError::Output(error)) => {
            Err(Failure::text(Exit::Internal, format!("cannot write to standard output: {error}")))
        }
        Err(ShowError::Trace(error)) => Err(refuse(error.to_string())),
    }
}
