//! A trace as text: one line a record.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};

use vmbus_protocol::guid::{self, Guid};
use vmbus_protocol::message::MessageType;

use super::reader::{Content, Reader, Record, TraceError};

/// Places in OFFERCHANNEL: the class, the subchannel and the relid.
const OFFER_CLASS: usize = 8;
const OFFER_RELID: usize = 184;

/// Why a trace was not printed to its end.
#[derive(Debug)]
pub enum ShowError {
    /// The trace is at fault.
    Trace(TraceError),
    /// The output is.
    Output(io::Error),
}

impl From<io::Error> for ShowError {
    fn from(error: io::Error) -> Self {
        ShowError::Output(error)
    }
}

/// Prints a trace. `>` is from the guest, `<` is to the guest.
///
/// # Errors
/// The file is no whole trace; its records up to there are printed. Or the output's error.
pub fn show(file: impl Read, out: &mut impl Write) -> Result<(), ShowError> {
    let mut reader = Reader::new(file).map_err(ShowError::Trace)?;
    let mut classes = BTreeMap::new();
    while let Some(record) = reader.next().map_err(ShowError::Trace)? {
        learn(&record, &mut classes);
        writeln!(out, "{}", line(&record, &classes))?;
    }
    Ok(())
}

/// Records the class of an offered channel.
fn learn(record: &Record, classes: &mut BTreeMap<u32, Guid>) {
    let Content::Message(bytes) = &record.content else { return };
    if !record.to_guest || message_type(bytes) != Some(MessageType::OfferChannel.number()) {
        return;
    }
    let class = bytes.get(OFFER_CLASS..).and_then(|bytes| bytes.first_chunk::<16>());
    let relid = bytes.get(OFFER_RELID..).and_then(|bytes| bytes.first_chunk::<4>());
    if let (Some(class), Some(relid)) = (class, relid) {
        classes.insert(u32::from_le_bytes(*relid), Guid::from_bytes(*class));
    }
}

fn line(record: &Record, classes: &BTreeMap<u32, Guid>) -> String {
    let (seconds, rest) = (record.time / 1_000_000_000, record.time % 1_000_000_000);
    let arrow = if record.to_guest { '<' } else { '>' };
    let mut text = format!("{seconds:6}.{:06} ", rest / 1000);
    let class = |relid: &u32| classes.get(relid).map_or("unknown class".to_owned(), class_name);
    let _ = match &record.content {
        Content::Message(bytes) => {
            let name = match message_type(bytes) {
                Some(number) => MessageType::from_number(number)
                    .map_or_else(|| format!("message {number}"), |known| format!("{known:?}")),
                None => "message without a type".to_owned(),
            };
            let offer = message_type(bytes) == Some(MessageType::OfferChannel.number());
            let relid = bytes.get(OFFER_RELID..).and_then(|bytes| bytes.first_chunk::<4>());
            let what = match relid.map(|relid| u32::from_le_bytes(*relid)) {
                Some(relid) if offer => format!(" channel {relid} ({})", class(&relid)),
                _ => String::new(),
            };
            write!(text, "{arrow} {name}{what}, {} bytes:{}", bytes.len(), hex(bytes))
        }
        Content::Packet {
            relid,
            subchannel,
            kind,
            transaction_id,
            completion_requested,
            payload_len,
            payload,
        } => {
            let kind = match kind {
                6 => "in-band".to_owned(),
                7 => "transfer pages".to_owned(),
                9 => "GPA direct".to_owned(),
                11 => "completion".to_owned(),
                other => format!("type {other}"),
            };
            let requested = if *completion_requested { ", completion requested" } else { "" };
            let cut = if (payload.len() as u64) < *payload_len { " ..." } else { "" };
            write!(
                text,
                "{arrow} channel {relid}.{subchannel} ({}) {kind}, transaction \
                {transaction_id:#x}{requested}, {payload_len} bytes:{}{cut}",
                class(relid),
                hex(payload)
            )
        }
        Content::Dropped(count) => write!(text, "! {count} records were dropped here"),
        Content::Unknown(kind) => write!(text, "? record of kind {kind}"),
    };
    text
}

fn message_type(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn class_name(class: &Guid) -> String {
    match *class {
        guid::class::SCSI => "scsi".to_owned(),
        guid::class::NETWORK => "network".to_owned(),
        other => other.to_string(),
    }
}

/// Returns the bytes in groups of four.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        let space = if index % 4 == 0 { " " } else { "" };
        let _ = write!(text, "{space}{byte:02x}");
    }
    text
}
