//! The kind of load of a connection, for the scheduling of the thread.

/// Minimum bytes of a turn that belongs to a stream: less than a frame of Linux (4,088), and more
/// than most messages.
const STREAM_BYTES: usize = 2048;

/// The kind of load that a turn of a connection was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Many bytes to the host, and nothing else, as in the turn before.
    Stream,
    /// Anything else: few bytes, a change of direction, such as requests and responses have, or
    /// bytes to the guest.
    Message,
}

/// The bytes that the present turn has moved.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) to_host: usize,
    pub(super) to_guest: usize,
    /// The direction of the last turn that moved bytes.
    last: Option<Direction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToHost,
    ToGuest,
    Both,
}

impl Moved {
    /// Returns the load that the turn was, and begins the next turn. `None`: no byte moved.
    pub(super) fn take_load(&mut self) -> Option<Load> {
        let Self { to_host, to_guest, last } = std::mem::take(self);
        self.last = last;
        let direction = match (to_host, to_guest) {
            (0, 0) => return None,
            (_, 0) => Direction::ToHost,
            (0, _) => Direction::ToGuest,
            _ => Direction::Both,
        };
        let is_same = self.last.replace(direction) == Some(direction);
        let is_stream = is_same && direction == Direction::ToHost && to_host >= STREAM_BYTES;
        Some(if is_stream { Load::Stream } else { Load::Message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the loads of turns with these bytes to the host and to the guest.
    fn loads<const N: usize>(turns: [(usize, usize); N]) -> [Option<Load>; N] {
        let mut moved = Moved::default();
        turns.map(|(to_host, to_guest)| {
            moved.to_host += to_host;
            moved.to_guest += to_guest;
            moved.take_load()
        })
    }

    #[test]
    fn test_many_bytes_to_the_host_are_a_stream_from_the_second_turn_on() {
        let (message, stream) = (Some(Load::Message), Some(Load::Stream));
        let many = STREAM_BYTES;
        assert_eq!(loads([(many, 0), (0, 0), (many, 0)]), [message, None, stream]);
        assert_eq!(loads([(many, 0), (0, many), (many, 0)]), [message; 3]);
    }

    #[test]
    fn test_short_messages_and_bytes_to_the_guest_are_no_stream() {
        let message = Some(Load::Message);
        let (few, many) = (STREAM_BYTES - 1, STREAM_BYTES);
        assert_eq!(loads([(few, 0), (few, 0), (few, 0)]), [message; 3]);
        assert_eq!(loads([(0, many), (0, many), (0, many)]), [message; 3]);
        assert_eq!(loads([(many, many), (many, many)]), [message; 2]);
    }
}
