//! The protocol by which the firmware's SCSI drivers reach a controller
//! (`EFI_EXT_SCSI_PASS_THRU_PROTOCOL`, UEFI specification section 15.7).

use alloc::boxed::Box;
use core::ffi::c_void;
use core::ptr;
use core::time::Duration;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::scsi::{
    ExtScsiPassThruMode, ExtScsiPassThruProtocol, SCSI_TARGET_MAX_BYTES, ScsiIoDataDirection,
    ScsiIoHostAdapterStatus, ScsiIoScsiRequestPacket, ScsiIoTargetStatus,
};
use uefi_raw::{Event, Handle, Status};
use uefi_vmbus::{Address, Data, HostAdapter, Request, StorageError, device_path};
use vmbus_protocol::Guid;
use vmbus_protocol::guid::class;

use super::boot::BootServices;
use super::platform::describe;
use super::{Unit, with_unit};

/// The adapter exists, physically and as the logical one.
const PHYSICAL: u32 = 1;
const LOGICAL: u32 = 2;
/// The adapter's own address as a target. Firmware leaves out the target with that number, so it
/// must be none of those on the bus.
const NO_TARGET: u32 = u32::MAX;
/// A target of which all bytes have this value asks for the first one.
const FIRST: u8 = 0xFF;

/// An instance of the protocol. The firmware has a pointer to it, as it never ends.
#[repr(C)]
struct PassThru {
    protocol: ExtScsiPassThruProtocol,
    mode: ExtScsiPassThruMode,
    /// The controller's number in the driver.
    unit: usize,
}

/// Publishes a controller.
pub(super) fn publish(boot: BootServices, unit: usize, instance: Guid) -> Status {
    let this = Box::leak(Box::new(PassThru {
        protocol: ExtScsiPassThruProtocol {
            passthru_mode: ptr::null(),
            pass_thru,
            get_next_target_lun,
            build_device_path,
            get_target_lun,
            reset_channel,
            reset_target_lun,
            get_next_target,
        },
        mode: ExtScsiPassThruMode {
            adapter_id: NO_TARGET,
            attributes: PHYSICAL | LOGICAL,
            io_align: 0,
        },
        unit,
    }));
    this.protocol.passthru_mode = &raw const this.mode;
    let path = Box::leak(device_path::channel(class::SCSI, instance).into_boxed_slice());
    let mut handle: Handle = ptr::null_mut();
    let path = path.as_ptr().cast::<c_void>();
    let protocol = ptr::from_mut(this).cast_const().cast::<c_void>();
    // SAFETY: a device path with its end node, and an instance; both exist forever.
    unsafe {
        match boot.install(&mut handle, &DevicePathProtocol::GUID, path) {
            Status::SUCCESS => boot.install(&mut handle, &ExtScsiPassThruProtocol::GUID, protocol),
            failure => failure,
        }
    }
}

unsafe extern "efiapi" fn pass_thru(
    this: *mut ExtScsiPassThruProtocol,
    target: *const u8,
    lun: u64,
    packet: *mut ScsiIoScsiRequestPacket,
    _: Event,
) -> Status {
    if target.is_null() || packet.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller passes its own packet and a target of 16 bytes.
    let (packet, target) = unsafe { (&mut *packet, *target) };
    let Ok(lun) = u8::try_from(lun) else { return Status::INVALID_PARAMETER };
    // SAFETY: the firmware passes the instance that it was given.
    let unit = unsafe { unit_of(this) };
    with_unit(unit, |unit| execute(unit, Address { target, lun }, packet))
}

fn execute(unit: &mut Unit<'_>, address: Address, packet: &mut ScsiIoScsiRequestPacket) -> Status {
    if packet.cdb.is_null() || !(1..=16).contains(&packet.cdb_length) {
        return Status::INVALID_PARAMETER;
    }
    let (buffer, length) = match packet.data_direction {
        ScsiIoDataDirection::READ => (packet.in_data_buffer, packet.in_transfer_length),
        ScsiIoDataDirection::WRITE => (packet.out_data_buffer, packet.out_transfer_length),
        _ => return Status::UNSUPPORTED,
    };
    let is_read = packet.data_direction == ScsiIoDataDirection::READ;
    let memory = match length {
        0 => None,
        _ if buffer.is_null() => return Status::INVALID_PARAMETER,
        length => match describe(buffer.expose_provenance() as u64, length) {
            Some(memory) => Some(memory),
            None => return Status::INVALID_PARAMETER,
        },
    };
    let data = match &memory {
        None => Data::None,
        Some(memory) if is_read => Data::FromDevice(memory),
        Some(memory) => Data::ToDevice(memory),
    };
    let mut cdb = [0; 16];
    let cdb = &mut cdb[..packet.cdb_length.into()];
    // SAFETY: the caller's CDB has that many bytes.
    unsafe { ptr::copy_nonoverlapping(packet.cdb.cast(), cdb.as_mut_ptr(), cdb.len()) };
    let timeout = match packet.timeout {
        0 => None,
        // In units of 100 ns.
        time => Some(Duration::from_micros(time.div_ceil(10))),
    };
    let request = Request { address, cdb, data, timeout };
    let (host, target, moved, sense, status) = match unit.controller.execute(unit.client, &request)
    {
        Ok(outcome) => {
            let host = outcome.host_adapter();
            let status = match host {
                HostAdapter::Ok => Status::SUCCESS,
                HostAdapter::CommandTimeout | HostAdapter::SelectionTimeout => Status::TIMEOUT,
                HostAdapter::BusReset | HostAdapter::Overrun | HostAdapter::Other => {
                    Status::DEVICE_ERROR
                }
            };
            (host, outcome.target_status(), outcome.transferred, Some(outcome), status)
        }
        // The firmware's disk driver takes this answer as a request to split the transfer.
        Err(StorageError::TooLong { limit, .. }) => {
            (HostAdapter::Overrun, 0, limit, None, Status::BAD_BUFFER_SIZE)
        }
        Err(StorageError::TimedOut) => (HostAdapter::CommandTimeout, 0, 0, None, Status::TIMEOUT),
        Err(_) => (HostAdapter::Other, 0, 0, None, Status::DEVICE_ERROR),
    };
    packet.host_adapter_status = ScsiIoHostAdapterStatus(host as u8);
    packet.target_status = ScsiIoTargetStatus(target);
    if is_read {
        packet.in_transfer_length = moved;
    } else {
        packet.out_transfer_length = moved;
    }
    let sense = sense.as_ref().map_or(&[][..], |outcome| outcome.sense());
    let room = if packet.sense_data.is_null() { 0 } else { packet.sense_data_length.into() };
    let sense = &sense[..sense.len().min(room)];
    // SAFETY: the caller's sense buffer has at least that many bytes.
    unsafe { ptr::copy_nonoverlapping(sense.as_ptr(), packet.sense_data.cast(), sense.len()) };
    packet.sense_data_length = sense.len() as u8;
    status
}

unsafe extern "efiapi" fn get_next_target_lun(
    this: *const ExtScsiPassThruProtocol,
    target: *mut *mut u8,
    lun: *mut u64,
) -> Status {
    // SAFETY: the caller passes its own variables, and a target of 16 bytes.
    let Some((target, lun)) = (unsafe { target_and_lun(target, lun) }) else {
        return Status::INVALID_PARAMETER;
    };
    // SAFETY: the firmware passes the instance that it was given.
    let unit = unsafe { unit_of(this) };
    with_unit(unit, |unit| {
        let next = if target.iter().all(|&byte| byte == FIRST) {
            unit.refresh();
            unit.addresses.first()
        } else {
            let present =
                |found: &Address| found.target == target[0] && u64::from(found.lun) == *lun;
            match unit.addresses.iter().position(present) {
                Some(at) => unit.addresses.get(at + 1),
                None => return Status::INVALID_PARAMETER,
            }
        };
        let Some(next) = next else { return Status::NOT_FOUND };
        target.fill(0);
        target[0] = next.target;
        *lun = next.lun.into();
        Status::SUCCESS
    })
}

unsafe extern "efiapi" fn get_next_target(
    this: *const ExtScsiPassThruProtocol,
    target: *mut *mut u8,
) -> Status {
    let mut lun = 0;
    // SAFETY: the caller passes its own variable, and a target of 16 bytes.
    let Some((target, _)) = (unsafe { target_and_lun(target, &raw mut lun) }) else {
        return Status::INVALID_PARAMETER;
    };
    // SAFETY: the firmware passes the instance that it was given.
    let unit = unsafe { unit_of(this) };
    with_unit(unit, |unit| {
        let first = target.iter().all(|&byte| byte == FIRST);
        let after = |found: &&Address| first || found.target > target[0];
        let Some(next) = unit.addresses.iter().find(after) else { return Status::NOT_FOUND };
        target.fill(0);
        target[0] = next.target;
        Status::SUCCESS
    })
}

unsafe extern "efiapi" fn build_device_path(
    this: *const ExtScsiPassThruProtocol,
    target: *const u8,
    lun: u64,
    device_path: *mut *mut DevicePathProtocol,
) -> Status {
    if target.is_null() || device_path.is_null() {
        return Status::INVALID_PARAMETER;
    }
    let Ok(lun) = u8::try_from(lun) else { return Status::NOT_FOUND };
    // SAFETY: the caller passes a target of 16 bytes.
    let address = Address { target: unsafe { *target }, lun };
    // SAFETY: the firmware passes the instance that it was given.
    let unit = unsafe { unit_of(this) };
    with_unit(unit, |unit| {
        if !unit.addresses.contains(&address) {
            return Status::NOT_FOUND;
        }
        let node = device_path::unit(address);
        let Some(to) = unit.boot.allocate_pool(node.len()) else {
            return Status::OUT_OF_RESOURCES;
        };
        // SAFETY: the allocation has the node's length; the caller passes its own variable.
        unsafe {
            ptr::copy_nonoverlapping(node.as_ptr(), to.as_ptr(), node.len());
            *device_path = to.as_ptr().cast();
        }
        Status::SUCCESS
    })
}

unsafe extern "efiapi" fn get_target_lun(
    _: *const ExtScsiPassThruProtocol,
    device_path: *const DevicePathProtocol,
    target: *const *mut u8,
    lun: *mut u64,
) -> Status {
    if device_path.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller passes its own variables, and a target of 16 bytes.
    let Some((target, lun)) = (unsafe { target_and_lun(target.cast_mut(), lun) }) else {
        return Status::INVALID_PARAMETER;
    };
    let mut node = [0_u8; 8];
    // SAFETY: a node has a header of four bytes, and as many bytes as the header says.
    unsafe {
        ptr::copy_nonoverlapping(device_path.cast(), node.as_mut_ptr(), 4);
        if u16::from_le_bytes([node[2], node[3]]) != node.len() as u16 {
            return Status::UNSUPPORTED;
        }
        ptr::copy_nonoverlapping(device_path.cast(), node.as_mut_ptr(), node.len());
    }
    let Some(address) = device_path::address(&node) else { return Status::UNSUPPORTED };
    target.fill(0);
    target[0] = address.target;
    *lun = address.lun.into();
    Status::SUCCESS
}

unsafe extern "efiapi" fn reset_channel(this: *mut ExtScsiPassThruProtocol) -> Status {
    // SAFETY: the firmware passes the instance that it was given.
    let unit = unsafe { unit_of(this) };
    with_unit(unit, |unit| match unit.controller.reset(unit.client) {
        Ok(()) => Status::SUCCESS,
        Err(_) => Status::DEVICE_ERROR,
    })
}

unsafe extern "efiapi" fn reset_target_lun(
    _: *mut ExtScsiPassThruProtocol,
    _: *const u8,
    _: u64,
) -> Status {
    Status::UNSUPPORTED
}

/// Returns the number of the controller of an instance.
///
/// # Safety
/// `this` is an instance of [`publish`].
unsafe fn unit_of(this: *const ExtScsiPassThruProtocol) -> usize {
    // SAFETY: the caller's promise; the protocol is the first field.
    unsafe { (*this.cast::<PassThru>()).unit }
}

/// Returns the caller's variables for a target and a LUN. `None` if one of them is missing.
///
/// # Safety
/// Each pointer is null or valid, the target's for 16 bytes.
unsafe fn target_and_lun<'a>(
    target: *mut *mut u8,
    lun: *mut u64,
) -> Option<(&'a mut [u8; SCSI_TARGET_MAX_BYTES], &'a mut u64)> {
    if target.is_null() || lun.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let target = *target;
        if target.is_null() { None } else { Some((&mut *target.cast(), &mut *lun)) }
    }
}
