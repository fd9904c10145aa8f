//! Screen, keyboard and mouse: up to 64 messages of any bytes to each. Rules that must hold after
//! every message are checked, and the state is saved and restored.

use synthvm_input::protocol::{keyboard, mouse};
use synthvm_video::protocol::{Effect, Mode, Region, Resolution, Session, resolutions};

use crate::input::Input;

/// Bytes of video memory.
const VRAM: u64 = 8 << 20;
const MAX_STEPS: usize = 64;

/// The three devices, and what a display server knows.
struct Devices {
    video: Session,
    list: Vec<Resolution>,
    region: Region,
    keyboard: keyboard::Session,
    mouse: mouse::Session,
}

/// Layout: steps. Each is an operation, a message's type, the length of its body, and the body.
/// Operations: a message to the screen, to the mouse, or to the keyboard; or a packet of any bytes
/// to all.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let list = resolutions(Resolution::new(1024, 768), VRAM);
    let mut devices = Devices {
        video: Session::new(VRAM),
        list,
        region: Region::default(),
        keyboard: keyboard::Session::default(),
        mouse: mouse::Session::New,
    };
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let (operation, kind) = (input.u8() % 4, u32::from(input.u8()));
        let length = usize::from(input.u16());
        let body = input.bytes(length);
        match operation {
            0 => video(&mut devices, &piped(kind, body)),
            1 => _ = pointing(&mut devices, &piped(kind, body)),
            2 => _ = typing(&mut devices, &[&kind.to_le_bytes()[..], body].concat()),
            _ => {
                video(&mut devices, body);
                pointing(&mut devices, body);
                typing(&mut devices, body);
            }
        }
    }
}

/// Returns a message in a pipe's packet.
fn piped(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32;
    let words = [1, length + 8, kind, length + 8];
    words.into_iter().flat_map(u32::to_le_bytes).chain(body.iter().copied()).collect()
}

fn video(devices: &mut Devices, packet: &[u8]) {
    let before = devices.video.save();
    let session = &mut devices.video;
    let Ok(outcome) = session.handle(packet, &devices.list) else {
        assert_eq!(session.save(), before, "a refused message changes nothing");
        return;
    };
    assert!(outcome.replies.len() <= 2);
    outcome.replies.iter().for_each(|reply| check_reply(reply));
    if outcome.refused.is_some() && outcome.effect != Effect::None {
        panic!("a refused message has an effect: {outcome:?}");
    }
    match outcome.effect {
        Effect::None | Effect::Mode | Effect::PointerPosition { .. } => {}
        Effect::Place(address) => {
            assert!(address.is_none_or(|address| address.is_multiple_of(4096)));
            session.placed(address);
        }
        Effect::Dirty(rectangles) => {
            let mode = session.mode().unwrap();
            assert!(rectangles.len() <= 255);
            for one in rectangles {
                assert!(one.left < one.right && one.right <= mode.width());
                assert!(one.top < one.bottom && one.bottom <= mode.height());
                devices.region.add(one);
                assert!(devices.region.rectangles().iter().any(|known| known.contains(one)));
            }
            assert!(devices.region.rectangles().len() <= 32);
        }
        Effect::PointerShape(shape) => {
            assert!((1..=96).contains(&shape.width) && shape.hot_x < shape.width);
            assert!((1..=96).contains(&shape.height) && shape.hot_y < shape.height);
            assert_eq!(shape.pixels.len() as u32, shape.width * shape.height * 4);
        }
    }
    session.mode().into_iter().for_each(check_mode);
    let saved = session.save();
    assert_eq!(Session::restore(&saved, VRAM).unwrap().save(), saved);
}

/// Checks that every pixel is in video memory.
fn check_mode(mode: Mode) {
    let (width, height) = (u128::from(mode.width()), u128::from(mode.height()));
    let last = u128::from(mode.offset()) + u128::from(mode.stride()) * (height - 1) + width * 4;
    assert!(width > 0 && height > 0 && last <= u128::from(VRAM), "{mode:?}");
}

/// Checks the sizes in a piped message's headers.
fn check_reply(reply: &[u8]) {
    let word = |at: usize| u32::from_le_bytes(reply[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((word(0), word(4), word(12)), (1, reply.len() - 8, reply.len() - 16));
    assert!(reply.len() <= 0x4000, "Linux takes no longer message");
}

/// Returns whether the message was accepted.
fn pointing(devices: &mut Devices, packet: &[u8]) -> bool {
    let before = devices.mouse;
    match devices.mouse.handle(packet) {
        Ok(outcome) => {
            assert!(outcome.replies.len() <= 2);
            outcome.replies.iter().for_each(|reply| check_reply(reply));
            assert!(!devices.mouse.is_ready() || before != mouse::Session::New);
            true
        }
        Err(_) => {
            assert_eq!(devices.mouse, before);
            false
        }
    }
}

/// Returns whether the message was accepted.
fn typing(devices: &mut Devices, packet: &[u8]) -> bool {
    let before = devices.keyboard.clone();
    match devices.keyboard.handle(packet) {
        Ok(keyboard::Outcome::Reply { message, refused }) => {
            assert_eq!(message[..4], 2_u32.to_le_bytes());
            assert_eq!(message[4..], u32::from(refused.is_none()).to_le_bytes());
            assert_eq!(devices.keyboard.is_ready(), refused.is_none());
            true
        }
        Ok(keyboard::Outcome::Leds(_)) => true,
        Err(_) => {
            assert_eq!(devices.keyboard, before);
            false
        }
    }
}
