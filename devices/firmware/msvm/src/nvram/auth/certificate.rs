//! X.509 certificates (RFC 5280), as far as the verification of a chain needs them.
//!
//! Validity dates are not checked: firmware has no clock that it can trust, and EDK2 checks none.

use der::{Tag, asn1::ObjectIdentifier};
use ring::digest::{self, SHA256};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RsaParameters, UnparsedPublicKey,
};

use super::SignerDigest;
use super::fields::{self, Fields, context};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const ALTERNATIVE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
/// Of the first byte of key usage: keyCertSign, bit 5 from the left.
const CERTIFICATE_SIGNING: u8 = 0x80 >> 5;

/// A certificate with an RSA key.
#[derive(Clone, Copy, Debug)]
pub(in crate::nvram) struct Certificate<'a> {
    /// All of it.
    pub(in crate::nvram) der: &'a [u8],
    /// The part that its issuer has signed.
    signed: &'a [u8],
    pub(super) serial: &'a [u8],
    pub(super) issuer: &'a [u8],
    subject: &'a [u8],
    /// RSAPublicKey.
    key: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    authority: Authority,
}

/// Whether the key may sign certificates.
#[derive(Clone, Copy, Debug, Default)]
struct Authority {
    is_authority: bool,
    /// Most authorities between it and the signer.
    path_len: Option<u8>,
    may_not_sign: bool,
}

impl<'a> Certificate<'a> {
    /// Parses a certificate. `None`: it is malformed, has no RSA key, or a critical extension that
    /// is not known here.
    pub(in crate::nvram) fn parse(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut outer = Fields::new(der)?;
        let mut certificate = outer.nested(Tag::Sequence)?;
        let signed = certificate.element()?;
        let algorithm = certificate.algorithm()?;
        let signature = bits(certificate.content(Tag::BitString)?)?;
        if !outer.is_empty() || !certificate.is_empty() {
            return None;
        }
        let mut body = Fields::new(signed)?.nested(Tag::Sequence)?;
        body.optional(context(0))?;
        let serial = body.content(Tag::Integer)?;
        // The same algorithm as outside, where no signature protects it.
        if body.algorithm()? != algorithm {
            return None;
        }
        let issuer = name(&mut body)?;
        body.content(Tag::Sequence)?;
        let subject = name(&mut body)?;
        let mut info = body.nested(Tag::Sequence)?;
        if info.algorithm()? != RSA.as_bytes() {
            return None;
        }
        let key = bits(info.content(Tag::BitString)?)?;
        let mut authority = Authority::default();
        while !body.is_empty() {
            if body.tag()? == context(3) {
                authority.read_extensions(body.nested(context(3))?)?;
            } else {
                // Unique identifiers, which are obsolete.
                body.element()?;
            }
        }
        Some(Certificate {
            der,
            signed,
            serial,
            issuer,
            subject,
            key,
            algorithm,
            signature,
            authority,
        })
    }

    /// Returns whether its key has made a PKCS #1 v1.5 signature of `message` with SHA-256.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifies_with(&RSA_PKCS1_2048_8192_SHA256, message, signature)
    }

    /// Returns whether `issuer` may have issued this certificate, `below` authorities above the
    /// signer, and has signed it.
    pub(super) fn is_issued_by(&self, issuer: &Certificate<'_>, below: usize) -> bool {
        let Authority { is_authority, path_len, may_not_sign } = issuer.authority;
        if self.issuer != issuer.subject || !is_authority || may_not_sign {
            return false;
        }
        if path_len.is_some_and(|len| below > usize::from(len)) {
            return false;
        }
        let algorithms: [(_, &RsaParameters); 3] = [
            (RSA_SHA256, &RSA_PKCS1_2048_8192_SHA256),
            (RSA_SHA384, &RSA_PKCS1_2048_8192_SHA384),
            (RSA_SHA512, &RSA_PKCS1_2048_8192_SHA512),
        ];
        let found = algorithms.iter().find(|(oid, _)| oid.as_bytes() == self.algorithm);
        found.is_some_and(|(_, algorithm)| {
            issuer.verifies_with(algorithm, self.signed, self.signature)
        })
    }

    /// Returns the digest by which later writes of a private variable are recognized, where this
    /// certificate is the signer's and `top` ends its chain. `None`: it has no common name.
    pub(super) fn signer_digest(&self, top: &Certificate<'_>) -> Option<SignerDigest> {
        let mut context = digest::Context::new(&SHA256);
        context.update(self.common_name()?);
        context.update(top.signed);
        context.finish().as_ref().try_into().ok()
    }

    /// Returns the first common name of the subject, as it is encoded.
    fn common_name(&self) -> Option<&'a [u8]> {
        let mut names = Fields::new(self.subject)?.nested(Tag::Sequence)?;
        while !names.is_empty() {
            let mut set = names.nested(Tag::Set)?;
            while !set.is_empty() {
                let mut attribute = set.nested(Tag::Sequence)?;
                if attribute.content(Tag::ObjectIdentifier)? == COMMON_NAME.as_bytes() {
                    return fields::content(attribute.element()?);
                }
            }
        }
        None
    }

    fn verifies_with(
        &self,
        algorithm: &'static RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        UnparsedPublicKey::new(algorithm, self.key).verify(message, signature).is_ok()
    }
}

impl Authority {
    fn read_extensions(&mut self, mut list: Fields<'_>) -> Option<()> {
        let mut extensions = list.nested(Tag::Sequence)?;
        while !extensions.is_empty() {
            let mut extension = extensions.nested(Tag::Sequence)?;
            let oid = extension.content(Tag::ObjectIdentifier)?;
            let critical = extension.optional(Tag::Boolean)?;
            let value = extension.content(Tag::OctetString)?;
            if oid == BASIC_CONSTRAINTS.as_bytes() {
                self.read_basic_constraints(value)?;
            } else if oid == KEY_USAGE.as_bytes() {
                let usage = Fields::new(value)?.content(Tag::BitString)?;
                let first = usage.get(1).copied().unwrap_or_default();
                self.may_not_sign = first & CERTIFICATE_SIGNING == 0;
            } else if critical.is_some() {
                let known = [ALTERNATIVE_NAME, POLICIES, EXTENDED_KEY_USAGE];
                known.iter().find(|known| known.as_bytes() == oid)?;
            }
        }
        Some(())
    }

    fn read_basic_constraints(&mut self, value: &[u8]) -> Option<()> {
        let mut constraints = Fields::new(value)?.nested(Tag::Sequence)?;
        if let Some(flag) = constraints.optional(Tag::Boolean)? {
            self.is_authority = fields::content(flag)? == [0xFF];
        }
        if !constraints.is_empty() {
            let [len] = *constraints.content(Tag::Integer)? else { return None };
            self.path_len = Some(len);
        }
        Some(())
    }
}

/// Returns a Name with its tag and length, the form in which names are compared.
fn name<'a>(body: &mut Fields<'a>) -> Option<&'a [u8]> {
    (body.tag()? == Tag::Sequence).then(|| body.element())?
}

/// Returns the bytes of a BIT STRING that has whole bytes.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&[0])
}
