//! CMS SignedData (RFC 5652) with a detached content, as UEFI 2.10 section 8.2.2 narrows it.

use der::{Tag, asn1::ObjectIdentifier};
use ring::digest::{self, SHA256};

use super::fields::{self, Fields, context};
use super::{Certificate, SignerDigest};

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SHA256_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
/// Most certificates of a signature, and so most steps of a chain.
const MAX_CERTIFICATES: usize = 16;

/// A signature by one signer, not verified yet.
#[derive(Debug)]
pub(in crate::nvram) struct SignedData<'a> {
    /// The signer's certificate first.
    certificates: Vec<Certificate<'a>>,
    attributes: Option<&'a [u8]>,
    signature: &'a [u8],
}

/// The certificates that a signature must lead to.
#[derive(Clone, Copy, Debug)]
pub(in crate::nvram) enum Trust<'a> {
    /// One of these.
    Listed(&'a [Certificate<'a>]),
    /// The top of the chain that the signature includes.
    Included,
}

impl<'a> SignedData<'a> {
    /// Parses a SignedData, with or without a ContentInfo around it. `None`: it is malformed, or
    /// not what UEFI demands: SHA-256, RSA, one signer whose certificate is included, no content.
    pub(in crate::nvram) fn parse(bytes: &'a [u8]) -> Option<SignedData<'a>> {
        let mut outer = Fields::new(bytes)?;
        let mut data = outer.nested(Tag::Sequence)?;
        if !outer.is_empty() {
            return None;
        }
        if data.tag()? == Tag::ObjectIdentifier {
            if data.content(Tag::ObjectIdentifier)? != SIGNED_DATA.as_bytes() {
                return None;
            }
            data = data.nested(context(0))?.nested(Tag::Sequence)?;
        }
        data.content(Tag::Integer)?;
        let mut digests = data.nested(Tag::Set)?;
        if digests.algorithm()? != SHA256_OID.as_bytes() || !digests.is_empty() {
            return None;
        }
        let mut content = data.nested(Tag::Sequence)?;
        if content.content(Tag::ObjectIdentifier)? != DATA.as_bytes() || !content.is_empty() {
            return None;
        }
        let mut certificates = read_certificates(data.content(context(0))?)?;
        data.optional(context(1))?;
        let mut signers = data.nested(Tag::Set)?;
        let mut signer = signers.nested(Tag::Sequence)?;
        if !data.is_empty() || !signers.is_empty() {
            return None;
        }
        signer.content(Tag::Integer)?;
        let mut id = signer.nested(Tag::Sequence)?;
        let (issuer, serial) = (id.element()?, id.content(Tag::Integer)?);
        let position =
            certificates.iter().position(|c| c.issuer == issuer && c.serial == serial)?;
        certificates.swap(0, position);
        if signer.algorithm()? != SHA256_OID.as_bytes() {
            return None;
        }
        let attributes = signer.optional(context(0))?;
        let algorithm = signer.algorithm()?;
        if algorithm != RSA.as_bytes() && algorithm != RSA_SHA256.as_bytes() {
            return None;
        }
        let signature = signer.content(Tag::OctetString)?;
        Some(SignedData { certificates, attributes, signature })
    }

    /// Verifies the signature of `content` and the chain of its signer. Returns the digest of the
    /// signer; `None` as digest: its certificate has no common name.
    pub(in crate::nvram) fn verify(
        &self,
        content: &[u8],
        trust: Trust<'_>,
    ) -> Option<Option<SignerDigest>> {
        let (signer, included) = self.certificates.split_first()?;
        let is_signed = match self.attributes {
            None => signer.verifies(content, self.signature),
            Some(attributes) => {
                is_digest_of(attributes, content)?;
                // The signature is that of a SET OF, whose tag is not the one in the message.
                let mut set = attributes.to_vec();
                *set.first_mut()? = 0x31;
                signer.verifies(&set, self.signature)
            }
        };
        if !is_signed {
            return None;
        }
        let top = chain(signer, included, trust)?;
        Some(signer.signer_digest(&top))
    }
}

fn read_certificates(bytes: &[u8]) -> Option<Vec<Certificate<'_>>> {
    let mut list = Fields::new(bytes)?;
    let mut certificates = Vec::new();
    let mut count = 0;
    while !list.is_empty() {
        count += 1;
        if count > MAX_CERTIFICATES {
            return None;
        }
        // A certificate that cannot be used, of another kind for example, is not a link.
        certificates.extend(Certificate::parse(list.element()?));
    }
    Some(certificates)
}

/// Checks the signed attributes: the digest of the content, whose type is data.
fn is_digest_of(attributes: &[u8], content: &[u8]) -> Option<()> {
    let (mut digests, mut types) = (0, 0);
    let mut list = Fields::new(fields::content(attributes)?)?;
    while !list.is_empty() {
        let mut attribute = list.nested(Tag::Sequence)?;
        let kind = attribute.content(Tag::ObjectIdentifier)?;
        let mut values = attribute.nested(Tag::Set)?;
        if kind == MESSAGE_DIGEST.as_bytes() {
            let digest = digest::digest(&SHA256, content);
            if values.content(Tag::OctetString)? != digest.as_ref() || !values.is_empty() {
                return None;
            }
            digests += 1;
        } else if kind == CONTENT_TYPE.as_bytes() {
            if values.content(Tag::ObjectIdentifier)? != DATA.as_bytes() || !values.is_empty() {
                return None;
            }
            types += 1;
        }
    }
    (digests == 1 && types == 1).then_some(())
}

/// Returns the certificate that ends the chain of `signer`. `None`: the chain does not lead to
/// trust. Each included certificate is used once at most, so the work is bounded.
fn chain<'a>(
    signer: &Certificate<'a>,
    included: &[Certificate<'a>],
    trust: Trust<'a>,
) -> Option<Certificate<'a>> {
    let mut current = *signer;
    let mut pool = included.to_vec();
    // Every step but the last adds an authority above the signer.
    for below in 0..=MAX_CERTIFICATES {
        if let Trust::Listed(listed) = trust {
            let is_issuer =
                |c: &&Certificate<'_>| c.der == current.der || current.is_issued_by(c, below);
            if let Some(found) = listed.iter().find(is_issuer) {
                return Some(*found);
            }
        }
        match pool.iter().position(|c| c.der != current.der && current.is_issued_by(c, below)) {
            Some(position) => current = pool.swap_remove(position),
            None => break,
        }
    }
    match trust {
        Trust::Listed(_) => None,
        Trust::Included => Some(current),
    }
}
