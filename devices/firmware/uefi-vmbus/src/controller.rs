//! One SCSI controller: its channel and the storvsc session on it (storvsc sections 1 to 4).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use synthvm_storvsc::{
    CDB_LEN, ExecuteSrb, HEADER, Header, MAX_PACKET, Properties, SENSE_LEN, ScsiExtension,
    ScsiRequest, V1_PACKET, Version, VersionPayload, direction, flags, operation,
};
use vmbus_client::{
    Channel, ChannelId, Client, Driver, Error, Mdl, NtStatus, Platform, Received, SendFlags,
    Waiting,
};
use vmbus_protocol::Guid;
use vmbus_protocol::guid::class;
use zerocopy::{FromBytes, IntoBytes};

use crate::error::StorageError;
use crate::outcome::Outcome;

/// Maximum bytes that the driver moves in one request, if the host permits as many. The list of
/// their pages takes a quarter of the ring.
pub const MAX_TRANSFER: u32 = 8 << 20;

/// Pages of the ring to the host, and of the ring from the host, control pages included. Answers
/// are short.
const RING_PAGES: (usize, usize) = (17, 5);

/// Time for one step of the initialisation.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Access to the pages of [`Platform::allocate_pages`], for the answers to the driver's own
/// commands.
pub trait Memory: Platform {
    /// Copies from the start of a page. `to` has at most 4,096 bytes.
    fn read_page(&self, page: u64, to: &mut [u8]);
}

/// The address of a logical unit on a controller; the path is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The target.
    pub target: u8,
    /// The logical unit of the target.
    pub lun: u8,
}

/// A SCSI command.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The logical unit.
    pub address: Address,
    /// The command descriptor block: 1 to 16 bytes.
    pub cdb: &'a [u8],
    /// The data and its direction.
    pub data: Data<'a>,
    /// Time limit; `None`: no limit but the platform's own.
    pub timeout: Option<Duration>,
}

/// The data of a command.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// No data.
    None,
    /// From the device to this memory.
    FromDevice(&'a Mdl),
    /// From this memory to the device.
    ToDevice(&'a Mdl),
}

/// A SCSI controller with an open channel.
#[derive(Debug)]
pub struct Controller {
    channel: ChannelId,
    instance: Guid,
    state: Arc<State>,
    max_transfer: u32,
}

/// The state that callbacks of the channel change.
#[derive(Debug, Default)]
struct State {
    /// The session is initialised on the present opening of the channel.
    ready: AtomicBool,
    /// The host announced a change of the logical units.
    changed: AtomicBool,
}

impl Controller {
    /// Opens the channel of the controller `instance` and initialises the session.
    ///
    /// # Errors
    /// [`StorageError`]; no channel is left open.
    pub fn open<P: Platform>(client: &mut Client<P>, instance: Guid) -> Result<Self, StorageError> {
        let state = Arc::new(State::default());
        let id = client.allocate();
        let mut channel = client.channel(id);
        channel.init_set_target_pnp(class::SCSI, Some(instance))?;
        channel.init_set_ring_buffer_page_count(RING_PAGES.1, RING_PAGES.0)?;
        channel.init_set_maximum_external_data(MAX_TRANSFER, 1)?;
        channel.init_set_maximum_packet_size(MAX_PACKET)?;
        channel.init_set_driver(Box::new(Events { state: Arc::clone(&state) }))?;
        let mut controller = Self { channel: id, instance, state, max_transfer: 0 };
        let opened = channel.enable().map_err(StorageError::from);
        let opened = opened.and_then(|()| controller.make_ready(client));
        match opened {
            Ok(()) => Ok(controller),
            Err(error) => {
                // The first error says more than one of the close.
                let mut channel = client.channel(id);
                let _ = channel.disable();
                let _ = channel.cleanup();
                Err(error)
            }
        }
    }

    /// Returns the controller's instance GUID.
    #[must_use]
    pub fn instance(&self) -> Guid {
        self.instance
    }

    /// Returns the maximum bytes that one request may move: at least 4,096, a multiple of 4,096.
    #[must_use]
    pub fn max_transfer(&self) -> u32 {
        self.max_transfer
    }

    /// Returns true once after the host has announced a change of the logical units.
    pub fn take_changed(&self) -> bool {
        self.state.changed.swap(false, Ordering::Relaxed)
    }

    /// Executes a command and waits for its outcome. A channel that the host has offered again is
    /// initialised first. When the time limit has passed, the channel is closed, so that the host
    /// releases the request's memory, and opened again.
    ///
    /// # Errors
    /// [`StorageError`]: the command has no outcome.
    pub fn execute<P: Platform>(
        &mut self,
        client: &mut Client<P>,
        request: &Request<'_>,
    ) -> Result<Outcome, StorageError> {
        if !(1..=CDB_LEN).contains(&request.cdb.len()) {
            return Err(StorageError::Cdb(request.cdb.len()));
        }
        client.poll();
        self.make_ready(client)?;
        let (packet, data, bytes) = encode(request);
        if bytes > self.max_transfer {
            return Err(StorageError::TooLong { bytes, limit: self.max_transfer });
        }
        let waiting = request.timeout.map_or(Waiting::Forever, Waiting::AtMost);
        let answer = match self.exchange(client, packet.as_bytes(), data, waiting) {
            Err(StorageError::Channel(Error::Cancelled | Error::Stalled)) => {
                self.reset(client)?;
                return Err(StorageError::TimedOut);
            }
            answer => answer?,
        };
        let answer = ExecuteSrb::read_from_bytes(&answer).map_err(|_| StorageError::Protocol)?;
        Ok(Outcome::of(&answer.request, bytes))
    }

    /// Closes the channel, so that the host cancels all requests, and opens it again.
    ///
    /// # Errors
    /// [`StorageError`]: the controller cannot be used, and memory of a request that timed out may
    /// still be in use by the host.
    pub fn reset<P: Platform>(&mut self, client: &mut Client<P>) -> Result<(), StorageError> {
        let mut channel = client.channel(self.channel);
        channel.disable()?;
        self.state.ready.store(false, Ordering::Relaxed);
        client.channel(self.channel).enable()?;
        self.make_ready(client)
    }

    /// Waits until the channel is open, and initialises the session if it is a new one.
    fn make_ready<P: Platform>(&mut self, client: &mut Client<P>) -> Result<(), StorageError> {
        if self.state.ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        client.wait_for_open(self.channel)?;
        self.control(client, operation::BEGIN_INITIALIZATION, &[])?;
        self.negotiate_version(client)?;
        let answer = self.control(client, operation::QUERY_PROPERTIES, &[])?;
        let (properties, _) =
            Properties::ref_from_prefix(&answer[HEADER..]).map_err(|_| StorageError::Protocol)?;
        let limit = properties.max_transfer_bytes.get().min(MAX_TRANSFER) & !0xFFF;
        if limit == 0 {
            return Err(StorageError::Protocol);
        }
        self.max_transfer = limit;
        self.control(client, operation::END_INITIALIZATION, &[])?;
        self.state.ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn negotiate_version<P: Platform>(
        &mut self,
        client: &mut Client<P>,
    ) -> Result<(), StorageError> {
        for version in Version::NEWEST_FIRST {
            let version =
                VersionPayload { version: version.number().into(), ..VersionPayload::default() };
            match self.control(client, operation::QUERY_PROTOCOL_VERSION, version.as_bytes()) {
                Err(StorageError::Refused { .. }) => {}
                answer => return answer.map(drop),
            }
        }
        Err(StorageError::NoVersion)
    }

    /// Executes a step of the initialisation. Returns its answer, padded with zeros.
    fn control<P: Platform>(
        &mut self,
        client: &mut Client<P>,
        operation: u32,
        payload: &[u8],
    ) -> Result<[u8; MAX_PACKET], StorageError> {
        let mut packet = [0; MAX_PACKET];
        let header = header(operation);
        // Payloads have a few bytes.
        let bytes = header.as_bytes().iter().chain(payload);
        packet.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        let answer = self.exchange(client, &packet, None, Waiting::AtMost(STEP_TIMEOUT))?;
        let (header, _) = Header::ref_from_prefix(&answer).map_err(|_| StorageError::Protocol)?;
        match header.status.get() {
            0 => Ok(answer),
            status => Err(StorageError::Refused { operation, status }),
        }
    }

    /// Sends a packet and returns its answer, padded with zeros.
    fn exchange<P: Platform>(
        &mut self,
        client: &mut Client<P>,
        packet: &[u8],
        data: Option<&Mdl>,
        waiting: Waiting,
    ) -> Result<[u8; MAX_PACKET], StorageError> {
        let mut answer = [0; MAX_PACKET];
        let flags = SendFlags::WAIT_FOR_COMPLETION;
        let mut channel = client.channel(self.channel);
        let length = channel.send_synchronous_request(packet, data, flags, &mut answer, waiting)?;
        let complete = Header::ref_from_prefix(&answer)
            .is_ok_and(|(header, _)| header.operation.get() == operation::COMPLETE_IO);
        if length < V1_PACKET || !complete {
            return Err(StorageError::Protocol);
        }
        Ok(answer)
    }
}

/// Returns the packet of a command, its memory, and the number of bytes to move.
fn encode<'a>(request: &Request<'a>) -> (ExecuteSrb, Option<&'a Mdl>, u32) {
    /// The queue action of a command without order, and the SRB flags for it and for the direction.
    const SIMPLE_QUEUE: u8 = 0x20;
    const QUEUE_ACTION_ENABLE: u32 = 0x02;
    const DATA_IN: u32 = 0x40;
    const DATA_OUT: u32 = 0x80;
    let (data_in, srb_flags, data) = match request.data {
        Data::FromDevice(mdl) => (direction::FROM_DEVICE, DATA_IN, Some(mdl)),
        Data::ToDevice(mdl) => (direction::TO_DEVICE, DATA_OUT, Some(mdl)),
        Data::None => (direction::NONE, 0, None),
    };
    let bytes = data.map_or(0, Mdl::total_bytes);
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut cdb = [0; SENSE_LEN];
    let length = request.cdb.len().min(CDB_LEN);
    cdb[..length].copy_from_slice(&request.cdb[..length]);
    let seconds = request.timeout.map_or(60, |time| time.as_secs().max(1));
    let request = ScsiRequest {
        length: ((MAX_PACKET - HEADER) as u16).into(),
        target_id: request.address.target,
        lun: request.address.lun,
        cdb_length: length as u8,
        sense_info_length: SENSE_LEN as u8,
        data_in,
        data_transfer_length: bytes.into(),
        cdb_or_sense: cdb,
        ..ScsiRequest::default()
    };
    let extension = ScsiExtension {
        queue_tag: 0xFF,
        queue_action: SIMPLE_QUEUE,
        srb_flags: (srb_flags | QUEUE_ACTION_ENABLE).into(),
        time_out_value: u32::try_from(seconds).unwrap_or(u32::MAX).into(),
        ..ScsiExtension::default()
    };
    let packet = ExecuteSrb { header: header(operation::EXECUTE_SRB), request, extension };
    (packet, data, bytes)
}

/// Returns the header of a packet that the host completes.
fn header(operation: u32) -> Header {
    Header {
        operation: operation.into(),
        flags: flags::REQUEST_COMPLETION.into(),
        status: 0.into(),
    }
}

/// The callbacks of the channel.
struct Events {
    state: Arc<State>,
}

impl<P: Platform> Driver<P> for Events {
    fn opened(&mut self, _: &mut Channel<'_, P>) -> Result<(), NtStatus> {
        self.state.ready.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn closed(&mut self, _: &mut Channel<'_, P>) {
        self.state.ready.store(false, Ordering::Relaxed);
    }

    /// The host sends no packet but ENUMERATE_BUS and its predecessor: the units have changed.
    fn process_packet(&mut self, channel: &mut Channel<'_, P>, packet: Received) {
        self.state.changed.store(true, Ordering::Relaxed);
        // If the channel is closing, the host needs no completion.
        let _ = channel.packet_complete(packet.completion, &[]);
    }
}
