//! Reading a trace.

use std::io::{self, Read};

use super::format::{
    COMPLETION_REQUESTED, DROPPED, HEADER_SIZE, MAGIC, MAX_RECORD, MESSAGE, PACKET, PACKET_HEADER,
    RECORD_HEADER, TO_GUEST, VERSION,
};

/// A file that is no trace, or not a whole one.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file has another format.
    #[error("is no trace of `synthvm run --trace-bus`")]
    Foreign,
    /// The file has another version.
    #[error("has version {0} of the format, and this synthvm reads version {VERSION}")]
    Version(u32),
    /// The file ends inside a record.
    #[error("is cut off after {0} records")]
    Truncated(u64),
    /// A record is impossible.
    #[error("is damaged after {0} records")]
    Damaged(u64),
    /// The file cannot be read.
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
}

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Nanoseconds since the start.
    pub(super) time: u64,
    pub(super) to_guest: bool,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Message(Vec<u8>),
    Packet {
        relid: u32,
        subchannel: u16,
        kind: u16,
        transaction_id: u64,
        completion_requested: bool,
        payload_len: u64,
        payload: Vec<u8>,
    },
    Dropped(u64),
    Unknown(u16),
}

/// A reader of records.
pub(super) struct Reader<R: Read> {
    file: R,
    records: u64,
}

impl<R: Read> Reader<R> {
    /// Checks the header.
    pub(super) fn new(mut file: R) -> Result<Self, TraceError> {
        let mut header = [0; HEADER_SIZE];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(TraceError::Foreign);
            }
            read => read?,
        }
        if header[..8] != MAGIC {
            return Err(TraceError::Foreign);
        }
        match u32::from_le_bytes([header[8], header[9], header[10], header[11]]) {
            VERSION => Ok(Reader { file, records: 0 }),
            other => Err(TraceError::Version(other)),
        }
    }

    /// Returns the next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record>, TraceError> {
        let mut head = Vec::new();
        (&mut self.file).take(RECORD_HEADER as u64).read_to_end(&mut head)?;
        if head.is_empty() {
            return Ok(None);
        }
        let Some(head) = head.first_chunk::<RECORD_HEADER>() else {
            return Err(TraceError::Truncated(self.records));
        };
        let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_le_bytes([head[4], head[5]]);
        let flags = u16::from_le_bytes([head[6], head[7]]);
        if !(RECORD_HEADER..=MAX_RECORD).contains(&size) {
            return Err(TraceError::Damaged(self.records));
        }
        let mut bytes = Vec::new();
        (&mut self.file).take((size - RECORD_HEADER) as u64).read_to_end(&mut bytes)?;
        if bytes.len() != size - RECORD_HEADER {
            return Err(TraceError::Truncated(self.records));
        }
        let content = content(kind, flags, bytes).ok_or(TraceError::Damaged(self.records))?;
        self.records += 1;
        let time = word(&head[8..]).unwrap_or_default();
        Ok(Some(Record { time, to_guest: flags & TO_GUEST != 0, content }))
    }
}

/// Returns the content of a record; `None` if it is too short.
fn content(kind: u16, flags: u16, bytes: Vec<u8>) -> Option<Content> {
    Some(match kind {
        MESSAGE => Content::Message(bytes),
        PACKET => {
            let (head, payload) = bytes.split_at_checked(PACKET_HEADER)?;
            Content::Packet {
                relid: u32::from_le_bytes(*head.first_chunk()?),
                subchannel: u16::from_le_bytes([head[4], head[5]]),
                kind: u16::from_le_bytes([head[6], head[7]]),
                transaction_id: word(&head[8..])?,
                completion_requested: flags & COMPLETION_REQUESTED != 0,
                payload_len: word(&head[16..])?,
                payload: payload.to_vec(),
            }
        }
        DROPPED => Content::Dropped(word(&bytes)?),
        other => Content::Unknown(other),
    })
}

fn word(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
