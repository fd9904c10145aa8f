//! Interrupt routing: one table for IOAPIC pins, PIC pins and SINTs, which KVM receives as a whole.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_HV_SINT, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_hv_sint, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use crate::options::IrqchipMode;

/// Number of IOAPIC pins, and of the GSIs that belong to them.
pub(crate) const IOAPIC_PINS: u32 = 24;

/// One interrupt pin.
pub(crate) trait InterruptLine: Send + Sync {
    /// Raises and drops the line (edge-triggered use).
    ///
    /// # Errors
    /// The kernel's error; the interrupt is lost.
    fn pulse(&self) -> io::Result<()>;

    /// Sets the level (level-triggered use).
    ///
    /// # Errors
    /// The kernel's error; the level is unchanged.
    fn set_level(&self, high: bool) -> io::Result<()>;
}

/// A message-signalled interrupt, as an IOAPIC in user space sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Msi {
    /// Address (below 4 GiB).
    pub(crate) address: u32,
    /// Data.
    pub(crate) data: u32,
}

/// The routing table of a machine.
pub(crate) struct Routes {
    vm: Arc<VmFd>,
    mode: IrqchipMode,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Split mode: the MSI of each unmasked pin of the IOAPIC.
    pins: [Option<Msi>; IOAPIC_PINS as usize],
    /// SINTs (VP, number) in the order of their GSIs, which follow those of the IOAPIC.
    sints: Vec<(u32, u8)>,
}

impl Routes {
    /// Returns an empty table. Nothing is installed yet.
    pub(crate) fn new(vm: Arc<VmFd>, mode: IrqchipMode) -> Routes {
        Routes { vm, mode, table: Mutex::default() }
    }

    /// Adds routes to SINTs and installs the table. A SINT that has a route keeps it.
    pub(crate) fn add_sints(&self, sints: &[(u32, u8)]) -> io::Result<()> {
        self.change(|table| {
            for sint in sints {
                if !table.sints.contains(sint) {
                    table.sints.push(*sint);
                }
            }
        })
    }

    /// Returns the GSI of a SINT, if it has a route.
    pub(crate) fn sint_gsi(&self, vp: u32, sint: u8) -> Option<u32> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let index = table.sints.iter().position(|entry| *entry == (vp, sint))?;
        Some(IOAPIC_PINS + index as u32)
    }

    /// Sets the MSI of an IOAPIC pin (`None`: no route) and installs the table. Split mode only.
    pub(crate) fn set_pin(&self, pin: usize, msi: Option<Msi>) -> io::Result<()> {
        self.change(|table| {
            if let Some(entry) = table.pins.get_mut(pin) {
                *entry = msi;
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Table)) -> io::Result<()> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut table);
        let entries = table.entries(self.mode);
        let routing = KvmIrqRouting::from_entries(&entries).map_err(io::Error::other)?;
        Ok(self.vm.set_gsi_routing(&routing)?)
    }
}

impl Table {
    fn entries(&self, mode: IrqchipMode) -> Vec<kvm_irq_routing_entry> {
        let mut entries = match mode {
            IrqchipMode::Full => irqchip_entries(),
            IrqchipMode::Split => self.pin_entries(),
        };
        for (gsi, &(vcpu, sint)) in (IOAPIC_PINS..).zip(&self.sints) {
            let hv_sint = kvm_irq_routing_hv_sint { vcpu, sint: sint.into() };
            entries.push(entry(
                gsi,
                KVM_IRQ_ROUTING_HV_SINT,
                kvm_irq_routing_entry__bindgen_ty_1 { hv_sint },
            ));
        }
        entries
    }

    fn pin_entries(&self) -> Vec<kvm_irq_routing_entry> {
        let pins = (0..).zip(&self.pins).filter_map(|(pin, msi)| Some((pin, (*msi)?)));
        pins.map(|(pin, msi)| {
            let mut msi_entry =
                kvm_irq_routing_msi { address_lo: msi.address, ..Default::default() };
            msi_entry.data = msi.data;
            entry(pin, KVM_IRQ_ROUTING_MSI, kvm_irq_routing_entry__bindgen_ty_1 { msi: msi_entry })
        })
        .collect()
    }
}

/// Returns KVM's default routes, except that the timer's GSI 0 goes to pin 2, as in the MADT.
fn irqchip_entries() -> Vec<kvm_irq_routing_entry> {
    let chip = |gsi: u32, irqchip: u32, pin: u32| {
        let irqchip = kvm_irq_routing_irqchip { irqchip, pin };
        entry(gsi, KVM_IRQ_ROUTING_IRQCHIP, kvm_irq_routing_entry__bindgen_ty_1 { irqchip })
    };
    let mut entries = Vec::with_capacity(40);
    for gsi in 0..16 {
        let pic = if gsi < 8 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
        entries.push(chip(gsi, pic, gsi % 8));
    }
    for gsi in (0..IOAPIC_PINS).filter(|gsi| *gsi != 2) {
        entries.push(chip(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { 2 } else { gsi }));
    }
    entries
}

fn entry(gsi: u32, type_: u32, u: kvm_irq_routing_entry__bindgen_ty_1) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry { gsi, type_, u, ..Default::default() }
}

/// A pin of the in-kernel interrupt controllers.
pub(super) struct KernelLine {
    vm: Arc<VmFd>,
    gsi: u32,
    edge: EventFd,
}

impl KernelLine {
    /// Returns the line of `gsi`, with an irqfd for edges.
    pub(super) fn new(vm: &Arc<VmFd>, gsi: u32) -> io::Result<KernelLine> {
        let edge = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        vm.register_irqfd(&edge, gsi)?;
        Ok(KernelLine { vm: Arc::clone(vm), gsi, edge })
    }
}

impl InterruptLine for KernelLine {
    fn pulse(&self) -> io::Result<()> {
        self.edge.write(1)
    }

    fn set_level(&self, high: bool) -> io::Result<()> {
        Ok(self.vm.set_irq_line(self.gsi, high)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_entries_full_keep_all_default_routes_and_append_sints() {
        let table = Table { sints: vec![(0, 2), (1, 2)], ..Default::default() };
        let entries = table.entries(IrqchipMode::Full);
        assert_eq!(
            entries.iter().filter(|entry| entry.type_ == KVM_IRQ_ROUTING_IRQCHIP).count(),
            39
        );
        let sints: Vec<u32> = entries
            .iter()
            .filter(|entry| entry.type_ == KVM_IRQ_ROUTING_HV_SINT)
            .map(|entry| entry.gsi)
            .collect();
        assert_eq!(sints, [24, 25]);
    }

    #[test]
    fn test_entries_split_list_unmasked_pins_only() {
        let mut table = Table::default();
        table.pins[4] = Some(Msi { address: 0xFEE0_0000, data: 0x34 });
        let entries = table.entries(IrqchipMode::Split);
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].gsi, entries[0].type_), (4, KVM_IRQ_ROUTING_MSI));
    }
}
