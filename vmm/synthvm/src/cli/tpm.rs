//! The TPM of a machine.

use std::io;
use std::path::Path;
use std::sync::Arc;

use synthvm_machine::Machine;
use synthvm_tpm::{Emulator, PresencePage, SwtpmOptions, Timeouts, TpmDevice};

use super::exit::{Exit, Failure};
use crate::config::VmConfig;

/// Starts the program behind the TPM, if the machine has one. Starts no thread.
pub(super) fn start_tpm(config: &VmConfig) -> Result<Option<Emulator>, Failure> {
    let Some(tpm) = &config.tpm else { return Ok(None) };
    let mut options = SwtpmOptions { state: tpm.state.clone(), ..SwtpmOptions::default() };
    if let Some(program) = &tpm.program {
        // A name without a folder would be searched for in `PATH`.
        options.program = absolute(program)?;
    }
    let emulator = Emulator::start(&options, Timeouts::default()).map_err(|error| {
        let exit = if error.is_of_host() { Exit::Host } else { Exit::Input };
        Failure::text(exit, format!("--tpm swtpm: {error}"))
    })?;
    Ok(Some(emulator))
}

fn absolute(program: &Path) -> Result<std::path::PathBuf, Failure> {
    std::path::absolute(program).map_err(|error| {
        Failure::text(Exit::Input, format!("--tpm program={}: {error}", program.display()))
    })
}

/// Attaches the TPM to the machine, and starts its thread.
pub(super) fn attach_tpm(
    machine: &mut Machine,
    emulator: Emulator,
    has_presence: bool,
) -> Result<Arc<TpmDevice>, Failure> {
    let failed = |error: io::Error| Failure::text(Exit::Internal, format!("the TPM: {error}"));
    let device = Arc::new(TpmDevice::new(emulator).map_err(failed)?);
    let presence = has_presence.then(|| Arc::new(PresencePage::new()) as _);
    let config = synthvm_tpm::fw_cfg_config(has_presence);
    machine.set_tpm(Arc::clone(&device) as _, presence, &config)?;
    let reset = Arc::clone(&device);
    machine.add_reset_hook(Box::new(move || reset.reset()));
    Ok(device)
}
