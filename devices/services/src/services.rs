//! All services of a machine.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vmbus_device::WorkerOptions;

use crate::clock::Clock;
use crate::device::ServiceDevice;
use crate::error::ServiceError;
use crate::operation::{Done, Operation};
use crate::port::{Background, NoBackground, Port, ServiceCounters, ServiceState};
use crate::protocol::ServiceKind;
use crate::protocol::copy::Destination;
use crate::protocol::ip::IpInfo;
use crate::protocol::kvp::{Pair, Pool};
use crate::service::copy::{self, CopyProgress};
use crate::service::heartbeat::{Health, Heartbeat};
use crate::service::kvp::{self, Prepared};
use crate::service::shutdown::{self, ShutdownRequest};
use crate::service::time::{HostClock, TimeSync};
use crate::service::vss::Vss;

/// The time that a request waits for a guest that has not agreed on versions yet, or that is busy
/// with an earlier request.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// The options of [`Services::new`].
#[derive(Debug)]
pub struct ServicesOptions {
    /// The host's clocks, for the guest's time.
    pub host_clock: Arc<dyn HostClock>,
    /// The clock of timeouts and intervals.
    pub clock: Clock,
    /// The thread of the channels.
    pub workers: WorkerOptions,
}

/// The services of a machine. Clones are handles to the same services. No call waits: results
/// arrive in a function, on the services' thread or, if the guest cannot be asked, on the caller's.
#[derive(Clone, Debug)]
pub struct Services {
    ports: Arc<[Arc<Port>]>,
    heartbeat: Arc<Heartbeat>,
    time: Arc<TimeSync>,
    vss: Arc<Vss>,
    /// The last copy.
    copy: Arc<Mutex<Option<CopyProgress>>>,
}

/// The report about a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceReport {
    /// The service.
    pub kind: ServiceKind,
    /// The state of its channel.
    pub state: ServiceState,
    /// Its counters.
    pub counters: ServiceCounters,
}

impl Services {
    /// Returns the services `kinds`, and their devices for the bus.
    ///
    /// # Errors
    /// The system is out of file descriptors.
    pub fn new(
        kinds: &[ServiceKind],
        options: &ServicesOptions,
    ) -> io::Result<(Self, Vec<ServiceDevice>)> {
        let clock = &options.clock;
        let heartbeat = Heartbeat::new(clock.clone());
        let time = TimeSync::new(Arc::clone(&options.host_clock));
        let vss = Vss::new(clock.clone());
        let mut ports = Vec::new();
        for kind in ServiceKind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
            let background: Arc<dyn Background> = match kind {
                ServiceKind::Heartbeat => Arc::clone(&heartbeat) as _,
                ServiceKind::TimeSync => Arc::clone(&time) as _,
                ServiceKind::Vss => Arc::clone(&vss) as _,
                ServiceKind::Shutdown | ServiceKind::Kvp | ServiceKind::Copy => {
                    Arc::new(NoBackground)
                }
            };
            ports.push(Arc::new(Port::new(kind, clock.clone(), background)?));
        }
        let device =
            |port: &Arc<Port>| ServiceDevice::new(Arc::clone(port), options.workers.clone());
        let devices = ports.iter().map(device).collect();
        let copy = Arc::default();
        Ok((Self { ports: ports.into(), heartbeat, time, vss, copy }, devices))
    }

    /// Asks the guest to power off, restart or hibernate. The result comes before the guest acts.
    pub fn shutdown(&self, request: ShutdownRequest, done: Done<()>) {
        self.submit(ServiceKind::Shutdown, done, |done| shutdown::operation(request, done));
    }

    /// Sets the guest's clock.
    pub fn sync_time(&self, done: Done<()>) {
        self.submit(ServiceKind::TimeSync, done, |done| self.time.set(done));
    }

    /// Sets the guest's clock because the host's clock was set, or the host was suspended. Has no
    /// effect on a guest without the service.
    pub fn host_clock_changed(&self) {
        if let Some(port) = self.port(ServiceKind::TimeSync) {
            self.time.request_set(port.clock.now());
            port.wake();
        }
    }

    /// Gets the value of a key. `None`: the key does not exist.
    pub fn get_value(&self, pool: Pool, key: &str, done: Done<Option<String>>) {
        // Linux answers GET with an empty value.
        let key = key.to_owned();
        let find = move |pairs: Vec<Pair>| pairs.into_iter().find(|pair| pair.key == key);
        let done = move |pairs: Result<_, _>| done(pairs.map(find).map(|it| Some(it?.value)));
        self.list_values(pool, Box::new(done));
    }

    /// Sets the value of a key: at most 255 UTF-16 code units for the key, and 1,023 for the value.
    pub fn set_value(&self, pool: Pool, key: &str, value: &str, done: Done<()>) {
        self.submit_prepared(kvp::set(pool, key, value, done));
    }

    /// Deletes a key.
    pub fn delete_value(&self, pool: Pool, key: &str, done: Done<()>) {
        self.submit_prepared(kvp::delete(pool, key, done));
    }

    /// Lists the pairs of a pool, at most 1,024.
    pub fn list_values(&self, pool: Pool, done: Done<Vec<Pair>>) {
        self.submit(ServiceKind::Kvp, done, |done| kvp::List::boxed(pool, done));
    }

    /// Reads the configuration of a network adapter. `adapter`: for Linux, its MAC address in
    /// capitals, with colons.
    pub fn get_ip(&self, adapter: &str, done: Done<IpInfo>) {
        self.submit_prepared(kvp::get_ip(adapter, done));
    }

    /// Sets the configuration of a network adapter. `adapter`: the GUID of its instance in braces.
    pub fn set_ip(&self, adapter: &str, info: &IpInfo, done: Done<()>) {
        self.submit_prepared(kvp::set_ip(adapter, info, done));
    }

    /// Freezes the guest's file systems. They are thawed by [`Services::thaw`], at the latest after
    /// `time` (at most [`MAX_FROZEN`](crate::MAX_FROZEN)), and when the hold of the result is
    /// dropped, unless [`FreezeHold::keep`] was called.
    pub fn freeze(&self, time: Duration, done: Done<FreezeHold>) {
        let Some(port) = self.port(ServiceKind::Vss).cloned() else {
            return done(Err(ServiceError::NotOffered(ServiceKind::Vss)));
        };
        let vss = Arc::clone(&self.vss);
        let hold = move |freeze| FreezeHold { vss, port, freeze: Some(freeze) };
        let done = Box::new(move |result: Result<u64, _>| done(result.map(hold)));
        if let (Some(operation), Some(port)) =
            (self.vss.freeze(time, done), self.port(ServiceKind::Vss))
        {
            port.submit(operation, READY_TIMEOUT);
        }
    }

    /// Thaws the guest's file systems. Has no effect on a guest that is not frozen.
    pub fn thaw(&self, done: Done<()>) {
        match self.port(ServiceKind::Vss) {
            Some(port) => {
                if let Some(operation) = self.vss.thaw(done) {
                    port.submit(operation, READY_TIMEOUT);
                }
            }
            None => done(Err(ServiceError::NotOffered(ServiceKind::Vss))),
        }
    }

    /// Returns whether the guest's file systems are frozen, or may be.
    pub fn is_frozen(&self) -> bool {
        self.vss.is_frozen()
    }

    /// Copies the file at `path` to the guest. The result comes when the guest has accepted the
    /// copy; the copy goes on, and is cancelled when the hold is dropped.
    pub fn copy(&self, path: PathBuf, destination: Destination, done: Done<CopyHold>) {
        let Some(port) = self.port(ServiceKind::Copy).cloned() else {
            return done(Err(ServiceError::NotOffered(ServiceKind::Copy)));
        };
        let (last, woken) = (Arc::clone(&self.copy), Arc::clone(&port));
        let begun = move |result: Result<CopyProgress, _>| {
            done(result.map(|progress| {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
                CopyHold { progress, port: woken }
            }));
        };
        copy::start(port, path, destination, READY_TIMEOUT, Box::new(begun));
    }

    /// Returns the progress of the last copy; `None` if there was none.
    pub fn copy_progress(&self) -> Option<CopyProgress> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether the guest is alive.
    pub fn health(&self) -> Health {
        self.heartbeat.health()
    }

    /// Returns a report about each service.
    pub fn reports(&self) -> Vec<ServiceReport> {
        let report = |port: &Arc<Port>| ServiceReport {
            kind: port.kind,
            state: port.state(),
            counters: port.counters(),
        };
        self.ports.iter().map(report).collect()
    }

    /// Returns the state of a service; `None` if the machine does not offer it.
    pub fn state(&self, kind: ServiceKind) -> Option<ServiceState> {
        Some(self.port(kind)?.state())
    }

    fn port(&self, kind: ServiceKind) -> Option<&Arc<Port>> {
        self.ports.iter().find(|port| port.kind == kind)
    }

    fn submit_prepared<T>(&self, prepared: Prepared<T>) {
        match (prepared, self.port(ServiceKind::Kvp)) {
            (Ok(operation), Some(port)) => port.submit(operation, READY_TIMEOUT),
            (Ok(operation), None) => operation.fail(ServiceError::NotOffered(ServiceKind::Kvp)),
            (Err((done, error)), _) => done(Err(error)),
        }
    }

    fn submit<T>(
        &self,
        kind: ServiceKind,
        done: Done<T>,
        operation: impl FnOnce(Done<T>) -> Box<dyn Operation>,
    ) {
        match self.port(kind) {
            Some(port) => port.submit(operation(done), READY_TIMEOUT),
            None => done(Err(ServiceError::NotOffered(kind))),
        }
    }
}

/// A frozen guest. Its file systems are thawed when this is dropped.
#[derive(Debug)]
pub struct FreezeHold {
    vss: Arc<Vss>,
    port: Arc<Port>,
    freeze: Option<u64>,
}

impl FreezeHold {
    /// Leaves the guest frozen until its time is over, or until [`Services::thaw`].
    pub fn keep(mut self) {
        self.freeze = None;
    }
}

impl Drop for FreezeHold {
    fn drop(&mut self) {
        if let Some(freeze) = self.freeze {
            self.vss.release(freeze);
            self.port.wake();
        }
    }
}

/// A copy to the guest. It is cancelled when this is dropped before its end.
#[derive(Debug)]
pub struct CopyHold {
    progress: CopyProgress,
    port: Arc<Port>,
}

impl CopyHold {
    /// Returns the progress.
    pub fn progress(&self) -> &CopyProgress {
        &self.progress
    }
}

impl Drop for CopyHold {
    fn drop(&mut self) {
        self.progress.cancel();
        self.port.wake();
    }
}
