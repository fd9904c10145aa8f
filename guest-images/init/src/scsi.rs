//! SCSI commands passed straight to a device (SG_IO, include/uapi scsi/sg.h).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use guest_report::agent::{RefusedWrite, ScsiResult};

use crate::blockdev::Aligned;
use crate::{Outcome, context};

const SG_IO: libc::c_ulong = 0x2285;
const SG_DXFER_NONE: i32 = -1;
const SG_DXFER_TO_DEV: i32 = -2;
const SG_DXFER_FROM_DEV: i32 = -3;

/// `struct sg_io_hdr`.
#[repr(C)]
struct SgIoHdr {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut libc::c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

/// The data of a command.
pub enum Data {
    /// No data.
    None,
    /// Space for this number of bytes from the device.
    Read(u32),
    /// Data for the device.
    Write(Vec<u8>),
}

/// Sends one command.
pub fn send(path: &str, cdb: &[u8], data: Data, timeout_s: u64) -> Outcome<ScsiResult> {
    // Process 1 needs only read access, and a read-only disk cannot be opened for writing.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(context(path))?;
    let (direction, bytes, length) = match data {
        Data::None => (SG_DXFER_NONE, Vec::new(), 0),
        Data::Read(length) => (SG_DXFER_FROM_DEV, Vec::new(), length),
        Data::Write(bytes) => {
            let length = u32::try_from(bytes.len()).map_err(|e| e.to_string())?;
            (SG_DXFER_TO_DEV, bytes, length)
        }
    };
    let mut buffer = Aligned::new(length as usize);
    if !bytes.is_empty() {
        buffer.bytes_mut().copy_from_slice(&bytes);
    }
    let mut sense = [0_u8; 252];
    let mut header = SgIoHdr {
        interface_id: i32::from(b'S'),
        dxfer_direction: direction,
        cmd_len: u8::try_from(cdb.len()).map_err(|e| e.to_string())?,
        mx_sb_len: 252,
        iovec_count: 0,
        dxfer_len: length,
        dxferp: buffer.bytes_mut().as_mut_ptr().cast(),
        cmdp: cdb.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: u32::try_from(timeout_s.saturating_mul(1000)).unwrap_or(u32::MAX),
        flags: 0,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header is the kernel's structure; its pointers are to live buffers of the stated
    // lengths.
    if unsafe { libc::ioctl(file.as_raw_fd(), SG_IO, &raw mut header) } < 0 {
        return Err(format!("SG_IO on {path}: {}", io::Error::last_os_error()));
    }
    let sense = &sense[..usize::from(header.sb_len_wr).min(sense.len())];
    let received = match direction {
        SG_DXFER_FROM_DEV => {
            let missing = u32::try_from(header.resid).unwrap_or(0).min(length);
            &buffer.bytes_mut()[..(length - missing) as usize]
        }
        _ => &[],
    };
    Ok(ScsiResult {
        status: header.status,
        host_status: header.host_status,
        driver_status: header.driver_status,
        sense: to_hex(sense),
        sense_code: sense_code(sense),
        data: to_hex(received),
        residual: header.resid,
    })
}

/// Returns sense key, code and qualifier of fixed and of descriptor format (SPC-4, 4.5).
fn sense_code(sense: &[u8]) -> Option<(u8, u8, u8)> {
    match sense.first()? & 0x7F {
        0x70 | 0x71 => Some((sense.get(2)? & 0xF, *sense.get(12)?, *sense.get(13)?)),
        0x72 | 0x73 => Some((sense.get(1)? & 0xF, *sense.get(2)?, *sense.get(3)?)),
        _ => None,
    }
}

/// Tries an ordinary write and a WRITE(10), both of which a read-only disk must refuse.
pub fn refused_write(path: &str) -> Outcome<RefusedWrite> {
    let ordinary =
        File::options().write(true).custom_flags(libc::O_DIRECT).open(path).and_then(|file| {
            let mut buffer = Aligned::new(4096);
            file.write_at(buffer.bytes_mut(), 0)
        });
    let Err(error) = ordinary else { return Err(format!("{path} accepted a write")) };
    let errno = error.raw_os_error().ok_or_else(|| error.to_string())?;
    // WRITE(10) of one block at address 0.
    let mut cdb = [0; 10];
    cdb[0] = 0x2A;
    cdb[8] = 1;
    let scsi = send(path, &cdb, Data::Write(vec![0xA5; 512]), 30)?;
    if scsi.status == 0 && scsi.host_status == 0 {
        return Err(format!("{path} accepted a WRITE(10)"));
    }
    Ok(RefusedWrite { errno, scsi })
}

/// Converts bytes to hexadecimal text.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Converts hexadecimal text to bytes; blanks between bytes are allowed.
pub fn from_hex(text: &str) -> Outcome<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{text:?} has an odd number of digits"));
    }
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|e| e.to_string())?;
            u8::from_str_radix(pair, 16).map_err(|_| format!("{pair:?} is not hexadecimal"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_hex_goes_both_ways() {
        assert_eq!(from_hex("00 ffA5").unwrap(), [0, 255, 0xA5]);
        assert_eq!(to_hex(&[0, 255]), "00ff");
        assert!(from_hex("0").is_err());
        assert!(from_hex("zz").is_err());
    }

    #[test]
    fn test_sense_of_both_formats_is_understood() {
        let mut fixed = [0; 18];
        fixed[0] = 0x70;
        fixed[2] = 0x07;
        fixed[12] = 0x27;
        assert_eq!(sense_code(&fixed), Some((7, 0x27, 0)));
        assert_eq!(sense_code(&[0x72, 5, 0x24, 1]), Some((5, 0x24, 1)));
        assert_eq!(sense_code(&[]), None);
        assert_eq!(sense_code(&[0x70, 0]), None);
    }

    #[test]
    fn test_sg_io_header_has_the_kernels_size() {
        assert_eq!(size_of::<SgIoHdr>(), 88);
    }
}
