//! Numbered records on a disk, to check after a crash that every acknowledged record is present.
//!
//! The guest writes record after record, flushes, and only then acknowledges. Afterwards each block
//! of the image must contain the last acknowledged record of that block, or a later one.

use crate::pattern::{fill, mix};

/// Bytes in a record; the offsets of records are multiples of it.
pub const RECORD_SIZE: usize = 4096;

const MAGIC: [u8; 8] = *b"SynthRec";

/// Returns the block (in units of [`RECORD_SIZE`]) of a record.
pub fn block_of(number: u64, seed: u64, blocks: u64, order: Order) -> u64 {
    let blocks = blocks.max(1);
    match order {
        Order::Sequential => number % blocks,
        Order::Random => mix(seed ^ mix(number)) % blocks,
    }
}

/// The order in which records are written to the disk's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// One block after another, repeatedly.
    Sequential,
    /// Random blocks.
    Random,
}

/// Returns the bytes of a record.
pub fn encode(number: u64, seed: u64) -> [u8; RECORD_SIZE] {
    let mut record = [0; RECORD_SIZE];
    record[..8].copy_from_slice(&MAGIC);
    record[8..16].copy_from_slice(&number.to_le_bytes());
    record[16..24].copy_from_slice(&seed.to_le_bytes());
    fill(&mut record[24..], seed ^ number, 0);
    record
}

/// The content of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// The block contains no record of this run.
    Foreign,
    /// A complete record.
    Record(u64),
    /// A record of this run that is partly missing or wrong: a torn write.
    Torn(u64),
}

/// Returns the content of a block.
pub fn decode(block: &[u8], seed: u64) -> Block {
    let word =
        |at: usize| block.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let (Some(number), Some(found_seed)) = (word(8), word(16)) else { return Block::Foreign };
    if block.len() != RECORD_SIZE || block[..8] != MAGIC || found_seed != seed {
        return Block::Foreign;
    }
    if block == encode(number, seed) { Block::Record(number) } else { Block::Torn(number) }
}

/// Checks an image against the acknowledged records `0..acknowledged`. `read` returns one block.
///
/// # Errors
/// A message about the first block that lost an acknowledged record.
pub fn check(
    acknowledged: u64,
    seed: u64,
    blocks: u64,
    order: Order,
    mut read: impl FnMut(u64) -> std::io::Result<Vec<u8>>,
) -> Result<(), String> {
    let mut last = std::collections::BTreeMap::new();
    for number in 0..acknowledged {
        last.insert(block_of(number, seed, blocks, order), number);
    }
    for (block, number) in last {
        let bytes = read(block).map_err(|e| format!("block {block}: {e}"))?;
        match decode(&bytes, seed) {
            // A later record may have reached the disk before its flush was acknowledged.
            Block::Record(found)
                if found >= number && block_of(found, seed, blocks, order) == block => {}
            // Only a record that was not acknowledged may be torn, by a crash during its write.
            Block::Torn(found) if found >= acknowledged => {}
            other => {
                return Err(format!(
                    "block {block}: record {number} was acknowledged, found {other:?}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 9;
    const BLOCKS: u64 = 16;

    fn image(records: u64, order: Order) -> Vec<Vec<u8>> {
        let mut image = vec![vec![0; RECORD_SIZE]; BLOCKS as usize];
        for number in 0..records {
            image[block_of(number, SEED, BLOCKS, order) as usize] = encode(number, SEED).to_vec();
        }
        image
    }

    fn check_image(image: &[Vec<u8>], acknowledged: u64, order: Order) -> Result<(), String> {
        check(acknowledged, SEED, BLOCKS, order, |block| Ok(image[block as usize].clone()))
    }

    #[test]
    fn test_check_of_an_image_with_all_or_more_records_passes() {
        for order in [Order::Sequential, Order::Random] {
            let image = image(100, order);
            for acknowledged in [0, 1, 50, 99, 100] {
                assert_eq!(check_image(&image, acknowledged, order), Ok(()));
            }
        }
    }

    #[test]
    fn test_check_of_an_image_that_lost_a_record_names_it() {
        let image = image(99, Order::Random);
        let error = check_image(&image, 100, Order::Random).unwrap_err();
        assert!(error.contains("record 99 was acknowledged"), "{error}");
    }

    #[test]
    fn test_check_of_a_torn_record_fails_only_when_it_was_acknowledged() {
        let mut image = image(20, Order::Sequential);
        // Record 19 lies in block 3.
        image[3][4000] ^= 1;
        assert!(check_image(&image, 20, Order::Sequential).is_err());
        assert!(check_image(&image, 19, Order::Sequential).is_ok());
    }

    #[test]
    fn test_decode_of_other_bytes_is_foreign() {
        assert_eq!(decode(&[0; RECORD_SIZE], SEED), Block::Foreign);
        assert_eq!(decode(&encode(1, SEED + 1), SEED), Block::Foreign);
        assert_eq!(decode(b"short", SEED), Block::Foreign);
    }
}
