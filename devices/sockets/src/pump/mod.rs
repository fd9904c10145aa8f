//! An open connection: moves bytes between the channel's rings and the Unix socket.
//!
//! The kernel copies the bytes directly between the socket and guest memory: there is no buffer in
//! between, and the space in the ring and in the socket is all flow control that there is.

mod to_guest;
mod to_host;

use std::os::unix::net::UnixStream;

use thiserror::Error;
use vmbus_host::Channel;
use vmbus_ring::{PacketKind, RingError, WriteError};

use crate::counters::Counters;
use crate::limits::{CLOSING_ROUNDS, TURN_ROUNDS};
use crate::protocol::{BadFrame, MAX_PACKET};
use crate::unix::Pieces;

use to_guest::ToGuest;
use to_host::{Mark, ToHost};

/// A connection with an open channel.
pub(crate) struct Pump {
    socket: UnixStream,
    to_host: ToHost,
    to_guest: ToGuest,
    /// The host program has closed its end, in both directions.
    peer_gone: bool,
    /// Dropped last: the guest gets its memory back then.
    channel: Channel,
}

/// Memory of the loop that all its connections use, one after the other.
#[derive(Default)]
pub(crate) struct Scratch {
    pieces: Pieces,
    marks: Vec<Mark>,
    frames: Vec<u32>,
}

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// All work is done.
    Idle,
    /// There is more work.
    More,
    /// The connection has ended: drop it.
    Ended,
}

/// The reason why a connection is reset: the guest broke it.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Read(#[from] RingError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Frame(#[from] BadFrame),
    #[error("a packet of kind {0:?}")]
    Kind(PacketKind),
    #[error("data after the end of the data")]
    AfterEnd,
    #[error("a frame has changed while it was read")]
    Changed,
}

impl Pump {
    /// Returns the connection of an open channel and a non-blocking socket.
    pub(crate) fn new(mut channel: Channel, socket: UnixStream) -> Self {
        channel.outgoing.limit_packets(MAX_PACKET);
        Self {
            socket,
            to_host: ToHost::default(),
            to_guest: ToGuest::default(),
            peer_gone: false,
            channel,
        }
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Takes the events that epoll reports for the socket.
    pub(crate) fn socket_events(&mut self, events: u32) {
        let has = |event: libc::c_int| events & event as u32 != 0;
        let gone = has(libc::EPOLLHUP) || has(libc::EPOLLERR);
        self.peer_gone |= gone;
        self.to_guest.ends |= gone || has(libc::EPOLLRDHUP);
        self.to_guest.is_readable |= self.to_guest.ends || has(libc::EPOLLIN);
        self.to_host.is_writable |= gone || has(libc::EPOLLOUT);
    }

    /// Returns true if the guest does not signal free space, so that the loop must look for it.
    pub(crate) fn must_poll(&self) -> bool {
        self.to_guest.must_poll
    }

    /// Moves bytes for a bounded time, without blocking.
    ///
    /// # Errors
    /// [`Fault`]: the guest broke the connection.
    pub(crate) fn turn(
        &mut self,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<Turn, Fault> {
        if self.channel.is_closing() {
            // The guest's last bytes, as many as the socket takes now.
            for _ in 0..CLOSING_ROUNDS {
                if !self.move_to_host(scratch, counters)? {
                    break;
                }
            }
            return Ok(Turn::Ended);
        }
        self.channel.incoming.mask();
        for _ in 0..TURN_ROUNDS {
            let to_host = self.move_to_host(scratch, counters)?;
            let to_guest = self.move_to_guest(scratch, counters)?;
            if self.has_ended() {
                return Ok(Turn::Ended);
            }
            if !to_host && !to_guest {
                // If the socket takes nothing, the ring stays masked: doorbells would wake the
                // loop in vain.
                let has_more = self.to_host.takes() && self.channel.incoming.unmask()?;
                return Ok(if has_more { Turn::More } else { Turn::Idle });
            }
        }
        Ok(Turn::More)
    }

    /// Returns true if no byte can move any more. The guest waits for the rescind that follows.
    fn has_ended(&self) -> bool {
        self.to_guest.is_finished() && (self.peer_gone || self.to_host.is_finished())
    }
}
