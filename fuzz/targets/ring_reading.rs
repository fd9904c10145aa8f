//! Both ends of a ring against a hostile peer: see synthvm_fuzz::ring_reading.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| synthvm_fuzz::ring_reading::run(data));

#[cfg(not(fuzzing))]
fn main() {
    synthvm_fuzz::replay(synthvm_fuzz::ring_reading::run);
}
