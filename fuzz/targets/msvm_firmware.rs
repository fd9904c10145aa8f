//! Signed and unsigned writes of variables, and the other requests of the firmware MSVM: see
//! synthvm_fuzz::msvm_firmware.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::msvm_firmware::run);
