//! Image files of hostile authors: see synthvm_fuzz::image_files.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| synthvm_fuzz::image_files::run(data));

#[cfg(not(fuzzing))]
fn main() {
    synthvm_fuzz::replay(synthvm_fuzz::image_files::run);
}
