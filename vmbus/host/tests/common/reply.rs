//! Messages as guests read them: exact sizes, or the test fails.

use vmbus_protocol::Guid;
use vmbus_protocol::message::{
    ChannelOnly, GpadlCreated, GpadlTorndown, HEADER_SIZE, MessageType, ModifyChannelResponse,
    OfferChannel, OpenChannelResult, TlConnectResult, VersionResponse, VersionResponse6,
};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// A message from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Offer { relid: u32, instance: Guid, subchannel: u16, connection_id: u32 },
    Rescind(u32),
    AllOffers,
    OpenResult { relid: u32, open_id: u32, status: u32 },
    Created { relid: u32, id: u32, status: u32 },
    Torndown(u32),
    Version { supported: u8, state: u8, word: u32, features: Option<u32> },
    Unloaded,
    ReservedClosed(u32),
    TlResult { endpoint: Guid, service: Guid, status: u32 },
    Modified { relid: u32, status: u32 },
}

impl Reply {
    pub fn decode(bytes: &[u8]) -> Self {
        let (header, body) = bytes.split_at(HEADER_SIZE);
        let number = u32::from_le_bytes(header[..4].try_into().unwrap());
        assert_eq!(header[4..], [0; 4], "the reserved word is 0");
        let kind = MessageType::from_number(number).expect("a message that exists");
        match kind {
            MessageType::OfferChannel => {
                let offer: &OfferChannel = exact(body);
                Self::Offer {
                    relid: offer.relid.get(),
                    instance: offer.instance,
                    subchannel: offer.sub_channel_index.get(),
                    connection_id: offer.connection_id.get(),
                }
            }
            MessageType::RescindChannelOffer => {
                Self::Rescind(exact::<ChannelOnly>(body).relid.get())
            }
            MessageType::AllOffersDelivered => {
                assert!(body.is_empty());
                Self::AllOffers
            }
            MessageType::OpenChannelResult => {
                let result: &OpenChannelResult = exact(body);
                Self::OpenResult {
                    relid: result.relid.get(),
                    open_id: result.open_id.get(),
                    status: result.status.get(),
                }
            }
            MessageType::GpadlCreated => {
                let created: &GpadlCreated = exact(body);
                Self::Created {
                    relid: created.relid.get(),
                    id: created.gpadl.get(),
                    status: created.status.get(),
                }
            }
            MessageType::GpadlTorndown => Self::Torndown(exact::<GpadlTorndown>(body).gpadl.get()),
            MessageType::VersionResponse => decode_version(body),
            MessageType::UnloadResponse => {
                assert!(body.is_empty());
                Self::Unloaded
            }
            MessageType::CloseReservedResponse => {
                Self::ReservedClosed(exact::<ChannelOnly>(body).relid.get())
            }
            MessageType::TlConnectResult => {
                let result: &TlConnectResult = exact(body);
                Self::TlResult {
                    endpoint: result.endpoint,
                    service: result.service,
                    status: result.status.get(),
                }
            }
            MessageType::ModifyChannelResponse => {
                let response: &ModifyChannelResponse = exact(body);
                Self::Modified { relid: response.relid.get(), status: response.status.get() }
            }
            other => panic!("a host must not send {other:?}"),
        }
    }

    /// A successful GPADL_CREATED.
    pub fn created(relid: u32, id: u32) -> Self {
        Self::Created { relid, id, status: 0 }
    }

    /// A successful OPENCHANNEL_RESULT, with the relid as open id.
    pub fn opened(relid: u32) -> Self {
        Self::OpenResult { relid, open_id: relid, status: 0 }
    }

    /// True for a GPADL_CREATED of (`relid`, `id`) with a failure status.
    pub fn is_refusal_of(&self, relid: u32, id: u32) -> bool {
        let Self::Created { relid: of, id: gpadl, status } = *self else { return false };
        (of, gpadl) == (relid, id) && status != 0
    }

    /// True for an OPENCHANNEL_RESULT of (`relid`, `open_id`) with a failure status.
    pub fn is_open_failure_of(&self, relid: u32, open_id: u32) -> bool {
        matches!(self, Self::OpenResult { relid: r, open_id: o, status }
            if (*r, *o) == (relid, open_id) && *status != 0)
    }
}

fn decode_version(body: &[u8]) -> Reply {
    let (common, features) = if body.len() == size_of::<VersionResponse>() {
        (*exact::<VersionResponse>(body), None)
    } else {
        let response: &VersionResponse6 = exact(body);
        (response.common, Some(response.features.get()))
    };
    Reply::Version {
        supported: common.supported,
        state: common.connection_state,
        word: common.version_or_connection_id.get(),
        features,
    }
}

fn exact<T: FromBytes + KnownLayout + Immutable + Unaligned>(body: &[u8]) -> &T {
    T::ref_from_bytes(body).expect("a message of exactly its size")
}
