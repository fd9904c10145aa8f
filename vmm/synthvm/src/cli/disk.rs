//! `synthvm disk`: the disks of a running machine.

use std::path::{Path, PathBuf};

use super::args::{DiskAddress, DiskVerb};
use super::commands::print;
use super::exit::{Exit, Failure};
use crate::config::{DiskConfig, DiskSource, DvdConfig};
use crate::control::{Client, DiskPlace, Request};

pub(super) fn disk(verb: DiskVerb) -> Result<Exit, Failure> {
    match verb {
        DiskVerb::Add { socket, disk: Some(disk), .. } => add(&socket, &disk),
        DiskVerb::Add { socket, dvd, .. } => add_dvd(&socket, dvd.flatten().as_deref()),
        DiskVerb::Remove(DiskAddress { socket, id }) => {
            change(&socket, &Request::DiskRemove { id })
        }
        DiskVerb::Resize { disk: DiskAddress { socket, id }, size } => {
            change(&socket, &Request::DiskResize { id, size })
        }
        DiskVerb::Throttle { disk: DiskAddress { socket, id }, limits } => {
            let limits = limits.parse()?;
            change(&socket, &Request::DiskThrottle { id, limits })
        }
        DiskVerb::Insert { drive: DiskAddress { socket, id }, path } => {
            let path = absolute(&path)?;
            change(&socket, &Request::DiskInsert { id, path })
        }
        DiskVerb::Eject { drive: DiskAddress { socket, id }, force } => {
            change(&socket, &Request::DiskEject { id, force })
        }
    }
}

fn add(socket: &Path, text: &str) -> Result<Exit, Failure> {
    let mut disk: DiskConfig = text.parse()?;
    if let DiskSource::Image(path) = disk.source() {
        disk.path = absolute(path)?;
    }
    let source = disk.source().to_string();
    let place: DiskPlace =
        Client::connect(socket)?.ask(&Request::DiskAdd { disk: Box::new(disk) })?;
    let DiskPlace { id, controller, lun } = place;
    print(&format!("{source} is disk {id}: controller {controller}, LUN {lun}\n"))?;
    Ok(Exit::Success)
}

/// Adds a DVD drive. Without a description, an empty one at the first free address.
fn add_dvd(socket: &Path, text: Option<&str>) -> Result<Exit, Failure> {
    let mut dvd: DvdConfig = text.map(str::parse).transpose()?.unwrap_or_default();
    dvd.path = dvd.path.as_deref().map(absolute).transpose()?;
    let disc =
        dvd.path.as_deref().map_or("an empty drive".to_owned(), |path| path.display().to_string());
    let place: DiskPlace = Client::connect(socket)?.ask(&Request::DvdAdd { dvd: Box::new(dvd) })?;
    let DiskPlace { id, controller, lun } = place;
    print(&format!("{disc} is DVD drive {id}: controller {controller}, LUN {lun}\n"))?;
    Ok(Exit::Success)
}

fn change(socket: &Path, request: &Request) -> Result<Exit, Failure> {
    Client::connect(socket)?.request(request)?;
    Ok(Exit::Success)
}

/// Makes `path` absolute: the machine may have another current directory.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::text(Exit::Usage, format!("{}: {error}", path.display())))
}
