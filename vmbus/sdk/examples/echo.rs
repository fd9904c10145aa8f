//! A device that answers each packet with itself, and a guest that uses it.
//!
//! `cargo run -p vmbus --features loopback --example echo`

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};

use vmbus::client::{Client, SendFlags, Waiting};
use vmbus::loopback::{LoopbackVm, Mode};
use vmbus::{ChannelHandler, Device, Guid, Offer, Outbox, Packet, WorkerOptions, serve};

/// The class of the device, and its only instance.
const ECHO: Guid = Guid::new(0x6f68_6365, 0x7421, 0x0001, *b"SynthVM!");

/// One open channel of the device.
struct Echo;

impl ChannelHandler for Echo {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = ();

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        if packet.completion_requested() {
            outbox.complete(packet.transaction_id(), packet.payload());
        }
        Ok(())
    }
}

fn echo() -> impl Device {
    serve("echo", Offer::new(ECHO, ECHO, 0), |_| Echo, WorkerOptions::default())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut io::stdout())
}

/// Runs the example and prints its steps to `out`.
pub(crate) fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let vm = LoopbackVm::new(Mode::Threaded);
    vm.offer(echo())?;
    writeln!(out, "host   offers class {ECHO}")?;

    let mut guest = Client::connect(vm.platform())?;
    writeln!(out, "guest  speaks version {}", guest.version())?;
    let id = guest.open(ECHO, None, None)?;
    let mut channel = guest.channel(id);
    let relid = channel.relid().unwrap_or_default();
    writeln!(out, "guest  has opened channel {relid}")?;

    for text in ["hello", "is anybody there?", "a packet has a multiple of 8 bytes"] {
        let mut answer = [0; 64];
        let flags = SendFlags::WAIT_FOR_COMPLETION;
        let len = channel.send_synchronous_request(
            text.as_bytes(),
            None,
            flags,
            &mut answer,
            Waiting::Forever,
        )?;
        let answer = &answer[..len];
        // The reply includes the padding: a protocol must carry the length of its data.
        let (said, padding) = answer.split_at(text.len());
        if said != text.as_bytes() {
            return Err("the answer differs from the request".into());
        }
        let padding = padding.len();
        writeln!(out, "guest  {text:?} came back, with {padding} bytes of padding")?;
    }

    for channel in vm.inspect().channels {
        let (sent, saved) = (channel.signals_sent, channel.signals_suppressed);
        writeln!(out, "host   interrupts: {sent} sent, {saved} not needed")?;
    }
    guest.channel(id).disable()?;
    Ok(())
}
