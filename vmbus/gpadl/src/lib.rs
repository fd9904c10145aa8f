//! GPADLs: page lists that are received once, validated once, merged into runs, and used through
//! counted views.
//!
//! This crate is the only owner of page lists in SynthVM. The path through it:
//!
//! ```text
//! u64 words (GPADL header and bodies, GPA-direct packets)
//!     -> RangeAssembler -> GuestBuffer -> Gpadl -> GpadlView
//! ```
//!
//! Page numbers are checked against guest RAM and converted to host addresses as they arrive, and
//! neighbours are merged into runs. No second list is ever kept.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::as_conversions))]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod access;
mod assembler;
mod buffer;
mod contiguous;
mod contiguous_mapping;
mod count;
mod gpadl;
mod mapping;
mod page_size;
mod ram;
mod run;
mod segments;
mod slices;

pub use access::BufferError;
pub use assembler::{Destination, RangeAssembler, RangeError};
pub use buffer::GuestBuffer;
pub use contiguous::{Contiguous, ContiguousError};
pub use contiguous_mapping::{ContiguousMapping, ContiguousMappingError, leaked_address_space};
pub use gpadl::{Gpadl, GpadlKey, GpadlView, MapError, ReleaseSink, Teardown};
pub use mapping::{Access, ReadOnly, ReadOnlyView, ReadSlice, ReadSlices, ReadWrite};
pub use ram::{FileRun, GuestRam, RamError};
pub use slices::Slices;
