//! The device on a real bus, with a guest that writes its rings itself.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use synthvm_video::protocol::{Rectangle, Resolution};
use synthvm_video::{PrivateMemory, Screen, ScreenWatch, VideoDevice, VideoMemory, VideoOptions};
use vm_memory::Bytes;
use vmbus_device::{InlineWorkers, WorkerOptions};
use vmbus_host::SavedBus;
use vmbus_loopback::bare::{BareChannel, BareGuest};
use vmbus_ring::PacketKind;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const VRAM: usize = 8 << 20;
const WINDOW: u64 = 0xF800_0000;

/// A guest with a video device.
struct Rig {
    guest: BareGuest,
    channel: BareChannel,
    device: VideoDevice,
    memory: Arc<PrivateMemory>,
}

fn memory() -> Arc<PrivateMemory> {
    Arc::new(PrivateMemory::new(VRAM, WINDOW..WINDOW + (64 << 20)).unwrap())
}

fn device(memory: &Arc<PrivateMemory>, inline: &InlineWorkers) -> VideoDevice {
    let workers = WorkerOptions::default().inline(inline.clone());
    let resolution = Resolution::new(800, 600);
    VideoDevice::new(VideoOptions { resolution, workers }, Arc::clone(memory) as _).unwrap()
}

impl Rig {
    /// Returns a guest that has opened the channel.
    fn open() -> Self {
        let (memory, inline) = (memory(), InlineWorkers::default());
        let device = device(&memory, &inline);
        let (mut guest, _) = BareGuest::new(vec![Box::new(device.clone())]);
        guest.serve = Some(Arc::new(move || inline.serve()));
        let channel = guest.open(guest.offers[0], 16);
        Self { guest, channel, device, memory }
    }

    /// Returns a guest with a mode of `width` by `height` pixels.
    fn start(width: u32, height: u32) -> Self {
        let mut rig = Self::open();
        rig.ask(&version());
        rig.ask(&location(WINDOW));
        rig.set_mode(width, height);
        rig
    }

    fn screen(&self) -> &Screen {
        self.device.screen()
    }

    /// Sends a message that has no answer.
    fn tell(&mut self, message: &[u8]) {
        self.channel.send(1, message, &[]);
        self.channel.serve.as_ref().unwrap()();
        assert!(self.channel.try_receive().is_none());
    }

    /// Sends a message, and returns the type and the body of its answer.
    fn ask(&mut self, message: &[u8]) -> (u32, Vec<u8>) {
        self.channel.send(1, message, &[]);
        self.answer()
    }

    fn answer(&mut self) -> (u32, Vec<u8>) {
        let packet = self.channel.receive();
        assert_eq!(packet.kind, PacketKind::InBand);
        let word = |at: usize| u32::from_le_bytes(packet.payload[at..at + 4].try_into().unwrap());
        (word(8), packet.payload[16..8 + word(4) as usize].to_vec())
    }

    /// Sets a mode, of a session's first situation.
    fn set_mode(&mut self, width: u32, height: u32) {
        assert_eq!(self.ask(&situation(width, height)).0, 6);
        assert_eq!(self.answer(), (9, vec![1; 4]), "all features are wanted");
    }

    fn place(&self) -> Option<u64> {
        self.memory.address()
    }
}

fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = body.len() as u32 + 8;
    [1, size, kind, size]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .chain(body.iter().copied())
        .collect()
}

fn version() -> Vec<u8> {
    message(1, &0x0005_0003_u32.to_le_bytes())
}

fn location(address: u64) -> Vec<u8> {
    message(3, &[&5_u64.to_le_bytes()[..], &[1], &address.to_le_bytes()].concat())
}

fn situation(width: u32, height: u32) -> Vec<u8> {
    let words = [width, height, width * 4].into_iter().flat_map(u32::to_le_bytes);
    message(
        5,
        &[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 32]
            .into_iter()
            .chain(words)
            .collect::<Vec<u8>>(),
    )
}

fn dirt(rectangles: &[[i32; 4]]) -> Vec<u8> {
    let corners = rectangles.iter().flatten().flat_map(|corner| corner.to_le_bytes());
    message(10, &[0, rectangles.len() as u8].into_iter().chain(corners).collect::<Vec<u8>>())
}

fn rectangle([left, top, right, bottom]: [u32; 4]) -> Rectangle {
    Rectangle { left, top, right, bottom }
}

/// Looks at the descriptor without a wait.
fn is_readable(watch: &ScreenWatch) -> bool {
    let epoll = Epoll::new().unwrap();
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, watch.as_raw_fd(), event).unwrap();
    epoll.wait(0, &mut [EpollEvent::default()]).unwrap() == 1
}

#[test]
fn test_offer_is_a_message_pipe_with_the_size_of_video_memory() {
    let rig = Rig::open();
    let offer = rig.guest.offers[0];
    assert_eq!((offer.flags, offer.user_defined[0]), (0x10, 4));
    assert_eq!(offer.class.to_string(), "da0a7802-e377-4aac-8e77-0558eb1073f8");
}

#[test]
fn test_driver_of_linux_finds_its_resolution_and_shows_a_frame() {
    let mut rig = Rig::open();
    assert!(rig.screen().frame().is_none());
    assert_eq!(rig.ask(&version()), (2, vec![3, 0, 5, 0, 2, 1]));
    let (kind, list) = rig.ask(&message(13, &[64]));
    assert_eq!((kind, list[128], list[129]), (14, 13, 0));
    assert_eq!(list[131..135], [0x20, 3, 0x58, 2], "800x600");
    assert_eq!(rig.ask(&location(WINDOW)), (4, 5_u64.to_le_bytes().to_vec()));
    assert_eq!(rig.place(), Some(WINDOW));
    rig.set_mode(800, 600);
    let frame = rig.screen().frame().unwrap();
    assert_eq!((frame.mode().width(), frame.mode().height()), (800, 600));
    // The same memory: what the guest writes later is there, too.
    rig.memory.bytes().write_obj(0x00FF_8040_u32, 599 * 3200 + 799 * 4).unwrap();
    let mut last = [0; 4];
    frame.row(599).unwrap().read_slice(&mut last, 799 * 4).unwrap();
    assert_eq!(last, [0x40, 0x80, 0xFF, 0]);
    assert!(frame.row(600).is_none());
}

#[test]
fn test_location_that_the_machine_refuses_changes_nothing_and_a_later_one_works() {
    let mut rig = Rig::open();
    rig.ask(&version());
    for address in [0, 0x1000, WINDOW + 1, 0xFEE0_0000, 0xFEC0_0000, 1 << 60, u64::MAX - 4095] {
        assert_eq!(rig.ask(&location(address)).0, 4, "acknowledged all the same");
        assert_eq!(rig.place(), None, "{address:#x}");
    }
    assert_eq!(rig.device.counters().refused, 7);
    rig.ask(&location(WINDOW));
    rig.ask(&location(0));
    assert_eq!(rig.place(), Some(WINDOW));
    rig.ask(&location(WINDOW + 0x10_0000));
    assert_eq!(rig.place(), Some(WINDOW + 0x10_0000), "moved");
}

#[test]
fn test_changes_are_taken_once_and_merged_until_then() {
    let mut rig = Rig::start(800, 600);
    let watch = rig.screen().watch().unwrap();
    assert!(is_readable(&watch));
    let first = watch.take();
    assert!(first.is_mode_changed && first.is_shape_changed);
    assert_eq!(first.region.rectangles(), [rectangle([0, 0, 800, 600])]);
    assert!(!is_readable(&watch));
    assert_eq!(watch.take(), Default::default());

    rig.tell(&dirt(&[[1, 2, 3, 4], [-9, -9, 0, 0]]));
    rig.tell(&dirt(&[[10, 20, 30, 9999]]));
    assert!(is_readable(&watch));
    let changes = watch.take();
    let expected = [rectangle([1, 2, 3, 4]), rectangle([10, 20, 30, 600])];
    assert_eq!(changes.region.rectangles(), expected);
    assert!(!changes.is_mode_changed && !changes.is_pointer_moved);
    let counters = rig.device.counters();
    assert_eq!((counters.updates, counters.rectangles, counters.modes), (2, 2, 1));
}

#[test]
fn test_flood_of_updates_has_bounded_changes() {
    let mut rig = Rig::start(800, 600);
    let watch = rig.screen().watch().unwrap();
    watch.take();
    for round in 0..200 {
        let one = |at: i32| [at % 799, (at + round) % 599, at % 799 + 1, (at + round) % 599 + 1];
        rig.tell(&dirt(&(0..200).map(one).collect::<Vec<_>>()));
    }
    let region = watch.take().region;
    assert!(region.rectangles().len() <= 32);
    assert_eq!(rig.device.counters().rectangles, 200 * 200);
}

#[test]
fn test_pointer_moves_and_has_the_shape_that_the_guest_sent() {
    let mut rig = Rig::start(800, 600);
    let watch = rig.screen().watch().unwrap();
    watch.take();
    rig.tell(&message(7, &[1, 0, 10, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]));
    let shape: Vec<u8> = [0xFF, 1]
        .into_iter()
        .chain([2_u32, 1, 1, 0].into_iter().flat_map(u32::to_le_bytes))
        .chain([1, 2, 3, 4, 5, 6, 7, 8])
        .collect();
    rig.tell(&message(8, &shape));
    let changes = watch.take();
    assert!(changes.is_pointer_moved && changes.is_shape_changed && !changes.is_mode_changed);
    let pointer = rig.screen().pointer();
    assert_eq!((pointer.is_visible, pointer.x, pointer.y), (true, 10, -1));
    let shape = pointer.shape.unwrap();
    assert_eq!((shape.width, shape.height, shape.hot_x), (2, 1, 1));
    assert_eq!(shape.pixels[..], [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn test_garbage_is_counted_and_the_channel_still_works() {
    let mut rig = Rig::start(800, 600);
    for garbage in [&[][..], &[1; 3], &[0xFF; 200], &message(99, &[]), &vec![1; 50_000]] {
        rig.tell(garbage);
    }
    assert_eq!(rig.device.counters().refused, 5);
    assert_eq!(rig.ask(&version()).0, 2);
}

#[test]
fn test_close_keeps_the_picture_until_the_next_driver_and_a_reset_takes_it() {
    let mut rig = Rig::start(800, 600);
    let watch = rig.screen().watch().unwrap();
    watch.take();
    for width in [1024, 640] {
        let before = rig.screen().frame().unwrap().mode();
        rig.guest.close(rig.channel);
        assert_eq!(rig.memory.address(), Some(WINDOW));
        assert_eq!(rig.device.screen().frame().unwrap().mode(), before);
        assert_eq!(watch.take(), Default::default());
        rig.channel = rig.guest.open(rig.guest.offers[0], 16);
        rig.ask(&version());
        rig.ask(&location(WINDOW));
        rig.set_mode(width, 480);
        assert_eq!(rig.screen().frame().unwrap().mode().width(), width);
        assert!(watch.take().is_mode_changed);
    }
    rig.guest.close(rig.channel);
    rig.device.reset();
    assert_eq!(rig.memory.address(), None);
    assert!(rig.device.screen().frame().is_none());
    let changes = watch.take();
    assert!(changes.is_mode_changed && changes.region.rectangles().is_empty());
}

#[test]
fn test_mode_change_while_frames_are_read_reads_only_video_memory() {
    let mut rig = Rig::start(1024, 768);
    let screen = rig.screen().clone();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut widths = Vec::new();
            while !widths.contains(&1920) {
                let frame = screen.frame().unwrap();
                let mode = frame.mode();
                let mut row = vec![0; mode.width() as usize * 4];
                for y in 0..mode.height() {
                    frame.row(y).unwrap().copy_to(&mut row[..]);
                }
                widths.push(mode.width());
            }
        });
        for _ in 0..50 {
            assert_eq!(rig.ask(&situation(640, 480)).0, 6);
            assert_eq!(rig.ask(&situation(1024, 768)).0, 6);
        }
        assert_eq!(rig.ask(&situation(1920, 1080)).0, 6);
        reader.join().unwrap();
    });
}

#[test]
fn test_requested_resolution_is_the_default_of_the_next_list() {
    let mut rig = Rig::open();
    rig.screen().request_resolution(Resolution::new(1600, 900)).unwrap();
    assert!(rig.screen().request_resolution(Resolution::new(3840, 2160)).is_err(), "8 MiB");
    rig.ask(&version());
    let (_, list) = rig.ask(&message(13, &[1]));
    assert_eq!(list[131..135], [0x40, 6, 0x84, 3]);
}

#[test]
fn test_preferred_resolution_that_does_not_fit_is_refused() {
    let options = VideoOptions { resolution: Resolution::MAX, ..VideoOptions::default() };
    assert!(VideoDevice::new(options, memory()).is_err());
}

#[test]
fn test_mode_and_location_survive_save_and_restore_in_another_process() {
    let Rig { mut guest, channel, .. } = Rig::start(800, 600);
    guest.bus.pause();
    let saved = serde_json::to_vec(&guest.bus.save().unwrap()).unwrap();
    let (memory, inline) = (memory(), InlineWorkers::default());
    let device = self::device(&memory, &inline);
    guest.replace_bus(vec![Box::new(device.clone())]);
    let saved: SavedBus = serde_json::from_slice(&saved).unwrap();
    guest.bus.restore(&saved).unwrap();
    guest.bus.resume();
    let serve: vmbus_loopback::bare::Serve = Arc::new(move || inline.serve());
    guest.serve = Some(Arc::clone(&serve));
    let mut channel = channel;
    channel.serve = Some(serve);
    channel.doorbell = guest.doorbell(guest.offers[0]);
    let mut rig = Rig { guest, channel, device, memory };
    assert_eq!(rig.place(), Some(WINDOW));
    assert_eq!(rig.screen().frame().unwrap().mode().width(), 800);
    let watch = rig.screen().watch().unwrap();
    watch.take();
    rig.tell(&dirt(&[[1, 2, 3, 4]]));
    assert_eq!(watch.take().region.rectangles(), [rectangle([1, 2, 3, 4])]);
    assert_eq!(rig.ask(&situation(640, 480)).0, 6);
    rig.tell(&dirt(&[])); // No second request for features precedes this.
}
