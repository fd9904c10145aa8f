//! The integration services of a machine, and the requests of the control socket to them.

mod adapter;
mod clock;
mod report;
mod request;

use std::error::Error;
use std::sync::Arc;

use synthvm_machine::Machine;
use synthvm_services::protocol::ServiceKind;
use synthvm_services::protocol::shutdown::ShutdownMode;
use synthvm_services::{
    Clock, ServiceError, ServiceState, Services, ServicesOptions, ShutdownRequest,
};
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

    /// Asks the guest to power off by its shutdown service. Calls `otherwise`, now or later, if the
    /// guest cannot be asked, refuses, or does not answer in time. Does not wait.
    pub fn power_off(&self, otherwise: impl FnOnce() + Send + 'static) {
        let services = self
            .services
            .as_ref()
            .filter(|all| matches!(all.state(ServiceKind::Shutdown), Some(ServiceState::Ready(_))));
        let Some(services) = services else { return otherwise() };
        // Forced: Windows refuses otherwise while its screen is locked and programs run. Linux
        // makes no difference.
        let reason = "SynthVM was told to end".to_owned();
        let request =
            ShutdownRequest { mode: ShutdownMode::PowerOff, force: true, reason, seconds: 0 };
        let done = |result: Result<(), ServiceError>| {
            if let Err(error) = result {
                tracing::info!("shutdown service: {error}; pressing the power button");
                otherwise();
            }
        };
        services.shutdown(request, Box::new(done));
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
