//! Save and restore of a card's channels.
//!
//! A channel can be saved once its worker is quiesced ([`vmbus_device::Workers::pause`]). The
//! primary channel is restored before the others, and its state has what all channels share.

use std::sync::Arc;

use vmbus_device::SavedPacket;
use vmbus_gpadl::{GpadlView, ReadWrite};
use vmbus_host::{Channel, OpenError};

use crate::config::{Config, ReceiveBuffer};
use crate::control_plane::ControlPlane;
use crate::data_path::DataPath;
use crate::group::ChannelGroup;
use crate::link::LinkReporter;
use crate::primary::{PrimaryHandler, Restored};
use crate::protocol::nvsp::{SavedBuffer, SendBuffer, Session};
use crate::protocol::rndis::Control;
use crate::protocol::sub_allocations::{Owner, Partition, Share};
use crate::saved::{RestoreError, SavedChannel, SavedPrimary};
use crate::state::Card;
use crate::subchannel::SubchannelHandler;

impl Card {
    /// See [`vmbus_host::Device::save`].
    pub(crate) fn save_channel(&self, subchannel: u16) -> Option<Vec<u8>> {
        let mut quiesced = self.workers.quiesced(subchannel)?;
        let group = self.group().clone()?;
        let saved = |(id, packet): &(u64, crate::packet::NetPacket)| packet.to_saved(*id);
        let (arrivals, returns) = group.inbox(subchannel)?.visit(|arrivals, returns| {
            (arrivals.iter().map(saved).collect::<Vec<SavedPacket>>(), returns.to_vec())
        });
        if let Some(primary) = &mut quiesced.state.primary {
            primary.statistics = self.statistics();
        }
        let mut packets = quiesced.packets;
        packets.extend(arrivals);
        packets.extend(quiesced.state.lost.take());
        SavedChannel::new(packets, returns, quiesced.state).to_bytes()
    }

    /// See [`vmbus_host::Device::restore`].
    pub(crate) fn restore_channel(
        self: &Arc<Self>,
        channel: Channel,
        state: &[u8],
    ) -> Result<(), OpenError> {
        let index = channel.subchannel();
        let refused = |error: RestoreError| OpenError(error.to_string());
        let saved = SavedChannel::from_bytes(state, index == 0).map_err(refused)?;
        let group = self.group_of(index)?;
        let (opening, queue) = group.restore(index, &*self.backend)?;
        let data = |group: Arc<ChannelGroup>| {
            let ram = channel.ram().clone();
            DataPath::new(Arc::clone(self), group, index, opening, queue, ram)
        };
        let SavedChannel { packets, mut returns, state, .. } = saved;
        match &state.primary {
            Some(primary) => {
                self.continue_statistics(primary.statistics);
                self.start_monitor()?;
                let link = LinkReporter::new(self.clock())?;
                let restored = self.restore_primary(&channel, primary).map_err(refused)?;
                group.publish(Arc::new(restored.config.clone()));
                let mut data = data(Arc::clone(&group));
                data.restore(&state).map_err(refused)?;
                let handler =
                    PrimaryHandler::restored(channel.handle(), data, link, primary, restored)
                        .map_err(refused)?;
                self.workers.restore(channel, handler, packets, state)?;
            }
            None => {
                let mut data = data(Arc::clone(&group));
                data.restore(&state).map_err(refused)?;
                self.workers.restore(channel, SubchannelHandler::new(data), packets, state)?;
            }
        }
        if let Some(inbox) = group.inbox(index) {
            let limit = returns.len();
            inbox.give_back(&mut returns, limit);
        }
        Ok(())
    }

    /// Returns the parts of a restored primary channel.
    fn restore_primary(
        &self,
        channel: &Channel,
        saved: &SavedPrimary,
    ) -> Result<Restored, RestoreError> {
        let of_another = |error: &dyn std::error::Error| RestoreError::Card(error.to_string());
        let most = self.properties.max_channels;
        let is_sound = |readers: u16| readers == 1 || readers == saved.channels;
        if !(1..=most).contains(&saved.channels)
            || !is_sound(saved.readers)
            || !saved.next_readers.is_none_or(is_sound)
        {
            return Err(RestoreError::Damaged("its number of channels is invalid"));
        }
        let session =
            Session::restore(&saved.session, most - 1).map_err(|error| of_another(&error))?;
        let session = self.coalescing(session);
        let control = Control::restore(&saved.control, self.properties.clone(), saved.channels)
            .map_err(|error| of_another(&error))?;
        let receive_buffer = match session.receive_buffer() {
            None => None,
            Some((id, geometry)) => {
                let view = map(channel, saved.receive_gpadl, saved.session.receive_buffer)?;
                let partition = Partition::new(geometry, saved.readers);
                Some(Arc::new(ReceiveBuffer { id, geometry, partition, view }))
            }
        };
        let send_buffer: Option<(SendBuffer, GpadlView)> = match session.send_buffer() {
            None => None,
            Some(layout) => {
                Some((layout, map(channel, saved.send_gpadl, saved.session.send_buffer)?))
            }
        };
        let config = Config {
            version: session.version(),
            channels: saved.channels,
            readers: saved.readers,
            send_buffer,
            receive_buffer,
            ..Config::default()
        };
        Ok(Restored { session, control, config })
    }
}

impl ControlPlane {
    /// Returns a restored control plane with its receive buffer.
    pub(crate) fn restored(
        control: Control,
        group: &ChannelGroup,
        buffer: Option<Arc<ReceiveBuffer>>,
        saved: &SavedPrimary,
    ) -> Result<Self, RestoreError> {
        let mut plane = Self::new(control, group.headers().clone());
        if let Some(buffer) = buffer {
            let share = Share::restore(buffer.partition, Owner::Control, &saved.messages)?;
            plane.restore_buffer(buffer, share);
        }
        Ok(plane)
    }
}

/// Maps a buffer again, which must have the same length.
fn map(
    channel: &Channel,
    gpadl: Option<u32>,
    buffer: SavedBuffer,
) -> Result<GpadlView, RestoreError> {
    let gpadl = gpadl.ok_or(RestoreError::Damaged("a buffer has no GPADL"))?;
    let view = channel.map_gpadl(gpadl, ReadWrite).ok();
    let view = view.ok_or(RestoreError::Damaged("a buffer's GPADL cannot be mapped"))?;
    match buffer {
        SavedBuffer::Accepted { length, .. } if length as usize == view.len() => Ok(view),
        _ => Err(RestoreError::Damaged("a buffer has another length")),
    }
}
