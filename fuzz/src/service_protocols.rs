//! One integration service: requests, responses of any form, timeouts, save and restore. A model
//! of the session is compared after every step.

use std::time::{Duration, Instant};

use synthvm_services::protocol::{
    Link, MAX_UNANSWERED, Received, Rejected, Response, ServiceKind, Session, heartbeat, ip, kvp,
    vss,
};

use crate::input::Input;

const MAX_STEPS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of a session without its code.
#[derive(Default)]
struct Model {
    outstanding: Option<u8>,
    unanswered: Vec<u8>,
}

/// Layout: the service, then steps. A step is an operation and its arguments. Operations: a request
/// of some length; a response (type, transaction, flags, body); a packet of any bytes; a timeout;
/// save and restore.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = ServiceKind::ALL[usize::from(input.u8()) % ServiceKind::ALL.len()];
    let mut session = Session::new(kind);
    let mut now = Instant::now();
    let mut model = Model::default();
    check_packet(&session.offer());
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        match input.u8() % 5 {
            0 => {
                let body = vec![0x5A; usize::from(input.u16()) % 8192];
                request(&mut session, &mut model, &body, now);
            }
            1 => {
                let packet = response(&mut input, &model);
                receive(&mut session, &mut model, &packet);
            }
            2 => {
                let length = usize::from(input.u16());
                let packet = input.bytes(length);
                receive(&mut session, &mut model, packet);
            }
            3 => {
                now += Duration::from_secs(u64::from(input.u8() % 12));
                if session.expire(now) {
                    model.unanswered.extend(model.outstanding.take());
                }
            }
            _ => {
                let saved = session.save();
                session = Session::restore(kind, &saved);
                model.unanswered.extend(model.outstanding.take());
                let extra = model.unanswered.len().saturating_sub(MAX_UNANSWERED - 1);
                model.unanswered.drain(..extra);
                assert_eq!(session.link(), Link::Negotiating);
            }
        }
        assert_eq!(session.deadline().is_some(), model.outstanding.is_some());
        assert!(model.unanswered.len() <= MAX_UNANSWERED);
        assert_eq!(session.is_unresponsive(), model.unanswered.len() == MAX_UNANSWERED);
    }
}

fn request(session: &mut Session, model: &mut Model, body: &[u8], now: Instant) {
    let can = session.is_idle();
    let packet = session.request(body, now, TIMEOUT);
    assert_eq!(packet.is_some(), can);
    let Some(packet) = packet else { return };
    check_packet(&packet);
    assert_eq!(packet.len(), 28 + body.len());
    let id = packet[24];
    assert!(model.outstanding.is_none() && !model.unanswered.contains(&id));
    model.outstanding = Some(id);
}

/// Checks the sizes in both headers.
fn check_packet(packet: &[u8]) {
    let word = |at: usize| u32::from_le_bytes(packet[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((word(0), word(4)), (1, packet.len() - 8));
    let size = u16::from_le_bytes([packet[18], packet[19]]);
    assert_eq!(usize::from(size), packet.len() - 28);
    assert_eq!(packet[25], 3);
}

/// Returns a packet with plausible headers.
fn response(input: &mut Input<'_>, model: &Model) -> Vec<u8> {
    let kind = u16::from(input.u8() % 9);
    let transaction = match input.u8() % 4 {
        0 => input.u8(),
        1 => model.unanswered.first().copied().unwrap_or_default(),
        _ => model.outstanding.unwrap_or_default(),
    };
    let flags = if input.u8() % 8 == 0 { input.u8() } else { 5 };
    let status = input.u32();
    let length = usize::from(input.u16());
    let body = input.bytes(length);
    let mut packet = [1, body.len() as u32 + 20, 0].map(u32::to_le_bytes).concat();
    packet.extend(kind.to_le_bytes());
    packet.extend([0; 6]);
    packet.extend(status.to_le_bytes());
    packet.extend([transaction, flags, 0, 0]);
    packet.extend(body);
    packet
}

fn receive(session: &mut Session, model: &mut Model, packet: &[u8]) {
    let (before, link) = (session.clone(), session.link());
    match session.receive(packet) {
        Ok(Received::Link) => {
            assert_eq!(link, Link::Negotiating);
            assert_ne!(session.link(), Link::Negotiating);
        }
        Ok(Received::Response(response)) => {
            assert_eq!(model.outstanding.take(), Some(packet[24]));
            assert!(matches!(link, Link::Ready(_)));
            read(&response);
        }
        Ok(Received::Late) => {
            let at = model.unanswered.iter().position(|id| *id == packet[24]);
            model.unanswered.remove(at.expect("the request is unanswered"));
        }
        Err(rejected) => {
            assert_eq!(*session, before, "a refused packet changes nothing");
            if let Rejected::Transaction(id) = rejected {
                assert!(model.outstanding != Some(id) && !model.unanswered.contains(&id));
            }
        }
    }
}

/// Reads a response as every service does.
fn read(response: &Response) {
    let body = &response.body;
    let _ = (heartbeat::response(body), vss::flags(body), response.status.to_string());
    if let Some(pair) = kvp::pair(body) {
        assert!(pair.key.encode_utf16().count() <= 256);
        assert!(pair.value.encode_utf16().count() <= 1024);
    }
    if let Some(info) = ip::read(body) {
        let lists = [&info.addresses, &info.subnets, &info.gateways, &info.dns];
        assert!(lists.iter().all(|list| list.len() <= 512));
        assert!(lists.iter().flat_map(|list| list.iter()).all(|one| !one.contains(';')));
    }
}
