//! SET of RSS parameters.

use super::super::*;
use super::*;
use crate::protocol::rss::{FlowHash, HashTypes, ToeplitzKey};

const PARAMETERS: u32 = 0x0001_0204;

/// The hash information of Linux: Toeplitz; IPv4, IPv6 and TCP over both.
const HASH_INFO: u32 = 0x1701;

/// RSS parameters as Linux sends them: the table after 40 bytes, the key after the table.
fn parameters(flags: u16, entries: &[u32], key: &[u8]) -> Vec<u8> {
    let table_size = 4 * entries.len() as u32;
    let mut data = vec![0; 40];
    data[..4].copy_from_slice(&[0x89, 2, 40, 0]);
    put(&mut data, 4, flags.into());
    put(&mut data, 8, HASH_INFO);
    put(&mut data, 12, table_size);
    put(&mut data, 16, 40);
    put(&mut data, 20, key.len() as u32);
    put(&mut data, 24, 40 + table_size);
    entries.iter().for_each(|entry| data.extend(entry.to_le_bytes()));
    data.extend(key);
    data
}

fn set_rss(settings: &mut Settings, data: &[u8]) -> Result<Change, RndisStatus> {
    set_on(settings, PARAMETERS, data)
}

fn refused(data: &[u8]) {
    assert_eq!(set_rss(&mut settings(), data), Err(RndisStatus::InvalidData));
}

/// Checklist 32.
#[test]
fn test_set_rss_as_linux_does_takes_effect() {
    let mut settings = settings();
    let entries: Vec<u32> = (0..128).map(|entry| entry % 4).collect();
    let key: [u8; 40] = std::array::from_fn(|at| at as u8);
    let disable = parameters(0x10, &entries, &key);
    assert_eq!(set_rss(&mut settings, &disable), Ok(Change::Rss));
    assert!(!settings.rss.is_enabled);
    let enable = parameters(0, &entries, &key);
    assert_eq!(set_rss(&mut settings, &enable), Ok(Change::Rss));
    assert!(settings.rss.is_enabled);
    assert_eq!(settings.rss.types, HashTypes(0x1700));
    assert_eq!(settings.rss.key.bytes(), &key);
    assert_eq!(settings.rss.table.channel(Some(FlowHash(6))), 2);
    assert_eq!(set_rss(&mut settings, &disable), Ok(Change::Rss));
    assert!(!settings.rss.is_enabled);
}

/// Checklist 32.
#[test]
fn test_set_rss_key_of_wrong_size_is_invalid_data() {
    for size in [0, 16, 39, 41] {
        refused(&parameters(0, &[0; 4], &vec![1; size]));
    }
}

/// Checklist 32.
#[test]
fn test_set_rss_table_of_wrong_size_is_invalid_data() {
    refused(&parameters(0, &[], &[1; 40]));
    refused(&parameters(0, &[0; 129], &[1; 40]));
    for size in [1, 6, 15] {
        let mut data = parameters(0, &[0; 4], &[1; 40]);
        put(&mut data, 12, size);
        refused(&data);
    }
}

/// Checklist 32.
#[test]
fn test_set_rss_entry_beyond_the_channels_is_invalid_data() {
    for entry in [4, 0x1_0000, u32::MAX] {
        refused(&parameters(0, &[0, entry], &[1; 40]));
    }
    assert!(set_rss(&mut settings(), &parameters(0, &[0, 3], &[1; 40])).is_ok());
}

/// Checklist 32.
#[test]
fn test_set_rss_offset_beyond_the_data_is_invalid_data() {
    for (offset, word) in [(16, 93), (16, u32::MAX), (24, 57), (24, u32::MAX), (12, 0xFFFC)] {
        let mut data = parameters(0, &[0; 4], &[1; 40]);
        put(&mut data, offset, word);
        refused(&data);
    }
    let good = parameters(0, &[0; 4], &[1; 40]);
    for length in 0..good.len() {
        refused(&good[..length]);
    }
}

#[test]
fn test_set_rss_unknown_function_is_invalid_data() {
    for function in [2, 0xFF] {
        let mut data = parameters(0, &[0; 4], &[1; 40]);
        put(&mut data, 8, 0x1700 | function);
        refused(&data);
    }
    let mut none = parameters(0, &[0; 4], &[1; 40]);
    put(&mut none, 8, 0);
    let mut settings = settings();
    assert_eq!(set_rss(&mut settings, &none), Ok(Change::Rss));
    assert!(!settings.rss.is_enabled);
}

#[test]
fn test_set_rss_unchanged_flags_keep_the_values() {
    let mut settings = settings();
    set_rss(&mut settings, &parameters(0, &[1, 2], &[7; 40])).unwrap();
    let before = settings.rss.clone();
    // Hash information, table and key are garbage, and unchanged.
    let mut data = parameters(0xE, &[9], &[1; 3]);
    put(&mut data, 8, 0xFF);
    assert_eq!(set_rss(&mut settings, &data), Ok(Change::Rss));
    assert_eq!(settings.rss, before);
}

#[test]
fn test_rss_settings_at_start_are_off_with_the_key_of_microsoft() {
    let rss = settings().rss;
    assert!(!rss.is_enabled);
    assert_eq!(rss.key.bytes(), &ToeplitzKey::MICROSOFT);
    assert_eq!(rss.table.entries(), &[0; 128]);
}
