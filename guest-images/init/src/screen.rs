//! Draws on the screen through the kernel's direct rendering manager: a mode, a dumb buffer with a
//! pattern or an animation, and its flush.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use guest_report::animation::{Animation, Area, Scene};
use guest_report::pattern;

use crate::{Outcome, context, input_events, uevent};

/// The graphics card, which stays open so that its mode stays set.
static CARD: Mutex<Option<File>> = Mutex::new(None);

/// Timeout for the card after its driver was loaded.
const LIMIT: Duration = Duration::from_secs(30);

/// Timeout for a key.
const KEY_LIMIT: Duration = Duration::from_secs(60);

/// A structure of drm_mode.h, as words. Each operation below names the words that it uses.
type Words<const N: usize> = [u32; N];

/// Bytes of a `drm_mode_modeinfo`.
const MODE: usize = 68;

/// Sets the mode of `width` by `height` pixels, with a frame whose bytes are the pattern of `seed`.
pub fn draw(width: u16, height: u16, seed: u64) -> Outcome<()> {
    with_card(|card| {
        let mut buffer = Buffer::new(card, width, height)?;
        let row = usize::from(width) * 4;
        let pitch = buffer.pitch;
        for (number, line) in buffer.bytes().chunks_exact_mut(pitch).enumerate() {
            pattern::fill(&mut line[..row], seed, (number * row) as u64);
        }
        buffer.show(card)
    })
}

/// Sets the mode of `size` and draws the frames with these numbers, one in each `interval` at most.
/// Frames of [`Scene::Key`] wait for a key of the open input devices.
pub fn animate(
    scene: Scene,
    (width, height): (u16, u16),
    frames: Range<u16>,
    interval: Duration,
) -> Outcome<()> {
    with_card(|card| {
        let mut animation = Animation::new(scene, width.into(), height.into());
        let mut buffer = Buffer::new(card, width, height)?;
        let everything = Area { columns: (0, width.into()), rows: (0, height.into()) };
        buffer.write(&animation.pixels, everything);
        buffer.show(card)?;
        let mut due = Instant::now();
        for number in frames {
            if scene == Scene::Key {
                input_events::wait_for_key(KEY_LIMIT).map_err(io::Error::other)?;
            } else {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                due += interval;
            }
            let area = animation.next_frame(number);
            buffer.write(&animation.pixels, area);
            buffer.flush(card, area)?;
        }
        Ok(())
    })
}

/// Runs `work` on the graphics card, which then stays open.
fn with_card(work: impl FnOnce(&File) -> io::Result<()>) -> Outcome<()> {
    let mut card = CARD.lock().unwrap_or_else(PoisonError::into_inner);
    let card = match &mut *card {
        Some(card) => card,
        none => none.insert(open()?),
    };
    work(card).map_err(context("drawing"))
}

/// Closes the graphics card.
pub fn close() {
    *CARD.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn open() -> Outcome<File> {
    let find = || (0..4).map(|number| PathBuf::from(format!("/dev/dri/card{number}")));
    let path = uevent::wait_for(LIMIT, || find().find(|path| path.exists()))
        .map_err(context("waiting for a graphics card"))?
        .ok_or("there is no graphics card")?;
    OpenOptions::new().read(true).write(true).open(&path).map_err(context(path.display()))
}

/// A dumb buffer, mapped, with the frame that shows it.
struct Buffer {
    start: *mut u8,
    size: usize,
    pitch: usize,
    width: u16,
    height: u16,
    frame: u32,
}

impl Buffer {
    fn new(card: &File, width: u16, height: u16) -> io::Result<Self> {
        // drm_mode_create_dumb: height, width, bits, flags; handle, pitch, size.
        let mut dumb: Words<8> = [height.into(), width.into(), 32, 0, 0, 0, 0, 0];
        ioctl(card, 0xB2, &mut dumb)?;
        let [_, _, _, _, handle, pitch, size, _] = dumb;
        // drm_mode_map_dumb: handle, padding; offset.
        let mut map: Words<4> = [handle, 0, 0, 0];
        ioctl(card, 0xB3, &mut map)?;
        let offset = u64::from(map[2]) | u64::from(map[3]) << 32;
        // drm_mode_fb_cmd: id; width, height, pitch, bits, depth, handle.
        let mut frame: Words<7> = [0, width.into(), height.into(), pitch, 32, 24, handle];
        ioctl(card, 0xAE, &mut frame)?;
        let size = size as usize;
        // SAFETY: the kernel chooses the address of a new mapping.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                card.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let (start, pitch) = (start.cast(), pitch as usize);
        Ok(Buffer { start, size, pitch, width, height, frame: frame[0] })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has `size` bytes and lives as long as `self`, which is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.size) }
    }

    /// Writes an area of a picture of the buffer's size.
    fn write(&mut self, pixels: &[u32], area: Area) {
        let (width, pitch) = (usize::from(self.width), self.pitch);
        let (left, right) = area.columns;
        let bytes = self.bytes();
        for row in area.rows.0..area.rows.1 {
            let line = &mut bytes[row * pitch + left * 4..row * pitch + right * 4];
            let (line, _) = line.as_chunks_mut::<4>();
            for (to, pixel) in line.iter_mut().zip(&pixels[row * width + left..]) {
                *to = pixel.to_le_bytes();
            }
        }
    }

    /// Sets the mode of the buffer's size, and shows the buffer.
    fn show(&self, card: &File) -> io::Result<()> {
        let (crtc, connector) = outputs(card)?;
        let mode = find_mode(card, connector, self.width, self.height)?;
        // drm_mode_crtc: connectors, their number, crtc, frame, x, y, gamma, has mode; mode.
        let connectors = [connector];
        let address = connectors.as_ptr() as u64;
        let mut set: Words<26> = [0; 26];
        set[..9].copy_from_slice(&[
            address as u32,
            (address >> 32) as u32,
            1,
            crtc,
            self.frame,
            0,
            0,
            0,
            1,
        ]);
        set[9..].copy_from_slice(&mode);
        ioctl(card, 0xA2, &mut set)?;
        let everything = Area { columns: (0, self.width.into()), rows: (0, self.height.into()) };
        self.flush(card, everything)
    }

    /// Tells the driver that an area has changed.
    fn flush(&self, card: &File, area: Area) -> io::Result<()> {
        let half = |(start, end): (usize, usize)| (start as u16, end as u16);
        let ((x1, x2), (y1, y2)) = (half(area.columns), half(area.rows));
        let clips: [u16; 4] = [x1, y1, x2, y2];
        let address = clips.as_ptr() as u64;
        // drm_mode_fb_dirty_cmd: frame, flags, colour, number of rectangles, rectangles.
        let mut dirty: Words<6> = [self.frame, 0, 0, 1, address as u32, (address >> 32) as u32];
        match ioctl(card, 0xB1, &mut dirty) {
            // The driver of a card whose memory is shown directly.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, of which no reference is left.
        unsafe { libc::munmap(self.start.cast(), self.size) };
    }
}

/// Returns the first CRTC and the first connector.
fn outputs(card: &File) -> io::Result<(u32, u32)> {
    let (mut crtcs, mut connectors) = ([0_u32; 4], [0_u32; 4]);
    // drm_mode_card_res: four pointers (frames, CRTCs, connectors, encoders), their four numbers,
    // four limits.
    let mut resources: Words<16> = [0; 16];
    for (at, list) in [(2, &mut crtcs), (4, &mut connectors)] {
        let address = list.as_mut_ptr() as u64;
        resources[at] = address as u32;
        resources[at + 1] = (address >> 32) as u32;
    }
    resources[9] = 4;
    resources[10] = 4;
    ioctl(card, 0xA0, &mut resources)?;
    Ok((crtcs[0], connectors[0]))
}

/// Returns the mode of a connector that has this size.
fn find_mode(card: &File, connector: u32, width: u16, height: u16) -> io::Result<[u32; MODE / 4]> {
    // drm_mode_get_connector: four pointers (encoders, modes, properties, values), the numbers of
    // modes, properties and encoders, encoder, connector, and more. Without space for modes, the
    // kernel looks for them.
    let mut query: Words<20> = [0; 20];
    query[12] = connector;
    ioctl(card, 0xA7, &mut query)?;
    let mut modes = vec![[0_u32; MODE / 4]; query[8] as usize];
    let address = modes.as_mut_ptr() as u64;
    let count = query[8];
    query = [0; 20];
    query[2] = address as u32;
    query[3] = (address >> 32) as u32;
    query[8] = count;
    query[12] = connector;
    ioctl(card, 0xA7, &mut query)?;
    // The width is in the upper half of word 1's pair: clock; hdisplay, hsync_start; ...; hskew,
    // vdisplay; ...
    let size = |mode: &[u32; MODE / 4]| (mode[1] as u16, (mode[3] >> 16) as u16);
    let missing = || io::Error::other(format!("no mode of {width}x{height} among {count}"));
    modes.into_iter().find(|mode| size(mode) == (width, height)).ok_or_else(missing)
}

/// Calls operation `number` of the card (drm.h) with a structure to read and write.
fn ioctl<const N: usize>(card: &File, number: u32, words: &mut Words<N>) -> io::Result<()> {
    const READ_WRITE: u32 = 3;
    let size = (N * 4) as u32;
    let request = READ_WRITE << 30 | size << 16 | u32::from(b'd') << 8 | number;
    // The structures have 64-bit fields, and the kernel copies from any address.
    // SAFETY: the structure has the size that the request's number states; the addresses in it are
    // those of buffers that outlive the call.
    match unsafe { libc::ioctl(card.as_raw_fd(), request as _, words.as_mut_ptr()) } {
        0 => Ok(()),
        _ => {
            let error = io::Error::last_os_error();
            Err(io::Error::new(error.kind(), format!("operation {number:#x}: {error}")))
        }
    }
}
