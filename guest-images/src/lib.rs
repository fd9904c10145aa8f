//! Builds bootable test and demo guests from stock distribution kernel packages.
