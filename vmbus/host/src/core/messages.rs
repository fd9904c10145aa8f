//! GPADL messages (vmbus-core 4.3): assembly, acceptance, teardown.

use vmbus_gpadl::GpadlKey;
use vmbus_protocol::MessageBuffer;
use vmbus_protocol::message::{
    GpadlCreated, GpadlHeader, GpadlTeardown, GpadlTorndown, MessageType,
};
use vmbus_protocol::offer::status;
use zerocopy::little_endian::U32;

use super::channel::Phase;
use super::gpadls::{Progress, TeardownOf};
use super::{Action, Core, Ignored, Outcome};

impl Core {
    pub(super) fn gpadl_header(&mut self, header: &GpadlHeader, data: &[u8]) -> Outcome {
        let (relid, gpadl) = (header.relid.get(), header.gpadl.get());
        let Some(channel) = self.channels.by_relid(relid) else {
            self.post_gpadl_created(relid, gpadl, status::UNSUCCESSFUL);
            return Err(Ignored::Channel(relid));
        };
        if matches!(channel.phase, Phase::Draining { .. } | Phase::Revoked) {
            // The channel is closing: the guest may have its success, the GPADL will never be used.
            self.post_gpadl_created(relid, gpadl, status::SUCCESS);
            return Ok(());
        }
        match self.gpadls.begin(
            relid,
            gpadl,
            header.range_count.get(),
            header.range_buflen.get(),
            data,
        ) {
            Progress::More => {}
            Progress::Accepted(_) => self.post_gpadl_created(relid, gpadl, status::SUCCESS),
            Progress::Refused { status, .. } => self.post_gpadl_created(relid, gpadl, status),
            Progress::Unknown => return Err(Ignored::Gpadl(gpadl)),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn gpadl_body(&mut self, gpadl: u32, data: &[u8]) -> Outcome {
        match self.gpadls.continue_with(gpadl, data) {
            Progress::More => {}
            Progress::Accepted(relid) => self.post_gpadl_created(relid, gpadl, status::SUCCESS),
            Progress::Refused { relid, status } => self.post_gpadl_created(relid, gpadl, status),
            Progress::Unknown => return Err(Ignored::Gpadl(gpadl)),
        }
        Ok(())
    }

    pub(super) fn gpadl_teardown(&mut self, request: &GpadlTeardown) -> Outcome {
        let (relid, gpadl) = (request.relid.get(), request.gpadl.get());
        let channel = self.channels.by_relid(relid).ok_or(Ignored::Channel(relid))?;
        let (key, phase) = (channel.key, channel.phase);
        let is_tearing_down = matches!(phase, Phase::Draining { .. } | Phase::Revoked);
        match self.gpadls.teardown(relid, gpadl) {
            TeardownOf::Done => self.post_gpadl_torndown(gpadl),
            // A sleeping device would keep its view, and the guest would wait forever.
            TeardownOf::Waits => self.out.push(Action::Wake { key }),
            TeardownOf::Unknown if is_tearing_down => self.post_gpadl_torndown(gpadl),
            TeardownOf::Unknown => return Err(Ignored::Gpadl(gpadl)),
        }
        Ok(())
    }

    pub(super) fn view_released(&mut self, key: GpadlKey) {
        if self.gpadls.released(key) {
            self.post_gpadl_torndown(key.id);
        }
        if let Some(channel) = self.channels.key_of(key.relid) {
            self.try_finish_drain(channel);
        }
        self.try_finish_reset();
    }

    pub(super) fn post_gpadl_created(&mut self, relid: u32, gpadl: u32, status: u32) {
        let body = GpadlCreated {
            relid: U32::new(relid),
            gpadl: U32::new(gpadl),
            status: U32::new(status),
        };
        self.post(MessageBuffer::new(MessageType::GpadlCreated, &body));
    }

    pub(super) fn post_gpadl_torndown(&mut self, gpadl: u32) {
        let body = GpadlTorndown { gpadl: U32::new(gpadl) };
        self.post(MessageBuffer::new(MessageType::GpadlTorndown, &body));
    }
}
