//! Signature lists: the values of the key variables (UEFI 2.10 section 32.4.1).

use std::collections::HashSet;

use vmbus_protocol::Guid;

use super::Certificate;
use crate::fields::le32;
use crate::nvram::presets::{LIST_HEADER, SHA256, X509};

/// GUID of the owner, before each signature.
const OWNER_BYTES: usize = 16;

/// Types of signatures with the bytes of one, besides [`X509`], whose length varies.
const FIXED: [(Guid, usize); 11] = [
    (SHA256, 32),
    // SHA-1, SHA-224, SHA-384, SHA-512.
    (Guid::new(0x826c_a512, 0xcf10, 0x4ac9, [0xb1, 0x87, 0xbe, 0x01, 0x49, 0x66, 0x31, 0xbd]), 20),
    (Guid::new(0x0b6e_5233, 0xa65c, 0x44c9, [0x94, 0x07, 0xd9, 0xab, 0x83, 0xbf, 0xc8, 0xbd]), 28),
    (Guid::new(0xff3e_5307, 0x9fd0, 0x48c9, [0x85, 0xf1, 0x8a, 0xd5, 0x6c, 0x70, 0x1e, 0x01]), 48),
    (Guid::new(0x093e_0fae, 0xa6c4, 0x4f50, [0x9f, 0x1b, 0xd4, 0x1e, 0x2b, 0x89, 0xc1, 0x9a]), 64),
    // RSA 2048: a key, a signature of a SHA-256 hash, of a SHA-1 hash.
    (Guid::new(0x3c57_66e8, 0x269c, 0x4e34, [0xaa, 0x14, 0xed, 0x77, 0x6e, 0x85, 0xb3, 0xb6]), 256),
    (Guid::new(0xe2b3_6190, 0x879b, 0x4a3d, [0xad, 0x8d, 0xf2, 0xe7, 0xbb, 0xa3, 0x27, 0x84]), 256),
    (Guid::new(0x67f8_444f, 0x8743, 0x48f1, [0xa3, 0x28, 0x1e, 0xaa, 0xb8, 0x73, 0x60, 0x80]), 256),
    // Hash of a certificate (SHA-256, SHA-384, SHA-512) and the time of its revocation.
    (Guid::new(0x3bd2_a492, 0x96c0, 0x4079, [0xb4, 0x20, 0xfc, 0xf9, 0x8e, 0xf1, 0x03, 0xed]), 48),
    (Guid::new(0x7076_876e, 0x80c2, 0x4ee6, [0xaa, 0xd2, 0x28, 0xb3, 0x49, 0xa6, 0x86, 0x5b]), 64),
    (Guid::new(0x446d_bf63, 0x2502, 0x4cda, [0xbc, 0xfa, 0x24, 0x65, 0xd2, 0xb0, 0xfe, 0x9d]), 80),
];

/// One list: signatures of one type and length.
struct List<'a> {
    kind: Guid,
    signature_bytes: usize,
    /// Owner and signature, one after another.
    signatures: &'a [u8],
}

impl<'a> List<'a> {
    fn signatures(&self) -> impl Iterator<Item = &'a [u8]> {
        self.signatures.chunks_exact(self.signature_bytes)
    }
}

/// Returns whether `value` is signature lists of known types, from its first to its last byte.
pub(in crate::nvram) fn check(value: &[u8]) -> bool {
    parse(value).is_some()
}

/// Returns whether `value` is one list with one certificate, the form of a platform key.
pub(in crate::nvram) fn is_one_certificate(value: &[u8]) -> bool {
    let lists = parse(value).unwrap_or_default();
    matches!(&lists[..], [list] if list.kind == X509 && list.signatures().count() == 1)
}

/// Returns the certificates of a value, as far as they can be used.
pub(in crate::nvram) fn certificates(value: &[u8]) -> Vec<Certificate<'_>> {
    let lists = parse(value).unwrap_or_default();
    let certificates = lists.iter().filter(|list| list.kind == X509).flat_map(List::signatures);
    certificates.filter_map(|signature| Certificate::parse(&signature[OWNER_BYTES..])).collect()
}

/// Returns `old` with those signatures of `new` that it does not have yet. `None`: `new` is not
/// signature lists.
pub(in crate::nvram) fn merge(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let mut merged = old.to_vec();
    let known = parse(old).unwrap_or_default();
    let mut known: HashSet<(Guid, &[u8])> =
        known.iter().flat_map(|list| list.signatures().map(|bytes| (list.kind, bytes))).collect();
    for list in parse(new)? {
        let added = list.signatures().filter(|bytes| known.insert((list.kind, bytes)));
        let added: Vec<u8> = added.flatten().copied().collect();
        if added.is_empty() {
            continue;
        }
        merged.extend(list.kind.to_bytes());
        let lengths = [LIST_HEADER as usize + added.len(), 0, list.signature_bytes];
        merged.extend(lengths.iter().flat_map(|len| (*len as u32).to_le_bytes()));
        merged.extend(added);
    }
    Some(merged)
}

/// Returns the lists of a value. `None`: a length is wrong, or a type is unknown.
fn parse(mut value: &[u8]) -> Option<Vec<List<'_>>> {
    let mut lists = Vec::new();
    while !value.is_empty() {
        let kind = Guid::from_bytes(*value.first_chunk()?);
        let [len, header, signature_bytes] = [le32(value, 16)?, le32(value, 20)?, le32(value, 24)?];
        let (list, rest) = value.split_at_checked(len as usize)?;
        // All types that exist have no header of their own.
        let signatures = list.get(LIST_HEADER as usize..).filter(|_| header == 0)?;
        let signature_bytes = signature_bytes as usize;
        let data = signature_bytes.checked_sub(OWNER_BYTES).filter(|bytes| *bytes > 0)?;
        let fits = kind == X509 || FIXED.contains(&(kind, data));
        if !fits || signatures.is_empty() || !signatures.len().is_multiple_of(signature_bytes) {
            return None;
        }
        lists.push(List { kind, signature_bytes, signatures });
        value = rest;
    }
    Some(lists)
}
