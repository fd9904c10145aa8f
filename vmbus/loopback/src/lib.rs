//! An in-process VM: VMBus host and client over plain guest memory, no KVM.
