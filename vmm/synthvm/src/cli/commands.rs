//! The small commands: doctor, inspect, metrics, control.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::args::{ControlArgs, DoctorArgs, InspectArgs, MetricsArgs, Verb};
use super::exit::{Exit, Failure};
use crate::control::{Client, Request};
use crate::doctor::{self, Look};
use crate::inspect::{self, InspectReport, Style};

pub(super) fn doctor(args: &DoctorArgs) -> Result<Exit, Failure> {
    let report = doctor::probe(&args.kvm);
    let text = match args.json {
        true => json(&report, true)?,
        false => doctor::render(&report, if is_colourful() { Look::Colour } else { Look::Plain }),
    };
    // The verdict counts even if the reader closes the pipe early.
    print(&text)?;
    Ok(if report.stock_guests { Exit::Success } else { Exit::Host })
}

pub(super) fn inspect(args: &InspectArgs) -> Result<Exit, Failure> {
    let mut client = Client::connect(&args.socket)?;
    if !args.watch {
        let report = client.inspect()?;
        print(&if args.json {
            json(&report, true)?
        } else {
            inspect::render(&report, None, style())
        })?;
        return Ok(Exit::Success);
    }
    let interval = Duration::from_secs(args.interval.into());
    let mut before: Option<(InspectReport, Instant)> = None;
    loop {
        let (report, moment) = match client.inspect() {
            Ok(report) => (report, Instant::now()),
            // The machine has ended, and so has the watch.
            Err(_) if before.is_some() => return Ok(Exit::Success),
            Err(error) => return Err(error.into()),
        };
        let earlier = before.as_ref().map(|(report, then)| (report, moment.duration_since(*then)));
        let text = match args.json {
            true => json(&report, false)?,
            false => in_place(&inspect::render(&report, earlier, style())),
        };
        if print(&text)? == Printed::NobodyReads {
            return Ok(Exit::Success);
        }
        before = Some((report, moment));
        std::thread::sleep(interval);
    }
}

pub(super) fn metrics(args: &MetricsArgs) -> Result<Exit, Failure> {
    let text: String = Client::connect(&args.socket)?.ask(&Request::Metrics {})?;
    print(&text)?;
    Ok(Exit::Success)
}

pub(super) fn control(args: &ControlArgs) -> Result<Exit, Failure> {
    let request = match args.verb {
        Verb::PowerButton => Request::PowerButton {},
        Verb::NewGeneration => Request::NewGeneration {},
        Verb::Reset => Request::Reset {},
        Verb::Stop => Request::Stop {},
        Verb::Ping => Request::Ping {},
    };
    Client::connect(&args.socket)?.request(&request)?;
    Ok(Exit::Success)
}

/// Returns `text` for a terminal with control sequences that overwrite the last report without
/// flicker: cursor to the top left, each line cleared to its end, then the rest of the screen.
fn in_place(text: &str) -> String {
    match io::stdout().is_terminal() {
        true => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
        false => format!("{text}\n"),
    }
}

fn is_colourful() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn style() -> Style {
    if is_colourful() { Style::Terminal } else { Style::Plain }
}

pub(super) fn json<T: serde::Serialize>(value: &T, pretty: bool) -> Result<String, Failure> {
    let text =
        if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map(|text| text + "\n").map_err(|error| Failure::new(Exit::Internal, &error))
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Printed {
    Whole,
    /// The reader closed the pipe (`| head`): no error, but the command ends.
    NobodyReads,
}

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<Printed, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Printed::Whole),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::NobodyReads),
        Err(error) => {
            Err(Failure::text(Exit::Internal, format!("cannot write to standard output: {error}")))
        }
    }
}
