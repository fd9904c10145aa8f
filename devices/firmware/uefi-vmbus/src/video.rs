//! The synthetic video device (hid-video section 4), from the guest's side: version, resolutions,
//! the place of video memory, the mode, and changed pixels.

use alloc::vec::Vec;

use vmbus_client::{Client, Platform};
use vmbus_protocol::Guid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::error::DisplayError;
use crate::messages::Messages;

/// {da0a7802-e377-4aac-8e77-0558eb1073f8}: the class of video devices.
pub const VIDEO: Guid =
    Guid::new(0xda0a_7802, 0xe377, 0x4aac, [0x8e, 0x77, 0x05, 0x58, 0xeb, 0x10, 0x73, 0xf8]);

/// Version 3.5, the newest: the first that lists resolutions.
const VERSION: u32 = 5 << 16 | 3;

/// The most resolutions that the driver takes.
const MAX_MODES: u8 = 64;

/// The most bytes of a message: a list of [`MAX_MODES`] resolutions.
const MAX_MESSAGE: usize = 512;

/// Bytes of a message's header: type and size.
const HEADER: usize = 8;

/// Offset of the count in the body of the list of resolutions: an EDID block precedes it.
const MODES_COUNT: usize = 128;

/// Bits of a pixel.
const DEPTH: u8 = 32;

/// Bytes of a pixel: blue, green, red, unused.
pub const PIXEL_BYTES: u32 = 4;

mod kind {
    pub(super) const VERSION_REQUEST: u32 = 1;
    pub(super) const VERSION_RESPONSE: u32 = 2;
    pub(super) const VRAM_LOCATION: u32 = 3;
    pub(super) const VRAM_LOCATION_ACK: u32 = 4;
    pub(super) const SITUATION_UPDATE: u32 = 5;
    pub(super) const SITUATION_UPDATE_ACK: u32 = 6;
    pub(super) const DIRT: u32 = 10;
    pub(super) const RESOLUTION_REQUEST: u32 = 13;
    pub(super) const RESOLUTION_RESPONSE: u32 = 14;
}

/// A width and a height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Pixels of a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

impl Resolution {
    /// Returns the bytes of a row.
    #[must_use]
    pub fn row_bytes(self) -> u32 {
        self.width * PIXEL_BYTES
    }

    /// Returns the bytes of a frame.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.row_bytes()) * u64::from(self.height)
    }
}

/// A rectangle of pixels on the screen. Right and bottom are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The first column.
    pub left: u32,
    /// The first row.
    pub top: u32,
    /// The column behind the last one.
    pub right: u32,
    /// The row below the last one.
    pub bottom: u32,
}

impl Area {
    /// Returns the rectangle of `width` by `height` pixels at (`x`, `y`). `None`: it is empty, or
    /// not all of it is on the screen.
    #[must_use]
    pub fn new(
        (x, y): (usize, usize),
        (width, height): (usize, usize),
        on: Resolution,
    ) -> Option<Self> {
        let end = |start: usize, length: usize, limit: u32| {
            let end = u32::try_from(start.checked_add(length)?).ok()?;
            (length != 0 && end <= limit).then_some(end)
        };
        let (right, bottom) = (end(x, width, on.width)?, end(y, height, on.height)?);
        Some(Self { left: u32::try_from(x).ok()?, top: u32::try_from(y).ok()?, right, bottom })
    }

    fn union(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }
}

/// The video device, with an open channel.
#[derive(Debug)]
pub struct Video {
    messages: Messages,
    modes: Vec<Resolution>,
    preferred: usize,
    mode: usize,
    /// Changed pixels of which the host does not know yet.
    dirty: Option<Area>,
}

/// A message from the guest.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C, packed)]
struct Message<T> {
    kind: U32,
    size: U32,
    body: T,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C, packed)]
struct Location {
    context: U64,
    is_given: u8,
    address: U64,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C, packed)]
struct Situation {
    context: U64,
    outputs: u8,
    is_active: u8,
    offset: U32,
    depth: u8,
    width: U32,
    height: U32,
    row_bytes: U32,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C, packed)]
struct Dirt {
    output: u8,
    count: u8,
    corners: [U32; 4],
}

impl Video {
    /// Opens the channel of the device `instance`, and agrees on version and resolutions.
    /// `vram_bytes`: the size of video memory, which the offer names.
    ///
    /// # Errors
    /// [`DisplayError`]; no channel is left open.
    pub fn open<P: Platform>(
        client: &mut Client<P>,
        instance: Guid,
        vram_bytes: u64,
    ) -> Result<Self, DisplayError> {
        let messages = Messages::open(client, (VIDEO, instance), true, MAX_MESSAGE)?;
        let mut video = Self { messages, modes: Vec::new(), preferred: 0, mode: 0, dirty: None };
        match video.negotiate(client, vram_bytes) {
            Ok(()) => Ok(video),
            Err(error) => {
                video.messages.close(client);
                Err(error)
            }
        }
    }

    /// Returns the resolutions that video memory holds. There is at least one.
    #[must_use]
    pub fn modes(&self) -> &[Resolution] {
        &self.modes
    }

    /// Returns the index of the resolution that the host prefers.
    #[must_use]
    pub fn preferred(&self) -> usize {
        self.preferred
    }

    /// Returns the resolution of the present mode.
    #[must_use]
    pub fn resolution(&self) -> Resolution {
        self.modes.get(self.mode).copied().unwrap_or(Resolution { width: 0, height: 0 })
    }

    /// Asks for video memory at this guest physical address. A host that cannot place it there
    /// answers all the same.
    ///
    /// # Errors
    /// [`DisplayError`].
    pub fn place<P: Platform>(
        &mut self,
        client: &mut Client<P>,
        address: u64,
    ) -> Result<(), DisplayError> {
        let body = Location { context: address.into(), is_given: 1, address: address.into() };
        self.ask(client, kind::VRAM_LOCATION, body, kind::VRAM_LOCATION_ACK, |_| Some(()))
    }

    /// Shows the mode of this index, with its first row at the start of video memory.
    ///
    /// # Errors
    /// [`DisplayError`].
    pub fn set_mode<P: Platform>(
        &mut self,
        client: &mut Client<P>,
        index: usize,
    ) -> Result<(), DisplayError> {
        let mode = *self.modes.get(index).ok_or(DisplayError::Mode(index))?;
        let body = Situation {
            context: 0.into(),
            outputs: 1,
            is_active: 1,
            offset: 0.into(),
            depth: DEPTH,
            width: mode.width.into(),
            height: mode.height.into(),
            row_bytes: mode.row_bytes().into(),
        };
        self.ask(client, kind::SITUATION_UPDATE, body, kind::SITUATION_UPDATE_ACK, |_| Some(()))?;
        self.mode = index;
        // The change of the mode has told the host that all pixels have changed.
        self.dirty = None;
        Ok(())
    }

    /// Notes changed pixels, for the next [`Video::flush`].
    pub fn add_dirty(&mut self, area: Area) {
        self.dirty = Some(self.dirty.map_or(area, |dirty| dirty.union(area)));
    }

    /// Tells the host of changed pixels, if there are any, and drops messages of the host.
    pub fn flush<P: Platform>(&mut self, client: &mut Client<P>) {
        // Requests for features: the driver always tells of changes, and has no pointer.
        while self.messages.receive(client).is_some() {}
        let Some(area) = self.dirty.take() else { return };
        let corners = [area.left, area.top, area.right, area.bottom].map(U32::new);
        let dirt = message(kind::DIRT, Dirt { output: 0, count: 1, corners });
        // Without a channel, nobody looks at the screen.
        let _ = self.messages.send(client, dirt.as_bytes());
    }

    fn negotiate<P: Platform>(
        &mut self,
        client: &mut Client<P>,
        vram_bytes: u64,
    ) -> Result<(), DisplayError> {
        let accepted = |body: &[u8]| body.get(4).map(|&accepted| accepted != 0);
        let version = U32::new(VERSION);
        let (request, response) = (kind::VERSION_REQUEST, kind::VERSION_RESPONSE);
        if !self.ask(client, request, version, response, accepted)? {
            return Err(DisplayError::Version);
        }
        let (request, response) = (kind::RESOLUTION_REQUEST, kind::RESOLUTION_RESPONSE);
        let listed = |body: &[u8]| modes(body);
        let (modes, preferred) = self.ask(client, request, MAX_MODES, response, listed)?;
        let preferred = modes.get(preferred).copied();
        self.modes = modes.into_iter().filter(|mode| fits(*mode, vram_bytes)).collect();
        self.preferred =
            self.modes.iter().position(|mode| Some(*mode) == preferred).unwrap_or_default();
        if self.modes.is_empty() { Err(DisplayError::NoMode) } else { Ok(()) }
    }

    /// Sends a message, and returns the part of its answer's body that `take` finds.
    fn ask<P: Platform, T>(
        &self,
        client: &mut Client<P>,
        request: u32,
        body: impl IntoBytes + Immutable + Unaligned,
        response: u32,
        take: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, DisplayError> {
        self.messages.send(client, message(request, body).as_bytes())?;
        self.messages.wait(client, |answer| {
            let kind = answer.get(..4)?.try_into().map(u32::from_le_bytes).ok()?;
            (kind == response).then(|| take(answer.get(HEADER..)?)).flatten()
        })
    }
}

fn message<T: IntoBytes + Immutable + Unaligned>(kind: u32, body: T) -> Message<T> {
    // Bodies have a few bytes.
    Message { kind: kind.into(), size: (size_of::<T>() as u32).into(), body }
}

/// Returns the resolutions of RESOLUTION_RESPONSE, and the index of the default.
fn modes(body: &[u8]) -> Option<(Vec<Resolution>, usize)> {
    let [count, default, _standard, list @ ..] = body.get(MODES_COUNT..)? else {
        return None;
    };
    let (list, _) = list.as_chunks::<4>();
    let list = list.get(..usize::from((*count).min(MAX_MODES)))?;
    let modes = list.iter().map(|[w0, w1, h0, h1]| Resolution {
        width: u16::from_le_bytes([*w0, *w1]).into(),
        height: u16::from_le_bytes([*h0, *h1]).into(),
    });
    Some((modes.collect(), usize::from(*default)))
}

fn fits(mode: Resolution, vram_bytes: u64) -> bool {
    mode.width != 0 && mode.height != 0 && mode.bytes() <= vram_bytes
}
