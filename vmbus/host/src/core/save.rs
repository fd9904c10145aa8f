//! Save of the core.

use super::Core;
use super::channel::{AfterClose, Channel, ChannelKey, Phase};
use super::gpadls::{Accepted, Arriving, Going, Gpadls};
use super::saved::{FORMAT, SavedBus, SavedChannel, SavedGpadl, SavedGpadlState};
use crate::synic::QueuedMessage;

/// Identifies a channel to its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The primary channel of the device.
    pub primary: ChannelKey,
    /// 0 for the primary itself.
    pub subchannel: u16,
}

impl Core {
    /// Returns the open channels that a device serves: [`Core::save`] asks for their states.
    #[must_use]
    pub fn served_places(&self) -> Vec<Place> {
        self.channels.iter().filter(|channel| is_served(channel)).map(place_of).collect()
    }

    /// Returns the saved core. `device` returns the state that a device needs to continue an open
    /// channel; `messages` have left the core and not yet reached the guest.
    #[must_use]
    pub fn save(
        &self,
        mut device: impl FnMut(Place) -> Option<Vec<u8>>,
        messages: Vec<QueuedMessage>,
    ) -> SavedBus {
        let mut channels: Vec<&Channel> = self.channels.iter().collect();
        channels.sort_by_key(|channel| (channel.subchannel, channel.key));
        let mut save_channel = |channel: &Channel| SavedChannel {
            class: channel.offer.class,
            instance: channel.offer.instance,
            subchannel: channel.subchannel,
            relid: channel.relid,
            phase: settled(channel.phase),
            remove: channel.remove,
            reoffer: channel.reoffer,
            wanted_subchannels: channel.wanted_subchannels,
            device: if is_served(channel) { device(place_of(channel)) } else { None },
        };
        SavedBus {
            format: FORMAT,
            connection: self.connection,
            channels: channels.into_iter().map(&mut save_channel).collect(),
            gpadls: self.gpadls.save(),
            messages,
        }
    }
}

fn is_served(channel: &Channel) -> bool {
    matches!(channel.phase, Phase::Open { served: true, .. })
}

fn place_of(channel: &Channel) -> Place {
    Place { primary: channel.primary.unwrap_or(channel.key), subchannel: channel.subchannel }
}

/// Returns a phase that no device takes part in: a device that is being asked is asked again after
/// the restore.
fn settled(phase: Phase) -> Phase {
    let Phase::Opening { request, abort } = phase else { return phase };
    Phase::Closing { then: abort.unwrap_or(AfterClose::Reopen(request)) }
}

impl Gpadls {
    fn save(&self) -> Vec<SavedGpadl> {
        let arriving =
            self.arriving.iter().filter_map(|(&id, arriving)| save_arriving(id, arriving));
        arriving.chain(self.accepted.values().filter_map(save_accepted)).collect()
    }
}

fn save_arriving(id: u32, arriving: &Arriving) -> Option<SavedGpadl> {
    let (ranges_left, words_left) = arriving.assembler.left();
    let ranges =
        usize::try_from(ranges_left).ok()?.checked_add(arriving.assembler.buffer().ranges())?;
    let declared = arriving.charged.checked_add(ranges)?;
    let mut words = arriving.assembler.buffer().range_words();
    // Data behind the last range was not read and never will be: only its length counts.
    words.resize(declared.checked_sub(words_left)?, 0);
    let bytes = u16::try_from(declared.checked_mul(8)?).ok()?;
    let state = SavedGpadlState::Arriving { bytes };
    Some(SavedGpadl {
        relid: arriving.relid,
        id,
        ranges: u16::try_from(ranges).ok()?,
        words,
        state,
    })
}

fn save_accepted(accepted: &Accepted) -> Option<SavedGpadl> {
    let (key, buffer) = (accepted.gpadl.key(), accepted.gpadl.buffer());
    let state = SavedGpadlState::Accepted {
        charged: accepted.charged,
        read_only: accepted.gpadl.is_read_only(),
        going: accepted.going != Going::No,
        answer: accepted.going == Going::Answer,
    };
    let ranges = u16::try_from(buffer.ranges()).ok()?;
    Some(SavedGpadl { relid: key.relid, id: key.id, ranges, words: buffer.range_words(), state })
}
