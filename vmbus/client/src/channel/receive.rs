//! Packets from the host: quota, delivery, completion.

use alloc::vec::Vec;

use crate::config::{ChannelFlags, PIPE_HEADER};
use crate::error::Error;
use crate::handles::ChannelId;
use crate::platform::{IncomingKind, IncomingPacket, OutgoingKind, Platform, Rings};
use crate::received::{Completion, Received};
use crate::state::{Channel, Client};

/// Packets that are read from the ring at one time.
const BATCH: usize = 64;
/// Pipe packet type of a complete message.
const PIPE_DATA: u32 = 1;

impl<P: Platform> Channel<'_, P> {
    /// Returns the next packet of a channel without a driver. Each must be completed.
    pub fn receive(&mut self) -> Option<Received> {
        if self.record().driver.is_some() || self.record().busy {
            return None;
        }
        self.next_received()
    }

    /// Completes a received packet: the sender gets `answer` if it asked for one. If the ring is
    /// full the completion is queued. `VmbChannelPacketComplete`.
    ///
    /// # Errors
    /// [`Error::Removed`] if the channel was closed since: no completion is needed.
    /// [`Error::TooBig`].
    pub fn packet_complete(&mut self, completion: Completion, answer: &[u8]) -> Result<(), Error> {
        self.check_size(answer.len())?;
        match self.retire(completion)? {
            Some(transaction_id) => self.send_raw(OutgoingKind::Completion, transaction_id, answer),
            None => Ok(()),
        }
    }

    /// Stops the channel because of a packet: no packet is delivered until it is closed.
    /// `VmbChannelPacketFail`.
    ///
    /// # Errors
    /// [`Error::Removed`] when the channel was closed since.
    pub fn packet_fail(&mut self, completion: Completion) -> Result<(), Error> {
        self.retire(completion)?;
        if let Some(open) = self.open_mut() {
            open.stopped = Some(Error::Protocol);
        }
        Ok(())
    }

    #[allow(
        clippy::needless_pass_by_value,
        reason = "taking it is what makes a packet complete only once"
    )]
    /// Retires a completion token. Returns the transaction id if the sender wants a completion
    /// packet.
    fn retire(&mut self, completion: Completion) -> Result<Option<u64>, Error> {
        let Completion { channel, epoch, transaction_id, requested } = completion;
        if channel != self.id || epoch != self.record().epoch {
            return Err(Error::Removed);
        }
        let open = self.open_mut().ok_or(Error::Removed)?;
        open.outstanding = open.outstanding.saturating_sub(1);
        if open.blocked {
            open.blocked = false;
            open.event = true;
        }
        Ok(requested.then_some(transaction_id))
    }

    fn next_received(&mut self) -> Option<Received> {
        let (id, epoch) = (self.id, self.record().epoch);
        let pipe = self.record().config.flags.contains(ChannelFlags::IS_PIPE);
        let open = self.open_mut()?;
        if !open.receiving || open.stopped.is_some() {
            return None;
        }
        let packet = open.pending.pop_front()?;
        let Some(payload) =
            (if pipe { pipe_payload(&packet.payload) } else { Some(packet.payload) })
        else {
            open.stopped = Some(Error::Protocol);
            return None;
        };
        open.outstanding += 1;
        let transfer_pages = match packet.kind {
            IncomingKind::TransferPages(set, ranges) => Some((set, ranges)),
            IncomingKind::InBand | IncomingKind::Completion => None,
        };
        let completion = Completion {
            channel: id,
            epoch,
            transaction_id: packet.transaction_id,
            requested: packet.completion_requested,
        };
        Some(Received { payload, transfer_pages, completion })
    }

    /// Delivers the packets that were read. Returns whether there were any.
    fn deliver(&mut self) -> bool {
        if self.record().driver.is_none() {
            return false;
        }
        let mut any = false;
        while let Some(received) = self.next_received() {
            any = true;
            self.call(|driver, channel| driver.process_packet(channel, received));
            if let Some(open) = self.open_mut() {
                open.delivered += 1;
            }
        }
        any
    }

    fn batch_ended(&mut self) {
        if self.record().busy {
            return;
        }
        let Some(open) = self.open_mut() else { return };
        let packets = core::mem::take(&mut open.delivered);
        if packets != 0 {
            self.call(|driver, channel| driver.processing_complete(channel, packets));
        }
    }

    /// Reads the ring until it is empty or the quota is used up. Returns true if there was any
    /// work.
    fn drain(&mut self) -> bool {
        let mut any = false;
        loop {
            any |= self.deliver();
            let quota = self.record().config.quota as usize;
            let Some(open) = self.open_mut() else { return any };
            if !open.receiving || !open.event || open.blocked || open.stopped.is_some() {
                return any;
            }
            let room = quota.saturating_sub(open.outstanding as usize + open.pending.len());
            if room == 0 {
                open.blocked = true;
                self.batch_ended();
                return any;
            }
            open.rings.mask();
            let mut packets = Vec::new();
            let read = open.rings.read(room.min(BATCH), &mut packets);
            let connection_id = open.connection_id;
            let empty = packets.is_empty();
            any |= !empty;
            self.sort(packets);
            match read {
                Ok(false) => {}
                Ok(true) => self.client.signal(connection_id),
                Err(_) => {
                    self.stop(Error::Protocol);
                    return any;
                }
            }
            if !empty {
                continue;
            }
            match self.open_mut().map(|open| open.rings.unmask()) {
                Some(Ok(true)) => {}
                Some(Ok(false)) => {
                    if let Some(open) = self.open_mut() {
                        open.event = false;
                    }
                    self.batch_ended();
                    return any;
                }
                Some(Err(_)) => {
                    self.stop(Error::Protocol);
                    return any;
                }
                None => return any,
            }
        }
    }

    /// Delivers completions to their packets; other packets wait for the driver.
    fn sort(&mut self, packets: Vec<IncomingPacket>) {
        for packet in packets {
            match packet.kind {
                IncomingKind::Completion => self.finish(packet.transaction_id, packet.payload),
                IncomingKind::InBand | IncomingKind::TransferPages(..) => {
                    if let Some(open) = self.open_mut() {
                        open.pending.push_back(packet);
                    }
                }
            }
        }
    }

    pub(super) fn stop(&mut self, why: Error) {
        if let Some(open) = self.open_mut() {
            open.stopped = Some(why);
        }
    }
}

impl<P: Platform> Client<P> {
    /// Moves packets both ways on all channels. Returns true if there was any work.
    pub(crate) fn serve_rings(&mut self) -> bool {
        let ids: Vec<ChannelId> = self
            .channels
            .iter()
            .filter(|(_, record)| record.open.is_some() && !record.config.manual)
            .map(|(&id, _)| id)
            .collect();
        let mut any = false;
        for id in ids {
            if self.channels.contains_key(&id) {
                let mut channel = self.channel(id);
                any |= channel.flush();
                any |= channel.drain();
            }
        }
        any
    }
}

/// The payload behind a pipe header; `None` when there is no complete message.
fn pipe_payload(bytes: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = bytes.split_first_chunk::<PIPE_HEADER>()?;
    let [t0, t1, t2, t3, l0, l1, l2, l3] = *header;
    let (kind, len) = (u32::from_le_bytes([t0, t1, t2, t3]), u32::from_le_bytes([l0, l1, l2, l3]));
    if kind != PIPE_DATA {
        return None;
    }
    rest.get(..len as usize).map(<[u8]>::to_vec)
}

/// The header in front of a message of `len` bytes.
pub(super) fn pipe_header(len: u32) -> [u8; PIPE_HEADER] {
    let ([t0, t1, t2, t3], [l0, l1, l2, l3]) = (PIPE_DATA.to_le_bytes(), len.to_le_bytes());
    [t0, t1, t2, t3, l0, l1, l2, l3]
}
