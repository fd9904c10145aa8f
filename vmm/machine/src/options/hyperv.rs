//! The Hyper-V enlightenments that the guest is offered.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A preset, and the options in which this machine differs from it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HypervConfig {
    /// The set of options to start from.
    pub preset: HypervPreset,
    /// Options switched on or off on top of the preset.
    #[serde(flatten)]
    pub overrides: BTreeMap<HypervOption, bool>,
}

impl HypervConfig {
    /// Returns whether the guest is offered `option`. An override decides; otherwise the preset
    /// does, unless an option that `option` needs is off (`stimer=off` also disables the preset's
    /// `stimer-direct`).
    pub fn offers(&self, option: HypervOption) -> bool {
        let by_preset = || {
            self.preset.offers(option) && option.needs().iter().all(|needed| self.offers(*needed))
        };
        self.overrides.get(&option).copied().unwrap_or_else(by_preset)
    }

    /// Returns an option that is on and an option that it needs, if the latter is off.
    pub fn unmet(&self) -> Option<(HypervOption, HypervOption)> {
        let on = HypervOption::ALL.iter().copied().filter(|option| self.offers(*option));
        on.flat_map(|option| option.needs().iter().map(move |needed| (option, *needed)))
            .find(|(_, needed)| !self.offers(*needed))
    }
}

impl<'de> Deserialize<'de> for HypervConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ConfigVisitor)
    }
}

struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = HypervConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`preset` and the names of options, each on or off")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HypervConfig, A::Error> {
        let mut config = HypervConfig::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::Preset => config.preset = map.next_value()?,
                Key::Option(option) => {
                    config.overrides.insert(option, map.next_value()?);
                }
            }
        }
        Ok(config)
    }
}

/// The name of an enlightenment in a configuration.
enum Key {
    Preset,
    Option(HypervOption),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "preset" {
            return Ok(Key::Preset);
        }
        let option = HypervOption::ALL.iter().copied().find(|option| option.name() == name);
        option.map(Key::Option).ok_or_else(|| serde::de::Error::unknown_field(&name, KEY_NAMES))
    }
}

/// Options that are known to work together for a kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HypervPreset {
    /// Linux: its own LAPIC timer is faster than a synthetic one, so no stimers.
    #[default]
    Linux,
    /// Windows: stimers (also in direct mode) and APIC MSRs as well.
    Windows,
}

macro_rules! options {
    ($($variant:ident $name:literal $linux:ident $windows:ident $help:literal;)*) => {
        /// An enlightenment. The names follow QEMU's `hv-` flags where one exists.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum HypervOption {
            $(#[doc = $help] #[serde(rename = $name)] $variant,)*
        }

        impl HypervOption {
            /// Every option, in the order of the documentation.
            pub const ALL: &[HypervOption] = &[$(HypervOption::$variant),*];

            /// Returns the name in a configuration.
            pub const fn name(self) -> &'static str {
                match self { $(HypervOption::$variant => $name),* }
            }

            /// Returns a description of one line.
            pub const fn help(self) -> &'static str {
                match self { $(HypervOption::$variant => $help),* }
            }
        }

        const KEY_NAMES: &[&str] = &["preset", $($name),*];

        impl HypervPreset {
            /// Returns whether the preset contains `option`.
            pub const fn offers(self, option: HypervOption) -> bool {
                match self {
                    HypervPreset::Linux => match option { $(HypervOption::$variant => options!(@$linux)),* },
                    HypervPreset::Windows => match option { $(HypervOption::$variant => options!(@$windows)),* },
                }
            }
        }
    };
    (@on) => { true };
    (@off) => { false };
}

impl HypervOption {
    /// Returns the options without which this one has no effect or harms the guest.
    pub const fn needs(self) -> &'static [HypervOption] {
        match self {
            HypervOption::Hypercall => &[],
            HypervOption::VpIndex
            | HypervOption::Time
            | HypervOption::Frequencies
            | HypervOption::TscInvariant
            | HypervOption::Relaxed
            | HypervOption::Vapic
            | HypervOption::Spinlocks
            | HypervOption::DeprecateAutoEoi
            | HypervOption::Crash
            | HypervOption::Reset
            | HypervOption::Runtime
            | HypervOption::XmmInput
            | HypervOption::ExtendedHypercalls => &[HypervOption::Hypercall],
            HypervOption::Synic => &[HypervOption::Hypercall, HypervOption::VpIndex],
            HypervOption::Stimer => &[HypervOption::Synic, HypervOption::Time],
            HypervOption::StimerDirect => &[HypervOption::Stimer],
            HypervOption::TlbFlush | HypervOption::Ipi => {
                &[HypervOption::Hypercall, HypervOption::VpIndex]
            }
            HypervOption::ExProcessorMasks => &[HypervOption::Hypercall],
        }
    }
}

options! {
    // variant        name                linux windows
    Hypercall        "hypercall"          on  on  "Hypercalls (MSRs 0x40000000 and 0x40000001); \
        Linux uses no Hyper-V without them.";
    VpIndex          "vpindex"            on  on  "VP_INDEX MSR; Linux uses no Hyper-V without it.";
    Synic            "synic"              on  on  "Synthetic interrupt controller; VMBus needs it.";
    Time             "time"               on  on  "Reference counter and reference TSC page.";
    Frequencies      "frequencies"        on  on  "TSC and APIC frequency MSRs, so that the guest \
        need not calibrate.";
    TscInvariant     "tsc-invariant"      off on  "TSC_INVARIANT_CONTROL MSR: the guest uses the \
        TSC itself instead of the reference TSC page.";
    Stimer           "stimer"             off on  "Synthetic timers.";
    StimerDirect     "stimer-direct"      off on  "Synthetic timers that interrupt without a \
        message.";
    Relaxed          "relaxed"            on  on  "Relaxed timing: the guest's watchdogs allow \
        for a vCPU that did not run.";
    Vapic            "vapic"              off on  "APIC access by MSR and the VP assist page; \
        worth it for Linux where the host's KVM uses no APICv or AVIC.";
    Spinlocks        "spinlocks"          on  on  "Tells the guest how long to spin before it \
        notifies the host.";
    TlbFlush         "tlbflush"           on  on  "Remote TLB flush by hypercall.";
    Ipi              "ipi"                on  on  "IPIs to many processors by one hypercall.";
    ExProcessorMasks "ex-processor-masks" on  on  "Sparse processor sets in TLB flush and IPI, \
        for more than 64 vCPUs.";
    DeprecateAutoEoi "deprecate-autoeoi"  on  on  "Asks the guest not to use AutoEOI, which would \
        switch APICv off.";
    Crash            "crash"              on  on  "Crash MSRs, by which a guest reports its panic.";
    Reset            "reset"              on  on  "Reset MSR.";
    Runtime          "runtime"            on  on  "VP_RUNTIME MSR.";
    XmmInput         "xmm-input"          on  on  "Hypercall input in XMM registers.";
    ExtendedHypercalls "extended-hypercalls" off off "Extended hypercalls (capability query, \
        0x8001).";
}
