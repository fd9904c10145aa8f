//! VMBus ring pairs: packets, batches, signalling, flow control, over mapped guest pages.
