//! The guest's end of VMBus, shaped like the Windows kernel-mode client library. no_std + alloc.
