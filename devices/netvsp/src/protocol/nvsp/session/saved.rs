//! A session as plain data, for save and restore.

use serde::{Deserialize, Serialize};

use super::super::negotiated::{Capabilities, NdisVersion, max_frame};
use super::super::send_buffer::SendBuffer;
use super::super::version::NvspVersion;
use super::buffer::Buffer;
use super::{Session, geometry};

/// A session as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// Negotiated version, as on the wire.
    pub version: Option<u32>,
    /// Longest frame in bytes, from NDIS_CONFIG.
    pub max_frame: Option<u32>,
    /// Features of the guest, as on the wire.
    pub capabilities: u64,
    /// Major and minor version of NDIS.
    pub ndis_version: Option<(u32, u32)>,
    /// The receive buffer.
    pub receive_buffer: SavedBuffer,
    /// The receive buffer is divided for coalesced frames.
    pub is_for_coalesced: bool,
    /// The send buffer.
    pub send_buffer: SavedBuffer,
    /// Subchannels that were granted.
    pub subchannels: Option<u16>,
}

/// A shared buffer as plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedBuffer {
    /// The guest has not sent it.
    Absent,
    /// The guest has sent it, and it is being mapped.
    Requested {
        /// The guest's number for the buffer.
        id: u16,
    },
    /// It is in use.
    Accepted {
        /// The guest's number for the buffer.
        id: u16,
        /// Bytes of the buffer.
        length: u32,
    },
    /// The guest took it back.
    Revoked,
}

/// A saved session that no sequence of messages leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved session has an impossible {0}")]
pub struct InvalidSession(pub &'static str);

impl Session {
    /// Returns the session as plain data.
    pub fn save(&self) -> SavedSession {
        SavedSession {
            version: self.version.map(NvspVersion::number),
            max_frame: self.max_frame,
            capabilities: self.capabilities.0,
            ndis_version: self.ndis_version.map(|version| (version.major, version.minor)),
            receive_buffer: save_buffer(&self.receive_buffer),
            is_for_coalesced: self.is_for_coalesced,
            send_buffer: save_buffer(&self.send_buffer),
            subchannels: self.subchannels,
        }
    }

    /// Recreates a session. `max_subchannels` is that of [`Session::new`].
    ///
    /// # Errors
    /// The saved session is none that messages of a guest can lead to.
    pub fn restore(saved: &SavedSession, max_subchannels: u16) -> Result<Self, InvalidSession> {
        let mut session = Self::new(max_subchannels);
        let Some(word) = saved.version else {
            let is_new = *saved == session.save();
            return if is_new { Ok(session) } else { Err(InvalidSession("version")) };
        };
        let version = NvspVersion::from_number(word).ok_or(InvalidSession("version"))?;
        session.version = Some(version);
        if saved
            .max_frame
            .is_some_and(|frame| !version.has_ndis_config() || max_frame(frame) != frame)
        {
            return Err(InvalidSession("frame length"));
        }
        session.max_frame = saved.max_frame;
        session.capabilities = Capabilities(saved.capabilities).limited_to(version);
        session.ndis_version =
            saved.ndis_version.map(|(major, minor)| NdisVersion { major, minor });
        let frame = session.max_frame();
        session.is_for_coalesced = saved.is_for_coalesced;
        let coalesces = session.capabilities.contains(Capabilities::RECEIVE_COALESCING);
        if saved.is_for_coalesced && !coalesces {
            return Err(InvalidSession("division of the receive buffer"));
        }
        let divided = |length| geometry(length, frame, saved.is_for_coalesced);
        session.receive_buffer = restore_buffer(saved.receive_buffer, divided)
            .filter(|buffer| {
                let is_configured = !version.has_ndis_config() || saved.max_frame.is_some();
                is_configured || matches!(buffer, Buffer::Absent)
            })
            .ok_or(InvalidSession("receive buffer"))?;
        session.send_buffer = restore_buffer(saved.send_buffer, SendBuffer::new)
            .ok_or(InvalidSession("send buffer"))?;
        if saved
            .subchannels
            .is_some_and(|count| !version.has_subchannels() || count > session.max_subchannels)
        {
            return Err(InvalidSession("number of subchannels"));
        }
        session.subchannels = saved.subchannels;
        Ok(session)
    }
}

fn save_buffer<T>(buffer: &Buffer<T>) -> SavedBuffer {
    match *buffer {
        Buffer::Absent => SavedBuffer::Absent,
        Buffer::Requested(id) => SavedBuffer::Requested { id },
        Buffer::Accepted { id, length, .. } => SavedBuffer::Accepted { id, length },
        Buffer::Revoked => SavedBuffer::Revoked,
    }
}

fn restore_buffer<T>(
    saved: SavedBuffer,
    layout: impl FnOnce(u32) -> Option<T>,
) -> Option<Buffer<T>> {
    Some(match saved {
        SavedBuffer::Absent => Buffer::Absent,
        SavedBuffer::Requested { id } => Buffer::Requested(id),
        SavedBuffer::Accepted { id, length } => {
            Buffer::Accepted { id, length, layout: layout(length)? }
        }
        SavedBuffer::Revoked => Buffer::Revoked,
    })
}
