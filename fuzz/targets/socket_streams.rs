//! Connections of host sockets: see synthvm_fuzz::socket_streams.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::socket_streams::run);
