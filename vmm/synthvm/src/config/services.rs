//! The integration services that the guest is offered.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use synthvm_services::protocol::ServiceKind;

use super::VmConfig;
use super::error::unknown;

/// The services that a machine offers: `default`, `all`, `none`, or a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ServicesConfig {
    /// All but file copy, which lets the host write files in the guest; none in a machine without
    /// a VMBus.
    #[default]
    Default,
    /// These services.
    List(Vec<ServiceKind>),
}

/// The separator of a list.
const COMMA: char = ',';

impl VmConfig {
    /// Returns the services to offer. `has_bus`: the machine has a VMBus.
    pub(crate) fn services(&self, has_bus: bool) -> Vec<ServiceKind> {
        match &self.services {
            ServicesConfig::Default if !has_bus => Vec::new(),
            ServicesConfig::Default => {
                ServiceKind::ALL.into_iter().filter(|kind| *kind != ServiceKind::Copy).collect()
            }
            ServicesConfig::List(kinds) => kinds.clone(),
        }
    }
}

impl FromStr for ServicesConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => return Ok(Self::Default),
            "all" => return Ok(Self::List(ServiceKind::ALL.to_vec())),
            "none" => return Ok(Self::List(Vec::new())),
            "" => return Err("no service is named; write default, all, none or a list".into()),
            _ => {}
        }
        let mut kinds = Vec::new();
        for name in text.split(COMMA).map(str::trim) {
            let kind = ServiceKind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = kind.ok_or_else(|| {
                unknown("service", name, &ServiceKind::ALL.map(ServiceKind::name))
            })?;
            if kinds.contains(&kind) {
                return Err(format!("the service `{name}` is given twice"));
            }
            kinds.push(kind);
        }
        Ok(Self::List(kinds))
    }
}

impl fmt::Display for ServicesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::List(kinds) if kinds.is_empty() => f.write_str("none"),
            Self::List(kinds) => {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl Serialize for ServicesConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServicesConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_services_are_read_as_they_are_written() {
        for text in ["default", "none", "shutdown", "kvp,vss,copy"] {
            assert_eq!(text.parse::<ServicesConfig>().unwrap().to_string(), text);
        }
        let all: ServicesConfig = "all".parse().unwrap();
        assert_eq!(all.to_string().parse::<ServicesConfig>(), Ok(all));
        assert_eq!(
            "kvp, vss".parse(),
            Ok(ServicesConfig::List(vec![ServiceKind::Kvp, ServiceKind::Vss]))
        );
    }

    #[test]
    fn test_service_that_does_not_exist_is_refused_with_the_names() {
        let error = "shutdwon".parse::<ServicesConfig>().unwrap_err();
        assert!(error.contains("shutdwon") && error.contains("shutdown"), "{error}");
        assert!("kvp,kvp".parse::<ServicesConfig>().unwrap_err().contains("twice"));
        assert!("".parse::<ServicesConfig>().unwrap_err().contains("none"));
        assert!("kvp,".parse::<ServicesConfig>().is_err());
    }
}
