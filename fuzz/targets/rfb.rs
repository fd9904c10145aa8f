//! Viewers of the display server: see synthvm_fuzz::rfb.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::rfb::run);
