//! Page lists in arbitrary pieces: see synthvm_fuzz::gpadl_assembly.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::gpadl_assembly::run);
