//! Page lists in arbitrary pieces: see synthvm_fuzz::gpadl_assembly.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| synthvm_fuzz::gpadl_assembly::run(data));

#[cfg(not(fuzzing))]
fn main() {
    synthvm_fuzz::replay(synthvm_fuzz::gpadl_assembly::run);
}
