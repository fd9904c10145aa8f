//! A storage channel: the handler that joins protocol, target and backends on the runtime of
//! [`vmbus_device`].
//!
//! | module | knowledge |
//! |---|---|
//! | `handler` | packet in, completion out |
//! | `execute` | SCSI commands: a decision becomes a completion or a request |
//! | `outcome` | completions of commands that need no I/O |
//! | `lun_queue` | the queues to the backends of the logical units |
//! | `in_flight` | requests in flight, and their memory |
//! | `compound` | commands that take more than one request |
//! | `queries` | queries to a backend that may block |
//! | `resets` | resets, which wait for the requests before them |

mod compound;
mod execute;
mod handler;
mod in_flight;
mod limits;
mod lun_queue;
mod outcome;
mod queries;
mod resets;

pub(crate) use handler::StorageHandler;
