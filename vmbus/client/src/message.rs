//! Messages from the host.

use vmbus_protocol::Guid;
use vmbus_protocol::limits::MAX_OFFER_USER_DATA;
use vmbus_protocol::message::{
    ChannelOnly, GpadlCreated, GpadlTorndown, HEADER_SIZE, MessageType, ModifyChannelResponse,
    OfferChannel, OpenChannelResult, VersionResponse,
};
use vmbus_protocol::offer::OfferFlags;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::status::NtStatus;

/// A channel that the host offers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// Device class.
    pub class: Guid,
    /// Device instance.
    pub instance: Guid,
    /// Flags, unknown bits included.
    pub flags: OfferFlags,
    /// MMIO that the device needs, MiB.
    pub mmio_megabytes: u16,
    /// Class-specific.
    pub user_defined: [u8; MAX_OFFER_USER_DATA],
    /// 0 for a primary channel.
    pub subchannel: u16,
    /// The channel's number on this connection, and its event flag.
    pub relid: u32,
    /// The connection id for HvSignalEvent.
    pub connection_id: u32,
}

/// A message, as far as the client understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostMessage {
    Offer(Offer),
    Rescind(u32),
    OffersDelivered,
    Reply(Reply),
}

/// An answer to a request of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Version { supported: bool, connection_state: u8, word: u32 },
    Unloaded,
    Opened { relid: u32, open_id: u32, status: NtStatus },
    GpadlCreated { relid: u32, gpadl: u32, status: NtStatus },
    GpadlTorndown { gpadl: u32 },
    Modified { relid: u32, status: NtStatus },
}

impl HostMessage {
    /// Parses a message. `None` if its type is unknown or it is too short.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>()?;
        let [t0, t1, t2, t3, ..] = *header;
        let kind = MessageType::from_number(u32::from_le_bytes([t0, t1, t2, t3]))?;
        Some(match kind {
            MessageType::OfferChannel => Self::Offer(offer(fixed(body)?)),
            MessageType::RescindChannelOffer => {
                Self::Rescind(fixed::<ChannelOnly>(body)?.relid.get())
            }
            MessageType::AllOffersDelivered => Self::OffersDelivered,
            MessageType::OpenChannelResult => {
                let body: &OpenChannelResult = fixed(body)?;
                let (relid, open_id) = (body.relid.get(), body.open_id.get());
                Self::Reply(Reply::Opened { relid, open_id, status: NtStatus(body.status.get()) })
            }
            MessageType::GpadlCreated => {
                let body: &GpadlCreated = fixed(body)?;
                let (relid, gpadl) = (body.relid.get(), body.gpadl.get());
                Self::Reply(Reply::GpadlCreated {
                    relid,
                    gpadl,
                    status: NtStatus(body.status.get()),
                })
            }
            MessageType::GpadlTorndown => Self::Reply(Reply::GpadlTorndown {
                gpadl: fixed::<GpadlTorndown>(body)?.gpadl.get(),
            }),
            MessageType::VersionResponse => {
                let body: &VersionResponse = fixed(body)?;
                Self::Reply(Reply::Version {
                    supported: body.supported != 0,
                    connection_state: body.connection_state,
                    word: body.version_or_connection_id.get(),
                })
            }
            MessageType::UnloadResponse => Self::Reply(Reply::Unloaded),
            MessageType::ModifyChannelResponse => {
                let body: &ModifyChannelResponse = fixed(body)?;
                Self::Reply(Reply::Modified {
                    relid: body.relid.get(),
                    status: NtStatus(body.status.get()),
                })
            }
            _ => return None,
        })
    }
}

fn offer(body: &OfferChannel) -> Offer {
    Offer {
        class: body.class,
        instance: body.instance,
        flags: OfferFlags::from_bits_retain(body.flags.get()),
        mmio_megabytes: body.mmio_megabytes.get(),
        user_defined: body.user_defined,
        subchannel: body.sub_channel_index.get(),
        relid: body.relid.get(),
        connection_id: body.connection_id.get(),
    }
}

fn fixed<T: FromBytes + KnownLayout + Immutable + Unaligned>(body: &[u8]) -> Option<&T> {
    T::ref_from_prefix(body).ok().map(|(body, _)| body)
}
