//! Packets with guest memory: see synthvm_fuzz::gpa_direct.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::gpa_direct::run);
