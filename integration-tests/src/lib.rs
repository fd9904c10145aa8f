//! Real guests end to end, and the test host that gives any machine a real KVM.

pub mod host;
