//! Screen, keyboard and mouse: see synthvm_fuzz::display_protocols.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::display_protocols::run);
