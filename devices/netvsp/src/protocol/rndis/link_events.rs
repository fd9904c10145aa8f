//! Indications of the link, with time between them (netvsc section 9).

use std::time::Duration;

use super::super::oid::Link;
use super::control_message::ControlMessage;

/// Decides when the guest learns of a change of the link. Begins when the guest sends INITIALIZE.
///
/// Older guests lose a change that follows another one quickly, so changes are at least 5 seconds
/// apart. A link that is back in the reported state by then causes no indication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvents {
    reported: Link,
    last: Option<Duration>,
}

/// The decision about the state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkDecision {
    /// The guest knows the state.
    UpToDate,
    /// Send this indication, then ask again.
    Send(LinkIndication),
    /// Ask again after this time.
    Wait(Duration),
}

/// An indication of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkIndication {
    /// The link is up.
    Up,
    /// The link is down.
    Down,
    /// The link has another speed, in bit/s.
    Speed(u64),
}

impl LinkIndication {
    /// Returns the message to the guest.
    pub fn message(self) -> ControlMessage {
        match self {
            Self::Up => ControlMessage::media_connect(true),
            Self::Down => ControlMessage::media_connect(false),
            Self::Speed(speed) => ControlMessage::link_speed(Link { is_up: true, speed }),
        }
    }
}

impl LinkEvents {
    /// Least time between two indications.
    pub const SPACING: Duration = Duration::from_secs(5);

    /// Begins with the state that queries report.
    pub fn new(link: Link) -> Self {
        Self { reported: link, last: None }
    }

    /// Compares the state of the link with the reported one at time `now`, counted from any fixed
    /// start. `may_change_speed`: the guest has
    /// [`Capabilities::TEAMING`](crate::protocol::nvsp::Capabilities::TEAMING).
    pub fn poll(&mut self, now: Duration, link: Link, may_change_speed: bool) -> LinkDecision {
        let is_speed_new = may_change_speed && link.speed != self.reported.speed;
        if link.is_up == self.reported.is_up && !is_speed_new {
            return LinkDecision::UpToDate;
        }
        let elapsed = self.last.map_or(Self::SPACING, |last| now.saturating_sub(last));
        if let Some(wait) = Self::SPACING.checked_sub(elapsed).filter(|wait| !wait.is_zero()) {
            return LinkDecision::Wait(wait);
        }
        self.last = Some(now);
        if link.is_up != self.reported.is_up {
            self.reported.is_up = link.is_up;
            LinkDecision::Send(if link.is_up { LinkIndication::Up } else { LinkIndication::Down })
        } else {
            self.reported.speed = link.speed;
            LinkDecision::Send(LinkIndication::Speed(link.speed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Link = Link { is_up: true, speed: 1_000_000_000 };
    const DOWN: Link = Link { is_up: false, ..UP };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Checklist 39.
    #[test]
    fn test_link_changes_are_5_seconds_apart() {
        let mut events = LinkEvents::new(UP);
        assert_eq!(events.poll(seconds(0), UP, false), LinkDecision::UpToDate);
        let down = LinkDecision::Send(LinkIndication::Down);
        assert_eq!(events.poll(seconds(1), DOWN, false), down);
        assert_eq!(events.poll(seconds(1), DOWN, false), LinkDecision::UpToDate);
        assert_eq!(events.poll(seconds(2), UP, false), LinkDecision::Wait(seconds(4)));
        // Time that goes backwards waits for the whole interval.
        assert_eq!(events.poll(seconds(0), UP, false), LinkDecision::Wait(seconds(5)));
        let up = LinkDecision::Send(LinkIndication::Up);
        assert_eq!(events.poll(seconds(6), UP, false), up);
    }

    #[test]
    fn test_link_indications_are_messages() {
        assert_eq!(LinkIndication::Up.message(), ControlMessage::media_connect(true));
        assert_eq!(LinkIndication::Down.message(), ControlMessage::media_connect(false));
        let speed = LinkIndication::Speed(UP.speed).message();
        assert_eq!(speed, ControlMessage::link_speed(UP));
    }

    #[test]
    fn test_link_back_in_time_causes_no_indication() {
        let mut events = LinkEvents::new(UP);
        events.poll(seconds(1), DOWN, false);
        assert_eq!(events.poll(seconds(2), UP, false), LinkDecision::Wait(seconds(4)));
        assert_eq!(events.poll(seconds(3), DOWN, false), LinkDecision::UpToDate);
        assert_eq!(events.poll(seconds(9), DOWN, false), LinkDecision::UpToDate);
    }

    #[test]
    fn test_link_speed_is_indicated_to_capable_guests_only() {
        let faster = Link { speed: 10_000_000_000, ..UP };
        let mut events = LinkEvents::new(UP);
        assert_eq!(events.poll(seconds(1), faster, false), LinkDecision::UpToDate);
        let indication = LinkDecision::Send(LinkIndication::Speed(faster.speed));
        assert_eq!(events.poll(seconds(1), faster, true), indication);
        assert_eq!(events.poll(seconds(1), faster, true), LinkDecision::UpToDate);
    }
}
