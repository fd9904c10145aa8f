//! The rules of authenticated writes (UEFI 2.10 sections 8.2.2, 8.2.6 and 32.3).

use vmbus_protocol::Guid;

use super::auth::{self, AuthenticatedWrite, SignedData, SignerDigest, Timestamp, Trust};
use super::presets::{self, KeyVariable};
use super::{Attributes, MAX_DATA_BYTES, Name, Nvram, Variable};
use crate::status::Status;

/// The variable of a write.
struct Target<'a> {
    vendor: Guid,
    name: &'a Name,
    /// As they were given, with [`Attributes::APPEND`].
    attributes: Attributes,
    key: Option<KeyVariable>,
}

impl Nvram {
    /// Performs a write with [`Attributes::TIME_AUTHENTICATED`].
    pub(super) fn set_authenticated(
        &mut self,
        vendor: Guid,
        name: Name,
        attributes: Attributes,
        data: &[u8],
    ) -> Result<(), Status> {
        let target =
            Target { vendor, name: &name, attributes, key: presets::key_variable(vendor, &name) };
        let stored = attributes - Attributes::APPEND;
        let existing = self.get(vendor, &name).ok();
        let must_be = existing.map(|variable| variable.attributes);
        let of_keys = target.key.map(|_| Attributes::KEY);
        if [must_be, of_keys].iter().flatten().any(|attributes| *attributes != stored)
            || data.len() > MAX_DATA_BYTES
        {
            return Err(Status::InvalidParameter);
        }
        if !attributes.intersects(Attributes::READABLE) {
            return Err(Status::NotFound);
        }
        self.check_runtime(stored, existing.is_some())?;
        let write = AuthenticatedWrite::parse(data).ok_or(Status::SecurityViolation)?;
        let signer = self.authenticate(&target, existing, &write)?;
        let Some(value) = new_value(&target, existing, &write)? else {
            // Nothing is appended to nothing.
            return Ok(());
        };
        let replacement = (!value.is_empty()).then(|| {
            let older = existing.map(|variable| variable.timestamp);
            let kept = older.filter(|older| target.appends() && !write.time.is_after(older));
            let timestamp = kept.unwrap_or(write.time);
            Variable { attributes: stored, data: value, timestamp, signer }
        });
        if replacement.is_none() && existing.is_none() {
            return Err(Status::NotFound);
        }
        let is_platform_key = target.key == Some(KeyVariable::Pk);
        self.replace(vendor, name, replacement)?;
        if is_platform_key {
            presets::follow_platform_key(&mut self.variables);
        }
        Ok(())
    }

    /// Returns the signer to store, which only private variables have.
    fn authenticate(
        &self,
        target: &Target<'_>,
        existing: Option<&Variable>,
        write: &AuthenticatedWrite<'_>,
    ) -> Result<Option<SignerDigest>, Status> {
        let Some(key) = target.key else {
            return self.authenticate_private(target, existing, write);
        };
        let Some(platform_key) = self.variables.get(&presets::platform_key()) else {
            // Setup mode: keys need no signature.
            return Ok(None);
        };
        check_time(target, existing, write.time)?;
        let mut trusted = auth::certificates(&platform_key.data);
        if key == KeyVariable::Database
            && let Some(exchange_keys) = self.variables.get(&presets::exchange_keys())
        {
            trusted.extend(auth::certificates(&exchange_keys.data));
        }
        verify(target, write, Trust::Listed(&trusted))?;
        Ok(None)
    }

    /// A private variable belongs to the signer of its first write.
    fn authenticate_private(
        &self,
        target: &Target<'_>,
        existing: Option<&Variable>,
        write: &AuthenticatedWrite<'_>,
    ) -> Result<Option<SignerDigest>, Status> {
        check_time(target, existing, write.time)?;
        let signer = verify(target, write, Trust::Included)?.ok_or(Status::SecurityViolation)?;
        if existing.is_some_and(|variable| variable.signer != Some(signer)) {
            return Err(Status::SecurityViolation);
        }
        Ok(Some(signer))
    }
}

impl Target<'_> {
    fn appends(&self) -> bool {
        self.attributes.contains(Attributes::APPEND)
    }

    /// Returns the bytes that are signed: the name without its NUL, the vendor, the attributes, the
    /// time, the value.
    fn signed_bytes(&self, write: &AuthenticatedWrite<'_>) -> Vec<u8> {
        let name = self.name.bytes();
        let mut bytes = name[..name.len() - 2].to_vec();
        bytes.extend(self.vendor.to_bytes());
        bytes.extend(self.attributes.bits().to_le_bytes());
        bytes.extend(write.time.bytes());
        bytes.extend(write.value);
        bytes
    }
}

/// Refuses a write that is not later than the variable: it is a repeated one. Appending may be
/// older, because it takes nothing back.
fn check_time(
    target: &Target<'_>,
    existing: Option<&Variable>,
    time: Timestamp,
) -> Result<(), Status> {
    let older = existing.filter(|_| !target.appends()).map(|variable| variable.timestamp);
    if older.is_some_and(|older| !time.is_after(&older)) {
        return Err(Status::SecurityViolation);
    }
    Ok(())
}

fn verify(
    target: &Target<'_>,
    write: &AuthenticatedWrite<'_>,
    trust: Trust<'_>,
) -> Result<Option<SignerDigest>, Status> {
    let signed = SignedData::parse(write.signature).ok_or(Status::SecurityViolation)?;
    let content = target.signed_bytes(write);
    signed.verify(&content, trust).ok_or(Status::SecurityViolation)
}

/// Returns the value after the write; empty: the variable is deleted. `None`: there is no variable,
/// and nothing to append.
fn new_value(
    target: &Target<'_>,
    existing: Option<&Variable>,
    write: &AuthenticatedWrite<'_>,
) -> Result<Option<Vec<u8>>, Status> {
    if target.key.is_some() && !auth::check(write.value) {
        return Err(Status::InvalidParameter);
    }
    if target.appends() && write.value.is_empty() && existing.is_none() {
        return Ok(None);
    }
    let value = match existing.filter(|_| target.appends()) {
        None => write.value.to_vec(),
        Some(existing) if target.key.is_some() => {
            auth::merge(&existing.data, write.value).ok_or(Status::InvalidParameter)?
        }
        Some(existing) => [&existing.data, write.value].concat(),
    };
    let is_platform_key = target.key == Some(KeyVariable::Pk);
    if is_platform_key && !value.is_empty() && !auth::is_one_certificate(&value)
        || value.len() > MAX_DATA_BYTES
    {
        return Err(Status::InvalidParameter);
    }
    Ok(Some(value))
}
