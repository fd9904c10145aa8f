//! INITIATE_CONTACT, UNLOAD and the reset between two connections (vmbus-core 3.1, 3.2, 3.4).

use vmbus_protocol::message::{InitiateContact, MessageType, VersionResponse, VersionResponse6};
use vmbus_protocol::offer::{MESSAGE_CONNECTION_ID_MULTICLIENT, SINT_COUNT, VMBUS_SINT};
use vmbus_protocol::{MessageBuffer, Version};
use zerocopy::little_endian::{U16, U32};

use super::channel::{AfterClose, Phase};
use super::connection::{AfterReset, ConnectionState, Contact, Verdict};
use super::{Action, Core, Ignored, Outcome};

/// `connection_state` of a response.
const STATE_GOOD: u8 = 0;
const STATE_FAILED: u8 = 2;

impl Core {
    pub(super) fn initiate_contact(
        &mut self,
        connection_id: u32,
        contact: &InitiateContact,
    ) -> Outcome {
        let word = contact.version.get();
        // Before 3.0 messages go to VP 0, even if the guest names another one.
        let vp = if word >= Version::V3_0.word() { contact.target_vp.get() } else { 0 };
        if vp >= self.vp_count {
            return Err(Ignored::Vp(vp));
        }
        if connection_id == MESSAGE_CONNECTION_ID_MULTICLIENT && word >= Version::V5_0.word() {
            let [sint, vtl, ..] = contact.target_info;
            let other_vtl = vtl != 0 && word >= Version::V5_1.word();
            if sint != VMBUS_SINT || other_vtl {
                if sint < SINT_COUNT {
                    self.post_to(vp, sint, response(0, STATE_GOOD, 0));
                }
                return Ok(());
            }
        }
        let verdict = match Version::from_word(word) {
            None => Verdict::Unsupported,
            Some(version) if monitor_pages_make_sense(contact) => Verdict::Accepted(version),
            Some(_) => Verdict::Failed,
        };
        self.begin_reset(AfterReset::Contact(Contact { verdict, vp, connection_id }));
        Ok(())
    }

    pub(super) fn unload(&mut self) -> Outcome {
        self.begin_reset(AfterReset::Unload);
        Ok(())
    }

    /// Ends the old connection: drops its messages, makes devices close their channels, and then
    /// runs `then`.
    pub(super) fn begin_reset(&mut self, then: AfterReset) {
        // A restarted machine must not receive the last guest's final message. A guest that
        // connects while disconnected may still have to read the answer to its last contact.
        if self.connection.state() != ConnectionState::Disconnected || then == AfterReset::Nothing {
            self.out.push(Action::DiscardMessages);
        }
        self.connection.begin_reset(then);
        self.gpadls.forget_all();
        for key in self.channels.keys() {
            // A socket connection ends with the guest that has it.
            if let Some(channel) = self.channels.get_mut(key) {
                channel.remove |= channel.offer.is_socket();
            }
            self.let_go(key, AfterClose::Reset);
        }
        self.try_finish_reset();
    }

    /// Ends the reset once no device and no view is left. Call it whenever one of them has ended.
    pub(super) fn try_finish_reset(&mut self) {
        let busy = self.connection.state() != ConnectionState::Resetting
            || !self.gpadls.is_empty()
            || self.channels.iter().any(super::channel::Channel::has_device);
        if busy {
            return;
        }
        for key in self.channels.keys() {
            self.unbind(key);
            let Some(channel) = self.channels.get_mut(key) else { continue };
            channel.phase = Phase::Unoffered;
            channel.reoffer = false;
            if channel.remove || channel.primary.is_some() {
                self.channels.remove(key);
                self.out.push(Action::Removed { key });
            }
        }
        self.out.push(Action::Quiesced);
        match self.connection.end_reset() {
            Some(AfterReset::Unload) => self.post(MessageBuffer::bare(MessageType::UnloadResponse)),
            Some(AfterReset::Contact(contact)) => self.answer_contact(contact),
            Some(AfterReset::Nothing) | None => {}
        }
    }

    fn answer_contact(&mut self, contact: Contact) {
        self.connection.set_vp(contact.vp);
        let answer = match contact.verdict {
            Verdict::Accepted(version) => {
                self.connection.connect(version);
                let word =
                    if version >= Version::V5_0 { contact.connection_id } else { version.word() };
                if version >= Version::V6_0 {
                    let common = response_body(1, STATE_GOOD, word);
                    MessageBuffer::new(
                        MessageType::VersionResponse,
                        &VersionResponse6 { common, features: U32::ZERO },
                    )
                } else {
                    response(1, STATE_GOOD, word)
                }
            }
            Verdict::Failed => response(1, STATE_FAILED, 0),
            Verdict::Unsupported => response(0, STATE_GOOD, 0),
        };
        self.post(answer);
    }
}

/// Checks that there are both monitor pages or none, each at the start of a page.
fn monitor_pages_make_sense(contact: &InitiateContact) -> bool {
    let (first, second) = (contact.monitor_page1.get(), contact.monitor_page2.get());
    (first == 0) == (second == 0) && (first | second) & 0xFFF == 0
}

fn response_body(supported: u8, connection_state: u8, word: u32) -> VersionResponse {
    VersionResponse {
        supported,
        connection_state,
        reserved: U16::ZERO,
        version_or_connection_id: U32::new(word),
    }
}

fn response(supported: u8, connection_state: u8, word: u32) -> MessageBuffer {
    MessageBuffer::new(
        MessageType::VersionResponse,
        &response_body(supported, connection_state, word),
    )
}
