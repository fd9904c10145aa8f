//! The calls of a channel.

mod external;
mod init;
mod life;
mod receive;
mod send;

use vmbus_protocol::Guid;

use crate::error::Error;
use crate::handles::ChannelId;
use crate::platform::Platform;
use crate::state::{Channel, Client, Driver, Open, Record};

pub use send::{PacketObject, SendFlags, Waiting};

/// The state of a channel (kmcl.md section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// The channel can be configured.
    Disabled,
    /// Enabled, without an offer yet.
    Waiting,
    /// Open, no packets flow.
    Paused,
    /// Packets flow.
    Started,
}

impl<P: Platform> Channel<'_, P> {
    /// Returns the channel's id.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Returns the channel's client, read-only.
    #[must_use]
    pub fn client(&self) -> &Client<P> {
        self.client
    }

    /// Returns the channel's state.
    #[must_use]
    pub fn state(&self) -> ChannelState {
        let record = self.record();
        match &record.open {
            Some(open) if open.sending => ChannelState::Started,
            Some(_) => ChannelState::Paused,
            None if record.enabled => ChannelState::Waiting,
            None => ChannelState::Disabled,
        }
    }

    /// Returns the error of the last enable, or the reason why the queue of an open channel was
    /// stopped.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let record = self.record();
        record.open.as_ref().and_then(|open| open.stopped).or(record.failure)
    }

    /// Returns the channel's relid, if it is open.
    #[must_use]
    pub fn relid(&self) -> Option<u32> {
        self.record().relid()
    }

    /// Returns the bound device instance, if the channel is open. `VmbChannelGetInterfaceInstance`.
    #[must_use]
    pub fn interface_instance(&self) -> Option<Guid> {
        self.open_ref().map(|open| open.instance)
    }

    /// Returns the number of packets delivered and not completed yet.
    #[must_use]
    pub fn outstanding_packets(&self) -> u32 {
        self.open_ref().map_or(0, |open| open.outstanding)
    }

    /// Returns the numbers of sent packets that wait for ring space, and for the host's completion.
    #[must_use]
    pub fn queued_packets(&self) -> (usize, usize) {
        let record = self.record();
        (record.queue.len(), record.in_flight.len())
    }

    /// Sets the maximum number of received packets without completion, including those that wait to
    /// be delivered. Default: 65,536. Lowering it only stops reading; raising it does not resume
    /// reading, as only a completion does. `VmbChannelSetTransactionQuota`.
    ///
    /// # Errors
    /// Parameter 2 when it is 0.
    pub fn set_transaction_quota(&mut self, quota: u32) -> Result<(), Error> {
        if quota == 0 {
            return Err(Error::Parameter(2, "a quota of 0"));
        }
        self.record_mut().config.quota = quota;
        Ok(())
    }

    /// Returns the rings of an open channel with suppressed queue management (see
    /// [`Channel::init_suppress_queue_management`]).
    pub fn rings(&mut self) -> Option<&mut P::Rings> {
        let record = self.record_mut();
        let manual = record.config.manual;
        record.open.as_mut().filter(|_| manual).map(|open| &mut open.rings)
    }

    /// Tests and clears the event of an open channel with suppressed queue management. Pump first
    /// ([`Client::poll`]).
    pub fn take_event(&mut self) -> bool {
        self.open_mut().is_some_and(|open| core::mem::take(&mut open.event))
    }

    /// Signals the host.
    pub fn signal(&mut self) {
        if let Some(connection_id) = self.open_ref().map(|open| open.connection_id) {
            self.client.signal(connection_id);
        }
    }

    pub(crate) fn record(&self) -> &Record<P> {
        // A cursor is only made for a channel that exists, and only `cleanup`, which consumes it,
        // removes one.
        &self.client.channels[&self.id]
    }

    pub(crate) fn record_mut(&mut self) -> &mut Record<P> {
        self.client
            .channels
            .get_mut(&self.id)
            .unwrap_or_else(|| unreachable!("a cursor's channel exists"))
    }

    pub(crate) fn open_ref(&self) -> Option<&Open<P>> {
        self.record().open.as_ref()
    }

    pub(crate) fn open_mut(&mut self) -> Option<&mut Open<P>> {
        self.record_mut().open.as_mut()
    }

    /// Calls the driver, if there is one and no callback has it.
    fn call<T>(
        &mut self,
        callback: impl FnOnce(&mut dyn Driver<P>, &mut Channel<'_, P>) -> T,
    ) -> Option<T> {
        let mut driver = self.record_mut().driver.take()?;
        self.record_mut().busy = true;
        let result = callback(&mut *driver, self);
        let record = self.record_mut();
        record.busy = false;
        record.driver = Some(driver);
        Some(result)
    }
}

impl<P: Platform> core::fmt::Debug for Channel<'_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
