//! NVSP, RNDIS and OIDs of a network card: see synthvm_fuzz::msvm_firmware.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::msvm_firmware::run);
