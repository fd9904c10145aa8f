//! PCI configuration, fw_cfg and flash: see synthvm_fuzz::firmware_platform.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::firmware_platform::run);
