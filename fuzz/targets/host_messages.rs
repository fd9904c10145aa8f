//! A guest and the devices against the bus: see synthvm_fuzz::host_messages.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::host_messages::run);
