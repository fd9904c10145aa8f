//! An open connection: moves bytes between the channel's rings and the Unix socket.
//!
//! The kernel copies the bytes directly between the socket and guest memory: there is no buffer in
//! between, and the space in the ring and in the socket is all flow control that there is.

mod load;
mod to_guest;
mod to_host;

use std::os::unix::net::UnixStream;

use thiserror::Error;
use vmbus_host::{Channel, ChannelTrace};
use vmbus_ring::{Incoming, Outgoing, PacketKind, RingError, WriteError};

use crate::limits::{CLOSING_ROUNDS, TURN_ROUNDS};
use crate::protocol::{BadFrame, MAX_PACKET};
use crate::unix::Pieces;

use load::Moved;
use to_guest::ToGuest;
use to_host::{Mark, ToHost};

pub(crate) use load::Load;

pub use crate::counters::Counters;

/// A channel's rings, and its means to signal the guest.
pub trait Rings {
    /// Returns the ring from the guest.
    fn incoming(&mut self) -> &mut Incoming;

    /// Returns the ring to the guest.
    fn outgoing(&mut self) -> &mut Outgoing;

    /// Signals the guest if it must be.
    fn signal_if(&self, needed: bool);

    /// Returns true if the guest has closed the channel.
    fn is_closing(&self) -> bool;

    /// Returns the channel's trace, if there is one.
    fn trace(&self) -> Option<ChannelTrace>;
}

/// Rings without a bus, and without a guest to signal: for measurements and fuzzing.
#[derive(Debug)]
pub struct BareRings {
    /// The ring from the guest.
    pub incoming: Incoming,
    /// The ring to the guest.
    pub outgoing: Outgoing,
    /// The guest has closed the channel.
    pub is_closing: bool,
}

impl Rings for BareRings {
    fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }

    fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    fn signal_if(&self, _: bool) {}

    fn is_closing(&self) -> bool {
        self.is_closing
    }

    fn trace(&self) -> Option<ChannelTrace> {
        None
    }
}

impl Rings for Channel {
    fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }

    fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    fn signal_if(&self, needed: bool) {
        Channel::signal_if(self, needed);
    }

    fn is_closing(&self) -> bool {
        Channel::is_closing(self)
    }

    fn trace(&self) -> Option<ChannelTrace> {
        Channel::trace(self)
    }
}

/// A connection with open rings.
#[derive(Debug)]
pub struct Pump<R> {
    socket: UnixStream,
    to_host: ToHost,
    to_guest: ToGuest,
    moved: Moved,
    /// The host program has closed its end, in both directions.
    peer_gone: bool,
    /// Dropped last: the guest gets its memory back then.
    rings: R,
}

/// Memory of the loop that all its connections use, one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    pieces: Pieces,
    marks: Vec<Mark>,
    frames: Vec<u32>,
}

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// All work is done.
    Idle,
    /// There is more work.
    More,
    /// All work is done, and the host program is gone. The guest knows, and should end the
    /// connection: drop it if that takes too long.
    Lingering,
    /// The connection has ended: drop it.
    Ended,
}

/// The reason why a connection is reset: the guest broke it.
#[derive(Debug, Error)]
pub enum Fault {
    /// The ring from the guest is corrupt.
    #[error(transparent)]
    Read(#[from] RingError),
    /// The ring to the guest is corrupt.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A packet is not a frame.
    #[error(transparent)]
    Frame(#[from] BadFrame),
    /// A packet is not in-band.
    #[error("a packet of kind {0:?}")]
    Kind(PacketKind),
    /// The guest has sent data after its FIN.
    #[error("data after the end of the data")]
    AfterEnd,
    /// The guest has changed a frame that was read in part.
    #[error("a frame has changed while it was read")]
    Changed,
}

impl<R: Rings> Pump<R> {
    /// Returns the connection of open rings and a non-blocking socket.
    pub fn new(mut rings: R, socket: UnixStream) -> Self {
        rings.outgoing().limit_packets(MAX_PACKET);
        Self {
            socket,
            to_host: ToHost::default(),
            to_guest: ToGuest::default(),
            moved: Moved::default(),
            peer_gone: false,
            rings,
        }
    }

    /// Returns the rings.
    pub fn rings(&mut self) -> &mut R {
        &mut self.rings
    }

    /// Returns the socket.
    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Takes the events that epoll reports for the socket. Returns false if the connection knew
    /// them already.
    pub fn socket_events(&mut self, events: u32) -> bool {
        let known = self.known_events();
        let has = |event: libc::c_int| events & event as u32 != 0;
        let gone = has(libc::EPOLLHUP) || has(libc::EPOLLERR);
        self.peer_gone |= gone;
        self.to_guest.ends |= gone || has(libc::EPOLLRDHUP);
        self.to_guest.is_readable |= self.to_guest.ends || has(libc::EPOLLIN);
        self.to_host.is_writable |= gone || has(libc::EPOLLOUT);
        self.known_events() != known
    }

    fn known_events(&self) -> [bool; 4] {
        let ToGuest { is_readable, ends, .. } = self.to_guest;
        [self.peer_gone, ends, is_readable, self.to_host.is_writable]
    }

    /// Returns true if the socket was full, so that the event of free space is needed.
    pub(crate) fn is_socket_full(&self) -> bool {
        !self.to_host.takes()
    }

    /// Returns the load that the last turn was. `None`: it moved no byte.
    pub(crate) fn take_load(&mut self) -> Option<Load> {
        self.moved.take_load()
    }

    /// Returns true if the guest does not signal free space, so that the loop must look for it.
    pub fn must_poll(&self) -> bool {
        self.to_guest.must_poll
    }

    /// Moves bytes for a bounded time, without blocking.
    ///
    /// # Errors
    /// [`Fault`]: the guest broke the connection.
    pub fn turn(&mut self, scratch: &mut Scratch, counters: &Counters) -> Result<Turn, Fault> {
        if self.rings.is_closing() {
            // The guest's last bytes, as many as the socket takes now. The event that it takes
            // bytes may not have come yet.
            self.to_host.is_writable = true;
            for _ in 0..CLOSING_ROUNDS {
                if !self.move_to_host(scratch, counters)? {
                    break;
                }
            }
            return Ok(Turn::Ended);
        }
        self.rings.incoming().mask();
        for _ in 0..TURN_ROUNDS {
            let to_host = self.move_to_host(scratch, counters)?;
            let to_guest = self.move_to_guest(scratch, counters)?;
            if self.has_ended() {
                return Ok(Turn::Ended);
            }
            if !to_host && !to_guest {
                // If the socket takes nothing, the ring stays masked: doorbells would wake the
                // loop in vain.
                let has_more = self.to_host.takes() && self.rings.incoming().unmask()?;
                return Ok(match has_more {
                    true => Turn::More,
                    false if self.is_lingering() => Turn::Lingering,
                    false => Turn::Idle,
                });
            }
        }
        Ok(Turn::More)
    }

    /// Returns true if both ends know that no byte can move any more. The guest waits for the
    /// rescind that follows.
    fn has_ended(&self) -> bool {
        self.to_guest.is_finished() && self.to_host.is_ended()
    }

    /// Returns true if no byte can move any more, and the guest has not ended its direction.
    ///
    /// If the offer were rescinded now, a write of Linux that is just returning would fail: after
    /// the signal, `vmbus_sendpacket` checks for a rescind. The program would get ENOMEM for bytes
    /// that have arrived and that the host program has answered.
    fn is_lingering(&self) -> bool {
        self.to_guest.is_finished() && (self.peer_gone || self.to_host.is_finished())
    }
}
