//! Key-value pairs and IP addresses.

use std::time::Duration;

use crate::error::ServiceError;
use crate::operation::{Completion, Done, Operation, Single, Step, succeeded};
use crate::protocol::ip::{self, IpInfo};
use crate::protocol::kvp::{self, Pair, Pool};
use crate::protocol::{Agreed, Response, ServiceKind, Status, TextError};

/// The time that the guest has to answer. Linux waits 30 s for its daemon, and then answers that it
/// failed.
const TIMEOUT: Duration = Duration::from_secs(35);

/// Maximum number of pairs of a list: 2.5 MiB of fields.
const MAX_PAIRS: u32 = 1024;

const KIND: ServiceKind = ServiceKind::Kvp;

/// Returns the operation that sets a value.
pub(crate) fn set(pool: Pool, key: &str, value: &str, done: Done<()>) -> Prepared<()> {
    single(kvp::set(pool, key, value), succeeded, done)
}

/// Returns the operation that deletes a key.
pub(crate) fn delete(pool: Pool, key: &str, done: Done<()>) -> Prepared<()> {
    single(kvp::delete(pool, key), succeeded, done)
}

/// Returns the operation that reads an adapter's configuration.
pub(crate) fn get_ip(adapter: &str, done: Done<IpInfo>) -> Prepared<IpInfo> {
    let read = |response: &Response| {
        succeeded(response)?;
        ip::read(&response.body).ok_or(ServiceError::Invalid(KIND))
    };
    single(ip::get(adapter), read, done)
}

/// Returns the operation that sets an adapter's configuration.
pub(crate) fn set_ip(adapter: &str, info: &IpInfo, done: Done<()>) -> Prepared<()> {
    single(ip::set(adapter, info), succeeded, done)
}

/// An operation; or the error of an invalid argument, and the function that gets it.
pub(crate) type Prepared<T> = Result<Box<dyn Operation>, (Done<T>, ServiceError)>;

fn single<T: Send + 'static>(
    body: Result<Vec<u8>, TextError>,
    read: impl FnMut(&Response) -> Result<T, ServiceError> + Send + 'static,
    done: Done<T>,
) -> Prepared<T> {
    match body {
        Ok(body) => Ok(Single::boxed(KIND, TIMEOUT, move |_| Ok(body), read, done)),
        Err(error) => {
            let message = format!("a key, a value or an address cannot be sent: {error}");
            Err((done, ServiceError::Argument(message)))
        }
    }
}

/// The operation that lists a pool.
pub(crate) struct List {
    pool: Pool,
    index: u32,
    pairs: Vec<Pair>,
    completion: Completion<Vec<Pair>>,
}

impl List {
    pub(crate) fn boxed(pool: Pool, done: Done<Vec<Pair>>) -> Box<dyn Operation> {
        let completion = Completion::new(KIND, done);
        Box::new(Self { pool, index: 0, pairs: Vec::new(), completion })
    }
}

impl Operation for List {
    fn next(&mut self, last: Option<Response>, _agreed: Agreed) -> Step {
        if let Some(response) = last {
            match response.status {
                // An item of another form is left out.
                Status::OK => self.pairs.extend(kvp::pair(&response.body)),
                Status::NO_MORE_ITEMS => {
                    self.completion.call(Ok(std::mem::take(&mut self.pairs)));
                    return Step::Done;
                }
                status => {
                    self.completion.call(Err(ServiceError::Refused(status)));
                    return Step::Done;
                }
            }
            self.index += 1;
            if self.index >= MAX_PAIRS {
                self.completion.call(Ok(std::mem::take(&mut self.pairs)));
                return Step::Done;
            }
        }
        Step::Send { body: kvp::enumerate(self.pool, self.index), timeout: TIMEOUT }
    }

    fn fail(mut self: Box<Self>, error: ServiceError) {
        self.completion.call(Err(error));
    }
}
