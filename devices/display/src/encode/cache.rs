//! Encoded rectangles, for the next viewer that wants the same.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::encoded::Encoded;
use super::encoding::Encoding;
use crate::protocol::{Area, PixelFormat};

/// Maximum number of bytes of all rectangles together.
const MAX_BYTES: usize = 16 << 20;

/// All that an encoded rectangle depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The rectangle.
    pub(crate) area: Area,
    /// The refresh in which it changed last.
    pub(crate) changed: u64,
    /// The encoding.
    pub(crate) encoding: Encoding,
    /// The format of pixels.
    pub(crate) format: PixelFormat,
    /// The compression level.
    pub(crate) level: u8,
}

/// Encoded rectangles, the oldest of which make space for new ones.
#[derive(Debug, Default)]
pub(crate) struct EncodeCache {
    rectangles: HashMap<Key, Arc<Encoded>>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl EncodeCache {
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Encoded>> {
        self.rectangles.get(key).cloned()
    }

    pub(crate) fn insert(&mut self, key: Key, encoded: Arc<Encoded>) {
        self.bytes += encoded.len();
        if self.rectangles.insert(key, encoded).is_none() {
            self.order.push_back(key);
        }
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(removed) = self.rectangles.remove(&oldest) {
                self.bytes -= removed.len();
            }
        }
    }

    /// Removes all rectangles.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
