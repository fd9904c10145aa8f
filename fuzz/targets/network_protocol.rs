//! NVSP, RNDIS and OIDs of a network card: see synthvm_fuzz::network_protocol.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| synthvm_fuzz::network_protocol::run(data));

#[cfg(not(fuzzing))]
fn main() {
    synthvm_fuzz::replay(synthvm_fuzz::network_protocol::run);
}
