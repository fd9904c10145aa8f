//! The init calls: only while the channel is disabled (kmcl.md 3.2).

use alloc::boxed::Box;

use vmbus_protocol::Guid;

use crate::config::{ChannelFlags, Config, MIN_RING_PAGES};
use crate::error::Error;
use crate::platform::Platform;
use crate::state::{Channel, Driver};

impl<P: Platform> Channel<'_, P> {
    /// Sets the device to bind to: a class, and an instance of it, or `None` for any.
    /// `VmbClientChannelInitSetTargetPnp`.
    ///
    /// # Errors
    /// [`Error::NotDisabled`].
    pub fn init_set_target_pnp(
        &mut self,
        class: Guid,
        instance: Option<Guid>,
    ) -> Result<(), Error> {
        self.disabled()?.target = Some((class, instance));
        Ok(())
    }

    /// Binds to subchannel `index` of the device instead of its primary channel (0).
    ///
    /// # Errors
    /// [`Error::NotDisabled`].
    pub fn init_set_subchannel(&mut self, index: u16) -> Result<(), Error> {
        self.disabled()?.subchannel = index;
        Ok(())
    }

    /// Sets the VP that gets the channel's events. Default: the connection's VP. `u32::MAX`: no VP,
    /// the channel is polled.
    ///
    /// # Errors
    /// [`Error::NotDisabled`].
    pub fn init_set_target_vp(&mut self, vp: u32) -> Result<(), Error> {
        self.disabled()?.target_vp = Some(vp);
        Ok(())
    }

    /// Sets the user data of the open. The device defines its meaning.
    ///
    /// # Errors
    /// [`Error::NotDisabled`].
    pub fn init_set_user_data(&mut self, user_data: [u8; 120]) -> Result<(), Error> {
        self.disabled()?.user_data = user_data;
        Ok(())
    }

    /// Sets the pages of the rings: host→guest and guest→host, each with its control page, at least
    /// 2. By default they hold 16 packets of the maximum size.
    /// `VmbClientChannelInitSetRingBufferPageCount`.
    ///
    /// # Errors
    /// [`Error::NotDisabled`]; parameter 2 or 3 below 2 pages.
    pub fn init_set_ring_buffer_page_count(
        &mut self,
        incoming: usize,
        outgoing: usize,
    ) -> Result<(), Error> {
        let config = self.disabled()?;
        for (number, pages) in [(2, incoming), (3, outgoing)] {
            if pages < MIN_RING_PAGES {
                return Err(Error::Parameter(
                    number,
                    "a ring needs a control page and a page of data",
                ));
            }
        }
        config.ring_pages = Some((incoming, outgoing));
        Ok(())
    }

    /// Sets the maximum payload of sent packets in bytes. `VmbChannelInitSetMaximumPacketSize`.
    ///
    /// # Errors
    /// [`Error::NotDisabled`]; parameter 2 when 0.
    pub fn init_set_maximum_packet_size(&mut self, bytes: usize) -> Result<(), Error> {
        let config = self.disabled()?;
        if bytes == 0 {
            return Err(Error::Parameter(2, "a packet size of 0"));
        }
        config.max_packet = bytes;
        Ok(())
    }

    /// Sets the maximum external data of one packet: bytes, and pieces of the MDL chain.
    /// `VmbChannelInitSetMaximumExternalData`.
    ///
    /// # Errors
    /// [`Error::NotDisabled`]; parameter 2 or 3 when 0.
    pub fn init_set_maximum_external_data(
        &mut self,
        bytes: u32,
        chain_length: u32,
    ) -> Result<(), Error> {
        let config = self.disabled()?;
        if bytes == 0 {
            return Err(Error::Parameter(2, "a data size of 0"));
        }
        if chain_length == 0 {
            return Err(Error::Parameter(3, "a chain length of 0"));
        }
        config.max_external = (bytes, chain_length);
        Ok(())
    }

    /// `VmbChannelInitSetFlags`.
    ///
    /// # Errors
    /// [`Error::NotDisabled`]; parameter 2 for an unknown bit.
    pub fn init_set_flags(&mut self, flags: ChannelFlags) -> Result<(), Error> {
        let config = self.disabled()?;
        if !ChannelFlags::all().contains(flags) {
            return Err(Error::Parameter(2, "an unknown flag"));
        }
        config.flags = flags;
        Ok(())
    }

    /// Sets the channel's name in logs. `VmbChannelInitSetFriendlyName`.
    ///
    /// # Errors
    /// [`Error::NotDisabled`].
    pub fn init_set_friendly_name(&mut self, name: &str) -> Result<(), Error> {
        self.disabled()?.friendly_name = name.into();
        Ok(())
    }

    /// Returns the channel's name in logs.
    #[must_use]
    pub fn friendly_name(&self) -> &str {
        &self.record().config.friendly_name
    }

    /// Sets the callbacks: `VmbChannelInitSetStateChangeCallbacks` and
    /// `VmbChannelInitSetProcessPacketCallbacks` in one. Without a driver, [`Channel::receive`]
    /// returns the packets.
    ///
    /// # Errors
    /// [`Error::NotDisabled`].
    pub fn init_set_driver(&mut self, driver: Box<dyn Driver<P>>) -> Result<(), Error> {
        self.disabled()?;
        self.record_mut().driver = Some(driver);
        Ok(())
    }

    /// Leaves the rings to the caller: the client neither reads nor writes them
    /// ([`Channel::rings`]).
    ///
    /// # Errors
    /// [`Error::NotDisabled`].
    pub fn init_suppress_queue_management(&mut self) -> Result<(), Error> {
        self.disabled()?.manual = true;
        Ok(())
    }

    fn disabled(&mut self) -> Result<&mut Config, Error> {
        let record = self.record_mut();
        if record.enabled || record.open.is_some() || record.busy {
            return Err(Error::NotDisabled);
        }
        Ok(&mut record.config)
    }
}
