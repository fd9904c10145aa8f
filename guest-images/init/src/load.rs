//! Writes records and acknowledges each only after a flush.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use guest_report::agent::{Event, Load};
use guest_report::records::{RECORD_SIZE, block_of, encode};

use crate::blockdev::Aligned;
use crate::port::Port;
use crate::{Outcome, context};

/// Runs a load until its end, if it has one.
pub fn run(port: &Port, load: &Load) -> Outcome<()> {
    let flags = if load.direct { libc::O_DIRECT } else { 0 };
    let file = File::options()
        .write(true)
        .custom_flags(flags)
        .open(&load.path)
        .map_err(context(&load.path))?;
    let mut buffer = Aligned::new(RECORD_SIZE);
    let batch = load.batch.max(1);
    let mut number = 0;
    while load.count.is_none_or(|count| number < count) {
        buffer.bytes_mut().copy_from_slice(&encode(number, load.seed));
        let place = block_of(number, load.seed, load.blocks, load.order) * RECORD_SIZE as u64;
        file.write_all_at(buffer.bytes_mut(), place)
            .map_err(context(format!("writing record {number}")))?;
        number += 1;
        if number.is_multiple_of(batch) || load.count == Some(number) {
            file.sync_data().map_err(context(format!("flushing record {number}")))?;
            port.send(&Event::Ack { records: number }).map_err(context("acknowledging"))?;
        }
    }
    Ok(())
}
