//! Raw: pixels as they are.

use crate::protocol::PixelWriter;

/// Appends values of the writer's format.
pub(super) fn encode(values: &[u32], writer: &PixelWriter, out: &mut Vec<u8>) {
    out.reserve(values.len() * writer.format().bytes());
    if !writer.is_native() {
        values.iter().for_each(|value| writer.put(*value, out));
        return;
    }
    // Groups whose length is known when this is compiled.
    let (groups, rest) = values.as_chunks::<16>();
    for group in groups {
        let mut bytes = [0; 64];
        bytes.as_chunks_mut::<4>().0.iter_mut().zip(group).for_each(|(bytes, value)| {
            *bytes = value.to_le_bytes();
        });
        out.extend_from_slice(&bytes);
    }
    rest.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}
