//! The descriptor behind an event of epoll.

/// The descriptor behind an event. Ids are never used again, so an event that comes late finds
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The inbox of the loop.
    Wake,
    /// The socket at which host programs connect.
    Listener,
    /// A host program that has not sent its request.
    Client(u64),
    /// The socket of a connection.
    Socket(u64),
    /// The doorbell of a connection.
    Doorbell(u64),
}

impl Token {
    pub(super) fn to_data(self) -> u64 {
        match self {
            Self::Wake => 0,
            Self::Listener => 1,
            Self::Client(id) => id << 2 | 1,
            Self::Socket(id) => id << 2 | 2,
            Self::Doorbell(id) => id << 2 | 3,
        }
    }

    /// Returns the token with the data. Ids are at least 1.
    pub(super) fn from_data(data: u64) -> Self {
        match (data, data >> 2, data & 3) {
            (1, _, _) => Self::Listener,
            (_, id, 1) => Self::Client(id),
            (_, id, 2) => Self::Socket(id),
            (_, id, 3) => Self::Doorbell(id),
            _ => Self::Wake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_token_of_each_kind_comes_back_from_its_data() {
        for id in [1, 2, u64::MAX >> 2] {
            for token in [
                Token::Wake,
                Token::Listener,
                Token::Client(id),
                Token::Socket(id),
                Token::Doorbell(id),
            ] {
                assert_eq!(Token::from_data(token.to_data()), token);
            }
        }
    }
}
