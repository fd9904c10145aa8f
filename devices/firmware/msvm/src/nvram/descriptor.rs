//! The descriptor of a request, in guest memory.

use vmbus_protocol::Guid;

use super::{MAX_DATA_BYTES, MAX_NAME_BYTES, Name, Nvram};
use crate::fields::{le32, le64};
use crate::memory::{self, Memory, NotRam};
use crate::status::Status;

const GET: u32 = 0;
const SET: u32 = 1;
const FIRST_NAME: u32 = 2;
const NEXT_NAME: u32 = 3;
const QUERY: u32 = 4;
const SIGNAL_RUNTIME: u32 = 5;
const DEBUG_STRING: u32 = 6;

const DESCRIPTOR_BYTES: usize = 56;
const STATUS: u64 = 4;
const ATTRIBUTES: u64 = 12;
/// Of the answer to a query: three lengths.
const STORAGE: u64 = 16;
const NAME_BYTES: u64 = 24;
const VENDOR: u64 = 28;
const DATA_BYTES: u64 = 52;
/// Most bytes of a debug string that are read.
const MAX_STRING_BYTES: usize = 1024;

/// What a request was, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NvramRequest {
    /// A variable service, or an unknown command.
    Service {
        /// The command.
        command: u32,
        /// The outcome.
        status: Status,
    },
    /// A text from the firmware.
    DebugString(String),
    /// The descriptor is not in RAM: there is no place for a status.
    NotRam,
}

/// The fields of a variable command.
struct Fields {
    address: u64,
    attributes: u32,
    name_address: u64,
    name_bytes: u32,
    vendor: Guid,
    data_address: u64,
    data_bytes: u32,
}

impl Nvram {
    /// Performs the request whose descriptor is at `address`, and writes the status into it.
    pub fn perform(&mut self, memory: &Memory, address: u64) -> NvramRequest {
        let Ok(head) = memory::read_array::<12>(memory, address) else {
            return NvramRequest::NotRam;
        };
        let command = le32(&head, 0).unwrap_or(u32::MAX);
        let mut text = None;
        let outcome = match command {
            SIGNAL_RUNTIME => {
                self.signal_runtime();
                Ok(())
            }
            QUERY => self.perform_query(memory, address),
            DEBUG_STRING => debug_string(memory, address).map(|string| text = Some(string)),
            GET | SET | FIRST_NAME | NEXT_NAME => read_fields(memory, address)
                .map_err(Status::from)
                .and_then(|fields| self.perform_variable(memory, command, &fields)),
            _ => Err(Status::Unsupported),
        };
        let status = outcome.err().unwrap_or(Status::Success);
        // The head was read from the same place.
        let _ = memory::write(memory, address + STATUS, &status.number().to_le_bytes());
        match text {
            Some(text) => NvramRequest::DebugString(text),
            None => NvramRequest::Service { command, status },
        }
    }

    fn perform_variable(
        &mut self,
        memory: &Memory,
        command: u32,
        fields: &Fields,
    ) -> Result<(), Status> {
        match command {
            GET => self.perform_get(memory, fields),
            SET => {
                let name = fields.name(memory)?;
                let len = fields.data_bytes as usize;
                if len > MAX_DATA_BYTES || len > 0 && fields.data_address == 0 {
                    return Err(Status::InvalidParameter);
                }
                let data = match len {
                    0 => Vec::new(),
                    len => memory::read(memory, fields.data_address, len)?,
                };
                self.set(fields.vendor, name, fields.attributes, &data)
            }
            FIRST_NAME => self.perform_next(memory, fields, None),
            _ => {
                let previous = (fields.vendor, fields.name(memory)?);
                self.perform_next(memory, fields, Some(&previous))
            }
        }
    }

    fn perform_get(&self, memory: &Memory, fields: &Fields) -> Result<(), Status> {
        let variable = self.get(fields.vendor, &fields.name(memory)?)?;
        let needed = variable.data.len() as u32;
        let attributes = variable.attributes.bits();
        memory::write(memory, fields.address + ATTRIBUTES, &attributes.to_le_bytes())?;
        memory::write(memory, fields.address + DATA_BYTES, &needed.to_le_bytes())?;
        if fields.data_bytes < needed || fields.data_address == 0 {
            return Err(Status::BufferTooSmall);
        }
        Ok(memory::write(memory, fields.data_address, &variable.data)?)
    }

    fn perform_next(
        &self,
        memory: &Memory,
        fields: &Fields,
        previous: Option<&(Guid, Name)>,
    ) -> Result<(), Status> {
        let (vendor, name) = self.next(previous)?;
        let needed = name.bytes().len() as u32;
        memory::write(memory, fields.address + NAME_BYTES, &needed.to_le_bytes())?;
        if fields.name_bytes < needed || fields.name_address == 0 {
            return Err(Status::BufferTooSmall);
        }
        memory::write(memory, fields.name_address, name.bytes())?;
        Ok(memory::write(memory, fields.address + VENDOR, &vendor.to_bytes())?)
    }

    fn perform_query(&self, memory: &Memory, address: u64) -> Result<(), Status> {
        let attributes = memory::read_array(memory, address + ATTRIBUTES)?;
        let lengths = self.query(u32::from_le_bytes(attributes))?;
        let bytes: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
        Ok(memory::write(memory, address + STORAGE, &bytes)?)
    }
}

impl Fields {
    fn name(&self, memory: &Memory) -> Result<Name, Status> {
        if self.name_address == 0 {
            return Err(Status::InvalidParameter);
        }
        // The length may be that of a larger buffer, in which the name ends early.
        let len = (self.name_bytes as usize).min(MAX_NAME_BYTES);
        let bytes = memory::read(memory, self.name_address, len)?;
        Name::from_guest(&bytes).ok_or(Status::InvalidParameter)
    }
}

impl From<NotRam> for Status {
    fn from(_: NotRam) -> Status {
        Status::DeviceError
    }
}

fn read_fields(memory: &Memory, address: u64) -> Result<Fields, NotRam> {
    let bytes = memory::read_array::<DESCRIPTOR_BYTES>(memory, address)?;
    // Every field is inside the array.
    let word = |at| le32(&bytes, at).unwrap_or_default();
    let long = |at| le64(&bytes, at).unwrap_or_default();
    let vendor = bytes[28..].first_chunk().copied().unwrap_or_default();
    Ok(Fields {
        address,
        attributes: word(12),
        name_address: long(16),
        name_bytes: word(24),
        vendor: Guid::from_bytes(vendor),
        data_address: long(44),
        data_bytes: word(52),
    })
}

fn debug_string(memory: &Memory, address: u64) -> Result<String, Status> {
    let bytes: [u8; 12] = memory::read_array(memory, address + 16)?;
    let text = le64(&bytes, 0).unwrap_or_default();
    let len = le32(&bytes, 8).unwrap_or_default() as usize;
    let bytes = memory::read(memory, text, len.min(MAX_STRING_BYTES))?;
    let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let characters = char::decode_utf16(units.take_while(|unit| *unit != 0));
    Ok(characters.map(|c| c.unwrap_or('\u{FFFD}')).collect())
}
