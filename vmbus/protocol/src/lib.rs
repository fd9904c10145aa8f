//! VMBus on the wire: every structure, one table of messages, versions and sizes. no_std, no unsafe.
