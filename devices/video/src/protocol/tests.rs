//! Tests of the protocol, by the checklist of hid-video section 8.

use super::*;

const VRAM: u64 = 8 << 20;
const LIST: [Resolution; 2] = [Resolution::new(1024, 768), Resolution::new(800, 600)];

/// Returns a message as Linux sends it: the header's size includes the header.
fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = body.len() as u32 + 8;
    [1, size, kind, size]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .chain(body.iter().copied())
        .collect()
}

fn version(word: u32) -> Vec<u8> {
    message(1, &word.to_le_bytes())
}

fn location(context: u64, address: Option<u64>) -> Vec<u8> {
    let given = [u8::from(address.is_some())];
    message(3, &[&context.to_le_bytes()[..], &given, &address.unwrap_or(0).to_le_bytes()].concat())
}

/// Returns a situation: offset, depth, width, height, stride.
fn situation(active: u8, offset: u32, depth: u8, rest: [u32; 3]) -> Vec<u8> {
    let mut body = 7_u64.to_le_bytes().to_vec();
    body.extend([1, active]);
    body.extend(offset.to_le_bytes());
    body.push(depth);
    body.extend(rest.into_iter().flat_map(u32::to_le_bytes));
    message(5, &body)
}

fn dirt(count: u8, rectangles: &[[i32; 4]]) -> Vec<u8> {
    let corners = rectangles.iter().flatten().flat_map(|corner| corner.to_le_bytes());
    message(10, &[0, count].into_iter().chain(corners).collect::<Vec<u8>>())
}

/// Returns a session of version 3.5.
fn session() -> Session {
    let mut session = Session::new(VRAM);
    session.handle(&version(0x0005_0003), &LIST).unwrap();
    session
}

/// Returns a session of version 3.5 with a mode of 800 by 600 pixels.
fn active() -> Session {
    let mut session = session();
    let outcome = session.handle(&situation(1, 0, 32, [800, 600, 3200]), &LIST).unwrap();
    assert_eq!(outcome.effect, Effect::Mode);
    session
}

/// Returns the type of a message to the guest, and its body.
fn parts(message: &[u8]) -> (u32, &[u8]) {
    let word = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 1);
    assert_eq!(word(4) as usize, message.len() - 8);
    assert_eq!(word(12) as usize, message.len() - 16);
    (word(8), &message[16..])
}

#[test]
fn test_versions_3_0_to_3_5_are_accepted_and_others_refused() {
    let mut session = Session::new(VRAM);
    for (word, is_accepted) in [
        (0x0006_0003, false),
        (0x0005_0002, false),
        (0x0003_0005, false),
        (0, false),
        (0x0000_0003, true),
        (0x0002_0003, true),
        (0x0004_0003, true),
        (0x0005_0003, true),
    ] {
        let outcome = session.handle(&version(word), &LIST).unwrap();
        let (kind, body) = parts(&outcome.replies[0]);
        assert_eq!((kind, &body[..4]), (2, &word.to_le_bytes()[..]));
        assert_eq!(body[4] != 0, is_accepted, "{word:#x}");
        assert_eq!(body[5], 1, "one output");
        assert_eq!(outcome.refused.is_none(), is_accepted);
        assert_eq!(session.version().map(Version::word), is_accepted.then_some(word));
    }
}

#[test]
fn test_messages_before_the_version_are_refused_and_the_version_still_works() {
    let mut session = Session::new(VRAM);
    for message in [location(1, Some(0xF800_0000)), dirt(0, &[]), message(13, &[64])] {
        assert_eq!(session.handle(&message, &LIST), Err(Rejected::NoVersion));
    }
    assert!(session.handle(&version(0x0005_0003), &LIST).is_ok());
}

#[test]
fn test_resolutions_are_as_many_as_the_guest_takes_and_the_first_is_the_default() {
    let mut session = session();
    for (most, count) in [(64, 2), (2, 2), (1, 1), (0, 0), (255, 2)] {
        let outcome = session.handle(&message(13, &[most]), &LIST).unwrap();
        let (kind, body) = parts(&outcome.replies[0]);
        assert_eq!((kind, body.len()), (14, 128 + 3 + 4 * count));
        assert_eq!(body[128..131], [count as u8, 0, 0]);
        if count > 0 {
            assert_eq!(body[131..135], [0, 4, 0, 3], "1024x768");
        }
    }
}

#[test]
fn test_offered_resolutions_fit_into_video_memory_and_begin_with_the_preferred_one() {
    let preferred = Resolution::new(1000, 700);
    for vram in [4 << 20, VRAM, 32 << 20] {
        let list = resolutions(preferred, vram);
        assert_eq!(list[0], preferred);
        assert!(list.len() > 3 && list.len() <= MAX_RESOLUTIONS);
        assert!(list.iter().all(|one| one.bytes() <= vram));
    }
    assert!(!resolutions(preferred, VRAM).contains(&Resolution::new(1920, 1200)));
    assert!(resolutions(preferred, VRAM).contains(&Resolution::new(1920, 1080)));
    assert!(resolutions(preferred, 32 << 20).contains(&Resolution::MAX));
    let listed = resolutions(Resolution::new(800, 600), VRAM);
    assert_eq!(listed.iter().filter(|one| **one == Resolution::new(800, 600)).count(), 1);
}

#[test]
fn test_location_is_acknowledged_with_its_context_even_if_it_is_refused() {
    let mut session = session();
    let outcome = session.handle(&location(0x1122_3344_5566_7788, Some(0xF800_0000)), &LIST);
    let outcome = outcome.unwrap();
    assert_eq!(parts(&outcome.replies[0]), (4, &0x1122_3344_5566_7788_u64.to_le_bytes()[..]));
    assert_eq!(outcome.effect, Effect::Place(Some(0xF800_0000)));
    let outcome = session.handle(&location(9, Some(0xF800_0010)), &LIST).unwrap();
    assert_eq!(parts(&outcome.replies[0]), (4, &9_u64.to_le_bytes()[..]));
    assert_eq!(outcome.refused, Some(Rejected::Address(0xF800_0010)));
    assert_eq!(outcome.effect, Effect::None);
    let outcome = session.handle(&location(9, None), &LIST).unwrap();
    assert_eq!(outcome.effect, Effect::Place(None));
}

#[test]
fn test_situation_that_does_not_fit_keeps_the_mode_and_is_acknowledged() {
    let mut session = active();
    let mode = session.mode().unwrap();
    for bad in [
        situation(1, 0, 32, [0, 600, 3200]),
        situation(1, 0, 32, [800, 0, 3200]),
        situation(1, 0, 8, [800, 600, 800]),
        situation(1, 0, 16, [800, 600, 3200]),
        situation(1, 0, 32, [800, 600, 3199]),
        situation(1, 0, 32, [1024, 2049, 4096]),
        situation(1, u32::MAX, 32, [1, 1, 4]),
        situation(1, (VRAM - 3200 * 600 + 1) as u32, 32, [800, 600, 3200]),
        situation(1, u32::MAX, 32, [u32::MAX, u32::MAX, u32::MAX]),
        situation(1, 0, 32, [0x4000_0001, 1, 4]),
    ] {
        let outcome = session.handle(&bad, &LIST).unwrap();
        assert_eq!(parts(&outcome.replies[0]), (6, &7_u64.to_le_bytes()[..]));
        assert_eq!((outcome.replies.len(), outcome.effect), (1, Effect::None));
        assert!(matches!(outcome.refused, Some(Rejected::Mode(_))), "{:?}", outcome.refused);
        assert_eq!(session.mode(), Some(mode));
    }
    let outcome = session.handle(&situation(1, 0, 32, [1024, 2048, 4096]), &LIST).unwrap();
    assert_eq!(outcome.effect, Effect::Mode, "all of video memory");
}

#[test]
fn test_features_are_requested_once_for_each_time_that_the_output_becomes_active() {
    let mut session = session();
    let on = situation(1, 0, 32, [800, 600, 3200]);
    let replies = |session: &mut Session, message: &[u8]| {
        let outcome = session.handle(message, &LIST).unwrap();
        outcome.replies.iter().map(|reply| parts(reply).0).collect::<Vec<_>>()
    };
    assert_eq!(replies(&mut session, &on), [6, 9]);
    assert_eq!(replies(&mut session, &on), [6]);
    assert_eq!(replies(&mut session, &situation(0, 0, 0, [0; 3])), [6]);
    assert_eq!(session.mode(), None);
    assert_eq!(replies(&mut session, &on), [6, 9]);
}

#[test]
fn test_situation_of_other_than_one_output_is_refused() {
    let mut session = session();
    for count in [0, 2, 255] {
        let mut message = situation(1, 0, 32, [800, 600, 3200]);
        message[24] = count;
        let refused = session.handle(&message, &LIST);
        assert_eq!(refused, Err(Rejected::Malformed(Malformed::Outputs(count))));
    }
}

#[test]
fn test_rectangles_are_clipped_to_the_mode_and_inverted_ones_dropped() {
    let mut session = active();
    let message = dirt(
        6,
        &[
            [-5, -5, 10, 10],
            [790, 590, 2000, 2000],
            [10, 10, 10, 20],
            [20, 20, 10, 10],
            [800, 0, 900, 10],
            [i32::MIN, i32::MIN, i32::MAX, i32::MAX],
        ],
    );
    let Effect::Dirty(dirty) = session.handle(&message, &LIST).unwrap().effect else { panic!() };
    let expected = [[0, 0, 10, 10], [790, 590, 800, 600], [0, 0, 800, 600]]
        .map(|[left, top, right, bottom]| Rectangle { left, top, right, bottom });
    assert_eq!(dirty, expected);
}

#[test]
fn test_rectangles_fewer_than_their_count_are_refused() {
    let mut session = active();
    let refused = session.handle(&dirt(255, &[[0, 0, 1, 1]; 254]), &LIST);
    assert_eq!(refused, Err(Rejected::Malformed(Malformed::Short)));
    assert!(session.handle(&dirt(255, &[[0, 0, 1, 1]; 255]), &LIST).is_ok());
}

#[test]
fn test_rectangles_without_a_mode_have_no_effect() {
    let outcome = session().handle(&dirt(1, &[[0, 0, 1, 1]]), &LIST).unwrap();
    assert_eq!(outcome, Outcome::default());
}

#[test]
fn test_region_stays_small_and_loses_no_pixel() {
    let mut region = Region::default();
    let one = |at: u32| Rectangle { left: at, top: at, right: at + 1, bottom: at + 1 };
    for at in 0..1000 {
        region.add(one(at));
        assert!(region.rectangles().len() <= 32);
    }
    let covers = |at: u32| region.rectangles().iter().any(|r| r.contains(one(at)));
    assert!((0..1000).all(covers));
    region.add(Rectangle { left: 0, top: 0, right: 2000, bottom: 2000 });
    assert_eq!(region.rectangles().len(), 1);
}

fn shape(index: u8, argb: u8, size: [u32; 4], data: &[u8]) -> Vec<u8> {
    let size = size.into_iter().flat_map(u32::to_le_bytes);
    message(
        8,
        &[index, argb].into_iter().chain(size).chain(data.iter().copied()).collect::<Vec<u8>>(),
    )
}

#[test]
fn test_shape_in_parts_is_put_together_and_bad_parts_end_it() {
    let mut session = session();
    let pixels: Vec<u8> = (0..16 * 16 * 4).map(|at| at as u8).collect();
    let size = [16, 16, 3, 20];
    let send = |session: &mut Session, index, data: &[u8]| {
        session.handle(&shape(index, 1, size, data), &LIST).map(|outcome| outcome.effect)
    };
    assert_eq!(send(&mut session, 0, &pixels[..500]), Ok(Effect::None));
    assert_eq!(send(&mut session, 2, &pixels[500..600]), Err(Rejected::Shape), "out of order");
    assert_eq!(send(&mut session, 1, &pixels[500..]), Err(Rejected::Shape), "no first part");
    assert_eq!(send(&mut session, 0, &pixels[..500]), Ok(Effect::None));
    assert_eq!(send(&mut session, 1, &pixels[500..1000]), Ok(Effect::None));
    assert_eq!(send(&mut session, 0xFF, &pixels[1000..1023]), Err(Rejected::Shape), "too short");
    for (index, range) in [(0, 0..500), (1, 500..1000)] {
        assert_eq!(send(&mut session, index, &pixels[range]), Ok(Effect::None));
    }
    let Ok(Effect::PointerShape(whole)) = send(&mut session, 0xFF, &pixels[1000..]) else {
        panic!()
    };
    assert_eq!((whole.width, whole.height, whole.hot_x, whole.hot_y), (16, 16, 3, 15));
    assert_eq!(whole.pixels[..], pixels[..]);
}

#[test]
fn test_shape_of_a_wrong_size_is_refused_and_the_next_one_works() {
    let mut session = session();
    let big = [0; 97 * 4];
    for (argb, size, data) in [
        (1, [97, 1, 0, 0], &big[..97 * 4]),
        (1, [1, 97, 0, 0], &big[..97 * 4]),
        (1, [0, 1, 0, 0], &big[..4]),
        (1, [u32::MAX, u32::MAX, 0, 0], &big[..4]),
        (1, [2, 2, 0, 0], &big[..15]),
        (0, [9, 2, 0, 0], &big[..7]),
    ] {
        let refused = session.handle(&shape(0xFF, argb, size, data), &LIST);
        assert_eq!(refused, Err(Rejected::Shape), "{size:?}");
    }
    // What Linux sends to hide the pointer.
    let outcome = session.handle(&shape(0xFF, 1, [1, 1, 0, 0], &[0, 1, 1, 1]), &LIST).unwrap();
    assert!(matches!(outcome.effect, Effect::PointerShape(_)));
}

#[test]
fn test_masks_become_pixels() {
    let mut session = session();
    // 9 pixels a row: two bytes a row of each mask.
    let masks = [0b1100_0000, 0, 0b0100_0000, 0x80];
    let message = shape(0xFF, 0, [9, 1, 0, 0], &masks);
    let Effect::PointerShape(shape) = session.handle(&message, &LIST).unwrap().effect else {
        panic!()
    };
    let (pixels, _) = shape.pixels.as_chunks::<4>();
    assert_eq!(pixels[0], [0; 4], "transparent");
    assert_eq!(pixels[1], [0, 0, 0, 255], "inverted");
    assert_eq!(pixels[2], [0, 0, 0, 255], "black");
    assert_eq!(pixels[8], [255; 4], "white");
}

#[test]
fn test_packets_cut_short_or_of_another_kind_are_refused() {
    let messages = [
        version(0x0005_0003),
        location(1, Some(0)),
        situation(1, 0, 32, [800, 600, 3200]),
        message(7, &[0; 10]),
        shape(0xFF, 1, [1, 1, 0, 0], &[0; 4]),
        dirt(1, &[[0, 0, 1, 1]]),
        message(13, &[1]),
    ];
    for message in messages {
        let mut session = session();
        for length in 0..message.len() {
            assert!(session.handle(&message[..length], &LIST).is_err(), "{length} of {message:?}");
            // The packet is longer, but its pipe says that it is not.
            let mut cut = message.clone();
            cut[4..8].copy_from_slice(&(length.saturating_sub(8) as u32).to_le_bytes());
            assert!(session.handle(&cut, &LIST).is_err(), "{length} of {message:?}");
        }
        assert!(session.handle(&message, &LIST).is_ok());
        let mut other = message;
        other[0] = 2;
        assert_eq!(session.handle(&other, &LIST), Err(Rejected::Malformed(Malformed::Pipe(2))));
    }
    for kind in [0, 2, 4, 6, 9, 12, 14, 16, 17, u32::MAX] {
        let refused = session().handle(&message(kind, &[0; 64]), &LIST);
        assert_eq!(refused, Err(Rejected::Malformed(Malformed::Type(kind))));
    }
}

#[test]
fn test_queries_of_windows_are_answered() {
    let mut session = session();
    for (request, answer, length) in [(11, 12, 16), (15, 16, 64)] {
        let outcome = session.handle(&message(request, &[]), &LIST).unwrap();
        let (kind, body) = parts(&outcome.replies[0]);
        assert_eq!((kind, body.len()), (answer, length));
    }
}

#[test]
fn test_session_is_the_same_after_save_and_restore() {
    let mut session = active();
    session.placed(Some(0xF800_0000));
    let saved = session.save();
    let restored = Session::restore(&saved, VRAM).unwrap();
    assert_eq!(restored.save(), saved);
    assert_eq!(restored.mode(), session.mode());
    // In less video memory the mode does not fit.
    assert!(matches!(Session::restore(&saved, 1 << 20), Err(Rejected::Mode(_))));
}

#[test]
fn test_resolution_is_read_from_text() {
    assert_eq!("1920x1080".parse(), Ok(Resolution::new(1920, 1080)));
    for text in ["", "x", "1920", "1920x", "x1080", "1920X1080", "+1x2", "99999x1", "1x2x3", "1 x2"]
    {
        assert_eq!(text.parse::<Resolution>(), Err(ResolutionError::Syntax), "{text}");
    }
    let check = |width, height| Resolution::new(width, height).check(VRAM);
    assert!(check(1920, 1080).is_ok());
    assert!(matches!(check(1920, 1200), Err(ResolutionError::TooLarge(_))));
    assert!(matches!(check(4096, 2160), Err(ResolutionError::OutOfRange(_))));
    assert!(matches!(check(0, 0), Err(ResolutionError::OutOfRange(_))));
}
