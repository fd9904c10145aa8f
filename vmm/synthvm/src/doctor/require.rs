//! The host checks of `synthvm run`, before it creates anything.

use super::capabilities::{HYPERV_EVENTFD, HYPERV_SYNIC2, IRQCHIP, SPLIT_IRQCHIP};
use super::judge::open_advice;
use super::{Access, CAPABILITIES, Capability, Facts, Group, Need};
use crate::config::{HypervOption, IrqchipMode, VmConfig};

/// A host that cannot run a machine: the option at fault, the missing feature and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostError(String);

/// Checks that the host has the features that `config` needs.
///
/// # Errors
/// The device node is absent, not accessible or not KVM; or KVM lacks a capability that this
/// machine needs.
pub fn require(config: &VmConfig) -> Result<(), HostError> {
    check(&Facts::gather(&config.kvm), config)
}

fn check(facts: &Facts, config: &VmConfig) -> Result<(), HostError> {
    let path = facts.kvm.display();
    let text = |error: i32| std::io::Error::from_raw_os_error(error);
    match facts.access {
        Access::Open(_) => {}
        Access::Closed(error) => {
            return Err(HostError(format!(
                "--kvm {path}: cannot open: {}; {}",
                text(error),
                open_advice(error)
            )));
        }
        Access::NotKvm(_) => {
            return Err(HostError(format!(
                "--kvm {path}: this is not KVM; on most hosts it is /dev/kvm"
            )));
        }
        Access::NoVm(_, error) => {
            return Err(HostError(format!(
                "--kvm {path}: cannot create a VM: {}; see `synthvm doctor`",
                text(error)
            )));
        }
    }
    let has = |number: u32| facts.capabilities.get(&number).is_some_and(|answer| *answer > 0);
    if config.irqchip == IrqchipMode::Split && !has(SPLIT_IRQCHIP) {
        return Err(HostError(
            "--irqchip split: this host's KVM has no SPLIT_IRQCHIP; use --irqchip full".into(),
        ));
    }
    let offers = |option| config.hyperv.offers(option);
    let needed = |it: &Capability| match (it.group, it.number) {
        (Group::HyperV, HYPERV_SYNIC2 | HYPERV_EVENTFD) => offers(HypervOption::Synic),
        (Group::HyperV, _) => offers(HypervOption::Hypercall),
        // A split irqchip does not need the kernel's IOAPIC.
        (_, IRQCHIP) => config.irqchip == IrqchipMode::Full,
        _ => true,
    };
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|it| it.need == Need::Required && needed(it) && !has(it.number))
        .map(|it| it.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(HostError(format!(
        "--kvm {path}: this host's KVM lacks {}; `synthvm doctor` gives advice",
        missing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flag;

    fn facts(without: &[u32]) -> Facts {
        let capabilities =
            CAPABILITIES.iter().map(|it| (it.number, i32::from(!without.contains(&it.number))));
        Facts {
            access: Access::Open(12),
            capabilities: capabilities.collect(),
            ..Facts::gather(std::path::Path::new("/nonexistent/kvm"))
        }
    }

    fn refusal(facts: &Facts, toml: &str) -> String {
        let config =
            VmConfig::from_toml(&format!("kernel = \"k\"\n{toml}"), &[] as &[Flag]).unwrap();
        check(facts, &config).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn test_require_complete_host_is_accepted() {
        assert_eq!(refusal(&facts(&[]), ""), "");
        assert_eq!(refusal(&facts(&[45, 155, 199]), ""), "", "wanted, not needed");
    }

    #[test]
    fn test_require_names_what_is_missing() {
        let error = refusal(&facts(&[148, 154]), "");
        assert!(
            error.contains("HYPERV_SYNIC2, HYPERV_EVENTFD") && error.contains("synthvm doctor"),
            "{error}"
        );
    }

    #[test]
    fn test_require_machine_without_hyperv_needs_no_hyperv() {
        let off = HypervOption::ALL
            .iter()
            .map(|option| format!("{} = false\n", option.name()))
            .collect::<String>();
        assert_eq!(refusal(&facts(&[44, 148, 149, 154]), &format!("[hyperv]\n{off}")), "");
    }

    #[test]
    fn test_require_machine_without_synic_needs_none() {
        assert_eq!(refusal(&facts(&[148, 154]), "[hyperv]\nsynic = false"), "");
        assert!(refusal(&facts(&[44]), "[hyperv]\nsynic = false").contains("HYPERV"));
    }

    #[test]
    fn test_require_split_irqchip_names_its_option() {
        assert!(refusal(&facts(&[121]), "irqchip = \"split\"").starts_with("--irqchip split"));
        assert_eq!(refusal(&facts(&[121]), ""), "");
    }

    #[test]
    fn test_require_device_that_cannot_be_opened_names_option_path_and_advice() {
        let error = refusal(&Facts { access: Access::Closed(libc::EACCES), ..facts(&[]) }, "");
        assert!(
            error.starts_with("--kvm /nonexistent/kvm: cannot open: Permission denied"),
            "{error}"
        );
        assert!(error.contains("usermod"), "{error}");
    }
}
