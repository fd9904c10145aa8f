//! Numbers of encodings, and of what a viewer says about itself with their numbers.

/// Pixels as they are.
pub const RAW: i32 = 0;
/// A rectangle that the viewer copies from elsewhere on its screen.
pub const COPY_RECT: i32 = 1;
/// Tight: palettes, and zlib by rectangle.
pub const TIGHT: i32 = 7;
/// ZRLE: palettes and runs by tile, and zlib over all.
pub const ZRLE: i32 = 16;
/// The lowest compression level; nine more follow.
pub const COMPRESSION_0: i32 = -256;
/// The size of the screen.
pub const DESKTOP_SIZE: i32 = -223;
/// The position of the guest's pointer.
pub const POINTER_POSITION: i32 = -232;
/// The shape of the guest's pointer, as pixels and a mask.
pub const CURSOR: i32 = -239;
/// Extended key events of QEMU: scan codes.
pub const EXTENDED_KEYS: i32 = -258;
/// The keyboard's LEDs.
pub const LEDS: i32 = -261;
/// The size of the screen with the layout of its parts, and requests for another.
pub const EXTENDED_DESKTOP_SIZE: i32 = -308;
/// Fences.
pub const FENCE: i32 = -312;
/// Updates without requests.
pub const CONTINUOUS_UPDATES: i32 = -313;
/// The shape of the guest's pointer, with alpha.
pub const CURSOR_WITH_ALPHA: i32 = -314;
/// Pointer events with nine buttons.
pub const EXTENDED_BUTTONS: i32 = -316;
