//! The order of messages on a channel, as a state machine without time and without memory.

use serde::{Deserialize, Serialize};

use super::message::{GuestMessage, HostMessage, HotAddOutcome, MAX_RANGES, Pressure, Rejected};
use super::{PageRange, Version};

/// Maximum messages of one unballoon request.
pub const MAX_UNBALLOON_MESSAGES: usize = 4;

/// Maximum ranges of one unballoon request.
pub const MAX_UNBALLOON_RANGES: usize = MAX_UNBALLOON_MESSAGES * MAX_RANGES;

/// The state of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    phase: Phase,
    version: Option<Version>,
    capabilities: Capabilities,
    request: Option<Request>,
    /// Pages that the guest may still give in answers to balloon requests, forgotten ones included.
    owed: u32,
    transaction: u32,
    /// The largest number of pages that the guest can ever have.
    max_pages: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Waits for a version that it supports.
    Version,
    /// Waits for the capabilities.
    Capabilities,
    /// Requests may be sent.
    Ready,
}

/// The guest's capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Whether the guest has a balloon.
    pub balloon: bool,
    /// Whether memory can be added.
    pub hot_add: bool,
    /// The alignment of added memory is 2 to this power in MiB.
    pub alignment: u8,
}

impl Capabilities {
    /// Returns the alignment of added memory in pages.
    pub const fn alignment_pages(self) -> u64 {
        256 << (self.alignment & 0xF)
    }
}

/// A request without an answer. There is one at a time, as Linux drops a balloon request during a
/// hot add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The guest is to give pages.
    Balloon,
    /// The guest is to take pages back.
    Unballoon,
    /// The guest is to add memory.
    HotAdd(PageRange),
}

/// The effect of a message of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but the replies.
    None,
    /// The guest accepts requests from here on.
    Ready,
    /// It reports its memory pressure.
    Pressure(Pressure),
    /// It gives pages.
    Ballooned {
        /// The pages, which may be anything.
        ranges: Vec<PageRange>,
        /// Whether the request is answered.
        is_last: bool,
    },
    /// It has taken the pages that it was given back.
    Unballooned,
    /// It has answered a hot add.
    HotAdded {
        /// The memory that it was to add.
        range: PageRange,
        /// The outcome; it never added more than `range`.
        outcome: HotAddOutcome,
    },
}

/// The effect of a message, and the messages that it causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Messages to the guest.
    pub replies: Vec<Vec<u8>>,
    /// The effect.
    pub event: Event,
    /// A reason to log, although the message was handled.
    pub refused: Option<Rejected>,
}

impl Session {
    /// Returns the state of a channel that was just opened. `max_pages`: the largest number of
    /// pages that the guest can ever have.
    pub fn new(max_pages: u64) -> Self {
        Self {
            phase: Phase::Version,
            version: None,
            capabilities: Capabilities::default(),
            request: None,
            owed: 0,
            transaction: 0,
            max_pages,
        }
    }

    /// Returns the version; `None` before the guest and the host have agreed.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Returns the guest's capabilities; all absent before the guest reported them.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Returns whether requests may be sent, except that one may wait for its answer.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Returns the request that waits for its answer.
    pub fn request(&self) -> Option<Request> {
        self.request
    }

    /// Returns whether a request may be sent now.
    pub fn may_request(&self) -> bool {
        self.is_ready() && self.request.is_none()
    }

    /// Handles a packet.
    ///
    /// # Errors
    /// [`Rejected`]: it has no effect.
    pub fn handle(&mut self, packet: &[u8]) -> Result<Outcome, Rejected> {
        let (message, transaction) = GuestMessage::parse(packet)?;
        let event = match message {
            GuestMessage::Version { version, is_last } => {
                return self.negotiate(version, is_last, transaction);
            }
            GuestMessage::Capabilities { balloon, hot_add, alignment } => {
                if self.phase != Phase::Capabilities {
                    return Err(Rejected::Order("report of capabilities"));
                }
                return Ok(self.accept(Capabilities { balloon, hot_add, alignment }, transaction));
            }
            _ if self.phase != Phase::Ready => {
                return Err(Rejected::Order("message before the capabilities"));
            }
            GuestMessage::Status(pressure) => Event::Pressure(pressure),
            GuestMessage::Ballooned { ranges, more } => self.ballooned(ranges, more)?,
            GuestMessage::Unballooned => {
                if self.request != Some(Request::Unballoon) {
                    return Err(Rejected::NotAsked("taking of pages"));
                }
                self.request = None;
                Event::Unballooned
            }
            GuestMessage::HotAdded(outcome) => {
                let Some(Request::HotAdd(range)) = self.request else {
                    return Err(Rejected::NotAsked("hot add"));
                };
                self.request = None;
                let outcome = match outcome {
                    HotAddOutcome::Added(pages) => {
                        let most = u32::try_from(range.pages).unwrap_or(u32::MAX);
                        HotAddOutcome::Added(pages.min(most))
                    }
                    other => other,
                };
                Event::HotAdded { range, outcome }
            }
        };
        Ok(Outcome { replies: Vec::new(), event, refused: None })
    }

    fn negotiate(
        &mut self,
        version: Option<Version>,
        is_last: bool,
        transaction: u32,
    ) -> Result<Outcome, Rejected> {
        if self.phase != Phase::Version {
            return Err(Rejected::Order("version request"));
        }
        if version.is_some() {
            self.version = version;
            self.phase = Phase::Capabilities;
        }
        let reply = HostMessage::VersionResponse(version.is_some()).to_bytes(transaction);
        let refused = (version.is_none() && is_last).then_some(Rejected::NoVersion);
        Ok(Outcome { replies: vec![reply], event: Event::None, refused })
    }

    fn accept(&mut self, capabilities: Capabilities, transaction: u32) -> Outcome {
        self.capabilities = capabilities;
        self.phase = Phase::Ready;
        let mut replies = vec![HostMessage::CapabilitiesResponse.to_bytes(transaction)];
        if self.version >= Some(Version::V1_0) {
            replies.push(self.number(&HostMessage::MaxPages(self.max_pages)));
        }
        Outcome { replies, event: Event::Ready, refused: None }
    }

    fn ballooned(&mut self, ranges: Vec<PageRange>, more: bool) -> Result<Event, Rejected> {
        let pages = ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.pages));
        let is_asked = self.owed > 0 || self.request == Some(Request::Balloon);
        if !is_asked || pages > self.owed.into() {
            return Err(Rejected::NotAsked("balloon response"));
        }
        self.owed -= u32::try_from(pages).unwrap_or(self.owed);
        if !more {
            self.owed = 0;
            if self.request == Some(Request::Balloon) {
                self.request = None;
            }
        }
        Ok(Event::Ballooned { ranges, is_last: !more })
    }

    /// Asks the guest for `pages` pages. `None`: no request may be sent now, or the guest has no
    /// balloon.
    pub fn balloon(&mut self, pages: u32) -> Option<Vec<u8>> {
        if !self.may_request() || !self.capabilities.balloon || pages == 0 {
            return None;
        }
        self.request = Some(Request::Balloon);
        self.owed = self.owed.saturating_add(pages);
        Some(self.number(&HostMessage::BalloonRequest(pages)))
    }

    /// Gives pages back to the guest: at most [`MAX_UNBALLOON_RANGES`] ranges that it gave before.
    /// Returns the messages; none if no request may be sent now.
    pub fn unballoon(&mut self, ranges: &[PageRange]) -> Vec<Vec<u8>> {
        if !self.may_request() || ranges.is_empty() || ranges.len() > MAX_UNBALLOON_RANGES {
            return Vec::new();
        }
        self.request = Some(Request::Unballoon);
        let last = ranges.len().div_ceil(MAX_RANGES) - 1;
        let chunks = ranges.chunks(MAX_RANGES).enumerate();
        chunks
            .map(|(index, ranges)| {
                self.number(&HostMessage::UnballoonRequest { ranges, more: index < last })
            })
            .collect()
    }

    /// Asks the guest to add memory. `None`: no request may be sent now, the guest takes no memory,
    /// or the range is empty, too large or not aligned as the guest needs it.
    pub fn hot_add(&mut self, range: PageRange) -> Option<Vec<u8>> {
        let alignment = self.capabilities.alignment_pages();
        let fits = range.pages > 0
            && range.pages <= PageRange::MAX_PAGES
            && range.first.is_multiple_of(alignment)
            && range.pages.is_multiple_of(alignment);
        if !self.may_request() || !self.capabilities.hot_add || !fits {
            return None;
        }
        self.request = Some(Request::HotAdd(range));
        Some(self.number(&HostMessage::HotAddRequest(range)))
    }

    /// Gives up waiting for the answer to a request. A later answer to a balloon request still
    /// counts: the guest has taken the pages from its programs.
    pub fn forget_request(&mut self) {
        self.request = None;
    }

    fn number(&mut self, message: &HostMessage<'_>) -> Vec<u8> {
        self.transaction = self.transaction.wrapping_add(1);
        message.to_bytes(self.transaction)
    }
}
