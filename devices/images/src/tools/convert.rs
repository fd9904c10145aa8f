//! Conversion from one format to another.

use std::path::{Path, PathBuf};

use synthvm_block::{Operation, Queue};

use super::ToolError;
use super::create::{CreateOptions, make};
use super::partial::Partial;
use crate::open::open_as;
use crate::transfer::transfer;
use crate::{Format, OpenOptions, Parents, open};

/// Bytes that are read and written by one call.
const STEP: u64 = 1 << 20;
/// Zero bytes of this length are not written.
const GRAIN: usize = 64 << 10;

/// Options of [`convert`].
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// The source's format. `None`: the format that [`open`] detects.
    pub from: Option<Format>,
    /// The parent of a source that has been moved. `None`: the parent that the source names.
    pub parent: Option<PathBuf>,
    /// Whether the source may name other files.
    pub parents: Parents,
    /// The new image's format.
    pub to: Format,
    /// See [`CreateOptions::fixed`].
    pub fixed: bool,
    /// See [`CreateOptions::block_size`].
    pub block_size: Option<u64>,
}

impl ConvertOptions {
    /// Returns the options for a conversion to `to`, with defaults for the rest.
    pub fn to(to: Format) -> Self {
        Self {
            from: None,
            parent: None,
            parents: Parents::Named,
            to,
            fixed: false,
            block_size: None,
        }
    }
}

/// The progress of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the disk that are finished.
    pub done: u64,
    /// Bytes of the disk.
    pub total: u64,
    /// Bytes that had to be written; the others are zero.
    pub written: u64,
}

/// Creates an image at `target` with the content of the image at `source`, parents included. It
/// appears complete and durable, or not at all.
///
/// # Errors
/// [`ToolError`]: the flaw, the option at fault, the remedy.
pub fn convert(
    source: &Path,
    target: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Progress, ToolError> {
    let ConvertOptions { parent, parents, .. } = options.clone();
    let from = OpenOptions { parent, parents, ..OpenOptions::reading(options.from) };
    let from = open(source, &from)?;
    let geometry = from.geometry();
    let sector = geometry.block_size.bytes();
    let partial = Partial::begin(target).map_err(ToolError::file("create", target))?;
    let create = CreateOptions {
        format: options.to,
        size: Some(geometry.capacity),
        fixed: options.fixed,
        block_size: options.block_size,
        sector_size: (options.to == Format::Vhdx).then_some(sector),
        parent: None,
    };
    make(&partial, target, &create)?;
    let to = OpenOptions { format: Some(options.to), ..OpenOptions::default() };
    let to = open_as(&partial.lock(false)?, options.to, &to)?;
    let mut copy = Copy {
        from: from.queue().map_err(ToolError::file("read", source))?,
        to: to.queue().map_err(ToolError::file("write", target))?,
        source,
        target,
    };
    let mut state = Progress { done: 0, total: geometry.capacity, written: 0 };
    while state.done < state.total {
        let extent = from.extent(state.done).map_err(ToolError::io("read", source))?;
        let left = state.total - state.done;
        let length = match extent.length {
            0 => left.min(STEP),
            length => length.min(left),
        };
        if extent.mapped {
            let length = length.min(STEP);
            state.written += copy.step(state.done, length)?;
            state.done += length;
        } else {
            state.done += length;
        }
        progress(state);
    }
    copy.flush()?;
    drop(copy);
    drop(to);
    verify(&partial, target, options.to, geometry.capacity)?;
    partial.finish().map_err(ToolError::file("finish", target))?;
    Ok(state)
}

/// Checks that the new image can be opened and has the right size.
fn verify(
    partial: &Partial,
    target: &Path,
    format: Format,
    capacity: u64,
) -> Result<(), ToolError> {
    let options = OpenOptions::reading(Some(format));
    let found = open_as(&partial.lock(true)?, format, &options)?.geometry().capacity;
    if found == capacity {
        return Ok(());
    }
    let source =
        std::io::Error::other(format!("it came out with {found} bytes instead of {capacity}"));
    Err(ToolError::File { what: "verify", path: target.to_owned(), source })
}

struct Copy<'a> {
    from: Box<dyn Queue>,
    to: Box<dyn Queue>,
    source: &'a Path,
    target: &'a Path,
}

impl Copy<'_> {
    /// Copies the bytes that are not zero. Returns the number of bytes written.
    fn step(&mut self, offset: u64, length: u64) -> Result<u64, ToolError> {
        let bytes = vec![0; length as usize];
        let bytes = transfer(&mut *self.from, Operation::Read, offset, bytes)
            .map_err(ToolError::io("read", self.source))?;
        let mut written = 0;
        let mut run: Option<usize> = None;
        let grains = bytes.len().div_ceil(GRAIN);
        for index in 0..=grains {
            let at = (index * GRAIN).min(bytes.len());
            let is_data = bytes[at..].iter().take(GRAIN).any(|&byte| byte != 0);
            match run {
                None if is_data => run = Some(at),
                Some(begin) if !is_data => {
                    run = None;
                    let part = bytes[begin..at].to_vec();
                    written += part.len() as u64;
                    transfer(
                        &mut *self.to,
                        Operation::Write { fua: false },
                        offset + begin as u64,
                        part,
                    )
                    .map_err(ToolError::io("write", self.target))?;
                }
                _ => {}
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> Result<(), ToolError> {
        transfer(&mut *self.to, Operation::Flush, 0, Vec::new())
            .map(|_| ())
            .map_err(ToolError::io("write", self.target))
    }
}
