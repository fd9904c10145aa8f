//! Image files of hostile authors: see synthvm_fuzz::image_files.
#![cfg_attr(fuzzing, no_main)]

synthvm_fuzz::target!(synthvm_fuzz::image_files::run);
