//! The display's sessions against the real video device and keyboard in the loopback VM.

use std::sync::Arc;

use synthvm_input::{Input, keys};
use synthvm_video::protocol::Resolution as HostResolution;
use synthvm_video::{PrivateMemory, VideoDevice, VideoOptions};
use vmbus_client::Client;
use vmbus_device::WorkerOptions;
use vmbus_loopback::{LoopbackPlatform, LoopbackVm, Mode};
use vmbus_protocol::Guid;

use crate::{Area, Decoder, DisplayError, KEYBOARD, Key, Keyboard, Resolution, VIDEO, Video};

const VRAM: u64 = 8 << 20;
const WINDOW: u64 = 0xF800_0000;

/// A guest with a video device and a keyboard.
struct Guest {
    client: Client<LoopbackPlatform>,
    memory: Arc<PrivateMemory>,
    video: VideoDevice,
    input: Input,
}

impl Guest {
    fn new() -> Self {
        let vm = LoopbackVm::new(Mode::Threaded);
        let memory = Arc::new(PrivateMemory::new(VRAM as usize, 0..u64::MAX).unwrap());
        let workers = WorkerOptions::default();
        let resolution = HostResolution::new(800, 600);
        let options = VideoOptions { resolution, workers: workers.clone() };
        let video = VideoDevice::new(options, Arc::clone(&memory) as _).unwrap();
        let (input, keyboard, _) = Input::new(&workers).unwrap();
        vm.offer(video.clone()).unwrap();
        vm.offer(keyboard).unwrap();
        let client = Client::connect(vm.platform()).unwrap();
        Self { client, memory, video, input }
    }

    fn instance(&self, class: Guid) -> Guid {
        self.client.offers().find(|offer| offer.class == class).unwrap().instance
    }

    fn open_video(&mut self) -> Video {
        let instance = self.instance(VIDEO);
        Video::open(&mut self.client, instance, VRAM).unwrap()
    }
}

#[test]
fn test_screen_has_the_hosts_resolutions_and_shows_the_mode_that_is_set() {
    let mut guest = Guest::new();
    let mut video = guest.open_video();
    let preferred = video.modes()[video.preferred()];
    assert_eq!(preferred, Resolution { width: 800, height: 600 });
    assert!(video.modes().iter().all(|mode| mode.bytes() <= VRAM));
    video.place(&mut guest.client, WINDOW).unwrap();
    assert_eq!(guest.memory.address(), Some(WINDOW));
    let last = video.modes().len() - 1;
    for index in [video.preferred(), last] {
        video.set_mode(&mut guest.client, index).unwrap();
        let mode = guest.video.screen().frame().unwrap().mode();
        let Resolution { width, height } = video.modes()[index];
        assert_eq!((mode.width(), mode.height(), mode.stride()), (width, height, width * 4));
    }
    let error = video.set_mode(&mut guest.client, last + 1).unwrap_err();
    assert_eq!(error, DisplayError::Mode(last + 1));
}

#[test]
fn test_changed_pixels_reach_the_host_as_one_rectangle_around_them() {
    let mut guest = Guest::new();
    let mut video = guest.open_video();
    video.place(&mut guest.client, WINDOW).unwrap();
    video.set_mode(&mut guest.client, 0).unwrap();
    let watch = guest.video.screen().watch().unwrap();
    watch.take();
    let on = video.resolution();
    video.add_dirty(Area::new((10, 20), (5, 5), on).unwrap());
    video.add_dirty(Area::new((1, 30), (2, 3), on).unwrap());
    video.flush(&mut guest.client);
    let region = loop {
        let region = watch.take().region;
        if !region.rectangles().is_empty() {
            break region;
        }
    };
    let [one] = region.rectangles() else { panic!("{region:?}") };
    assert_eq!((one.left, one.top, one.right, one.bottom), (1, 20, 15, 33));
}

#[test]
fn test_area_beyond_the_screen_or_without_pixels_is_none() {
    let on = Resolution { width: 800, height: 600 };
    assert!(Area::new((0, 0), (800, 600), on).is_some());
    for (start, size) in [
        ((1, 0), (800, 600)),
        ((0, 1), (800, 600)),
        ((0, 0), (0, 1)),
        ((0, 0), (1, 0)),
        ((800, 0), (1, 1)),
        ((usize::MAX, 0), (1, 1)),
        ((0, 0), (usize::MAX, 1)),
        ((1 << 32, 0), (1, 1)),
    ] {
        assert_eq!(Area::new(start, size, on), None, "{start:?} {size:?}");
    }
}

#[test]
fn test_typed_text_arrives_as_characters() {
    let mut guest = Guest::new();
    let instance = guest.instance(KEYBOARD);
    let mut keyboard = Keyboard::open(&mut guest.client, instance).unwrap();
    let text = "Boot (1) \\ now?~\n";
    guest.input.keys(&keys::type_text(text).unwrap()).unwrap();
    guest.input.keys(&keys::chords("down f2 ctrl-c").unwrap()).unwrap();
    let mut decoder = Decoder::default();
    let mut keys: Vec<Key> = Vec::new();
    while keys.len() < text.len() + 3 {
        if let Some(event) = keyboard.next_event(&mut guest.client) {
            keys.extend(decoder.decode(event));
        }
    }
    let (typed, rest) = keys.split_at(text.len());
    let typed: String = typed.iter().map(|key| char::from(key.character as u8)).collect();
    assert_eq!(typed, text.replace('\n', "\r"));
    let rest: Vec<(u16, u16)> = rest.iter().map(|key| key.plain()).collect();
    assert_eq!(rest, [(2, 0), (0x0C, 0), (0, 3)]);
}
