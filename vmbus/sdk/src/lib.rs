//! VMBus for virtual machine monitors: the one crate that the author of a device needs.
//!
//! VMBus is the bus of Hyper-V's synthetic devices; Linux and Windows have drivers for it. A device
//! *offers* itself on the bus by two GUIDs, and the guest's driver opens a *channel* to it: two
//! ring buffers in guest memory and one signal in each direction. The driver sends packets and the
//! device answers them, many at a time with few signals. Large data does not go through the rings:
//! the guest describes a buffer by its pages, once ([GPADL](memory::GpadlView)) or with each
//! packet, and the device accesses these pages directly. The guest may be hostile and change any
//! byte at any time, so a device must copy every number, validate the copy, and use only the copy.
//!
//! # A complete device
//!
//! A device is an [`Offer`] and a [`ChannelHandler`]; [`serve`] adds the rest. This one answers two
//! numbers with their sum. It runs in a loopback VM: a real bus with a real client over plain
//! memory, without a hypervisor:
#![cfg_attr(feature = "loopback", doc = "```")]
#![cfg_attr(not(feature = "loopback"), doc = "```ignore")]
//! use std::convert::Infallible;
//!
//! use vmbus::client::{Client, SendFlags, Waiting};
//! use vmbus::loopback::{LoopbackVm, Mode};
//! use vmbus::{ChannelHandler, Guid, Offer, Outbox, Packet, WorkerOptions, serve};
//!
//! /// The class, by which the guest chooses its driver, and the only instance.
//! const ADDER: Guid = Guid::new(0x6164_6465, 0x7421, 0x0000, *b"SynthVM!");
//!
//! struct Adder;
//!
//! impl ChannelHandler for Adder {
//!     type Payload = Vec<u8>; // the bytes of a reply
//!     type Error = Infallible; // no packet breaks the channel
//!     type State = (); // no state to save
//!
//!     fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
//!         // Copies the numbers out of the ring; a shorter packet has none.
//!         let [a, b] = packet.read::<[u32; 2]>().unwrap_or_default();
//!         if packet.completion_requested() {
//!             let sum = u64::from(a) + u64::from(b);
//!             outbox.complete(packet.transaction_id(), sum.to_le_bytes().to_vec());
//!         }
//!         Ok(())
//!     }
//! }
//!
//! // The host: a bus with the device on it.
//! let vm = LoopbackVm::new(Mode::Threaded);
//! let offer = Offer::new(ADDER, ADDER, 0);
//! vm.offer(serve("adder", offer, |_| Adder, WorkerOptions::default()))?;
//!
//! // The guest: its driver opens the channel, sends a packet and waits for the answer.
//! let mut guest = Client::connect(vm.platform())?;
//! let id = guest.open(ADDER, Some(ADDER), None)?;
//! let mut channel = guest.channel(id);
//! let numbers = [1_u32 << 31; 2].map(u32::to_le_bytes).concat();
//! let (flags, mut sum) = (SendFlags::WAIT_FOR_COMPLETION, [0; 8]);
//! channel.send_synchronous_request(&numbers, None, flags, &mut sum, Waiting::Forever)?;
//! assert_eq!(u64::from_le_bytes(sum), 1 << 32);
//! channel.disable()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules
//!
//! | module | for | feature |
//! |---|---|---|
//! | the names below | a small device | |
//! | [`device`] | [`Device`], for a device with its own state: subchannels, save, restore | |
//! | [`runtime`] | the workers that serve channels, and their options | |
//! | [`memory`] | guest memory: shared buffers, and buffers that packets name | |
//! | [`ring`] | packets and rings, for a device without the runtime | |
//! | [`bus`] | the bus for a virtual machine monitor: its interrupt controller, reports, save | |
//! | [`protocol`] | messages, flags, limits and the GUIDs of known devices | |
//! | `client` | the guest's end | `client` |
//! | `loopback` | host and guest in one process | `loopback` (implies `client`) |
//!
//! The feature `serde` implements `Serialize` and `Deserialize` for saved states and counters:
//! [`SavedBus`](bus::SavedBus), [`SavedPacket`](runtime::SavedPacket),
//! [`WorkerStats`](runtime::WorkerStats). No feature is on by default.
//!
//! Three examples show more, and print their progress: `cargo run -p vmbus --features loopback
//! --example NAME`, where NAME is `echo`; or `block_device`, a disk over a shared buffer in 100
//! lines; or `bench`, which compares a device with the limits of the machine. In the sources,
//! `docs/writing-a-backend.md` is the guide to them.
//!
//! # Platform and versions
//!
//! Linux on x86-64; rings are mirrored by `mmap`, and doorbells are eventfds. The oldest supported
//! compiler is Rust 1.95. The crate does not need KVM: a machine implements [`Synic`](bus::Synic)
//! to use it. Below version 1.0 every release may change interfaces. Enums and structs that will
//! grow are `#[non_exhaustive]`, and such structs have constructors.
//!
//! Types of other crates in signatures are re-exported: [`EventFd`], [`vm_memory`], [`zerocopy`].
//!
//! # Specifications
//!
//! The sources cite the project's own specifications by section, such as "vmbus-core 4.3". They are
//! in `docs/spec` of the sources: `vmbus-core` (messages, GPADLs, rings), `kmcl` (Windows'
//! interface for drivers, which gives the client its terms), and one for each device class.

pub mod bus;
pub mod device;
pub mod memory;
pub mod protocol;
pub mod ring;
pub mod runtime;

/// The guest's end of the bus, with the terms of Windows' kernel-mode client library.
#[cfg(feature = "client")]
#[doc(inline)]
pub use vmbus_client as client;
/// Host and guest in one process over plain memory: to test and measure a device.
#[cfg(feature = "loopback")]
#[doc(inline)]
pub use vmbus_loopback as loopback;

#[doc(inline)]
pub use device::{Channel, ChannelHandle, Device, Offer};
#[doc(inline)]
pub use memory::{ReadOnly, ReadWrite};
#[doc(inline)]
pub use protocol::Guid;
#[doc(inline)]
pub use ring::Packet;
#[doc(inline)]
pub use runtime::{ChannelHandler, Outbox, WorkerOptions, serve};

pub use vm_memory;
pub use vmm_sys_util::eventfd::EventFd;
pub use zerocopy;
