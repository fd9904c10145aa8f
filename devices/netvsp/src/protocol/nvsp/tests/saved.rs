//! Save and restore.

use super::*;

/// Checklist 44.
#[test]
fn test_session_restored_equals_the_saved_one() {
    for version in NvspVersion::ALL {
        let mut session = ready(version);
        handle(&mut session, 100, &[6, 30]);
        handle(&mut session, 133, &[1, 3]);
        assert_eq!(Session::restore(&session.save(), 7), Ok(session.clone()));
        handle(&mut session, 103, &[0]);
        assert_eq!(Session::restore(&session.save(), 7), Ok(session));
    }
    let fresh = Session::new(7);
    assert_eq!(Session::restore(&fresh.save(), 7), Ok(fresh));
}

#[test]
fn test_session_restore_of_impossible_state_is_refused() {
    let mut session = ready(NvspVersion::V61);
    handle(&mut session, 133, &[1, 3]);
    let good = session.save();
    let change: [fn(&mut SavedSession); 8] = [
        |saved| saved.version = None,
        |saved| saved.version = Some(3),
        |saved| saved.max_frame = None,
        |saved| saved.max_frame = Some(100),
        |saved| saved.receive_buffer = SavedBuffer::Accepted { id: 1, length: 100 },
        |saved| saved.send_buffer = SavedBuffer::Accepted { id: 1, length: 100 },
        |saved| saved.subchannels = Some(8),
        |saved| saved.version = Some(2),
    ];
    for change in change {
        let mut saved = good.clone();
        change(&mut saved);
        assert!(Session::restore(&saved, 7).is_err(), "{saved:?}");
    }
}
