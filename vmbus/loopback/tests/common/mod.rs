//! Helpers of the tests: an echo device, and a guest that sends raw messages.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod raw;
pub mod teller;

use vmbus_client::{Client, Error, Offer as SeenOffer};
use vmbus_host::{Channel, Offer, OpenError};
use vmbus_loopback::{Flow, Handler, LoopbackPlatform, LoopbackVm, Mode};
use vmbus_protocol::Guid;
use vmbus_ring::{OutPacket, PacketKind, RingError};

pub const CLASS: Guid = Guid::new(0x6563_686f, 1, 2, [3; 8]);
pub const BOTH_MODES: [Mode; 2] = [Mode::Stepped, Mode::Threaded];

pub fn instance(number: u8) -> Guid {
    Guid::new(0x1000 + u32::from(number), 0, 0, [number; 8])
}

pub fn offer(number: u8) -> Offer {
    Offer::new(CLASS, instance(number), u32::from(number))
}

pub type TestClient = Client<LoopbackPlatform>;

pub fn client(vm: &LoopbackVm) -> TestClient {
    Client::connect(vm.platform()).unwrap()
}

/// A copy of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: PacketKind,
    pub transaction_id: u64,
    pub completion_requested: bool,
    pub payload: Vec<u8>,
}

/// Takes all packets in the ring, and signals the guest when it waits for the space.
pub fn take_packets(channel: &mut Channel) -> Result<Vec<Seen>, RingError> {
    let mut seen = Vec::new();
    loop {
        let mut batch = channel.incoming.batch()?;
        while let Some(packet) = batch.next()? {
            let mut payload = vec![0; packet.payload_len()];
            packet.read_payload(&mut payload);
            seen.push(Seen {
                kind: packet.kind(),
                transaction_id: packet.transaction_id(),
                completion_requested: packet.completion_requested(),
                payload,
            });
        }
        let space = batch.commit();
        channel.signal_if(space);
        if !channel.incoming.unmask()? {
            return Ok(seen);
        }
    }
}

pub fn complete(channel: &mut Channel, id: u64, payload: &[u8]) {
    write(channel, &OutPacket::completion(id, &[payload]));
}

pub fn write(channel: &mut Channel, packet: &OutPacket<'_>) {
    let mut batch = channel.outgoing.batch().unwrap();
    batch.write(packet).unwrap();
    let signal = batch.commit();
    channel.signal_if(signal);
}

/// Returns a handler that completes each request with its own payload. A packet that requests no
/// completion is answered by one of the same kind.
pub fn echo(_: &Channel) -> Result<Handler, OpenError> {
    Ok(Box::new(|channel| {
        if channel.is_closing() {
            return Flow::Stop;
        }
        let Ok(packets) = take_packets(channel) else { return Flow::Stop };
        for packet in packets {
            let payload: &[&[u8]] = &[&packet.payload];
            let answer = if packet.completion_requested {
                OutPacket::completion(packet.transaction_id, payload)
            } else {
                OutPacket::in_band(0, payload)
            };
            write(channel, &answer);
        }
        Flow::Wait
    }))
}

/// Returns a VM with `devices` echo devices.
pub fn echo_vm(mode: Mode, devices: u8) -> LoopbackVm {
    let vm = LoopbackVm::new(mode);
    for number in 0..devices {
        vm.offer_served(offer(number), echo).unwrap();
    }
    vm
}

pub fn offers(client: &TestClient) -> Vec<SeenOffer> {
    client.offers().cloned().collect()
}

pub fn is_stalled<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Stalled))
}
