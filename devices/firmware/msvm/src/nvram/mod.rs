//! Firmware variables (spec firmware-windows section A5.1): the rules of UEFI's variable services,
//! the descriptor with which the firmware asks for them, and the file that keeps them.

mod auth;
mod authenticated;
mod descriptor;
mod file;
mod name;
mod presets;
mod rules;
#[cfg(test)]
mod tests;
mod variables;

pub use auth::Timestamp;
pub use descriptor::NvramRequest;
pub use file::{StoreError, VariablesFile};
pub use name::Name;
pub use presets::{SecureBootKeys, Signatures};
pub use rules::{Nvram, StoredVariable, VariableStore, VolatileStore};
pub use variables::{Attributes, Variable, Variables};

/// Most bytes of a name with its final NUL.
const MAX_NAME_BYTES: usize = 2 << 10;
/// Most bytes of a variable's data.
const MAX_DATA_BYTES: usize = 32 << 10;
/// Most bytes of all non-volatile variables, as they are in the file.
const MAX_STORED_BYTES: usize = 256 << 10;
/// Most bytes of all volatile variables.
const MAX_VOLATILE_BYTES: usize = 64 << 10;
