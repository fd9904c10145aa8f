//! The Unix sockets behind the services that guests connect to.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use vmbus_protocol::Guid;

use crate::protocol::port_of;

/// The Unix sockets of the host's services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    base: Option<PathBuf>,
    by_service: BTreeMap<Guid, PathBuf>,
}

impl Services {
    /// Returns the services whose sockets are named after `base`: `base_PORT` for the ports of
    /// AF_VSOCK, and `base_GUID` for any service.
    #[must_use]
    pub fn at(base: &Path) -> Self {
        Self { base: Some(base.to_owned()), by_service: BTreeMap::new() }
    }

    /// Adds a service with a socket of its own. Returns false if it has one already.
    pub fn add(&mut self, service: Guid, path: &Path) -> bool {
        let is_new = !self.by_service.contains_key(&service);
        if is_new {
            self.by_service.insert(service, path.to_owned());
        }
        is_new
    }

    /// Returns the sockets to try for a service, in order. None: no such service is possible.
    pub(crate) fn paths_of(&self, service: Guid) -> Vec<PathBuf> {
        if let Some(path) = self.by_service.get(&service) {
            return vec![path.clone()];
        }
        let Some(base) = &self.base else { return Vec::new() };
        let named = |name: String| {
            let mut path = OsString::from(base);
            path.push("_");
            path.push(name);
            PathBuf::from(path)
        };
        let port = port_of(service).map(|port| named(port.to_string()));
        port.into_iter().chain([named(service.to_string())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::service_of;

    #[test]
    fn test_service_has_its_own_socket_or_one_named_after_port_and_guid() {
        let other = Guid::new(1, 2, 3, [4; 8]);
        let mut services = Services::at(Path::new("/run/vm.sock"));
        let port = service_of(52);
        assert_eq!(
            services.paths_of(port),
            [PathBuf::from("/run/vm.sock_52"), format!("/run/vm.sock_{port}").into()]
        );
        assert_eq!(services.paths_of(other), [PathBuf::from(format!("/run/vm.sock_{other}"))]);
        assert!(services.add(other, Path::new("/agent")));
        assert!(!services.add(other, Path::new("/second")));
        assert_eq!(services.paths_of(other), [PathBuf::from("/agent")]);
        assert_eq!(Services::default().paths_of(port), [] as [PathBuf; 0]);
    }
}
