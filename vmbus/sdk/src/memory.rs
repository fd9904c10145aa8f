//! Guest memory: buffers that a guest shares once (GPADLs) and buffers that a packet names.
//!
//! * A guest announces a buffer by its page list, a GPADL. [`Channel::map_gpadl`] gives a view of
//!   it: a [`GpadlView`] for [`ReadWrite`], a [`ReadOnlyView`] for [`ReadOnly`]. The guest gets its
//!   memory back when the view is dropped.
//! * A packet may carry a page list of its own. [`Packet::gpa_direct`] puts it into a reusable
//!   [`GuestBuffer`].
//!
//! A [`GpadlView`] is a [`GuestBuffer`] too, so both have the same methods: `read` and `write`
//! copy, `slices` and `iovecs` give the bytes where they lie. Every page was checked to be guest
//! RAM, and every access is bounded.
//!
//! [`Channel::map_gpadl`]: crate::Channel::map_gpadl
//! [`Packet::gpa_direct`]: crate::Packet::gpa_direct

pub use libc::iovec;
pub use vm_memory::{GuestAddress, GuestMemoryMmap, VolatileSlice};
#[doc(inline)]
pub use vmbus_gpadl::{
    Access, BufferError, Contiguous, ContiguousError, ContiguousMappingError, Destination, FileRun,
    GpadlKey, GpadlView, GuestBuffer, GuestRam, MapError, RamError, RangeAssembler, RangeError,
    ReadOnly, ReadOnlyView, ReadSlice, ReadSlices, ReadWrite, Slices,
};
