//! The tray of a drive: its disc, whether it is open or locked, and the event pending for the
//! guest.

use super::super::{CheckCondition, Sense};
use super::Disc;
use crate::saved::{SavedEvent, SavedTray};

/// The error that the guest has locked the tray (PREVENT ALLOW MEDIUM REMOVAL), because it uses the
/// disc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest has locked the tray")]
pub struct TrayLocked;

/// Bits of PREVENT ALLOW that are locks.
const PREVENT_BITS: u8 = 0x03;

/// The state of a tray, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrayReport {
    /// A disc is in the tray.
    pub has_disc: bool,
    /// The tray is open.
    pub is_open: bool,
    /// The guest has locked the tray.
    pub is_locked: bool,
}

/// The pending event of the media class (GET EVENT STATUS NOTIFICATION), which the guest gets by
/// polling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Event {
    #[default]
    None,
    /// The host's user asks to eject the disc.
    EjectRequest,
    NewMedia,
    Removal,
    /// A removal, and a new medium at the next poll: a guest that heard only of the new disc would
    /// keep its cached data of the old one.
    Exchange,
}

#[derive(Debug, Default)]
pub(super) struct Tray {
    disc: Option<Disc>,
    inserted: u64,
    is_open: bool,
    /// Bits 1:0 of PREVENT ALLOW: the lock, and the persistent lock.
    prevent: u8,
    event: Event,
}

impl Tray {
    /// Returns the disc.
    ///
    /// # Errors
    /// 2/3A/01 or 2/3A/02: the drive has no disc.
    pub(super) fn disc(&self) -> Result<Disc, CheckCondition> {
        let sense =
            if self.is_open { Sense::NO_MEDIUM_TRAY_OPEN } else { Sense::NO_MEDIUM_TRAY_CLOSED };
        self.disc.ok_or(CheckCondition::execution(sense))
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn is_locked(&self) -> bool {
        self.prevent != 0
    }

    pub(super) fn report(&self) -> TrayReport {
        let (is_open, is_locked) = (self.is_open, self.is_locked());
        TrayReport { has_disc: self.disc.is_some(), is_open, is_locked }
    }

    /// Inserts a disc. A lock of an empty tray does not prevent that.
    pub(super) fn insert(&mut self, blocks: u32) -> Result<Disc, TrayLocked> {
        if self.disc.is_some() && self.is_locked() {
            self.event = Event::EjectRequest;
            return Err(TrayLocked);
        }
        self.event = match self.event {
            Event::Removal | Event::Exchange => Event::Exchange,
            _ if self.disc.is_some() => Event::Exchange,
            _ => Event::NewMedia,
        };
        self.inserted += 1;
        let disc = Disc { number: self.inserted, blocks };
        self.disc = Some(disc);
        self.is_open = false;
        Ok(disc)
    }

    pub(super) fn eject_by_user(&mut self, force: bool) -> Result<(), TrayLocked> {
        if self.is_locked() && !force {
            self.event = Event::EjectRequest;
            return Err(TrayLocked);
        }
        self.remove();
        Ok(())
    }

    /// Ejects the disc on the guest's command. Returns true when there was a disc.
    ///
    /// # Errors
    /// 5/53/02 or 2/53/02: removal is prevented.
    pub(super) fn eject_by_guest(&mut self) -> Result<bool, CheckCondition> {
        match (self.is_locked(), self.disc) {
            (true, Some(_)) => Err(CheckCondition::execution(Sense::REMOVAL_PREVENTED)),
            (true, None) => Err(CheckCondition::execution(Sense::NOT_READY_REMOVAL_PREVENTED)),
            (false, _) => Ok(self.remove()),
        }
    }

    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    /// Changes the locks by byte 4 of PREVENT ALLOW MEDIUM REMOVAL.
    pub(super) fn prevent(&mut self, bits: u8) {
        let (prevent, persistent) = (bits & 0x01, bits & 0x02);
        // "Persistent" selects one of the two locks.
        let lock = if persistent == 0 { 0x01 } else { 0x02 };
        self.prevent = if prevent == 0 { self.prevent & !lock } else { self.prevent | lock };
    }

    pub(super) fn unlock(&mut self) {
        self.prevent = 0;
    }

    /// Returns the event to report now. `take`: the guest's answer includes the event, so it is
    /// consumed.
    pub(super) fn event(&mut self, take: bool) -> Event {
        let event = self.event;
        if take {
            self.event = if event == Event::Exchange { Event::NewMedia } else { Event::None };
        }
        event
    }

    /// Returns the state that another process needs to resume with this tray.
    pub(super) fn saved(&self) -> SavedTray {
        let event = match self.event {
            Event::None => SavedEvent::None,
            Event::EjectRequest => SavedEvent::EjectRequest,
            Event::NewMedia => SavedEvent::NewMedia,
            Event::Removal => SavedEvent::Removal,
            Event::Exchange => SavedEvent::Exchange,
        };
        let blocks = self.disc.map(|disc| disc.blocks);
        SavedTray { blocks, is_open: self.is_open, prevent: self.prevent & PREVENT_BITS, event }
    }

    /// Resumes from `saved`, with the disc that is in the tray now. If that disc differs from the
    /// saved one, or is absent, the guest gets an event.
    pub(super) fn restore(&mut self, saved: &SavedTray) {
        let event = match saved.event {
            SavedEvent::None => Event::None,
            SavedEvent::EjectRequest => Event::EjectRequest,
            SavedEvent::NewMedia => Event::NewMedia,
            SavedEvent::Removal => Event::Removal,
            SavedEvent::Exchange => Event::Exchange,
        };
        let (blocks, prevent) = (self.disc.map(|disc| disc.blocks), saved.prevent & PREVENT_BITS);
        (self.event, self.prevent, self.is_open) = match (saved.blocks, blocks) {
            (before, now) if before == now => (event, prevent, saved.is_open && now.is_none()),
            (Some(_), Some(_)) => (Event::Exchange, 0, false),
            (Some(_), None) => (Event::Removal, 0, false),
            (None, _) if event == Event::Removal => (Event::Exchange, 0, false),
            (None, _) => (Event::NewMedia, 0, false),
        };
    }

    fn remove(&mut self) -> bool {
        self.is_open = true;
        let had_disc = self.disc.take().is_some();
        if had_disc {
            self.event = Event::Removal;
        } else if self.event == Event::EjectRequest {
            self.event = Event::None;
        }
        // The lock was for the disc that has been removed.
        self.unlock();
        had_disc
    }
}
