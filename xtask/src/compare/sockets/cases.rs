//! The measured loads on host sockets.

use guest_report::agent::SocketDirection;

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Bytes over `streams` connections at the same time.
    Stream {
        direction: SocketDirection,
        streams: u32,
        /// Bytes of all connections.
        bytes: u64,
    },
    /// `BYTES` to the host and back, again and again.
    RoundTrips { count: u32 },
}

impl Case {
    /// Bytes of a round trip.
    pub(super) const BYTES: usize = 64;

    /// Bytes of a stream, and number of round trips: of a whole run, and for `--quick`.
    const STREAM_BYTES: [u64; 2] = [512 << 20, 64 << 20];
    const ROUND_TRIPS: [u32; 2] = [4000, 1000];

    /// Returns all cases, in the order of measurement.
    pub(super) fn all(quick: bool) -> Vec<Case> {
        let quick = usize::from(quick);
        let (bytes, count) = (Case::STREAM_BYTES[quick], Case::ROUND_TRIPS[quick]);
        let mut cases = Vec::new();
        for direction in [SocketDirection::Send, SocketDirection::Receive] {
            for streams in [1, 4] {
                cases.push(Case::Stream { direction, streams, bytes });
            }
        }
        cases.push(Case::RoundTrips { count });
        cases
    }

    /// Returns the name, such as `send_4` or `round_trip`. The direction is the guest's.
    pub(super) fn name(&self) -> String {
        match self {
            Case::Stream { direction: SocketDirection::Send, streams, .. } => {
                format!("send_{streams}")
            }
            Case::Stream { direction: SocketDirection::Receive, streams, .. } => {
                format!("receive_{streams}")
            }
            Case::RoundTrips { .. } => "round_trip".to_owned(),
        }
    }

    /// Returns the work in the case's unit: mebibytes, or round trips.
    pub(super) fn work(&self) -> f64 {
        match self {
            Case::Stream { bytes, .. } => *bytes as f64 / f64::from(1 << 20),
            Case::RoundTrips { count } => f64::from(*count),
        }
    }

    /// Returns the same load with nearly no work, whose costs are those of everything else.
    pub(super) fn nearly_nothing(&self) -> Case {
        match *self {
            Case::Stream { direction, streams, .. } => {
                Case::Stream { direction, streams, bytes: streams.into() }
            }
            Case::RoundTrips { .. } => Case::RoundTrips { count: 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_quick_cases_are_the_same_and_shorter() {
        let names = |quick| Case::all(quick).iter().map(Case::name).collect::<Vec<_>>();
        assert_eq!(names(false), ["send_1", "send_4", "receive_1", "receive_4", "round_trip"]);
        assert_eq!(names(true), names(false));
        for (quick, whole) in Case::all(true).iter().zip(Case::all(false)) {
            assert!(quick.work() < whole.work(), "{quick:?}");
        }
    }
}
