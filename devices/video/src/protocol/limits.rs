//! Limits of the protocol, and of this device.

/// Maximum bytes of a guest's packet that are read. The longest valid message is a part of a
/// pointer shape: a whole shape has 36,864 bytes of pixels.
pub const MAX_PACKET: usize = 40 << 10;

/// Maximum width and height of a pointer in pixels.
pub const MAX_POINTER: u32 = 96;

/// Maximum number of resolutions in a response.
pub const MAX_RESOLUTIONS: usize = 64;

/// Bytes of a guest page. Video memory begins at a page.
pub const PAGE: u64 = 4096;
