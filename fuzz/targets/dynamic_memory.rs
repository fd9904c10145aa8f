//! Dynamic memory: see synthvm_fuzz::dynamic_memory.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::dynamic_memory::run);
