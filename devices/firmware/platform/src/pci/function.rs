//! The configuration space of one function: 256 registers with masks of their writable bits.

/// Bytes of a configuration space.
const SIZE: usize = 256;

/// A configuration space.
#[derive(Clone)]
pub(super) struct Function {
    registers: [u8; SIZE],
    reset: [u8; SIZE],
    /// The bits that the guest can change.
    writable: [u8; SIZE],
}

/// The identity of a function: the read-only registers 0x00 to 0x0E.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    pub(super) vendor: u16,
    pub(super) device: u16,
    /// Class, subclass and programming interface, from high to low.
    pub(super) class: u32,
    /// Header type; bit 7 tells that the device has more than one function.
    pub(super) header: u8,
}

impl Function {
    /// Returns a function of this identity. Only its command register is writable.
    pub(super) fn new(identity: Identity) -> Function {
        let mut function = Function { registers: [0; SIZE], reset: [0; SIZE], writable: [0; SIZE] };
        function.preset(offset::VENDOR, &identity.vendor.to_le_bytes());
        function.preset(offset::DEVICE, &identity.device.to_le_bytes());
        function.preset(offset::CLASS, &identity.class.to_le_bytes()[..3]);
        function.preset(offset::HEADER, &[identity.header]);
        // I/O space, memory space, bus mastering.
        function.make_writable(offset::COMMAND, &[7]);
        function
    }

    /// Sets registers from `offset` to their reset value.
    pub(super) fn preset(&mut self, offset: u8, bytes: &[u8]) {
        let start = usize::from(offset);
        self.reset[start..start + bytes.len()].copy_from_slice(bytes);
        self.registers[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes the bits in `masks` of the registers from `offset` writable.
    pub(super) fn make_writable(&mut self, offset: u8, masks: &[u8]) {
        let start = usize::from(offset);
        self.writable[start..start + masks.len()].copy_from_slice(masks);
    }

    /// Sets a register until the next reset.
    pub(super) fn set(&mut self, offset: u8, value: u8) {
        self.registers[usize::from(offset)] = value;
    }

    pub(super) fn reset(&mut self) {
        self.registers = self.reset;
    }

    pub(super) fn read(&self, offset: u8) -> u8 {
        self.registers[usize::from(offset)]
    }

    pub(super) fn read_u32(&self, offset: u8) -> u32 {
        let register = |lane| self.read(offset.wrapping_add(lane));
        u32::from_le_bytes([register(0), register(1), register(2), register(3)])
    }

    pub(super) fn write(&mut self, offset: u8, value: u8) {
        let index = usize::from(offset);
        let mask = self.writable[index];
        self.registers[index] = self.registers[index] & !mask | value & mask;
    }
}

/// Offsets of registers that every function has.
pub(super) mod offset {
    pub(in crate::pci) const VENDOR: u8 = 0x00;
    pub(in crate::pci) const DEVICE: u8 = 0x02;
    pub(in crate::pci) const COMMAND: u8 = 0x04;
    pub(in crate::pci) const STATUS: u8 = 0x06;
    pub(in crate::pci) const CLASS: u8 = 0x09;
    pub(in crate::pci) const HEADER: u8 = 0x0E;
    pub(in crate::pci) const ROM: u8 = 0x30;
    pub(in crate::pci) const CAPABILITIES: u8 = 0x34;

    /// Bit of the low byte of the status register: the function has capabilities.
    pub(in crate::pci) const HAS_CAPABILITIES: u8 = 1 << 4;
}
