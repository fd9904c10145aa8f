//! The Hyper-V CPUID leaves of the guest (spec hypervisor-platform section 1).

use kvm_bindings::kvm_cpuid_entry2;

use super::enlightenments::{ALWAYS_FEATURES_EAX, Offer, enlightenment};
use crate::options::HypervOption;

/// "Microsoft Hv".
const VENDOR: [u32; 3] = [0x7263_694D, 0x666F_736F, 0x7648_2074];
/// "Hv#1", the interface signature that Windows, and KVM itself, test.
const INTERFACE: u32 = 0x3123_7648;
/// The highest leaf. 0x4000000A would make Windows 11 start its own hypervisor.
const MAX_LEAF: u32 = 0x4000_0005;
/// The reported version: Windows Server 2022's, which is new enough for every feature bit that is
/// offered.
const BUILD: u32 = 20_348;
const VERSION: u32 = 10 << 16;
/// The guest never notifies the host of a long spin.
const SPIN_FOREVER: u32 = 0xFFFF_FFFF;
/// Number of spins before a guest notifies the host (KVM's recommendation).
const SPIN_RETRIES: u32 = 0xFFF;
/// Number of interrupt vectors that can be remapped.
const REMAPPED_VECTORS: u32 = 0;

/// The content of the leaves.
#[derive(Clone, Debug)]
pub(crate) struct HypervCpuid<'a> {
    /// The enlightenments that KVM offers.
    pub offer: &'a Offer,
    /// The enlightenments of the guest. KVM must offer each of them.
    pub options: &'a [HypervOption],
    /// The largest number of VPs.
    pub max_vps: u32,
}

/// Returns the leaves 0x40000000 to 0x40000005.
pub(crate) fn leaves(cpuid: &HypervCpuid<'_>) -> Vec<kvm_cpuid_entry2> {
    let chosen = || cpuid.options.iter().map(|option| enlightenment(*option));
    let bits = |register: fn(&super::Enlightenment) -> u32| {
        chosen().fold(0, |bits, entry| bits | register(entry))
    };
    let features = [
        bits(|entry| entry.features_eax) | ALWAYS_FEATURES_EAX & cpuid.offer.features_eax(),
        bits(|entry| entry.features_ebx),
        0,
        bits(|entry| entry.features_edx),
    ];
    let spin =
        if cpuid.options.contains(&HypervOption::Spinlocks) { SPIN_RETRIES } else { SPIN_FOREVER };
    [
        [MAX_LEAF, VENDOR[0], VENDOR[1], VENDOR[2]],
        [INTERFACE, 0, 0, 0],
        [BUILD, VERSION, 0, 0],
        features,
        [bits(|entry| entry.hints), spin, 0, 0],
        [cpuid.max_vps, cpuid.max_vps, REMAPPED_VECTORS, 0],
    ]
    .into_iter()
    .zip(0x4000_0000..)
    .map(|([eax, ebx, ecx, edx], function)| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{HypervConfig, HypervPreset};

    /// Returns the leaves that KVM 6.12 offers (spec section 5.2).
    fn kvm_6_12() -> Vec<kvm_cpuid_entry2> {
        let leaf = |function, eax, ebx, edx| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            edx,
            ..Default::default()
        };
        vec![leaf(0x4000_0003, 0xAAFF, 0x10_0830, 0x8_4D12), leaf(0x4000_0004, 0x40E2C, 0xFFF, 0)]
    }

    fn build(preset: HypervPreset) -> Vec<kvm_cpuid_entry2> {
        let offer = super::super::enlightenments::tests_offer(&kvm_6_12());
        let options = offer.choose(&HypervConfig { preset, ..Default::default() }).unwrap();
        leaves(&HypervCpuid { offer: &offer, options: &options, max_vps: 64 })
    }

    #[test]
    fn test_leaves_vendor_interface_and_maximum() {
        let leaves = build(HypervPreset::Linux);
        let vendor: Vec<u8> = [leaves[0].ebx, leaves[0].ecx, leaves[0].edx]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        assert_eq!(vendor, b"Microsoft Hv");
        assert_eq!((leaves[0].eax, leaves[1].eax), (0x4000_0005, 0x3123_7648));
        assert!(leaves.iter().all(|leaf| leaf.function <= 0x4000_0005), "no nested leaf");
    }

    #[test]
    fn test_features_what_guests_insist_on_and_nothing_dangerous() {
        for preset in [HypervPreset::Linux, HypervPreset::Windows] {
            let features = build(preset)[3];
            for bit in [1, 2, 4, 5, 6, 9, 11] {
                assert_ne!(features.eax & 1 << bit, 0, "EAX bit {bit}");
            }
            assert_eq!(features.ebx & 0x30, 0x30, "post messages, signal events");
            for bit in [0, 1, 12, 16, 17, 21, 22] {
                assert_eq!(features.ebx & 1 << bit, 0, "EBX bit {bit}");
            }
            assert_eq!(features.eax & 1 << 13, 0, "reenlightenment");
        }
    }

    #[test]
    fn test_leaves_never_exceed_what_kvm_offers() {
        let offered = kvm_6_12();
        for preset in [HypervPreset::Linux, HypervPreset::Windows] {
            let leaves = build(preset);
            assert_eq!(leaves[3].eax & !offered[0].eax, 0);
            assert_eq!(leaves[3].ebx & !offered[0].ebx, 0);
            assert_eq!(leaves[3].edx & !offered[0].edx, 0);
            assert_eq!(leaves[4].eax & !offered[1].eax, 0);
        }
    }

    #[test]
    fn test_hints_deprecate_auto_eoi_always_apic_msrs_for_windows_only() {
        assert_eq!(build(HypervPreset::Linux)[4].eax & 0x208, 0x200);
        assert_eq!(build(HypervPreset::Windows)[4].eax & 0x208, 0x208);
    }
}
