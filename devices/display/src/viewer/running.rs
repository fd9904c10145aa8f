//! A viewer that has logged in: its messages, and what it is to be sent.

use std::collections::VecDeque;

use synthvm_input::Input;
use synthvm_input::protocol::keyboard::Leds;
use synthvm_video::protocol::Resolution;

use super::shared::Shared;
use crate::encode::{Encoding, Streams};
use crate::keyboard::Keyboard;
use crate::pointer::ViewerPointer;
use crate::protocol::{
    Area, ClientMessage, ClientReader, PixelFormat, PixelWriter, ProtocolError, RESIZE_FORWARDED,
    RESIZE_INVALID, RESIZE_PROHIBITED, colour_map, encoding, end_of_continuous_updates, fence,
};
use crate::security::Permission;
use crate::segments::{Move, SegmentSet};

/// The compression level of a viewer that prefers none.
const LEVEL: u8 = 1;

/// The flag of a fence that is a request.
const FENCE_REQUEST: u32 = 1 << 31;
/// The flag of a fence that comes after the answers to all messages before it.
const FENCE_BLOCK_BEFORE: u32 = 1;
/// The flags of fences that the server knows. It handles messages in their order, so it complies.
const FENCE_FLAGS: u32 = 7;

/// Updates without requests that the viewer has not processed, above which none is begun.
const MAX_UNPROCESSED: u32 = 2;

/// Answers to resize requests that wait, above which the oldest is dropped.
const MAX_RESIZE_ANSWERS: usize = 16;

/// What a viewer understands besides pixels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Abilities {
    pub(super) copy_rect: bool,
    pub(super) desktop_size: bool,
    pub(super) extended_desktop_size: bool,
    pub(super) cursor: bool,
    pub(super) cursor_with_alpha: bool,
    pub(super) pointer_position: bool,
    pub(super) leds: bool,
    pub(super) extended_keys: bool,
    pub(super) extended_buttons: bool,
    pub(super) fence: bool,
    pub(super) continuous_updates: bool,
}

/// The rectangles of the update in progress that are not encoded yet.
#[derive(Debug, Default)]
pub(super) struct Update(pub(super) VecDeque<Area>);

impl Update {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A viewer that has logged in.
#[derive(Debug)]
pub(crate) struct Running {
    permission: Permission,
    reader: ClientReader,
    keyboard: Keyboard,
    pointer: ViewerPointer,
    pub(super) abilities: Abilities,
    pub(super) writer: Box<PixelWriter>,
    /// The format of updates after the present one.
    next_format: Option<PixelFormat>,
    pub(super) encoding: Encoding,
    pub(super) level: u8,
    pub(super) streams: Streams,
    /// The size of the screen as the viewer knows it.
    pub(super) size: (u16, u16),
    /// Moves that the viewer has not got, in their order.
    pub(super) moves: Vec<Move>,
    /// Segments that the viewer has not got after the moves.
    pub(super) dirty: SegmentSet,
    /// The viewer cannot learn of another size, and has not got the screen's part that it sees.
    pub(super) is_cut: bool,
    /// The area of requests that are not answered.
    pub(super) request: Option<Area>,
    /// The area of updates without requests.
    pub(super) continuous: Option<Area>,
    /// The update in progress.
    pub(super) update: Update,
    /// Messages that wait for the end of the update in progress.
    deferred: Vec<u8>,
    unprocessed: u32,
    /// Reasons and statuses of sizes to tell.
    pub(super) sizes: Vec<(u16, u16)>,
    pub(super) is_shape_changed: bool,
    /// Whether the viewer shows a shape of the guest's, or none, and no longer its own.
    pub(super) has_shape: bool,
    pub(super) is_pointer_moved: bool,
    pub(super) leds: Option<Leds>,
    pub(super) announces_keys: bool,
    pub(super) announces_buttons: bool,
    has_moved: bool,
}

impl Running {
    pub(super) fn new(permission: Permission, width: u16, height: u16) -> Self {
        Self {
            permission,
            reader: ClientReader::default(),
            keyboard: Keyboard::default(),
            pointer: ViewerPointer::default(),
            abilities: Abilities::default(),
            writer: Box::new(PixelWriter::new(PixelFormat::NATIVE)),
            next_format: None,
            encoding: Encoding::Raw,
            level: LEVEL,
            streams: Streams::default(),
            size: (width, height),
            moves: Vec::new(),
            dirty: SegmentSet::full(width, height),
            is_cut: false,
            request: None,
            continuous: None,
            update: Update::default(),
            deferred: Vec::new(),
            unprocessed: 0,
            sizes: Vec::new(),
            is_shape_changed: false,
            has_shape: false,
            is_pointer_moved: false,
            leds: None,
            announces_keys: false,
            announces_buttons: false,
            has_moved: false,
        }
    }

    /// Returns whether the viewer waits for an update, and none is in progress.
    pub(super) fn wants_update(&self) -> bool {
        let is_continuous = self.continuous.is_some() && self.unprocessed < MAX_UNPROCESSED;
        self.update.is_empty() && (self.request.is_some() || is_continuous)
    }

    /// Returns whether an update is in progress.
    pub(super) fn is_updating(&self) -> bool {
        !self.update.is_empty()
    }

    /// Returns whether the viewer has moved the pointer since the last call.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Notes that the guest's pointer has another shape, appeared or disappeared.
    pub(crate) fn change_shape(&mut self) {
        self.is_shape_changed = true;
    }

    /// Notes that the guest's pointer has moved, not by this viewer.
    pub(crate) fn move_pointer(&mut self) {
        self.is_pointer_moved = true;
    }

    /// Releases the keys and buttons that the viewer holds.
    pub(super) fn leave(&mut self, input: &Input) {
        let releases = self.keyboard.release_all();
        // Each may fail alone: a release whose press was dropped.
        for event in releases {
            let _ = input.key(event);
        }
        if let Some(report) = self.pointer.release_all(self.size) {
            let _ = input.pointer(report);
        }
    }

    /// Begins an update if none is in progress, and encodes a rectangle of it, or several small
    /// ones. Returns whether there was something to do.
    pub(super) fn progress(&mut self, shared: &mut Shared<'_>, out: &mut Vec<u8>) -> bool {
        if self.update.is_empty() {
            if let Some(format) = self.next_format.take() {
                *self.writer = PixelWriter::new(format);
                // They are for pixels of the format before.
                self.drop_moves();
                self.is_shape_changed = true;
            }
            out.append(&mut self.deferred);
            if !(self.wants_update() && self.begin_update(shared, out)) {
                return false;
            }
            shared.counters.updates.add(1);
        }
        // Together with the update's head, so that one call to the system writes both.
        self.encode_next(shared, out);
        if self.update.is_empty() && self.continuous.is_some() && self.abilities.fence {
            // The answer shows that the viewer has processed the update.
            out.extend(fence(FENCE_REQUEST | FENCE_BLOCK_BEFORE, &[]));
            self.unprocessed += 1;
        }
        true
    }

    /// Handles a message at the start of `bytes`. Returns its length; `None`: more bytes are
    /// needed.
    ///
    /// # Errors
    /// The rest cannot be read.
    pub(super) fn handle(
        &mut self,
        bytes: &[u8],
        shared: &Shared<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, ProtocolError> {
        let Some((message, length)) = self.reader.read(bytes)? else { return Ok(None) };
        if let Some(message) = message {
            self.message(message, shared);
        }
        if self.update.is_empty() {
            out.append(&mut self.deferred);
        }
        Ok(Some(length))
    }

    /// Returns the number of bytes that wait for the end of the update in progress.
    pub(super) fn deferred_bytes(&self) -> usize {
        self.deferred.len()
    }

    fn message(&mut self, message: ClientMessage, shared: &Shared<'_>) {
        match message {
            ClientMessage::SetPixelFormat(format) => {
                self.next_format = Some(format);
                // A viewer may show its colours only once the screen is sent again.
                if format.has_colour_map() {
                    self.deferred.extend(colour_map());
                }
            }
            ClientMessage::SetEncodings(encodings) => self.set_encodings(&encodings),
            ClientMessage::UpdateRequest { is_incremental, area } => {
                self.request(is_incremental, area);
            }
            ClientMessage::ContinuousUpdates { is_enabled, area } => {
                self.continuous = is_enabled.then_some(area);
                if !is_enabled {
                    self.deferred.extend(end_of_continuous_updates());
                }
            }
            ClientMessage::Fence { flags, payload } => match flags & FENCE_REQUEST {
                0 => self.unprocessed = self.unprocessed.saturating_sub(1),
                _ => self.deferred.extend(fence(flags & FENCE_FLAGS, &payload)),
            },
            ClientMessage::CutText | ClientMessage::Ignored => {}
            ClientMessage::SetDesktopSize { width, height, is_one_screen } => {
                let status = self.request_size(width, height, is_one_screen, shared);
                self.tell_size(1, status);
            }
            ClientMessage::Key { .. }
            | ClientMessage::ExtendedKey { .. }
            | ClientMessage::Pointer { .. }
                if self.permission == Permission::ViewOnly => {}
            ClientMessage::Key { is_pressed, symbol } => {
                send_keys(&self.keyboard.symbol(symbol, is_pressed), shared.input);
            }
            ClientMessage::ExtendedKey { is_pressed, symbol, code } => {
                send_keys(&self.keyboard.code(code, symbol, is_pressed), shared.input);
            }
            ClientMessage::Pointer { buttons, x, y } => {
                self.has_moved = true;
                // Refused before the guest's driver has connected; the device counts it.
                let _ = shared.input.pointer(self.pointer.event(buttons, x, y, self.size));
            }
        }
    }

    fn set_encodings(&mut self, encodings: &[i32]) {
        let has = |number| encodings.contains(&number);
        let before = self.abilities;
        self.abilities = Abilities {
            copy_rect: has(encoding::COPY_RECT),
            desktop_size: has(encoding::DESKTOP_SIZE),
            extended_desktop_size: has(encoding::EXTENDED_DESKTOP_SIZE),
            cursor: has(encoding::CURSOR),
            cursor_with_alpha: has(encoding::CURSOR_WITH_ALPHA),
            pointer_position: has(encoding::POINTER_POSITION),
            leds: has(encoding::LEDS),
            extended_keys: has(encoding::EXTENDED_KEYS),
            extended_buttons: has(encoding::EXTENDED_BUTTONS),
            fence: has(encoding::FENCE),
            continuous_updates: has(encoding::CONTINUOUS_UPDATES),
        };
        let now = self.abilities;
        if !now.copy_rect {
            self.drop_moves();
        }
        self.encoding =
            encodings.iter().find_map(|one| Encoding::from_number(*one)).unwrap_or(Encoding::Raw);
        let levels = encodings.iter().filter_map(|one| one.checked_sub(encoding::COMPRESSION_0));
        let level = levels.filter_map(|one| u8::try_from(one).ok()).find(|level| *level <= 9);
        self.level = level.unwrap_or(LEVEL);
        self.reader.has_extended_buttons = now.extended_buttons;
        self.announces_keys |= now.extended_keys && !before.extended_keys;
        self.announces_buttons |= now.extended_buttons && !before.extended_buttons;
        self.is_shape_changed |= now.cursor || now.cursor_with_alpha;
        if now.extended_desktop_size && !before.extended_desktop_size {
            self.tell_size(0, 0);
        }
        if now.leds && !before.leds {
            self.leds = None;
        }
        if now.continuous_updates && !before.continuous_updates {
            self.deferred.extend(end_of_continuous_updates());
        }
        if now.fence && !before.fence {
            self.deferred.extend(fence(FENCE_REQUEST, &[]));
            self.unprocessed += 1;
        }
    }

    fn request(&mut self, is_incremental: bool, area: Area) {
        if !is_incremental {
            self.dirty.add_area(area);
            self.is_shape_changed = true;
            if self.abilities.extended_desktop_size {
                self.tell_size(0, 0);
            }
        }
        self.request = Some(self.request.map_or(area, |known| union(known, area)));
    }

    /// Asks the guest for a size, and returns the status.
    fn request_size(
        &self,
        width: u16,
        height: u16,
        is_one_screen: bool,
        shared: &Shared<'_>,
    ) -> u16 {
        if self.permission == Permission::ViewOnly {
            return RESIZE_PROHIBITED;
        }
        let resolution = Resolution::new(width, height);
        match is_one_screen && shared.screen.request_resolution(resolution).is_ok() {
            true => RESIZE_FORWARDED,
            false => RESIZE_INVALID,
        }
    }

    fn tell_size(&mut self, reason: u16, status: u16) {
        if self.sizes.contains(&(reason, status)) && reason == 0 {
            return;
        }
        if self.sizes.len() == MAX_RESIZE_ANSWERS {
            self.sizes.remove(0);
        }
        self.sizes.push((reason, status));
    }
}

/// Sends all events or none, so that no key stays pressed.
fn send_keys(events: &[synthvm_input::KeyEvent], input: &Input) {
    // The device counts what it refuses.
    let _ = match events {
        // A release is taken even by a full queue.
        [event] => input.key(*event),
        events => input.keys(events),
    };
}

/// Returns the smallest area with both.
fn union(one: Area, other: Area) -> Area {
    let end = |start: u16, length: u16| start.saturating_add(length);
    let (x, y) = (one.x.min(other.x), one.y.min(other.y));
    let right = end(one.x, one.width).max(end(other.x, other.width));
    let bottom = end(one.y, one.height).max(end(other.y, other.height));
    Area { x, y, width: right - x, height: bottom - y }
}
