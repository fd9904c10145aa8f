//! A guest that draws, and takes keys and the pointer. It writes its rings itself.

use std::sync::Arc;

use synthvm_display::{DisplayOptions, DisplayServer};
use synthvm_input::Input;
use synthvm_video::protocol::Resolution;
use synthvm_video::{PrivateMemory, VideoDevice, VideoMemory, VideoOptions};
use vm_memory::Bytes;
use vmbus_device::{InlineWorkers, WorkerOptions};
use vmbus_loopback::bare::{BareChannel, BareGuest, GuestOffer};

const VRAM: usize = 16 << 20;
const WINDOW: u64 = 0xF800_0000;

/// A guest whose drivers have connected.
pub(crate) struct Guest {
    guest: BareGuest,
    video: Option<BareChannel>,
    keyboard: BareChannel,
    mouse: BareChannel,
    device: VideoDevice,
    pub(crate) input: Input,
    memory: Arc<PrivateMemory>,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// The picture, as `0x00RRGGBB`.
    pub(crate) pixels: Vec<u32>,
    random: u64,
}

impl Guest {
    /// Returns a guest whose screen is black.
    pub(crate) fn new(width: usize, height: usize) -> Self {
        let inline = InlineWorkers::default();
        let workers = WorkerOptions::default().inline(inline.clone());
        let memory = Arc::new(PrivateMemory::new(VRAM, 0..u64::MAX).unwrap());
        let options =
            VideoOptions { resolution: Resolution::new(800, 600), workers: workers.clone() };
        let device = VideoDevice::new(options, Arc::clone(&memory) as _).unwrap();
        let (input, keyboard, mouse) = Input::new(&workers).unwrap();
        let (mut guest, _) =
            BareGuest::new(vec![Box::new(device.clone()), Box::new(keyboard), Box::new(mouse)]);
        guest.serve = Some(Arc::new(move || inline.serve()));
        let offer =
            |class| -> GuestOffer { *guest.offers.iter().find(|one| one.class == class).unwrap() };
        let offers =
            [synthvm_video::VIDEO, synthvm_input::KEYBOARD, synthvm_input::MOUSE].map(offer);
        let [video, keyboard, mouse] = offers.map(|offer| guest.open(offer, 16));
        let pixels = Vec::new();
        let mut guest = Self {
            guest,
            video: Some(video),
            keyboard,
            mouse,
            device,
            input,
            memory,
            width: 0,
            height: 0,
            pixels,
            random: 0x9E37_79B9_7F4A_7C15,
        };
        guest.ask_video(1, &0x0005_0003_u32.to_le_bytes());
        guest.ask_video(3, &[&5_u64.to_le_bytes()[..], &[1], &WINDOW.to_le_bytes()].concat());
        guest.set_mode(width, height);
        guest.video().receive();
        guest.keyboard.send(1, &words(&[1, 0x0001_0000]), &[]);
        guest.keyboard.receive();
        guest.mouse.send(1, &words(&[1, 12, 0, 4, 0x0002_0000]), &[]);
        guest.mouse.receive();
        guest.mouse.receive();
        guest.mouse.send(1, &[words(&[1, 9, 3, 1]), vec![0]].concat(), &[]);
        guest.serve();
        guest
    }

    /// Starts a server of the guest's screen.
    pub(crate) fn server(&self, options: DisplayOptions) -> DisplayServer {
        DisplayServer::new(self.device.screen().clone(), self.input.clone(), options).unwrap()
    }

    pub(crate) fn screen(&self) -> &synthvm_video::Screen {
        self.device.screen()
    }

    /// Sets a mode. The picture becomes black.
    pub(crate) fn set_mode(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        self.pixels = vec![0; width * height];
        let bytes = vec![0; width * height * 4];
        self.memory.bytes().write_slice(&bytes, 0).unwrap();
        let size = [width, height, width * 4].map(|one| one as u32);
        let head = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 32];
        let body: Vec<u8> =
            head.into_iter().chain(size.into_iter().flat_map(u32::to_le_bytes)).collect();
        self.ask_video(5, &body);
    }

    /// Draws one of several kinds of pictures into a random rectangle, and reports it.
    pub(crate) fn draw(&mut self) {
        let [x, y] = [self.width, self.height].map(|size| self.below(size));
        let width = 1 + self.below((self.width - x).min(300));
        let height = 1 + self.below((self.height - y).min(200));
        let kind = self.below(6);
        let colours: Vec<u32> = (0..2 + self.below(40)).map(|_| self.colour()).collect();
        self.fill(x, y, width, height, |guest, column, row| match kind {
            0 => colours[0],
            1 => colours[guest.below(2)],
            2 => colours[guest.below(colours.len())],
            3 => guest.colour(),
            4 => (column * 0x0001_0305 + row) as u32 & 0x00FF_FFFF,
            _ => colours[(column / 40 + row / 3) % colours.len()],
        });
        self.report(x, y, width, height);
    }

    /// Moves a rectangle down by some rows, or up if they are negative, without a report. What it
    /// leaves stays there.
    pub(crate) fn shift(&mut self, [x, y, width, height]: [usize; 4], rows: isize) {
        let lines: Vec<Vec<u32>> = (y..y + height)
            .map(|row| self.pixels[row * self.width + x..][..width].to_vec())
            .collect();
        let top = y.checked_add_signed(rows).unwrap();
        self.fill(x, top, width, height, |_, column, row| lines[row - top][column - x]);
    }

    /// Scrolls a rectangle up by some rows, or down if they are negative, writes text into the rows
    /// that are free, and reports it.
    pub(crate) fn scroll(&mut self, [x, y, width, height]: [usize; 4], rows: isize) {
        let count = rows.unsigned_abs();
        let (from, free) = if rows > 0 { (y + count, y + height - count) } else { (y, y) };
        self.shift([x, from, width, height - count], -rows);
        self.write([x, free, width, count]);
        self.report(x, y, width, height);
    }

    /// Writes text, whose rows and columns differ, without a report.
    pub(crate) fn write(&mut self, [x, y, width, height]: [usize; 4]) {
        let (paper, ink) = (self.colour(), self.colour());
        self.fill(x, y, width, height, |guest, column, row| {
            let is_blank = (row - y) % 16 < 3 || (column - x) % 8 == 7;
            if is_blank || guest.below(2) == 0 { paper } else { ink }
        });
    }

    /// Draws a rectangle without a report.
    pub(crate) fn fill(
        &mut self,
        x: usize,
        y: usize,
        width: usize,
        height: usize,
        mut colour: impl FnMut(&mut Self, usize, usize) -> u32,
    ) {
        for row in y..y + height {
            let line: Vec<u32> = (x..x + width).map(|column| colour(self, column, row)).collect();
            let start = row * self.width + x;
            self.pixels[start..start + width].copy_from_slice(&line);
            // The fourth byte of a pixel is unused, and may be anything.
            let bytes: Vec<u8> = line
                .iter()
                .flat_map(|pixel| (pixel | (self.random as u32) << 24).to_le_bytes())
                .collect();
            self.memory.bytes().write_slice(&bytes, start * 4).unwrap();
        }
    }

    /// Reports a rectangle as changed.
    pub(crate) fn report(&mut self, x: usize, y: usize, width: usize, height: usize) {
        let corners = [x, y, x + width, y + height].map(|corner| corner as u32);
        let body: Vec<u8> =
            [0, 1].into_iter().chain(corners.into_iter().flat_map(u32::to_le_bytes)).collect();
        self.tell_video(10, &body);
    }

    /// Sends the pointer's position.
    pub(crate) fn point(&mut self, is_visible: bool, x: u32, y: u32) {
        let body: Vec<u8> = [u8::from(is_visible), 0]
            .into_iter()
            .chain([x, y].into_iter().flat_map(u32::to_le_bytes))
            .collect();
        self.tell_video(7, &body);
    }

    /// Sends the pointer's shape: blue, green, red and alpha of each pixel.
    pub(crate) fn shape(&mut self, width: u32, height: u32, hot: (u32, u32), pixels: &[u8]) {
        let words = [width, height, hot.0, hot.1].into_iter().flat_map(u32::to_le_bytes);
        let body: Vec<u8> =
            [0xFF, 1].into_iter().chain(words).chain(pixels.iter().copied()).collect();
        self.tell_video(8, &body);
    }

    /// Sends the LEDs.
    pub(crate) fn leds(&mut self, bits: u32) {
        self.keyboard.send(1, &words(&[4, bits]), &[]);
        self.serve();
    }

    /// Returns code and flags of the next `count` key events.
    pub(crate) fn keys(&mut self, count: usize) -> Vec<[u32; 2]> {
        let mut keys = Vec::new();
        while keys.len() < count {
            self.serve();
            while let Some(packet) = self.keyboard.try_receive() {
                let word =
                    |at: usize| u32::from_le_bytes(packet.payload[at..at + 4].try_into().unwrap());
                assert_eq!(word(0), 3);
                keys.push([word(4) & 0xFFFF, word(8)]);
            }
        }
        keys
    }

    /// Returns reports of the pointer as buttons, x, y and wheel, up to the first that is `last`.
    pub(crate) fn reports_until(&mut self, last: (u8, u16, u16, i16)) -> Vec<(u8, u16, u16, i16)> {
        let mut reports = Vec::new();
        loop {
            self.serve();
            while let Some(packet) = self.mouse.try_receive() {
                let [buttons, x0, x1, y0, y1, w0, w1] = packet.payload[16..23] else { panic!() };
                let half = |bytes| u16::from_le_bytes(bytes);
                let wheel = i16::from_le_bytes([w0, w1]);
                reports.push((buttons, half([x0, x1]), half([y0, y1]), wheel));
                if reports.last() == Some(&last) {
                    return reports;
                }
            }
        }
    }

    /// Resets the video device after the end of its channel. The screen is blank.
    pub(crate) fn close(&mut self) {
        let video = self.video.take().unwrap();
        self.guest.close(video);
        self.device.reset();
    }

    fn video(&mut self) -> &mut BareChannel {
        self.video.as_mut().unwrap()
    }

    fn serve(&self) {
        self.keyboard.serve.as_ref().unwrap()();
    }

    fn tell_video(&mut self, kind: u32, body: &[u8]) {
        self.video().send(1, &message(kind, body), &[]);
        self.serve();
    }

    fn ask_video(&mut self, kind: u32, body: &[u8]) {
        self.video().send(1, &message(kind, body), &[]);
        self.video().receive();
    }

    fn colour(&mut self) -> u32 {
        self.next() as u32 & 0x00FF_FFFF
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = body.len() as u32 + 8;
    words(&[1, size, kind, size]).into_iter().chain(body.iter().copied()).collect()
}
