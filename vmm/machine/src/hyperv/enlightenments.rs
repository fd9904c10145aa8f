//! The table of enlightenments: CPUID bits, requirements, and the effect on a guest without each.

use kvm_bindings::{
    KVM_CAP_HYPERV_EVENTFD, KVM_CAP_HYPERV_SEND_IPI, KVM_CAP_HYPERV_SYNIC2,
    KVM_CAP_HYPERV_TLBFLUSH, KVM_CAP_HYPERV_VP_INDEX, kvm_cpuid_entry2,
};
use kvm_ioctls::Kvm;

use crate::options::{HypervConfig, HypervOption};

/// An enlightenment. Without requirements, the CPUID bits alone decide whether KVM offers it.
#[derive(Debug)]
pub(crate) struct Enlightenment {
    /// The option in the configuration, which has the name and the help text.
    pub option: HypervOption,
    /// Bits of leaf 0x40000003 EAX (privileges).
    pub features_eax: u32,
    /// Bits of leaf 0x40000003 EBX (privileges).
    pub features_ebx: u32,
    /// Bits of leaf 0x40000003 EDX (features).
    pub features_edx: u32,
    /// Bits of leaf 0x40000004 EAX (hints).
    pub hints: u32,
    /// KVM capabilities that the enlightenment needs in addition.
    pub capabilities: &'static [Capability],
    /// Options that must also be on.
    pub requires: &'static [HypervOption],
    /// Whether SynthVM's devices need the enlightenment.
    pub mandatory: bool,
    /// The effect on a guest without the enlightenment, for messages.
    pub lost: &'static str,
}

/// A KVM capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability {
    /// The name in the kernel's headers.
    pub name: &'static str,
    /// The number.
    pub number: u32,
}

const SYNIC2: Capability =
    Capability { name: "KVM_CAP_HYPERV_SYNIC2", number: KVM_CAP_HYPERV_SYNIC2 };
const EVENTFD: Capability =
    Capability { name: "KVM_CAP_HYPERV_EVENTFD", number: KVM_CAP_HYPERV_EVENTFD };
const VP_INDEX: Capability =
    Capability { name: "KVM_CAP_HYPERV_VP_INDEX", number: KVM_CAP_HYPERV_VP_INDEX };
const TLBFLUSH: Capability =
    Capability { name: "KVM_CAP_HYPERV_TLBFLUSH", number: KVM_CAP_HYPERV_TLBFLUSH };
const SEND_IPI: Capability =
    Capability { name: "KVM_CAP_HYPERV_SEND_IPI", number: KVM_CAP_HYPERV_SEND_IPI };

/// Privileges that do not depend on the options. Those for the APIC MSRs (bit 4) include the VP
/// assist page, which Linux writes on every processor without a check. Only the hint (option
/// `vapic`) makes a guest use the APIC MSRs.
pub(crate) const ALWAYS_FEATURES_EAX: u32 = 1 << 4;

const fn base(option: HypervOption, lost: &'static str) -> Enlightenment {
    Enlightenment {
        option,
        features_eax: 0,
        features_ebx: 0,
        features_edx: 0,
        hints: 0,
        capabilities: &[],
        requires: &[],
        mandatory: false,
        lost,
    }
}

use HypervOption as O;

/// Every enlightenment, in the order of [`HypervOption::ALL`].
pub(crate) const TABLE: &[Enlightenment] = &[
    Enlightenment {
        features_eax: 1 << 5,
        mandatory: true,
        ..base(O::Hypercall, "no VMBus: a guest cannot post messages or signal channels")
    },
    Enlightenment {
        features_eax: 1 << 6,
        capabilities: &[VP_INDEX],
        mandatory: true,
        ..base(O::VpIndex, "no VMBus: channels are targeted by VP index")
    },
    Enlightenment {
        features_eax: 1 << 2,
        features_ebx: 1 << 4 | 1 << 5,
        capabilities: &[SYNIC2, EVENTFD],
        requires: &[O::Hypercall, O::VpIndex],
        mandatory: true,
        ..base(O::Synic, "no VMBus: no messages, no channel interrupts, no doorbells")
    },
    Enlightenment {
        features_eax: 1 << 1 | 1 << 9,
        ..base(O::Time, "a slow clock source (PM timer), and timestamps by system call")
    },
    Enlightenment {
        features_eax: 1 << 11,
        features_edx: 1 << 8,
        ..base(
            O::Frequencies,
            "the guest calibrates its clocks itself: slower boot, less exact time",
        )
    },
    Enlightenment {
        features_eax: 1 << 15,
        ..base(
            O::TscInvariant,
            "Linux uses the reference TSC page instead of the TSC itself (kernel 6.3)",
        )
    },
    Enlightenment {
        features_eax: 1 << 3,
        requires: &[O::Synic, O::Time],
        ..base(O::Stimer, "Windows polls slower timers; Linux loses nothing")
    },
    Enlightenment {
        features_edx: 1 << 19,
        requires: &[O::Stimer],
        ..base(O::StimerDirect, "each timer tick is a SynIC message instead of a plain interrupt")
    },
    Enlightenment {
        hints: 1 << 5,
        ..base(O::Relaxed, "a busy host can make Windows' watchdogs stop the guest")
    },
    Enlightenment {
        features_eax: 1 << 4,
        hints: 1 << 3,
        ..base(O::Vapic, "without APICv or AVIC each interrupt exits a second time, at its end")
    },
    base(O::Spinlocks, "a preempted lock holder makes the other vCPUs spin in vain"),
    Enlightenment {
        hints: 1 << 2,
        capabilities: &[TLBFLUSH],
        requires: &[O::Hypercall, O::VpIndex],
        ..base(O::TlbFlush, "remote TLB flushes wait for vCPUs that do not run")
    },
    Enlightenment {
        hints: 1 << 10,
        capabilities: &[SEND_IPI],
        requires: &[O::Hypercall, O::VpIndex],
        ..base(O::Ipi, "an IPI to many vCPUs costs one exit each")
    },
    Enlightenment {
        hints: 1 << 11,
        requires: &[O::Hypercall, O::VpIndex],
        ..base(O::ExProcessorMasks, "with more than 64 vCPUs flushes and IPIs go the slow way")
    },
    Enlightenment {
        hints: 1 << 9,
        requires: &[O::Synic],
        ..base(
            O::DeprecateAutoEoi,
            "the guest's AutoEOI interrupts switch APICv or AVIC off for the whole machine",
        )
    },
    Enlightenment { features_edx: 1 << 10, ..base(O::Crash, "a guest's panic is not reported") },
    Enlightenment {
        features_eax: 1 << 7,
        ..base(O::Reset, "the guest resets by other means; nothing is lost")
    },
    Enlightenment { features_eax: 1, ..base(O::Runtime, "the guest cannot tell stolen time") },
    Enlightenment {
        features_edx: 1 << 4,
        requires: &[O::Hypercall],
        ..base(O::XmmInput, "TLB flushes of some pages pass their list by memory (kernel 5.14)")
    },
    Enlightenment {
        features_ebx: 1 << 20,
        requires: &[O::Hypercall],
        ..base(O::ExtendedHypercalls, "no reports of free pages (dynamic memory; kernel 6.3)")
    },
];

/// Returns the table's entry for `option`.
pub(crate) fn enlightenment(option: HypervOption) -> &'static Enlightenment {
    // `test_table_follows_the_options` checks that the table has the order of the enumeration.
    &TABLE[option as usize]
}

/// The enlightenments that this host's KVM offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offer {
    features_eax: u32,
    features_ebx: u32,
    features_edx: u32,
    hints: u32,
    missing: Vec<Capability>,
}

impl Offer {
    /// Reads the offer of `kvm`. The offer is empty without Hyper-V support.
    pub(crate) fn of(kvm: &Kvm) -> Offer {
        let leaves = super::supported_cpuid(kvm).unwrap_or_default();
        let missing = TABLE
            .iter()
            .flat_map(|entry| entry.capabilities)
            .filter(|capability| kvm.check_extension_raw(capability.number.into()) <= 0)
            .copied()
            .collect();
        Offer::new(&leaves, missing)
    }

    fn new(leaves: &[kvm_cpuid_entry2], missing: Vec<Capability>) -> Offer {
        let leaf = |function| {
            leaves.iter().find(|leaf| leaf.function == function).copied().unwrap_or_default()
        };
        let features = leaf(0x4000_0003);
        Offer {
            features_eax: features.eax,
            features_ebx: features.ebx,
            features_edx: features.edx,
            hints: leaf(0x4000_0004).eax,
            missing,
        }
    }

    /// Returns the privilege bits (0x40000003 EAX) that KVM offers.
    pub(super) fn features_eax(&self) -> u32 {
        self.features_eax
    }

    /// Returns whether KVM offers everything that `option` needs.
    pub(crate) fn has(&self, option: HypervOption) -> bool {
        let need = enlightenment(option);
        self.features_eax & need.features_eax == need.features_eax
            && self.features_ebx & need.features_ebx == need.features_ebx
            && self.features_edx & need.features_edx == need.features_edx
            && self.hints & need.hints == need.hints
            && need.capabilities.iter().all(|capability| !self.missing.contains(capability))
    }

    /// Returns the options of the guest: those that are on in `config`, without those that only the
    /// preset sets and KVM lacks.
    ///
    /// # Errors
    /// [`HypervError`], which names the enlightenments.
    pub(crate) fn choose(&self, config: &HypervConfig) -> Result<Vec<HypervOption>, HypervError> {
        for need in TABLE.iter().filter(|need| need.mandatory) {
            if !config.offers(need.option) {
                return Err(HypervError::Mandatory { option: need.option.name(), lost: need.lost });
            }
            if !self.has(need.option) {
                return Err(HypervError::NoHyperv { option: need.option.name() });
            }
        }
        let asked = |option: HypervOption| config.overrides.get(&option) == Some(&true);
        let mut chosen = Vec::new();
        for option in HypervOption::ALL.iter().copied().filter(|option| config.offers(*option)) {
            if self.has(option) {
                chosen.push(option);
            } else if asked(option) {
                return Err(HypervError::Unavailable { option: option.name() });
            }
        }
        // If the base of a preset's option is off or missing, the option is dropped. If the user
        // set the option, that is an error.
        while let Some((option, base)) = chosen.iter().find_map(|option| {
            let base =
                enlightenment(*option).requires.iter().find(|base| !chosen.contains(base))?;
            Some((*option, *base))
        }) {
            if asked(option) {
                return Err(HypervError::Requires { option: option.name(), base: base.name() });
            }
            chosen.retain(|kept| *kept != option);
        }
        Ok(chosen)
    }
}

/// An error in offering the guest the enlightenments of the field `hyperv`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HypervError {
    /// KVM lacks Hyper-V support, or an indispensable part of it.
    #[error("this host's KVM does not offer Hyper-V's {option}, without which there is no VMBus")]
    NoHyperv {
        /// The option.
        option: &'static str,
    },
    /// The option is off, but the devices need it.
    #[error("the enlightenment {option} is off: {lost}")]
    Mandatory {
        /// The option.
        option: &'static str,
        /// The effect of its absence.
        lost: &'static str,
    },
    /// The user set the option, but KVM lacks it.
    #[error("this host's KVM does not offer the enlightenment {option}")]
    Unavailable {
        /// The option.
        option: &'static str,
    },
    /// The user set the option without its base.
    #[error("the enlightenment {option} needs {base} as well")]
    Requires {
        /// The option.
        option: &'static str,
        /// The base of the option.
        base: &'static str,
    },
}

/// Returns an offer with the given leaves, for the tests of other modules.
#[cfg(test)]
pub(super) fn tests_offer(leaves: &[kvm_cpuid_entry2]) -> Offer {
    Offer::new(leaves, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::HypervPreset;

    fn everything() -> Offer {
        Offer {
            features_eax: !0,
            features_ebx: !0,
            features_edx: !0,
            hints: !0,
            ..Offer::default()
        }
    }

    fn config(preset: HypervPreset, overrides: &[(HypervOption, bool)]) -> HypervConfig {
        HypervConfig { preset, overrides: overrides.iter().copied().collect() }
    }

    #[test]
    fn test_table_follows_the_options() {
        let order: Vec<HypervOption> = TABLE.iter().map(|entry| entry.option).collect();
        assert_eq!(order, HypervOption::ALL);
    }

    #[test]
    fn test_presets_are_consistent() {
        for preset in [HypervPreset::Linux, HypervPreset::Windows] {
            let chosen = everything().choose(&config(preset, &[])).unwrap();
            let wanted: Vec<_> =
                HypervOption::ALL.iter().copied().filter(|o| preset.offers(*o)).collect();
            assert_eq!(chosen, wanted);
        }
    }

    #[test]
    fn test_choose_no_hyperv_is_an_error() {
        let error = Offer::default().choose(&config(HypervPreset::Linux, &[])).unwrap_err();
        assert!(matches!(error, HypervError::NoHyperv { .. }));
        let no_synic2 = Offer { missing: vec![SYNIC2], ..everything() };
        let error = no_synic2.choose(&config(HypervPreset::Linux, &[])).unwrap_err();
        assert_eq!(error, HypervError::NoHyperv { option: "synic" });
    }

    #[test]
    fn test_choose_missing_preset_option_is_left_out_but_asked_one_is_an_error() {
        let offer = Offer { features_edx: !(1 << 19), ..everything() };
        let chosen = offer.choose(&config(HypervPreset::Windows, &[])).unwrap();
        assert!(!chosen.contains(&O::StimerDirect) && chosen.contains(&O::Stimer));
        let asked = config(HypervPreset::Linux, &[(O::Stimer, true), (O::StimerDirect, true)]);
        assert_eq!(offer.choose(&asked), Err(HypervError::Unavailable { option: "stimer-direct" }));
    }

    #[test]
    fn test_choose_option_without_its_base_names_both() {
        let asked = config(HypervPreset::Linux, &[(O::StimerDirect, true)]);
        let error = everything().choose(&asked).unwrap_err();
        assert_eq!(error, HypervError::Requires { option: "stimer-direct", base: "stimer" });
    }

    #[test]
    fn test_choose_base_off_takes_the_presets_dependents_along() {
        let off = config(HypervPreset::Windows, &[(O::Time, false)]);
        let chosen = everything().choose(&off).unwrap();
        assert!(
            ![O::Time, O::Stimer, O::StimerDirect].iter().any(|option| chosen.contains(option))
        );
    }

    #[test]
    fn test_choose_mandatory_off_is_an_error() {
        let off = config(HypervPreset::Linux, &[(O::Synic, false)]);
        assert!(matches!(
            everything().choose(&off),
            Err(HypervError::Mandatory { option: "synic", .. })
        ));
    }
}
