//! Pixels of two colours as bits.

/// The bits of a byte's pixels, from the left.
const WEIGHTS: [u32; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// Appends rows that are `width` wide as a bit for each pixel, which is set for `second`. Each row
/// ends at a byte.
pub(super) fn put_bits(values: &[u32], width: usize, second: u32, out: &mut Vec<u8>) {
    let byte = |group: &[u32]| {
        let bits = group.iter().zip(WEIGHTS);
        bits.map(|(value, weight)| if *value == second { weight } else { 0 }).sum::<u32>() as u8
    };
    for row in values.chunks(width) {
        let (groups, rest) = row.as_chunks::<8>();
        // Groups whose length is known when this is compiled.
        out.extend(groups.iter().map(|group| byte(group)));
        if !rest.is_empty() {
            out.push(byte(rest));
        }
    }
}
