//! A block device in 100 lines, and a guest that writes to it, reads back and compares.
//!
//! The guest shares a buffer by GPADL, once. A request names bytes of that buffer and blocks of the
//! disk; the device copies them directly between the guest's pages and its own memory, and answers
//! with a status.
//!
//! `cargo run -p vmbus --features loopback --example block_device`

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vmbus::client::{Client, GpadlFlags, GpadlHandle, Mdl, SendFlags, Waiting};
use vmbus::loopback::{Layout, LoopbackPlatform, LoopbackVm, Mode};
use vmbus::zerocopy::{FromBytes, Immutable, IntoBytes};
use vmbus::{
    ChannelHandle, ChannelHandler, Device, Guid, Offer, Outbox, Packet, ReadOnly, ReadWrite,
    WorkerOptions, serve,
};

/// The class of the device, and its only instance.
const DISK: Guid = Guid::new(0x6b73_6964, 0x7421, 0x0000, *b"SynthVM!");
/// Bytes of a block.
const BLOCK: usize = 512;

/// Copy blocks of the disk to the buffer.
const READ: u32 = 0;
/// Copy bytes of the buffer to blocks of the disk.
const WRITE: u32 = 1;

/// A request.
#[derive(FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "vmbus::zerocopy")]
#[repr(C)]
struct Request {
    /// [`READ`] or [`WRITE`].
    operation: u32,
    /// The id of the shared buffer.
    gpadl: u32,
    /// The first byte in the buffer.
    offset: u32,
    /// Number of blocks.
    blocks: u32,
    /// The first block of the disk.
    first: u64,
}

/// The answer to a request, eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Status {
    Success,
    Malformed,
    NoSuchBlocks,
    NoSuchBuffer,
}

/// The content of the disk, shared by all channels.
type Content = Arc<Mutex<Vec<u8>>>;

/// Returns a disk with this content.
fn disk(content: Content) -> impl Device {
    let handler = move |channel: &vmbus::Channel| Disk {
        channel: channel.handle(),
        content: Arc::clone(&content),
    };
    serve("disk", Offer::new(DISK, DISK, 0), handler, WorkerOptions::default())
}

/// One open channel.
struct Disk {
    channel: ChannelHandle,
    content: Content,
}

impl ChannelHandler for Disk {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = ();

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        // Copies the request, so that the guest cannot change it any more.
        let request = packet.read::<Request>().ok_or(Status::Malformed);
        let result = request.and_then(|request| self.carry_out(&request));
        if packet.completion_requested() {
            let status = result.err().unwrap_or(Status::Success);
            outbox.complete(packet.transaction_id(), (status as u64).to_le_bytes().into());
        }
        Ok(())
    }
}

impl Disk {
    fn carry_out(&self, request: &Request) -> Result<(), Status> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = bytes(request.first, request.blocks).ok_or(Status::NoSuchBlocks)?;
        let blocks = content.get_mut(blocks).ok_or(Status::NoSuchBlocks)?;
        let (gpadl, offset) = (request.gpadl, request.offset as usize);
        // The view's accesses are bounds-checked. With a file in place of the memory, `view.iovecs`
        // returns the iovecs for `preadv` and `pwritev`.
        let copied = match request.operation {
            READ => self.channel.map_gpadl(gpadl, ReadWrite).map(|view| view.write(offset, blocks)),
            WRITE => self.channel.map_gpadl(gpadl, ReadOnly).map(|view| view.read(offset, blocks)),
            _ => return Err(Status::Malformed),
        };
        // The view has been dropped, so the guest may reuse its buffer.
        copied.map_err(|_| Status::NoSuchBuffer)?.map_err(|_| Status::NoSuchBuffer)
    }
}

/// Returns the bytes of `count` blocks from `first`, if such numbers exist.
fn bytes(first: u64, count: u32) -> Option<Range<usize>> {
    let start = usize::try_from(first).ok()?.checked_mul(BLOCK)?;
    Some(start..start.checked_add((count as usize).checked_mul(BLOCK)?)?)
}

// The guest.

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut io::stdout(), 64 << 20)
}

/// Runs the example on a disk of `size` bytes, a multiple of 1 MiB, and prints its steps to `out`.
pub(crate) fn run(out: &mut impl Write, size: usize) -> Result<(), Box<dyn Error>> {
    let vm = LoopbackVm::new(Mode::Threaded);
    vm.offer(disk(Arc::new(Mutex::new(vec![0; size]))))?;
    writeln!(out, "disk     {} blocks of {BLOCK} bytes", size / BLOCK)?;
    let mut guest = Guest::start(&vm)?;
    let (pages, gpadl) = (guest.buffer.pages().len(), guest.shared.id());
    writeln!(out, "shared   1 MiB in {pages} scattered pages, as GPADL {gpadl:#x}")?;

    for (round, kib) in [4, 64, 1024].into_iter().enumerate() {
        let len = kib << 10;
        let pattern = |at: usize| -> Vec<u8> {
            (at..at + len).map(|byte| (byte / 8 * 31 + byte + round) as u8).collect()
        };
        for (name, operation) in [("written", WRITE), ("read", READ)] {
            let mut spent = 0.0;
            for at in (0..size).step_by(len) {
                let expected = pattern(at);
                let before = if operation == WRITE { &expected } else { &vec![0; len] };
                vm.pages().write_mdl(&guest.buffer, before);
                let start = Instant::now();
                let status = guest.request(operation, 0, at / BLOCK, len / BLOCK)?;
                spent += start.elapsed().as_secs_f64();
                let now = &vm.pages().read_mdl(&guest.buffer)[..len];
                if status != Status::Success as u64 || now != expected {
                    return Err(format!("{name} from byte {at}: wrong, status {status}").into());
                }
            }
            let requests = size / len;
            let each = spent * 1e6 / requests as f64;
            let rate = size as f64 / spent / 1e9;
            let what = format!("{requests} requests of {kib} KiB");
            writeln!(out, "{name:<8} {what:<28} {each:8.1} us each {rate:8.2} GB/s, compared")?;
        }
    }

    let last = size / BLOCK;
    let refused = [
        ("a block after the last", guest.request(READ, 0, last, 1)?, Status::NoSuchBlocks),
        ("a range that wraps", guest.request(READ, 0, usize::MAX, 2)?, Status::NoSuchBlocks),
        ("bytes after the buffer", guest.request(READ, 1 << 20, 0, 1)?, Status::NoSuchBuffer),
        ("an unknown operation", guest.request(7, 0, 0, 1)?, Status::Malformed),
    ];
    for (what, status, expected) in refused {
        if status != expected as u64 {
            return Err(format!("{what}: status {status}, not {expected:?}").into());
        }
        writeln!(out, "refused  {what}: {expected:?}")?;
    }
    guest.stop()?;
    writeln!(out, "returned {pages} pages: the host has no view of them")?;
    Ok(())
}

/// The driver of the device, with the buffer that it shares.
struct Guest {
    client: Client<LoopbackPlatform>,
    id: vmbus::client::ChannelId,
    buffer: Mdl,
    shared: GpadlHandle,
}

impl Guest {
    fn start(vm: &LoopbackVm) -> Result<Guest, Box<dyn Error>> {
        let mut client = Client::connect(vm.platform())?;
        let id = client.open(DISK, None, None)?;
        let pages = vm.pages().allocate(257, Layout::Scattered).ok_or("no memory")?;
        // The buffer begins in the middle of a page, as it need not be whole pages.
        let buffer = Mdl::new(1 << 20, 1000, pages)?;
        let flags = GpadlFlags::empty();
        let shared = client.channel(id).create_gpadl_from_mdl(flags, &buffer, 0, 0)?;
        Ok(Guest { client, id, buffer, shared })
    }

    /// Sends a request and returns the status of the answer.
    fn request(
        &mut self,
        operation: u32,
        offset: u32,
        first: usize,
        blocks: usize,
    ) -> Result<u64, Box<dyn Error>> {
        let (gpadl, blocks) = (self.shared.id(), u32::try_from(blocks)?);
        let request = Request { operation, gpadl, offset, blocks, first: first as u64 };
        let mut status = [0; 8];
        self.client.channel(self.id).send_synchronous_request(
            request.as_bytes(),
            None,
            SendFlags::WAIT_FOR_COMPLETION,
            &mut status,
            Waiting::Forever,
        )?;
        Ok(u64::from_le_bytes(status))
    }

    /// Reclaims the buffer, which succeeds once the host has no view of it, and closes the channel.
    fn stop(mut self) -> Result<(), Box<dyn Error>> {
        let mut channel = self.client.channel(self.id);
        channel.delete_gpadl(self.shared)?;
        Ok(channel.disable()?)
    }
}
