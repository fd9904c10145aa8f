//! Guest memory: buffers that a guest shares once (GPADLs) and buffers that a packet names.
//!
//! * A guest shares a buffer by its page list, a GPADL. [`Channel::map_gpadl`] returns a view of
//!   it: a [`GpadlView`] for [`ReadWrite`], a [`ReadOnlyView`] for [`ReadOnly`]. Dropping the view
//!   returns the memory to the guest.
//! * A packet may carry a page list of its own. [`Packet::gpa_direct`] puts it into a reusable
//!   [`GuestBuffer`].
//!
//! A [`GpadlView`] is a [`GuestBuffer`] too, so both have the same methods: `read` and `write` copy
//! bytes, `slices` and `iovecs` give direct access. All pages are validated guest RAM, and every
//! access is bounds-checked.
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
