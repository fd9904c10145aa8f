//! NVSP, RNDIS and OIDs of a network card: see synthvm_fuzz::network_protocol.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::network_protocol::run);
