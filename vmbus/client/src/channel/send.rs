//! Packets to the host: inline, with external data, synchronous. Packets are queued in order if the
//! ring is full.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bitflags::bitflags;

use super::receive::pipe_header;
use crate::config::ChannelFlags;
use crate::error::Error;
use crate::mdl::{Mdl, Range};
use crate::platform::{OutgoingKind, OutgoingPacket, Platform, RingFault, Rings, Space};
use crate::state::{Answer, Channel, CompletionRoutine, Queued, Routine};

bitflags! {
    /// Flags of a send (`VMBUS_CHANNEL_FORMAT_FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SendFlags: u32 {
        /// The host must complete the packet; until then it is outstanding.
        const WAIT_FOR_COMPLETION = 0x1;
        /// With an external MDL, the caller's length may exceed the MDL's byte count, up to the end
        /// of its last page. Only the first piece of the chain is used.
        const FORCE_MDL_LENGTH = 0x2;
        /// The inline buffer is pageable. The flag has no effect, as buffers are copied before a
        /// call returns.
        const PAGED_BUFFER = 0x4;
    }
}

/// A packet object: one outgoing transaction (`VMBPACKET`). Sending consumes it.
pub struct PacketObject<P: Platform> {
    routine: Option<CompletionRoutine<P>>,
}

impl<P: Platform> Default for PacketObject<P> {
    fn default() -> Self {
        Self { routine: None }
    }
}

impl<P: Platform> PacketObject<P> {
    /// Returns a packet without a completion routine. `VmbPacketAllocate`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a packet with a completion routine. `VmbPacketSetCompletionRoutine`.
    #[must_use]
    pub fn with_routine(
        routine: impl FnOnce(&mut Channel<'_, P>, Answer<'_>) + Send + 'static,
    ) -> Self {
        Self { routine: Some(Box::new(routine)) }
    }
}

/// The maximum wait of a synchronous request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Until it is answered or the channel ends.
    Forever,
    /// Wait for at most this time, including the wait for ring space; then the packet is cancelled,
    /// and a later answer is dropped.
    AtMost(Duration),
    /// Do not wait for ring space: a packet that does not fit now is not queued (a timeout of 0 in
    /// Windows).
    NotForSpace,
}

impl<P: Platform> Channel<'_, P> {
    /// Sends `buffer`, with a chain of external data if there is one. The packet is queued if the
    /// ring is full or the channel is not started yet. `VmbPacketSend`.
    ///
    /// # Errors
    /// [`Error`]: the packet was not sent and its routine is not called.
    pub fn send(
        &mut self,
        packet: PacketObject<P>,
        buffer: &[u8],
        external: Option<&Mdl>,
        flags: SendFlags,
    ) -> Result<(), Error> {
        let ranges = external.map(|mdl| mdl.ranges(0, mdl.total_bytes()));
        self.submit(packet, buffer, ranges.as_deref(), flags)
    }

    /// Sends a packet and waits for its completion (without `WAIT_FOR_COMPLETION`: until it is in
    /// the ring). Returns the bytes written to `answer`. `VmbChannelSendSynchronousRequest`.
    ///
    /// # Errors
    /// Parameter 7 when `answer` is no multiple of 8 bytes: nothing is sent. [`Error::Full`] with
    /// [`Waiting::NotForSpace`]. [`Error::State`] when the channel is not started, since no
    /// answer could come. [`Error::Cancelled`], also when the time of [`Waiting::AtMost`] is
    /// over; [`Error::Removed`]. [`Error::AnswerTooLong`].
    pub fn send_synchronous_request(
        &mut self,
        buffer: &[u8],
        external: Option<&Mdl>,
        flags: SendFlags,
        answer: &mut [u8],
        waiting: Waiting,
    ) -> Result<usize, Error> {
        if !answer.len().is_multiple_of(8) {
            return Err(Error::Parameter(7, "a completion buffer that is no multiple of 8 bytes"));
        }
        let wait = flags.contains(SendFlags::WAIT_FOR_COMPLETION);
        match self.open_ref() {
            Some(open) if !open.sending => return Err(Error::State("paused")),
            // In the started callback: no completion can come before it returns.
            Some(open) if wait && !open.receiving => return Err(Error::State("not started")),
            Some(_) => {}
            None => return Err(Error::State("not open")),
        }
        let key = self.client.next_answer;
        self.client.next_answer += 1;
        let ranges = external.map(|mdl| mdl.ranges(0, mdl.total_bytes()));
        let packet = self.make(buffer, ranges.as_deref(), flags, Routine::Sync(key))?;
        self.enqueue(packet);
        let queued = self.record().queue.iter().any(|packet| packet.routine.is_sync(key));
        if waiting == Waiting::NotForSpace && queued {
            self.forget(key);
            return Err(Error::Full);
        }
        let relid = self.record().relid();
        let deadline = match waiting {
            Waiting::AtMost(time) => Some(self.client.platform.now().saturating_add(time)),
            Waiting::Forever | Waiting::NotForSpace => None,
        };
        let answered = self.client.wait_until_or(deadline, |client| {
            let answer = client.answers.remove(&key);
            // The pump outside closes the channel: no answer can come on it any more.
            let gone = relid.is_some_and(|relid| client.rescinded.contains(&relid));
            answer.or(gone.then_some(Err(Error::Removed)))
        });
        let bytes = answered.inspect_err(|_| self.forget(key))?;
        let place = answer.get_mut(..bytes.len()).ok_or(Error::AnswerTooLong(bytes.len()))?;
        place.copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Sends a completion, or another packet built here.
    pub(super) fn send_raw(
        &mut self,
        kind: OutgoingKind,
        transaction_id: u64,
        buffer: &[u8],
    ) -> Result<(), Error> {
        let payload = self.framed(buffer)?;
        let routine = Routine::None;
        self.enqueue(Queued {
            kind,
            transaction_id,
            wait: false,
            header: Vec::new(),
            payload,
            routine,
        });
        Ok(())
    }

    pub(super) fn check_size(&self, bytes: usize) -> Result<(), Error> {
        let limit = self.record().config.max_packet;
        if bytes > limit { Err(Error::TooBig { bytes, limit }) } else { Ok(()) }
    }

    /// Writes queued packets while the ring has space. Returns true if any was written.
    pub(super) fn flush(&mut self) -> bool {
        let mut any = false;
        loop {
            let record = self.record_mut();
            let (Some(open), Some(packet)) = (&mut record.open, record.queue.front()) else {
                return any;
            };
            if !open.sending || open.stopped == Some(Error::Protocol) {
                return any;
            }
            let outcome = open.rings.write(&OutgoingPacket {
                kind: packet.kind,
                transaction_id: packet.transaction_id,
                completion_requested: packet.wait,
                header: &packet.header,
                payload: &packet.payload,
            });
            let connection_id = open.connection_id;
            match outcome {
                Ok(signal) => {
                    any = true;
                    if let Some(packet) = self.record_mut().queue.pop_front() {
                        self.written(packet);
                    }
                    if signal {
                        self.client.signal(connection_id);
                    }
                }
                Err(RingFault::Full { needed }) => match open.rings.wait_for_space(needed) {
                    Ok(Space::Ready) => {}
                    // Any pump tries again; the host's signal ends the platform's wait.
                    Ok(Space::Signalled | Space::Poll) => return any,
                    Err(_) => {
                        self.stop(Error::Protocol);
                        return any;
                    }
                },
                Err(RingFault::TooBig { length, limit }) => {
                    let error = Error::TooBig { bytes: length as usize, limit: limit as usize };
                    if let Some(packet) = self.record_mut().queue.pop_front() {
                        self.end(packet.routine, Err(error));
                    }
                }
                Err(RingFault::Corrupt) => {
                    self.stop(Error::Protocol);
                    return any;
                }
            }
        }
    }

    /// Handles the host's completion of `transaction_id`.
    pub(super) fn finish(&mut self, transaction_id: u64, payload: Vec<u8>) {
        match self.record_mut().in_flight.remove(&transaction_id) {
            Some(routine) => self.end(routine, Ok(payload)),
            None => self.client.count(|stats| stats.stray_completions += 1),
        }
    }

    /// Cancels all packets that are queued or in flight.
    pub(super) fn cancel_packets(&mut self, why: Error) {
        while let Some(packet) = self.record_mut().queue.pop_front() {
            self.end(packet.routine, Err(why));
        }
        while let Some((_, routine)) = self.record_mut().in_flight.pop_first() {
            self.end(routine, Err(why));
        }
    }

    pub(super) fn submit(
        &mut self,
        packet: PacketObject<P>,
        buffer: &[u8],
        ranges: Option<&[Range<'_>]>,
        flags: SendFlags,
    ) -> Result<(), Error> {
        if self.record().config.manual {
            return Err(Error::State("without queue management"));
        }
        if !self.record().enabled {
            return Err(Error::State("disabled"));
        }
        let routine = packet.routine.map_or(Routine::None, Routine::Call);
        let packet = self.make(buffer, ranges, flags, routine)?;
        self.enqueue(packet);
        Ok(())
    }

    fn make(
        &mut self,
        buffer: &[u8],
        ranges: Option<&[Range<'_>]>,
        flags: SendFlags,
        routine: Routine<P>,
    ) -> Result<Queued<P>, Error> {
        if !SendFlags::all().contains(flags) {
            return Err(Error::Parameter(5, "an unknown flag"));
        }
        self.check_size(buffer.len())?;
        let (kind, header) = match ranges {
            Some(ranges) => (OutgoingKind::GpaDirect, self.range_list(ranges)?),
            None => (OutgoingKind::InBand, Vec::new()),
        };
        let payload = self.framed(buffer)?;
        let record = self.record_mut();
        let transaction_id = record.next_transaction;
        record.next_transaction = record.next_transaction.wrapping_add(1).max(1);
        let wait = flags.contains(SendFlags::WAIT_FOR_COMPLETION);
        Ok(Queued { kind, transaction_id, wait, header, payload, routine })
    }

    fn framed(&self, buffer: &[u8]) -> Result<Vec<u8>, Error> {
        if !self.record().config.flags.contains(ChannelFlags::IS_PIPE) {
            return Ok(buffer.to_vec());
        }
        let len = u32::try_from(buffer.len())
            .map_err(|_| Error::Parameter(3, "a length beyond 32 bits"))?;
        Ok([&pipe_header(len)[..], buffer].concat())
    }

    fn enqueue(&mut self, packet: Queued<P>) {
        self.record_mut().queue.push_back(packet);
        self.flush();
    }

    fn written(&mut self, packet: Queued<P>) {
        if packet.wait {
            self.record_mut().in_flight.insert(packet.transaction_id, packet.routine);
        } else {
            self.end(packet.routine, Ok(Vec::new()));
        }
    }

    fn end(&mut self, routine: Routine<P>, result: Result<Vec<u8>, Error>) {
        match routine {
            Routine::None => {}
            Routine::Sync(key) => {
                self.client.answers.insert(key, result);
            }
            Routine::Call(routine) => {
                let result = result.as_deref().map_err(|&error| error);
                routine(self, Answer { result });
            }
        }
    }

    /// Drops a synchronous request after its caller's timeout.
    fn forget(&mut self, key: u64) {
        let record = self.record_mut();
        record.queue.retain(|packet| !packet.routine.is_sync(key));
        for routine in record.in_flight.values_mut().filter(|routine| routine.is_sync(key)) {
            *routine = Routine::None;
        }
    }
}
