//! The descriptor before the data: EFI_VARIABLE_AUTHENTICATION_2 (UEFI 2.10 section 8.2.2).

use vmbus_protocol::Guid;

use crate::fields::{le16, le32};

const TIME_BYTES: usize = 16;
/// Of WIN_CERTIFICATE_UEFI_GUID: length, revision, type, GUID.
const CERTIFICATE_HEADER: usize = 24;
const WIN_CERT_TYPE_EFI_GUID: u16 = 0x0EF1;
const PKCS7: Guid =
    Guid::new(0x4aaf_d29d, 0x68df, 0x49ee, [0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7]);

/// The time of an authenticated write, an EFI_TIME, as its signer chose it. No clock is involved:
/// it orders the writes of one variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp([u8; TIME_BYTES]);

impl Timestamp {
    /// Returns the time in an EFI_TIME: u16 year, then a byte each for month, day, hour, minute and
    /// second; the fields after them are not compared.
    #[must_use]
    pub fn new(bytes: [u8; TIME_BYTES]) -> Timestamp {
        Timestamp(bytes)
    }

    /// Returns the EFI_TIME.
    #[must_use]
    pub fn bytes(&self) -> [u8; TIME_BYTES] {
        self.0
    }

    /// Returns whether it is later than `other`.
    #[must_use]
    pub fn is_after(&self, other: &Timestamp) -> bool {
        self.order() > other.order()
    }

    fn order(&self) -> (u16, [u8; 5]) {
        let [year_low, year_high, month, day, hour, minute, second, ..] = self.0;
        (u16::from_le_bytes([year_low, year_high]), [month, day, hour, minute, second])
    }
}

/// The data of an authenticated write.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nvram) struct AuthenticatedWrite<'a> {
    pub(in crate::nvram) time: Timestamp,
    /// CMS SignedData, not checked yet.
    pub(in crate::nvram) signature: &'a [u8],
    /// The new value.
    pub(in crate::nvram) value: &'a [u8],
}

impl AuthenticatedWrite<'_> {
    /// Returns the parts. `None`: a length lies, the certificate has another type, or a field of
    /// the time that must be zero is not.
    pub(in crate::nvram) fn parse(data: &[u8]) -> Option<AuthenticatedWrite<'_>> {
        let (time, rest) = data.split_first_chunk::<TIME_BYTES>()?;
        // Padding, nanoseconds, time zone, daylight saving time, padding.
        if time[7..] != [0; TIME_BYTES - 7] {
            return None;
        }
        let len = le32(rest, 0)? as usize;
        let kind = Guid::from_bytes(*rest.get(8..)?.first_chunk()?);
        if le16(rest, 6)? != WIN_CERT_TYPE_EFI_GUID || kind != PKCS7 {
            return None;
        }
        let (certificate, value) = rest.split_at_checked(len)?;
        let signature = certificate.get(CERTIFICATE_HEADER..)?;
        Some(AuthenticatedWrite { time: Timestamp(*time), signature, value })
    }
}
