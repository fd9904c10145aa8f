//! One thread per open channel: ring in, SCSI, data, completion, signal.
//!
//! The worker sleeps on the channel's doorbell, its controller's kick and its queues' events. Awake, it masks the ring, takes a batch of
//! packets, hands the I/O to the queues batch by batch, and writes all completions with one decision whether to signal. Before it sleeps it
//! looks on for a moment, if that has paid lately. It blocks on
//! nothing else, and what it waits for never keeps it from noticing that the channel closes.

mod engine;
mod inline;
mod jobs;
mod limits;
mod outbox;
mod pacer;
mod poller;
mod ports;
mod queries;
mod resets;
mod run;
mod slots;
mod wake;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use tracing::{debug, error};
use vmbus_host::Channel;

use crate::controller::{Controller, Parked};
use crate::protocol::Session;
use run::Worker;

pub use inline::InlineWorkers;
pub(crate) use limits::{MAX_PAUSE, MAX_POLL};

/// Stack of a worker: it recurses nowhere and keeps its buffers on the heap.
const STACK: usize = 256 << 10;

/// Hands `channel` to a worker, which ends with the channel: a thread of its own, or whoever runs the controller's workers inline.
/// `restored`: what another worker had when its machine was saved.
pub(crate) fn start(
    controller: Arc<Controller>,
    session: Session,
    channel: Channel,
    restored: Option<Parked>,
) -> io::Result<()> {
    let inline = controller.inline().cloned();
    // 15 bytes is all that Linux shows.
    let name = format!("scsi{}-ch{}", controller.number() % 10_000, channel.subchannel());
    let worker = Worker::new(controller, session, channel, restored)?;
    match inline {
        Some(inline) => inline.add(worker),
        None => {
            thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
                wake::sleep_exactly();
                contain(worker);
            })?;
        }
    }
    Ok(())
}

/// Runs a worker so that nothing of it reaches beyond its channel.
fn contain(mut worker: Worker) {
    let (relid, subchannel) = (worker.relid(), worker.subchannel());
    match catch_unwind(AssertUnwindSafe(|| worker.run())) {
        Ok(Ok(())) => debug!(relid, subchannel, "storage channel closed"),
        Ok(Err(fault)) => worker.report(&fault),
        Err(panic) => {
            let cause = describe(&*panic);
            worker.faults().log(|left_out| {
                error!(relid, subchannel, cause, left_out, "storage worker failed: channel lost");
            });
        }
    }
    // Dropping the worker waits for its queues, then gives the channel back to the bus.
}

fn describe(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
