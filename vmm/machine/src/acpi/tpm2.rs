//! TPM2: the location of a TPM 2.0 and how a command is started (TCG ACPI Specification; spec
//! firmware-windows section D7.1).

use acpi_tables::sdt::Sdt;

use crate::memory::AddressRange;

/// Offset of the control area in the registers.
const CONTROL_AREA: u64 = 0x40;
/// The command response buffer interface, without an ACPI method.
const START_METHOD_CRB: u32 = 7;
const PLATFORM_CLASS_CLIENT: u16 = 0;
/// Bytes of the parameters of the start method, which are 0 for a CRB. No log area follows: a
/// guest that boots without firmware has no log.
const PARAMETERS: usize = 12;

pub(super) fn build(registers: AddressRange) -> Sdt {
    let mut tpm2 = super::table(*b"TPM2", 4);
    tpm2.append_slice(&PLATFORM_CLASS_CLIENT.to_le_bytes());
    tpm2.append_slice(&[0; 2]);
    tpm2.append_slice(&(registers.start + CONTROL_AREA).to_le_bytes());
    tpm2.append_slice(&START_METHOD_CRB.to_le_bytes());
    tpm2.append_slice(&[0; PARAMETERS]);
    tpm2
}
