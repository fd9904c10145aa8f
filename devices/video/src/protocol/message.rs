//! Messages of the guest.

use super::bytes::Fields;
use super::pointer::PointerPart;

/// The type of a pipe's packet with data.
const PIPE_DATA: u32 = 1;

/// A message of the guest whose length fits its type. Source: hid-video section 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestMessage<'a> {
    /// VERSION_REQUEST: the wanted version.
    Version(u32),
    /// VRAM_LOCATION.
    VramLocation {
        /// Returned in the acknowledgement.
        context: u64,
        /// The guest physical address of video memory. `None`: nowhere.
        address: Option<u64>,
    },
    /// SITUATION_UPDATE.
    Situation {
        /// Returned in the acknowledgement.
        context: u64,
        /// The situation of the one output.
        situation: Situation,
    },
    /// POINTER_POSITION.
    PointerPosition {
        /// Whether the pointer is visible.
        is_visible: bool,
        /// The column of the pixel that points.
        x: i32,
        /// The row of the pixel that points.
        y: i32,
    },
    /// POINTER_SHAPE.
    PointerShape(PointerPart<'a>),
    /// DIRT: left, top, right and bottom of each rectangle, 16 bytes.
    Dirt(&'a [[u8; 16]]),
    /// BIOS_INFO request.
    BiosInfo,
    /// RESOLUTION_REQUEST: the most resolutions that the guest takes.
    Resolutions(u8),
    /// CAPABILITY request.
    Capability,
}

/// The situation of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Whether the guest shows a picture.
    pub is_active: bool,
    /// Offset of the frame in video memory, in bytes.
    pub offset: u32,
    /// Bits of a pixel.
    pub depth: u8,
    /// Pixels of a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// Bytes from row to row.
    pub stride: u32,
}

/// The error of a packet that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a pipe's packet with data.
    #[error("a pipe packet of type {0}")]
    Pipe(u32),
    /// The packet is shorter than its message.
    #[error("a packet that is too short for its message")]
    Short,
    /// No guest sends such a message.
    #[error("a message of type {0}")]
    Type(u32),
    /// The device has one output.
    #[error("a message about {0} outputs")]
    Outputs(u8),
}

impl<'a> GuestMessage<'a> {
    /// Reads a packet: the pipe's header, the message's header, its body. The size in the message's
    /// header is ignored, as guests disagree about it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(packet: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(packet);
        let (pipe, size) = fields.u32().zip(fields.u32()).ok_or(Malformed::Short)?;
        if pipe != PIPE_DATA {
            return Err(Malformed::Pipe(pipe));
        }
        let size = usize::try_from(size).map_err(|_| Malformed::Short)?;
        let mut fields = Fields(fields.rest().get(..size).ok_or(Malformed::Short)?);
        let (kind, _size) = fields.u32().zip(fields.u32()).ok_or(Malformed::Short)?;
        if !matches!(kind, 1 | 3 | 5 | 7 | 8 | 10 | 11 | 13 | 15) {
            return Err(Malformed::Type(kind));
        }
        Self::body(kind, fields).ok_or(Malformed::Short)?
    }

    /// Reads the body of a message. `None`: it is too short.
    fn body(kind: u32, mut fields: Fields<'a>) -> Option<Result<Self, Malformed>> {
        Some(Ok(match kind {
            1 => Self::Version(fields.u32()?),
            3 => {
                let (context, is_given, address) = (fields.u64()?, fields.u8()?, fields.u64()?);
                Self::VramLocation { context, address: (is_given != 0).then_some(address) }
            }
            5 => {
                let (context, outputs) = (fields.u64()?, fields.u8()?);
                if outputs != 1 {
                    return Some(Err(Malformed::Outputs(outputs)));
                }
                Self::Situation { context, situation: situation(&mut fields)? }
            }
            7 => {
                let (is_visible, _output) = (fields.u8()? != 0, fields.u8()?);
                Self::PointerPosition { is_visible, x: fields.i32()?, y: fields.i32()? }
            }
            8 => Self::PointerShape(PointerPart {
                index: fields.u8()?,
                is_argb: fields.u8()? != 0,
                width: fields.u32()?,
                height: fields.u32()?,
                hot_x: fields.u32()?,
                hot_y: fields.u32()?,
                data: fields.rest(),
            }),
            10 => {
                let (_output, count) = (fields.u8()?, fields.u8()?);
                let (rectangles, _) = fields.rest().as_chunks();
                Self::Dirt(rectangles.get(..usize::from(count))?)
            }
            11 => Self::BiosInfo,
            13 => Self::Resolutions(fields.u8()?),
            _ => Self::Capability,
        }))
    }
}

fn situation(fields: &mut Fields<'_>) -> Option<Situation> {
    Some(Situation {
        is_active: fields.u8()? != 0,
        offset: fields.u32()?,
        depth: fields.u8()?,
        width: fields.u32()?,
        height: fields.u32()?,
        stride: fields.u32()?,
    })
}
