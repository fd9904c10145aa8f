//! Limits of host sockets. docs/limits.md has the reasons.

use std::time::Duration;

/// Maximum connections of a machine. The bus has 2,047 channels, of which other devices need some.
pub const MAX_CONNECTIONS: usize = 1792;

/// Maximum requests of the guest that wait for their turn.
pub const MAX_REQUESTS: usize = 2048;

/// Maximum host programs that have connected and not sent their request yet. One more: the oldest
/// is disconnected.
pub const MAX_CLIENTS: usize = 64;

/// Time in which a host program must send its request.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which the guest must open an offered connection. Linux opens it in milliseconds if a
/// program listens, and never if none does.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after the last byte to the guest in which the guest must end its direction too, if the host
/// program has closed its socket. An offer that is rescinded earlier is an error for a write of
/// Linux that is just returning.
pub const LINGER_TIME: Duration = Duration::from_millis(200);

/// Time for which a request is tried again while the queue of the listening program is full. Linux
/// waits two seconds for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two attempts.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Time for which nothing is accepted after the process had no descriptor left.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Interval in which a connection to a guest without the feature bit of the ring (vmbus-core 6.1)
/// looks for free space.
pub(crate) const SPACE_POLL: Duration = Duration::from_millis(1);

/// Pieces of memory of one system call.
pub(crate) const MAX_PIECES: usize = 128;

/// Frames to the guest of one system call.
pub(crate) const MAX_FRAMES: usize = 16;

/// Rounds of a connection before the next one has its turn: at most 512 KiB each way.
pub(crate) const TURN_ROUNDS: usize = 2;

/// Rounds of a connection that the guest closes, to write its last bytes to the socket.
pub(crate) const CLOSING_ROUNDS: usize = 8;

/// Requests of the guest, and host programs, that are handled before data moves again.
pub(crate) const ROUND_REQUESTS: usize = 64;
