//! The in-kernel interrupt controllers and timer.

use std::sync::Arc;

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip, kvm_pit_state2,
};
use kvm_ioctls::VmFd;

use super::error::MachineError;
use crate::options::IrqchipMode;

/// The power-on state of the in-kernel interrupt controllers and timer; empty with a split irqchip.
pub(super) struct Irqchips {
    vm: Arc<VmFd>,
    chips: Vec<kvm_irqchip>,
    pit: Option<kvm_pit_state2>,
}

impl Irqchips {
    /// Records the state of a VM that was just made.
    ///
    /// # Errors
    /// KVM refuses.
    pub(super) fn record(vm: &Arc<VmFd>, mode: IrqchipMode) -> Result<Irqchips, MachineError> {
        let mut recorded = Irqchips { vm: Arc::clone(vm), chips: Vec::new(), pit: None };
        if mode == IrqchipMode::Full {
            for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
                let mut chip = kvm_irqchip { chip_id, ..Default::default() };
                vm.get_irqchip(&mut chip).map_err(MachineError::kvm("reading the irqchip"))?;
                recorded.chips.push(chip);
            }
            recorded.pit = Some(vm.get_pit2().map_err(MachineError::kvm("reading the PIT"))?);
        }
        Ok(recorded)
    }

    /// Puts them back into that state.
    ///
    /// # Errors
    /// KVM refuses.
    pub(super) fn reset(&self) -> Result<(), MachineError> {
        for chip in &self.chips {
            self.vm.set_irqchip(chip).map_err(MachineError::kvm("resetting the irqchip"))?;
        }
        if let Some(pit) = &self.pit {
            self.vm.set_pit2(pit).map_err(MachineError::kvm("resetting the PIT"))?;
        }
        Ok(())
    }
}
