//! The measured loads on a network card.

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// iperf3 for some seconds.
    Stream(Stream),
    /// One byte to the host and back over TCP, again and again.
    RoundTrips { count: u32 },
}

/// A load of iperf3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) protocol: Protocol,
    pub(super) direction: Direction,
    /// Number of concurrent streams.
    pub(super) streams: u32,
    pub(super) seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// The direction in the guest's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Send,
    Receive,
}

/// Bytes of payload in a packet on the wire: a TCP segment with time stamps at an MTU of 1,500, and
/// the datagrams that iperf3 is told to send.
const TCP_PAYLOAD: u32 = 1448;
pub(super) const UDP_PAYLOAD: u32 = 1448;

/// Duration of a stream, and number of round trips: of a whole run, and for `--quick`.
const SECONDS: [u32; 2] = [3, 1];
const ROUND_TRIPS: [u32; 2] = [2000, 500];

impl Case {
    /// Returns all cases, in the order of measurement.
    pub(super) fn all(quick: bool) -> Vec<Case> {
        let [seconds, count] = [SECONDS, ROUND_TRIPS].map(|of| of[usize::from(quick)]);
        let mut cases = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for direction in [Direction::Send, Direction::Receive] {
                for streams in [1, 4] {
                    let stream = Stream { protocol, direction, streams, seconds };
                    cases.push(Case::Stream(stream));
                }
            }
        }
        cases.push(Case::RoundTrips { count });
        cases
    }

    /// Returns the name, such as `tcp_send_4` or `round_trip`.
    pub(super) fn name(&self) -> String {
        match self {
            Case::Stream(stream) => {
                let protocol = match stream.protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                };
                let direction = match stream.direction {
                    Direction::Send => "send",
                    Direction::Receive => "receive",
                };
                format!("{protocol}_{direction}_{}", stream.streams)
            }
            Case::RoundTrips { .. } => "round_trip".to_owned(),
        }
    }
}

impl Protocol {
    /// Returns the bytes of payload in a packet on the wire.
    pub(super) fn payload(self) -> f64 {
        f64::from(match self {
            Protocol::Tcp => TCP_PAYLOAD,
            Protocol::Udp => UDP_PAYLOAD,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_cases_have_names_of_their_own() {
        let mut names: Vec<String> = Case::all(false).iter().map(Case::name).collect();
        assert_eq!((names[1].as_str(), names[6].as_str()), ("tcp_send_4", "udp_receive_1"));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 9);
    }

    #[test]
    fn test_quick_cases_are_the_same_and_shorter() {
        let names = |quick| Case::all(quick).iter().map(Case::name).collect::<Vec<_>>();
        assert_eq!(names(true), names(false));
        assert!(Case::all(true) != Case::all(false));
    }
}
