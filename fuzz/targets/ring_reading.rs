//! Both ends of a ring against a hostile peer: see synthvm_fuzz::ring_reading.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::ring_reading::run);
