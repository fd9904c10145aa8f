//! What the two ends of a ring have in common.

/// Defines the accessors of an end with the fields `memory` and `stopped`.
macro_rules! end_accessors {
    () => {
        /// Returns the bytes of the data area.
        #[must_use]
        pub fn data_size(&self) -> u32 {
            self.memory.data_size()
        }

        /// Returns the error that stopped the ring, if any.
        #[must_use]
        pub fn stopped(&self) -> Option<$crate::RingError> {
            self.stopped
        }

        /// Returns the present control page.
        #[must_use]
        pub fn indices(&self) -> $crate::RingSnapshot {
            $crate::RingSnapshot::of(self.memory.control(), self.memory.size(), self.memory.mode())
        }

        /// Returns a handle by which other threads can inspect this ring.
        #[must_use]
        pub fn watch(&self) -> $crate::RingWatch {
            $crate::RingWatch::new(&self.memory)
        }

        /// Returns the memory of the ring.
        #[must_use]
        pub fn memory(&self) -> &$crate::RingMemory {
            &self.memory
        }
    };
}

pub(crate) use end_accessors;
