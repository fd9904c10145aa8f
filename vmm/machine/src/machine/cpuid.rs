//! CPUID of each vCPU: the leaves that KVM supports with the topology added, without KVM's own
//! leaves and nesting.

use kvm_bindings::kvm_cpuid_entry2;

const HYPERVISOR_LEAVES: std::ops::Range<u32> = 0x4000_0000..0x4000_0200;
const LEAF1_ECX_VMX: u32 = 1 << 5;
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
const EXT1_ECX_SVM: u32 = 1 << 2;
/// Flag: the subleaf index is significant.
const SIGNIFICANT_INDEX: u32 = 1;

/// The input for the CPUID of a machine.
pub(super) struct Template<'a> {
    /// The result of KVM_GET_SUPPORTED_CPUID.
    pub(super) supported: &'a [kvm_cpuid_entry2],
    /// Leaves 0x40000000 and up.
    pub(super) hyperv: &'a [kvm_cpuid_entry2],
    /// Number of vCPUs. Each is a core of one socket.
    pub(super) cpus: u32,
    /// Whether the in-kernel LAPIC has a deadline timer.
    pub(super) tsc_deadline: bool,
}

impl Template<'_> {
    /// Returns the leaves of the vCPU with `apic_id`.
    pub(super) fn build(&self, apic_id: u32) -> Vec<kvm_cpuid_entry2> {
        let max_leaf =
            self.supported.iter().find(|entry| entry.function == 0).map_or(0, |entry| entry.eax);
        let mut leaves: Vec<kvm_cpuid_entry2> = self
            .supported
            .iter()
            .filter(|entry| !HYPERVISOR_LEAVES.contains(&entry.function))
            .filter(|entry| !matches!(entry.function, 0xB | 0x1F | 0x8000_000A))
            .copied()
            .collect();
        for entry in &mut leaves {
            self.complete(entry, apic_id);
        }
        for leaf in [0xB, 0x1F].into_iter().filter(|leaf| *leaf <= max_leaf) {
            leaves.extend(self.topology(leaf, apic_id));
        }
        leaves.extend_from_slice(self.hyperv);
        leaves
    }

    fn complete(&self, entry: &mut kvm_cpuid_entry2, apic_id: u32) {
        match entry.function {
            1 => {
                let logical = self.cpus.next_power_of_two().min(0xFF);
                entry.ebx = entry.ebx & 0xFFFF | logical << 16 | (apic_id & 0xFF) << 24;
                entry.ecx |= LEAF1_ECX_HYPERVISOR;
                entry.ecx &= !LEAF1_ECX_VMX;
                entry.ecx &= !LEAF1_ECX_TSC_DEADLINE;
                if self.tsc_deadline {
                    entry.ecx |= LEAF1_ECX_TSC_DEADLINE;
                }
                entry.edx &= !LEAF1_EDX_HTT;
                if self.cpus > 1 {
                    entry.edx |= LEAF1_EDX_HTT;
                }
            }
            // Intel's caches: up to level 2 per core, level 3 shared by the socket.
            4 if entry.eax & 0x1F != 0 => {
                let sharing =
                    if entry.eax >> 5 & 7 < 3 { 1 } else { self.cpus.next_power_of_two() };
                let cores = self.cpus.next_power_of_two().min(64);
                entry.eax = entry.eax & 0x3FFF | (sharing - 1) << 14 | (cores - 1) << 26;
            }
            0x8000_0001 => entry.ecx &= !EXT1_ECX_SVM,
            // AMD: the number of cores, and the number of APIC id bits that identify a core.
            0x8000_0008 => {
                let bits = self.core_bits();
                entry.ecx = entry.ecx & !0xF0FF | bits << 12 | (self.cpus - 1) & 0xFF;
            }
            0x8000_001D if entry.eax & 0x1F != 0 => {
                let sharing = if entry.eax >> 5 & 7 < 3 { 1 } else { self.cpus };
                entry.eax = entry.eax & 0x3FFF | (sharing - 1) << 14;
            }
            0x8000_001E => {
                entry.eax = apic_id;
                // One thread per core; core id in the low byte.
                entry.ebx = apic_id & 0xFF;
                entry.ecx = 0;
            }
            _ => {}
        }
    }

    /// Returns the extended topology leaves: threads (one per core), then cores.
    fn topology(&self, function: u32, apic_id: u32) -> [kvm_cpuid_entry2; 3] {
        let level = |index: u32, shift: u32, logical: u32, kind: u32| kvm_cpuid_entry2 {
            function,
            index,
            flags: SIGNIFICANT_INDEX,
            eax: shift,
            ebx: logical,
            ecx: index | kind << 8,
            edx: apic_id,
            ..Default::default()
        };
        [level(0, 0, 1, 1), level(1, self.core_bits(), self.cpus, 2), level(2, 0, 0, 0)]
    }

    fn core_bits(&self) -> u32 {
        self.cpus.next_power_of_two().trailing_zeros()
    }
}

/// Returns the physical address bits of guests.
pub(super) fn address_bits(supported: &[kvm_cpuid_entry2]) -> u32 {
    supported
        .iter()
        .find(|entry| entry.function == 0x8000_0008)
        .map_or(36, |entry| entry.eax & 0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> Vec<kvm_cpuid_entry2> {
        let leaf =
            |function, eax, ecx| kvm_cpuid_entry2 { function, eax, ecx, ..Default::default() };
        vec![
            leaf(0, 0xD, 0),
            leaf(1, 0, LEAF1_ECX_VMX),
            leaf(0xB, 9, 9),
            leaf(0x4000_0000, 0x4000_0001, 0),
            leaf(0x8000_0001, 0, EXT1_ECX_SVM),
            leaf(0x8000_0008, 40, 0),
        ]
    }

    fn build(cpus: u32, apic_id: u32) -> Vec<kvm_cpuid_entry2> {
        let hyperv =
            [kvm_cpuid_entry2 { function: 0x4000_0000, eax: 0x4000_0005, ..Default::default() }];
        let supported = supported();
        Template { supported: &supported, hyperv: &hyperv, cpus, tsc_deadline: true }.build(apic_id)
    }

    fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *leaves.iter().find(|leaf| (leaf.function, leaf.index) == (function, index)).unwrap()
    }

    #[test]
    fn test_build_replaces_kvm_leaves_and_hides_nesting() {
        let leaves = build(2, 1);
        let hypervisor: Vec<u32> =
            leaves.iter().filter(|leaf| leaf.function >> 28 == 4).map(|leaf| leaf.eax).collect();
        assert_eq!(hypervisor, [0x4000_0005]);
        assert_eq!(
            find(&leaves, 1, 0).ecx & (LEAF1_ECX_VMX | LEAF1_ECX_HYPERVISOR),
            LEAF1_ECX_HYPERVISOR
        );
        assert_eq!(find(&leaves, 0x8000_0001, 0).ecx, 0);
    }

    #[test]
    fn test_build_topology_names_every_core() {
        for (cpus, bits) in [(1, 0), (2, 1), (3, 2), (64, 6)] {
            let leaves = build(cpus, cpus - 1);
            assert_eq!(find(&leaves, 1, 0).ebx >> 24, cpus - 1);
            let cores = find(&leaves, 0xB, 1);
            assert_eq!((cores.eax, cores.ebx, cores.edx), (bits, cpus, cpus - 1));
            assert_eq!(find(&leaves, 0x8000_0008, 0).ecx, bits << 12 | (cpus - 1));
        }
    }

    #[test]
    fn test_build_no_leaf_above_the_maximum() {
        assert!(!build(1, 0).iter().any(|leaf| leaf.function == 0x1F));
    }
}
