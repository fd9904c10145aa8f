//! The integration services of a machine, and the requests of the control socket to them.

mod adapter;
mod clock;
mod report;
mod request;

use std::error::Error;
use std::sync::Arc;

use synthvm_machine::Machine;
use synthvm_services::protocol::ServiceKind;
use synthvm_services::{Clock, Services, ServicesOptions};
use vmbus_device::{SharedLoop, WorkerOptions};
use vmbus_host::VmBus;

use self::adapter::Adapters;
use self::clock::MachineClock;
use crate::config::{HypervOption, VmConfig};
use crate::networks::NetworkSet;

pub use self::clock::ClockWatch;
pub use self::report::{
    CopyReport, GuestStatus, HealthName, ServiceReport, ServicesReport, StateName,
};
pub use self::request::ServiceRequest;

/// The services of a running machine. Clones are handles to the same services. The default has
/// none.
#[derive(Debug, Clone, Default)]
pub struct GuestServices {
    services: Option<Services>,
    adapters: Arc<Adapters>,
}

impl GuestServices {
    /// Offers the services of `config` to the guest.
    ///
    /// # Errors
    /// The host has too few file descriptors or threads.
    pub fn start(
        config: &VmConfig,
        machine: &Machine,
        networks: &NetworkSet,
        bus: &VmBus,
    ) -> Result<Self, Box<dyn Error>> {
        let kinds = config.services(config.hyperv.offers(HypervOption::Synic));
        if kinds.is_empty() {
            return Ok(Self::default());
        }
        let options = ServicesOptions {
            host_clock: Arc::new(MachineClock::new(machine.reference_clock())),
            clock: Clock::default(),
            // One thread: the services have little to do.
            workers: WorkerOptions::default().shared_loop(SharedLoop::new("services")?),
        };
        let (services, devices) = Services::new(&kinds, &options)?;
        for device in devices {
            bus.offer(Box::new(device))?;
        }
        Ok(Self { services: Some(services), adapters: Arc::new(Adapters::new(networks)) })
    }

    /// Returns whether the machine offers the time synchronisation.
    pub fn has_time_sync(&self) -> bool {
        self.services.as_ref().is_some_and(|all| all.state(ServiceKind::TimeSync).is_some())
    }

    /// Returns the services' part of the machine's report.
    pub fn report(&self) -> Option<ServicesReport> {
        self.services.as_ref().map(ServicesReport::new)
    }
}
