//! The state of one card's connection: message in, decision out (netvsc section 3).

mod buffer;
mod outcome;
mod saved;

pub use buffer::Gpadl;
pub use outcome::{BufferRequest, Completion, DataPath, Effect, Outcome};
pub use saved::{InvalidSession, SavedBuffer, SavedSession};

use super::super::limits::{DEFAULT_MAX_FRAME, MAX_CHANNELS};
use super::super::sub_allocations::Geometry;
use super::error::ProtocolError;
use super::guest_message::{ChannelType, GuestMessage, RndisPacket};
use super::host_message::{HostMessage, NvspStatus};
use super::negotiated::{Capabilities, NdisVersion, max_frame};
use super::send_buffer::SendBuffer;
use super::version::NvspVersion;
use buffer::Buffer;

/// Protocol state of one card from the opening of its primary channel to the closing. A new
/// opening begins with a new session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    max_subchannels: u16,
    /// The host may send coalesced frames.
    may_coalesce: bool,
    version: Option<NvspVersion>,
    max_frame: Option<u32>,
    capabilities: Capabilities,
    ndis_version: Option<NdisVersion>,
    receive_buffer: Buffer<Geometry>,
    /// The receive buffer is divided for coalesced frames.
    is_for_coalesced: bool,
    send_buffer: Buffer<SendBuffer>,
    subchannels: Option<u16>,
}

impl Session {
    /// Creates the session of a primary channel that was opened. `max_subchannels`: most
    /// subchannels that the guest may ask for, capped at 63.
    pub fn new(max_subchannels: u16) -> Self {
        Self {
            max_subchannels: max_subchannels.min(MAX_CHANNELS - 1),
            may_coalesce: false,
            version: None,
            max_frame: None,
            capabilities: Capabilities::default(),
            ndis_version: None,
            receive_buffer: Buffer::Absent,
            is_for_coalesced: false,
            send_buffer: Buffer::Absent,
            subchannels: None,
        }
    }

    /// Lets the host send coalesced frames: it divides the receive buffer for them if the guest
    /// accepts them.
    #[must_use]
    pub fn with_coalescing(mut self) -> Self {
        self.may_coalesce = true;
        self
    }

    /// Judges the payload of one packet of the primary channel. `wants_completion`: the packet
    /// requests a completion; without the request, the outcome has none.
    ///
    /// # Errors
    /// The violation of the protocol for which the channel must stop. The session is unchanged.
    pub fn handle(
        &mut self,
        payload: &[u8],
        wants_completion: bool,
    ) -> Result<Outcome, ProtocolError> {
        let message = GuestMessage::parse(payload)?;
        let (completion, effect) = match (self.version, message) {
            (None, GuestMessage::Init { min, max }) => self.initialize(min, max),
            (Some(_), GuestMessage::Init { .. }) => return Err(ProtocolError::Repeated("INIT")),
            (None, message) => return Err(ProtocolError::NotInitialized(message.kind())),
            (Some(version), message) => {
                self.handle_initialized(version, message, wants_completion)?
            }
        };
        let completion = if wants_completion { completion } else { Completion::None };
        Ok(Outcome { completion, effect })
    }

    /// Returns the packet of a message with frames that the session takes, given the first bytes of
    /// a payload. `None`: [`Session::handle`] judges the message. A card has thousands of these
    /// messages for each other one, so they take a shorter path.
    #[inline]
    pub fn frames(&self, payload: &[u8; RndisPacket::LENGTH]) -> Option<RndisPacket> {
        let is_ready = matches!(self.receive_buffer, Buffer::Accepted { .. });
        RndisPacket::frames(payload).filter(|_| is_ready)
    }

    /// Accepts or refuses the receive buffer that [`Effect::MapReceiveBuffer`] announced.
    /// `gpadl`: `None` if there is no such GPADL. Returns the completion of the request and the
    /// geometry of an accepted buffer. A refused buffer may be sent again.
    pub fn complete_receive_buffer(
        &mut self,
        gpadl: Option<Gpadl>,
    ) -> (HostMessage, Option<Geometry>) {
        let max_frame = self.max_frame();
        let coalesces = self.capabilities.contains(Capabilities::RECEIVE_COALESCING);
        self.is_for_coalesced = self.may_coalesce && coalesces;
        let is_for_coalesced = self.is_for_coalesced;
        let new = |length| geometry(length, max_frame, is_for_coalesced);
        let geometry = self.receive_buffer.complete(gpadl, new);
        (HostMessage::receive_buffer(self.version_or_oldest(), geometry), geometry)
    }

    /// Accepts or refuses the send buffer that [`Effect::MapSendBuffer`] announced, as
    /// [`Session::complete_receive_buffer`] does.
    pub fn complete_send_buffer(
        &mut self,
        gpadl: Option<Gpadl>,
    ) -> (HostMessage, Option<SendBuffer>) {
        let buffer = self.send_buffer.complete(gpadl, SendBuffer::new);
        (HostMessage::send_buffer(self.version_or_oldest(), buffer.is_some()), buffer)
    }

    /// Returns the negotiated version. `None`: INIT has not succeeded.
    pub fn version(&self) -> Option<NvspVersion> {
        self.version
    }

    /// Returns the longest frame in bytes, with the Ethernet header: 1514..=9216.
    pub fn max_frame(&self) -> u32 {
        self.max_frame.unwrap_or(DEFAULT_MAX_FRAME)
    }

    /// Returns the guest's features that the negotiated version has.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Returns the guest's NDIS version; 5.0 if it has not sent one.
    pub fn ndis_version(&self) -> NdisVersion {
        self.ndis_version.unwrap_or(NdisVersion::V5_0)
    }

    /// Returns the guest's number and the geometry of the receive buffer. `None`: the host must
    /// not send RNDIS messages.
    pub fn receive_buffer(&self) -> Option<(u16, Geometry)> {
        match self.receive_buffer {
            Buffer::Accepted { id, layout, .. } => Some((id, layout)),
            Buffer::Absent | Buffer::Requested(_) | Buffer::Revoked => None,
        }
    }

    /// Returns the send buffer. `None`: packets must not name sections.
    pub fn send_buffer(&self) -> Option<SendBuffer> {
        self.send_buffer.layout()
    }

    /// Returns the number of subchannels that were granted.
    pub fn subchannels(&self) -> u16 {
        self.subchannels.unwrap_or(0)
    }

    fn initialize(&mut self, min: u32, max: u32) -> (Completion, Effect) {
        // Guests propose one version at a time, and the host accepts exact matches only.
        let version = NvspVersion::from_number(max).filter(|_| min == max);
        let reply = match version {
            Some(version) => HostMessage::initialized(version),
            None => HostMessage::version_refused(),
        };
        self.version = version;
        (Completion::Message(reply), Effect::None)
    }

    fn handle_initialized(
        &mut self,
        version: NvspVersion,
        message: GuestMessage,
        wants_completion: bool,
    ) -> Result<(Completion, Effect), ProtocolError> {
        let request = |gpadl, id| BufferRequest { gpadl, id, wants_completion };
        Ok(match message {
            GuestMessage::NdisConfig { max_frame: requested, capabilities }
                if version.has_ndis_config() =>
            {
                set_once(&mut self.max_frame, max_frame(requested), "NDIS_CONFIG")?;
                self.capabilities = capabilities.limited_to(version);
                (Completion::Empty, Effect::None)
            }
            GuestMessage::NdisVersion(ndis_version) => {
                set_once(&mut self.ndis_version, ndis_version, "NDIS_VERSION")?;
                (Completion::Empty, Effect::None)
            }
            GuestMessage::SendReceiveBuffer { gpadl, id } => {
                if version.has_ndis_config() && self.max_frame.is_none() {
                    return Err(ProtocolError::NoNdisConfig);
                }
                self.receive_buffer.request(id, "SEND_RECV_BUF")?;
                (Completion::None, Effect::MapReceiveBuffer(request(gpadl, id)))
            }
            GuestMessage::SendSendBuffer { gpadl, id } => {
                self.send_buffer.request(id, "SEND_SEND_BUF")?;
                (Completion::None, Effect::MapSendBuffer(request(gpadl, id)))
            }
            // Any number counts: to stop the use of a buffer is always safe.
            GuestMessage::RevokeReceiveBuffer { .. } => {
                let was_in_use = self.receive_buffer.revoke();
                (Completion::Empty, effect_if(was_in_use, Effect::ReceiveBufferRevoked))
            }
            GuestMessage::RevokeSendBuffer { .. } => {
                let was_in_use = self.send_buffer.revoke();
                (Completion::Empty, effect_if(was_in_use, Effect::SendBufferRevoked))
            }
            GuestMessage::Rndis(packet) => self.rndis(version, packet)?,
            GuestMessage::SwitchDataPath { path } if version.has_data_paths() => {
                let completion = Completion::Message(HostMessage::data_path(version, path));
                (completion, switch_data_path(path))
            }
            GuestMessage::OidQueryEx if version.has_subchannels() => {
                (Completion::Message(HostMessage::oid_query_refused(version)), Effect::None)
            }
            GuestMessage::Subchannel { operation, count } if version.has_subchannels() => {
                self.allocate_subchannels(version, operation, count)
            }
            GuestMessage::PacketDirect { operation } if version.has_packet_direct() => {
                let reply = HostMessage::packet_direct_refused(version, operation);
                (Completion::Message(reply), Effect::None)
            }
            // Not of this version, of an obsolete one, or the host's own: nothing changes.
            _ => (Completion::Empty, Effect::None),
        })
    }

    fn rndis(
        &self,
        version: NvspVersion,
        packet: RndisPacket,
    ) -> Result<(Completion, Effect), ProtocolError> {
        match (self.receive_buffer, packet.channel_type) {
            (Buffer::Absent | Buffer::Requested(_), _) => Err(ProtocolError::NoReceiveBuffer),
            (Buffer::Revoked, _) | (_, ChannelType::Unknown) => {
                Ok((failure(version), Effect::None))
            }
            (Buffer::Accepted { .. }, ChannelType::Data | ChannelType::Control) => {
                Ok((Completion::None, Effect::Rndis(packet)))
            }
        }
    }

    fn allocate_subchannels(
        &mut self,
        version: NvspVersion,
        operation: u32,
        count: u32,
    ) -> (Completion, Effect) {
        const ALLOCATE: u32 = 1;
        let is_ready = self.receive_buffer().is_some() && self.subchannels() == 0;
        let granted = u16::try_from(count)
            .ok()
            .filter(|&count| is_ready && operation == ALLOCATE && count <= self.max_subchannels);
        self.subchannels = granted.or(self.subchannels);
        let effect = granted.map_or(Effect::None, Effect::OfferSubchannels);
        (Completion::Message(HostMessage::subchannels(version, granted)), effect)
    }

    fn version_or_oldest(&self) -> NvspVersion {
        self.version.unwrap_or(NvspVersion::V1)
    }
}

/// Divides a receive buffer of `length` bytes. `None`: it is too small.
fn geometry(length: u32, max_frame: u32, is_for_coalesced: bool) -> Option<Geometry> {
    if is_for_coalesced {
        Geometry::for_coalesced(length, max_frame)
    } else {
        Geometry::new(length, max_frame)
    }
}

fn set_once<T>(
    field: &mut Option<T>,
    value: T,
    message: &'static str,
) -> Result<(), ProtocolError> {
    if field.is_some() {
        return Err(ProtocolError::Repeated(message));
    }
    *field = Some(value);
    Ok(())
}

fn effect_if(condition: bool, effect: Effect) -> Effect {
    if condition { effect } else { Effect::None }
}

fn switch_data_path(path: u32) -> Effect {
    match path {
        0 => Effect::SwitchDataPath(DataPath::Synthetic),
        1 => Effect::SwitchDataPath(DataPath::VirtualFunction),
        _ => Effect::None,
    }
}

fn failure(version: NvspVersion) -> Completion {
    Completion::Message(HostMessage::rndis_complete(version, NvspStatus::Failure))
}
