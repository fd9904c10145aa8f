//! Doorbells by connection id: the eventfds behind HvSignalEvent (vmbus-core 2.4).
//!
//! The machine binds an eventfd to a connection id, so that signals do not leave the kernel.
//! Removing a binding makes KVM wait for a grace period, some ten microseconds to milliseconds, so
//! it is a job of its own that runs without any lock. A connection id that is offered again before
//! that keeps its binding: a guest that connects repeatedly causes no unbind.
//!
//! If the machine cannot bind an id, signals on it exit, and [`Doorbells::signal`] signals the same
//! eventfd.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::synic::Synic;

/// All doorbells of a bus.
#[derive(Default)]
pub(super) struct Doorbells {
    by_id: RwLock<BTreeMap<u32, Doorbell>>,
}

struct Doorbell {
    event: Arc<EventFd>,
    kernel: Kernel,
    /// A channel has this connection id.
    live: bool,
    /// An unbind of it is queued.
    queued: bool,
}

/// The state of a doorbell's binding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Bound,
    /// Signals exit.
    Unbound,
    /// A thread is removing the binding.
    Unbinding,
}

/// A live doorbell.
pub(super) struct Bound {
    /// HvSignalEvent writes to it.
    pub(super) event: Arc<EventFd>,
    /// The error of the machine, if it did not bind the doorbell.
    pub(super) refused: Option<io::Error>,
}

impl Doorbells {
    /// Makes `id` live. Signals on it are accepted when this returns.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub(super) fn bind(&self, synic: &dyn Synic, id: u32) -> io::Result<Bound> {
        let mut by_id = self.write();
        let doorbell = match by_id.get_mut(&id) {
            Some(doorbell) => {
                // Old signals belong to the channel that had the id before.
                let _ = doorbell.event.read();
                doorbell.live = true;
                doorbell
            }
            None => by_id.entry(id).or_insert(Doorbell {
                event: Arc::new(EventFd::new(EFD_NONBLOCK)?),
                kernel: Kernel::Unbound,
                live: true,
                queued: false,
            }),
        };
        let refused = doorbell.bind(synic, id).err();
        Ok(Bound { event: Arc::clone(&doorbell.event), refused })
    }

    /// Makes `id` dead: signals on it are refused. Returns whether [`Doorbells::unbind`] must be
    /// called for it.
    pub(super) fn retire(&self, id: u32) -> bool {
        let mut by_id = self.write();
        let Some(doorbell) = by_id.get_mut(&id) else { return false };
        doorbell.live = false;
        !std::mem::replace(&mut doorbell.queued, true)
    }

    /// Removes the binding of `id`, unless it is live again. May wait for the kernel.
    pub(super) fn unbind(&self, synic: &dyn Synic, id: u32) -> io::Result<()> {
        let event = {
            let mut by_id = self.write();
            let Some(doorbell) = by_id.get_mut(&id) else { return Ok(()) };
            doorbell.queued = false;
            match doorbell.kernel {
                _ if doorbell.live => return Ok(()),
                // The thread that removes the binding checks again afterwards.
                Kernel::Unbinding => return Ok(()),
                Kernel::Unbound => {
                    by_id.remove(&id);
                    return Ok(());
                }
                Kernel::Bound => {
                    doorbell.kernel = Kernel::Unbinding;
                    Arc::clone(&doorbell.event)
                }
            }
        };
        synic.unbind_doorbell(id, &event);
        let mut by_id = self.write();
        let Some(doorbell) = by_id.get_mut(&id) else { return Ok(()) };
        doorbell.kernel = Kernel::Unbound;
        if doorbell.live {
            // The id was offered again in the meantime. Signals always reached the same eventfd, by
            // the binding or by exits.
            return doorbell.bind(synic, id);
        }
        by_id.remove(&id);
        Ok(())
    }

    /// Handles an HvSignalEvent that the machine did not handle. Returns false if no channel has
    /// `id`.
    pub(super) fn signal(&self, id: u32) -> bool {
        let by_id = self.read();
        let live = by_id.get(&id).filter(|doorbell| doorbell.live);
        live.inspect(|doorbell| ring(&doorbell.event)).is_some()
    }

    /// Returns whether a channel has `id`.
    pub(super) fn is_live(&self, id: u32) -> bool {
        self.read().get(&id).is_some_and(|doorbell| doorbell.live)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u32, Doorbell>> {
        // A panic leaves the map consistent.
        self.by_id.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u32, Doorbell>> {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doorbell {
    fn bind(&mut self, synic: &dyn Synic, id: u32) -> io::Result<()> {
        if self.kernel == Kernel::Unbound {
            synic.bind_doorbell(id, &self.event)?;
            self.kernel = Kernel::Bound;
        }
        Ok(())
    }
}

/// Makes a doorbell readable.
pub(super) fn ring(doorbell: &EventFd) {
    // A write fails only if the counter is full, and then the event is readable already.
    let _ = doorbell.write(1);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::synic::Signal;

    /// Records calls. An unbind waits if a test asks for it.
    #[derive(Default)]
    struct Machine {
        calls: Mutex<Vec<(&'static str, u32)>>,
        wait: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    }

    impl Machine {
        fn calls(&self) -> Vec<(&'static str, u32)> {
            std::mem::take(&mut self.calls.lock().unwrap())
        }
    }

    impl Synic for Machine {
        fn vp_count(&self) -> u32 {
            1
        }

        fn post_message(&self, _: u32, _: u8, _: &[u8]) {}

        fn discard_messages(&self) {}

        fn signal_event(&self, _: u32, _: u8, _: u16) -> Signal {
            Signal::Raised
        }

        fn bind_doorbell(&self, id: u32, _: &EventFd) -> io::Result<()> {
            self.calls.lock().unwrap().push(("bind", id));
            Ok(())
        }

        fn unbind_doorbell(&self, id: u32, _: &EventFd) {
            let wait = self.wait.lock().unwrap().take();
            if let Some((entered, leave)) = wait {
                entered.send(()).unwrap();
                leave.recv().unwrap();
            }
            self.calls.lock().unwrap().push(("unbind", id));
        }
    }

    #[test]
    fn test_doorbell_offered_again_before_its_unbind_keeps_its_binding() {
        let (doorbells, machine) = (Doorbells::default(), Machine::default());
        let first = doorbells.bind(&machine, 7).unwrap().event;
        for _ in 0..100 {
            assert!(doorbells.signal(7));
            doorbells.retire(7);
            assert!(!doorbells.signal(7) && !doorbells.is_live(7));
            let again = doorbells.bind(&machine, 7).unwrap().event;
            assert!(
                Arc::ptr_eq(&first, &again) && again.read().is_err(),
                "an old signal is not the new channel's"
            );
            doorbells.unbind(&machine, 7).unwrap();
        }
        assert_eq!(machine.calls(), [("bind", 7)]);
        assert!(doorbells.retire(7) && !doorbells.retire(7), "queued once");
        doorbells.unbind(&machine, 7).unwrap();
        doorbells.unbind(&machine, 7).unwrap();
        assert_eq!(machine.calls(), [("unbind", 7)]);
        assert!(doorbells.read().is_empty());
    }

    #[test]
    fn test_doorbell_offered_again_during_its_unbind_loses_no_signal_and_is_bound_again() {
        let (doorbells, machine) = (Doorbells::default(), Machine::default());
        let (entered, has_entered) = channel();
        let (may_leave, leave) = channel();
        *machine.wait.lock().unwrap() = Some((entered, leave));
        let old = doorbells.bind(&machine, 7).unwrap().event;
        doorbells.retire(7);
        std::thread::scope(|scope| {
            let unbinding = scope.spawn(|| doorbells.unbind(&machine, 7));
            has_entered.recv().unwrap();
            // Neither of these waits for the kernel.
            let new = doorbells.bind(&machine, 7).unwrap().event;
            ring(&old);
            assert!(
                new.read().is_ok(),
                "the kernel's old binding rings the new channel's doorbell"
            );
            assert!(doorbells.signal(7) && new.read().is_ok(), "and so does a signal that exits");
            doorbells.unbind(&machine, 7).unwrap();
            may_leave.send(()).unwrap();
            unbinding.join().unwrap().unwrap();
        });
        assert_eq!(machine.calls(), [("bind", 7), ("unbind", 7), ("bind", 7)]);
    }
}
