//! Browsers of the console: see synthvm_fuzz::web.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::web::run);
