//! The screen as the firmware uses it (`EFI_GRAPHICS_OUTPUT_PROTOCOL`, UEFI specification section
//! 12.9).

use alloc::boxed::Box;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::console::{
    GraphicsOutputBltOperation as Operation, GraphicsOutputBltPixel, GraphicsOutputModeInformation,
    GraphicsOutputProtocol, GraphicsOutputProtocolMode, GraphicsPixelFormat, PixelBitmask,
};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::{Guid, Handle, Status, guid};
use uefi_vmbus::{Area, DisplayError, PIXEL_BYTES, Resolution, VIDEO, Video, device_path};
use vmbus_client::Client;

use super::boot::BootServices;
use super::platform::UefiPlatform;
use super::{Driver, with_driver};

/// The address of video memory: the start of the low window for VMBus devices, where systems
/// expect the frame buffer of a generation-2 machine (hid-video section 5.1).
const FRAME_BUFFER: u64 = 0xF800_0000;

/// Marks a screen on which the firmware shows its console, without an entry in its variables.
/// Systems take the frame buffer of the screen with this mark.
const CONSOLE_OUT_DEVICE: Guid = guid!("d3b36f2c-d551-11d4-9a46-0090273fc14d");

/// The screen.
pub(super) struct Screen {
    video: Video,
    instance: vmbus_protocol::Guid,
}

/// An instance of the protocol. The firmware has a pointer to it, as it never ends.
#[repr(C)]
struct GraphicsOutput {
    protocol: GraphicsOutputProtocol,
    mode: GraphicsOutputProtocolMode,
    info: GraphicsOutputModeInformation,
}

impl Screen {
    /// Opens the video device and shows a black screen of the resolution that the host prefers.
    pub(super) fn open(
        client: &mut Client<UefiPlatform>,
        instance: vmbus_protocol::Guid,
        vram_bytes: u64,
    ) -> Result<Self, DisplayError> {
        let mut video = Video::open(client, instance, vram_bytes)?;
        video.place(client, FRAME_BUFFER)?;
        let mut screen = Self { video, instance };
        let preferred = screen.video.preferred();
        screen.set_mode(client, preferred)?;
        Ok(screen)
    }

    pub(super) fn resolution(&self) -> Resolution {
        self.video.resolution()
    }

    /// Returns true if video memory is where the driver wants it. A host that refuses the address
    /// does not say so.
    pub(super) fn is_visible(&self) -> bool {
        const PATTERN: u32 = 0x0053_594E;
        let first = self.pixel(0, 0);
        // SAFETY: the first pixel of the frame. An address without memory ignores the write.
        unsafe {
            first.write_volatile(PATTERN);
            let read = first.read_volatile();
            first.write_volatile(0);
            read == PATTERN
        }
    }

    /// Tells the host of the pixels that have changed.
    pub(super) fn flush(&mut self, client: &mut Client<UefiPlatform>) {
        self.video.flush(client);
    }

    fn set_mode(
        &mut self,
        client: &mut Client<UefiPlatform>,
        index: usize,
    ) -> Result<(), DisplayError> {
        self.video.set_mode(client, index)?;
        let Resolution { width, height } = self.resolution();
        let all = (width as usize, height as usize);
        if let Some(all) = Area::new((0, 0), all, self.resolution()) {
            self.fill(all, 0);
        }
        Ok(())
    }

    /// Returns the address of a pixel of the frame.
    fn pixel(&self, x: u32, y: u32) -> *mut u32 {
        let at = u64::from(y) * u64::from(self.resolution().width) + u64::from(x);
        let address = FRAME_BUFFER + at * u64::from(PIXEL_BYTES);
        ptr::with_exposed_provenance_mut(address as usize)
    }

    fn fill(&mut self, area: Area, color: u32) {
        for y in area.top..area.bottom {
            let row = self.pixel(area.left, y);
            for x in 0..(area.right - area.left) as usize {
                // SAFETY: the area is on the screen, so the pixel is one of the frame.
                unsafe { row.add(x).write(color) };
            }
        }
        self.video.add_dirty(area);
    }

    /// Copies an area to another place of the screen.
    fn copy(&mut self, from: Area, to: Area) {
        let (rows, width) = (from.bottom - from.top, (from.right - from.left) as usize);
        for row in 0..rows {
            // The order in which no row is overwritten before it is copied.
            let row = if to.top > from.top { rows - 1 - row } else { row };
            let source = self.pixel(from.left, from.top + row);
            // SAFETY: both areas are on the screen. They may overlap.
            unsafe { source.copy_to(self.pixel(to.left, to.top + row), width) };
        }
        self.video.add_dirty(to);
    }
}

/// Publishes the screen.
pub(super) fn publish(boot: BootServices, screen: &Screen) -> Status {
    let this = Box::leak(Box::new(GraphicsOutput {
        protocol: GraphicsOutputProtocol { query_mode, set_mode, blt, mode: ptr::null() },
        mode: GraphicsOutputProtocolMode::default(),
        info: GraphicsOutputModeInformation::default(),
    }));
    let max_mode = screen.video.modes().len() as u32;
    this.show(screen.video.preferred() as u32, screen.resolution());
    this.mode.max_mode = max_mode;
    this.mode.info = &raw const this.info;
    this.mode.size_of_info = size_of::<GraphicsOutputModeInformation>();
    this.protocol.mode = &raw const this.mode;
    let path = Box::leak(device_path::channel(VIDEO, screen.instance).into_boxed_slice());
    let mut handle: Handle = ptr::null_mut();
    let protocol = ptr::from_mut(this).cast_const().cast::<c_void>();
    let interfaces = [
        (&DevicePathProtocol::GUID, path.as_ptr().cast::<c_void>()),
        (&GraphicsOutputProtocol::GUID, protocol),
        (&CONSOLE_OUT_DEVICE, ptr::null()),
    ];
    for (guid, interface) in interfaces {
        // SAFETY: a device path with its end node, an instance, and a mark without an interface;
        // all exist forever.
        let status = unsafe { boot.install(&mut handle, guid, interface) };
        if status != Status::SUCCESS {
            return status;
        }
    }
    Status::SUCCESS
}

impl GraphicsOutput {
    /// Describes the present mode.
    fn show(&mut self, mode: u32, resolution: Resolution) {
        self.mode.mode = mode;
        self.mode.frame_buffer_base = FRAME_BUFFER;
        self.mode.frame_buffer_size = resolution.bytes() as usize;
        self.info = info(resolution);
    }
}

fn info(resolution: Resolution) -> GraphicsOutputModeInformation {
    GraphicsOutputModeInformation {
        version: 0,
        horizontal_resolution: resolution.width,
        vertical_resolution: resolution.height,
        pixel_format: GraphicsPixelFormat::PIXEL_BLUE_GREEN_RED_RESERVED_8_BIT_PER_COLOR,
        pixel_information: PixelBitmask::default(),
        pixels_per_scan_line: resolution.width,
    }
}

/// Runs `job` with the screen.
fn with_screen(job: impl FnOnce(&mut Screen, &mut Client<UefiPlatform>) -> Status) -> Status {
    with_driver(|driver| {
        let Driver { screen: Some(screen), client, .. } = driver else {
            return Status::DEVICE_ERROR;
        };
        job(screen, client)
    })
}

unsafe extern "efiapi" fn query_mode(
    _: *const GraphicsOutputProtocol,
    mode: u32,
    size: *mut usize,
    to: *mut *mut GraphicsOutputModeInformation,
) -> Status {
    if size.is_null() || to.is_null() {
        return Status::INVALID_PARAMETER;
    }
    with_driver(|driver| {
        let modes = driver.screen.as_ref().map_or(&[][..], |screen| screen.video.modes());
        let Some(resolution) = modes.get(mode as usize) else { return Status::INVALID_PARAMETER };
        let bytes = size_of::<GraphicsOutputModeInformation>();
        let Some(block) = driver.boot.allocate_pool(bytes) else {
            return Status::OUT_OF_RESOURCES;
        };
        let block = block.as_ptr().cast::<GraphicsOutputModeInformation>();
        // SAFETY: the block has the size, and the alignment of 8; the caller passes its variables.
        unsafe {
            block.write(info(*resolution));
            *to = block;
            *size = bytes;
        }
        Status::SUCCESS
    })
}

unsafe extern "efiapi" fn set_mode(this: *mut GraphicsOutputProtocol, mode: u32) -> Status {
    with_screen(|screen, client| {
        match screen.set_mode(client, mode as usize) {
            Ok(()) => {}
            Err(DisplayError::Mode(_)) => return Status::UNSUPPORTED,
            Err(_) => return Status::DEVICE_ERROR,
        }
        // SAFETY: the firmware passes the instance that it was given, of which the protocol is the
        // first field. No other code uses it now.
        unsafe { (*this.cast::<GraphicsOutput>()).show(mode, screen.resolution()) };
        Status::SUCCESS
    })
}

/// The caller's pixels of a block transfer.
#[derive(Clone, Copy)]
struct Buffer {
    start: *mut GraphicsOutputBltPixel,
    /// Bytes from row to row.
    row_bytes: usize,
    /// The column and the row of the transfer's first pixel.
    x: usize,
    y: usize,
}

impl Buffer {
    /// Returns the address of the transfer's row number `row`.
    fn row(self, row: usize) -> *mut u32 {
        let column = self.x.wrapping_mul(PIXEL_BYTES as usize);
        let offset = self.y.wrapping_add(row).wrapping_mul(self.row_bytes).wrapping_add(column);
        self.start.cast::<u8>().wrapping_add(offset).cast()
    }
}

unsafe extern "efiapi" fn blt(
    _: *mut GraphicsOutputProtocol,
    buffer: *mut GraphicsOutputBltPixel,
    operation: Operation,
    source_x: usize,
    source_y: usize,
    destination_x: usize,
    destination_y: usize,
    width: usize,
    height: usize,
    delta: usize,
) -> Status {
    let (source, destination) = ((source_x, source_y), (destination_x, destination_y));
    let row_bytes = if delta == 0 { width.wrapping_mul(PIXEL_BYTES as usize) } else { delta };
    let buffer = |(x, y): (usize, usize)| Buffer { start: buffer, row_bytes, x, y };
    if operation != Operation::BLT_VIDEO_TO_VIDEO && buffer((0, 0)).start.is_null() {
        return Status::INVALID_PARAMETER;
    }
    with_screen(|screen, _| {
        let resolution = screen.resolution();
        let area = |start| Area::new(start, (width, height), resolution);
        let done = match operation {
            Operation::BLT_VIDEO_FILL => area(destination).map(|to| {
                // SAFETY: the caller passes one pixel.
                let color = unsafe { buffer((0, 0)).row(0).read_unaligned() };
                screen.fill(to, color);
            }),
            Operation::BLT_VIDEO_TO_BLT_BUFFER => {
                area(source).map(|from| read(screen, from, buffer(destination)))
            }
            Operation::BLT_BUFFER_TO_VIDEO => {
                area(destination).map(|to| write(screen, buffer(source), to))
            }
            Operation::BLT_VIDEO_TO_VIDEO => {
                area(source).zip(area(destination)).map(|(from, to)| screen.copy(from, to))
            }
            _ => None,
        };
        if done.is_some() { Status::SUCCESS } else { Status::INVALID_PARAMETER }
    })
}

/// Copies an area of the screen to the caller's pixels.
fn read(screen: &Screen, from: Area, to: Buffer) {
    for (row, y) in (from.top..from.bottom).enumerate() {
        let bytes = ((from.right - from.left) * PIXEL_BYTES) as usize;
        let source = screen.pixel(from.left, y).cast::<u8>();
        // SAFETY: the area is on the screen; the caller's buffer has as many pixels.
        unsafe { source.copy_to_nonoverlapping(to.row(row).cast(), bytes) };
    }
}

/// Copies the caller's pixels to an area of the screen.
fn write(screen: &mut Screen, from: Buffer, to: Area) {
    for (row, y) in (to.top..to.bottom).enumerate() {
        let bytes = ((to.right - to.left) * PIXEL_BYTES) as usize;
        let target = screen.pixel(to.left, y).cast::<u8>();
        // SAFETY: as in `read`.
        unsafe { target.copy_from_nonoverlapping(from.row(row).cast(), bytes) };
    }
    screen.video.add_dirty(to);
}
