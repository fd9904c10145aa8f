//! A guest and the devices against the bus: see synthvm_fuzz::host_messages.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| synthvm_fuzz::host_messages::run(data));

#[cfg(not(fuzzing))]
fn main() {
    synthvm_fuzz::replay(synthvm_fuzz::host_messages::run);
}
