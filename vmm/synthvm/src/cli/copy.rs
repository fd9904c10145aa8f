//! `synthvm copy-to`.

use std::path::absolute;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::CopyToArgs;
use super::commands::{json, print};
use super::exit::{Exit, Failure};
use crate::control::{Client, Request};
use crate::services::{CopyReport, ServiceRequest};

/// The interval at which the progress is shown.
const INTERVAL: Duration = Duration::from_millis(200);

/// Separators of folders, of Linux and of Windows.
const SEPARATORS: [char; 2] = ['/', '\\'];

pub(super) fn copy_to(args: &CopyToArgs) -> Result<Exit, Failure> {
    let input = |error: &dyn std::fmt::Display| {
        Failure::text(Exit::Input, format!("{}: {error}", args.file.display()))
    };
    let path = absolute(&args.file).map_err(|error| input(&error))?;
    let metadata = std::fs::metadata(&path).map_err(|error| input(&error))?;
    if !metadata.is_file() {
        return Err(input(&"is no file; only files are copied"));
    }
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let (folder, name) = destination(&args.to, &own)?;
    let request = ServiceRequest::CopyTo {
        path,
        folder,
        name,
        overwrite: args.overwrite,
        create_path: args.create_path,
    };
    // The copy is cancelled when this connection ends.
    let mut client = Client::connect(&args.socket)?;
    let mut report: CopyReport = client.ask(&Request::Service { request: Box::new(request) })?;
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(report.size) };
    if let Ok(style) = ProgressStyle::with_template("{bytes}/{total_bytes} {bar} {bytes_per_sec}") {
        bar.set_style(style);
    }
    loop {
        bar.set_position(report.sent);
        if args.json {
            print(&json(&report, false)?)?;
        }
        if report.ended {
            bar.finish_and_clear();
            break;
        }
        thread::sleep(INTERVAL);
        let request = Box::new(ServiceRequest::CopyProgress {});
        report = client.ask(&Request::Service { request })?;
    }
    match report.error {
        None => Ok(Exit::Success),
        Some(error) => {
            let message = format!("{}: {}: {error}", args.socket.display(), args.to);
            Err(Failure::text(Exit::Guest, message))
        }
    }
}

/// Separates a path in the guest into the folder, with its separator, and the name. `own`: the
/// file's own name, for a path that is a folder.
fn destination(to: &str, own: &str) -> Result<(String, String), Failure> {
    let Some(end) = to.rfind(SEPARATORS) else {
        let message = format!("{to}: is no absolute path in the guest; it begins with / or C:\\");
        return Err(Failure::text(Exit::Usage, message));
    };
    let (folder, name) = to.split_at(end + 1);
    let name = if name.is_empty() { own } else { name };
    Ok((folder.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_destination_is_a_folder_and_a_name() {
        let split = |to| destination(to, "own.txt").ok();
        let both = |folder: &str, name: &str| Some((folder.to_owned(), name.to_owned()));
        assert_eq!(split("/tmp/"), both("/tmp/", "own.txt"));
        assert_eq!(split("/tmp/a/b.txt"), both("/tmp/a/", "b.txt"));
        assert_eq!(split("/b"), both("/", "b"));
        assert_eq!(split(r"C:\data\b.txt"), both(r"C:\data\", "b.txt"));
        assert_eq!(split("b.txt"), None);
    }
}
