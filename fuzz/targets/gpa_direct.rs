//! Packets with guest memory: see synthvm_fuzz::gpa_direct.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| synthvm_fuzz::gpa_direct::run(data));

#[cfg(not(fuzzing))]
fn main() {
    synthvm_fuzz::replay(synthvm_fuzz::gpa_direct::run);
}
