//! Facts about a VHDX.

use std::path::PathBuf;

use vmbus_protocol::Guid;

use super::bat::State;
use super::{Vhdx, layout::NO_GUID};

/// Facts about one file of a chain.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) path: PathBuf,
    pub(crate) capacity: u64,
    pub(crate) file_size: u64,
    pub(crate) allocated: u64,
    pub(crate) block_size: u64,
    pub(crate) sector: u32,
    pub(crate) physical_sector: u32,
    pub(crate) fixed: bool,
    pub(crate) disk_id: Guid,
    pub(crate) data_id: Guid,
    pub(crate) blocks: u64,
    pub(crate) present: u64,
    /// Bytes of the file that are not used.
    pub(crate) unused: u64,
    /// Log entries to be replayed, or just replayed.
    pub(crate) log_entries: usize,
    pub(crate) log_pending: bool,
    pub(crate) parent: Option<Box<Report>>,
}

impl Vhdx {
    /// Returns the facts.
    pub(crate) fn report(&self) -> std::io::Result<Report> {
        let blocks = self.metadata.capacity.div_ceil(self.metadata.block_size);
        let is_present = |block: &u64| {
            matches!(self.bat.block(*block).state(), Some(State::Present | State::Partial))
        };
        let writer = self.lock();
        Ok(Report {
            path: self.identity.clone(),
            capacity: self.metadata.capacity,
            file_size: self.structures.file.len()?,
            allocated: self.structures.file.allocated()?,
            block_size: self.metadata.block_size,
            sector: self.metadata.sector.bytes(),
            physical_sector: self.metadata.physical_sector,
            fixed: self.metadata.fixed,
            disk_id: self.metadata.disk_id,
            data_id: writer.current.header.data_write,
            blocks,
            present: (0..blocks).filter(is_present).count() as u64,
            unused: writer.space.unused(),
            log_entries: self.structures.replayed,
            log_pending: writer.current.header.log != NO_GUID,
            parent: match &self.parent {
                Some(parent) => Some(Box::new(parent.report()?)),
                None => None,
            },
        })
    }
}
