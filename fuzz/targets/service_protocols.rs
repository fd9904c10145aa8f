//! Integration services: see synthvm_fuzz::service_protocols.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::service_protocols::run);
