use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;

use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::testing::{begin, end};

/// A path for a socket, in a directory of its own.
struct Place {
    folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("sock");
        Place { folder, path }
    }

    fn bind(&self) -> Result<ListeningSocket, SocketError> {
        self.bind_within(Duration::ZERO)
    }

    /// Calls [`ListeningSocket::bind_within`]. A call that never returns fails the test.
    fn bind_within(&self, timeout: Duration) -> Result<ListeningSocket, SocketError> {
        let path = self.path.clone();
        end(&begin(move || ListeningSocket::bind_within(&path, timeout)))
    }

    fn refusal(&self) -> String {
        self.bind().unwrap_err().to_string()
    }

    /// Leaves a socket on which no program listens, as after a kill.
    fn leave_dead_socket(&self) {
        drop(UnixListener::bind(&self.path).unwrap());
    }

    /// Locks the directory, as any user with read access can.
    fn lock(&self) -> File {
        let folder = File::open(self.folder.as_path()).unwrap();
        // SAFETY: flock takes a descriptor and a number; the descriptor is open.
        assert_eq!(unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
        folder
    }
}

/// Fills the queue of clients that wait to be accepted. Returns the clients.
fn fill(listener: &UnixListener, path: &Path) -> Vec<UnixStream> {
    // SAFETY: listen takes a descriptor and a number; the descriptor is an open socket.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let clients = std::iter::from_fn(|| connect(path, Duration::ZERO).ok()).collect();
    let error = connect(path, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    clients
}

#[test]
fn test_socket_is_private_whatever_the_umask_and_gone_after_its_owner() {
    let place = Place::new();
    let socket = place.bind().unwrap();
    let mode = std::fs::metadata(socket.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    drop(socket);
    assert!(!place.path.exists());
}

#[test]
fn test_socket_of_a_live_program_is_refused_and_stays() {
    let place = Place::new();
    let live = place.bind().unwrap();
    assert!(place.refusal().contains("another program listens there"), "{}", place.refusal());
    drop(UnixStream::connect(&place.path).unwrap());
    // The program's queue is full.
    let _clients = fill(live.listener(), &place.path);
    assert!(place.refusal().contains("another program listens there"), "{}", place.refusal());
    assert!(place.path.exists());
}

#[test]
fn test_socket_left_by_a_dead_program_is_replaced() {
    let place = Place::new();
    place.leave_dead_socket();
    let socket = place.bind().unwrap();
    drop(UnixStream::connect(socket.path()).unwrap());
}

#[test]
fn test_file_that_is_no_socket_is_refused_and_stays() {
    let place = Place::new();
    std::fs::write(&place.path, "precious").unwrap();
    assert!(place.refusal().contains("is not a socket"), "{}", place.refusal());
    assert_eq!(std::fs::read_to_string(&place.path).unwrap(), "precious");
    std::fs::remove_file(&place.path).unwrap();
    std::fs::create_dir(&place.path).unwrap();
    assert!(place.refusal().contains("is not a socket"), "{}", place.refusal());
    assert!(place.path.is_dir());
}

#[test]
fn test_symbolic_link_is_refused_and_neither_it_nor_its_target_changes() {
    let place = Place::new();
    let target = place.folder.as_path().join("target");
    symlink(&target, &place.path).unwrap();
    let dangling = place.refusal();
    assert!(dangling.contains("is not a socket"), "{dangling}");
    assert!(!target.exists());
    drop(UnixListener::bind(&target).unwrap());
    assert!(
        place.refusal().contains("is not a socket"),
        "a dead socket behind a link is not ours to remove"
    );
    assert!(target.exists() && place.path.is_symlink());
}

#[test]
fn test_socket_of_another_user_is_refused_and_stays() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("left out: only root can give a file to another user");
        return;
    }
    let place = Place::new();
    place.leave_dead_socket();
    std::os::unix::fs::chown(&place.path, Some(65534), None).unwrap();
    assert!(place.refusal().contains("another user"), "{}", place.refusal());
    assert!(place.path.exists());
}

#[test]
fn test_folder_locked_by_another_program_does_not_keep_a_new_socket_out() {
    let place = Place::new();
    let _lock = place.lock();
    let socket = place.bind_within(Duration::MAX).unwrap();
    drop(UnixStream::connect(socket.path()).unwrap());
    assert!(place.refusal().contains("another program listens there"), "{}", place.refusal());
}

#[test]
fn test_dead_socket_in_a_folder_locked_by_another_program_is_refused_until_it_lets_go() {
    let place = Place::new();
    place.leave_dead_socket();
    let lock = place.lock();
    let refusal = place.refusal();
    assert!(refusal.contains("locked") && refusal.contains("remove the socket"), "{refusal}");
    assert!(refusal.contains(&*place.folder.as_path().to_string_lossy()), "{refusal}");
    assert!(place.path.exists());
    drop(lock);
    place.bind().unwrap();
}

#[test]
fn test_lock_of_the_folder_is_waited_for_where_a_dead_socket_is_replaced() {
    let place = Place::new();
    place.leave_dead_socket();
    let lock = place.lock();
    std::thread::scope(|scope| {
        let binding = scope.spawn(|| ListeningSocket::bind_within(&place.path, Duration::MAX));
        drop(lock);
        binding.join().unwrap().unwrap();
    });
}

#[test]
fn test_name_taken_over_by_another_program_is_not_removed() {
    let place = Place::new();
    let socket = place.bind().unwrap();
    std::fs::remove_file(&place.path).unwrap();
    std::fs::write(&place.path, "another's").unwrap();
    drop(socket);
    assert!(place.path.exists());
}

#[test]
fn test_impossible_place_is_explained() {
    let place = Place::new();
    let refusal = |path: PathBuf| ListeningSocket::bind(&path).unwrap_err().to_string();
    assert!(refusal(place.folder.as_path().join("no/sock")).contains("no directory"));
    assert!(refusal(place.folder.as_path().join("x".repeat(120))).contains("at most 107"));
}

#[test]
fn test_path_of_the_longest_length_is_bound_and_one_byte_more_is_not() {
    let place = Place::new();
    let room = MAX_PATH - place.folder.as_path().as_os_str().len() - 1;
    let named = |length: usize| place.folder.as_path().join("x".repeat(length));
    drop(ListeningSocket::bind(&named(room)).unwrap());
    assert!(ListeningSocket::bind(&named(room + 1)).is_err());
}

#[test]
fn test_connect_to_a_full_queue_ends_with_the_timeout() {
    let place = Place::new();
    let socket = place.bind().unwrap();
    let _clients = fill(socket.listener(), &place.path);
    let path = place.path.clone();
    let error = end(&begin(move || connect(&path, Duration::from_millis(1)))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}
