//! The NVSP half of the conformance checklist (netvsc section 13).

mod buffers;
mod initialization;
mod messages;
mod saved;

use super::*;

const GOOD: Gpadl = Gpadl { ranges: 1, byte_offset: 0, length: 16 << 20 };

fn message(kind: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.resize(40, 0);
    bytes
}

fn handle(session: &mut Session, kind: u32, words: &[u32]) -> Outcome {
    session.handle(&message(kind, words), true).unwrap()
}

/// The payload of a completion, as words.
fn reply(session: &mut Session, kind: u32, words: &[u32]) -> Vec<u32> {
    match handle(session, kind, words).completion {
        Completion::Message(message) => to_words(message.bytes()),
        other => panic!("{other:?}"),
    }
}

fn to_words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// A session after INIT, and NDIS_CONFIG if `version` has it.
fn configured(version: NvspVersion, max_frame: u32) -> Session {
    let mut session = Session::new(7);
    let word = version.number();
    assert_eq!(reply(&mut session, 1, &[word, word])[3], 1);
    if version.has_ndis_config() {
        handle(&mut session, 125, &[max_frame, 0, u32::MAX, 0]);
    }
    session
}

/// A session with both buffers.
fn ready(version: NvspVersion) -> Session {
    let mut session = configured(version, 1514);
    handle(&mut session, 101, &[9, 0xCAFE]);
    session.complete_receive_buffer(Some(GOOD)).1.unwrap();
    handle(&mut session, 104, &[10, 0]);
    session.complete_send_buffer(Some(Gpadl { length: 1 << 20, ..GOOD })).1.unwrap();
    session
}
