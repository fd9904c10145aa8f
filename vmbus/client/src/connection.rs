//! Connecting and disconnecting (vmbus-core section 3).

use vmbus_protocol::message::{InitiateContact, MessageType};
use vmbus_protocol::offer::{HvStatus, MESSAGE_CONNECTION_ID, MESSAGE_CONNECTION_ID_MULTICLIENT};
use vmbus_protocol::{MessageBuffer, Version};

use crate::error::Error;
use crate::message::Reply;
use crate::platform::Platform;
use crate::state::Client;

/// Options of a contact.
#[derive(Clone, Debug)]
pub struct ContactOptions<'a> {
    /// Versions to try, in this order.
    pub versions: &'a [Version],
    /// VP that gets the host's messages from version 3.0 on; VP 0 gets them before.
    pub target_vp: u32,
}

/// All versions, newest first, as a new Windows guest tries them.
pub const NEWEST_FIRST: &[Version] = &[
    Version::V6_0,
    Version::V5_3,
    Version::V5_2,
    Version::V5_1,
    Version::V5_0,
    Version::V4_1,
    Version::V4_0,
    Version::V3_0,
    Version::V2_4,
];

impl Default for ContactOptions<'_> {
    fn default() -> Self {
        Self { versions: NEWEST_FIRST, target_vp: 0 }
    }
}

impl<P: Platform> Client<P> {
    /// Connects with the newest version that client and host support, and requests the offers.
    ///
    /// # Errors
    /// [`Error::NoVersion`], or the connection failed.
    pub fn connect(platform: P) -> Result<Self, Error> {
        let mut client = Self::negotiate(platform, &ContactOptions::default())?;
        client.request_offers()?;
        Ok(client)
    }

    /// Connects: sends one INITIATE_CONTACT for each version until the host accepts one.
    ///
    /// # Errors
    /// [`Error::NoVersion`], or the connection failed.
    pub fn negotiate(platform: P, options: &ContactOptions<'_>) -> Result<Self, Error> {
        let first = *options.versions.first().ok_or(Error::NoVersion)?;
        let mut client = Self::new(platform, first, options.target_vp);
        for &version in options.versions {
            if client.try_version(version)? {
                return Ok(client);
            }
        }
        Err(Error::NoVersion)
    }

    fn try_version(&mut self, version: Version) -> Result<bool, Error> {
        let multiclient = version >= Version::V5_0;
        // Without monitor pages, which hosts without this feature accept from every guest.
        let mut body = InitiateContact::new(version.word(), self.target_vp);
        if !multiclient {
            // The place of the interrupt page, which is not used either.
            body.target_info = [0; 8];
        }
        let port =
            if multiclient { MESSAGE_CONNECTION_ID_MULTICLIENT } else { MESSAGE_CONNECTION_ID };
        match self.post_on(port, &MessageBuffer::new(MessageType::InitiateContact, &body)) {
            Ok(()) => {}
            // A host without this port is an older one.
            Err(Error::Post(HvStatus::InvalidConnectionId)) => return Ok(false),
            Err(error) => return Err(error),
        }
        let (supported, state, word) = self.wait_for_reply(None, |reply| match *reply {
            Reply::Version { supported, connection_state, word } => {
                Some((supported, connection_state, word))
            }
            _ => None,
        })?;
        if !supported || state != 0 {
            return Ok(false);
        }
        self.version = version;
        self.connection_id = if multiclient { word } else { MESSAGE_CONNECTION_ID };
        Ok(true)
    }

    /// Requests the offers, and waits until all present ones have come.
    ///
    /// # Errors
    /// The connection failed.
    pub fn request_offers(&mut self) -> Result<(), Error> {
        self.post(&MessageBuffer::bare(MessageType::RequestOffers))?;
        self.wait_until(|client| client.offers_delivered.then_some(Ok(())))
    }

    /// Closes all channels, sends UNLOAD, and waits until the host has released all guest memory.
    /// Returns the machine.
    ///
    /// # Errors
    /// The connection failed; the host may still use guest memory.
    pub fn unload(mut self) -> Result<P, Error> {
        let ids: alloc::vec::Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            self.channel(id).disable()?;
        }
        self.post(&MessageBuffer::bare(MessageType::Unload))?;
        self.wait_for_reply(None, |reply| (*reply == Reply::Unloaded).then_some(()))?;
        Ok(self.platform)
    }

    /// Sends UNLOAD with channels still open, as a guest before a kexec does, and waits for the
    /// answer. Returns the machine. The ring pages are not freed, as the client that owned them is
    /// gone.
    ///
    /// # Errors
    /// The connection failed; the host may still use guest memory.
    pub fn unload_abruptly(mut self) -> Result<P, Error> {
        self.post(&MessageBuffer::bare(MessageType::Unload))?;
        self.wait_for_reply(None, |reply| (*reply == Reply::Unloaded).then_some(()))?;
        Ok(self.platform)
    }

    /// Drops the client without a message to the host, as a crashed guest does. Returns the
    /// machine.
    pub fn abandon(self) -> P {
        self.platform
    }
}
