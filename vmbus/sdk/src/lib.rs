//! VMBus for virtual machine monitors: everything that the author of a device needs, in one crate.
//!
//! VMBus is the bus of Hyper-V's synthetic devices, and Linux and Windows have drivers for it. A
//! device *offers* itself on the bus by two GUIDs, and the driver in the guest opens a *channel* to
//! it: two ring buffers in guest memory and one signal in each direction. The driver sends packets,
//! the device answers them, and both work on many at a time with few signals. Large data is not
//! sent: the guest describes a buffer by its pages, once ([GPADL](memory::GpadlView)) or with each
//! packet, and the device reads and writes these pages where they lie. The guest is hostile: it
//! may change any byte at any moment, so every number is copied first, checked, and then used.
//!
//! # A complete device
//!
//! A device is an [`Offer`] and a [`ChannelHandler`]; [`serve`] makes the rest. This one answers
//! two numbers with their sum. It runs in a loopback VM, which is a real bus with a real client
//! over plain memory, so that no hypervisor is needed:
#![cfg_attr(feature = "loopback", doc = "```")]
#![cfg_attr(not(feature = "loopback"), doc = "```ignore")]
//! use std::convert::Infallible;
//!
//! use vmbus::client::{Client, SendFlags, Waiting};
//! use vmbus::loopback::{LoopbackVm, Mode};
//! use vmbus::{ChannelHandler, Guid, Offer, Outbox, Packet, WorkerOptions, serve};
//!
//! /// The class, by which the guest chooses its driver, and the only instance of it.
//! const ADDER: Guid = Guid::new(0x6164_6465, 0x7421, 0x0000, *b"SynthVM!");
//!
//! struct Adder;
//!
//! impl ChannelHandler for Adder {
//!     type Payload = Vec<u8>; // what a reply is made of
//!     type Error = Infallible; // why a guest may lose its channel: never
//!     type State = (); // what is saved with the machine: nothing
//!
//!     fn packet(
//!         &mut self,
//!         packet: &Packet<'_>,
//!         outbox: &mut Outbox<Vec<u8>>,
//!     ) -> Result<(), Infallible> {
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
//! # Where to find what
//!
//! | module | for | feature |
//! |---|---|---|
//! | the names below | a small device | |
//! | [`device`] | [`Device`], for one with a state of its own: subchannels, save, restore | |
//! | [`runtime`] | the workers that serve channels, and the choices for them | |
//! | [`memory`] | guest memory: shared buffers, and buffers that packets name | |
//! | [`ring`] | packets and rings, for a device that does without the runtime | |
//! | [`bus`] | the bus for a virtual machine monitor: its interrupt controller, reports, save | |
//! | [`protocol`] | messages, flags, limits and the GUIDs of known devices | |
//! | `client` | the guest's end | `client` |
//! | `loopback` | host and guest in one process | `loopback` (implies `client`) |
//!
//! The feature `serde` gives `Serialize` and `Deserialize` to what is saved and counted:
//! [`SavedBus`](bus::SavedBus), [`SavedPacket`](runtime::SavedPacket),
//! [`WorkerStats`](runtime::WorkerStats). No feature is on by default.
//!
//! Three examples show more, and each prints what it does: `cargo run -p vmbus --features loopback
//! --example NAME`, where NAME is `echo`; or `block_device`, a disk over a shared buffer in 100
//! lines; or `bench`, which measures a device beside the limits of the machine. In the sources,
//! `docs/writing-a-backend.md` is the guide to them.
//!
//! # Platform and versions
//!
//! Linux on x86-64; rings are mapped twice in a row by `mmap`, and doorbells are eventfds. The
//! oldest compiler is Rust 1.95. Nothing here needs KVM: a machine takes part by implementing
//! [`Synic`](bus::Synic). Below version 1.0 every release may change interfaces. Enums and structs
//! that will grow are `#[non_exhaustive]`, and the latter have constructors.
//!
//! Types of other crates in signatures are re-exported: [`EventFd`], [`vm_memory`], [`zerocopy`].
//!
//! # Specifications
//!
//! The sources cite the project's own specifications by section, such as "vmbus-core 4.3". They
//! are in `docs/spec` of the sources: `vmbus-core` (messages, GPADLs, rings), `kmcl` (the
//! interface of drivers in Windows, whose terms the client uses), and one for each device class.

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
