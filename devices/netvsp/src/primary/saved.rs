//! Save and restore of a primary channel.

use std::sync::{Arc, Weak};

use vmbus_host::ChannelHandle;

use super::PrimaryHandler;
use crate::config::Config;
use crate::control_plane::ControlPlane;
use crate::data_path::DataPath;
use crate::link::LinkReporter;
use crate::protocol::nvsp::Session;
use crate::protocol::oid::{Link, Statistics};
use crate::protocol::rndis::Control;
use crate::saved::{RestoreError, SavedPrimary, SavedState};

impl PrimaryHandler {
    /// Returns the handler of a restored channel.
    ///
    /// # Errors
    /// The packets of the control plane do not fit the receive buffer.
    pub(crate) fn restored(
        channel: ChannelHandle,
        data: DataPath,
        link: LinkReporter,
        saved: &SavedPrimary,
        restored: Restored,
    ) -> Result<Self, RestoreError> {
        let mut handler = Self::new(channel, data, link);
        let Restored { session, control, config } = restored;
        let buffer = config.receive_buffer.clone();
        handler.control = ControlPlane::restored(control, handler.data.group(), buffer, saved)?;
        handler.session = session;
        handler.config = Arc::new(config);
        handler.receive_gpadl = saved.receive_gpadl;
        handler.send_gpadl = saved.send_gpadl;
        handler.readers = saved.next_readers;
        handler.data.set_draining(saved.next_readers.is_some());
        handler.is_table_sent = saved.is_table_sent;
        handler.revocation = saved.revocation.map(|transaction| (Weak::new(), transaction));
        if let Some(is_up) = saved.reported_link {
            let now = handler.data.card().link();
            handler.link.begin(Link { is_up, ..now });
            handler.link.note_change();
        }
        handler.publish_settings();
        Ok(handler)
    }

    pub(super) fn save(&self) -> SavedState {
        let primary = SavedPrimary {
            session: self.session.save(),
            control: self.control.control.save(),
            receive_gpadl: self.receive_gpadl,
            send_gpadl: self.send_gpadl,
            channels: self.config.channels,
            readers: self.config.readers,
            next_readers: self.readers,
            messages: self.control.save(),
            is_table_sent: self.is_table_sent,
            reported_link: self.link.reported(),
            revocation: self.revocation.as_ref().map(|(_, transaction)| *transaction),
            // Counted until the last channel is quiesced: see `Card::save_channel`.
            statistics: Statistics::default(),
        };
        SavedState { primary: Some(Box::new(primary)), ..self.data.save() }
    }
}

/// The parts of a restored primary channel.
pub(crate) struct Restored {
    pub(crate) session: Session,
    pub(crate) control: Control,
    pub(crate) config: Config,
}
