//! The variable services of UEFI 2.10 (section 8.2), for what this host keeps.

use std::io;
use std::ops::Bound;

use vmbus_protocol::Guid;

use super::presets::{self, SecureBootKeys};
use super::{
    Attributes, MAX_DATA_BYTES, MAX_STORED_BYTES, MAX_VOLATILE_BYTES, Name, Variable, Variables,
};
use crate::status::Status;

/// Keeps the non-volatile variables.
pub trait VariableStore: Send {
    /// Stores the variables that are not volatile, all or none.
    ///
    /// # Errors
    /// The store has the previous variables still.
    fn save(&mut self, variables: &Variables) -> io::Result<()>;
}

/// Keeps nothing: variables end with the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolatileStore;

impl VariableStore for VolatileStore {
    fn save(&mut self, _variables: &Variables) -> io::Result<()> {
        Ok(())
    }
}

/// A variable as it is listed.
pub type StoredVariable<'a> = (&'a (Guid, Name), &'a Variable);

/// The variables of a machine.
pub struct Nvram {
    pub(super) variables: Variables,
    store: Box<dyn VariableStore>,
    keys: Option<SecureBootKeys>,
    is_runtime: bool,
    save_error: Option<io::Error>,
}

impl Nvram {
    /// Returns the variables of a store, with the presets. Secure Boot is on if there are `keys`.
    #[must_use]
    pub fn new(
        variables: Variables,
        store: Box<dyn VariableStore>,
        keys: Option<SecureBootKeys>,
    ) -> Nvram {
        let mut nvram = Nvram { variables, store, keys, is_runtime: false, save_error: None };
        nvram.reset();
        nvram
    }

    /// Prepares the next boot: volatile variables are gone, presets are set.
    pub fn reset(&mut self) {
        self.is_runtime = false;
        self.variables.retain(|_, variable| variable.is_kept());
        presets::apply(&mut self.variables, self.keys.as_ref());
    }

    /// Ends boot services: only variables with [`Attributes::RUNTIME`] are visible from now on.
    pub fn signal_runtime(&mut self) {
        self.is_runtime = true;
    }

    /// Returns all variables in their order.
    pub fn variables(&self) -> impl Iterator<Item = StoredVariable<'_>> {
        self.variables.iter()
    }

    /// Returns the error of the last write that could not be stored, once.
    pub fn take_save_error(&mut self) -> Option<io::Error> {
        self.save_error.take()
    }

    /// Returns a variable that the guest can see now.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn get(&self, vendor: Guid, name: &Name) -> Result<&Variable, Status> {
        self.variables
            .get(&(vendor, name.clone()))
            .filter(|variable| self.is_visible(variable))
            .ok_or(Status::NotFound)
    }

    /// Returns the variable after `previous`, or the first.
    ///
    /// # Errors
    /// [`Status::NotFound`] after the last, [`Status::InvalidParameter`] if `previous` does not
    /// exist.
    pub fn next(&self, previous: Option<&(Guid, Name)>) -> Result<&(Guid, Name), Status> {
        let start = match previous {
            None => Bound::Unbounded,
            Some(key) => {
                self.get(key.0, &key.1).map_err(|_| Status::InvalidParameter)?;
                Bound::Excluded(key)
            }
        };
        let mut later = self.variables.range::<(Guid, Name), _>((start, Bound::Unbounded));
        let found = later.find(|(_, variable)| self.is_visible(variable));
        found.map(|(key, _)| key).ok_or(Status::NotFound)
    }

    /// Creates, changes, appends to or deletes a variable.
    ///
    /// # Errors
    /// [`Status`]; then nothing has changed.
    pub fn set(
        &mut self,
        vendor: Guid,
        name: Name,
        attributes: u32,
        data: &[u8],
    ) -> Result<(), Status> {
        let attributes = Attributes::from_bits(attributes).ok_or(Status::InvalidParameter)?;
        check_attributes(attributes)?;
        if presets::is_read_only(vendor, &name) {
            return Err(Status::WriteProtected);
        }
        if attributes.contains(Attributes::TIME_AUTHENTICATED) {
            return self.set_authenticated(vendor, name, attributes, data);
        }
        let existing = self.get(vendor, &name).ok();
        let stored = attributes - Attributes::APPEND;
        let has_access = attributes.intersects(Attributes::READABLE);
        if let Some(existing) = existing.filter(|_| has_access)
            && existing.attributes != stored
        {
            return Err(Status::InvalidParameter);
        }
        let is_authenticated =
            |variable: &Variable| variable.attributes.contains(Attributes::TIME_AUTHENTICATED);
        if existing.is_some_and(is_authenticated) {
            return Err(Status::WriteProtected);
        }
        if has_access && presets::key_variable(vendor, &name).is_some() {
            return Err(Status::InvalidParameter);
        }
        let appends = attributes.contains(Attributes::APPEND);
        if !has_access || data.is_empty() && !appends {
            return self.delete(vendor, name);
        }
        self.check_runtime(stored, existing.is_some())?;
        let mut value = match existing {
            Some(existing) if appends => existing.data.clone(),
            _ => Vec::new(),
        };
        if data.is_empty() {
            // Appending nothing is allowed, and does nothing.
            return Ok(());
        }
        if value.len() + data.len() > MAX_DATA_BYTES {
            return Err(Status::InvalidParameter);
        }
        value.extend(data);
        self.replace(vendor, name, Some(Variable::new(stored, value)))
    }

    /// Returns the bytes for variables like `attributes`: all, those that are free, and the most of
    /// one variable.
    ///
    /// # Errors
    /// The attributes are not allowed, or not supported.
    pub fn query(&self, attributes: u32) -> Result<[u64; 3], Status> {
        let attributes = Attributes::from_bits(attributes).ok_or(Status::InvalidParameter)?;
        check_attributes(attributes)?;
        if !attributes.intersects(Attributes::READABLE) {
            return Err(Status::InvalidParameter);
        }
        let kept = attributes.contains(Attributes::NON_VOLATILE);
        let limit = limit(kept);
        let free = limit.saturating_sub(self.used(kept));
        Ok([limit, free, MAX_DATA_BYTES.min(free)].map(|bytes| bytes as u64))
    }

    fn delete(&mut self, vendor: Guid, name: Name) -> Result<(), Status> {
        let existing = self.get(vendor, &name)?.attributes;
        if self.is_runtime && !existing.contains(Attributes::NON_VOLATILE) {
            return Err(Status::WriteProtected);
        }
        self.replace(vendor, name, None)
    }

    /// The system may change only variables that are kept, and that it can read.
    pub(super) fn check_runtime(&self, attributes: Attributes, exists: bool) -> Result<(), Status> {
        if !self.is_runtime || attributes.contains(Attributes::KEPT) {
            return Ok(());
        }
        Err(if exists { Status::WriteProtected } else { Status::InvalidParameter })
    }

    /// Replaces or deletes a variable, and stores the change.
    pub(super) fn replace(
        &mut self,
        vendor: Guid,
        name: Name,
        variable: Option<Variable>,
    ) -> Result<(), Status> {
        let key = (vendor, name);
        let kept = variable.as_ref().or(self.variables.get(&key)).is_some_and(Variable::is_kept);
        if let Some(variable) = &variable {
            // A variable that the system cannot see must not be replaced by a new one.
            if self.variables.get(&key).is_some_and(|existing| !self.is_visible(existing)) {
                return Err(Status::InvalidParameter);
            }
            let before = self.variables.get(&key).map_or(0, |existing| existing.cost(&key.1));
            let used = self.used(kept) - before + variable.cost(&key.1);
            if used > limit(kept) {
                return Err(Status::OutOfResources);
            }
        }
        let before = match variable {
            Some(variable) => self.variables.insert(key.clone(), variable),
            None => self.variables.remove(&key),
        };
        if !kept {
            return Ok(());
        }
        self.store.save(&self.variables).map_err(|error| {
            match before {
                Some(before) => self.variables.insert(key, before),
                None => self.variables.remove(&key),
            };
            self.save_error = Some(error);
            Status::DeviceError
        })
    }

    fn is_visible(&self, variable: &Variable) -> bool {
        !self.is_runtime || variable.attributes.contains(Attributes::RUNTIME)
    }

    fn used(&self, kept: bool) -> usize {
        let alike = self.variables.iter().filter(|(_, variable)| variable.is_kept() == kept);
        alike.map(|((_, name), variable)| variable.cost(name)).sum()
    }
}

fn limit(kept: bool) -> usize {
    if kept { MAX_STORED_BYTES } else { MAX_VOLATILE_BYTES }
}

fn check_attributes(attributes: Attributes) -> Result<(), Status> {
    if attributes.intersects(Attributes::AUTHENTICATED | Attributes::ENHANCED_AUTHENTICATED) {
        return Err(Status::Unsupported);
    }
    let runtime_only =
        attributes.contains(Attributes::RUNTIME) && !attributes.contains(Attributes::BOOT_SERVICE);
    // Hardware error records are always kept and readable.
    let record =
        attributes.contains(Attributes::HARDWARE_ERROR) && !attributes.contains(Attributes::KEPT);
    if runtime_only || record { Err(Status::InvalidParameter) } else { Ok(()) }
}
