//! The echo device: the smallest whole backend, for authors to read and for guests' drivers to be
//! tried with.
//!
//! `docs/writing-a-backend.md` shows it line by line, and a test keeps the two alike. `synthvm run
//! --test-device echo` offers it to a real guest.

use std::convert::Infallible;

use vmbus::{
    ChannelHandle, ChannelHandler, Device, Guid, Offer, Outbox, Packet, ReadWrite, WorkerOptions,
    serve,
};

/// The class of the device. Guests load a driver by it.
pub const CLASS: Guid = Guid::new(0x6f68_6365, 0x7421, 0x0000, *b"SynthVM!");
/// The instance: which device of the class it is. It must be the same on every boot.
pub const INSTANCE: Guid = Guid::new(0x0000_0001, 0x7421, 0x0000, *b"SynthVM!");

/// Returns the device. It answers each packet with its own bytes. A packet that begins with {GPADL,
/// offset, length, status}, four u32, also names bytes of a buffer that the guest shares: they
/// become capitals in place, and `status` of the answer is 0, or 1 for an unknown GPADL, or 2 for
/// one that is shorter. An unknown GPADL 0 names no buffer, and is no error.
pub fn echo() -> impl Device {
    let offer = Offer::new(CLASS, INSTANCE, 0);
    serve("echo", offer, |channel| Echo(channel.handle()), WorkerOptions::default())
}

/// One open channel.
struct Echo(ChannelHandle);

impl ChannelHandler for Echo {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = ();

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        // The guest can change a packet at any moment: copy it once, and look only at the copy.
        let mut bytes = packet.payload();
        if let ([gpadl, offset, length, status, ..], _) = bytes.as_chunks_mut() {
            let [gpadl, offset, length] = [*gpadl, *offset, *length].map(u32::from_le_bytes);
            *status = self.shout(gpadl, offset as usize, length as usize).to_le_bytes();
        }
        if packet.completion_requested() {
            outbox.complete(packet.transaction_id(), bytes);
        }
        Ok(())
    }
}

impl Echo {
    /// Makes capitals of bytes that the guest shares. Returns the status.
    fn shout(&self, gpadl: u32, offset: usize, length: usize) -> u32 {
        // The view's bytes are the guest's own, wherever its pages lie, and every access is
        // bounded.
        let Ok(view) = self.0.map_gpadl(gpadl, ReadWrite) else { return u32::from(gpadl != 0) };
        if offset + length > view.len() {
            return 2;
        }
        let mut bytes = vec![0; length];
        let _ = view.read(offset, &mut bytes);
        bytes.make_ascii_uppercase();
        let _ = view.write(offset, &bytes);
        0 // Dropping the view lets the guest have its buffer back.
    }
}

/// The programs of `docs/writing-a-backend.md`, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-backend.md")]
struct WritingABackend;
