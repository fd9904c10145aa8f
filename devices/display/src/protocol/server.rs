//! Messages of the server.

use synthvm_input::protocol::keyboard::Leds;
use synthvm_video::protocol::PointerShape;

use super::area::Area;
use super::encoding;
use super::pixel_format::{PixelFormat, PixelWriter};

/// The status of a resize request: forbidden to this viewer.
pub const RESIZE_PROHIBITED: u16 = 1;
/// The status of a resize request: a layout that the screen cannot have.
pub const RESIZE_INVALID: u16 = 3;
/// The status of a resize request: forwarded to the guest, which may act on it later.
pub const RESIZE_FORWARDED: u16 = 4;

/// The number of the one screen.
pub const SCREEN_ID: u32 = 1;

/// Returns the message that ends the log-in: size, the server's pixel format, the desktop's name.
pub fn server_init(width: u16, height: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(24 + name.len());
    message.extend(width.to_be_bytes());
    message.extend(height.to_be_bytes());
    message.extend(PixelFormat::NATIVE.to_bytes());
    message.extend(u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
    message.extend(name.as_bytes());
    message
}

/// Returns the colours of [`PixelFormat::has_colour_map`]'s pixels: three bits of red and green and
/// two of blue, from the lowest bit on.
pub fn colour_map() -> Vec<u8> {
    let mut message = vec![1, 0, 0, 0, 1, 0];
    for index in 0..=255_u32 {
        let colours = [(index & 7, 7), (index >> 3 & 7, 7), (index >> 6, 3)];
        for (value, max) in colours {
            let scaled = u16::try_from(value * 0xFFFF / max).unwrap_or(u16::MAX);
            message.extend(scaled.to_be_bytes());
        }
    }
    message
}

/// Returns the message that continuous updates have ended. The first one offers them.
pub fn end_of_continuous_updates() -> Vec<u8> {
    vec![150]
}

/// Returns a fence.
pub fn fence(flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![248, 0, 0, 0];
    message.extend(flags.to_be_bytes());
    message.push(u8::try_from(payload.len()).unwrap_or(0));
    message.extend(payload);
    message
}

/// Writes the head of an update and the rectangles that are no pixels of the screen.
#[derive(Debug)]
pub struct UpdateWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> UpdateWriter<'a> {
    /// Begins an update of `rectangles` rectangles.
    pub fn begin(out: &'a mut Vec<u8>, rectangles: u16) -> Self {
        out.extend([0, 0]);
        out.extend(rectangles.to_be_bytes());
        Self { out }
    }

    /// Continues an update.
    pub fn resume(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes the head of a rectangle.
    pub fn head(&mut self, area: Area, encoding: i32) {
        let Area { x, y, width, height } = area;
        self.out.extend([x, y, width, height].into_iter().flat_map(u16::to_be_bytes));
        self.out.extend(encoding.to_be_bytes());
    }

    /// Tells to copy a rectangle from elsewhere on the screen, as that is after the rectangles
    /// before.
    pub fn copy(&mut self, area: Area, x: u16, y: u16) {
        self.head(area, encoding::COPY_RECT);
        self.out.extend([x, y].into_iter().flat_map(u16::to_be_bytes));
    }

    /// Tells the size of the screen.
    pub fn desktop_size(&mut self, width: u16, height: u16) {
        self.head(Area { x: 0, y: 0, width, height }, encoding::DESKTOP_SIZE);
    }

    /// Tells the size of the screen, which is one; `reason` and `status` as the protocol has them.
    pub fn extended_desktop_size(&mut self, reason: u16, status: u16, width: u16, height: u16) {
        let area = Area { x: reason, y: status, width, height };
        self.head(area, encoding::EXTENDED_DESKTOP_SIZE);
        self.out.extend([1, 0, 0, 0]);
        self.out.extend(SCREEN_ID.to_be_bytes());
        self.out.extend([0, 0, width, height].into_iter().flat_map(u16::to_be_bytes));
        self.out.extend([0; 4]);
    }

    /// Tells that extended key events are understood.
    pub fn extended_keys(&mut self) {
        self.head(Area::default(), encoding::EXTENDED_KEYS);
    }

    /// Tells that pointer events with nine buttons are understood.
    pub fn extended_buttons(&mut self) {
        self.head(Area::default(), encoding::EXTENDED_BUTTONS);
    }

    /// Tells the LEDs.
    pub fn leds(&mut self, leds: Leds) {
        let bits = [(Leds::SCROLL_LOCK, 1), (Leds::NUM_LOCK, 2), (Leds::CAPS_LOCK, 4)];
        let bits = bits.into_iter().filter(|(led, _)| leds.contains(*led));
        self.head(Area::default(), encoding::LEDS);
        self.out.push(bits.map(|(_, bit)| bit).sum());
    }

    /// Tells the position of the guest's pointer.
    pub fn pointer_position(&mut self, x: u16, y: u16) {
        self.head(Area { x, y, width: 0, height: 0 }, encoding::POINTER_POSITION);
    }

    /// Sends the pointer's shape as pixels and a mask. `None`: no pointer.
    pub fn cursor(&mut self, shape: Option<&PointerShape>, writer: &PixelWriter) {
        self.head(shape.map(cursor_area).unwrap_or_default(), encoding::CURSOR);
        let Some(shape) = shape else { return };
        let (pixels, _) = shape.pixels.as_chunks::<4>();
        for pixel in pixels {
            let colour = u32::from_le_bytes(*pixel) & 0x00FF_FFFF;
            writer.put(writer.value(colour), self.out);
        }
        for row in pixels.chunks(shape.width.max(1) as usize) {
            for eight in row.chunks(8) {
                let bits = eight.iter().enumerate();
                self.out.push(bits.map(|(at, [.., alpha])| (alpha >> 7) << (7 - at)).sum());
            }
        }
    }

    /// Sends the pointer's shape as pixels with alpha, by which colours are multiplied. `None`: no
    /// pointer.
    pub fn cursor_with_alpha(&mut self, shape: Option<&PointerShape>) {
        let area = shape.map(cursor_area).unwrap_or_default();
        self.head(area, encoding::CURSOR_WITH_ALPHA);
        self.out.extend(encoding::RAW.to_be_bytes());
        let (pixels, _) = shape.map_or(&[][..], |shape| &shape.pixels).as_chunks::<4>();
        for [blue, green, red, alpha] in pixels {
            let scale = |colour: u8| (u16::from(colour) * u16::from(*alpha) / 255) as u8;
            self.out.extend([scale(*red), scale(*green), scale(*blue), *alpha]);
        }
    }
}

fn cursor_area(shape: &PointerShape) -> Area {
    let half = |number: u32| u16::try_from(number).unwrap_or(0);
    Area {
        x: half(shape.hot_x),
        y: half(shape.hot_y),
        width: half(shape.width),
        height: half(shape.height),
    }
}
