//! A device with state: it keeps requests, numbers packets, holds a mapping, and can resume after a
//! restore.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use vmbus_gpadl::GpadlView;
use vmbus_host::{Channel, Device, Offer, OpenError, ReadWrite};
use vmbus_loopback::{Flow, LoopbackVm, Workers};
use vmbus_ring::{OutPacket, SpaceWait, WriteError};

use super::take_packets;

/// The kinds of a guest's requests, in the first word of a packet; the second word is the argument.
pub const KEEP: u32 = 0;
pub const ANSWER_ALL: u32 = 1;
pub const FLOOD: u32 = 2;
pub const MAP: u32 = 3;
pub const WRITE: u32 = 4;

pub fn wish(what: u32, argument: u32) -> [u8; 8] {
    let [a, b] = [what.to_le_bytes(), argument.to_le_bytes()];
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// The state from which the device resumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// Transaction ids of the waiting requests.
    pub requests: Vec<u64>,
    /// Packets for the guest that are not in the ring yet: the number, and whether it completes the
    /// request with that id.
    pub queue: VecDeque<(u64, bool)>,
    pub mapped: Option<u32>,
}

#[derive(Clone)]
pub struct Teller {
    offer: Offer,
    workers: Workers,
    can_go_on: bool,
    pub books: Arc<Mutex<Books>>,
}

impl Teller {
    pub fn new(vm: &LoopbackVm, offer: Offer) -> Self {
        Self { offer, workers: vm.workers().clone(), can_go_on: true, books: Arc::default() }
    }

    /// Returns a device that does not resume after a restore.
    pub fn forgetful(vm: &LoopbackVm, offer: Offer) -> Self {
        Self { can_go_on: false, ..Self::new(vm, offer) }
    }

    fn serve(&self, channel: Channel, mut view: Option<GpadlView>) {
        let books = Arc::clone(&self.books);
        self.workers.run(
            channel,
            Box::new(move |channel| {
                let mut books = books.lock().unwrap();
                if view.as_ref().is_some_and(GpadlView::is_tearing_down) {
                    (view, books.mapped) = (None, None);
                }
                if channel.is_closing() || look(channel, &mut books, &mut view).is_none() {
                    *books = Books::default();
                    view = None;
                    return Flow::Stop;
                }
                flush(channel, &mut books.queue);
                Flow::Wait
            }),
        );
    }
}

impl Device for Teller {
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        *self.books.lock().unwrap() = Books::default();
        self.serve(channel, None);
        Ok(())
    }

    fn save(&mut self, _: u16) -> Option<Vec<u8>> {
        self.can_go_on.then(|| serde_json::to_vec(&*self.books.lock().unwrap()).unwrap())
    }

    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        let bad = |error: &dyn std::fmt::Display| OpenError(error.to_string());
        let books: Books = serde_json::from_slice(state).map_err(|error| bad(&error))?;
        let view = match books.mapped {
            Some(id) => Some(channel.map_gpadl(id, ReadWrite).map_err(|error| bad(&error))?),
            None => None,
        };
        *self.books.lock().unwrap() = books;
        self.serve(channel, view);
        Ok(())
    }
}

fn look(channel: &mut Channel, books: &mut Books, view: &mut Option<GpadlView>) -> Option<()> {
    for packet in take_packets(channel).ok()? {
        let word = |at: usize| {
            packet
                .payload
                .get(at..at + 4)
                .map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
        };
        if packet.completion_requested {
            books.requests.push(packet.transaction_id);
        }
        match word(0) {
            ANSWER_ALL => {
                let requests = std::mem::take(&mut books.requests);
                books.queue.extend(requests.into_iter().map(|id| (id, true)));
            }
            FLOOD => books.queue.extend((0..u64::from(word(4))).map(|number| (number, false))),
            MAP => {
                *view = Some(channel.map_gpadl(word(4), ReadWrite).ok()?);
                books.mapped = Some(word(4));
            }
            WRITE => view.as_ref()?.write(0, &word(4).to_le_bytes()).ok()?,
            _ => {}
        }
    }
    Some(())
}

fn flush(channel: &mut Channel, queue: &mut VecDeque<(u64, bool)>) {
    channel.outgoing.space_came();
    while let Some(&(number, completes)) = queue.front() {
        let payload = number.to_le_bytes();
        let payload: &[&[u8]] = &[&payload];
        let packet = match completes {
            true => OutPacket::completion(number, payload),
            false => OutPacket::in_band(number, payload),
        };
        let Ok(mut batch) = channel.outgoing.batch() else { return };
        match batch.write(&packet) {
            Ok(()) => {
                let signal = batch.commit();
                channel.signal_if(signal);
                queue.pop_front();
            }
            Err(WriteError::Full { needed }) => match channel.outgoing.wait_for_space(needed) {
                Ok(SpaceWait::Ready) => {}
                Ok(SpaceWait::Signalled | SpaceWait::Poll) | Err(_) => return,
            },
            Err(_) => return,
        }
    }
}
