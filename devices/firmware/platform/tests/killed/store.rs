//! A reader of the variable store of OVMF and of its journal, as the firmware reads them after a
//! loss of power (EDK2's `VariableFormat.h` and `FaultTolerantWriteDxe`).

/// Sizes of the 2 MiB image: store, event log, working space, spare space.
const STORE: usize = 0xE000;
const WORKING: usize = STORE + 0x1000;
const SPARE: usize = 0x10000;

/// Bytes of the volume's header, and of the store's behind it.
const VOLUME_HEADER: usize = 72;
const STORE_HEADER: usize = 28;
/// The store is formatted and healthy.
const FORMATTED_HEALTHY: [u8; 2] = [0x5A, 0xFE];

/// Bytes of a variable's header, with time stamp.
const VARIABLE_HEADER: usize = 60;
const START_ID: [u8; 2] = [0xAA, 0x55];
/// States of a variable: flash clears one bit after the other.
const ADDED: u8 = 0x3F;
const IN_DELETED_TRANSITION: u8 = 0x3E;

/// Bytes of the working space's header, of a write's and of a record.
const WORKING_HEADER: usize = 32;
const WRITE_HEADER: usize = 40;
/// Bits of a state that are 0 after the step.
const ALLOCATED: u8 = 1;
const WRITES_ALLOCATED: u8 = 2;
const COMPLETE: u8 = 4;
const SPARE_COMPLETE: u8 = 2;
const DESTINATION_COMPLETE: u8 = 4;

/// Returns the value of the variable with this name, or why the firmware could not use the file.
pub(crate) fn value(file: &[u8], name: &str) -> Result<Option<Vec<u8>>, String> {
    let mut store = file.get(..STORE).ok_or("a short file")?.to_vec();
    if is_spare_to_be_copied(file)? {
        store.copy_from_slice(file.get(SPARE..SPARE + STORE).ok_or("a short file")?);
    }
    read(&store, name)
}

/// Returns whether the firmware was copying the spare space to the store: it does that again.
fn is_spare_to_be_copied(file: &[u8]) -> Result<bool, String> {
    let working = file.get(WORKING..SPARE).ok_or("a short file")?;
    // Bit 0 is 0 in a valid working space, and bit 1 is 1. Else, the spare has its copy, or none.
    if working[20] & 3 != 2 {
        return Ok(false);
    }
    let mut at = WORKING_HEADER;
    // Writes follow each other; the first one that is not complete is in progress.
    while let Some(header) = working.get(at..at + WRITE_HEADER) {
        if header[0] & ALLOCATED != 0 || header[0] & WRITES_ALLOCATED != 0 {
            return Ok(false);
        }
        let word = |at: usize| {
            header[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default() as usize
        };
        let (writes, private) = (word(24), word(32));
        let record = 40 + private;
        if header[0] & COMPLETE == 0 {
            at += WRITE_HEADER + writes * record;
            continue;
        }
        let record = working.get(at + WRITE_HEADER).ok_or("a record outside")?;
        return Ok(record & SPARE_COMPLETE == 0 && record & DESTINATION_COMPLETE != 0);
    }
    Ok(false)
}

fn read(store: &[u8], name: &str) -> Result<Option<Vec<u8>>, String> {
    if store[40..44] != *b"_FVH" || store[VOLUME_HEADER + 20..][..2] != FORMATTED_HEALTHY {
        return Err("no formatted and healthy store".to_owned());
    }
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let (mut added, mut leaving) = (None, None);
    let mut at = VOLUME_HEADER + STORE_HEADER;
    while let Some(header) = store.get(at..at + VARIABLE_HEADER) {
        if header[..2] != START_ID {
            // Flash behind the last variable is erased, or its header is being written.
            break;
        }
        let word = |at: usize| {
            header[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or_default() as usize
        };
        let (name_bytes, data_bytes) = (word(36), word(40));
        if header[2] == 0xFF {
            // The header is not valid yet: the firmware reclaims the store.
            break;
        }
        let start = at + VARIABLE_HEADER;
        let found = store.get(start..start + name_bytes).ok_or("a name outside the store")?;
        let data = start + name_bytes;
        let end = (data + data_bytes).next_multiple_of(4);
        let value = store.get(data..data + data_bytes).ok_or("data outside the store")?;
        if found == name {
            match header[2] {
                ADDED if added.is_some() => return Err("two variables of one name".to_owned()),
                ADDED => added = Some(value.to_vec()),
                IN_DELETED_TRANSITION => leaving = Some(value.to_vec()),
                _ => {}
            }
        }
        at = end;
    }
    Ok(added.or(leaving))
}
