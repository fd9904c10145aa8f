//! The requests of the control socket to the services.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synthvm_services::protocol::ServiceKind;
use synthvm_services::protocol::copy::Destination;
use synthvm_services::protocol::ip::IpInfo;
use synthvm_services::protocol::kvp::Pool;
use synthvm_services::protocol::shutdown::ShutdownMode;
use synthvm_services::{
    CopyHold, Done, FreezeHold, MAX_FROZEN, ServiceError, Services, ShutdownRequest,
};

use super::adapter::AdapterKey;
use super::{CopyReport, GuestServices, GuestStatus};
use crate::control::{Hold, Responder};

/// A request to the guest's integration services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ServiceRequest {
    /// Ask the guest to end. The answer, null, comes before it does.
    Shutdown {
        /// What the guest is asked for.
        #[serde(default)]
        mode: ShutdownMode,
        /// Whether the guest must not wait for programs that refuse to end.
        #[serde(default)]
        force: bool,
        /// The reason, which the guest may show and log.
        #[serde(default)]
        reason: String,
    },
    /// Set the guest's clock. Returns null.
    TimeSync {},
    /// Return a [`GuestStatus`].
    Status {},
    /// Return the value of a key, or null if the guest has no such key.
    KvpGet {
        /// The pool.
        pool: Pool,
        /// The key.
        key: String,
    },
    /// Set the value of a key. Returns null.
    KvpSet {
        /// The pool.
        pool: Pool,
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Delete a key. Returns null.
    KvpDelete {
        /// The pool.
        pool: Pool,
        /// The key.
        key: String,
    },
    /// Return the pairs of a pool as a list of `{"key","value"}`.
    KvpList {
        /// The pool.
        pool: Pool,
    },
    /// Return the configuration of a network card as an [`IpInfo`].
    IpGet {
        /// The card's id; not needed if the machine has one card.
        #[serde(default)]
        card: Option<String>,
    },
    /// Set the configuration of a network card. Returns null.
    IpSet {
        /// The card's id; not needed if the machine has one card.
        #[serde(default)]
        card: Option<String>,
        /// The configuration.
        ip: IpInfo,
    },
    /// Freeze the guest's file systems. The answer, null, comes when they are frozen.
    Freeze {
        /// Seconds after which the guest is thawed in any case: 1 to 900.
        seconds: u32,
        /// Whether the guest is thawed when this client disconnects.
        #[serde(default)]
        hold: bool,
    },
    /// Thaw the guest's file systems. Returns null.
    Thaw {},
    /// Copy a file to the guest, until this client disconnects. The answer, a [`CopyReport`], comes
    /// when the guest has accepted the copy.
    CopyTo {
        /// The file; absolute.
        path: PathBuf,
        /// The folder in the guest, with a separator at its end.
        folder: String,
        /// The name in the folder.
        name: String,
        /// Whether to replace a file that exists.
        #[serde(default)]
        overwrite: bool,
        /// Whether to make missing folders.
        #[serde(default)]
        create_path: bool,
    },
    /// Return a [`CopyReport`] about the last copy, or null if there was none.
    CopyProgress {},
}

impl ServiceRequest {
    /// Returns the service that answers; `None` if any do.
    fn kind(&self) -> Option<ServiceKind> {
        match self {
            Self::Shutdown { .. } => Some(ServiceKind::Shutdown),
            Self::TimeSync {} => Some(ServiceKind::TimeSync),
            Self::KvpGet { .. }
            | Self::KvpSet { .. }
            | Self::KvpDelete { .. }
            | Self::KvpList { .. }
            | Self::IpGet { .. }
            | Self::IpSet { .. } => Some(ServiceKind::Kvp),
            Self::Freeze { .. } | Self::Thaw {} => Some(ServiceKind::Vss),
            Self::CopyTo { .. } | Self::CopyProgress {} => Some(ServiceKind::Copy),
            Self::Status {} => None,
        }
    }
}

impl GuestServices {
    /// Performs a request. Does not wait: `responder` answers later.
    pub fn perform(&self, request: ServiceRequest, responder: Responder) {
        let Some(services) = &self.services else {
            let result = match request.kind() {
                Some(kind) => Err(ServiceError::NotOffered(kind)),
                None => Ok(GuestStatus::default()),
            };
            return responder.answer(result);
        };
        match request {
            ServiceRequest::Shutdown { mode, force, reason } => {
                let request = ShutdownRequest { mode, force, reason, seconds: 0 };
                services.shutdown(request, answer(responder));
            }
            ServiceRequest::TimeSync {} => services.sync_time(answer(responder)),
            ServiceRequest::Status {} => status(services, responder),
            ServiceRequest::KvpGet { pool, key } => {
                services.get_value(pool, &key, answer(responder));
            }
            ServiceRequest::KvpSet { pool, key, value } => {
                services.set_value(pool, &key, &value, answer(responder));
            }
            ServiceRequest::KvpDelete { pool, key } => {
                services.delete_value(pool, &key, answer(responder));
            }
            ServiceRequest::KvpList { pool } => services.list_values(pool, answer(responder)),
            ServiceRequest::IpGet { card } => {
                match self.adapters.id(card.as_deref(), AdapterKey::Address) {
                    Ok(adapter) => services.get_ip(&adapter, answer(responder)),
                    Err(error) => refuse(responder, error),
                }
            }
            ServiceRequest::IpSet { card, ip } => {
                match self.adapters.id(card.as_deref(), AdapterKey::Instance) {
                    Ok(adapter) => services.set_ip(&adapter, &ip, answer(responder)),
                    Err(error) => refuse(responder, error),
                }
            }
            ServiceRequest::Freeze { seconds, hold } => {
                freeze(services, seconds, hold, responder);
            }
            ServiceRequest::Thaw {} => services.thaw(answer(responder)),
            ServiceRequest::CopyTo { path, folder, name, overwrite, create_path } => {
                let destination = Destination { folder, name, overwrite, create_path };
                copy(services, path, destination, responder);
            }
            ServiceRequest::CopyProgress {} => {
                let report = services.copy_progress().map(|progress| CopyReport::new(&progress));
                responder.answer(Ok(report));
            }
        }
    }
}

/// Answers with the status, and with the guest's own facts if its driver reports them.
fn status(services: &Services, responder: Responder) {
    let status = GuestStatus::new(services);
    if !status.has_facts() {
        return responder.answer(Ok(status));
    }
    let done = move |pairs: Result<Vec<_>, _>| {
        // Without them the rest is still of use.
        let status = GuestStatus { facts: pairs.unwrap_or_default(), ..status };
        responder.answer(Ok(status));
    };
    services.list_values(Pool::Auto, Box::new(done));
}

fn freeze(services: &Services, seconds: u32, hold: bool, responder: Responder) {
    if !(1..=MAX_FROZEN.as_secs()).contains(&u64::from(seconds)) {
        let message = format!("a guest can be frozen for 1 to {} seconds", MAX_FROZEN.as_secs());
        return refuse(responder, message);
    }
    let done = move |result: Result<FreezeHold, ServiceError>| match result {
        Ok(frozen) if hold => responder.answer_held((), Hold::new(move || drop(frozen))),
        Ok(frozen) => {
            frozen.keep();
            responder.answer(Ok(()));
        }
        Err(error) => responder.answer(Err::<(), _>(error)),
    };
    services.freeze(Duration::from_secs(seconds.into()), Box::new(done));
}

fn copy(services: &Services, path: PathBuf, destination: Destination, responder: Responder) {
    if !path.is_absolute() {
        return refuse(responder, "the path of the file is not absolute".to_owned());
    }
    let done = move |result: Result<CopyHold, ServiceError>| match result {
        Ok(copy) => {
            let report = CopyReport::new(copy.progress());
            responder.answer_held(report, Hold::new(move || drop(copy)));
        }
        Err(error) => responder.answer(Err::<(), _>(error)),
    };
    services.copy(path, destination, Box::new(done));
}

fn refuse(responder: Responder, message: String) {
    responder.answer(Err::<(), _>(ServiceError::Argument(message)));
}

fn answer<T: Serialize + 'static>(responder: Responder) -> Done<T> {
    Box::new(|result| responder.answer(result))
}
