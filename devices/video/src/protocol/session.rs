//! The protocol state of one channel.

use serde::{Deserialize, Serialize};

use super::limits::PAGE;
use super::message::{GuestMessage, Malformed, Situation};
use super::mode::{Mode, ModeError, Resolution};
use super::pointer::{PointerParts, PointerShape};
use super::region::Rectangle;
use super::reply;
use super::version::Version;

/// The protocol state of one open channel.
#[derive(Clone, Debug)]
pub struct Session {
    vram: u64,
    version: Option<Version>,
    address: Option<u64>,
    mode: Option<Mode>,
    /// The guest was asked for rectangles since its last active situation.
    are_features_sent: bool,
    parts: PointerParts,
}

/// The result of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Messages to the guest, in their order: at most two.
    pub replies: Vec<Vec<u8>>,
    /// The change of the screen.
    pub effect: Effect,
    /// The part of the message that was refused, although it was answered.
    pub refused: Option<Rejected>,
}

/// A change of the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// None.
    #[default]
    None,
    /// Video memory is to be at this guest physical address, or nowhere. The host decides whether
    /// it can be there, and calls [`Session::placed`] if so.
    Place(Option<u64>),
    /// The mode is [`Session::mode`] from now on.
    Mode,
    /// These pixels have changed. They are on the screen.
    Dirty(Vec<Rectangle>),
    /// The pointer has moved.
    PointerPosition {
        /// Whether it is visible.
        is_visible: bool,
        /// The column of the pixel that points. May be outside of the screen.
        x: i32,
        /// The row of the pixel that points. May be outside of the screen.
        y: i32,
    },
    /// The pointer has another shape.
    PointerShape(PointerShape),
}

/// The error of a message that has no effect. The channel remains open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The packet is no message.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// A version comes first.
    #[error("a message before the version is agreed")]
    NoVersion,
    /// The version is not supported.
    #[error("a request for version {0:#x}")]
    Version(u32),
    /// The address is no start of a page.
    #[error("video memory at {0:#x}, which is no page")]
    Address(u64),
    /// The mode cannot be shown.
    #[error("a mode with {0}")]
    Mode(#[from] ModeError),
    /// The shape is too large, or its parts are out of order.
    #[error("a pointer's shape whose parts do not fit")]
    Shape,
}

/// The saved state of a session. A restore checks all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSession {
    version: Option<Version>,
    address: Option<u64>,
    mode: Option<Mode>,
    are_features_sent: bool,
}

impl Session {
    /// Returns the state of a channel that was just opened, over video memory of `vram` bytes.
    pub fn new(vram: u64) -> Self {
        let (version, address, mode, parts) = (None, None, None, PointerParts::default());
        Self { vram, version, address, mode, are_features_sent: false, parts }
    }

    /// Handles a packet of the guest. `resolutions`: the list to offer, the default first; every
    /// one fits into video memory.
    ///
    /// # Errors
    /// [`Rejected`]: the packet has no effect and no answer.
    pub fn handle(
        &mut self,
        packet: &[u8],
        resolutions: &[Resolution],
    ) -> Result<Outcome, Rejected> {
        let message = GuestMessage::read(packet)?;
        if self.version.is_none() && !matches!(message, GuestMessage::Version(_)) {
            return Err(Rejected::NoVersion);
        }
        Ok(match message {
            GuestMessage::Version(word) => self.negotiate(word),
            GuestMessage::VramLocation { context, address } => Self::locate(context, address),
            GuestMessage::Situation { context, situation } => self.situation(context, situation),
            GuestMessage::PointerPosition { is_visible, x, y } => {
                Outcome::effect(Effect::PointerPosition { is_visible, x, y })
            }
            GuestMessage::PointerShape(part) => match self.parts.add(&part) {
                Ok(Some(shape)) => Outcome::effect(Effect::PointerShape(shape)),
                Ok(None) => Outcome::default(),
                Err(_) => return Err(Rejected::Shape),
            },
            GuestMessage::Dirt(rectangles) => Outcome::effect(self.dirty(rectangles)),
            GuestMessage::BiosInfo => Outcome::reply(reply::bios_info()),
            GuestMessage::Resolutions(most) => {
                let count = resolutions.len().min(most.into());
                let list = resolutions.get(..count).unwrap_or_default();
                Outcome::reply(reply::resolutions(list))
            }
            GuestMessage::Capability => Outcome::reply(reply::capability()),
        })
    }

    /// Notes that video memory is at `address` now.
    pub fn placed(&mut self, address: Option<u64>) {
        self.address = address;
    }

    /// Returns the agreed version.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Returns the guest physical address of video memory, if it has one.
    pub fn address(&self) -> Option<u64> {
        self.address
    }

    /// Returns the mode of the screen. `None`: it is blank.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Returns the state to save.
    pub fn save(&self) -> SavedSession {
        SavedSession {
            version: self.version,
            address: self.address,
            mode: self.mode,
            are_features_sent: self.are_features_sent,
        }
    }

    /// Returns the session with a saved state. A pointer's shape of which parts were missing is
    /// lost.
    ///
    /// # Errors
    /// The state is not one of a device with this video memory.
    pub fn restore(saved: &SavedSession, vram: u64) -> Result<Self, Rejected> {
        if let Some(address) = saved.address.filter(|address| !address.is_multiple_of(PAGE)) {
            return Err(Rejected::Address(address));
        }
        if saved.version.is_none() && *saved != SavedSession::default() {
            return Err(Rejected::NoVersion);
        }
        let mode = saved.mode.map(|mode| mode.check(vram)).transpose()?;
        let SavedSession { version, address, are_features_sent, .. } = *saved;
        Ok(Self { vram, version, address, mode, are_features_sent, parts: PointerParts::default() })
    }

    fn negotiate(&mut self, word: u32) -> Outcome {
        match Version::from_word(word) {
            Some(version) => {
                self.version = Some(version);
                Outcome::reply(reply::version(word, true))
            }
            None => Outcome {
                refused: Some(Rejected::Version(word)),
                ..Outcome::reply(reply::version(word, false))
            },
        }
    }

    /// The guest waits for the acknowledgement even if its address is refused.
    fn locate(context: u64, address: Option<u64>) -> Outcome {
        let outcome = Outcome::reply(reply::location(context));
        match address {
            Some(address) if !address.is_multiple_of(PAGE) => {
                Outcome { refused: Some(Rejected::Address(address)), ..outcome }
            }
            address => Outcome { effect: Effect::Place(address), ..outcome },
        }
    }

    fn situation(&mut self, context: u64, situation: Situation) -> Outcome {
        let mut outcome = Outcome::reply(reply::situation(context));
        let Situation { is_active, offset, depth, width, height, stride } = situation;
        if !is_active {
            self.mode = None;
            self.are_features_sent = false;
            return Outcome { effect: Effect::Mode, ..outcome };
        }
        match Mode::new((width, height), depth, stride, offset, self.vram) {
            Ok(mode) => {
                self.mode = Some(mode);
                outcome.effect = Effect::Mode;
                // Once: a guest may answer this request with its situation.
                if !self.are_features_sent {
                    self.are_features_sent = true;
                    outcome.replies.push(reply::feature_change());
                }
                outcome
            }
            Err(error) => Outcome { refused: Some(error.into()), ..outcome },
        }
    }

    fn dirty(&self, rectangles: &[[u8; 16]]) -> Effect {
        let Some(mode) = self.mode else { return Effect::None };
        let clip = |bytes: &[u8; 16]| {
            let mut corners = [0; 4];
            for (corner, bytes) in corners.iter_mut().zip(bytes.as_chunks().0) {
                *corner = i32::from_le_bytes(*bytes);
            }
            Rectangle::clipped(corners, mode.width(), mode.height())
        };
        Effect::Dirty(rectangles.iter().filter_map(clip).collect())
    }
}

impl Outcome {
    fn reply(reply: Vec<u8>) -> Self {
        Self { replies: vec![reply], ..Self::default() }
    }

    fn effect(effect: Effect) -> Self {
        Self { effect, ..Self::default() }
    }
}
