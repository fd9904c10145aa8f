//! The check of an image.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use synthvm_block::{IoError, LockedFile};

use super::ToolError;
use crate::file::lock;
use crate::open::open_as;
use crate::qcow2::Qcow2;
use crate::vhdx::Vhdx;
use crate::{Format, OpenError, OpenOptions, Parents};

/// The result of a check.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The image.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Flaws that make the image, or parts of it, unusable.
    pub errors: Vec<String>,
    /// Facts that are no flaws.
    pub notes: Vec<String>,
    /// Bytes of the file that are not used.
    pub leaked: u64,
    /// Repairs that were made.
    pub repaired: Vec<String>,
}

impl CheckReport {
    /// Returns whether there are no flaws.
    pub fn is_sound(&self) -> bool {
        self.errors.is_empty()
    }
}

/// Checks the structures of the image at `path`. With `repair`, it makes all repairs that lose no
/// data: it replays a log, rebuilds the reference counts of an image that was not closed, and
/// releases space that is not used.
///
/// # Errors
/// [`ToolError`]: the image cannot be read at all. Flaws inside are no error, but part of the
/// report.
pub fn check(
    path: &Path,
    format: Option<Format>,
    repair: bool,
    parents: Parents,
) -> Result<CheckReport, ToolError> {
    let options = OpenOptions { read_only: !repair, format, parents, ..OpenOptions::default() };
    let file = lock(path, options.read_only)?;
    let format = options.format_of(&file)?;
    let mut report = CheckReport {
        path: path.to_owned(),
        format,
        errors: Vec::new(),
        notes: Vec::new(),
        leaked: 0,
        repaired: Vec::new(),
    };
    let outcome = match format {
        Format::Vhdx => report.check_vhdx(&file, &options),
        Format::Qcow2 => report.check_qcow2(&file, &options),
        Format::Raw | Format::Vhd => report.check_mapping(&file, &options),
    };
    match outcome {
        Err(ToolError::Open(
            OpenError::Damaged { reason, .. } | OpenError::Parent { reason, .. },
        )) => {
            report.errors.push(reason);
            Ok(report)
        }
        outcome => outcome.map(|()| report),
    }
}

/// The checks of the formats, which add their findings.
impl CheckReport {
    fn check_vhdx(&mut self, file: &LockedFile, options: &OpenOptions) -> Result<(), ToolError> {
        let path = file.path();
        // Opening checks everything: checksums, regions, metadata, each block's location.
        let image = Vhdx::open(file, options)?;
        let found = image.report().map_err(ToolError::file("read", path))?;
        if found.log_entries != 0 {
            let entries = found.log_entries;
            if found.log_pending {
                self.notes
                    .push(format!("{entries} log entries are to be replayed: it was not closed"));
            } else {
                self.repaired.push(format!("{entries} log entries were replayed"));
            }
        }
        self.leaked = found.unused;
        if !options.read_only {
            let trimmed = image.trim().map_err(ToolError::io("write", path))?;
            if trimmed != 0 {
                self.leaked -= trimmed;
                self.repaired
                    .push(format!("{trimmed} unused bytes at the file's end were cut off"));
            }
        }
        Ok(())
    }

    /// Walks over the whole disk.
    fn check_mapping(&mut self, file: &LockedFile, options: &OpenOptions) -> Result<(), ToolError> {
        let path = file.path();
        // Dynamic VHDs can only be read, and all these formats have nothing to repair.
        let image =
            open_as(file, self.format, &OpenOptions { read_only: true, ..options.clone() })?;
        let capacity = image.geometry().capacity;
        let mut at = 0;
        while at < capacity {
            match image.extent(at) {
                Ok(extent) => at += extent.length.max(1),
                Err(error @ (IoError::Os(_) | IoError::EndOfImage)) => {
                    self.errors
                        .push(format!("the disk's bytes at {at} cannot be located: {error}"));
                    return Ok(());
                }
                Err(error) => return Err(ToolError::io("read", path)(error)),
            }
        }
        Ok(())
    }

    fn check_qcow2(&mut self, file: &LockedFile, options: &OpenOptions) -> Result<(), ToolError> {
        let path = file.path();
        let look = |image: &Qcow2| image.findings().map_err(|flaw| ToolError::Open(flaw.of(path)));
        let reading = OpenOptions { read_only: true, ..options.clone() };
        let mut found = look(&Qcow2::open(file, &reading)?)?;
        // A repair is made only if the image is sound, or becomes sound without a loss of data.
        let can_repair = found.dirty || found.errors.is_empty() && found.leaked != 0;
        if !options.read_only && can_repair {
            let was_dirty = found.dirty;
            let image = Qcow2::open(file, options)?;
            let freed = image.free_leaks().map_err(|flaw| ToolError::Open(flaw.of(path)))?;
            let leaked = found.leaked;
            found = look(&image)?;
            if was_dirty {
                self.repaired
                    .push("it was not closed: its reference counts were rebuilt".to_owned());
            }
            if leaked > found.leaked || freed.lowered != 0 {
                let bytes = leaked.saturating_sub(found.leaked);
                self.repaired.push(format!("{bytes} unused bytes were given back"));
            }
        }
        if found.dirty {
            self.notes
                .push("it was not closed; it is repaired when it is opened for writing".to_owned());
        }
        if found.foreign {
            self.notes.push("it has bitmaps or keys, which are not checked".to_owned());
        }
        self.leaked = found.leaked;
        self.errors.append(&mut found.errors);
        if found.more_errors != 0 {
            self.errors.push(format!("and {} more", found.more_errors));
        }
        Ok(())
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "error: {error}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for repaired in &self.repaired {
            writeln!(f, "repaired: {repaired}")?;
        }
        let count = self.errors.len();
        match count {
            0 => write!(f, "'{}' is a sound {} image", self.path.display(), self.format)?,
            _ => write!(f, "'{}' is damaged: {count} errors", self.path.display())?,
        }
        match self.leaked {
            0 => writeln!(f),
            leaked => writeln!(f, "; {leaked} bytes of the file are not used"),
        }
    }
}
