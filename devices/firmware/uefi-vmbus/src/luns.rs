//! The search for logical units (storvsc section 5, firmware-windows section A7.1).

use alloc::vec::Vec;
use core::time::Duration;

use vmbus_client::{Client, Mdl};
use vmbus_protocol::limits::PAGE_SIZE;

use crate::controller::{Address, Controller, Data, Memory, Request};
use crate::error::StorageError;
use crate::outcome::Outcome;

/// Targets that are searched, as Linux does.
const TARGETS: [u8; 2] = [0, 1];
/// LUNs that are tried on a target without REPORT LUNS.
const PROBED_LUNS: u8 = 8;
/// Time for one command of the search.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at one command while the unit reports a change of its state.
const ATTEMPTS: u32 = 4;
/// Sense key UNIT ATTENTION: the state has changed, and the same command may succeed now.
const UNIT_ATTENTION: u8 = 6;

const REPORT_LUNS: u8 = 0xA0;
const INQUIRY: u8 = 0x12;
/// Bytes of standard INQUIRY data.
const INQUIRY_BYTES: u32 = 36;
/// Peripheral device types of disks and of DVD drives.
const DISK: u8 = 0;
const DVD: u8 = 5;

impl Controller {
    /// Returns the disks and DVD drives, in order of target and LUN.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn scan<P: Memory>(
        &mut self,
        client: &mut Client<P>,
    ) -> Result<Vec<Address>, StorageError> {
        let page = client.platform().allocate_pages(1).ok_or(StorageError::NoMemory)?;
        let found = scan_with(self, client, &page);
        // After a request without an outcome the host may still write to the page.
        if found.is_ok() {
            client.platform().free_pages(&page);
        }
        found
    }
}

fn scan_with<P: Memory>(
    controller: &mut Controller,
    client: &mut Client<P>,
    page: &[u64],
) -> Result<Vec<Address>, StorageError> {
    let mut found = Vec::new();
    for target in TARGETS {
        let mut search = Search { controller, client, page };
        for address in search.candidates(target)? {
            if search.is_storage(address)? {
                found.push(address);
            }
        }
    }
    Ok(found)
}

struct Search<'a, P: Memory> {
    controller: &'a mut Controller,
    client: &'a mut Client<P>,
    /// One page for answers.
    page: &'a [u64],
}

impl<P: Memory> Search<'_, P> {
    /// Returns the addresses where there may be a unit.
    fn candidates(&mut self, target: u8) -> Result<Vec<Address>, StorageError> {
        let mut list = [0; PAGE_SIZE];
        let [b0, b1, b2, b3] = (PAGE_SIZE as u32).to_be_bytes();
        let cdb = [REPORT_LUNS, 0, 0, 0, 0, 0, b0, b1, b2, b3, 0, 0];
        let outcome = self.ask(Address { target, lun: 0 }, &cdb, &mut list)?;
        let luns = if outcome.is_good() {
            listed(&list[..usize::try_from(outcome.transferred).unwrap_or(0).min(PAGE_SIZE)])
        } else if outcome.sense_code().is_some() {
            // The target exists and does not know the command.
            (0..PROBED_LUNS).collect()
        } else {
            Vec::new()
        };
        Ok(luns.into_iter().map(|lun| Address { target, lun }).collect())
    }

    fn is_storage(&mut self, address: Address) -> Result<bool, StorageError> {
        let mut data = [0; INQUIRY_BYTES as usize];
        let cdb = [INQUIRY, 0, 0, 0, INQUIRY_BYTES as u8, 0];
        let outcome = self.ask(address, &cdb, &mut data)?;
        // The first byte is the peripheral qualifier, 0 for a unit that is present, and the type.
        Ok(outcome.is_good() && outcome.transferred != 0 && matches!(data[0], DISK | DVD))
    }

    /// Executes a command that reads data, again while the unit reports a change of its state.
    fn ask(
        &mut self,
        address: Address,
        cdb: &[u8],
        data: &mut [u8],
    ) -> Result<Outcome, StorageError> {
        let bytes = u32::try_from(data.len()).map_err(|_| StorageError::NoMemory)?;
        let mdl = Mdl::new(bytes, 0, self.page.to_vec()).map_err(|_| StorageError::NoMemory)?;
        let data_in = Data::FromDevice(&mdl);
        let request = Request { address, cdb, data: data_in, timeout: Some(TIMEOUT) };
        let mut attempt = 1;
        loop {
            let outcome = self.controller.execute(self.client, &request)?;
            let again = matches!(outcome.sense_code(), Some((UNIT_ATTENTION, _, _)));
            if !again || attempt == ATTEMPTS {
                if let [page] = *self.page {
                    self.client.platform().read_page(page, data);
                }
                return Ok(outcome);
            }
            attempt += 1;
        }
    }
}

/// Returns the LUNs in the answer to REPORT LUNS, as far as a storvsc packet can address them.
fn listed(answer: &[u8]) -> Vec<u8> {
    /// Addressing methods in the top bits of an entry: LUNs of 8 bits, and LUNs of 14 bits.
    const PERIPHERAL: u8 = 0;
    const FLAT: u8 = 1;
    let Some((head, entries)) = answer.split_first_chunk::<8>() else { return Vec::new() };
    let [b0, b1, b2, b3, ..] = *head;
    let bytes = usize::try_from(u32::from_be_bytes([b0, b1, b2, b3])).unwrap_or(0);
    let (entries, _) = entries[..bytes.min(entries.len())].as_chunks::<8>();
    let mut luns: Vec<u8> = entries
        .iter()
        .filter_map(|&[first, second, ..]| match (first >> 6, first & 0x3F) {
            (PERIPHERAL | FLAT, 0) => Some(second),
            _ => None,
        })
        .collect();
    luns.sort_unstable();
    luns.dedup();
    luns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_listed_sorts_and_omits_what_a_packet_cannot_address() {
        let mut answer = vec![0, 0, 0, 40, 0, 0, 0, 0];
        for entry in [[0, 7], [0, 0], [0x40, 3], [0x41, 3], [0xC1, 1]] {
            answer.extend(entry);
            answer.extend([0; 6]);
        }
        assert_eq!(listed(&answer), [0, 3, 7]);
    }

    #[test]
    fn test_listed_with_a_length_beyond_the_answer_reads_only_the_answer() {
        let mut answer = vec![0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
        answer.extend([0, 5, 0, 0, 0, 0, 0, 0, 0, 6]);
        assert_eq!(listed(&answer), [5]);
        assert!(listed(&answer[..7]).is_empty());
    }
}
