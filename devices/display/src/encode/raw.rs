//! Raw: pixels as they are.

use super::encoded::{Encoded, Part};
use crate::protocol::PixelWriter;

/// Encodes values of the writer's format.
pub(super) fn encode(values: &[u32], writer: &PixelWriter) -> Encoded {
    let mut bytes = Vec::with_capacity(values.len() * writer.format().bytes());
    values.iter().for_each(|value| writer.put(*value, &mut bytes));
    Encoded(vec![Part::Bytes(bytes)])
}
