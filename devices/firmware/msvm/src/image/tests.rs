use super::*;

const SEC: usize = 0x5E_0000;

fn wrapped() -> Vec<u8> {
    wrap_flat(&[0xF4; 64]).unwrap()
}

#[test]
fn test_image_of_a_flat_program_starts_at_its_first_byte() {
    let image = FirmwareImage::new(wrapped()).unwrap();
    assert_eq!(image.sec_volume(), SEC as u64);
    assert_eq!(image.entry(), SEC as u64 + 0x1000);
    assert_eq!(image.bytes()[image.entry() as usize], 0xF4);
}

#[test]
fn test_image_of_eight_mib_is_found_wherever_its_volume_is() {
    let mut bytes = vec![0xFF; 8 << 20];
    bytes[0x60_0000..0x62_0000].copy_from_slice(&wrapped()[SEC..]);
    let image = FirmwareImage::new(bytes).unwrap();
    assert_eq!(image.sec_volume(), 0x60_0000);
    assert_eq!(image.placement().blob(), 0x90_9000);
}

#[test]
fn test_image_of_another_size_is_refused_with_its_size() {
    for len in [0, 1, 4 << 20, (6 << 20) - 1, (6 << 20) + 1, 16 << 20] {
        let error = FirmwareImage::new(vec![0; len]).unwrap_err();
        assert_eq!(error, ImageError::Size(len as u64));
    }
}

#[test]
fn test_image_without_volumes_or_core_is_refused() {
    assert_eq!(FirmwareImage::new(vec![0; 6 << 20]).unwrap_err(), ImageError::NoVolume);
    assert_eq!(FirmwareImage::new(vec![0xFF; 6 << 20]).unwrap_err(), ImageError::NoVolume);
    let mut no_core = wrapped();
    no_core[SEC + 72 + 18] = 4;
    assert_eq!(FirmwareImage::new(no_core).unwrap_err(), ImageError::NoSecCore);
    let mut other_machine = wrapped();
    let pe = SEC + 72 + 24 + 4 + 0x40;
    other_machine[pe + 4..pe + 6].copy_from_slice(&0xAA64_u16.to_le_bytes());
    assert_eq!(FirmwareImage::new(other_machine).unwrap_err(), ImageError::NoSecCore);
}

#[test]
fn test_image_with_any_field_changed_ends_and_stays_inside() {
    let base = wrapped();
    for at in SEC..SEC + 72 + 24 + 4 + 0x80 {
        for value in [0, 1, 7, 0x7F, 0xFF] {
            let mut bytes = base.clone();
            bytes[at] = value;
            if let Ok(image) = FirmwareImage::new(bytes) {
                assert!(image.entry() < 6 << 20);
            }
        }
    }
}

#[test]
fn test_sections_of_length_zero_do_not_loop() {
    let mut bytes = wrapped();
    bytes[SEC + 72 + 24..][..4].fill(0);
    assert_eq!(FirmwareImage::new(bytes).unwrap_err(), ImageError::NoSecCore);
    let mut bytes = wrapped();
    bytes[SEC + 72 + 18] = 0xF0;
    bytes[SEC + 72 + 20..][..3].fill(0);
    assert_eq!(FirmwareImage::new(bytes).unwrap_err(), ImageError::NoSecCore);
}

#[test]
fn test_te_entry_subtracts_the_stripped_headers() {
    let mut te = vec![0; 0x200];
    te[..4].copy_from_slice(&[b'V', b'Z', 0x64, 0x86]);
    te[6..8].copy_from_slice(&0x100_u16.to_le_bytes());
    te[8..12].copy_from_slice(&0x1D8_u32.to_le_bytes());
    assert_eq!(executable::te_entry(&te), Some(0x100));
    assert_eq!(executable::pe_entry(&te), Some(0x100));
    te[6..8].copy_from_slice(&0xFFFF_u16.to_le_bytes());
    assert_eq!(executable::te_entry(&te), None);
}

#[test]
fn test_program_too_large_for_the_volume_is_not_wrapped() {
    assert!(wrap_flat(&vec![0; 0x1F000]).is_some());
    assert!(wrap_flat(&vec![0; 0x1F001]).is_none());
}
