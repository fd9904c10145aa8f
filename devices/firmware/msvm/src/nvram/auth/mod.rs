//! Time-based authenticated writes (UEFI 2.10 section 8.2.2): the descriptor before the data, the
//! CMS signature in it, certificates and their chains, and the signature lists of key variables.
//!
//! All of it is pure and bounded: the input is at most as long as a variable may be.

mod certificate;
mod fields;
mod lists;
mod signed_data;
mod write;

pub(super) use certificate::Certificate;
pub(super) use lists::{certificates, check, is_one_certificate, merge};
pub(super) use signed_data::{SignedData, Trust};
pub(super) use write::AuthenticatedWrite;
pub use write::Timestamp;

/// SHA-256 of a private variable's signer: its common name, and the top of its chain.
pub(super) type SignerDigest = [u8; 32];
