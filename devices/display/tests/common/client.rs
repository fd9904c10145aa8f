//! A small RFB client, which decodes what the server sends, written from RFC 6143 and rfbproto
//! without the server's code.
//!
//! `cargo xtask compare display` includes this file, so it uses nothing of this crate.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush};

pub(crate) const RAW: i32 = 0;
pub(crate) const COPY_RECT: i32 = 1;
pub(crate) const TIGHT: i32 = 7;
pub(crate) const ZRLE: i32 = 16;
pub(crate) const DESKTOP_SIZE: i32 = -223;
pub(crate) const POINTER_POSITION: i32 = -232;
pub(crate) const CURSOR: i32 = -239;
pub(crate) const EXTENDED_KEYS: i32 = -258;
pub(crate) const LEDS: i32 = -261;
pub(crate) const EXTENDED_DESKTOP_SIZE: i32 = -308;
pub(crate) const FENCE: i32 = -312;
pub(crate) const CONTINUOUS_UPDATES: i32 = -313;
pub(crate) const CURSOR_WITH_ALPHA: i32 = -314;
pub(crate) const EXTENDED_BUTTONS: i32 = -316;

/// A pixel format, whose colours have all bits of `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) bits: u8,
    pub(crate) depth: u8,
    pub(crate) is_big: bool,
    pub(crate) is_true: bool,
    pub(crate) max: [u16; 3],
    pub(crate) shift: [u8; 3],
}

pub(crate) const NATIVE: Format =
    Format { bits: 32, depth: 24, is_big: false, is_true: true, max: [255; 3], shift: [16, 8, 0] };

/// Formats of different sizes, orders and depths.
pub(crate) const FORMATS: [Format; 9] = [
    NATIVE,
    Format { is_big: true, ..NATIVE },
    Format { shift: [24, 16, 8], ..NATIVE },
    Format { is_big: true, shift: [8, 16, 24], ..NATIVE },
    Format { depth: 30, max: [1023; 3], shift: [20, 10, 0], ..NATIVE },
    Format { bits: 16, depth: 16, max: [31, 63, 31], shift: [11, 5, 0], ..NATIVE },
    Format { bits: 16, depth: 15, is_big: true, max: [31; 3], shift: [10, 5, 0], ..NATIVE },
    Format { bits: 8, depth: 8, max: [7, 7, 3], shift: [0, 3, 6], ..NATIVE },
    Format { bits: 8, depth: 8, is_true: false, ..NATIVE },
];

impl Format {
    /// Returns the pixel of a colour.
    pub(crate) fn pixel(self, colour: u32) -> u32 {
        let [blue, green, red, _] = colour.to_le_bytes();
        let format = match self.is_true {
            true => self,
            false => FORMATS[7],
        };
        let colours = [red, green, blue].into_iter().zip(format.max).zip(format.shift);
        let scaled = colours.map(|((colour, max), shift)| {
            // To the nearest.
            ((u32::from(colour) * u32::from(max) * 2 + 255) / 510) << shift
        });
        scaled.sum()
    }

    fn bytes(self) -> usize {
        usize::from(self.bits / 8)
    }

    fn read(self, bytes: &[u8]) -> u32 {
        match (bytes, self.is_big) {
            ([one], _) => (*one).into(),
            ([one, two], false) => u16::from_le_bytes([*one, *two]).into(),
            ([one, two], true) => u16::from_be_bytes([*one, *two]).into(),
            (bytes, false) => u32::from_le_bytes(bytes.try_into().unwrap()),
            (bytes, true) => u32::from_be_bytes(bytes.try_into().unwrap()),
        }
    }

    /// Returns the bytes of a pixel that ZRLE leaves out at the start and at the end.
    fn left_out(self) -> (usize, usize) {
        let used = self.max.iter().zip(self.shift).map(|(max, shift)| u32::from(*max) << shift);
        let used: u32 = used.sum();
        let is_compact = self.is_true && self.bits == 32 && self.depth <= 24;
        match (used < 1 << 24, used & 0xFF == 0) {
            (true, _) if is_compact => {
                if self.is_big {
                    (1, 0)
                } else {
                    (0, 1)
                }
            }
            (_, true) if is_compact => {
                if self.is_big {
                    (0, 1)
                } else {
                    (1, 0)
                }
            }
            _ => (0, 0),
        }
    }

    fn is_tight_compact(self) -> bool {
        self.is_true && self.bits == 32 && self.depth == 24 && self.max == [255; 3]
    }
}

/// A rectangle that the server has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) x: u16,
    pub(crate) y: u16,
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) encoding: i32,
}

/// A client's connection.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A client, logged in.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    zlib: Vec<Box<InflateState>>,
    /// The format of pixels.
    pub(crate) format: Format,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// The picture, in the client's format.
    pub(crate) pixels: Vec<u32>,
    pub(crate) name: String,
    /// The pointer's shape: size, and pixels or pixels with alpha and mask.
    pub(crate) cursor: Option<(Sent, Vec<u8>)>,
    pub(crate) leds: Option<u8>,
    /// Messages other than updates.
    pub(crate) others: Vec<Vec<u8>>,
    /// The screens of the last extended desktop size.
    pub(crate) screens: Vec<u8>,
}

/// Returns both ends of a connection. Reads of the first do not wait for ever.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    let (mine, theirs) = UnixStream::pair().unwrap();
    mine.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    (mine, theirs)
}

pub(crate) fn read(stream: &mut dyn Stream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

pub(crate) fn word(stream: &mut dyn Stream) -> u32 {
    u32::from_be_bytes(read(stream, 4).try_into().unwrap())
}

/// Reads the reason of a refusal.
pub(crate) fn text(stream: &mut dyn Stream) -> String {
    let length = word(stream) as usize;
    String::from_utf8(read(stream, length)).unwrap()
}

/// Exchanges versions, and returns the security types.
pub(crate) fn greet(stream: &mut dyn Stream, version: &[u8; 12]) -> Vec<u8> {
    assert_eq!(read(stream, 12), b"RFB 003.008\n");
    stream.write_all(version).unwrap();
    let count = read(stream, 1)[0];
    read(stream, count.into())
}

impl Client {
    /// Logs in without a password.
    pub(crate) fn connect(mut stream: impl Stream + 'static) -> Self {
        assert_eq!(greet(&mut stream, b"RFB 003.008\n"), [1]);
        stream.write_all(&[1]).unwrap();
        assert_eq!(word(&mut stream), 0);
        Self::start(Box::new(stream))
    }

    /// Reads the first message after the log-in.
    pub(crate) fn start(mut stream: Box<dyn Stream>) -> Self {
        stream.write_all(&[1]).unwrap();
        let init = read(&mut *stream, 20);
        let half = |at: usize| usize::from(u16::from_be_bytes([init[at], init[at + 1]]));
        let (width, height) = (half(0), half(2));
        assert_eq!(init[4..17], [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0]);
        let name = text(&mut *stream);
        let zlib = (0..5).map(|_| InflateState::new_boxed(DataFormat::Zlib)).collect();
        Self {
            stream,
            zlib,
            format: NATIVE,
            width,
            height,
            pixels: vec![0x5A5A; width * height],
            name,
            cursor: None,
            leds: None,
            others: Vec::new(),
            screens: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends bytes to a server that may have closed the connection.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads to the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> io::Result<usize> {
        self.stream.read_to_end(&mut Vec::new())
    }

    pub(crate) fn set_encodings(&mut self, encodings: &[i32]) {
        let mut message = vec![2, 0, 0, encodings.len() as u8];
        message.extend(encodings.iter().flat_map(|one| one.to_be_bytes()));
        self.send(&message);
    }

    /// Sets the format. No update may be in progress.
    pub(crate) fn set_format(&mut self, format: Format) {
        let [r, g, b] = format.max.map(u16::to_be_bytes);
        let [red, green, blue] = format.shift;
        let flags = [u8::from(format.is_big), u8::from(format.is_true)];
        let mut message = vec![0, 0, 0, 0, format.bits, format.depth];
        message.extend(flags);
        message.extend([r, g, b].concat());
        message.extend([red, green, blue, 0, 0, 0]);
        self.send(&message);
        self.format = format;
    }

    pub(crate) fn request(&mut self, is_incremental: bool) {
        let area = [0, 0, self.width as u16, self.height as u16];
        self.request_area(is_incremental, area);
    }

    pub(crate) fn request_area(&mut self, is_incremental: bool, area: [u16; 4]) {
        let mut message = vec![3, u8::from(is_incremental)];
        message.extend(area.into_iter().flat_map(u16::to_be_bytes));
        self.send(&message);
    }

    /// Requests updates until the picture is that of the server.
    pub(crate) fn await_picture(&mut self, width: usize, height: usize, expected: &[u32]) {
        while !self.shows(width, height, expected) {
            self.request(true);
            self.update();
        }
    }

    /// Returns whether the picture is `expected`.
    pub(crate) fn shows(&self, width: usize, height: usize, expected: &[u32]) -> bool {
        let format = self.format;
        (self.width, self.height) == (width, height)
            && self.pixels.iter().zip(expected).all(|(one, two)| *one == format.pixel(*two))
    }

    pub(crate) fn key(&mut self, symbol: u32, is_pressed: bool) {
        let [a, b, c, d] = symbol.to_be_bytes();
        self.send(&[4, u8::from(is_pressed), 0, 0, a, b, c, d]);
    }

    pub(crate) fn pointer(&mut self, buttons: u8, x: u16, y: u16) {
        let ([x1, x0], [y1, y0]) = (x.to_be_bytes(), y.to_be_bytes());
        self.send(&[5, buttons, x1, x0, y1, y0]);
    }

    /// Reads messages up to an update, and returns its rectangles.
    pub(crate) fn update(&mut self) -> Vec<Sent> {
        loop {
            if let Some(rectangles) = self.message() {
                return rectangles;
            }
        }
    }

    /// Reads a message. Returns the rectangles of an update.
    pub(crate) fn message(&mut self) -> Option<Vec<Sent>> {
        let kind = self.read(1)[0];
        match kind {
            0 => {
                let count = self.read(3);
                let count = u16::from_be_bytes([count[1], count[2]]);
                Some((0..count).map(|_| self.rectangle()).collect())
            }
            1 => {
                let colours = self.read(5 + 256 * 6);
                self.others.push(colours);
                None
            }
            150 => {
                self.others.push(vec![150]);
                None
            }
            248 => {
                let mut fence = self.read(8);
                let payload = self.read(fence[7].into());
                fence.extend(payload);
                if fence[3] & 0x80 != 0 {
                    let mut answer = vec![248];
                    answer.extend(&fence);
                    answer[4] &= 0x7F;
                    self.send(&answer);
                }
                self.others.push([vec![248], fence].concat());
                None
            }
            kind => panic!("message {kind}"),
        }
    }

    fn rectangle(&mut self) -> Sent {
        let head = self.read(12);
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let encoding = i32::from_be_bytes(head[8..12].try_into().unwrap());
        let sent = Sent { x: half(0), y: half(2), width: half(4), height: half(6), encoding };
        match encoding {
            RAW => {
                let size = self.format.bytes();
                let bytes = self.read(sent.pixels() * size);
                let format = self.format;
                let pixels: Vec<u32> = bytes.chunks(size).map(|pixel| format.read(pixel)).collect();
                self.put(sent, &pixels);
            }
            COPY_RECT => {
                let source = self.read(4);
                let half =
                    |at: usize| usize::from(u16::from_be_bytes([source[at], source[at + 1]]));
                self.copy(sent, half(0), half(2));
            }
            ZRLE => {
                let length = word(&mut *self.stream) as usize;
                let data = self.read(length);
                let bytes = self.inflate(4, &data, None);
                let pixels = self.zrle(sent, &bytes);
                self.put(sent, &pixels);
            }
            TIGHT => {
                assert!(sent.width <= 2048);
                let pixels = self.tight(sent);
                self.put(sent, &pixels);
            }
            DESKTOP_SIZE => self.resize(sent.width, sent.height),
            EXTENDED_DESKTOP_SIZE => {
                let count = self.read(4)[0];
                self.screens = self.read(usize::from(count) * 16);
                self.resize(sent.width, sent.height);
            }
            CURSOR => {
                let size = sent.pixels() * self.format.bytes()
                    + usize::from(sent.width).div_ceil(8) * usize::from(sent.height);
                let bytes = self.read(size);
                self.cursor = Some((sent, bytes));
            }
            CURSOR_WITH_ALPHA => {
                assert_eq!(word(&mut *self.stream), 0);
                let bytes = self.read(sent.pixels() * 4);
                self.cursor = Some((sent, bytes));
            }
            LEDS => self.leds = Some(self.read(1)[0]),
            EXTENDED_KEYS | EXTENDED_BUTTONS | POINTER_POSITION => {}
            other => panic!("encoding {other}"),
        }
        sent
    }

    fn resize(&mut self, width: u16, height: u16) {
        let size = (usize::from(width), usize::from(height));
        if size != (self.width, self.height) {
            (self.width, self.height) = size;
            self.pixels = vec![0x5A5A; size.0 * size.1];
        }
    }

    fn put(&mut self, sent: Sent, pixels: &[u32]) {
        let width = usize::from(sent.width);
        assert_eq!(pixels.len(), sent.pixels());
        for (row, line) in pixels.chunks(width).enumerate() {
            let start = (usize::from(sent.y) + row) * self.width + usize::from(sent.x);
            assert!(usize::from(sent.x) + width <= self.width);
            self.pixels[start..start + width].copy_from_slice(line);
        }
    }

    /// Copies the rectangle from elsewhere in the picture, as it was before.
    fn copy(&mut self, sent: Sent, left: usize, top: usize) {
        let (width, height) = (usize::from(sent.width), usize::from(sent.height));
        assert!(left + width <= self.width && top + height <= self.height);
        let lines = (top..top + height).map(|row| row * self.width + left);
        let pixels: Vec<u32> =
            lines.flat_map(|start| self.pixels[start..start + width].iter().copied()).collect();
        self.put(sent, &pixels);
    }

    /// Decompresses a part of a zlib stream. `expected`: its length, if it is known.
    fn inflate(&mut self, stream: usize, data: &[u8], expected: Option<usize>) -> Vec<u8> {
        let (mut output, mut data) = (Vec::new(), data);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let result = inflate(&mut self.zlib[stream], data, &mut buffer, MZFlush::Sync);
            output.extend_from_slice(&buffer[..result.bytes_written]);
            data = &data[result.bytes_consumed..];
            if data.is_empty() && result.bytes_written < buffer.len() {
                break;
            }
        }
        assert!(expected.is_none_or(|expected| output.len() == expected));
        output
    }

    fn zrle(&self, sent: Sent, bytes: &[u8]) -> Vec<u32> {
        let (width, height) = (usize::from(sent.width), usize::from(sent.height));
        let (before, after) = self.format.left_out();
        let mut at = 0;
        let mut take = |length: usize| {
            at += length;
            &bytes[at - length..at]
        };
        let pixel = |bytes: &[u8]| {
            let full = [&[0; 4][..before], bytes, &[0; 4][..after]].concat();
            self.format.read(&full)
        };
        let size = self.format.bytes() - before - after;
        let mut pixels = vec![0; width * height];
        for top in (0..height).step_by(64) {
            for left in (0..width).step_by(64) {
                let (columns, rows) = ((width - left).min(64), (height - top).min(64));
                let kind = take(1)[0];
                let colours: Vec<u32> = match kind {
                    0 | 128 => Vec::new(),
                    1..128 => (0..kind).map(|_| pixel(take(size))).collect(),
                    129 => panic!(),
                    130.. => (0..kind - 128).map(|_| pixel(take(size))).collect(),
                };
                let mut tile = Vec::new();
                match kind {
                    0 => tile.extend((0..columns * rows).map(|_| pixel(take(size)))),
                    1 => tile.resize(columns * rows, colours[0]),
                    2..=16 => {
                        let bits = if kind == 2 {
                            1
                        } else if kind <= 4 {
                            2
                        } else {
                            4
                        };
                        for _ in 0..rows {
                            let row = take((columns * bits).div_ceil(8));
                            tile.extend((0..columns).map(|column| {
                                let shift = 8 - bits - column * bits % 8;
                                let index = row[column * bits / 8] >> shift & ((1 << bits) - 1);
                                colours[usize::from(index)]
                            }));
                        }
                    }
                    17..128 => panic!(),
                    128.. => {
                        while tile.len() < columns * rows {
                            let (value, is_run) = match kind {
                                128 => (pixel(take(size)), true),
                                _ => {
                                    let index = take(1)[0];
                                    (colours[usize::from(index & 127)], index & 128 != 0)
                                }
                            };
                            let mut length = 1;
                            if is_run {
                                loop {
                                    let more = take(1)[0];
                                    length += usize::from(more);
                                    if more != 255 {
                                        break;
                                    }
                                }
                            }
                            tile.extend(std::iter::repeat_n(value, length));
                        }
                    }
                }
                assert_eq!(tile.len(), columns * rows);
                for (row, line) in tile.chunks(columns).enumerate() {
                    let start = (top + row) * width + left;
                    pixels[start..start + columns].copy_from_slice(line);
                }
            }
        }
        assert_eq!(at, bytes.len());
        pixels
    }

    fn tight(&mut self, sent: Sent) -> Vec<u32> {
        let format = self.format;
        let size = if format.is_tight_compact() { 3 } else { format.bytes() };
        let pixel = |bytes: &[u8]| match bytes {
            [red, green, blue] => [red, green, blue]
                .into_iter()
                .zip(format.shift)
                .map(|(colour, shift)| u32::from(*colour) << shift)
                .sum(),
            bytes => format.read(bytes),
        };
        let (width, height) = (usize::from(sent.width), usize::from(sent.height));
        let control = self.read(1)[0];
        assert_eq!(control & 0x0F, 0, "no stream begins again");
        match control >> 4 {
            8 => {
                let colour = pixel(&self.read(size));
                vec![colour; width * height]
            }
            0 => {
                let bytes = self.tight_data(width * height * size);
                bytes.chunks(size).map(pixel).collect()
            }
            4 => {
                assert_eq!(self.read(1), [1]);
                let count = usize::from(self.read(1)[0]) + 1;
                let colours = self.read(count * size);
                let colours: Vec<u32> = colours.chunks(size).map(pixel).collect();
                if count > 2 {
                    let bytes = self.tight_data(width * height);
                    return bytes.iter().map(|index| colours[usize::from(*index)]).collect();
                }
                let row = width.div_ceil(8);
                let bytes = self.tight_data(row * height);
                let bit = |line: &[u8], column: usize| line[column / 8] >> (7 - column % 8) & 1;
                let rows = bytes.chunks(row);
                rows.flat_map(|line| {
                    (0..width).map(|column| colours[usize::from(bit(line, column))])
                })
                .collect()
            }
            other => panic!("control {other}"),
        }
    }

    fn tight_data(&mut self, length: usize) -> Vec<u8> {
        if length < 12 {
            return self.read(length);
        }
        let mut compressed = 0;
        for shift in [0, 7, 14] {
            let byte = self.read(1)[0];
            let bits = if shift == 14 { byte } else { byte & 0x7F };
            compressed |= usize::from(bits) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let data = self.read(compressed);
        self.inflate(0, &data, Some(length))
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        read(&mut *self.stream, length)
    }
}

impl Sent {
    fn pixels(self) -> usize {
        usize::from(self.width) * usize::from(self.height)
    }
}
