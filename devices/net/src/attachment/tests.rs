use super::*;
use crate::conformance::{Memory, OverSwitch, check, frame, is_readable, receive};
use crate::{Counters, Frame, LinkState, NullNet, SendError, Switch, UnixLink};

fn attach(inner: impl Backend + 'static) -> Attachment {
    Attachment::new(Arc::new(inner), LinkState::Up).unwrap()
}

fn send(queue: &mut dyn Queue, bytes: &[u8]) -> Result<(), SendError> {
    queue.send(&Frame::new(&Memory::whole(bytes).pieces()))
}

#[test]
fn test_attachment_does_all_that_a_backend_must() {
    check(|| OverSwitch::new(attach));
}

#[test]
fn test_attachment_whose_link_is_taken_down_drops_frames_of_both_directions() {
    let switch = Switch::new(2).unwrap();
    let attachment = attach(switch.port(0).unwrap());
    let mut near = attachment.queue(0).unwrap();
    let mut far = switch.port(1).unwrap().queue(0).unwrap();
    attachment.set_link(LinkState::Down);
    assert!(is_readable(attachment.link_event().unwrap()));
    assert_eq!(attachment.link(), LinkState::Down);
    assert!(!is_readable(attachment.link_event().unwrap()));
    assert_eq!(send(&mut *near, &frame(100, 1)), Err(SendError::LinkDown));
    for tag in 0..3 {
        send(&mut *far, &frame(100, tag)).unwrap();
    }
    assert_eq!(receive(&mut *near, 100), Ok(None));
    assert!(!is_readable(near.event().unwrap()), "all frames are dropped");
    attachment.set_link(LinkState::Up);
    assert!(is_readable(attachment.link_event().unwrap()));
    assert_eq!(attachment.link(), LinkState::Up);
    send(&mut *near, &frame(100, 4)).unwrap();
    assert_eq!(receive(&mut *far, 100), Ok(Some(frame(100, 4))));
    let [report] = attachment.queue_reports()[..] else { panic!("one queue") };
    let expected =
        Counters { sent_frames: 1, sent_bytes: 100, send_link_down: 1, ..Counters::default() };
    assert_eq!(report, QueueReport { counters: expected, receive_link_down: 3 });
}

#[test]
fn test_attachment_report_of_the_link_leaves_the_change_pending() {
    let (near, far) = UnixLink::pair().unwrap();
    let attachment = attach(near);
    let mut queue = attachment.queue(0).unwrap();
    assert_eq!(attachment.link(), LinkState::Up);
    drop(far);
    assert_eq!(send(&mut *queue, &frame(100, 1)), Err(SendError::LinkDown));
    assert_eq!(attachment.link_state(), LinkState::Down);
    assert!(is_readable(attachment.link_event().unwrap()), "the card has not seen the change");
    assert_eq!(attachment.link(), LinkState::Down);
    assert_eq!(attachment.link_state(), LinkState::Down);
    assert!(!is_readable(attachment.link_event().unwrap()), "the card has seen the change");
    assert_eq!(attachment.chosen_link(), LinkState::Up);
}

#[test]
fn test_attachment_totals_grow_over_all_uses_of_a_queue() {
    let attachment = attach(NullNet::new(2).repeating(&frame(60, 1)));
    for _ in 0..2 {
        let mut queue = attachment.queue(1).unwrap();
        send(&mut *queue, &frame(100, 1)).unwrap();
        assert_eq!(send(&mut *queue, &[0; 13]), Err(SendError::Length(13)));
        receive(&mut *queue, 60).unwrap().unwrap();
        receive(&mut *queue, 59).unwrap_err();
    }
    let [unused, used] = attachment.queue_reports()[..] else { panic!("two queues") };
    assert_eq!(unused, QueueReport::default());
    let counters = used.counters;
    assert_eq!((counters.sent_frames, counters.sent_bytes), (2, 200));
    assert_eq!((counters.received_frames, counters.received_bytes), (2, 120));
    assert_eq!((counters.send_invalid, counters.receive_too_long), (2, 2));
}

#[test]
fn test_attachment_frames_that_a_port_has_no_space_for_are_reported() {
    let switch = Switch::new(2).unwrap();
    let attachment = attach(switch.port(0).unwrap());
    let mut near = attachment.queue(0).unwrap();
    let mut far = switch.port(1).unwrap().queue(0).unwrap();
    for _ in 0..2000 {
        send(&mut *far, &frame(1000, 1)).unwrap();
    }
    let mut received = 0;
    while receive(&mut *near, 1000).unwrap().is_some() {
        received += 1;
    }
    let counters = attachment.queue_reports()[0].counters;
    assert_eq!(counters.received_frames, received);
    assert_eq!(counters.receive_overflow, 2000 - received);
    assert_ne!(counters.receive_overflow, 0);
}

#[test]
fn test_attachment_mtu_is_that_of_the_user_or_the_smaller_one_of_the_backend() {
    assert_eq!(attach(NullNet::new(1)).mtu_limit(), 65_535);
    assert_eq!(attach(NullNet::new(1)).with_mtu(1400).mtu_limit(), 1400);
    let smaller = Arc::new(attach(NullNet::new(1)).with_mtu(1400));
    let larger = Attachment::new(smaller, LinkState::Up).unwrap().with_mtu(9000);
    assert_eq!(larger.mtu_limit(), 1400);
}
